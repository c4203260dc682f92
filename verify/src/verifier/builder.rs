//! How a verifier is made.

use crate::jwe::{JweKey, JweKeyLength};
#[cfg(feature = "jwks")]
use crate::jwks::Fetcher;
use crate::jwks::{JwksError, RemoteKeySet};
use crate::jws::{Algorithm, HmacKey, SecretTooShort, VerificationKey};
use crate::keyset::KeySet;
use crate::nonce::ServerNonces;
use crate::replay::{MemoryReplayStore, ReplayStore};
use crate::secret::{InvalidSecret, Secret};
use crate::token::{Channel, TokenReader};
use crate::verifier::policy::Rules;
use crate::verifier::{
    MessagePolicy, NoncePolicy, ProofPolicy, QueryPolicy, ServerNoncePolicy, TOKEN_HEADER, Verifier,
};
use http::HeaderName;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Makes a [`Verifier`].
///
/// The keys decide which algorithms are accepted: a secret HS256, a key of a keyset RS256 or ES256, by its type.
pub struct VerifierBuilder<S = MemoryReplayStore> {
    keys: KeySet,
    jwe_keys: Vec<JweKey>,
    must_be_encrypted: bool,
    max_token_length: usize,
    leeway: Duration,
    rules: Rules,
    secrets: Vec<Secret>,
    nonce_secrets: Vec<Secret>,
    server_nonces: ServerNoncePolicy,
    store: S,
    problem: Option<ConfigError>,
    algorithms: Option<Vec<Algorithm>>,
    issuer: Option<String>,
    audience: Option<String>,
    debug_allowed: bool,
    remote_keys: Option<RemoteKeySet>,
    #[cfg(feature = "jwks")]
    fetcher: Option<Fetcher>,
}

impl<S> fmt::Debug for VerifierBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierBuilder").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl VerifierBuilder {
    pub(super) fn new() -> Self {
        Self {
            keys: KeySet::default(),
            jwe_keys: Vec::new(),
            must_be_encrypted: false,
            max_token_length: 16_384,
            leeway: Duration::from_secs(5),
            rules: Rules {
                token_header: TOKEN_HEADER,
                channel: None,
                binding_required: false,
                bound_headers: Vec::new(),
                proofs_monitored: false,
                proof: ProofPolicy::default(),
                message: MessagePolicy::default(),
                query: QueryPolicy::default(),
                nonce: NoncePolicy::default(),
                nonce_check: None,
                nonce_ttl: Duration::from_secs(600),
                server_nonces: None,
                server_nonces_required: false,
                max_proof_age: Duration::from_secs(60),
                clock_skew: Duration::from_secs(15),
            },
            secrets: Vec::new(),
            nonce_secrets: Vec::new(),
            server_nonces: ServerNoncePolicy::default(),
            store: MemoryReplayStore::default(),
            problem: None,
            algorithms: None,
            issuer: None,
            audience: None,
            debug_allowed: false,
            remote_keys: None,
            #[cfg(feature = "jwks")]
            fetcher: None,
        }
    }
}

impl<S> VerifierBuilder<S> {
    /// Accepts tokens signed by the account's secret (HS256). Give several while a secret is being changed.
    #[must_use]
    pub fn secret(mut self, secret: &Secret) -> Self {
        match HmacKey::new(secret) {
            Ok(key) => {
                self.keys.push(VerificationKey::Hs256(key));
                self.secrets.push(secret.clone());
            }
            Err(SecretTooShort) => self.note(ConfigError::SecretTooShort),
        }
        self
    }

    /// [`VerifierBuilder::secret`] from base64 or base64url text.
    #[must_use]
    pub fn secret_base64(mut self, text: &str) -> Self {
        match Secret::from_base64(text) {
            Ok(secret) => self.secret(&secret),
            Err(InvalidSecret) => {
                self.note(ConfigError::SecretEncoding);
                self
            }
        }
    }

    /// Accepts tokens signed by a key of the account's keyset (RS256, ES256).
    #[must_use]
    pub fn keyset(mut self, keys: KeySet) -> Self {
        self.keys.extend(keys);
        self
    }

    /// Accepts tokens signed by a key of the keyset at this URL, which the service publishes below
    /// `/SITE_KEY/.well-known/jwks.json`. `fetch` gets the URL and returns the response's body, or why there is none, for
    /// logs; `jwks::http_fetcher` (feature `jwks-http`) makes one.
    ///
    /// The keys are fetched before the first check, every five minutes, and for a token with an unknown `kid`, then at
    /// most once a minute. When they cannot be fetched the last good ones are used for a day; from then on requests are
    /// refused with 503. `fetch` must end in time by itself and follow no redirects.
    #[cfg(feature = "jwks")]
    #[must_use]
    pub fn jwks<F>(mut self, url: &str, fetch: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: std::future::Future<Output = Result<String, String>> + Send + 'static,
    {
        self.fetcher = Some(Fetcher::new(fetch));
        self.remote_keys(url)
    }

    /// [`VerifierBuilder::jwks`] without a function that fetches: for whoever calls [`Verifier::remote_keys`] to see when the
    /// keys are due, and to hand them over.
    #[must_use]
    pub fn remote_keys(mut self, url: &str) -> Self {
        match RemoteKeySet::new(url) {
            Ok(keys) => self.remote_keys = Some(keys),
            Err(_) => self.note(ConfigError::JwksUrl),
        }
        self
    }

    /// Accepts tokens with this `iss` only. Default: `iss` is not looked at, since tokens have one only where the service
    /// is configured so.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Accepts tokens only whose `aud` is this, or has this among others. Default: `aud` is not looked at.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Accepts tokens that were made with a debug token in place of a check: for tests and staging. Default: they are
    /// refused.
    #[must_use]
    pub const fn allow_debug_tokens(mut self) -> Self {
        self.debug_allowed = true;
        self
    }

    /// Demands that tokens are bound (`pay`) to the value of this header of their requests. Given several times: to their
    /// values, one after the other with nothing between. A request that lacks one of them is refused, or has it twice.
    #[must_use]
    pub fn bound_to_header(mut self, name: HeaderName) -> Self {
        self.rules.bound_headers.push(name);
        self
    }

    /// Lets requests pass whose token is good and whose proof is not, and says in
    /// [`Verified::would_fail`](crate::Verified::would_fail) what would have been refused: to see what a policy for proofs
    /// would do before it bites. Tokens are checked as ever.
    #[must_use]
    pub const fn monitor_proofs(mut self) -> Self {
        self.rules.proofs_monitored = true;
        self
    }

    /// Accepts encrypted tokens (A256GCMKW) too; what they hold must be signed like other tokens.
    #[must_use]
    pub fn jwe_secret(mut self, secret: &Secret) -> Self {
        match JweKey::new(secret) {
            Ok(key) => self.jwe_keys.push(key),
            Err(JweKeyLength) => self.note(ConfigError::JweSecretLength),
        }
        self
    }

    /// Accepts encrypted tokens only.
    #[must_use]
    pub const fn require_encryption(mut self) -> Self {
        self.must_be_encrypted = true;
        self
    }

    /// Accepts these signature algorithms only. Default: those of all keys.
    #[must_use]
    pub fn algorithms(mut self, allowed: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = Some(allowed.into_iter().collect());
        self
    }

    /// The longest token that is read, in bytes. Default: 16,384.
    #[must_use]
    pub const fn max_token_length(mut self, bytes: usize) -> Self {
        self.max_token_length = bytes;
        self
    }

    /// How far this machine's clock may be from Approov's, for the token's `exp` and `nbf`. Default: 5 s.
    #[must_use]
    pub const fn clock_leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The header that carries the token. Default: [`TOKEN_HEADER`].
    #[must_use]
    pub fn token_header(mut self, name: HeaderName) -> Self {
        self.rules.token_header = name;
        self
    }

    /// Accepts tokens of one channel only. Default: any.
    #[must_use]
    pub const fn channel(mut self, channel: Channel) -> Self {
        self.rules.channel = Some(channel);
        self
    }

    /// Refuses requests for which [`Request::binding`](crate::Request::binding) is `None`. (Where it is given it is always checked.)
    #[must_use]
    pub const fn require_binding(mut self) -> Self {
        self.rules.binding_required = true;
        self
    }

    /// When a request must carry a proof. Default: [`ProofPolicy::WhenBound`].
    #[must_use]
    pub const fn proof(mut self, policy: ProofPolicy) -> Self {
        self.rules.proof = policy;
        self
    }

    /// How long ago a proof may have been made. Default: 60 s.
    #[must_use]
    pub const fn max_proof_age(mut self, age: Duration) -> Self {
        self.rules.max_proof_age = age;
        self
    }

    /// How far the client's clock may be ahead. Default: 15 s.
    #[must_use]
    pub const fn clock_skew(mut self, ahead: Duration) -> Self {
        self.rules.clock_skew = ahead;
        self
    }

    /// What is done about a proof's `msgs`. Default: [`MessagePolicy::WhenPresent`].
    #[must_use]
    pub const fn message(mut self, policy: MessagePolicy) -> Self {
        self.rules.message = policy;
        self
    }

    /// What is done about a proof's `htq`. Default: [`QueryPolicy::WhenPresent`].
    #[must_use]
    pub const fn query(mut self, policy: QueryPolicy) -> Self {
        self.rules.query = policy;
        self
    }

    /// What is done about a proof's `nonce`. Default: [`NoncePolicy::UniqueWhenDemanded`].
    #[must_use]
    pub const fn nonce(mut self, policy: NoncePolicy) -> Self {
        self.rules.nonce = policy;
        self
    }

    /// How long a key's nonces are remembered. Default: 600 s.
    #[must_use]
    pub const fn nonce_ttl(mut self, memory: Duration) -> Self {
        self.rules.nonce_ttl = memory;
        self
    }

    /// Whether this server gives out nonces. Default: [`ServerNoncePolicy::Off`].
    ///
    /// Their key is derived from the tokens' secret, or from [`VerifierBuilder::nonce_secret`]. With several secrets the
    /// first one makes nonces, and those of all are accepted: while a secret is being changed, give the old one first.
    #[must_use]
    pub const fn server_nonces(mut self, policy: ServerNoncePolicy) -> Self {
        self.server_nonces = policy;
        self
    }

    /// The secret that this server's nonces are made with, of at least 32 bytes, in place of the tokens' secret: for
    /// verifiers that have a keyset alone. Servers behind one URL need the same one.
    #[must_use]
    pub fn nonce_secret(mut self, secret: &Secret) -> Self {
        if secret.as_bytes().len() < 32 {
            self.note(ConfigError::NonceSecretTooShort);
        }
        self.nonce_secrets.push(secret.clone());
        self
    }

    /// Demands a nonce that this check accepts: one that the application gave out by means of its own, for one use.
    /// (For nonces as RFC 9449 has them, use [`VerifierBuilder::server_nonces`].)
    #[must_use]
    pub fn nonce_check(mut self, check: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Self {
        self.rules.nonce_check = Some(Arc::new(check));
        self
    }

    /// Where used proofs are remembered. Default: a [`MemoryReplayStore`] for a million of them, which is right for
    /// one process; several behind one URL need a common store.
    #[must_use]
    pub fn replay_store<T: ReplayStore>(self, store: T) -> VerifierBuilder<T> {
        VerifierBuilder {
            keys: self.keys,
            jwe_keys: self.jwe_keys,
            must_be_encrypted: self.must_be_encrypted,
            max_token_length: self.max_token_length,
            leeway: self.leeway,
            rules: self.rules,
            secrets: self.secrets,
            nonce_secrets: self.nonce_secrets,
            server_nonces: self.server_nonces,
            store,
            problem: self.problem,
            algorithms: self.algorithms,
            issuer: self.issuer,
            audience: self.audience,
            debug_allowed: self.debug_allowed,
            remote_keys: self.remote_keys,
            #[cfg(feature = "jwks")]
            fetcher: self.fetcher,
        }
    }

    /// The verifier.
    ///
    /// # Errors
    /// [`ConfigError`]: the first unusable setting, or that there is no key to verify tokens with.
    pub fn build(mut self) -> Result<Verifier<S>, ConfigError> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if let Some(allowed) = self.algorithms {
            self.keys.retain(|key| allowed.contains(&key.algorithm()));
            if let Some(remote) = &mut self.remote_keys {
                remote.restrict(&allowed);
            }
        }
        if self.keys.is_empty() && self.remote_keys.is_none() {
            return Err(ConfigError::NoKey);
        }
        if self.must_be_encrypted && self.jwe_keys.is_empty() {
            return Err(ConfigError::NoJweSecret);
        }
        if self.server_nonces != ServerNoncePolicy::Off {
            let secrets = if self.nonce_secrets.is_empty() { &self.secrets } else { &self.nonce_secrets };
            if self.rules.nonce_check.is_some() {
                return Err(ConfigError::TwoKindsOfNonces);
            }
            self.rules.server_nonces = Some(ServerNonces::new(secrets).ok_or(ConfigError::NoNonceSecret)?);
            self.rules.server_nonces_required = self.server_nonces == ServerNoncePolicy::Required;
        }
        let tokens = TokenReader {
            keys: self.keys,
            jwe_keys: self.jwe_keys,
            must_be_encrypted: self.must_be_encrypted,
            max_length: self.max_token_length,
            leeway: self.leeway,
            remote_keys: self.remote_keys,
            issuer: self.issuer,
            audience: self.audience,
            debug_allowed: self.debug_allowed,
        };
        Ok(Verifier {
            tokens,
            rules: Arc::new(self.rules),
            store: self.store,
            #[cfg(feature = "jwks")]
            fetcher: self.fetcher,
        })
    }

    fn note(&mut self, problem: ConfigError) {
        self.problem.get_or_insert(problem);
    }
}

/// Why a verifier cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A secret is neither base64 nor base64url.
    SecretEncoding,
    /// A secret has fewer than 32 bytes.
    SecretTooShort,
    /// A JWE secret has not 32 bytes.
    JweSecretLength,
    /// Encryption is required, but there is no JWE secret.
    NoJweSecret,
    /// There is no key to verify tokens with, or none of an allowed algorithm.
    NoKey,
    /// A secret for nonces has fewer than 32 bytes.
    NonceSecretTooShort,
    /// Nonces are to be given out, but there is no secret to make them with.
    NoNonceSecret,
    /// Nonces are to be given out, and a `nonce_check` demands others.
    TwoKindsOfNonces,
    /// The URL of the keyset is not https, or http to this machine.
    JwksUrl,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretEncoding => InvalidSecret.fmt(f),
            Self::SecretTooShort => SecretTooShort.fmt(f),
            Self::JweSecretLength => JweKeyLength.fmt(f),
            Self::NoJweSecret => f.write_str("encrypted tokens are required, but there is no JWE secret"),
            Self::NonceSecretTooShort => f.write_str("a secret for nonces must have at least 32 bytes"),
            Self::NoNonceSecret => {
                f.write_str("to give out nonces, a verifier without a tokens' secret needs a nonce_secret")
            }
            Self::TwoKindsOfNonces => f.write_str("server_nonces and nonce_check exclude each other"),
            Self::JwksUrl => JwksError::Url.fmt(f),
            Self::NoKey => f.write_str("a verifier needs a secret or a keyset, of an allowed algorithm"),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(length: usize) -> Secret {
        Secret::from_bytes(vec![1; length])
    }

    fn problem(builder: VerifierBuilder) -> Option<ConfigError> {
        builder.build().err()
    }

    #[test]
    fn a_verifier_that_could_verify_nothing_is_not_made() {
        let builder = Verifier::builder;
        assert_eq!(problem(builder()), Some(ConfigError::NoKey));
        assert_eq!(problem(builder().secret_base64("%")), Some(ConfigError::SecretEncoding));
        assert_eq!(problem(builder().secret_base64("AAAA")), Some(ConfigError::SecretTooShort));
        assert_eq!(problem(builder().secret(&secret(31))), Some(ConfigError::SecretTooShort));
        assert_eq!(problem(builder().secret(&secret(32)).jwe_secret(&secret(31))), Some(ConfigError::JweSecretLength));
        assert_eq!(problem(builder().secret(&secret(32)).require_encryption()), Some(ConfigError::NoJweSecret));
        assert_eq!(problem(builder().secret(&secret(32)).algorithms([Algorithm::Es256])), Some(ConfigError::NoKey));
        assert_eq!(problem(builder().secret(&secret(32)).algorithms([Algorithm::Hs256])), None);
        assert_eq!(problem(builder().secret(&secret(32)).jwe_secret(&secret(32)).require_encryption()), None);
    }

    #[test]
    fn the_first_problem_is_reported_even_when_a_good_secret_follows() {
        let builder = Verifier::builder().secret_base64("%").secret_base64("AAAA").secret(&secret(32));
        assert_eq!(problem(builder), Some(ConfigError::SecretEncoding));
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==";
        let builder = Verifier::builder().secret_base64(text).jwe_secret(&secret(32));
        let shown = format!("{builder:?}");
        let shown = format!("{shown} {:?}", builder.build().unwrap());
        assert!(shown.contains("HmacKey(…)") && shown.contains("JweKey(…)"));
        assert!(!shown.contains("secret secret") && !shown.contains("115, 101") && !shown.contains(text));
    }
}
