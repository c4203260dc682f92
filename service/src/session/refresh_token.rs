//! Refresh tokens: sealed sessions.
//!
//! A refresh token is `0x02 ‖ key id (4) ‖ nonce (12) ‖ AES-256-GCM-SIV of the session as JSON, with tag`, in unpadded
//! base64url. Head and site key are authenticated. AES-256-GCM-SIV (RFC 8452) keeps random nonces safe for far more tokens
//! than a key will ever seal. White space after the JSON makes the length say little about what is in it.

use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::crypto::{CryptoError, derive_key};
use crate::secrets::Timeline;

use super::Session;

/// First byte of a refresh token: the format. Format 1 was sealed with a key that followed from the account's secret.
const FORMAT: u8 = 2;
const KEY_ID: usize = 4;
const HEAD: usize = 1 + KEY_ID;
const NONCE: usize = 12;
/// Longest refresh token worth decrypting, bytes of base64url.
const MAX_LENGTH: usize = 48 * 1024;
/// Sealed sessions are multiples of this, bytes.
const STEP: usize = 512;

/// The keys of an account's refresh tokens.
pub struct RefreshKeys(Timeline<RefreshKey>);

struct RefreshKey {
    key: LessSafeKey,
    /// What its tokens begin with.
    head: [u8; HEAD],
    /// Head and site key.
    associated: Vec<u8>,
}

impl RefreshKeys {
    /// Derives the keys of the account with this site key from the service's session secret.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn derive(session_secret: &Timeline<Secret>, site_key: &str) -> Result<Self, CryptoError> {
        session_secret.try_map(|secret| RefreshKey::derive(secret, site_key)).map(Self)
    }

    /// Seals a session, with the key that is in use at `now`.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn seal(&self, session: &Session, random: [u8; NONCE], now: UnixTime) -> Result<String, CryptoError> {
        self.0.making(now).seal(session, random)
    }

    /// Opens a refresh token, if it is this account's, belongs to the key with `thumbprint`, and
    /// has not reached the end of its own lifetime at `now`. Its results may have: the caller decides.
    pub fn open(&self, token: &str, thumbprint: &str, now: UnixTime) -> Option<Session> {
        if token.len() > MAX_LENGTH {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (head, sealed) = sealed.split_first_chunk::<HEAD>()?;
        // Two keys with one ID are as good as impossible, and do no harm.
        let keys = self.0.opening(now).filter(|key| key.head == *head);
        let session = keys.filter_map(|key| key.open(sealed)).next()?;
        (session.thumbprint == thumbprint && now.as_millis() < session.expires).then_some(session)
    }
}

impl RefreshKey {
    fn derive(secret: &Secret, site_key: &str) -> Result<Self, CryptoError> {
        let derive = |purpose: &[u8]| derive_key(secret, &[purpose, site_key.as_bytes()]);
        let key = derive(b"approov-web-service refresh token v2:")?;
        let id = derive(b"approov-web-service refresh token id v2:")?;
        let mut head = [FORMAT; HEAD];
        head.iter_mut().skip(1).zip(id.iter()).for_each(|(to, from)| *to = *from);
        Ok(Self {
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &*key)?),
            head,
            associated: [&head, site_key.as_bytes()].concat(),
        })
    }

    fn seal(&self, session: &Session, random: [u8; NONCE]) -> Result<String, CryptoError> {
        // Enough for a session with a brief result or two.
        let mut sealed = Vec::with_capacity(HEAD + NONCE + 2 * STEP);
        sealed.extend(self.head);
        sealed.extend(random);
        let begin = sealed.len();
        serde_json::to_writer(&mut sealed, session).map_err(|_| CryptoError)?;
        let length = (sealed.len() - begin + session.padding()).next_multiple_of(STEP);
        sealed.resize(begin + length, b' ');
        let tag = self.key.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(random),
            Aad::from(&self.associated),
            sealed.get_mut(begin..).unwrap_or_default(),
        )?;
        sealed.extend(tag.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    fn open(&self, sealed: &[u8]) -> Option<Session> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let session = self.key.open_in_place(nonce, Aad::from(&self.associated), &mut body).ok()?;
        serde_json::from_slice(session).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::session as session_at;
    use super::*;
    use crate::secrets::Timed;

    const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    fn session() -> Session {
        session_at(NOW.as_millis())
    }

    fn secret(byte: u8) -> Secret {
        Secret::from_bytes(vec![byte; 32])
    }

    fn keys(byte: u8, site_key: &str) -> RefreshKeys {
        RefreshKeys::derive(&secret(byte).into(), site_key).unwrap()
    }

    #[test]
    fn a_session_travels_unchanged() {
        let token = keys(1, "site").seal(&session(), [3; 12], NOW).unwrap();
        assert_eq!(keys(1, "site").open(&token, "jkt", NOW), Some(session()));
        assert!(!token.contains("jkt"));
    }

    #[test]
    fn another_account_key_or_time_does_not_open_it() {
        let token = keys(1, "site").seal(&session(), [3; 12], NOW).unwrap();
        assert_eq!(keys(2, "site").open(&token, "jkt", NOW), None);
        assert_eq!(keys(1, "other").open(&token, "jkt", NOW), None);
        assert_eq!(keys(1, "site").open(&token, "other", NOW), None);
        assert_eq!(keys(1, "site").open(&token, "jkt", UnixTime::from_millis(NOW.as_millis() + 1000)), None);
    }

    #[test]
    fn a_rotated_secret_opens_old_sessions_and_seals_them_anew() {
        let (change, end) =
            (UnixTime::from_millis(NOW.as_millis() + 100), UnixTime::from_millis(NOW.as_millis() + 200));
        let rotated = Timeline::new(vec![
            Timed { value: secret(1), from: None, until: Some(end) },
            Timed { value: secret(2), from: Some(change), until: None },
        ]);
        let rotated = RefreshKeys::derive(&rotated.unwrap(), "site").unwrap();
        let old = keys(1, "site").seal(&session(), [3; 12], NOW).unwrap();
        assert_eq!(rotated.open(&old, "jkt", NOW), Some(session()));
        assert_eq!(rotated.open(&old, "jkt", change), Some(session()));
        assert_eq!(rotated.open(&old, "jkt", end), None, "the old secret has ended");
        let [staged, active] = [NOW, change].map(|now| rotated.seal(&session(), [3; 12], now).unwrap());
        assert_eq!(keys(1, "site").open(&staged, "jkt", NOW), Some(session()));
        assert_eq!(keys(2, "site").open(&active, "jkt", NOW), Some(session()));
        // A replica whose clock is ahead seals with the next key already.
        assert_eq!(rotated.open(&active, "jkt", NOW), Some(session()));
    }

    #[test]
    fn the_length_says_little_about_the_session() {
        let length = |session: &Session| keys(1, "site").seal(session, [3; 12], NOW).unwrap().len();
        let mut longer = session();
        longer.results[0].brief.insert("hostname".into(), "www.example.com".into());
        assert_eq!(length(&session()), length(&longer));
        let mut failed = session();
        failed.results[0].padding = 1000;
        let mut passed = session();
        passed.results[0].full = Some(serde_json::Map::from_iter([("t".to_owned(), "x".repeat(980).into())]));
        assert_eq!(length(&failed), length(&passed));
        assert_eq!(
            keys(1, "site").open(&keys(1, "site").seal(&failed, [3; 12], NOW).unwrap(), "jkt", NOW),
            Some(failed)
        );
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let token = keys(1, "site").seal(&session(), [3; 12], NOW).unwrap();
        for i in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(keys(1, "site").open(&changed, "jkt", NOW), None, "position {i}");
        }
        for bad in ["", "A", "AQ", "AgAAAAA", "AgAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(keys(1, "site").open(bad, "jkt", NOW), None);
        }
    }
}
