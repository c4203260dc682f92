//! The whole check of a request, in one call.

use crate::dpop::{DpopError, Expected, Nonce, Proof, ProofClaims};
use crate::encoding::sha256;
use crate::jwe::{JweKey, JweKeyLength};
use crate::jws::{Algorithm, HmacKey, SecretTooShort, VerificationKey};
use crate::keyset::KeySet;
use crate::replay::{MemoryReplayStore, ReplayKey, ReplayStore, StoreError, Use};
use crate::secret::{InvalidSecret, Secret};
use crate::time::UnixTime;
use crate::token::{Channel, Claims, TokenError, TokenReader};
use crate::uri::HttpUri;
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The header that carries the token, unless the verifier is told another.
pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("approov-token");

/// The header that carries the proof (RFC 9449 section 4.1).
pub const PROOF_HEADER: HeaderName = HeaderName::from_static("dpop");

/// Checks requests: token, proof, binding, message and that no proof comes twice.
///
/// Made once by [`Verifier::builder`], then shared.
pub struct Verifier<S = MemoryReplayStore> {
    tokens: TokenReader,
    rules: Rules,
    store: S,
}

impl<S> fmt::Debug for Verifier<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// What a verifier demands beyond a good token.
#[derive(Clone)]
struct Rules {
    token_header: HeaderName,
    channel: Option<Channel>,
    binding_required: bool,
    proof: ProofPolicy,
    message: MessagePolicy,
    nonce: NoncePolicy,
    nonce_check: Option<NonceCheck>,
    nonce_memory: Duration,
    proof_age: Duration,
    proof_future: Duration,
}

type NonceCheck = Arc<dyn Fn(&Value) -> bool + Send + Sync>;

/// When a request must carry a proof. A proof that is there is always checked, and needs a token bound to its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProofPolicy {
    /// When the token is bound to a key (`cnf`).
    #[default]
    WhenBound,
    /// Always: a token that is bound to no key is refused.
    Required,
    /// Never.
    Optional,
}

/// What is done about a proof's `msgs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessagePolicy {
    /// When it is there, it must fit the body.
    #[default]
    WhenPresent,
    /// Each proof must have one that fits the body.
    Required,
    /// It is not looked at: for applications that put something of their own there.
    Ignored,
}

/// What is done about a proof's `nonce`, beside [`VerifierBuilder::nonce_check`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoncePolicy {
    /// When it is there, the same key must not have used it before.
    #[default]
    UniqueWhenPresent,
    /// Each proof must have one that the same key has not used before.
    UniqueRequired,
    /// It is not looked at.
    Ignored,
}

/// A request to check. It has no `Debug`, because its headers hold what should not be logged.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The absolute URL as the client sees it. Behind a proxy that is the public one; never build it from headers
    /// that the client controls, or a proof made for another server would pass here.
    pub url: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, for proofs with a `msgs` claim.
    pub body: Body<'a>,
    /// The data that the token must be bound to by its `pay` claim, such as the request's `Authorization` header.
    pub binding: Option<&'a [u8]>,
}

/// What is known of a request's body.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Nothing. A proof whose `msgs` must be checked is then refused with [`Error::BodyUnread`].
    Unread,
    /// All of it.
    Bytes(&'a [u8]),
    /// Its SHA-256, for bodies that are hashed while they are stored.
    Sha256([u8; 32]),
}

impl Body<'_> {
    fn hash(&self) -> Option<[u8; 32]> {
        match self {
            Self::Unread => None,
            Self::Bytes(bytes) => Some(sha256(bytes)),
            Self::Sha256(hash) => Some(*hash),
        }
    }
}

/// What a good request told.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verified {
    /// The token's claims.
    pub claims: Claims,
    /// The proof's claims, when there was a proof.
    pub proof: Option<ProofClaims>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There is no token.
    TokenMissing,
    /// There is more than one token.
    TokenRepeated,
    /// The token is not good.
    Token(TokenError),
    /// The token was issued to another kind of client: this one.
    Channel(Channel),
    /// The token is not bound to data (`pay`), and must be.
    BindingMissing,
    /// The token must be bound to data that the request lacks.
    BindingDataMissing,
    /// The token is bound to other data.
    Binding,
    /// The token is not bound to a key (`cnf`), and must be.
    KeyBindingMissing,
    /// There is no proof.
    ProofMissing,
    /// There is more than one proof.
    ProofRepeated,
    /// The proof is not good.
    Proof(DpopError),
    /// The proof has no `msgs`.
    MessageMissing,
    /// The proof's `msgs` is not of this body.
    Message,
    /// The proof was used before.
    Replayed,
    /// The proof's `nonce` was used before by the same key.
    NonceReused,
    /// The proof's `msgs` cannot be checked because the caller gave no body.
    BodyUnread,
    /// The replay store cannot tell whether the proof was used before.
    Store(StoreError),
}

/// The `error` of a `WWW-Authenticate: DPoP` challenge (RFC 9449 section 7.1, RFC 6750 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// No `error`: the request carries no token.
    None,
    /// `invalid_token`.
    InvalidToken,
    /// `invalid_dpop_proof`.
    InvalidDpopProof,
    /// `use_dpop_nonce`: the nonce is missing or not one that this server accepts (RFC 9449 section 9).
    UseDpopNonce,
}

impl Challenge {
    /// The value of the `error` parameter.
    #[must_use]
    pub const fn error(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::InvalidToken => Some("invalid_token"),
            Self::InvalidDpopProof => Some("invalid_dpop_proof"),
            Self::UseDpopNonce => Some("use_dpop_nonce"),
        }
    }
}

impl Error {
    /// A stable name, for logs and tests.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenRepeated => "token_repeated",
            Self::Token(error) => error.code(),
            Self::Channel(_) => "token_channel",
            Self::BindingMissing => "binding_missing",
            Self::BindingDataMissing => "binding_data_missing",
            Self::Binding => "binding_mismatch",
            Self::KeyBindingMissing => "key_binding_missing",
            Self::ProofMissing => "proof_missing",
            Self::ProofRepeated => "proof_repeated",
            Self::Proof(error) => error.code(),
            Self::MessageMissing => "message_missing",
            Self::Message => "message_mismatch",
            Self::Replayed => "proof_replayed",
            Self::NonceReused => "nonce_reused",
            Self::BodyUnread => "body_unread",
            Self::Store(_) => "replay_store",
        }
    }

    /// What to tell the client, or `None` when the fault is this server's.
    #[must_use]
    pub const fn challenge(&self) -> Option<Challenge> {
        match self {
            Self::TokenMissing => Some(Challenge::None),
            Self::TokenRepeated
            | Self::Token(_)
            | Self::Channel(_)
            | Self::BindingMissing
            | Self::BindingDataMissing
            | Self::Binding
            | Self::KeyBindingMissing => Some(Challenge::InvalidToken),
            Self::Proof(DpopError::Nonce | DpopError::NonceMissing) => Some(Challenge::UseDpopNonce),
            Self::ProofMissing
            | Self::ProofRepeated
            | Self::Proof(_)
            | Self::MessageMissing
            | Self::Message
            | Self::Replayed
            | Self::NonceReused => Some(Challenge::InvalidDpopProof),
            Self::BodyUnread | Self::Store(_) => None,
        }
    }

    /// The HTTP status: 401, or 500 or 503 when the fault is this server's.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::BodyUnread => 500,
            Self::Store(_) => 503,
            _ => 401,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenMissing => f.write_str("the request has no token"),
            Self::TokenRepeated => f.write_str("the request has more than one token"),
            Self::Token(cause) => cause.fmt(f),
            Self::Channel(channel) => {
                write!(f, "tokens of the channel \"{channel}\" are not accepted")
            }
            Self::BindingMissing => f.write_str("the token is not bound to data"),
            Self::BindingDataMissing => f.write_str("the request lacks the data that its token must be bound to"),
            Self::Binding => f.write_str("the token is bound to other data"),
            Self::KeyBindingMissing => f.write_str("the token is not bound to a key"),
            Self::ProofMissing => f.write_str("the request has no proof"),
            Self::ProofRepeated => f.write_str("the request has more than one proof"),
            Self::Proof(cause) => cause.fmt(f),
            Self::MessageMissing => f.write_str("the proof does not cover the body"),
            Self::Message => f.write_str("the proof is for another body"),
            Self::Replayed => f.write_str("the proof was used before"),
            Self::NonceReused => f.write_str("the proof's nonce was used before"),
            Self::BodyUnread => f.write_str("the body was not given to the verifier"),
            Self::Store(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Token(cause) => Some(cause),
            Self::Proof(cause) => Some(cause),
            Self::Store(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl From<DpopError> for Error {
    fn from(error: DpopError) -> Self {
        Self::Proof(error)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Verifier {
    /// A builder with the defaults that its methods tell.
    #[must_use]
    pub fn builder() -> VerifierBuilder {
        VerifierBuilder::new()
    }
}

impl<S> Verifier<S> {
    /// Checks a token alone: no channel, no binding, no proof. For tools; a request needs [`Self::verify`].
    ///
    /// # Errors
    /// Why the token is refused.
    pub fn verify_token(&self, token: &str, now: UnixTime) -> Result<Claims, TokenError> {
        self.tokens.read(token, now)
    }
}

impl<S: ReplayStore> Verifier<S> {
    /// Checks a request. `now` is the time at which it is checked, normally [`UnixTime::now`].
    ///
    /// # Errors
    /// [`Error`]: the first check that failed, in the order token, channel, binding, proof, message, replay.
    pub async fn verify(&self, request: &Request<'_>, now: UnixTime) -> Result<Verified, Error> {
        let checked = self.check(request, false, now)?;
        checked.check_message(&request.body)?;
        self.check_replay(checked, now).await
    }

    /// Everything but message and replay: what can be told from the head of a request alone. Binding data can be
    /// required of this request beyond the verifier's own rule.
    pub(crate) fn check(
        &self,
        request: &Request<'_>,
        binding_required: bool,
        now: UnixTime,
    ) -> Result<Checked<'_>, Error> {
        let rules = &self.rules;
        let token = single(request.headers, &rules.token_header).map_err(|Repeated| Error::TokenRepeated)?;
        let proof = single(request.headers, &PROOF_HEADER).map_err(|Repeated| Error::ProofRepeated)?;
        let token = token.ok_or(Error::TokenMissing)?.map_err(|NotText| TokenError::Malformed)?;
        let claims = self.tokens.read(token, now)?;
        if rules.channel.is_some_and(|wanted| claims.channel != wanted) {
            return Err(Error::Channel(claims.channel));
        }
        check_binding(&claims, request.binding, binding_required || rules.binding_required)?;
        let proof = match proof {
            None if rules.needs_proof(&claims)? => return Err(Error::ProofMissing),
            None => None,
            Some(text) => {
                let text = text.map_err(|NotText| DpopError::Malformed)?;
                Some(rules.check_proof(text, token, &claims, request, now)?)
            }
        };
        Ok(Checked { claims, proof, rules })
    }

    pub(crate) async fn check_replay(&self, checked: Checked<'_>, now: UnixTime) -> Result<Verified, Error> {
        let Checked { claims, proof, rules } = checked;
        if let Some(proof) = &proof {
            let until = proof.made().plus(rules.proof_age);
            if self.store.remember(proof.replay_key(), until, now).await? == Use::Again {
                return Err(Error::Replayed);
            }
            let until = now.plus(rules.nonce_memory);
            if let Some(key) = rules.nonce_key(proof)
                && self.store.remember(key, until, now).await? == Use::Again
            {
                return Err(Error::NonceReused);
            }
        }
        Ok(Verified { claims, proof: proof.map(|proof| proof.claims().clone()) })
    }
}

impl Rules {
    fn needs_proof(&self, claims: &Claims) -> Result<bool, Error> {
        match self.proof {
            ProofPolicy::Required if claims.cnf.is_none() => Err(Error::KeyBindingMissing),
            ProofPolicy::Required => Ok(true),
            ProofPolicy::WhenBound => Ok(claims.cnf.is_some()),
            ProofPolicy::Optional => Ok(false),
        }
    }

    fn check_proof(
        &self,
        text: &str,
        token: &str,
        claims: &Claims,
        request: &Request<'_>,
        now: UnixTime,
    ) -> Result<Proof, Error> {
        let bound_to = claims.cnf.as_ref().ok_or(Error::KeyBindingMissing)?;
        let proof = Proof::parse(text)?;
        let url = HttpUri::parse(request.url).map_err(|_| DpopError::Url)?;
        proof.check(&Expected {
            method: request.method,
            url: &url,
            nonce: self.nonce_check.as_deref().map_or(Nonce::Ignored, |check| Nonce::Checked(check)),
            access_token: Some(token),
            thumbprint: Some(bound_to),
            now,
            max_age: self.proof_age,
            max_future: self.proof_future,
        })?;
        if self.nonce == NoncePolicy::UniqueRequired && proof.claims().nonce.is_none() {
            return Err(DpopError::NonceMissing.into());
        }
        Ok(proof)
    }

    fn nonce_key(&self, proof: &Proof) -> Option<ReplayKey> {
        let nonce = proof.claims().nonce.as_ref().filter(|_| self.nonce != NoncePolicy::Ignored)?;
        Some(ReplayKey::new("nonce", proof.thumbprint(), nonce.to_string().as_bytes()))
    }
}

/// A request whose head is good.
pub(crate) struct Checked<'a> {
    claims: Claims,
    proof: Option<Proof>,
    rules: &'a Rules,
}

impl Checked<'_> {
    /// Whether [`Checked::check_message`] will look at the body.
    pub(crate) fn needs_body(&self) -> bool {
        let covers = |proof: &Proof| proof.claims().msgs.is_some();
        self.rules.message != MessagePolicy::Ignored && self.proof.as_ref().is_some_and(covers)
    }

    pub(crate) fn check_message(&self, body: &Body<'_>) -> Result<(), Error> {
        let Some(proof) = &self.proof else {
            return Ok(());
        };
        if !self.needs_body() {
            return if self.rules.message == MessagePolicy::Required { Err(Error::MessageMissing) } else { Ok(()) };
        }
        let hash = body.hash().ok_or(Error::BodyUnread)?;
        if proof.fits_message(&hash) { Ok(()) } else { Err(Error::Message) }
    }
}

fn check_binding(claims: &Claims, data: Option<&[u8]>, required: bool) -> Result<(), Error> {
    match (data, claims.pay) {
        (Some(data), Some(bound_to)) if sha256(data) == bound_to => Ok(()),
        (Some(_), Some(_)) => Err(Error::Binding),
        (Some(_), None) => Err(Error::BindingMissing),
        (None, _) if required => Err(Error::BindingDataMissing),
        (None, _) => Ok(()),
    }
}

struct Repeated;
struct NotText;

/// The one value of a header field.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Result<&'a str, NotText>>, Repeated> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Repeated);
    }
    Ok(value.map(|value| value.to_str().map_err(|_| NotText)))
}

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
    store: S,
    problem: Option<ConfigError>,
    algorithms: Option<Vec<Algorithm>>,
}

impl<S> fmt::Debug for VerifierBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierBuilder").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl VerifierBuilder {
    fn new() -> Self {
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
                proof: ProofPolicy::default(),
                message: MessagePolicy::default(),
                nonce: NoncePolicy::default(),
                nonce_check: None,
                nonce_memory: Duration::from_secs(600),
                proof_age: Duration::from_secs(60),
                proof_future: Duration::from_secs(15),
            },
            store: MemoryReplayStore::default(),
            problem: None,
            algorithms: None,
        }
    }
}

impl<S> VerifierBuilder<S> {
    /// Accepts tokens signed by the account's secret (HS256). Give several while a secret is being changed.
    #[must_use]
    pub fn secret(mut self, secret: &Secret) -> Self {
        match HmacKey::new(secret) {
            Ok(key) => self.keys.push(VerificationKey::Hs256(key)),
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

    /// Refuses requests for which [`Request::binding`] is `None`. (Where it is given it is always checked.)
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
    pub const fn proof_age(mut self, age: Duration) -> Self {
        self.rules.proof_age = age;
        self
    }

    /// How far the client's clock may be ahead. Default: 15 s.
    #[must_use]
    pub const fn proof_future(mut self, ahead: Duration) -> Self {
        self.rules.proof_future = ahead;
        self
    }

    /// What is done about a proof's `msgs`. Default: [`MessagePolicy::WhenPresent`].
    #[must_use]
    pub const fn message(mut self, policy: MessagePolicy) -> Self {
        self.rules.message = policy;
        self
    }

    /// What is done about a proof's `nonce`. Default: [`NoncePolicy::UniqueWhenPresent`].
    #[must_use]
    pub const fn nonce(mut self, policy: NoncePolicy) -> Self {
        self.rules.nonce = policy;
        self
    }

    /// How long a key's nonces are remembered. Default: 600 s.
    #[must_use]
    pub const fn nonce_memory(mut self, memory: Duration) -> Self {
        self.rules.nonce_memory = memory;
        self
    }

    /// Demands a nonce that this check accepts, such as one that this server gave out (RFC 9449 section 9).
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
            store,
            problem: self.problem,
            algorithms: self.algorithms,
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
        }
        if self.keys.is_empty() {
            return Err(ConfigError::NoKey);
        }
        if self.must_be_encrypted && self.jwe_keys.is_empty() {
            return Err(ConfigError::NoJweSecret);
        }
        let tokens = TokenReader {
            keys: self.keys,
            jwe_keys: self.jwe_keys,
            must_be_encrypted: self.must_be_encrypted,
            max_length: self.max_token_length,
            leeway: self.leeway,
        };
        Ok(Verifier { tokens, rules: self.rules, store: self.store })
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
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretEncoding => InvalidSecret.fmt(f),
            Self::SecretTooShort => SecretTooShort.fmt(f),
            Self::JweSecretLength => JweKeyLength.fmt(f),
            Self::NoJweSecret => f.write_str("encrypted tokens are required, but there is no JWE secret"),
            Self::NoKey => f.write_str("a verifier needs a secret or a keyset, of an allowed algorithm"),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

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
    fn the_first_problem_is_told_even_when_a_good_secret_follows() {
        let builder = Verifier::builder().secret_base64("%").secret_base64("AAAA").secret(&secret(32));
        assert_eq!(problem(builder), Some(ConfigError::SecretEncoding));
    }

    #[test]
    fn faults_of_the_server_are_no_challenges_to_the_client() {
        let store = Error::Store(StoreError::Full);
        assert_eq!((store.status(), store.challenge()), (503, None));
        assert_eq!((Error::BodyUnread.status(), Error::BodyUnread.challenge()), (500, None));
        assert_eq!((Error::Replayed.status(), Error::Replayed.challenge()), (401, Some(Challenge::InvalidDpopProof)));
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

    #[test]
    fn errors_name_their_cause() {
        let cause = |error: Error| error.source().map(ToString::to_string);
        assert_eq!(cause(Error::Token(TokenError::Expired)).unwrap(), TokenError::Expired.to_string());
        assert_eq!(cause(Error::Proof(DpopError::Url)).unwrap(), DpopError::Url.to_string());
        assert_eq!(cause(Error::Store(StoreError::Full)).unwrap(), StoreError::Full.to_string());
        assert_eq!(cause(Error::Replayed), None);
    }
}
