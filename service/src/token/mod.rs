//! Approov tokens: claims, signatures (HS256, RS256, ES256) and encryption (A256GCMKW with A256GCM).

mod jwe;
mod signing_key;

use std::borrow::Cow;
use std::net::IpAddr;

use approov_verify::secret::Secret;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Serialize, Serializer};

use crate::crypto::CryptoError;
use crate::session::CheckResult;

pub use jwe::{encrypt, encrypted_length};
pub use signing_key::{SigningKey, private_pem};

/// What an Approov web token says (specification, "embed token claim").
#[derive(Clone, Debug, Serialize)]
pub struct Claims<'a> {
    /// Who issued it, where the account says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
    /// Whom it is for, where the API says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
    /// End of its lifetime, Unix seconds.
    pub exp: i64,
    /// Time of issue, Unix seconds.
    pub iat: i64,
    /// The client's address as the service saw it.
    pub ip: IpAddr,
    /// Ten base32 characters that find this response in the service's log.
    pub arc: &'a str,
    /// Check results by `prefix:key`.
    pub embed: Embed<'a>,
    /// Token binding: padded standard base64 of the payload's SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pay: Option<&'a str>,
    /// The key the token is bound to.
    pub cnf: Confirmation<'a>,
    /// Checks that are only watched, and would have failed: by their key in `embed`, or the prefix of one that is missing.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub monitor: &'a [String],
}

/// The `embed` claim: each result under its `prefix:key`.
#[derive(Clone, Copy, Debug)]
pub struct Embed<'a> {
    /// The session's results.
    pub results: &'a [CheckResult],
    /// Whether the full result is embedded, for each of them that has one. That is for encrypted tokens only; what is
    /// missing here is not.
    pub full: &'a [bool],
}

impl Serialize for Embed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wanted = self.full.iter().copied().chain(std::iter::repeat(false));
        serializer.collect_map(self.results.iter().zip(wanted).map(|(result, wanted)| {
            let full = result.full.as_ref().filter(|_| wanted);
            (result.embed_key(), full.unwrap_or(&result.brief))
        }))
    }
}

/// The `cnf` claim (RFC 9449 section 6.1).
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Confirmation<'a> {
    /// RFC 7638 thumbprint of the session's public key.
    pub jkt: &'a str,
}

/// Ten base32 characters (RFC 4648) from 50 of these random bits: the `arc` claim.
pub fn arc_text(random: [u8; 10]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    random.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 31))).map(|letter| char::from(*letter)).collect()
}

/// `pay` as tokens carry it: padded standard base64, while the wire has unpadded base64url.
pub fn pay_claim(payload_hash: &[u8; 32]) -> String {
    STANDARD.encode(payload_hash)
}

/// Claims of encrypted tokens are multiples of this, bytes.
pub const PADDING_STEP: usize = 512;

/// Enough for two dots and a signature by HS256 or ES256, bytes.
const SIGNATURE_CAPACITY: usize = 96;

/// Makes the signature of a token.
#[derive(Clone)]
pub enum Signer {
    /// HS256 with an account secret, and the `kid` that it has for gateways, if any.
    Hmac(Box<hmac::Key>, Option<Box<str>>),
    /// A key of the account's keyset.
    Key(SigningKey),
}

impl Signer {
    /// HS256 with this secret, under this `kid`.
    pub fn hs256(secret: &Secret, kid: Option<&str>) -> Self {
        Signer::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())), kid.map(Into::into))
    }

    /// The compact JWS of these claims.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, CryptoError> {
        self.sign_text(&serde_json::to_vec(claims).map_err(|_| CryptoError)?)
    }

    /// The compact JWS of claims that are JSON already.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn sign_text(&self, claims: &[u8]) -> Result<String, CryptoError> {
        let header = self.header();
        let mut token = String::with_capacity((header.len() + claims.len()) * 4 / 3 + SIGNATURE_CAPACITY);
        URL_SAFE_NO_PAD.encode_string(&*header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        match self {
            Signer::Hmac(key, _) => {
                let tag = hmac::sign(key, token.as_bytes());
                token.push('.');
                URL_SAFE_NO_PAD.encode_string(tag, &mut token);
            }
            Signer::Key(key) => {
                let signature = key.pair().sign(token.as_bytes())?;
                token.push('.');
                URL_SAFE_NO_PAD.encode_string(signature, &mut token);
            }
        }
        Ok(token)
    }

    /// The length of the compact JWS of claims of this length.
    pub fn signed_length(&self, claims: usize) -> usize {
        let signature = match self {
            Signer::Hmac(..) => 32,
            Signer::Key(key) => key.pair().signature_length(),
        };
        base64url_length(self.header().len()) + base64url_length(claims) + base64url_length(signature) + 2
    }

    fn header(&self) -> Cow<'static, str> {
        match self {
            Signer::Hmac(_, None) => Cow::Borrowed(r#"{"typ":"JWT","alg":"HS256"}"#),
            Signer::Hmac(_, Some(kid)) => Cow::Owned(header("HS256", Some(kid))),
            Signer::Key(key) => Cow::Owned(header(key.alg().name(), key.kid())),
        }
    }
}

fn header(alg: &str, kid: Option<&str>) -> String {
    match kid {
        Some(kid) => serde_json::json!({"typ": "JWT", "alg": alg, "kid": kid}),
        None => serde_json::json!({"typ": "JWT", "alg": alg}),
    }
    .to_string()
}

/// Claims as JSON, with white space after it that makes the length a multiple of [`PADDING_STEP`] when `more` bytes are
/// counted in: the length of an encrypted token then says little about what is in it.
///
/// # Errors
/// When they cannot be written.
pub fn padded_claims(claims: &impl Serialize, more: usize) -> Result<Vec<u8>, CryptoError> {
    let mut text = serde_json::to_vec(claims).map_err(|_| CryptoError)?;
    text.resize((text.len() + more).next_multiple_of(PADDING_STEP), b' ');
    Ok(text)
}

/// The length of unpadded base64url of so many bytes.
const fn base64url_length(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::crypto::{KeyAlg, KeyPair};

    #[test]
    fn hs256_agrees_with_the_published_example_token() {
        // The example secret and token of the vendor's documentation.
        let secret = Secret::from_base64(
            "h+CX0tOzdAAR9l15bWAqvq7w9olk66daIH+Xk+IAHhVVHszjDzeGobzNnqyRze3lw/WVyWrc2gZfh3XXfBOmww==",
        )
        .unwrap();
        let token = Signer::hs256(&secret, None).sign(&serde_json::json!({"exp": 4_708_683_205.891_912_f64})).unwrap();
        assert_eq!(
            token,
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQ3MDg2ODMyMDUuODkxOTEyfQ.c8I4KNndbThAQ7zlgX4_QDtcxCrD9cff1elaCJe9p9U"
        );
    }

    #[test]
    fn the_length_of_a_token_is_known_before_it_is_made() {
        let key = |alg| {
            let pem = private_pem(&KeyPair::generate(alg).unwrap()).unwrap();
            Signer::Key(SigningKey::from_pem(alg, "k1", &pem).unwrap())
        };
        let secret = Secret::from_bytes(vec![7; 32]);
        for signer in [
            Signer::hs256(&secret, None),
            Signer::hs256(&secret, Some("a \"kid\"")),
            key(KeyAlg::Es256),
            key(KeyAlg::Rs256),
        ] {
            for more in [0, 1, 2, 600] {
                let claims = padded_claims(&serde_json::json!({"exp": 1}), more).unwrap();
                assert_eq!(claims.len(), if more < 500 { 512 } else { 1024 });
                let jws = signer.sign_text(&claims).unwrap();
                assert_eq!(jws.len(), signer.signed_length(claims.len()));
                let jwe = encrypt(&jws, &secret, crate::crypto::JweEntropy::draw().unwrap()).unwrap();
                assert_eq!(jwe.len(), encrypted_length(jws.len()));
            }
        }
    }

    #[test]
    fn an_arc_is_ten_base32_characters() {
        assert_eq!(arc_text([0, 1, 25, 26, 31, 32, 63, 64, 254, 255]), "ABZ27A7A67");
    }

    #[test]
    fn pay_is_padded_standard_base64() {
        // The vendor's token binding example: SHA-256 of "Bearer myauth_tokenmy-device-id".
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"Bearer myauth_tokenmy-device-id");
        assert_eq!(pay_claim(hash.as_ref().try_into().unwrap()), "71tnS3rSq2lanEWrKz4MoexiOMtv7w0fspfM8BAQKNU=");
    }

    #[test]
    fn generated_keys_sign_what_their_public_half_verifies() {
        use aws_lc_rs::signature::{
            ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
        };
        for alg in [KeyAlg::Es256, KeyAlg::Rs256] {
            let key = SigningKey::from_pem(alg, "k1", &private_pem(&KeyPair::generate(alg).unwrap()).unwrap()).unwrap();
            let token = Signer::Key(key.clone()).sign(&serde_json::json!({"exp": 1})).unwrap();
            let (message, signature) = token.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let scheme: &'static dyn VerificationAlgorithm = match alg {
                KeyAlg::Es256 => &ECDSA_P256_SHA256_FIXED,
                KeyAlg::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            };
            let verify = |pair: &KeyPair| {
                UnparsedPublicKey::new(scheme, pair.public_der().unwrap()).verify(message.as_bytes(), &signature)
            };
            assert!(verify(key.pair()).is_ok());
            let decoy = key.pair().generate_similar().unwrap();
            assert!(verify(&decoy).is_err(), "a decoy must not verify");
            let header: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap();
            assert_eq!(header, serde_json::json!({"typ": "JWT", "alg": alg.name(), "kid": "k1"}));
        }
    }
}
