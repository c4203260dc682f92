//! The whole check of a request, in one call.

mod builder;
mod error;
mod headers;
mod policy;

pub use builder::{ConfigError, VerifierBuilder};
pub use error::{Challenge, Error};
pub use policy::{MessagePolicy, NoncePolicy, ProofPolicy, QueryPolicy, ServerNoncePolicy};

use crate::crypto::sha256;
use crate::dpop::{Proof, ProofClaims};
#[cfg(feature = "jwks")]
use crate::jwks::Fetcher;
use crate::jwks::RemoteKeySet;
use crate::replay::{MemoryReplayStore, ReplayCheck, ReplayEntry, ReplayStore, StoreError};
use crate::time::UnixTime;
use crate::token::{Claims, TokenError, TokenReader};
use headers::Presented;
use http::{HeaderMap, HeaderName, HeaderValue};
use policy::Rules;
use std::fmt;
use std::sync::Arc;

/// The header that carries the token, unless the verifier is configured with another.
pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("approov-token");

/// The header that carries the proof (RFC 9449 section 4.1).
pub const PROOF_HEADER: HeaderName = HeaderName::from_static("dpop");

/// The header in which a server gives out a nonce (RFC 9449 section 8).
pub const NONCE_HEADER: HeaderName = HeaderName::from_static("dpop-nonce");

/// Checks requests: token, proof, binding, message and that no proof comes twice.
///
/// The token comes in `Approov-Token` (or [another header](VerifierBuilder::token_header)) or as `Authorization: DPoP …`
/// (RFC 9449 section 7.1), not in both. The latter always needs a proof. A token as `Authorization: Bearer …` is none.
///
/// Made once by [`Verifier::builder`], then shared.
pub struct Verifier<S = MemoryReplayStore> {
    tokens: TokenReader,
    rules: Arc<Rules>,
    store: S,
    #[cfg(feature = "jwks")]
    fetcher: Option<Fetcher>,
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
    /// The absolute URL as the client sees it, with its query. Behind a proxy that is the public one;
    /// [`PublicUrl::request_url`](crate::PublicUrl::request_url) makes it from the request target. Never build it from
    /// headers that the client controls, or a proof made for another server would pass here.
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
    /// What would have been refused if proofs were not only [monitored](VerifierBuilder::monitor_proofs).
    pub would_fail: Option<Error>,
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

    /// The value of [`NONCE_HEADER`] to send with every response, refusals included (RFC 9449 section 8.2). Pages of
    /// other origins see the header only if `Access-Control-Expose-Headers` names it. `None` unless [`VerifierBuilder::server_nonces`] turned them on.
    #[must_use]
    pub fn dpop_nonce(&self, now: UnixTime) -> Option<HeaderValue> {
        let nonces = self.rules.server_nonces.as_ref()?;
        HeaderValue::try_from(nonces.current(now)).ok()
    }

    /// The keys at a URL, if there are some.
    #[must_use]
    pub const fn remote_keys(&self) -> Option<&RemoteKeySet> {
        self.tokens.remote_keys.as_ref()
    }

    /// The first of the steps that [`Self::verify`] is made of, for servers whose store or bodies cannot be had by async
    /// Rust: everything that the head of a request decides. The others are methods of [`Checked`].
    ///
    /// # Errors
    /// [`Error`]: the first check that failed. On [`TokenError::UnknownKey`], [`TokenError::Algorithm`] and
    /// [`TokenError::KeysUnavailable`] see whether [`Self::remote_keys`] are due.
    pub fn check_head(&self, request: &Request<'_>, now: UnixTime) -> Result<Checked, Error> {
        self.check(request, Demands::default(), now)
    }

    /// Everything but message and replay: what the head of a request decides.
    pub(crate) fn check(&self, request: &Request<'_>, demands: Demands, now: UnixTime) -> Result<Checked, Error> {
        let rules = &self.rules;
        let presented = Presented::read(request.headers, &rules.token_header)?;
        let claims = self.tokens.read(presented.token, now)?;
        if rules.channel.is_some_and(|wanted| claims.channel != wanted) {
            return Err(Error::Channel(claims.channel));
        }
        check_binding(&claims, request.binding, demands.binding || rules.binding_required)?;
        if !rules.bound_headers.is_empty() {
            check_binding(&claims, joined_values(request.headers, &rules.bound_headers).as_deref(), true)?;
        }
        let (proof, would_fail) = match rules.proof_of(&presented, &claims, request, demands, now) {
            Ok(proof) => (proof, None),
            Err(error) if rules.proofs_monitored => (None, Some(error)),
            Err(error) => return Err(error),
        };
        Ok(Checked { claims, proof, would_fail, rules: Arc::clone(rules), now })
    }
}

impl<S: ReplayStore> Verifier<S> {
    /// Checks a request. `now` is the time at which it is checked, normally [`UnixTime::now`].
    ///
    /// # Errors
    /// [`Error`]: the first check that failed, in the order token, channel, binding, proof, message, replay.
    pub async fn verify(&self, request: &Request<'_>, now: UnixTime) -> Result<Verified, Error> {
        let mut checked = self.check_with_keys(request, Demands::default(), now).await?;
        checked.check_message(&request.body)?;
        self.check_replay(checked).await
    }

    /// [`Self::check`], with keys that are fetched if need be.
    #[cfg_attr(not(feature = "jwks"), allow(clippy::unused_async, reason = "there is nothing to fetch"))]
    pub(crate) async fn check_with_keys(
        &self,
        request: &Request<'_>,
        demands: Demands,
        now: UnixTime,
    ) -> Result<Checked, Error> {
        #[cfg(feature = "jwks")]
        if let (Some(fetcher), Some(keys)) = (&self.fetcher, self.remote_keys()) {
            if keys.has_any(now) {
                fetcher.refresh(keys, false, now).await;
            }
            let verdict = self.check(request, demands, now);
            if !verdict.as_ref().is_err_and(Error::is_of_missing_key) {
                return verdict;
            }
            fetcher.refresh(keys, true, now).await;
        }
        self.check(request, demands, now)
    }

    pub(crate) async fn check_replay(&self, mut checked: Checked) -> Result<Verified, Error> {
        for used in checked.used_once() {
            let check = self.store.remember(used.entry, checked.now).await;
            checked.judge(&used, check)?;
        }
        Ok(checked.verified())
    }
}

/// What is demanded of a request beyond the verifier's own rules.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demands {
    /// It comes with the data that its token is bound to.
    pub(crate) binding: bool,
    /// Its proof covers the query.
    pub(crate) query: bool,
}

/// A request whose head is good. What is left to check are its message, if [`Checked::needs_body`], and that what
/// [`Checked::used_once`] names was not used before.
pub struct Checked {
    claims: Claims,
    proof: Option<Proof>,
    would_fail: Option<Error>,
    rules: Arc<Rules>,
    now: UnixTime,
}

/// Something in a request that may be used once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedOnce {
    /// What to remember in a [`ReplayStore`].
    pub entry: ReplayEntry,
    replayed: Error,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").field("claims", &self.claims).finish_non_exhaustive()
    }
}

impl Checked {
    /// Whether [`Checked::check_message`] will look at the body.
    #[must_use]
    pub fn needs_body(&self) -> bool {
        let covers = |proof: &Proof| proof.claims().msgs.is_some();
        self.rules.message != MessagePolicy::Ignored && self.proof.as_ref().is_some_and(covers)
    }

    /// Checks the message. It has to be called for every request; without a need for a body, [`Body::Unread`] will do.
    ///
    /// # Errors
    /// [`Error::Message`], [`Error::MessageMissing`] or [`Error::BodyUnread`].
    pub fn check_message(&mut self, body: &Body<'_>) -> Result<(), Error> {
        let verdict = self.message_verdict(body);
        self.unless_monitored(verdict)
    }

    fn message_verdict(&self, body: &Body<'_>) -> Result<(), Error> {
        let Some(proof) = &self.proof else {
            return Ok(());
        };
        if !self.needs_body() {
            return if self.rules.message == MessagePolicy::Required { Err(Error::MessageMissing) } else { Ok(()) };
        }
        let hash = body.hash().ok_or(Error::BodyUnread)?;
        if proof.matches_message(&hash) { Ok(()) } else { Err(Error::Message) }
    }

    /// What of the request may be used once. Remember it, one after the other, when everything else is checked.
    #[must_use]
    pub fn used_once(&self) -> Vec<UsedOnce> {
        let Some(proof) = &self.proof else {
            return Vec::new();
        };
        let nonce = self.rules.nonce_entry(proof, self.now);
        let nonce = nonce.map(|entry| UsedOnce { entry, replayed: self.rules.nonce_used() });
        [UsedOnce { entry: self.rules.proof_entry(proof), replayed: Error::Replayed }]
            .into_iter()
            .chain(nonce)
            .collect()
    }

    /// What a store's word about something means for the request.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn judge(&mut self, used: &UsedOnce, check: Result<ReplayCheck, StoreError>) -> Result<(), Error> {
        let verdict = match check {
            Ok(ReplayCheck::New) => Ok(()),
            Ok(ReplayCheck::Replayed) => Err(used.replayed.clone()),
            Ok(ReplayCheck::OverQuota) => Err(Error::TooManyProofs),
            Err(error) => Err(Error::Store(error)),
        };
        self.unless_monitored(verdict)
    }

    fn unless_monitored(&mut self, verdict: Result<(), Error>) -> Result<(), Error> {
        match verdict {
            Err(error) if self.rules.proofs_monitored => {
                self.would_fail.get_or_insert(error);
                Ok(())
            }
            verdict => verdict,
        }
    }

    /// What the request says, when all of it is checked.
    #[must_use]
    pub fn verified(self) -> Verified {
        let Self { claims, proof, would_fail, .. } = self;
        Verified { claims, proof: proof.map(|proof| proof.claims().clone()), would_fail }
    }
}

/// The values of these headers, one after the other. `None` when one is missing or repeated.
pub(crate) fn joined_values(headers: &HeaderMap, names: &[HeaderName]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for name in names {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => data.extend_from_slice(value.as_bytes()),
            _ => return None,
        }
    }
    Some(data)
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
