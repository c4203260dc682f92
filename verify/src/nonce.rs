//! Nonces that a server gives out (RFC 9449 sections 8 and 9), without remembering any.
//!
//! A nonce is the number of a minute and its HMAC. So all servers with the same secret give out and accept the same
//! ones, a client may use one as often as it likes while it is accepted, and nobody can make one for the future.

use crate::crypto::Hmac;
use crate::encoding::{decode_base64url_array, encode_base64url};
use crate::secret::Secret;
use crate::time::UnixTime;
use serde_json::Value;
use std::ops::RangeInclusive;

/// How long a nonce is given out, in seconds.
const ROTATION_SECONDS: i64 = 60;

/// Which nonces are accepted, counted from the current one: those of the two minutes before, so that each is good for
/// two minutes at least, and the next one, for servers whose clocks are not the same.
const ACCEPTED: RangeInclusive<i64> = -2..=1;

/// What derives the key from a secret that is used for something else as well (RFC 5869).
const PURPOSE: &[u8] = b"verify nonce v1";

const NUMBER_LENGTH: usize = 8;
const TAG_LENGTH: usize = 32;

/// What gives out nonces and recognises them.
#[derive(Clone)]
pub(crate) struct ServerNonces {
    /// The first makes nonces; each recognises its own.
    keys: Vec<Hmac>,
}

/// What a proof's `nonce` is to a server that gives out nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonceOrigin {
    /// This server's, still accepted.
    Current,
    /// This server's, but from too long ago.
    Stale,
    /// Somebody else's.
    Foreign,
}

impl ServerNonces {
    /// Nonces by keys that are derived from these secrets. `None` when there are none, or when the cryptographic
    /// module refuses.
    pub(crate) fn new(secrets: &[Secret]) -> Option<Self> {
        let keys: Option<Vec<_>> = secrets.iter().map(|secret| Hmac::derived(secret.as_bytes(), PURPOSE)).collect();
        keys.filter(|keys| !keys.is_empty()).map(|keys| Self { keys })
    }

    /// The nonce to give out.
    pub(crate) fn current(&self, now: UnixTime) -> String {
        let number = number_at(now).to_be_bytes();
        let tag = self.keys.first().map(|key| key.sign(&number));
        encode_base64url(&[number.as_slice(), tag.as_ref().map_or(&[], <[u8; TAG_LENGTH]>::as_slice)].concat())
    }

    /// What a nonce is.
    pub(crate) fn origin(&self, nonce: &Value, now: UnixTime) -> NonceOrigin {
        let number = nonce.as_str().and_then(|text| self.number_of(text));
        match number.map(|number| number.saturating_sub(number_at(now))) {
            None => NonceOrigin::Foreign,
            Some(age) if ACCEPTED.contains(&age) => NonceOrigin::Current,
            Some(_) => NonceOrigin::Stale,
        }
    }

    /// The number in a nonce that one of the keys made.
    fn number_of(&self, text: &str) -> Option<i64> {
        let bytes: [u8; NUMBER_LENGTH + TAG_LENGTH] = decode_base64url_array(text)?;
        let (number, tag) = bytes.split_first_chunk::<NUMBER_LENGTH>()?;
        let made_here = self.keys.iter().any(|key| key.has_signed(number, tag));
        made_here.then(|| i64::from_be_bytes(*number))
    }
}

fn number_at(now: UnixTime) -> i64 {
    now.as_secs().div_euclid(ROTATION_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nonces(bytes: &[u8]) -> ServerNonces {
        let secrets: Vec<_> = bytes.iter().map(|byte| Secret::from_bytes(vec![*byte; 32])).collect();
        ServerNonces::new(&secrets).unwrap()
    }

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_secs(seconds)
    }

    const MINUTE: i64 = 30_000_000;
    const NOW: i64 = MINUTE * 60;

    #[test]
    fn a_nonce_is_the_minute_and_its_hmac_by_a_derived_key() {
        // By Python's `cryptography` and `hmac`: 30,000,000 as 8 bytes and its HMAC-SHA256 by
        // HKDF(SHA256, length 32, no salt, info "verify nonce v1") of 32 bytes 7.
        let expected = "AAAAAAHJw4DlIcNl5j7MHWN6uG_9DsmfBBESgug2Ru4WQLdQwXtroQ";
        assert_eq!(nonces(&[7]).current(at(NOW + 59)), expected);
    }

    #[test]
    fn a_nonce_is_reusable_until_two_minutes_after_its_own() {
        let nonces = nonces(&[7]);
        let nonce = json!(nonces.current(at(NOW)));
        for (seconds, origin) in [
            (-61, NonceOrigin::Stale),
            (-60, NonceOrigin::Current),
            (0, NonceOrigin::Current),
            (59, NonceOrigin::Current),
            (179, NonceOrigin::Current),
            (180, NonceOrigin::Stale),
            (1_000_000_000, NonceOrigin::Stale),
        ] {
            assert_eq!(nonces.origin(&nonce, at(NOW + seconds)), origin, "{seconds}");
        }
        assert_eq!(nonces.current(at(NOW)), nonces.current(at(NOW + 59)));
        assert_ne!(nonces.current(at(NOW)), nonces.current(at(NOW + 60)));
    }

    #[test]
    fn what_no_key_made_is_foreign() {
        let own = nonces(&[7]);
        let nonce = own.current(at(NOW));
        assert_eq!(nonces(&[8]).origin(&json!(nonce), at(NOW)), NonceOrigin::Foreign);
        // The secret itself is not the key.
        let direct = Hmac::new(&[7; 32]).unwrap().sign(&MINUTE.to_be_bytes());
        let direct = encode_base64url(&[MINUTE.to_be_bytes().as_slice(), direct.as_slice()].concat());
        for other in [
            json!(direct),
            json!(""),
            json!(1),
            json!([nonce]),
            json!({"nonce": nonce}),
            json!(format!("{nonce}=")),
            json!(nonce.get(1..)),
            json!(encode_base64url(&MINUTE.to_be_bytes())),
        ] {
            assert_eq!(own.origin(&other, at(NOW)), NonceOrigin::Foreign, "{other}");
        }
        for position in 0..nonce.len() {
            let altered: String = nonce
                .chars()
                .enumerate()
                .map(|(index, c)| if index == position { if c == 'A' { 'E' } else { 'A' } } else { c })
                .collect();
            assert_eq!(own.origin(&json!(altered), at(NOW)), NonceOrigin::Foreign, "{altered}");
        }
    }

    #[test]
    fn while_a_secret_is_changed_the_nonces_of_both_are_accepted_and_the_first_makes_them() {
        let (old, both, new) = (nonces(&[7]), nonces(&[7, 8]), nonces(&[8]));
        assert_eq!(both.current(at(NOW)), old.current(at(NOW)));
        for nonce in [old.current(at(NOW)), new.current(at(NOW))] {
            assert_eq!(both.origin(&json!(nonce), at(NOW)), NonceOrigin::Current);
        }
        assert!(ServerNonces::new(&[]).is_none());
    }
}
