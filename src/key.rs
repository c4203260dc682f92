//! The session key that lives in WebAssembly memory, for pages where the browser has no WebCrypto.

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::point::AffineCoordinates;

use crate::jws::PublicKey;

/// An ES256 key pair. The private half is wiped when this is dropped.
pub struct SessionKey(SigningKey);

impl SessionKey {
    /// The key whose private scalar these random bytes are; `None` for the few values that are no scalar (the caller draws again).
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Option<SessionKey> {
        SigningKey::from_slice(bytes).ok().map(SessionKey)
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let point = self.0.verifying_key().as_affine();
        PublicKey::from_coordinates(&point.x().into(), &point.y().into())
    }

    /// Signs with ECDSA over SHA-256 (deterministic, RFC 6979): r and s, 32 bytes each. `None` if the curve arithmetic reports
    /// a failure, which it never does. (Its way of panicking over one costs a page 7 kB.)
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Option<[u8; 64]> {
        let signature: Signature = self.0.try_sign(message).ok()?;
        Some(signature.to_bytes().into())
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::{base64url, from_base64url};

    /// RFC 6979, appendix A.2.5: the private key, its public point, and the signature of "sample" with SHA-256.
    const PRIVATE: [u8; 32] = [
        0xC9, 0xAF, 0xA9, 0xD8, 0x45, 0xBA, 0x75, 0x16, 0x6B, 0x5C, 0x21, 0x57, 0x67, 0xB1, 0xD6, 0x93, 0x4E, 0x50,
        0xC3, 0xDB, 0x36, 0xE8, 0x9B, 0x12, 0x7B, 0x8A, 0x62, 0x2B, 0x12, 0x0F, 0x67, 0x21,
    ];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    #[test]
    fn signatures_are_those_of_rfc_6979() {
        let key = SessionKey::from_random(&PRIVATE).expect("a scalar");
        assert_eq!(
            hex(&key.sign(b"sample").expect("a signature")),
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716\
             F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
        );
        let jwk: serde_json::Value = serde_json::from_str(&key.public_key().to_jwk()).expect("JSON");
        let x = from_base64url(jwk["x"].as_str().expect("x")).expect("base64url");
        assert_eq!(hex(&x), "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6");
    }

    #[test]
    fn values_that_are_no_scalar_are_refused() {
        assert!(SessionKey::from_random(&[0; 32]).is_none());
        assert!(SessionKey::from_random(&[0xff; 32]).is_none());
    }

    #[test]
    fn the_private_key_is_not_printed() {
        let key = SessionKey::from_random(&PRIVATE).expect("a scalar");
        let printed = format!("{key:?}");
        assert_eq!(printed, "SessionKey(…)");
        assert!(!printed.contains(&base64url(&PRIVATE)));
    }
}
