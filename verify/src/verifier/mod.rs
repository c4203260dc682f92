//! The whole check of a request, in one call.

mod builder;
mod error;
mod policy;

pub use builder::{ConfigError, VerifierBuilder};
pub use error::{Challenge, Error};
pub use policy::{MessagePolicy, NoncePolicy, ProofPolicy};

use crate::dpop::{DpopError, Proof, ProofClaims};
use crate::encoding::sha256;
use crate::replay::{MemoryReplayStore, ReplayCheck, ReplayStore};
use crate::time::UnixTime;
use crate::token::{Claims, TokenError, TokenReader};
use http::{HeaderMap, HeaderName};
use policy::Rules;
use std::fmt;

/// The header that carries the token, unless the verifier is configured with another.
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

/// What a good request says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verified {
    /// The token's claims.
    pub claims: Claims,
    /// The proof's claims, when there was a proof.
    pub proof: Option<ProofClaims>,
}

impl Verifier {
    /// A builder; its methods document their defaults.
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

    /// Everything but message and replay: what the head of a request decides. Binding data can be
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
            let until = proof.issued_at().plus(rules.max_proof_age);
            if self.store.remember(proof.replay_key(), until, now).await? == ReplayCheck::Replayed {
                return Err(Error::Replayed);
            }
            let until = now.plus(rules.nonce_ttl);
            if let Some(key) = rules.nonce_key(proof)
                && self.store.remember(key, until, now).await? == ReplayCheck::Replayed
            {
                return Err(Error::NonceReused);
            }
        }
        Ok(Verified { claims, proof: proof.map(|proof| proof.claims().clone()) })
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
        if proof.matches_message(&hash) { Ok(()) } else { Err(Error::Message) }
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
