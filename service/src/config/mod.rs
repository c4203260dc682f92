//! The configuration file: TOML in, checked values out. Nothing past this module sees a raw string
//! that still has to be validated.

mod certificate;
mod keyset;
mod limits;
mod public_urls;
mod raw;
mod reader;
mod revocations;
mod trusted_proxies;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::check::{Check, Mode, Provider, Site};
use crate::error::{Code, Problems};
use crate::secrets::{KeptSecret, Place, SecretList};
use crate::settings::Source;

pub use crate::allowed_origins::AllowedOrigins;
pub use crate::settings::ConfigError;
pub use certificate::Certificate;
pub use keyset::KeptKey;
pub use limits::Limits;
pub use public_urls::PublicUrl;
pub use revocations::{MAX_REVOKED, Revocations, Revoked};
pub use trusted_proxies::TrustedProxies;
pub use warnings::Surroundings;

/// The command that adds to a file of an earlier version what it lacks.
pub const MIGRATE: &str = "`approov-web-service config -migrate`";

/// Where the service listens when the configuration does not say.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8087);

/// Where the operations listener is when the configuration does not say.
pub const DEFAULT_OPERATIONS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8088);

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Address of the listener for `/metrics` and `/openapi.json`; `None`: [`DEFAULT_OPERATIONS`], if it is free.
    pub operations: Option<SocketAddr>,
    /// Certificate chain and key, PEM files. `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where replays and rates are remembered.
    pub store: StoreAddress,
    /// Where browsers find the service: what proofs are about.
    pub public_urls: Vec<PublicUrl>,
    /// The proxies in front, which say where requests come from.
    pub trusted_proxies: TrustedProxies,
    /// Whether they begin their connections with a PROXY protocol header (version 2).
    pub proxy_protocol: bool,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// The accounts, by site key.
    pub accounts: BTreeMap<String, Account>,
    /// What every key that only the service has is derived from. The command line can do without; `serve` cannot.
    pub session_secret: Option<SecretList>,
}

/// PEM files of the TLS identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// Where shared state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    /// In this process.
    Memory,
    /// In a Redis server, shared by replicas.
    Redis(String),
}

/// One customer of the service.
#[derive(Clone, Debug)]
pub struct Account {
    /// Public name of the account (`approovSiteKey`).
    pub site_key: String,
    /// HS256 key of its tokens. Backends have it, so no other key follows from it.
    pub secret: SecretList,
    /// The `kid` of tokens that are signed with it.
    pub secret_kid: Option<String>,
    /// A256GCMKW key, 32 bytes.
    pub jwe_secret: Option<SecretList>,
    /// Lifetime of a token.
    pub token_lifetime: Duration,
    /// Lifetime of a session.
    pub refresh_token_lifetime: Duration,
    /// Sessions that end before their time.
    pub revocations: Revocations,
    /// Pages that may use it.
    pub allowed_origins: AllowedOrigins,
    /// Whether its public keys are published.
    pub publish_jwks: bool,
    /// What its tokens have as `iss`.
    pub issuer: Option<String>,
    /// Asymmetric signing keys, by key id.
    pub keys: BTreeMap<String, KeptKey>,
    /// Protected APIs, by lower-case domain.
    pub apis: BTreeMap<String, Api>,
    /// Check services of which one result must come, whichever; empty: that is not asked for.
    pub any_of: Vec<Provider>,
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
    /// What its tokens have as `aud`.
    pub audience: Option<String>,
}

impl Config {
    /// Reads a configuration. Secrets that are kept elsewhere are not looked at: that is for who needs them.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and column.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        reader::config(&Source { text })
    }

    /// The service's own secret.
    ///
    /// # Errors
    /// When there is none: nothing can be served then.
    pub fn session_secret(&self) -> Result<&SecretList, ConfigError> {
        self.session_secret.as_ref().ok_or_else(|| ConfigError {
            position: None,
            message: format!("there is no session_secret, without which nothing is served; {MIGRATE} adds one"),
        })
    }

    /// The files that it refers to, each once: a change of one is a change of the configuration.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let tls = self.tls.iter().flat_map(|tls| [&tls.cert, &tls.key]);
        let secrets = self.secrets().filter_map(KeptSecret::place).filter_map(|place| match place {
            Place::File(path) => Some(path),
            Place::Variable(_) => None,
        });
        tls.chain(secrets).cloned().collect()
    }
}

impl Config {
    /// Its secrets, wherever they are kept.
    pub fn secrets(&self) -> impl Iterator<Item = &KeptSecret> {
        let accounts = self.accounts.values().flat_map(Account::secrets);
        self.session_secret.iter().flat_map(kept).chain(accounts)
    }
}

fn kept(list: &SecretList) -> impl Iterator<Item = &KeptSecret> {
    list.entries().map(|entry| &entry.value)
}

impl Account {
    /// The sites of a check service, by public key; `None` when the account has none.
    pub fn sites(&self, provider: Provider) -> Option<&BTreeMap<String, Site>> {
        self.checks.get(&provider).map(|check| &check.sites).filter(|sites| !sites.is_empty())
    }

    /// Every secret of the account and its check services.
    fn secrets(&self) -> impl Iterator<Item = &KeptSecret> {
        let sites = self.checks.values().flat_map(|check| check.sites.values());
        let of_sites = sites.flat_map(|site| site.kind.secret().into_iter().chain(site.kind.sealed_key()));
        let lists = std::iter::once(&self.secret).chain(&self.jwe_secret).chain(of_sites);
        lists.flat_map(kept).chain(self.keys.values().map(KeptKey::private_key))
    }

    /// Whether results of a check service have to meet its rules.
    pub fn enforces(&self, provider: Provider) -> bool {
        self.checks.get(&provider).is_some_and(|check| check.mode == Mode::Enforce)
    }

    fn watches(&self, provider: Provider) -> bool {
        self.checks.get(&provider).is_some_and(|check| check.mode == Mode::Monitor)
    }

    /// Whether something has to come. Nothing has where all checks are watched.
    pub fn has_enforced(&self) -> bool {
        let mut with_sites = self.checks.values().filter(|check| !check.sites.is_empty()).peekable();
        with_sites.peek().is_none() || with_sites.any(|check| check.mode == Mode::Enforce)
    }

    /// What a request lacks that has, or whose session has, results of these check services.
    pub fn missing(&self, has: impl Fn(Provider) -> bool) -> Problems {
        let mut problems = Problems::default();
        for (provider, check) in &self.checks {
            if check.required && check.mode == Mode::Enforce && !has(*provider) {
                problems.add(provider.definition().codes.missing_required, "");
            }
        }
        if !self.any_of.is_empty() && !self.any_of.iter().any(|provider| has(*provider)) {
            let names: Vec<&str> = self.any_of.iter().map(|provider| provider.name()).collect();
            for provider in &self.any_of {
                let detail = format!("one of: {}", names.join(", "));
                problems.add(provider.definition().codes.missing_required, detail);
            }
        }
        // What is only watched is no check that somebody has passed.
        let counts = |provider: Provider| has(provider) && !self.watches(provider);
        if self.has_enforced() && !Provider::ALL.into_iter().any(counts) {
            problems.add(Code::NoWebProtectParams, "");
        }
        problems
    }

    /// Watched check services that every session should have a result of, and this one has not.
    pub fn watched_missing(&self, has: impl Fn(Provider) -> bool) -> Vec<Provider> {
        let is_missing =
            |(provider, check): &(&Provider, &Check)| check.required && check.mode == Mode::Monitor && !has(**provider);
        self.checks.iter().filter(is_missing).map(|(provider, _)| *provider).collect()
    }

    /// One site of a check service.
    pub fn site(&self, provider: Provider, key: &str) -> Option<&Site> {
        self.sites(provider)?.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::SiteKind;

    const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text)
    }

    fn account(rest: &str) -> String {
        format!("[[account]]\nsite_key = \"k\"\nsecret = \"{SECRET}\"\n{rest}")
    }

    /// An account with one site, whose key is `x`.
    fn site(table: &str, key_name: &str, rest: &str) -> String {
        account(&format!("[[account.{table}]]\n{key_name} = \"x\"\nsecret = \"s\"\n{rest}"))
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
        let SiteKind::Hcaptcha(site) = &hcaptcha.sites["h"].kind else { panic!("another provider's site") };
        let place = site.vendor.secret.entries().next().unwrap().value.place();
        assert_eq!(place, Some(&Place::Variable("HCAP_SECRET".to_owned())));
        assert_eq!(hcaptcha.sites["h"].rate_limit, Some(60));
        let subscription = &account.checks[&Provider::Fingerprint].sites["f"].kind;
        let SiteKind::Fingerprint(subscription) = subscription else { panic!("another provider's site") };
        assert_eq!(subscription.vendor.url.as_str(), "https://eu.api.fpjs.io/v4/");
        assert_eq!(subscription.max_elapsed_time, Duration::from_millis(2500));
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
            (account("[[account.api]]\ndomain = \"x\"\naudience = \"\"\n"), (6, 12), "audience"),
            (account("issuer = \"\"\n"), (4, 10), "issuer"),
            (account("secret_kid = \"\"\n"), (4, 14), "secret_kid"),
            (account("allowed_origins = [\"example.com\"]\n"), (4, 20), "origin"),
            (account("[[account.hcaptcha.site]]\nsite_key = \"h\"\n"), (5, 12), "secret_env"),
            (account("[[account.key]]\nkid = \"e\"\nalg = \"ES256\"\nprivate_key = \"x\"\n"), (7, 15), "PKCS#8"),
            (account("[[account.key]]\nkid = \"e\"\nalg = \"ES256\"\n"), (5, 7), "private_key_file"),
            ("session_secret = \"short\"".to_owned(), (1, 18), "base64"),
            ("nonce_secret = \"x\"".to_owned(), (1, 16), "config -migrate"),
            (
                account("[[account.recaptcha.site]]\nsite_key = \"h\"\nsecret = \"s\"\nmin_score = 2\n"),
                (7, 13),
                "between",
            ),
            ("[[account]]\nsite_key = \"k\"\nsecret = \"c2hvcnQ=\"\n".to_owned(), (3, 10), "32 bytes"),
            ("account = 3\n".to_owned(), (1, 11), "array of tables"),
            (account("hcaptcha = 3\n"), (4, 12), "table"),
            (account("[account.hcaptcha]\nrequird = true\n"), (5, 1), "requird"),
            (account("[account.hcaptcha]\nsubscription = []\n"), (5, 1), "subscription"),
            (account("[account.hcaptcha]\nsite = 1\n"), (5, 8), "array of tables"),
            (account("[[account.hcaptcha.site]]\nsecret = \"s\"\n"), (4, 1), "site_key"),
            (account("[[account.hcaptcha.site]]\nsite_key = 1\nsecret = \"s\"\n"), (5, 12), "site_key"),
            (account("[[account.hcaptcha.site]]\nsite_key = \"h\"\n"), (5, 12), "secret"),
            (site("hcaptcha.site", "site_key", "region = \"EU\"\n"), (7, 1), "region"),
            (site("hcaptcha.site", "site_key", "actions = [\"login\"]\n"), (7, 11), "actions"),
            (site("turnstile.site", "site_key", "min_score = 0.5\n"), (7, 13), "no scores"),
            (site("friendly.site", "site_key", "include_ip = true\n"), (7, 14), "no address"),
            (site("friendly.site", "site_key", "region = \"US\"\n"), (7, 10), "global or EU"),
            (site("recaptcha.site", "site_key", "kind = \"enterprise\"\n"), (5, 12), "project"),
            (site("recaptcha.site", "site_key", "project = \"p\"\n"), (7, 11), "enterprise"),
            (site("recaptcha.site", "site_key", "kind = \"enterprise\"\nproject = \"a/b\"\n"), (8, 11), "ID"),
            (site("recaptcha.site", "site_key", "host = \"google.example\"\n"), (7, 8), "recaptcha.net"),
            (
                account("any_of = [\"hcaptcha\", \"altcha\"]\n[[account.altcha.site]]\nsite_key = \"a\"\n"),
                (4, 11),
                "hcaptcha",
            ),
            (account("any_of = [\"altcha\"]\n[[account.altcha.site]]\nsite_key = \"a\"\n"), (4, 10), "two"),
            (
                account(
                    "any_of = [\"altcha\"]\n[account.altcha]\nrequired = true\n[[account.altcha.site]]\nsite_key = \"a\"\n",
                ),
                (4, 11),
                "anyway",
            ),
            (account("any_of = [\"altcha\"]\n[account.altcha]\nrequired = false\n"), (4, 11), "no site"),
            (account("any_of = []\n"), (4, 10), "two"),
            (
                account(
                    "any_of = [\"altcha\"]\n[account.altcha]\nmode = \"monitor\"\n[[account.altcha.site]]\nsite_key = \"a\"\n",
                ),
                (4, 11),
                "monitored",
            ),
            (account("[account.altcha]\nmode = \"watch\"\n"), (5, 8), "enforce or monitor"),
            (site("recaptcha.site", "site_key", "min_score = \"high\"\n"), (7, 13), "expected f64"),
            (site("recaptcha.site", "site_key", "rate_limit = -1\n"), (7, 14), "-1"),
            (site("recaptcha.site", "site_key", "verify_url = \"ftp://x\"\n"), (7, 14), "URL"),
            (site("recaptcha.site", "site_key", "verify_url = \"http://x.example/\"\n"), (7, 14), "https"),
            (site("fingerprint.subscription", "public_api_key", "region = \"US\"\n"), (7, 10), "RoW or EU or AP"),
            (site("fingerprint.subscription", "public_api_key", "api = \"v2\"\n"), (7, 7), "v4 or v3"),
            (site("fingerprint.subscription", "public_api_key", "min_score = 1\n"), (7, 1), "min_score"),
            (
                format!(
                    "{}{}",
                    site("recaptcha.site", "site_key", ""),
                    "[[account.recaptcha.site]]\nsite_key = \"x\"\nsecret = \"s\"\n"
                ),
                (8, 12),
                "twice",
            ),
            ("store = \"mysql://\"".to_owned(), (1, 9), "redis"),
            ("proxy_protocol = true".to_owned(), (1, 18), "trusted_proxies"),
            ("trusted_proxies = 1\nproxy_protocol = true".to_owned(), (2, 18), "trusted_proxies"),
            ("public_urls = [\"web.example.com\"]".to_owned(), (1, 16), "https://web.example.com"),
            (
                "public_urls = [\"https://a.example\"]\npublic_url = \"https://b.example\"".to_owned(),
                (2, 14),
                "not both",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error.position, Some(position), "{text}: {error}");
            assert!(error.message.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn the_files_that_it_refers_to_are_known() {
        let config = parse(&format!(
            r#"tls_cert = "tls.crt"
tls_key = "tls.key"
session_secret = [{{ file = "s2", from = 2027-01-01T00:00:00Z }}, {{ file = "s1" }}]
[[account]]
site_key = "k"
secret_file = "token"
jwe_secret = "{SECRET}"
[[account.key]]
kid = "e"
alg = "ES256"
private_key_file = "key.pem"
[[account.hcaptcha.site]]
site_key = "h"
secret_file = "token"
[[account.recaptcha.site]]
site_key = "r"
secret_env = "R"
"#
        ))
        .unwrap();
        let files: Vec<_> = config.files().into_iter().collect();
        assert_eq!(files, ["key.pem", "s1", "s2", "tls.crt", "tls.key", "token"].map(PathBuf::from));
    }

    #[test]
    fn a_wrong_secret_is_not_echoed() {
        let error = parse("[[account]]\nsite_key = \"k\"\nsecret = \"hunter2!\"\n").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
