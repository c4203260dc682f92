//! What came of a result, as the store keeps it for whoever sent it: sealed, so that a store holds nothing about visitors
//! that its keeper can read, and nobody who can write to it makes a result pass.
//!
//! `nonce (12) ‖ AES-256-GCM-SIV of the outcome as JSON, with tag`. Which result it is, and whose, is authenticated.

use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::crypto::{CryptoError, derive_key};
use crate::secrets::Timeline;

use super::{CheckResult, Generation};

const NONCE: usize = 12;

/// What came of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of the session that it was sent for first.
    #[serde(rename = "g")]
    pub generation: Generation,
    /// As a session remembers it.
    #[serde(rename = "r")]
    pub result: CheckResult,
}

/// The keys that seal outcomes.
pub struct OutcomeKeys(Timeline<LessSafeKey>);

impl OutcomeKeys {
    /// Derives the keys from the service's session secret.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn derive(session_secret: &Timeline<Secret>) -> Result<Self, CryptoError> {
        let derive = |secret: &Secret| {
            let bytes = derive_key(secret, &[b"approov-web-service outcome v1"])?;
            Ok::<_, CryptoError>(LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &*bytes)?))
        };
        session_secret.try_map(derive).map(Self)
    }

    /// Seals an outcome with the key that is in use at `now`. `about` says which result it is of, and whose.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn seal(
        &self,
        outcome: &Outcome,
        about: &[u8],
        random: [u8; NONCE],
        now: UnixTime,
    ) -> Result<Vec<u8>, CryptoError> {
        let mut text = serde_json::to_vec(outcome).map_err(|_| CryptoError)?;
        let nonce = Nonce::assume_unique_for_key(random);
        self.0.making(now).seal_in_place_append_tag(nonce, Aad::from(about), &mut text)?;
        Ok([random.as_slice(), &text].concat())
    }

    /// Opens what was sealed about the same result of the same key.
    pub fn open(&self, sealed: &[u8], about: &[u8], now: UnixTime) -> Option<Outcome> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        self.0.opening(now).find_map(|key| {
            let mut text = sealed.to_vec();
            let text = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(about), &mut text).ok()?;
            serde_json::from_slice(text).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::session;
    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    fn keys(byte: u8) -> OutcomeKeys {
        OutcomeKeys::derive(&Secret::from_bytes(vec![byte; 32]).into()).unwrap()
    }

    #[test]
    fn an_outcome_is_opened_by_the_service_about_the_same_result_only() {
        let result = session(0).results.remove(0);
        let outcome = Outcome { generation: 3, result };
        let sealed = keys(1).seal(&outcome, b"this", [9; 12], NOW).unwrap();
        assert_eq!(keys(1).open(&sealed, b"this", NOW), Some(outcome.clone()));
        assert_eq!(keys(1).open(&sealed, b"that", NOW), None);
        assert_eq!(keys(2).open(&sealed, b"this", NOW), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(keys(1).open(&changed, b"this", NOW), None, "byte {at}");
            assert_eq!(keys(1).open(&sealed[..at], b"this", NOW), None, "{at} bytes");
        }
        let text = serde_json::to_vec(&outcome).unwrap();
        assert!(!sealed.windows(8).any(|window| text.windows(8).any(|clear| clear == window)));
    }
}
