//! The private keys of a keyset, and PEM.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::crypto::{CryptoError, KeyAlg, KeyPair, PublicParts};

/// A private key of a keyset.
#[derive(Clone)]
pub struct SigningKey {
    kid: Option<String>,
    pair: Arc<KeyPair>,
}

impl SigningKey {
    /// Reads a PKCS#8 PEM key.
    ///
    /// # Errors
    /// The message says what was expected; it never repeats the input.
    pub fn from_pem(alg: KeyAlg, kid: &str, pem: &str) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| not_pkcs8(pem).to_owned())?;
        let pair = KeyPair::from_pkcs8(alg, der.secret_pkcs8_der())?;
        Ok(Self { kid: Some(kid.to_owned()), pair: Arc::new(pair) })
    }

    /// Another key under the same name.
    #[must_use]
    pub fn with_pair(&self, pair: KeyPair) -> Self {
        Self { kid: self.kid.clone(), pair: Arc::new(pair) }
    }

    /// Its name in the keyset.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The key pair.
    pub fn pair(&self) -> &KeyPair {
        &self.pair
    }

    /// The algorithm.
    pub fn alg(&self) -> KeyAlg {
        self.pair.alg()
    }

    /// The public key as a JWK (RFC 7517), for backends.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn public_jwk(&self) -> Result<Value, CryptoError> {
        let mut jwk = match self.pair.public_parts()? {
            PublicParts::P256 { x, y } => {
                json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
            }
            PublicParts::Rsa { n, e } => {
                json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)})
            }
        };
        if let Some(jwk) = jwk.as_object_mut() {
            jwk.insert("use".to_owned(), "sig".into());
            jwk.insert("alg".to_owned(), self.alg().name().into());
            jwk.insert("kid".to_owned(), self.kid.clone().into());
        }
        Ok(jwk)
    }

    /// The public key as SubjectPublicKeyInfo PEM, for backends.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn public_pem(&self) -> Result<String, CryptoError> {
        Ok(std::mem::take(&mut *pem("PUBLIC KEY", &self.pair.public_der()?)))
    }
}

/// A private key as PKCS#8 PEM, as [`SigningKey::from_pem`] reads it.
///
/// # Errors
/// When the key cannot be encoded.
pub fn private_pem(pair: &KeyPair) -> Result<Zeroizing<String>, CryptoError> {
    Ok(pem("PRIVATE KEY", &pair.to_pkcs8()?))
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, {:?})", self.alg().name(), self.kid)
    }
}

/// Why a text is no private key as a keyset has them. It is a secret, and not repeated.
fn not_pkcs8(pem: &str) -> &'static str {
    if pem.contains("ENCRYPTED") {
        "private_key is encrypted, and nobody is there to type its passphrase: openssl pkey -in FILE -out FILE"
    } else if pem.contains("BEGIN RSA PRIVATE KEY") || pem.contains("BEGIN EC PRIVATE KEY") {
        "private_key must be a PKCS#8 PEM (BEGIN PRIVATE KEY): openssl pkcs8 -topk8 -nodes -in FILE"
    } else {
        "private_key must be a PKCS#8 PEM (BEGIN PRIVATE KEY)"
    }
}

#[cfg(test)]
mod tests {
    use approov_verify::Verifier;
    use approov_verify::keyset::KeySet;
    use approov_verify::time::UnixTime;

    use super::super::Signer;
    use super::*;

    #[test]
    fn a_published_key_is_the_one_that_backends_read() {
        for alg in [KeyAlg::Es256, KeyAlg::Rs256] {
            let pem = private_pem(&KeyPair::generate(alg).unwrap()).unwrap();
            let key = SigningKey::from_pem(alg, "k1", &pem).unwrap();
            let jwk = key.public_jwk().unwrap();
            assert_eq!((&jwk["alg"], &jwk["use"], &jwk["kid"]), (&json!(alg.name()), &json!("sig"), &json!("k1")));
            let members: Vec<_> = jwk.as_object().unwrap().keys().map(String::as_str).collect();
            match alg {
                KeyAlg::Es256 => assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]),
                KeyAlg::Rs256 => assert_eq!(members, ["alg", "e", "kid", "kty", "n", "use"]),
            }
            let set = KeySet::from_jwks(&json!({ "keys": [jwk] }).to_string()).unwrap();
            let token = Signer::Key(key).sign(&json!({"exp": 4_000_000_000_u64, "iat": 1})).unwrap();
            let verifier = Verifier::builder().keyset(set).build().unwrap();
            assert!(verifier.verify_token(&token, UnixTime::from_secs(2)).is_ok(), "{alg:?}");
        }
    }

    #[test]
    fn a_key_in_another_form_is_told_how_to_be_read() {
        let pem = |label: &str| format!("-----BEGIN {label}-----\nc2VjcmV0\n-----END {label}-----\n");
        for (text, word) in [
            (pem("ENCRYPTED PRIVATE KEY"), "encrypted"),
            (pem("EC PRIVATE KEY"), "-topk8"),
            (pem("RSA PRIVATE KEY"), "-topk8"),
            ("\u{0}\u{1}".to_owned(), "BEGIN PRIVATE KEY"),
        ] {
            let error = SigningKey::from_pem(KeyAlg::Es256, "k", &text).unwrap_err();
            assert!(error.contains(word) && !error.contains("c2VjcmV0"), "{text}: {error}");
        }
    }

    #[test]
    fn a_private_key_is_never_printed() {
        let pem = private_pem(&KeyPair::generate(KeyAlg::Es256).unwrap()).unwrap();
        let key = SigningKey::from_pem(KeyAlg::Es256, "k1", &pem).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey(ES256, Some(\"k1\"))");
    }
}
