//! The `DPoP-Nonce` values of the service (RFC 9449 section 8): stateless, so that any replica that
//! has the key accepts a nonce from any other.
//!
//! A nonce is `issued (8 bytes, Unix ms) ‖ store epoch (8) ‖ random (8) ‖ HMAC-SHA256 tag (16)` in
//! base64url.

use std::time::Duration;

use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::crypto::{CryptoError, derive_key};
use crate::secrets::Timeline;

/// How long a nonce is accepted. Long enough for a person to solve a challenge between the nonce
/// request and the attest request, and for a token's lifetime between two refreshes.
pub const NONCE_LIFETIME: Duration = Duration::from_secs(600);

/// How far ahead another replica's clock may be.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

const BODY: usize = 24;
const TAG: usize = 16;

/// Epoch of a store, carried by nonces.
pub type Epoch = u64;

/// When and in which epoch a nonce was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonceStamp {
    /// By the issuing replica's clock.
    pub at: UnixTime,
    /// The store's epoch as that replica knew it.
    pub epoch: Epoch,
}

/// The keys that make and check the service's nonces.
pub struct NonceKeys(Timeline<NonceKey>);

impl NonceKeys {
    /// Derives the keys from the service's session secret.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn derive(session_secret: &Timeline<Secret>) -> Result<Self, CryptoError> {
        session_secret.try_map(NonceKey::derive).map(Self)
    }

    /// The nonce that says when and in which epoch it was issued.
    pub fn issue(&self, issued: NonceStamp, random: [u8; 8]) -> String {
        self.0.making(issued.at).issue(issued, random)
    }

    /// When this nonce was issued, if it is ours and still good at `now`.
    pub fn check(&self, nonce: &str, now: UnixTime) -> Option<NonceStamp> {
        self.0.opening(now).find_map(|key| key.check(nonce, now))
    }
}

/// A key that makes and checks nonces.
struct NonceKey(hmac::Key);

impl NonceKey {
    fn derive(secret: &Secret) -> Result<Self, CryptoError> {
        let bytes = derive_key(secret, &[b"approov-web-service nonce v2"])?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &*bytes)))
    }

    fn issue(&self, issued: NonceStamp, random: [u8; 8]) -> String {
        let mut bytes = Vec::with_capacity(BODY + TAG);
        bytes.extend(issued.at.as_millis().to_be_bytes());
        bytes.extend(issued.epoch.to_be_bytes());
        bytes.extend(random);
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend(tag.as_ref().iter().take(TAG));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn check(&self, nonce: &str, now: UnixTime) -> Option<NonceStamp> {
        let bytes: [u8; BODY + TAG] = URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?;
        let (body, tag) = bytes.split_at(BODY);
        let expected = hmac::sign(&self.0, body);
        let expected = expected.as_ref().get(..TAG)?;
        aws_lc_rs::constant_time::verify_slices_are_equal(expected, tag).ok()?;
        let issued = UnixTime::from_millis(i64::from_be_bytes(body.get(..8)?.try_into().ok()?));
        let epoch = u64::from_be_bytes(body.get(8..16)?.try_into().ok()?);
        let fresh = now.since(issued) <= NONCE_LIFETIME && issued.since(now) <= CLOCK_SKEW;
        fresh.then_some(NonceStamp { at: issued, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Timed;

    const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    const ISSUED: NonceStamp = NonceStamp { at: NOW, epoch: 5 };

    fn key(byte: u8) -> NonceKey {
        NonceKey::derive(&Secret::from_bytes(vec![byte; 32])).unwrap()
    }

    #[test]
    fn a_nonce_is_good_for_its_life_and_no_longer() {
        let nonce = key(1).issue(ISSUED, [9; 8]);
        assert_eq!(key(1).check(&nonce, NOW), Some(ISSUED));
        assert_eq!(key(1).check(&nonce, NOW.plus(NONCE_LIFETIME)), Some(ISSUED));
        assert_eq!(key(1).check(&nonce, NOW.plus(NONCE_LIFETIME + Duration::from_millis(1))), None);
        assert_eq!(key(1).check(&nonce, UnixTime::from_millis(NOW.as_millis() - 30_001)), None);
    }

    #[test]
    fn another_keys_nonce_is_not_ours() {
        assert_eq!(key(2).check(&key(1).issue(ISSUED, [9; 8]), NOW), None);
    }

    #[test]
    fn nonces_of_both_keys_are_good_while_one_takes_over_from_the_other() {
        let secret = |byte| Secret::from_bytes(vec![byte; 32]);
        let change = NOW.plus(Duration::from_secs(300));
        let rotated = Timeline::new(vec![
            Timed { value: secret(1), from: None, until: Some(change.plus(NONCE_LIFETIME)) },
            Timed { value: secret(2), from: Some(change), until: None },
        ]);
        let (before, rotated) =
            (NonceKeys::derive(&secret(1).into()).unwrap(), NonceKeys::derive(&rotated.unwrap()).unwrap());
        let after = NonceKeys::derive(&secret(2).into()).unwrap();
        let early = before.issue(ISSUED, [9; 8]);
        assert_eq!(rotated.check(&early, change), Some(ISSUED));
        let stamp = NonceStamp { at: change, ..ISSUED };
        for (keys, issued, accepted) in
            [(&rotated, ISSUED, &before), (&rotated, stamp, &after), (&after, stamp, &rotated)]
        {
            let nonce = keys.issue(issued, [9; 8]);
            assert_eq!(accepted.check(&nonce, issued.at), Some(issued));
        }
        assert_eq!(after.check(&early, NOW), None);
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let nonce = key(1).issue(ISSUED, [9; 8]);
        for i in 0..nonce.len() {
            let mut bytes = nonce.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            assert_eq!(key(1).check(&String::from_utf8(bytes).unwrap(), NOW), None, "position {i}");
        }
        for bad in ["", "a", "!!!!", nonce.trim_start_matches(char::is_alphanumeric)] {
            assert_eq!(key(1).check(bad, NOW), None);
        }
    }
}
