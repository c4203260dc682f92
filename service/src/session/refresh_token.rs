//! Refresh tokens: sealed sessions.

use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::crypto::{CryptoError, derive_key};

use super::Session;

/// The key of an account's refresh tokens.
pub struct RefreshKey(LessSafeKey);

/// First byte of a refresh token: the format.
const VERSION: u8 = 1;
/// Longest refresh token worth decrypting, bytes of base64url.
const MAX_LENGTH: usize = 48 * 1024;
/// Enough for a session with a brief result or two, bytes.
const SEALED_CAPACITY: usize = 512;

impl RefreshKey {
    /// Derives the key from the account's secret.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn derive(secret: &Secret) -> Result<Self, CryptoError> {
        let bytes = derive_key(secret, b"approov-web-service refresh token v1")?;
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &*bytes)?)))
    }

    /// Seals a session. `site_key` is authenticated, not carried. AES-256-GCM-SIV (RFC 8452) keeps
    /// random nonces safe for far more tokens than a key will ever seal.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn seal(&self, session: &Session, site_key: &str, random: [u8; 12]) -> Result<String, CryptoError> {
        let mut sealed = Vec::with_capacity(SEALED_CAPACITY);
        sealed.push(VERSION);
        sealed.extend(random);
        let head = sealed.len();
        serde_json::to_writer(&mut sealed, session).map_err(|_| CryptoError)?;
        let tag = self.0.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(random),
            Aad::from(site_key.as_bytes()),
            sealed.get_mut(head..).unwrap_or_default(),
        )?;
        sealed.extend(tag.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens a refresh token, if it is this account's, belongs to the key with `thumbprint`, and
    /// has not reached the end of its own lifetime at `now`. Its results may have: the caller decides.
    pub fn open(&self, token: &str, site_key: &str, thumbprint: &str, now: UnixTime) -> Option<Session> {
        if token.len() > MAX_LENGTH {
            return None;
        }
        let mut sealed = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (version, rest) = sealed.split_first_mut()?;
        if *version != VERSION || rest.len() < 12 {
            return None;
        }
        let (nonce, body) = rest.split_at_mut(12);
        let nonce: [u8; 12] = (&*nonce).try_into().ok()?;
        let body =
            self.0.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(site_key.as_bytes()), body).ok()?;
        let session: Session = serde_json::from_slice(body).ok()?;
        (session.thumbprint == thumbprint && now.as_millis() < session.expires).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::session as session_at;
    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    fn session() -> Session {
        session_at(NOW.as_millis())
    }

    fn key(byte: u8) -> RefreshKey {
        RefreshKey::derive(&Secret::from_bytes(vec![byte; 32])).unwrap()
    }

    #[test]
    fn a_session_travels_unchanged() {
        let token = key(1).seal(&session(), "site", [3; 12]).unwrap();
        assert_eq!(key(1).open(&token, "site", "jkt", NOW), Some(session()));
        assert!(!token.contains("jkt"));
    }

    #[test]
    fn another_account_key_or_time_does_not_open_it() {
        let token = key(1).seal(&session(), "site", [3; 12]).unwrap();
        assert_eq!(key(2).open(&token, "site", "jkt", NOW), None);
        assert_eq!(key(1).open(&token, "other", "jkt", NOW), None);
        assert_eq!(key(1).open(&token, "site", "other", NOW), None);
        assert_eq!(key(1).open(&token, "site", "jkt", UnixTime::from_millis(NOW.as_millis() + 1000)), None);
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let token = key(1).seal(&session(), "site", [3; 12]).unwrap();
        for i in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(key(1).open(&changed, "site", "jkt", NOW), None, "position {i}");
        }
        for bad in ["", "A", "AQ", "AQAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(key(1).open(bad, "site", "jkt", NOW), None);
        }
    }
}
