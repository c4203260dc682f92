//! Compact JSON Web Signatures (RFC 7515).

use crate::crypto::Hmac;
use crate::encoding::decode_base64url;
use crate::json::{self, JsonError};
use crate::jwk::{P256PublicKey, RsaPublicKey};
use crate::secret::Secret;
use serde_json::{Map, Value};
use std::fmt;

/// A compact JWS, taken apart but not yet verified.
///
/// Outside of this crate the payload can be had from [`Jws::verify`] alone, so that none is used before its signature is
/// checked.
#[derive(Clone, Debug)]
pub struct Jws<'a> {
    header: Map<String, Value>,
    signing_input: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// A signature algorithm of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl Algorithm {
    /// The algorithm's name in a JOSE header (RFC 7518 section 3.1).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// A key and, by its kind, the one algorithm that it is used with: a token can choose neither.
#[derive(Clone, Debug)]
pub enum VerificationKey {
    /// HMAC with SHA-256.
    Hs256(HmacKey),
    /// ECDSA with P-256 and SHA-256.
    Es256(P256PublicKey),
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256(RsaPublicKey),
}

impl VerificationKey {
    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hs256(_) => Algorithm::Hs256,
            Self::Es256(_) => Algorithm::Es256,
            Self::Rs256(_) => Algorithm::Rs256,
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hs256(key) => key.0.has_signed(message, signature),
            Self::Es256(key) => key.verifies(message, signature),
            Self::Rs256(key) => key.verifies(message, signature),
        }
    }
}

/// A key for HS256. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct HmacKey(Hmac);

impl HmacKey {
    /// A key from a secret of at least 32 bytes.
    ///
    /// # Errors
    /// [`SecretTooShort`] for fewer (RFC 7518 section 3.2 demands as many as the hash has).
    pub fn new(secret: &Secret) -> Result<Self, SecretTooShort> {
        if secret.as_bytes().len() < 32 {
            return Err(SecretTooShort);
        }
        Hmac::new(secret.as_bytes()).map(Self).ok_or(SecretTooShort)
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey(…)")
    }
}

/// A secret of fewer than 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretTooShort;

impl fmt::Display for SecretTooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an HS256 secret must have at least 32 bytes")
    }
}

impl std::error::Error for SecretTooShort {}

/// Why a text is not an acceptable JWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwsError {
    /// Not three base64url parts, or a header that is not a JSON object with a string `alg`.
    Malformed,
    /// A header member appears twice.
    DuplicateMember,
    /// The header demands an extension (`crit`, RFC 7515 section 4.1.11); none is known here.
    CriticalHeader,
    /// `alg` is not the key's algorithm.
    Algorithm,
    /// The signature is not the key's.
    Signature,
}

impl fmt::Display for JwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a compact JWS",
            Self::DuplicateMember => "a header member appears twice",
            Self::CriticalHeader => "the header demands an unknown extension",
            Self::Algorithm => "the algorithm is not the one of the key",
            Self::Signature => "the signature does not match",
        })
    }
}

impl std::error::Error for JwsError {}

impl From<JsonError> for JwsError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Malformed => Self::Malformed,
            JsonError::DuplicateMember => Self::DuplicateMember,
        }
    }
}

impl<'a> Jws<'a> {
    /// Takes a compact serialisation apart and reads its header. The signature is not looked at.
    ///
    /// # Errors
    /// [`JwsError::Malformed`], [`JwsError::DuplicateMember`] or [`JwsError::CriticalHeader`].
    pub fn parse(text: &'a str) -> Result<Self, JwsError> {
        let (signing_input, signature) = text.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(JwsError::Malformed)?;
        let [header, payload, signature] =
            [header, payload, signature].map(|part| decode_base64url(part).ok_or(JwsError::Malformed));
        let header = read_header(&header?)?;
        Ok(Self { header, signing_input, payload: payload?, signature: signature? })
    }

    /// The header, not yet verified.
    #[must_use]
    pub const fn header(&self) -> &Map<String, Value> {
        &self.header
    }

    /// The header's `alg`, not yet verified.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        self.header.get("alg").and_then(Value::as_str).unwrap_or_default()
    }

    /// The payload, not yet verified.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload, when the header names the key's algorithm and the signature is the key's.
    ///
    /// # Errors
    /// [`JwsError::Algorithm`] or [`JwsError::Signature`].
    pub fn verify(&self, key: &VerificationKey) -> Result<&[u8], JwsError> {
        self.verify_by(key.algorithm(), |message, signature| key.verifies(message, signature))
    }

    /// [`Jws::verify`] with the key that the header of a proof brought along.
    pub(crate) fn verify_es256(&self, key: &P256PublicKey) -> Result<&[u8], JwsError> {
        self.verify_by(Algorithm::Es256, |message, signature| key.verifies(message, signature))
    }

    fn verify_by(&self, algorithm: Algorithm, verifies: impl FnOnce(&[u8], &[u8]) -> bool) -> Result<&[u8], JwsError> {
        if self.algorithm() != algorithm.name() {
            return Err(JwsError::Algorithm);
        }
        if !verifies(self.signing_input.as_bytes(), &self.signature) {
            return Err(JwsError::Signature);
        }
        Ok(&self.payload)
    }
}

/// Reads a JOSE header and refuses what no part of this crate understands.
pub(crate) fn read_header(json: &[u8]) -> Result<Map<String, Value>, JwsError> {
    let header = json::parse_object(json)?;
    if !header.get("alg").is_some_and(Value::is_string) {
        return Err(JwsError::Malformed);
    }
    if header.contains_key("crit") {
        return Err(JwsError::CriticalHeader);
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hs256(secret: &str) -> VerificationKey {
        VerificationKey::Hs256(HmacKey::new(&Secret::from_base64(secret).unwrap()).unwrap())
    }

    #[test]
    fn the_example_of_rfc_7515_a_1_is_verified() {
        let key = hs256("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
        let text = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let jws = Jws::parse(text).unwrap();
        assert!(jws.verify(&key).unwrap().starts_with(b"{\"iss\":\"joe\",\r\n"));
        let altered = text.replace("NiJ9.eyJpc3Mi", "NiJ9.eyJpc3Nj");
        assert_eq!(Jws::parse(&altered).unwrap().verify(&key), Err(JwsError::Signature));
    }

    #[test]
    fn a_published_approov_token_is_verified() {
        // Approov's public quickstarts for backends.
        let key = hs256("h+CX0tOzdAAR9l15bWAqvq7w9olk66daIH+Xk+IAHhVVHszjDzeGobzNnqyRze3lw/WVyWrc2gZfh3XXfBOmww==");
        let text = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQ3MDg2ODMyMDUuODkxOTEyfQ.c8I4KNndbThAQ7zlgX4_QDtcxCrD9cff1elaCJe9p9U";
        assert_eq!(Jws::parse(text).unwrap().verify(&key).unwrap(), br#"{"exp":4708683205.891912}"#);
    }

    #[test]
    fn the_header_cannot_choose_the_algorithm() {
        let key = hs256("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
        // {"alg":"none"}, {"alg":"ES256"}, {"alg":"hs256"}
        for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOiJoczI1NiJ9"] {
            let text = format!("{header}.e30.");
            assert_eq!(Jws::parse(&text).unwrap().verify(&key), Err(JwsError::Algorithm));
        }
    }

    #[test]
    fn malformed_texts_are_refused() {
        for text in [
            "",
            ".",
            "..",
            "a.b",
            "e30.e30.",
            "eyJhbGciOiJub25lIn0.e30",
            "eyJhbGciOiJub25lIn0.e30..",
            "eyJhbGciOiJub25lIn0.e31.",
            "eyJhbGciOiJub25lIn0=.e30.",
        ] {
            assert_eq!(Jws::parse(text).unwrap_err(), JwsError::Malformed, "{text}");
        }
        // {"alg":"none","crit":["b64"],"b64":false} and {"alg":"none","alg":"HS256"}
        assert_eq!(
            Jws::parse("eyJhbGciOiJub25lIiwiY3JpdCI6WyJiNjQiXSwiYjY0IjpmYWxzZX0.e30.").unwrap_err(),
            JwsError::CriticalHeader
        );
        assert_eq!(Jws::parse("eyJhbGciOiJub25lIiwiYWxnIjoiSFMyNTYifQ.e30.").unwrap_err(), JwsError::DuplicateMember);
    }

    #[test]
    fn a_short_secret_is_refused_and_none_is_shown() {
        assert!(HmacKey::new(&Secret::from_bytes(vec![1; 31])).is_err());
        assert_eq!(format!("{:?}", HmacKey::new(&Secret::from_bytes(vec![1; 32])).unwrap()), "HmacKey(…)");
    }
}
