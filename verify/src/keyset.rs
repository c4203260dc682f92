//! Public keys of an account, for tokens signed with RS256 or ES256.

use crate::json;
use crate::jwk::{InvalidJwk, P256PublicKey, RsaPublicKey};
use crate::jws::VerificationKey;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value};
use std::fmt;

/// Public keys, each with the identifier (`kid`) that tokens name it by, if it has one.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<NamedKey>,
}

/// A key and its identifier.
#[derive(Clone, Debug)]
pub(crate) struct NamedKey {
    pub(crate) kid: Option<String>,
    pub(crate) key: VerificationKey,
}

impl NamedKey {
    /// Whether a token with this `kid` may be signed by this key. A key without identifier matches any.
    pub(crate) fn matches_kid(&self, kid: Option<&str>) -> bool {
        self.kid.as_deref().is_none_or(|own| kid.is_none_or(|named| named == own))
    }
}

impl KeySet {
    /// Reads a JWK Set (RFC 7517 section 5) as the account's keyset is exported. Keys that are marked for another
    /// use, or are of a type that signs nothing here, are passed over, as that section asks.
    ///
    /// # Errors
    /// [`KeySetError`] when the text is not a JWK Set, a key is malformed or private, two keys have the same
    /// `kid`, or no usable key is left.
    pub fn from_jwks(text: &str) -> Result<Self, KeySetError> {
        let set = json::parse_object(text.as_bytes()).map_err(|_| KeySetError::NotAKeySet)?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotAKeySet)?;
        let mut keys: Vec<NamedKey> = Vec::new();
        for (index, jwk) in listed.iter().enumerate() {
            let key_error = |cause| KeySetError::Key { index, cause };
            let jwk = jwk.as_object().ok_or(key_error(InvalidJwk::Malformed))?;
            let key = match read_jwk(jwk) {
                Err(InvalidJwk::UnsupportedKey | InvalidJwk::WrongUse) => continue,
                read => read.map_err(key_error)?,
            };
            let kid = match jwk.get("kid") {
                None => None,
                Some(Value::String(kid)) => Some(kid.clone()),
                Some(_) => return Err(key_error(InvalidJwk::Malformed)),
            };
            if kid.is_some() && keys.iter().any(|other| other.kid == kid) {
                return Err(KeySetError::RepeatedKeyId);
            }
            keys.push(NamedKey { kid, key });
        }
        if keys.is_empty() { Err(KeySetError::NoKey) } else { Ok(Self { keys }) }
    }

    /// Reads one or more PEM `PUBLIC KEY` blocks (RFC 7468 section 13): RSA or P-256. They have no identifiers,
    /// so each is tried for a token of its algorithm.
    ///
    /// # Errors
    /// [`KeySetError`] when the text is not PEM, has no public key, or one that is not supported.
    pub fn from_pem(text: &str) -> Result<Self, KeySetError> {
        let mut keys = Vec::new();
        for (index, der) in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()).enumerate() {
            let der = der.map_err(|_| KeySetError::NotAKeySet)?;
            let key = read_spki(&der).map_err(|cause| KeySetError::Key { index, cause })?;
            keys.push(NamedKey { kid: None, key });
        }
        if keys.is_empty() { Err(KeySetError::NoKey) } else { Ok(Self { keys }) }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn push(&mut self, key: VerificationKey) {
        self.keys.push(NamedKey { kid: None, key });
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&VerificationKey) -> bool) {
        self.keys.retain(|named| keep(&named.key));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &NamedKey> {
        self.keys.iter()
    }
}

fn read_jwk(jwk: &Map<String, Value>) -> Result<VerificationKey, InvalidJwk> {
    match P256PublicKey::from_jwk(jwk) {
        Err(InvalidJwk::UnsupportedKey) => RsaPublicKey::from_jwk(jwk).map(VerificationKey::Rs256),
        read => read.map(VerificationKey::Es256),
    }
}

fn read_spki(der: &[u8]) -> Result<VerificationKey, InvalidJwk> {
    match P256PublicKey::from_spki(der) {
        Err(InvalidJwk::UnsupportedKey) => RsaPublicKey::from_spki(der).map(VerificationKey::Rs256),
        read => read.map(VerificationKey::Es256),
    }
}

/// Why a keyset cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySetError {
    /// The text is not a JWK Set, or not PEM.
    NotAKeySet,
    /// A key cannot be used.
    Key {
        /// Its index in the set, counted from 0.
        index: usize,
        /// Why.
        cause: InvalidJwk,
    },
    /// Two keys have the same `kid`.
    RepeatedKeyId,
    /// There is no key that verifies signatures.
    NoKey,
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKeySet => f.write_str("the keyset must be a JWK Set or PEM"),
            Self::Key { index, cause } => write!(f, "key {index} of the keyset (from 0): {cause}"),
            Self::RepeatedKeyId => f.write_str("two keys of the keyset have the same kid"),
            Self::NoKey => f.write_str("the keyset has no RSA or P-256 key for signatures"),
        }
    }
}

impl std::error::Error for KeySetError {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The key of RFC 9449 section 6.1.
    fn ec_key() -> Value {
        json!({
            "kty": "EC", "crv": "P-256",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        })
    }

    fn with(member: &str, value: Value) -> Value {
        let mut key = ec_key();
        key[member] = value;
        key
    }

    fn read(keys: &Value) -> Result<usize, KeySetError> {
        KeySet::from_jwks(&json!({"keys": keys}).to_string()).map(|set| set.len())
    }

    #[test]
    fn keys_for_other_uses_are_passed_over() {
        assert_eq!(
            read(&json!([ec_key(), with("use", json!("enc")), with("crv", json!("P-384")), with("kty", json!("OKP"))])),
            Ok(1)
        );
        assert_eq!(read(&json!([with("use", json!("enc"))])), Err(KeySetError::NoKey));
        assert_eq!(read(&json!([])), Err(KeySetError::NoKey));
    }

    #[test]
    fn a_set_with_a_bad_key_is_refused_as_a_whole() {
        let error = |index, cause| Err(KeySetError::Key { index, cause });
        assert_eq!(read(&json!([ec_key(), with("d", json!("AA"))])), error(1, InvalidJwk::PrivateKey));
        assert_eq!(read(&json!([with("x", json!("AA"))])), error(0, InvalidJwk::Malformed));
        assert_eq!(read(&json!([with("y", with("x", json!(0))["x"].clone())])), error(0, InvalidJwk::Malformed));
        assert_eq!(read(&json!([with("kid", json!(1))])), error(0, InvalidJwk::Malformed));
        assert_eq!(read(&json!(["key"])), error(0, InvalidJwk::Malformed));
        assert_eq!(read(&json!([with("kid", json!("a")), with("kid", json!("a"))])), Err(KeySetError::RepeatedKeyId));
        assert_eq!(read(&json!([with("kid", json!("a")), with("kid", json!("b")), ec_key(), ec_key()])), Ok(4));
        assert_eq!(read(&json!([{"kty": "RSA", "n": "AQAB", "e": "AQAB"}])), error(0, InvalidJwk::InvalidKey));
    }

    #[test]
    fn texts_that_are_no_keyset_are_refused() {
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
            assert_eq!(KeySet::from_jwks(text).unwrap_err(), KeySetError::NotAKeySet, "{text}");
        }
        assert_eq!(KeySet::from_pem("").unwrap_err(), KeySetError::NoKey);
        assert_eq!(
            KeySet::from_pem("-----BEGIN PUBLIC KEY-----\n%\n-----END PUBLIC KEY-----\n").unwrap_err(),
            KeySetError::NotAKeySet
        );
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(KeySet::from_pem(certificate).unwrap_err(), KeySetError::NoKey);
        let other = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        let unsupported = KeySetError::Key { index: 0, cause: InvalidJwk::UnsupportedKey };
        assert_eq!(KeySet::from_pem(other).unwrap_err(), unsupported);
        assert!(KeySet::default().is_empty());
    }
}
