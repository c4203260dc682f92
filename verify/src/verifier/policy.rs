//! What a verifier demands beyond a good token.

use crate::dpop::{DpopError, Expected, Nonce, Proof};
use crate::replay::ReplayKey;
use crate::time::UnixTime;
use crate::token::{Channel, Claims};
use crate::uri::HttpUri;
use crate::verifier::{Error, Request};
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

/// What is done about a proof's `nonce`, in addition to [`VerifierBuilder::nonce_check`](crate::VerifierBuilder::nonce_check).
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

/// The rules of a verifier, as they were configured.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) token_header: HeaderName,
    pub(super) channel: Option<Channel>,
    pub(super) binding_required: bool,
    pub(super) proof: ProofPolicy,
    pub(super) message: MessagePolicy,
    pub(super) nonce: NoncePolicy,
    pub(super) nonce_check: Option<NonceCheck>,
    pub(super) nonce_ttl: Duration,
    pub(super) max_proof_age: Duration,
    pub(super) clock_skew: Duration,
}

pub(super) type NonceCheck = Arc<dyn Fn(&Value) -> bool + Send + Sync>;

impl Rules {
    pub(super) fn needs_proof(&self, claims: &Claims) -> Result<bool, Error> {
        match self.proof {
            ProofPolicy::Required if claims.cnf.is_none() => Err(Error::KeyBindingMissing),
            ProofPolicy::Required => Ok(true),
            ProofPolicy::WhenBound => Ok(claims.cnf.is_some()),
            ProofPolicy::Optional => Ok(false),
        }
    }

    pub(super) fn check_proof(
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
            max_age: self.max_proof_age,
            clock_skew: self.clock_skew,
        })?;
        if self.nonce == NoncePolicy::UniqueRequired && proof.claims().nonce.is_none() {
            return Err(DpopError::NonceMissing.into());
        }
        Ok(proof)
    }

    pub(super) fn nonce_key(&self, proof: &Proof) -> Option<ReplayKey> {
        let nonce = proof.claims().nonce.as_ref().filter(|_| self.nonce != NoncePolicy::Ignored)?;
        Some(ReplayKey::new("nonce", proof.thumbprint(), nonce.to_string().as_bytes()))
    }
}
