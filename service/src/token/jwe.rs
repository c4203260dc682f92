//! Encrypted tokens.

use approov_verify::secret::Secret;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::crypto::{CryptoError, JweEntropy};

use super::base64url_length;

/// Nests a JWS in a compact JWE (RFC 7516; RFC 7518 section 4.7; RFC 7519 section 5.2 for `cty`).
///
/// # Errors
/// When `key` is not 32 bytes or the cryptographic module fails.
pub fn encrypt(jws: &str, key: &Secret, entropy: JweEntropy) -> Result<String, CryptoError> {
    let mut wrapped = *entropy.content_key;
    let wrap_tag = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes())?).seal_in_place_separate_tag(
        Nonce::assume_unique_for_key(entropy.wrap_nonce),
        Aad::empty(),
        &mut wrapped,
    )?;
    let header = serde_json::json!({
        "alg": "A256GCMKW",
        "enc": "A256GCM",
        "cty": "JWT",
        "iv": URL_SAFE_NO_PAD.encode(entropy.wrap_nonce),
        "tag": URL_SAFE_NO_PAD.encode(wrap_tag.as_ref()),
    });
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    let mut content = jws.as_bytes().to_vec();
    let tag = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*entropy.content_key)?).seal_in_place_separate_tag(
        Nonce::assume_unique_for_key(entropy.content_nonce),
        Aad::from(header.as_bytes()),
        &mut content,
    )?;
    Ok([
        header,
        URL_SAFE_NO_PAD.encode(wrapped),
        URL_SAFE_NO_PAD.encode(entropy.content_nonce),
        URL_SAFE_NO_PAD.encode(content),
        URL_SAFE_NO_PAD.encode(tag.as_ref()),
    ]
    .join("."))
}

/// The length of the JWE of a JWS of this length.
pub const fn encrypted_length(jws: usize) -> usize {
    /// Of the header, whatever its values are.
    const HEADER: usize = r#"{"alg":"A256GCMKW","cty":"JWT","enc":"A256GCM","iv":"","tag":""}"#.len() + NONCE + TAG;
    const NONCE: usize = base64url_length(12);
    const TAG: usize = base64url_length(16);
    base64url_length(HEADER) + base64url_length(32) + NONCE + base64url_length(jws) + TAG + 4
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn a_jwe_opens_with_the_key_and_only_with_it() {
        let key = Secret::from_bytes(vec![7; 32]);
        let jwe = encrypt(
            "the.inner.jws",
            &key,
            JweEntropy { content_key: Zeroizing::new([1; 32]), wrap_nonce: [2; 12], content_nonce: [3; 12] },
        )
        .unwrap();
        let parts: Vec<&str> = jwe.split('.').collect();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
        assert_eq!(header["cty"], "JWT");
        let open = |kek: &[u8]| {
            let mut wrapped = decode(parts[1]);
            wrapped.extend(decode(header["tag"].as_str().unwrap()));
            let nonce: [u8; 12] = decode(header["iv"].as_str().unwrap()).try_into().unwrap();
            let kek = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, kek).unwrap());
            let cek = kek.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut wrapped).ok()?.to_vec();
            let mut content = decode(parts[3]);
            content.extend(decode(parts[4]));
            let nonce: [u8; 12] = decode(parts[2]).try_into().unwrap();
            let cek = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &cek).unwrap());
            let text =
                cek.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(parts[0]), &mut content).ok()?;
            Some(String::from_utf8(text.to_vec()).unwrap())
        };
        assert_eq!(open(&[7; 32]).as_deref(), Some("the.inner.jws"));
        assert_eq!(open(&[8; 32]), None);
    }
}
