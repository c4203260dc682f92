//! The configuration file.

use crate::policy::{Access, Scope};
use approov_verify::PublicUrl;
use approov_verify_face::cors::{Cors, CorsOptions};
use approov_verify_face::options::{Options, public_urls};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where the gate listens unless it is told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8090);

/// What the file says, checked.
pub struct Config {
    /// Where gateways ask.
    pub listen: SocketAddr,
    /// Where operators ask.
    pub operations: Option<SocketAddr>,
    /// The TLS identity, if it has one.
    pub tls: Option<TlsFiles>,
    /// Gateways.
    pub trusted_peers: Vec<IpNet>,
    /// Where used proofs are remembered.
    pub store: StoreConfig,
    /// How long it goes on serving after it said that it will stop.
    pub drain: Duration,
    /// What is checked.
    pub rules: Rules,
}

/// What is checked of which request.
pub struct Rules {
    /// Where clients find the backends.
    pub public_urls: Vec<PublicUrl>,
    /// Whether gateways send bodies along.
    pub bodies: Bodies,
    /// The longest body, bytes.
    pub body_limit: usize,
    /// What becomes of preflights.
    pub preflights: Preflights,
    /// Pages of other origins that may read refusals.
    pub cors: Option<Cors>,
    /// The policies, in order, the default one last.
    pub policies: Vec<PolicyConfig>,
}

/// One policy.
pub struct PolicyConfig {
    /// Its name in logs and counters.
    pub name: String,
    /// The requests that it is for; `None`: all others.
    pub scope: Option<Scope>,
    /// Whether they are checked.
    pub access: Access,
    /// They pass whatever is found.
    pub monitor: bool,
    /// How they are checked.
    pub options: Options,
}

/// Files of a TLS identity.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Whether gateways send bodies along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bodies {
    /// They do not, so no hash of a body can be checked here.
    #[default]
    Absent,
    /// They do.
    Forwarded,
}

/// What becomes of requests of browsers that ask whether a page may send another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preflights {
    /// They pass.
    #[default]
    Pass,
    /// They are checked as all others, so that none passes: for gateways that respond to them before they ask.
    Check,
}

/// Where used proofs are remembered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// A Redis server that all gates share; `None`: this process' memory.
    pub redis: Option<String>,
    /// What its keys begin with.
    pub prefix: String,
    /// The longest time that it may take, milliseconds.
    pub timeout_ms: u64,
    /// How many are remembered.
    pub capacity: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { redis: None, prefix: "approov:".to_owned(), timeout_ms: 1000, capacity: 1_000_000 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    listen: SocketAddr,
    operations: Option<SocketAddr>,
    tls: Option<TlsFiles>,
    trusted_peers: Vec<String>,
    public_urls: Vec<String>,
    bodies: Bodies,
    body_limit: usize,
    preflights: Preflights,
    monitor: bool,
    drain: f64,
    store: StoreConfig,
    cors: Option<CorsOptions>,
    verify: toml::Table,
    policies: Vec<RawPolicy>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN,
            operations: None,
            tls: None,
            trusted_peers: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
            public_urls: Vec::new(),
            bodies: Bodies::default(),
            body_limit: 1 << 20,
            preflights: Preflights::default(),
            monitor: false,
            drain: 0.0,
            store: StoreConfig::default(),
            cors: None,
            verify: toml::Table::new(),
            policies: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    name: Option<String>,
    paths: Vec<String>,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    access: Access,
    monitor: Option<bool>,
    #[serde(default)]
    verify: toml::Table,
}

/// Where secrets are kept that are not in the file itself.
pub trait Surroundings {
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// A file's text.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// Those of this process.
#[derive(Clone, Copy, Debug)]
pub struct Process;

impl Surroundings for Process {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }
}

impl Config {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it. The message has no secret.
    pub fn parse(text: &str, around: &impl Surroundings) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| without_source(&error))?;
        if raw.public_urls.is_empty() {
            return Err(
                "public_urls must name where clients find the backend, such as \"https://api.example.com\"".to_owned()
            );
        }
        if raw.trusted_peers.is_empty() {
            return Err("trusted_peers must name the gateways' addresses: nobody else may ask".to_owned());
        }
        if raw.body_limit == 0 {
            return Err("body_limit must be more than no bytes".to_owned());
        }
        if raw.store.timeout_ms == 0 || raw.store.capacity == 0 {
            return Err("store: timeout_ms and capacity must be more than 0".to_owned());
        }
        let base = resolve(&raw.verify, around).map_err(|error| format!("verify: {error}"))?;
        let mut policies = Vec::new();
        for (index, policy) in raw.policies.iter().enumerate() {
            let name = policy.name.clone().unwrap_or_else(|| format!("policy-{}", index + 1));
            let read = read_policy(policy, name.clone(), &base, &raw, around);
            policies.push(read.map_err(|error| format!("policies, \"{name}\": {error}"))?);
        }
        let default = PolicyConfig {
            name: "default".to_owned(),
            scope: None,
            access: Access::Verify,
            monitor: raw.monitor,
            options: options(base, raw.bodies).map_err(|error| format!("verify: {error}"))?,
        };
        policies.push(default);
        if let Some(twice) = policies.iter().enumerate().find_map(|(index, policy)| {
            policies.iter().skip(index + 1).any(|other| other.name == policy.name).then_some(&policy.name)
        }) {
            return Err(format!("policies: two are named \"{twice}\""));
        }
        Ok(Self {
            listen: raw.listen,
            operations: raw.operations,
            tls: raw.tls,
            trusted_peers: raw.trusted_peers.iter().map(|text| network(text)).collect::<Result<_, _>>()?,
            store: raw.store,
            drain: Duration::try_from_secs_f64(raw.drain).map_err(|_| "drain must be seconds".to_owned())?,
            rules: Rules {
                public_urls: public_urls(&raw.public_urls).map_err(|error| format!("public_urls: {error}"))?,
                bodies: raw.bodies,
                body_limit: raw.body_limit,
                preflights: raw.preflights,
                cors: raw.cors.map(Cors::new).transpose()?,
                policies,
            },
        })
    }
}

fn read_policy(
    policy: &RawPolicy,
    name: String,
    base: &Map<String, Value>,
    raw: &Raw,
    around: &impl Surroundings,
) -> Result<PolicyConfig, String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) {
        return Err("name must be up to 64 letters, digits, dots, dashes and underscores".to_owned());
    }
    if policy.access == Access::Open && !policy.verify.is_empty() {
        return Err("verify: nothing is verified where access is \"open\"".to_owned());
    }
    let mut merged = base.clone();
    merged.extend(resolve(&policy.verify, around).map_err(|error| format!("verify: {error}"))?);
    Ok(PolicyConfig {
        name,
        scope: Some(Scope::new(&policy.paths, &policy.methods)?),
        access: policy.access,
        monitor: policy.monitor.unwrap_or(raw.monitor),
        options: options(merged, raw.bodies).map_err(|error| format!("verify: {error}"))?,
    })
}

/// Options that are the gate's own, and where they are.
const ELSEWHERE: [(&str, &str); 4] =
    [("public_url", "public_urls"), ("capacity", "store.capacity"), ("redis_prefix", "store.prefix"), ("cors", "cors")];

/// The verifier's options, with what `_env` and `_file` stand for.
fn resolve(table: &toml::Table, around: &impl Surroundings) -> Result<Map<String, Value>, String> {
    let mut options: Map<String, Value> = Map::new();
    for (key, value) in table {
        if let Some((_, place)) = ELSEWHERE.iter().find(|(name, _)| name == key) {
            return Err(format!("{key}: that is {place}, outside of verify"));
        }
        let kept = [("secret", true), ("jwe_secret", true), ("nonce_secret", true), ("pem", false), ("jwks", false)]
            .into_iter()
            .find_map(|(name, is_secret)| {
                let place = key.strip_prefix(name)?.strip_prefix('_')?;
                matches!(place, "env" | "file").then_some((name, is_secret, place == "env"))
            });
        let Some((name, is_secret, in_environment)) = kept else {
            let value = serde_json::to_value(value).map_err(|error| format!("{key}: {error}"))?;
            add(&mut options, key, value);
            continue;
        };
        let places = match value {
            toml::Value::String(one) => vec![one.as_str()],
            toml::Value::Array(several) if is_secret => several
                .iter()
                .map(|one| one.as_str().ok_or_else(|| format!("{key} must be a text, or several")))
                .collect::<Result<_, _>>()?,
            _ => return Err(format!("{key} must be a text")),
        };
        for place in places {
            let text = if in_environment {
                around.variable(place).ok_or_else(|| format!("{key}: the environment has no {place}"))?
            } else {
                around.file(place).map_err(|error| format!("{key}: {place}: {error}"))?
            };
            add(&mut options, name, Value::from(text.trim()));
        }
    }
    Ok(options)
}

/// Adds an option's value to those that it has.
fn add(options: &mut Map<String, Value>, name: &str, value: Value) {
    let several = |value: Value| match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    let value = match options.remove(name) {
        None => value,
        Some(before) => Value::Array([several(before), several(value)].concat()),
    };
    options.insert(name.to_owned(), value);
}

fn options(mut options: Map<String, Value>, bodies: Bodies) -> Result<Options, String> {
    if bodies == Bodies::Absent {
        match options.get("message").and_then(Value::as_str) {
            None | Some("ignored") => {}
            Some(other) => {
                return Err(format!(
                    "message: \"{other}\" needs bodies = \"forwarded\", and a gateway that sends them"
                ));
            }
        }
        options.insert("message".to_owned(), Value::from("ignored"));
    }
    let read = Options::read(&Value::Object(options).to_string())?;
    // What is wrong with them is told now, not with the first request.
    read.builder()?.build().map_err(|error| error.to_string())?;
    Ok(read)
}

fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    parsed.ok_or_else(|| format!("trusted_peers: \"{text}\" is neither an address nor a network such as 10.0.0.0/8"))
}

/// The error without the line that it is about, which may have a secret.
fn without_source(error: &toml::de::Error) -> String {
    error.message().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    impl Surroundings for Nowhere {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "SECRET").then(|| format!("{SECRET}\n"))
        }

        fn file(&self, path: &str) -> Result<String, String> {
            if path == "/run/secret" { Ok(SECRET.to_owned()) } else { Err("no such file".to_owned()) }
        }
    }

    const SECRET: &str = "dHSXAat7/8LkThtjjLFTRMxcPQBNfyl2kknDxu+MmK3m+wF+NUXLVOP5NYaif3Bm8pBscfEf7/3edGzeL5wCYw==";
    const LEAST: &str = "public_urls = [\"https://api.shop.co\"]\n";

    fn error(text: &str) -> String {
        match Config::parse(text, &Nowhere) {
            Ok(_) => panic!("{text}"),
            Err(error) => error,
        }
    }

    #[test]
    fn the_least_that_a_file_says() {
        let config = Config::parse(&format!("{LEAST}[verify]\nsecret_env = \"SECRET\""), &Nowhere).unwrap();
        assert_eq!((config.listen, config.operations), (DEFAULT_LISTEN, None));
        assert_eq!(config.rules.bodies, Bodies::Absent);
        assert!(config.trusted_peers.iter().all(|network| network.addr().is_loopback()));
        let names: Vec<_> = config.rules.policies.iter().map(|policy| policy.name.as_str()).collect();
        assert_eq!(names, ["default"]);
        assert_eq!(config.rules.policies.first().unwrap().options.message(), Some("ignored"));
    }

    #[test]
    fn secrets_are_kept_in_the_environment_in_files_and_in_the_file() {
        for verify in [
            "secret_env = \"SECRET\"".to_owned(),
            "secret_file = [\"/run/secret\"]".to_owned(),
            format!("secret = \"{SECRET}\""),
            format!("secret = [\"{SECRET}\"]\nsecret_env = [\"SECRET\"]\nsecret_file = \"/run/secret\""),
        ] {
            Config::parse(&format!("{LEAST}[verify]\n{verify}"), &Nowhere).map(drop).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_is_told_by_name_and_without_secrets() {
        let verify = format!("[verify]\nsecret = \"{SECRET}\"\n");
        for (text, part) in [
            ("".to_owned(), "public_urls"),
            (verify.clone(), "public_urls"),
            (LEAST.to_owned(), "verify: "),
            (format!("public_urls = [\"api.shop.co\"]\n{verify}"), "public_urls: \"api.shop.co\""),
            (format!("{LEAST}listen = \"8090\"\n{verify}"), "socket address"),
            (format!("{LEAST}trusted_peers = []\n{verify}"), "trusted_peers"),
            (format!("{LEAST}trusted_peers = [\"gateway\"]\n{verify}"), "trusted_peers: \"gateway\""),
            (format!("{LEAST}body_limit = 0\n{verify}"), "body_limit"),
            (format!("{LEAST}drain = -1.0\n{verify}"), "drain"),
            (format!("{LEAST}bodys = \"forwarded\"\n{verify}"), "bodys"),
            (format!("{LEAST}bodies = \"some\"\n{verify}"), "some"),
            (format!("{LEAST}[verify]\nsecret = \"c2hvcnQ=\""), "verify: an HS256 secret must have at least 32 bytes"),
            (format!("{LEAST}[verify]\nsecret_env = \"NONE\""), "verify: secret_env: the environment has no NONE"),
            (format!("{LEAST}[verify]\nsecret_file = \"/none\""), "verify: secret_file: /none: no such file"),
            (format!("{LEAST}[verify]\nsecret_file = 1"), "verify: secret_file must be a text"),
            (format!("{LEAST}{verify}proof = \"always\""), "verify: proof must be one of"),
            (format!("{LEAST}{verify}prof = \"required\""), "verify: unknown option `prof`"),
            (format!("{LEAST}{verify}message = \"required\""), "verify: message: \"required\" needs bodies"),
            (format!("{LEAST}{verify}public_url = \"https://a\""), "verify: public_url: that is public_urls"),
            (format!("{LEAST}[store]\ncapacity = 0\n{verify}"), "store"),
            (format!("{LEAST}[cors]\norigins = [\"shop.co\"]\n{verify}"), "cors: \"shop.co\""),
            (format!("{LEAST}{verify}[[policies]]\npaths = [\"public\"]"), "policies, \"policy-1\": paths: \"public\""),
            (format!("{LEAST}{verify}[[policies]]\nname = \"a b\"\npaths = [\"/a\"]"), "name must be"),
            (format!("{LEAST}{verify}[[policies]]\nname = \"default\"\npaths = [\"/a\"]"), "two are named \"default\""),
            (
                format!(
                    "{LEAST}{verify}[[policies]]\npaths = [\"/a\"]\naccess = \"open\"\n[policies.verify]\nproof = \"optional\""
                ),
                "nothing is verified",
            ),
            (
                format!("{LEAST}{verify}[[policies]]\npaths = [\"/a\"]\n[policies.verify]\nproof = \"never\""),
                "policies, \"policy-1\": verify: proof",
            ),
        ] {
            let error = error(&text);
            assert!(error.contains(part), "{text}\n{error}");
            assert!(!error.contains(SECRET), "{error}");
        }
    }

    #[test]
    fn a_policy_has_the_options_of_all_and_its_own() {
        let text = format!(
            "{LEAST}bodies = \"forwarded\"\nmonitor = true\n[verify]\nsecret_env = \"SECRET\"\nmessage = \"required\"\n\
             [[policies]]\npaths = [\"/uploads/*\"]\nmonitor = false\n[policies.verify]\nmessage = \"ignored\"\n\
             [[policies]]\nname = \"health\"\npaths = [\"/health\"]\naccess = \"open\""
        );
        let policies = Config::parse(&text, &Nowhere).unwrap().rules.policies;
        let seen: Vec<_> = policies
            .iter()
            .map(|policy| (policy.name.as_str(), policy.access, policy.monitor, policy.options.message()))
            .collect();
        assert_eq!(
            seen,
            [
                ("policy-1", Access::Verify, false, Some("ignored")),
                ("health", Access::Open, true, Some("required")),
                ("default", Access::Verify, true, Some("required")),
            ]
        );
    }
}
