//! Public keys as JSON Web Keys (RFC 7517) and their thumbprints (RFC 7638).

use crate::crypto::{NoRsaKey, P256, P256_POINT_LENGTH, Rsa, sha256};
use crate::encoding::{decode_base64url, decode_base64url_array, encode_base64url};
use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;

/// The SHA-256 thumbprint of a public key (RFC 7638), the value of `cnf.jkt` (RFC 9449 section 6.1).
///
/// Written as unpadded base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// The thumbprint of an EC, RSA or OKP public key (RFC 7638 section 3.2, RFC 8037 section 2).
    ///
    /// Nothing but the members that it is made of is looked at.
    ///
    /// # Errors
    /// [`InvalidJwk::UnsupportedKey`] for another key type, [`InvalidJwk::Malformed`] when a member is missing.
    pub fn of_jwk(jwk: &Map<String, Value>) -> Result<Self, InvalidJwk> {
        // In the order of RFC 7638 section 3.3.
        let required: &[&str] = match text(jwk, "kty")? {
            "EC" => &["crv", "kty", "x", "y"],
            "RSA" => &["e", "kty", "n"],
            "OKP" => &["crv", "kty", "x"],
            _ => return Err(InvalidJwk::UnsupportedKey),
        };
        let members: Result<Vec<String>, InvalidJwk> =
            required.iter().map(|name| Ok(format!("\"{name}\":{}", Value::from(text(jwk, name)?)))).collect();
        Ok(Self(sha256(format!("{{{}}}", members?.join(",")).as_bytes())))
    }

    /// A thumbprint from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_base64url(&self.0))
    }
}

impl FromStr for Thumbprint {
    type Err = InvalidJwk;

    /// Reads unpadded base64url of 32 bytes.
    fn from_str(text: &str) -> Result<Self, InvalidJwk> {
        decode_base64url_array(text).map(Self).ok_or(InvalidJwk::Malformed)
    }
}

impl serde::Serialize for Thumbprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a JSON object is not a usable public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidJwk {
    /// A member is missing, of the wrong type, badly encoded or of the wrong length.
    Malformed,
    /// The key type or curve is not supported.
    UnsupportedKey,
    /// The point is not on the curve, or the RSA modulus is out of range.
    InvalidKey,
    /// The object holds a private or symmetric key.
    PrivateKey,
    /// `use`, `key_ops` or `alg` say that the key is for something else than verifying signatures with it.
    WrongUse,
}

impl fmt::Display for InvalidJwk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the key is malformed",
            Self::UnsupportedKey => "the key type or curve is not supported",
            Self::InvalidKey => "the key is not a valid point or modulus",
            Self::PrivateKey => "the key is private",
            Self::WrongUse => "the key is not meant for verifying signatures",
        })
    }
}

impl std::error::Error for InvalidJwk {}

/// A P-256 public key, for ES256 signatures (RFC 7518 section 3.4).
#[derive(Clone)]
pub struct P256PublicKey {
    key: P256,
    thumbprint: Thumbprint,
}

impl P256PublicKey {
    /// Reads an EC key on the curve P-256 (RFC 7518 section 6.2.1).
    ///
    /// # Errors
    /// [`InvalidJwk`], also for a key that holds its private part: whoever sends that has lost it.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, InvalidJwk> {
        check_metadata(jwk, "EC", "ES256")?;
        if text(jwk, "crv")? != "P-256" {
            return Err(InvalidJwk::UnsupportedKey);
        }
        let [x, y] = [text(jwk, "x")?, text(jwk, "y")?];
        let mut point = [UNCOMPRESSED; P256_POINT_LENGTH];
        let (_, coordinates) = point.split_at_mut(1);
        for (coordinate, text) in coordinates.chunks_exact_mut(P256_COORDINATE_LENGTH).zip([x, y]) {
            let bytes = decode_base64url_array::<P256_COORDINATE_LENGTH>(text).ok_or(InvalidJwk::Malformed)?;
            coordinate.copy_from_slice(&bytes);
        }
        let key = P256::new(&point).ok_or(InvalidJwk::InvalidKey)?;
        // What `Thumbprint::of_jwk` would hash: base64url, as `x` and `y` are here, needs no escapes.
        let members = ["{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"", x, "\",\"y\":\"", y, "\"}"].concat();
        Ok(Self { key, thumbprint: Thumbprint(sha256(members.as_bytes())) })
    }

    /// Reads a `SubjectPublicKeyInfo` (RFC 5480), the content of a PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`InvalidJwk::UnsupportedKey`] for anything but an uncompressed P-256 point,
    /// [`InvalidJwk::InvalidKey`] when that is not on the curve.
    pub fn from_spki(der: &[u8]) -> Result<Self, InvalidJwk> {
        let point = der.strip_prefix(P256_SPKI_PREFIX.as_slice()).ok_or(InvalidJwk::UnsupportedKey)?;
        let (x, y) = point.split_at_checked(P256_COORDINATE_LENGTH).ok_or(InvalidJwk::UnsupportedKey)?;
        let jwk = [
            ("kty", "EC".to_owned()),
            ("crv", "P-256".to_owned()),
            ("x", encode_base64url(x)),
            ("y", encode_base64url(y)),
        ];
        Self::from_jwk(&jwk.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
    }

    /// Whether `signature` (64 bytes, r then s) is this key's over `message`, hashed with SHA-256.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verifies(message, signature)
    }

    /// Whether `signature` (64 bytes, r then s) is this key's over a message with this SHA-256 hash.
    #[must_use]
    pub fn verifies_digest(&self, message_hash: &[u8; 32], signature: &[u8]) -> bool {
        self.key.verifies_digest(message_hash, signature)
    }

    /// The thumbprint.
    #[must_use]
    pub const fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }
}

const P256_COORDINATE_LENGTH: usize = 32;
/// The first byte of an uncompressed point (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// What precedes the coordinates in the `SubjectPublicKeyInfo` of an uncompressed P-256 point: the sequences,
/// the identifiers id-ecPublicKey and prime256v1, the bit string and the first byte of the point.
const P256_SPKI_PREFIX: [u8; 27] = [
    0x30,
    0x59,
    0x30,
    0x13,
    0x06,
    0x07,
    0x2a,
    0x86,
    0x48,
    0xce,
    0x3d,
    0x02,
    0x01,
    0x06,
    0x08,
    0x2a,
    0x86,
    0x48,
    0xce,
    0x3d,
    0x03,
    0x01,
    0x07,
    0x03,
    0x42,
    0x00,
    UNCOMPRESSED,
];

/// An RSA public key of 2048 to 8192 bits, for RS256 signatures (RFC 7518 section 3.3).
#[derive(Clone)]
pub struct RsaPublicKey {
    key: Rsa,
}

impl fmt::Debug for P256PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("P256PublicKey").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

impl fmt::Debug for RsaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaPublicKey").finish_non_exhaustive()
    }
}

impl RsaPublicKey {
    /// Reads an RSA key (RFC 7518 section 6.3.1).
    ///
    /// # Errors
    /// [`InvalidJwk`], also for a key that holds its private part.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, InvalidJwk> {
        check_metadata(jwk, "RSA", "RS256")?;
        let [n, e] = ["n", "e"].map(|member| decode_base64url(text(jwk, member)?).ok_or(InvalidJwk::Malformed));
        let (n, e) = (n?, e?);
        // Base64urlUInt (RFC 7518 section 2): no leading zero octets.
        if [&n, &e].into_iter().any(|number| number.first().is_none_or(|first| *first == 0)) {
            return Err(InvalidJwk::Malformed);
        }
        Rsa::new(&n, &e).map(|key| Self { key }).ok_or(InvalidJwk::InvalidKey)
    }

    /// Reads a `SubjectPublicKeyInfo` (RFC 8017 appendix A.1), the content of a PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`InvalidJwk::UnsupportedKey`] for anything but an RSA key, [`InvalidJwk::InvalidKey`] for an RSA key
    /// whose modulus has fewer than 2048 or more than 8192 bits.
    pub fn from_spki(der: &[u8]) -> Result<Self, InvalidJwk> {
        match Rsa::from_spki(der) {
            Ok(key) => Ok(Self { key }),
            Err(NoRsaKey::Other) => Err(InvalidJwk::UnsupportedKey),
            Err(NoRsaKey::Invalid) => Err(InvalidJwk::InvalidKey),
        }
    }

    /// Whether `signature` is this key's over `message` (RSASSA-PKCS1-v1_5 with SHA-256).
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verifies(message, signature)
    }
}

/// Checks everything about a JWK but its numbers: type, no private part, and that it may verify with `algorithm`.
fn check_metadata(jwk: &Map<String, Value>, key_type: &str, algorithm: &str) -> Result<(), InvalidJwk> {
    match text(jwk, "kty")? {
        "oct" => return Err(InvalidJwk::PrivateKey),
        kty if kty != key_type => return Err(InvalidJwk::UnsupportedKey),
        _ => {}
    }
    if jwk.keys().any(|member| matches!(member.as_str(), "d" | "p" | "q" | "dp" | "dq" | "qi" | "oth" | "k")) {
        return Err(InvalidJwk::PrivateKey);
    }
    let for_verifying = jwk.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
    });
    let fits = |member: &str, wanted: &str| jwk.get(member).is_none_or(|value| value == wanted);
    if for_verifying && fits("use", "sig") && fits("alg", algorithm) { Ok(()) } else { Err(InvalidJwk::WrongUse) }
}

fn text<'a>(jwk: &'a Map<String, Value>, member: &str) -> Result<&'a str, InvalidJwk> {
    jwk.get(member).and_then(Value::as_str).ok_or(InvalidJwk::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    /// The key of RFC 9449 sections 4.1 and 6.1.
    fn rfc_9449_key() -> Value {
        json!({
            "kty": "EC", "crv": "P-256",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        })
    }

    #[test]
    fn the_thumbprint_of_rfc_9449_is_computed() {
        let key = P256PublicKey::from_jwk(&object(rfc_9449_key())).unwrap();
        // RFC 9449 section 6.1, figure 10.
        let expected = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        assert_eq!(key.thumbprint().to_string(), expected);
        assert_eq!(expected.parse::<Thumbprint>().unwrap(), *key.thumbprint());
    }

    #[test]
    fn the_thumbprint_of_rfc_7638_is_computed() {
        // RFC 7638 section 3.1.
        let jwk = object(json!({
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
        }));
        assert!(RsaPublicKey::from_jwk(&jwk).is_ok());
        assert_eq!(Thumbprint::of_jwk(&jwk).unwrap().to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn the_thumbprint_of_rfc_8037_is_computed() {
        // RFC 8037 appendix A.3.
        let jwk = object(json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}));
        assert_eq!(Thumbprint::of_jwk(&jwk).unwrap().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let symmetric = object(json!({"kty": "oct", "k": "AAAA"}));
        assert_eq!(Thumbprint::of_jwk(&symmetric), Err(InvalidJwk::UnsupportedKey));
    }

    #[test]
    fn unusable_keys_are_refused_for_what_they_are() {
        use InvalidJwk::{InvalidKey, Malformed, PrivateKey, UnsupportedKey, WrongUse};
        for (member, value, expected) in [
            ("kty", json!("RSA"), UnsupportedKey),
            ("kty", json!("oct"), PrivateKey),
            ("kty", json!(1), Malformed),
            ("crv", json!("P-384"), UnsupportedKey),
            ("crv", json!("secp256k1"), UnsupportedKey),
            ("x", json!("AAAA"), Malformed),
            ("x", json!("bDhfbHzG3-i1UQe4uTkr3jCkDlpBhF42UQUfWVAWBFsA"), Malformed),
            ("x", json!("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs="), Malformed),
            ("x", json!("l8tFrhx+34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"), Malformed),
            ("y", json!("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"), InvalidKey),
            ("y", Value::Null, Malformed),
            ("d", json!("AA"), PrivateKey),
            ("k", json!("AA"), PrivateKey),
            ("use", json!("enc"), WrongUse),
            ("key_ops", json!(["sign"]), WrongUse),
            ("key_ops", json!("verify"), WrongUse),
            ("alg", json!("ES384"), WrongUse),
        ] {
            let mut jwk = object(rfc_9449_key());
            jwk.insert(member.to_owned(), value.clone());
            assert_eq!(P256PublicKey::from_jwk(&jwk).unwrap_err(), expected, "{member}: {value}");
        }
        for member in ["kty", "crv", "x", "y"] {
            let mut jwk = object(rfc_9449_key());
            jwk.remove(member);
            assert_eq!(P256PublicKey::from_jwk(&jwk).unwrap_err(), Malformed, "without {member}");
        }
    }

    #[test]
    fn metadata_that_fits_is_accepted() {
        let mut jwk = object(rfc_9449_key());
        jwk.extend(object(json!({"use": "sig", "key_ops": ["verify"], "alg": "ES256", "kid": "1", "ext": true})));
        assert!(P256PublicKey::from_jwk(&jwk).is_ok());
    }

    #[test]
    fn weak_or_misspelt_rsa_keys_are_refused() {
        for (n, expected) in [
            (vec![0xff; 128], InvalidJwk::InvalidKey),
            (vec![0xff; 255], InvalidJwk::InvalidKey),
            (vec![0xff; 1025], InvalidJwk::InvalidKey),
            ([vec![0], vec![0xff; 256]].concat(), InvalidJwk::Malformed),
            (vec![], InvalidJwk::Malformed),
        ] {
            let jwk = object(json!({"kty": "RSA", "n": encode_base64url(&n), "e": "AQAB"}));
            assert_eq!(RsaPublicKey::from_jwk(&jwk).unwrap_err(), expected);
        }
        let jwk = object(json!({"kty": "RSA", "n": encode_base64url(&[0xff; 256]), "e": "AAEAAQ"}));
        assert_eq!(RsaPublicKey::from_jwk(&jwk).unwrap_err(), InvalidJwk::Malformed);
    }

    #[test]
    fn a_thumbprint_of_another_length_is_refused() {
        assert!("AAAA".parse::<Thumbprint>().is_err());
        assert!("".parse::<Thumbprint>().is_err());
    }
}
