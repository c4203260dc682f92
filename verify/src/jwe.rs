//! Compact JSON Web Encryption (RFC 7516) with the algorithms of Approov's encrypted tokens:
//! A256GCMKW (RFC 7518 section 4.7) wraps the content key, A256GCM (section 5.3) encrypts the content.

use crate::crypto::Aes;
use crate::encoding::decode_base64url;
use crate::jws::{JwsError, read_header};
use crate::secret::Secret;
use serde_json::{Map, Value};
use std::fmt;
use zeroize::Zeroizing;

/// A key for A256GCMKW. `Debug` shows nothing of it.
pub struct JweKey(Aes);

impl JweKey {
    /// A key from a secret of 32 bytes.
    ///
    /// # Errors
    /// [`JweKeyLength`] for any other length.
    pub fn new(secret: &Secret) -> Result<Self, JweKeyLength> {
        aes_key(secret.as_bytes()).map(Self).ok_or(JweKeyLength)
    }
}

impl fmt::Debug for JweKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JweKey(…)")
    }
}

/// A JWE secret that has not 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JweKeyLength;

impl fmt::Display for JweKeyLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JWE secret must have 32 bytes")
    }
}

impl std::error::Error for JweKeyLength {}

/// Why a JWE cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JweError {
    /// Not five base64url parts, or the header is not one.
    Malformed,
    /// A header member appears twice.
    DuplicateMember,
    /// The header has `crit`.
    CriticalHeader,
    /// Not A256GCMKW with A256GCM, or compressed.
    Algorithm,
    /// The content is not a JWT (`cty`).
    NotNested,
    /// Wrong key, or altered.
    Decryption,
}

impl From<JwsError> for JweError {
    fn from(error: JwsError) -> Self {
        match error {
            JwsError::DuplicateMember => Self::DuplicateMember,
            JwsError::CriticalHeader => Self::CriticalHeader,
            JwsError::Malformed | JwsError::Algorithm | JwsError::Signature => Self::Malformed,
        }
    }
}

/// Decrypts a JWE that holds a JWT.
pub(crate) fn decrypt_nested(text: &str, key: &JweKey) -> Result<String, JweError> {
    let parts: Vec<&str> = text.split('.').collect();
    let &[protected, wrapped_key, iv, ciphertext, tag] = parts.as_slice() else {
        return Err(JweError::Malformed);
    };
    let header = read_header(&decode(protected)?)?;
    let names = |member: &str, value: &str| header.get(member).is_some_and(|found| found == value);
    if !names("alg", "A256GCMKW") || !names("enc", "A256GCM") || header.contains_key("zip") {
        return Err(JweError::Algorithm);
    }
    let nested = header.get("cty").and_then(Value::as_str).is_some_and(|cty| cty.eq_ignore_ascii_case("JWT"));
    if !nested {
        return Err(JweError::NotNested);
    }
    let content_key = unwrap_key(&header, decode(wrapped_key)?, key)?;
    let content_key = aes_key(&content_key).ok_or(JweError::Decryption)?;
    let content = open(&content_key, &decode(iv)?, protected.as_bytes(), decode(ciphertext)?, &decode(tag)?)?;
    String::from_utf8(content).map_err(|_| JweError::NotNested)
}

/// Unwraps the content key by the header's `iv` and `tag` (RFC 7518 section 4.7.1).
fn unwrap_key(header: &Map<String, Value>, wrapped: Vec<u8>, key: &JweKey) -> Result<Zeroizing<Vec<u8>>, JweError> {
    let parameter = |name: &str| decode(header.get(name).and_then(Value::as_str).ok_or(JweError::Malformed)?);
    open(&key.0, &parameter("iv")?, b"", wrapped, &parameter("tag")?).map(Zeroizing::new)
}

fn open(key: &Aes, iv: &[u8], aad: &[u8], ciphertext: Vec<u8>, tag: &[u8]) -> Result<Vec<u8>, JweError> {
    let iv = iv.try_into().map_err(|_| JweError::Malformed)?;
    let tag = tag.try_into().map_err(|_| JweError::Malformed)?;
    key.open(iv, aad, ciphertext, tag).ok_or(JweError::Decryption)
}

fn aes_key(bytes: &[u8]) -> Option<Aes> {
    Aes::new(bytes.try_into().ok()?)
}

fn decode(part: &str) -> Result<Vec<u8>, JweError> {
    decode_base64url(part).ok_or(JweError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_wrapped_key_of_rfc_7520_5_7_is_unwrapped() {
        // RFC 7520 section 5.7: figures 154 (key), 156 (content key), 158 (header), 157 (wrapped key).
        let key = JweKey::new(&Secret::from_base64("qC57l_uxcm7Nm3K-ct4GFjx8tM1U8CZ0NLBvdQstiS8").unwrap()).unwrap();
        let header = json!({
            "alg": "A256GCMKW", "kid": "18ec08e1-bfa9-4d95-b205-2b4dd1d4321d",
            "tag": "kfPduVQ3T3H6vnewt--ksw", "iv": "KkYT0GX_2jHlfqN_", "enc": "A128CBC-HS256",
        });
        let wrapped = decode("lJf3HbOApxMEBkCMOoTnnABxs_CvTWUmZQ2ElLvYNok").unwrap();
        let content_key = unwrap_key(header.as_object().unwrap(), wrapped.clone(), &key).unwrap();
        assert_eq!(*content_key, decode("UWxARpat23nL9ReIj4WG3D1ee9I4r-Mv5QLuFXdy_rE").unwrap());
        let mut altered = wrapped;
        altered[0] ^= 1;
        assert_eq!(unwrap_key(header.as_object().unwrap(), altered, &key), Err(JweError::Decryption));
    }

    #[test]
    fn the_content_of_rfc_7516_a_1_is_decrypted() {
        // RFC 7516 appendix A.1: the content key of A.1.2, the parts of A.1.7.
        let content_key = [
            177, 161, 244, 128, 84, 143, 225, 115, 63, 180, 3, 255, 107, 154, 212, 246, 138, 7, 110, 91, 112, 46, 34,
            105, 47, 130, 203, 46, 122, 234, 64, 252,
        ];
        let content = open(
            &aes_key(&content_key).unwrap(),
            &decode("48V1_ALb6US04U3b").unwrap(),
            b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ",
            decode("5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A").unwrap(),
            &decode("XFBoMYUZodetZdvTiFvSkQ").unwrap(),
        );
        assert_eq!(content.unwrap(), b"The true sign of intelligence is not knowledge but imagination.");
    }

    #[test]
    fn a_key_of_another_length_is_refused_and_none_is_shown() {
        for length in [0, 16, 31, 33, 64] {
            assert_eq!(JweKey::new(&Secret::from_bytes(vec![1; length])).unwrap_err(), JweKeyLength);
        }
        assert_eq!(format!("{:?}", JweKey::new(&Secret::from_bytes(vec![1; 32])).unwrap()), "JweKey(…)");
    }
}
