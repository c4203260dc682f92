//! The proof of a request to `/attest`.

use std::cell::Cell;
use std::time::Duration;

use approov_verify::dpop::{DpopError, Expected, Nonce, Proof, UnverifiedProof};
use serde_json::Value;

use crate::error::{Code, Refusal};
use crate::session::NonceStamp;

use super::Attest;

/// The nonce proves that a proof is fresh, so its `iat` may be off by as much as clocks are: a wrong
/// clock in the browser must not lock its user out.
const UNBOUNDED_AGE: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How much of a wrong URL the log says.
const MAX_NOTED_CHARS: usize = 256;

impl<'a> Attest<'a> {
    /// Checks a nonce request: the proof must be sound, but needs no nonce yet. Gives the challenge that it asks for.
    ///
    /// # Errors
    /// `aprv-invalid-dpop-token`.
    pub fn check_nonce_request(&mut self) -> Result<Option<String>, Refusal> {
        let proof = self.single_proof()?;
        self.check_proof(&proof, Nonce::Ignored)?;
        let counters = &self.service.limits;
        let client = counters.client(self.incoming.client_ip);
        let challenge = self.requested_challenge(&proof);
        let (limits, pressure) = (&self.active.config.limits, self.service.pressure.value());
        // A nonce is worth nothing without a key, so nothing depends on this signature but how early an error shows.
        if counters.verifies_nonce_request(client, pressure, limits, counters.now()) {
            self.verified(proof)?;
        }
        Ok(challenge)
    }

    /// The proof of an attest request, its signature unverified, with when and where its nonce was issued.
    pub(super) fn fresh_proof(&mut self) -> Result<(UnverifiedProof<'a>, NonceStamp), Refusal> {
        let proof = self.single_proof()?;
        let (active, now) = (self.active, self.incoming.now);
        let stamp = Cell::new(None);
        let accepts = |nonce: &Value| {
            stamp.set(nonce.as_str().and_then(|nonce| active.check_nonce(nonce, now)));
            stamp.get().is_some()
        };
        self.check_proof(&proof, Nonce::Checked(&accepts))?;
        match stamp.get() {
            Some(stamp) => Ok((proof, stamp)),
            None => Err(Refusal::new(Code::InvalidNonce, "")),
        }
    }

    /// The proof once its signature is verified.
    pub(super) fn verified(&mut self, proof: UnverifiedProof<'_>) -> Result<Proof, Refusal> {
        proof.verify().map_err(|error| self.bad_proof(error))
    }

    fn single_proof(&mut self) -> Result<UnverifiedProof<'a>, Refusal> {
        match self.incoming.proofs {
            [proof] => UnverifiedProof::parse(proof).map_err(|error| self.bad_proof(error)),
            [] => Err(Refusal::new(Code::InvalidDpopToken, "the DPoP header is missing")),
            _ => Err(Refusal::new(Code::InvalidDpopToken, "more than one DPoP header")),
        }
    }

    fn check_proof(&mut self, proof: &UnverifiedProof<'_>, nonce: Nonce<'_>) -> Result<(), Refusal> {
        let urls = &self.active.attest_urls;
        let Some(url) = urls.iter().find(|url| *url == proof.url()) else {
            // Operators see what to put into public_urls.
            let refusal = self.bad_proof(DpopError::Url);
            let url: String = proof.url().to_string().chars().take(MAX_NOTED_CHARS).collect();
            self.notes.detail = Some(format!("{}: {url}", DpopError::Url.code()));
            return Err(refusal);
        };
        let expected = Expected {
            method: self.incoming.method,
            url,
            nonce,
            access_token: None,
            thumbprint: None,
            now: self.incoming.now,
            max_age: UNBOUNDED_AGE,
            clock_skew: UNBOUNDED_AGE,
        };
        proof.check(&expected).map_err(|error| self.bad_proof(error))
    }

    fn bad_proof(&mut self, error: DpopError) -> Refusal {
        self.notes.detail = Some(error.code().to_owned());
        match error {
            DpopError::NonceMissing | DpopError::Nonce => Refusal::new(Code::InvalidNonce, ""),
            _ => Refusal::new(Code::InvalidDpopToken, error.to_string()),
        }
    }
}
