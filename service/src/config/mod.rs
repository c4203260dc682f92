//! The configuration file: TOML in, checked values out. Nothing past this module sees a raw string
//! that still has to be validated.

mod allowed_origins;

pub use allowed_origins::AllowedOrigins;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use url::Url;

use crate::provider::Provider;
use crate::token::SigningKey;
use approov_verify::secret::Secret;

/// Where the service listens when the configuration does not say.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8087);

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Certificate chain and key, PEM files. `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where replays and rates are remembered.
    pub store: StoreAddress,
    /// The service's URL as browsers see it, when a proxy in front changes it.
    pub public_url: Option<Url>,
    /// How many proxies in front append to `X-Forwarded-For`. 0: the peer address is the client's.
    pub trusted_proxies: usize,
    /// Bounds that keep clients from holding the service.
    pub limits: Limits,
    /// The accounts, by site key.
    pub accounts: BTreeMap<String, Account>,
    /// Key material of the nonces when it is configured apart from the accounts.
    pub nonce_secret: Option<Secret>,
}

/// PEM files of the TLS identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// Where shared state lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    /// In this process.
    Memory,
    /// In a Redis server, shared by replicas.
    Redis(String),
}

/// Bounds on what a client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request body, bytes.
    pub body_bytes: usize,
    /// Most connections open at once.
    pub connections: usize,
    /// Longest time from a request's first byte to its answer.
    pub request: Duration,
    /// Longest wait for one answer of a check service.
    pub check: Duration,
    /// Most proofs remembered by the memory store.
    pub replay_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 64 * 1024,
            connections: 10_000,
            request: Duration::from_secs(30),
            check: Duration::from_secs(8),
            replay_entries: 4_000_000,
        }
    }
}

/// One customer of the service.
#[derive(Clone, Debug)]
pub struct Account {
    /// Public name of the account (`approovSiteKey`).
    pub site_key: String,
    /// HS256 key of its tokens; nonce and refresh-token keys derive from it.
    pub secret: Secret,
    /// A256GCMKW key, 32 bytes.
    pub jwe_secret: Option<Secret>,
    /// Life of a token.
    pub token_lifetime: Duration,
    /// Life of a session.
    pub refresh_token_lifetime: Duration,
    /// Pages that may use it.
    pub allowed_origins: AllowedOrigins,
    /// Asymmetric signing keys, by key id.
    pub keys: BTreeMap<String, SigningKey>,
    /// Protected APIs, by lower-case domain.
    pub apis: BTreeMap<String, Api>,
    /// Check services.
    pub checks: BTreeMap<Provider, Check>,
}

/// A protected API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Whether web tokens are given out for it.
    pub allow_web: bool,
    /// Whether its tokens are encrypted.
    pub jwe: bool,
    /// The signing key, when not the account secret.
    pub keyset_kid: Option<String>,
}

/// One check service of an account.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// Whether every session needs a result of it.
    pub required: bool,
    /// Its sites or subscriptions, by public key.
    pub sites: BTreeMap<String, Site>,
}

/// A site (hCaptcha, reCAPTCHA) or subscription (Fingerprint).
#[derive(Clone, Debug)]
pub struct Site {
    /// The secret that the check service wants.
    pub secret: Secret,
    /// Whether full results go into encrypted tokens.
    pub embed_result: bool,
    /// Life of a result; `None`: as long as the refresh token.
    pub max_result_lifetime: Option<Duration>,
    /// Checks per minute; `None`: no limit.
    pub rate_limit: Option<u64>,
    /// Where the check service is asked.
    pub verify_url: Url,
    /// What a result must meet.
    pub rule: Rule,
}

/// What a result must meet to pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// hCaptcha and reCAPTCHA.
    Captcha {
        /// Host names that may have solved it; empty: any.
        domains: Vec<String>,
        /// reCAPTCHA v3 actions; empty: any.
        actions: Vec<String>,
        /// Least score.
        min_score: f64,
        /// Whether the client's address is sent along.
        include_ip: bool,
    },
    /// Fingerprint.
    Fingerprint {
        /// Longest time between the identification and the token request.
        max_elapsed_time: Duration,
        /// Highest bot probability.
        max_bot_probability: f64,
    },
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Line and column, both from 1, where they are known.
    pub position: Option<(usize, usize)>,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads a configuration. `env` looks up the variables that `secret_env` names.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and column.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let raw: raw::Config = toml::from_str(text).map_err(|e| ConfigError {
            position: e.span().map(|span| position(text, span.start)),
            message: e.message().to_owned(),
        })?;
        let reader = Reader { text, env };
        reader.config(raw)
    }
}

/// Line and column, from 1, of a byte offset.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The file as it is written, before any meaning is checked. Every struct refuses unknown names.
mod raw {
    use super::{Deserialize, Spanned};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Config {
        pub(super) listen: Option<Spanned<String>>,
        pub(super) tls_cert: Option<Spanned<String>>,
        pub(super) tls_key: Option<Spanned<String>>,
        pub(super) store: Option<Spanned<String>>,
        pub(super) public_url: Option<Spanned<String>>,
        #[serde(default)]
        pub(super) trusted_proxies: usize,
        pub(super) nonce_secret: Option<Spanned<String>>,
        #[serde(default)]
        pub(super) limits: Limits,
        #[serde(default)]
        pub(super) account: Vec<Account>,
    }

    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Limits {
        pub(super) body_bytes: Option<usize>,
        pub(super) connections: Option<usize>,
        pub(super) request_seconds: Option<Spanned<f64>>,
        pub(super) check_seconds: Option<Spanned<f64>>,
        pub(super) replay_entries: Option<usize>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Account {
        pub(super) site_key: Spanned<String>,
        pub(super) secret: Option<Spanned<String>>,
        pub(super) secret_env: Option<Spanned<String>>,
        pub(super) jwe_secret: Option<Spanned<String>>,
        pub(super) jwe_secret_env: Option<Spanned<String>>,
        pub(super) token_lifetime: Option<Spanned<u32>>,
        pub(super) refresh_token_lifetime: Option<Spanned<u32>>,
        #[serde(default)]
        pub(super) allowed_origins: Vec<Spanned<String>>,
        #[serde(default)]
        pub(super) key: Vec<Key>,
        #[serde(default)]
        pub(super) api: Vec<Api>,
        pub(super) fingerprint: Option<Fingerprint>,
        pub(super) hcaptcha: Option<Captcha>,
        pub(super) recaptcha: Option<Captcha>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Key {
        pub(super) kid: Spanned<String>,
        pub(super) alg: Spanned<String>,
        pub(super) private_key: Spanned<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Api {
        pub(super) domain: Spanned<String>,
        #[serde(default)]
        pub(super) allow_web: bool,
        #[serde(default)]
        pub(super) jwe: Option<Spanned<bool>>,
        pub(super) keyset_kid: Option<Spanned<String>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Fingerprint {
        #[serde(default)]
        pub(super) required: bool,
        #[serde(default)]
        pub(super) subscription: Vec<Subscription>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Subscription {
        pub(super) public_api_key: Spanned<String>,
        pub(super) secret: Option<Spanned<String>>,
        pub(super) secret_env: Option<Spanned<String>>,
        pub(super) region: Option<Spanned<String>>,
        pub(super) max_elapsed_time: Option<Spanned<f64>>,
        pub(super) max_bot_probability: Option<Spanned<f64>>,
        #[serde(default)]
        pub(super) embed_result: bool,
        #[serde(default)]
        pub(super) max_result_lifetime: u32,
        #[serde(default)]
        pub(super) rate_limit: u64,
        pub(super) verify_url: Option<Spanned<String>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Captcha {
        #[serde(default)]
        pub(super) required: bool,
        #[serde(default)]
        pub(super) site: Vec<CaptchaSite>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct CaptchaSite {
        pub(super) site_key: Spanned<String>,
        pub(super) secret: Option<Spanned<String>>,
        pub(super) secret_env: Option<Spanned<String>>,
        #[serde(default)]
        pub(super) domains: Vec<String>,
        #[serde(default)]
        pub(super) actions: Vec<String>,
        pub(super) min_score: Option<Spanned<f64>>,
        #[serde(default)]
        pub(super) include_ip: bool,
        #[serde(default)]
        pub(super) embed_result: bool,
        #[serde(default)]
        pub(super) max_result_lifetime: u32,
        #[serde(default)]
        pub(super) rate_limit: u64,
        pub(super) verify_url: Option<Spanned<String>>,
    }
}

/// Turns the raw file into checked values; knows the text, for positions, and the environment.
struct Reader<'a> {
    text: &'a str,
    env: &'a dyn Fn(&str) -> Option<String>,
}

type Read<T> = Result<T, ConfigError>;

impl Reader<'_> {
    fn error<T, V>(&self, at: &Spanned<V>, message: impl Into<String>) -> Read<T> {
        Err(ConfigError { position: Some(position(self.text, at.span().start)), message: message.into() })
    }

    fn config(&self, raw: raw::Config) -> Read<Config> {
        let listen = match &raw.listen {
            None => DEFAULT_LISTEN,
            Some(listen) => match listen.get_ref().parse() {
                Ok(address) => address,
                Err(_) => {
                    return self.error(
                        listen,
                        format!(
                            "listen must be an IP address and port such as 0.0.0.0:443, got \"{}\"",
                            listen.get_ref()
                        ),
                    );
                }
            },
        };
        let tls = match (raw.tls_cert, raw.tls_key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(TlsFiles { cert: cert.into_inner().into(), key: key.into_inner().into() }),
            (Some(one), None) => return self.error(&one, "tls_cert needs tls_key beside it"),
            (None, Some(one)) => return self.error(&one, "tls_key needs tls_cert beside it"),
        };
        let store = match &raw.store {
            None => StoreAddress::Memory,
            Some(store) => match store.get_ref().as_str() {
                "memory" => StoreAddress::Memory,
                url if url.starts_with("redis://") || url.starts_with("redis+unix://") => {
                    StoreAddress::Redis(url.to_owned())
                }
                _ => {
                    return self.error(store, "store must be \"memory\" or \"redis://host:port/db\"");
                }
            },
        };
        let public_url = match &raw.public_url {
            None => None,
            Some(text) => Some(self.http_url(text)?),
        };
        let nonce_secret = match &raw.nonce_secret {
            None => None,
            Some(text) => Some(self.secret_bytes(text, 32)?),
        };
        let mut accounts = BTreeMap::new();
        for account in raw.account {
            let at = account.site_key.clone();
            let account = self.account(account)?;
            if accounts.insert(account.site_key.clone(), account).is_some() {
                return self.error(&at, format!("two accounts have the site key \"{}\"", at.get_ref()));
            }
        }
        let limits = self.limits(&raw.limits)?;
        Ok(Config {
            listen,
            tls,
            store,
            public_url,
            trusted_proxies: raw.trusted_proxies,
            limits,
            accounts,
            nonce_secret,
        })
    }

    fn limits(&self, raw: &raw::Limits) -> Read<Limits> {
        let default = Limits::default();
        let seconds = |value: &Option<Spanned<f64>>, default| match value {
            None => Ok(default),
            Some(value) => self.duration(value),
        };
        Ok(Limits {
            body_bytes: raw.body_bytes.unwrap_or(default.body_bytes),
            connections: raw.connections.unwrap_or(default.connections).max(1),
            request: seconds(&raw.request_seconds, default.request)?,
            check: seconds(&raw.check_seconds, default.check)?,
            replay_entries: raw.replay_entries.unwrap_or(default.replay_entries).max(1),
        })
    }

    fn account(&self, raw: raw::Account) -> Read<Account> {
        let site_key = self.key_text(&raw.site_key, "site_key")?;
        let secret = match self.secret_text(&raw.secret, &raw.secret_env, &raw.site_key)? {
            Some(text) => self.secret_bytes(&text, 32)?,
            None => return self.error(&raw.site_key, "the account needs secret or secret_env"),
        };
        let jwe_secret = match self.secret_text(&raw.jwe_secret, &raw.jwe_secret_env, &raw.site_key)? {
            None => None,
            Some(text) => {
                let secret = self.secret_bytes(&text, 32)?;
                if secret.as_bytes().len() != 32 {
                    return self.error(&text, "jwe_secret must be exactly 32 bytes in base64 (A256GCMKW)");
                }
                Some(secret)
            }
        };
        let allowed_origins = {
            for entry in &raw.allowed_origins {
                if let Err(message) = AllowedOrigins::parse([entry.get_ref().as_str()]) {
                    return self.error(entry, message);
                }
            }
            AllowedOrigins::parse(raw.allowed_origins.iter().map(|entry| entry.get_ref().as_str()))
                .map_err(|message| ConfigError { position: None, message })?
        };
        let mut keys = BTreeMap::new();
        for key in &raw.key {
            let kid = self.key_text(&key.kid, "kid")?;
            let Some(alg) = crate::crypto::KeyAlg::parse(key.alg.get_ref()) else {
                return self.error(&key.alg, format!("alg must be RS256 or ES256, got \"{}\"", key.alg.get_ref()));
            };
            let parsed = match SigningKey::from_pem(alg, &kid, key.private_key.get_ref()) {
                Ok(parsed) => parsed,
                Err(message) => return self.error(&key.private_key, message),
            };
            if keys.insert(kid, parsed).is_some() {
                return self.error(&key.kid, "two keys of the account have this kid");
            }
        }
        let mut apis = BTreeMap::new();
        for api in &raw.api {
            let domain = self.domain(&api.domain)?;
            if let Some(kid) = &api.keyset_kid
                && !keys.contains_key(kid.get_ref())
            {
                return self.error(kid, format!("the account has no key with kid \"{}\"", kid.get_ref()));
            }
            let jwe = match &api.jwe {
                Some(jwe) if *jwe.get_ref() && jwe_secret.is_none() => {
                    return self.error(jwe, "jwe = true needs the account's jwe_secret");
                }
                Some(jwe) => *jwe.get_ref(),
                None => false,
            };
            let value = Api {
                allow_web: api.allow_web,
                jwe,
                keyset_kid: api.keyset_kid.as_ref().map(|kid| kid.get_ref().clone()),
            };
            if apis.insert(domain, value).is_some() {
                return self.error(&api.domain, "the account has this API twice");
            }
        }
        let mut checks = BTreeMap::new();
        if let Some(raw) = &raw.fingerprint {
            checks.insert(Provider::Fingerprint, self.fingerprint(raw)?);
        }
        for (provider, raw) in [(Provider::Hcaptcha, &raw.hcaptcha), (Provider::Recaptcha, &raw.recaptcha)] {
            if let Some(raw) = raw {
                checks.insert(provider, self.captcha(provider, raw)?);
            }
        }
        Ok(Account {
            site_key,
            secret,
            jwe_secret,
            token_lifetime: self.lifetime(raw.token_lifetime.as_ref(), 120)?,
            refresh_token_lifetime: self.lifetime(raw.refresh_token_lifetime.as_ref(), 7200)?,
            allowed_origins,
            keys,
            apis,
            checks,
        })
    }

    fn fingerprint(&self, raw: &raw::Fingerprint) -> Read<Check> {
        let mut sites = BTreeMap::new();
        for site in &raw.subscription {
            let key = self.key_text(&site.public_api_key, "public_api_key")?;
            let region = site.region.as_ref().map_or("RoW", |region| region.get_ref().as_str());
            let default_url = match (region, &site.region) {
                ("RoW", _) => "https://api.fpjs.io",
                ("EU", _) => "https://eu.api.fpjs.io",
                ("AP", _) => "https://ap.api.fpjs.io",
                (_, Some(at)) => {
                    return self.error(at, format!("region must be RoW, EU or AP, got \"{region}\""));
                }
                (_, None) => "https://api.fpjs.io",
            };
            let value = Site {
                secret: self.check_secret(&site.secret, &site.secret_env, &site.public_api_key)?,
                embed_result: site.embed_result,
                max_result_lifetime: optional_seconds(site.max_result_lifetime),
                rate_limit: (site.rate_limit > 0).then_some(site.rate_limit),
                verify_url: self.verify_url(site.verify_url.as_ref(), default_url)?,
                rule: Rule::Fingerprint {
                    max_elapsed_time: match &site.max_elapsed_time {
                        Some(value) => self.duration(value)?,
                        None => Duration::from_secs(2),
                    },
                    max_bot_probability: self.probability(site.max_bot_probability.as_ref(), 1.0)?,
                },
            };
            if sites.insert(key, value).is_some() {
                return self.error(&site.public_api_key, "the account has this public_api_key twice");
            }
        }
        Ok(Check { required: raw.required, sites })
    }

    fn captcha(&self, provider: Provider, raw: &raw::Captcha) -> Read<Check> {
        let default_url = match provider {
            Provider::Recaptcha => "https://www.google.com/recaptcha/api/siteverify",
            Provider::Hcaptcha | Provider::Fingerprint => "https://api.hcaptcha.com/siteverify",
        };
        let mut sites = BTreeMap::new();
        for site in &raw.site {
            let key = self.key_text(&site.site_key, "site_key")?;
            if provider == Provider::Hcaptcha && !site.actions.is_empty() {
                return self.error(&site.site_key, "actions are reCAPTCHA's; hCaptcha has none");
            }
            let value = Site {
                secret: self.check_secret(&site.secret, &site.secret_env, &site.site_key)?,
                embed_result: site.embed_result,
                max_result_lifetime: optional_seconds(site.max_result_lifetime),
                rate_limit: (site.rate_limit > 0).then_some(site.rate_limit),
                verify_url: self.verify_url(site.verify_url.as_ref(), default_url)?,
                rule: Rule::Captcha {
                    domains: site.domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
                    actions: site.actions.clone(),
                    min_score: self.probability(site.min_score.as_ref(), 0.0)?,
                    include_ip: site.include_ip,
                },
            };
            if sites.insert(key, value).is_some() {
                return self.error(&site.site_key, "the account has this site_key twice");
            }
        }
        Ok(Check { required: raw.required, sites })
    }

    /// The text of a secret, from the file or from the environment. Both is a mistake.
    fn secret_text(
        &self,
        text: &Option<Spanned<String>>,
        env: &Option<Spanned<String>>,
        at: &Spanned<String>,
    ) -> Read<Option<Spanned<String>>> {
        match (text, env) {
            (None, None) => Ok(None),
            (Some(text), None) => Ok(Some(text.clone())),
            (None, Some(name)) => match (self.env)(name.get_ref()) {
                Some(value) if !value.is_empty() => Ok(Some(Spanned::new(name.span(), value))),
                _ => self.error(name, format!("the environment variable {} is not set", name.get_ref())),
            },
            (Some(_), Some(_)) => self.error(at, "give the secret or its environment variable, not both"),
        }
    }

    fn secret_bytes(&self, text: &Spanned<String>, at_least: usize) -> Read<Secret> {
        match Secret::from_base64(text.get_ref()) {
            Ok(secret) if secret.as_bytes().len() >= at_least => Ok(secret),
            // Not echoed: it is a secret, even when it is a wrong one.
            Ok(_) => self.error(text, format!("the secret must decode to at least {at_least} bytes")),
            Err(_) => self.error(text, "the secret must be base64 or base64url"),
        }
    }

    fn check_secret(
        &self,
        text: &Option<Spanned<String>>,
        env: &Option<Spanned<String>>,
        at: &Spanned<String>,
    ) -> Read<Secret> {
        match self.secret_text(text, env, at)? {
            Some(secret) if !secret.get_ref().is_empty() => Ok(Secret::from_bytes(secret.into_inner().into_bytes())),
            _ => self.error(at, format!("\"{}\" needs secret or secret_env", at.get_ref())),
        }
    }

    fn key_text(&self, text: &Spanned<String>, name: &str) -> Read<String> {
        let value = text.get_ref();
        if value.is_empty() || value.len() > 256 || value.chars().any(char::is_control) {
            return self.error(text, format!("{name} must be 1 to 256 printable characters"));
        }
        Ok(value.clone())
    }

    fn domain(&self, text: &Spanned<String>) -> Read<String> {
        let domain = text.get_ref().to_ascii_lowercase();
        let fits = !domain.is_empty()
            && domain.len() <= 253
            && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if fits {
            Ok(domain)
        } else {
            self.error(text, format!("domain must be a host name such as api.example.com, got \"{}\"", text.get_ref()))
        }
    }

    fn http_url(&self, text: &Spanned<String>) -> Read<Url> {
        match Url::parse(text.get_ref()) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
            _ => self.error(text, format!("must be an http or https URL, got \"{}\"", text.get_ref())),
        }
    }

    fn verify_url(&self, text: Option<&Spanned<String>>, default: &str) -> Read<Url> {
        match text {
            Some(text) => self.http_url(text),
            None => Url::parse(default).map_err(|e| ConfigError { position: None, message: e.to_string() }),
        }
    }

    fn lifetime(&self, value: Option<&Spanned<u32>>, default: u32) -> Read<Duration> {
        match value {
            None => Ok(Duration::from_secs(default.into())),
            Some(value) if *value.get_ref() > 0 => Ok(Duration::from_secs((*value.get_ref()).into())),
            Some(value) => self.error(value, "a lifetime must be at least one second"),
        }
    }

    fn duration(&self, value: &Spanned<f64>) -> Read<Duration> {
        match Duration::try_from_secs_f64(*value.get_ref()) {
            Ok(duration) if !duration.is_zero() => Ok(duration),
            _ => self.error(value, format!("must be a number of seconds above 0, got {}", value.get_ref())),
        }
    }

    fn probability(&self, value: Option<&Spanned<f64>>, default: f64) -> Read<f64> {
        match value {
            None => Ok(default),
            Some(value) if (0.0..=1.0).contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => self.error(value, format!("must be between 0 and 1, got {}", value.get_ref())),
        }
    }
}

fn optional_seconds(seconds: u32) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

impl Account {
    /// The sites of a check service, by public key; `None` when the account has none.
    pub fn sites(&self, provider: Provider) -> Option<&BTreeMap<String, Site>> {
        self.checks.get(&provider).map(|check| &check.sites).filter(|sites| !sites.is_empty())
    }

    /// One site of a check service.
    pub fn site(&self, provider: Provider, key: &str) -> Option<&Site> {
        self.sites(provider)?.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, &|name| (name == "HCAP_SECRET").then(|| "0xabc".to_owned()))
    }

    fn account(rest: &str) -> String {
        format!("[[account]]\nsite_key = \"k\"\nsecret = \"{SECRET}\"\n{rest}")
    }

    #[test]
    fn the_documented_example_is_read_whole() {
        let config = parse(&account(&format!(
            r#"jwe_secret = "{SECRET}"
allowed_origins = ["https://app.example.com", "*.example.com"]
[[account.api]]
domain = "API.example.com"
allow_web = true
jwe = true
[account.hcaptcha]
required = true
[[account.hcaptcha.site]]
site_key = "h"
secret_env = "HCAP_SECRET"
domains = ["Example.com"]
min_score = 0.5
rate_limit = 60
[[account.fingerprint.subscription]]
public_api_key = "f"
secret = "s"
region = "EU"
max_elapsed_time = 2.5
"#
        )))
        .unwrap();
        let account = &config.accounts["k"];
        assert_eq!(account.token_lifetime, Duration::from_secs(120));
        assert_eq!(account.refresh_token_lifetime, Duration::from_secs(7200));
        assert!(account.apis["api.example.com"].jwe);
        let hcaptcha = &account.checks[&Provider::Hcaptcha];
        assert!(hcaptcha.required);
        assert_eq!(hcaptcha.sites["h"].secret.as_bytes(), b"0xabc");
        assert_eq!(hcaptcha.sites["h"].rate_limit, Some(60));
        let subscription = &account.checks[&Provider::Fingerprint].sites["f"];
        assert_eq!(subscription.verify_url.as_str(), "https://eu.api.fpjs.io/");
        assert!(
            matches!(subscription.rule, Rule::Fingerprint { max_elapsed_time, .. } if max_elapsed_time == Duration::from_millis(2500))
        );
    }

    #[test]
    fn an_empty_file_is_a_service_without_accounts() {
        let config = parse("").unwrap();
        assert_eq!(config.listen, DEFAULT_LISTEN);
        assert!(config.accounts.is_empty());
    }

    #[test]
    fn a_fault_is_named_with_line_and_column() {
        for (text, position, word) in [
            ("listen = \"nowhere\"".to_owned(), (1, 10), "listen"),
            ("listen = ".to_owned(), (1, 10), ""),
            (account("token_lifetime = 0\n"), (4, 18), "lifetime"),
            (account("typo = 1\n"), (4, 1), "typo"),
            (account("[[account.api]]\ndomain = \"https://x\"\n"), (5, 10), "domain"),
            (account("[[account.api]]\ndomain = \"x\"\njwe = true\n"), (6, 7), "jwe_secret"),
            (account("[[account.api]]\ndomain = \"x\"\nkeyset_kid = \"nope\"\n"), (6, 14), "nope"),
            (account("allowed_origins = [\"example.com\"]\n"), (4, 20), "origin"),
            (account("[[account.hcaptcha.site]]\nsite_key = \"h\"\nsecret_env = \"UNSET\"\n"), (6, 14), "UNSET"),
            (
                account("[[account.recaptcha.site]]\nsite_key = \"h\"\nsecret = \"s\"\nmin_score = 2\n"),
                (7, 13),
                "between",
            ),
            ("[[account]]\nsite_key = \"k\"\nsecret = \"c2hvcnQ=\"\n".to_owned(), (3, 10), "32 bytes"),
            ("store = \"mysql://\"".to_owned(), (1, 9), "redis"),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error.position, Some(position), "{text}: {error}");
            assert!(error.message.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_wrong_secret_is_not_echoed() {
        let error = parse("[[account]]\nsite_key = \"k\"\nsecret = \"hunter2!\"\n").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
