//! Sealed results (docs.fingerprint.com/docs/sealed-client-results): an event that the page brings along, encrypted with a
//! key that only Fingerprint and the subscription's owner have. Whoever can be opened needs no lookup.

use std::io::Read as _;

use approov_verify::secret::Secret;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::DeflateDecoder;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::event::Event;
use super::v4::{RawEvent, in_documented_shape};

/// The longest sealed result that is read, bytes of base64.
pub(super) const MAX_TEXT_BYTES: usize = 32 * 1024;
/// The longest event in one, bytes of JSON: what is compressed can be small and become anything.
const MAX_EVENT_BYTES: u64 = 256 * 1024;

/// What sealed results begin with.
const HEADER: [u8; 4] = [0x9e, 0x85, 0xdc, 0xed];

/// A sealed result, opened.
pub(super) struct Opened {
    pub(super) event: Option<Event>,
    pub(super) full: Map<String, Value>,
}

/// Opens a sealed result with one of `keys`. `None` when none of them opens it, or it is of another version.
pub(super) fn open(text: &str, keys: &[&Secret]) -> Option<Opened> {
    let sealed = STANDARD.decode(text).ok()?;
    let sealed = sealed.strip_prefix(&HEADER)?;
    let plain = keys.iter().find_map(|key| decrypt(sealed, key))?;
    let mut json = Vec::new();
    DeflateDecoder::new(plain.as_slice()).take(MAX_EVENT_BYTES + 1).read_to_end(&mut json).ok()?;
    if u64::try_from(json.len()).ok()? > MAX_EVENT_BYTES {
        return None;
    }
    let event: Map<String, Value> = serde_json::from_slice(&json).ok()?;
    let raw = RawEvent::deserialize(&Value::Object(event.clone())).ok()?;
    Some(Opened { event: Some(raw.into_event(0)), full: in_documented_shape(&event) })
}

fn decrypt(sealed: &[u8], key: &Secret) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes()).ok()?);
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut bytes = rest.to_vec();
    let length = key.open_in_place(nonce, Aad::empty(), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;
    use serde_json::json;

    use super::*;

    fn key(byte: u8) -> Secret {
        Secret::from_bytes(vec![byte; 32])
    }

    fn seal(key: &Secret, plain: &[u8]) -> String {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        let mut bytes = encoder.finish().unwrap();
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes()).unwrap());
        let nonce = Nonce::assume_unique_for_key([7; NONCE_LEN]);
        cipher.seal_in_place_append_tag(nonce, Aad::empty(), &mut bytes).unwrap();
        STANDARD.encode([&HEADER[..], &[7; NONCE_LEN], &bytes].concat())
    }

    fn event() -> Vec<u8> {
        json!({"event_id": "e.1", "timestamp": 1_708_102_555_327_i64, "identification": {"visitor_id": "v"}})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_sealed_event_is_opened_with_any_of_the_keys() {
        let sealed = seal(&key(2), &event());
        for keys in [vec![key(2)], vec![key(1), key(2)], vec![key(2), key(1)]] {
            let opened = open(&sealed, &keys.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(opened.event.unwrap().event_id, "e.1");
            assert_eq!(opened.full["visitorId"], "v");
        }
        assert!(open(&sealed, &[&key(1)]).is_none());
        assert!(open(&sealed, &[]).is_none());
    }

    #[test]
    fn nothing_else_is_opened() {
        let sealed = seal(&key(2), &event());
        let bytes = STANDARD.decode(&sealed).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(open(&STANDARD.encode(altered), &[&key(2)]).is_none(), "byte {at}");
        }
        for length in [0, 3, 4, 15, 16, 31, bytes.len() - 1] {
            assert!(open(&STANDARD.encode(&bytes[..length]), &[&key(2)]).is_none(), "{length} bytes");
        }
        for other in [&b"not JSON"[..], b"{}", b"{\"products\":{}}", b"[]"] {
            assert!(open(&seal(&key(2), other), &[&key(2)]).is_none());
        }
        assert!(open("%%%", &[&key(2)]).is_none());
    }

    #[test]
    fn what_grows_beyond_measure_is_not_opened() {
        let spaces = vec![b' '; usize::try_from(MAX_EVENT_BYTES).unwrap()];
        let bomb = [&spaces[..], &event()].concat();
        let sealed = seal(&key(2), &bomb);
        assert!(sealed.len() < MAX_TEXT_BYTES);
        assert!(open(&sealed, &[&key(2)]).is_none());
        let large = [&spaces[..spaces.len() / 2], &event()].concat();
        assert!(open(&seal(&key(2), &large), &[&key(2)]).is_some());
    }
}
