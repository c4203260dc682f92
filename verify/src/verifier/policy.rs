//! What a verifier demands beyond a good token.

use crate::dpop::{DpopError, Expected, Nonce, Proof};
use crate::nonce::{NonceOrigin, ServerNonces};
use crate::replay::{ReplayEntry, ReplayKey};
use crate::time::UnixTime;
use crate::token::{Channel, Claims};
use crate::uri::{HttpUri, query_of};
use crate::verifier::headers::Presented;
use crate::verifier::{Demands, Error, Request};
use http::HeaderName;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

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

/// What is done about a proof's `htq`, the hash of the query. RFC 9449 leaves the query out of `htu`: a proof that was
/// made for `/pay?to=alice` passes with `/pay?to=mallory`, unless it has `htq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryPolicy {
    /// When it is there, it must fit the query.
    #[default]
    WhenPresent,
    /// Each proof for a URL with a query must have one that fits. (Clients leave it out when there is no query.)
    Required,
    /// It is not looked at: for servers behind a proxy that changes queries.
    Ignored,
}

/// What is done about a proof's `nonce`, in addition to [`VerifierBuilder::nonce_check`](crate::VerifierBuilder::nonce_check).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoncePolicy {
    /// A nonce that the application demands, by a `nonce_check`, is accepted once per key. One that the client chose
    /// is not remembered: a replay repeats the proof's `jti` too, which is.
    #[default]
    UniqueWhenDemanded,
    /// Each proof must have one that the same key has not used before. (One that this server gave out, by
    /// [`ServerNoncePolicy`], may be used again.)
    UniqueRequired,
    /// It may be used again, as long as a `nonce_check` accepts it.
    Ignored,
}

/// Whether this server gives out nonces (RFC 9449 sections 8 and 9). They cost no memory: a nonce is the HMAC of a minute.
/// Each is accepted for two to three minutes, as often as a client likes; clients take the next one from any response.
///
/// They tie proofs to this server's clock: a script that gets at a session's key for a moment cannot make proofs for
/// tomorrow by setting their `iat` to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerNoncePolicy {
    /// None are given out.
    #[default]
    Off,
    /// They are given out, and refused when they are too old. Proofs without nonce, and with a nonce of the client's
    /// own, are judged by [`NoncePolicy`].
    Offered,
    /// Each proof must have one that is accepted. Others are refused with the challenge `use_dpop_nonce`.
    Required,
}

/// The rules of a verifier, as they were configured.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) token_header: HeaderName,
    pub(super) channel: Option<Channel>,
    pub(super) binding_required: bool,
    pub(super) bound_headers: Vec<HeaderName>,
    pub(super) proofs_monitored: bool,
    pub(super) proof: ProofPolicy,
    pub(super) message: MessagePolicy,
    pub(super) query: QueryPolicy,
    pub(super) nonce: NoncePolicy,
    pub(super) nonce_check: Option<NonceCheck>,
    pub(super) nonce_ttl: Duration,
    pub(super) server_nonces: Option<ServerNonces>,
    pub(super) server_nonces_required: bool,
    pub(super) max_proof_age: Duration,
    pub(super) clock_skew: Duration,
}

pub(super) type NonceCheck = Arc<dyn Fn(&Value) -> bool + Send + Sync>;

impl Rules {
    /// `by_scheme`: the token came as `Authorization: DPoP …`.
    fn needs_proof(&self, claims: &Claims, by_scheme: bool) -> Result<bool, Error> {
        match if by_scheme { ProofPolicy::Required } else { self.proof } {
            ProofPolicy::Required if claims.cnf.is_none() => Err(Error::KeyBindingMissing),
            ProofPolicy::Required => Ok(true),
            ProofPolicy::WhenBound => Ok(claims.cnf.is_some()),
            ProofPolicy::Optional => Ok(false),
        }
    }

    pub(super) fn proof_of(
        &self,
        presented: &Presented<'_>,
        claims: &Claims,
        request: &Request<'_>,
        demands: Demands,
        now: UnixTime,
    ) -> Result<Option<Proof>, Error> {
        let needs_proof = self.needs_proof(claims, presented.by_scheme)?;
        match presented.proof()? {
            None if needs_proof => Err(Error::ProofMissing),
            None => Ok(None),
            Some(proof) => self.check_proof(proof, presented.token, claims, request, demands, now).map(Some),
        }
    }

    fn check_proof(
        &self,
        text: &str,
        token: &str,
        claims: &Claims,
        request: &Request<'_>,
        demands: Demands,
        now: UnixTime,
    ) -> Result<Proof, Error> {
        let bound_to = claims.cnf.as_ref().ok_or(Error::KeyBindingMissing)?;
        let proof = Proof::parse(text)?;
        let url = HttpUri::of_request(request.url).map_err(|_| DpopError::Url)?;
        proof.check(&Expected {
            method: request.method,
            url: &url,
            nonce: self.nonce_check.as_deref().map_or(Nonce::Ignored, |check| Nonce::Checked(check)),
            access_token: Some(token),
            thumbprint: Some(bound_to),
            now,
            max_age: self.max_proof_age,
            clock_skew: self.clock_skew,
        })?;
        self.check_query(&proof, query_of(request.url), demands)?;
        self.check_nonce(&proof, now)?;
        Ok(proof)
    }

    fn check_query(&self, proof: &Proof, query: &str, demands: Demands) -> Result<(), Error> {
        let policy = if demands.query { QueryPolicy::Required } else { self.query };
        match (policy, &proof.claims().htq) {
            (QueryPolicy::Ignored, _) | (QueryPolicy::WhenPresent, None) => Ok(()),
            _ if proof.covers_query(query) => Ok(()),
            (_, None) => Err(Error::QueryMissing),
            (_, Some(_)) => Err(Error::Query),
        }
    }

    /// What is remembered of the proof itself: longer than this server would accept it, for the case that another one,
    /// whose clock is behind, shares the store.
    pub(super) fn proof_entry(&self, proof: &Proof) -> ReplayEntry {
        let until = proof.issued_at().plus(self.max_proof_age).plus(self.clock_skew);
        ReplayEntry { holder: *proof.thumbprint(), key: proof.replay_key(), until }
    }

    fn check_nonce(&self, proof: &Proof, now: UnixTime) -> Result<(), DpopError> {
        let required = self.nonce == NoncePolicy::UniqueRequired || self.server_nonces_required;
        match (&proof.claims().nonce, &self.server_nonces) {
            (None, _) if required => Err(DpopError::NonceMissing),
            (None, _) | (Some(_), None) => Ok(()),
            (Some(nonce), Some(nonces)) => match nonces.origin(nonce, now) {
                NonceOrigin::Current => Ok(()),
                NonceOrigin::Foreign if !self.server_nonces_required => Ok(()),
                NonceOrigin::Foreign | NonceOrigin::Stale => Err(DpopError::Nonce),
            },
        }
    }

    /// What is remembered of the proof's nonce. This server's own may be used again.
    pub(super) fn nonce_entry(&self, proof: &Proof, now: UnixTime) -> Option<ReplayEntry> {
        let nonce = proof.claims().nonce.as_ref().filter(|_| self.nonces_are_unique())?;
        let ours = |nonces: &ServerNonces| nonces.origin(nonce, now) != NonceOrigin::Foreign;
        if self.server_nonces.as_ref().is_some_and(ours) {
            return None;
        }
        let key = ReplayKey::new("nonce", proof.thumbprint(), nonce.to_string().as_bytes());
        Some(ReplayEntry { holder: *proof.thumbprint(), key, until: now.plus(self.nonce_ttl) })
    }

    /// What it means that the proof's nonce was used before. Of one that the application demanded, it can give another.
    pub(super) fn nonce_used(&self) -> Error {
        if self.nonce_check.is_some() { Error::NonceSpent } else { Error::NonceReused }
    }

    fn nonces_are_unique(&self) -> bool {
        match self.nonce {
            NoncePolicy::UniqueWhenDemanded => self.nonce_check.is_some(),
            NoncePolicy::UniqueRequired => true,
            NoncePolicy::Ignored => false,
        }
    }
}
