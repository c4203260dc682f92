//! Options as JSON, of the packages and of the gate.

use crate::cors::{Cors, CorsOptions};
use crate::{Face, Store};
use approov_verify::jws::Algorithm;
use approov_verify::keyset::KeySet;
use approov_verify::redis_commands::RedisCommands;
use approov_verify::replay::MemoryReplayStore;
use approov_verify::secret::Secret;
use approov_verify::token::Channel;
use approov_verify::{
    MessagePolicy, NoncePolicy, ProofPolicy, PublicUrl, QueryPolicy, ServerNoncePolicy, Verifier, VerifierBuilder,
};
use http::HeaderName;
use serde::Deserialize;
use std::time::Duration;

/// One text or several.
#[derive(Clone, Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum Texts {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

impl Texts {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
        }
    }
}

/// What a verifier is told: everything but where its requests come from is optional.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    public_url: Texts,
    secret: Texts,
    jwe_secret: Texts,
    jwks: Option<serde_json::Value>,
    pem: Option<String>,
    jwks_url: Option<String>,
    algorithms: Option<Vec<String>>,
    issuer: Option<String>,
    audience: Option<String>,
    require_encryption: bool,
    require_binding: bool,
    bound_to_header: Texts,
    allow_debug_tokens: bool,
    channel: Option<String>,
    proof: Option<String>,
    message: Option<String>,
    query: Option<String>,
    nonce: Option<String>,
    server_nonces: Option<String>,
    nonce_secret: Texts,
    token_header: Option<String>,
    clock_leeway: Option<f64>,
    max_proof_age: Option<f64>,
    clock_skew: Option<f64>,
    nonce_ttl: Option<f64>,
    max_token_length: Option<usize>,
    monitor_proofs: bool,
    capacity: Option<usize>,
    redis_prefix: Option<String>,
    cors: Option<CorsOptions>,
}

impl Options {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// Which option there is not, or is of another type.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            // Where in the JSON, which its host made, is of no use to anybody.
            let message = error.to_string();
            message.split(" at line ").next().unwrap_or(&message).replace("unknown field", "unknown option")
        })
    }

    /// A verifier with these options, before it has a store. Keys at a URL are to be handed to it.
    ///
    /// # Errors
    /// Which option has a value that cannot be.
    pub fn builder(&self) -> Result<VerifierBuilder, String> {
        policies(self, rules(self)?)
    }

    /// Where the account's public keys are.
    #[must_use]
    pub fn jwks_url(&self) -> Option<&str> {
        self.jwks_url.as_deref()
    }

    /// What is to be done about the bodies that proofs cover; `None`: the default.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

/// URLs at which clients find a server.
///
/// # Errors
/// Which of them is none.
pub fn public_urls(texts: &[String]) -> Result<Vec<PublicUrl>, String> {
    let read = |url: &String| {
        PublicUrl::parse(url).map_err(|_| format!("\"{url}\" is not a URL such as https://api.example.com"))
    };
    texts.iter().map(read).collect()
}

pub(crate) fn face(text: &str) -> Result<Face, String> {
    let options = Options::read(text)?;
    let capacity = options.capacity.unwrap_or(1_000_000);
    Ok(Face {
        public_urls: public_urls(options.public_url.as_slice())?,
        store: match &options.redis_prefix {
            Some(prefix) => Store::Redis(RedisCommands::new(prefix.clone()).with_capacity(capacity)),
            None => Store::Memory(MemoryReplayStore::with_capacity(capacity)),
        },
        verifier: options.builder()?.build().map_err(|error| error.to_string())?,
        cors: options.cors.map(Cors::new).transpose()?,
    })
}

fn rules(options: &Options) -> Result<VerifierBuilder, String> {
    let mut builder = keys(options)?;
    if let Some(issuer) = &options.issuer {
        builder = builder.issuer(issuer);
    }
    if let Some(audience) = &options.audience {
        builder = builder.audience(audience);
    }
    if options.require_encryption {
        builder = builder.require_encryption();
    }
    if options.require_binding {
        builder = builder.require_binding();
    }
    for name in options.bound_to_header.as_slice() {
        builder = builder.bound_to_header(header_name(name)?);
    }
    if options.allow_debug_tokens {
        builder = builder.allow_debug_tokens();
    }
    if options.monitor_proofs {
        builder = builder.monitor_proofs();
    }
    if let Some(name) = &options.token_header {
        builder = builder.token_header(header_name(name)?);
    }
    if let Some(length) = options.max_token_length {
        builder = builder.max_token_length(length);
    }
    if let Some(channel) = choice("channel", &options.channel, &[("web", Channel::Web), ("mobile", Channel::Mobile)])? {
        builder = builder.channel(channel);
    }
    let times = [
        ("clock_leeway", options.clock_leeway),
        ("max_proof_age", options.max_proof_age),
        ("clock_skew", options.clock_skew),
        ("nonce_ttl", options.nonce_ttl),
    ];
    for (name, seconds) in times {
        let Some(seconds) = seconds else { continue };
        let time =
            Duration::try_from_secs_f64(seconds).map_err(|_| format!("{name} must be seconds, got {seconds}"))?;
        builder = match name {
            "clock_leeway" => builder.clock_leeway(time),
            "max_proof_age" => builder.max_proof_age(time),
            "clock_skew" => builder.clock_skew(time),
            _ => builder.nonce_ttl(time),
        };
    }
    Ok(builder)
}

fn keys(options: &Options) -> Result<VerifierBuilder, String> {
    let mut builder = Verifier::builder();
    for text in options.secret.as_slice() {
        builder = builder.secret_base64(text);
    }
    for text in options.jwe_secret.as_slice() {
        builder = builder.jwe_secret(&Secret::from_base64(text).map_err(|error| format!("jwe_secret: {error}"))?);
    }
    for text in options.nonce_secret.as_slice() {
        builder = builder.nonce_secret(&Secret::from_base64(text).map_err(|error| format!("nonce_secret: {error}"))?);
    }
    if let Some(jwks) = &options.jwks {
        let text = jwks.as_str().map_or_else(|| jwks.to_string(), str::to_owned);
        builder = builder.keyset(KeySet::from_jwks(&text).map_err(|error| format!("jwks: {error}"))?);
    }
    if let Some(pem) = &options.pem {
        builder = builder.keyset(KeySet::from_pem(pem).map_err(|error| format!("pem: {error}"))?);
    }
    if let Some(url) = &options.jwks_url {
        builder = builder.remote_keys(url);
    }
    if let Some(names) = &options.algorithms {
        let all = [Algorithm::Hs256, Algorithm::Es256, Algorithm::Rs256];
        let read = |name: &String| {
            let known = all.into_iter().find(|known| known.name() == name);
            known.ok_or_else(|| format!("algorithms are HS256, ES256 and RS256, got \"{name}\""))
        };
        builder = builder.algorithms(names.iter().map(read).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(builder)
}

fn policies(options: &Options, mut builder: VerifierBuilder) -> Result<VerifierBuilder, String> {
    let proofs = [
        ("when_bound", ProofPolicy::WhenBound),
        ("required", ProofPolicy::Required),
        ("optional", ProofPolicy::Optional),
    ];
    if let Some(policy) = choice("proof", &options.proof, &proofs)? {
        builder = builder.proof(policy);
    }
    let messages = [
        ("when_present", MessagePolicy::WhenPresent),
        ("required", MessagePolicy::Required),
        ("ignored", MessagePolicy::Ignored),
    ];
    if let Some(policy) = choice("message", &options.message, &messages)? {
        builder = builder.message(policy);
    }
    let queries = [
        ("when_present", QueryPolicy::WhenPresent),
        ("required", QueryPolicy::Required),
        ("ignored", QueryPolicy::Ignored),
    ];
    if let Some(policy) = choice("query", &options.query, &queries)? {
        builder = builder.query(policy);
    }
    let nonces = [
        ("unique_when_demanded", NoncePolicy::UniqueWhenDemanded),
        ("required", NoncePolicy::UniqueRequired),
        ("ignored", NoncePolicy::Ignored),
    ];
    if let Some(policy) = choice("nonce", &options.nonce, &nonces)? {
        builder = builder.nonce(policy);
    }
    let server_nonces = [
        ("off", ServerNoncePolicy::Off),
        ("offered", ServerNoncePolicy::Offered),
        ("required", ServerNoncePolicy::Required),
    ];
    if let Some(policy) = choice("server_nonces", &options.server_nonces, &server_nonces)? {
        builder = builder.server_nonces(policy);
    }
    Ok(builder)
}

fn choice<T: Copy>(option: &str, chosen: &Option<String>, known: &[(&str, T)]) -> Result<Option<T>, String> {
    let Some(chosen) = chosen else { return Ok(None) };
    match known.iter().find(|(name, _)| name == chosen) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            Err(format!("{option} must be one of {}, got \"{chosen}\"", names.join(", ")))
        }
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("\"{name}\" is no name of a header"))
}
