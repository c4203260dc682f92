//! DPoP proofs (RFC 9449).
//!
//! [`Proof::parse`] checks what a proof says about itself (section 4.3, checks 2 to 7), [`Proof::check`] what a
//! request demands of it (checks 8 to 12). Check 1, a single `DPoP` header field, is for whoever holds the headers;
//! that a proof is used once is for a [`ReplayStore`](crate::replay::ReplayStore) and [`Proof::replay_key`].

use crate::crypto::sha256;
use crate::encoding::{decode_base64url, encode_base64url};
use crate::json::{self, JsonError};
use crate::jwk::{InvalidJwk, P256PublicKey, Thumbprint};
use crate::jws::{Jws, JwsError};
use crate::replay::ReplayKey;
use crate::time::UnixTime;
use crate::uri::HttpUri;
use serde_json::{Map, Value};
use std::fmt;
use std::time::Duration;

/// The longest proof that is read, in bytes.
pub const MAX_PROOF_LENGTH: usize = 8192;

/// The longest `jti` that is accepted, in bytes.
pub const MAX_JTI_LENGTH: usize = 256;

/// A proof whose signature is its own key's. [`Proof::check`] checks it against a request.
#[derive(Clone, Debug)]
pub struct Proof {
    key: P256PublicKey,
    claims: ProofClaims,
    not_before: Option<UnixTime>,
    expires: Option<UnixTime>,
    htu: HttpUri,
}

/// The claims of a proof (RFC 9449 section 4.2).
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct ProofClaims {
    /// The proof's identifier: never empty, at most [`MAX_JTI_LENGTH`] bytes.
    pub jti: String,
    /// The HTTP method.
    pub htm: String,
    /// The URL as the proof spells it.
    pub htu: String,
    /// When the proof was made, by its maker's clock: Unix seconds, perhaps with a fraction.
    pub iat: f64,
    /// A nonce: any JSON value but `null`, which counts as none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Value>,
    /// Unpadded base64url of the SHA-256 of the access token's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ath: Option<String>,
    /// A hash or signature of the message body, as Approov's web SDK adds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msgs: Option<String>,
    /// Unpadded base64url of the SHA-256 of the query, as Approov's web SDK adds it: `htu` does not cover the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub htq: Option<String>,
}

/// What a request demands of its proof.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The request's method, compared as it is: methods are case-sensitive (RFC 9110 section 9.1).
    pub method: &'a str,
    /// The request's URL as the client sees it.
    pub url: &'a HttpUri,
    /// What to do about the claim `nonce`.
    pub nonce: Nonce<'a>,
    /// The access token sent along with the proof, whose hash must be in `ath`. `None`: `ath` is not looked at.
    pub access_token: Option<&'a str>,
    /// The thumbprint of the key that the access token is bound to. `None`: any key will do.
    pub thumbprint: Option<&'a Thumbprint>,
    /// The time now.
    pub now: UnixTime,
    /// How long ago the proof may have been made.
    pub max_age: Duration,
    /// How far the maker's clock may be ahead of ours.
    pub clock_skew: Duration,
}

/// What to do about a proof's `nonce`.
#[derive(Clone, Copy)]
pub enum Nonce<'a> {
    /// Any nonce, or none.
    Ignored,
    /// There must be one, and this check must accept it.
    Checked(&'a dyn Fn(&Value) -> bool),
}

/// Why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DpopError {
    /// Longer than [`MAX_PROOF_LENGTH`].
    TooLarge,
    /// Not a compact JWS, or its header or claims are not JSON objects.
    Malformed,
    /// A member of the header or the claims appears twice.
    DuplicateMember,
    /// `typ` is not `dpop+jwt`.
    Type,
    /// `alg` is not `ES256`.
    Algorithm,
    /// The header has `crit`.
    CriticalHeader,
    /// `jwk` is missing or not a usable public key.
    Key(InvalidJwk),
    /// The signature is not the one of `jwk`.
    Signature,
    /// A claim, named here, is missing or not of its type.
    Claim(&'static str),
    /// `htm` is not the request's method.
    Method,
    /// `htu` is not the request's URL.
    Url,
    /// The proof was made too long ago, or its `exp` has passed.
    TooOld,
    /// The proof was made in the future, or its `nbf` has not come.
    IssuedInFuture,
    /// There is no `nonce`.
    NonceMissing,
    /// The `nonce` was not accepted.
    Nonce,
    /// There is no `ath`.
    TokenHashMissing,
    /// `ath` is not the hash of the access token.
    TokenHash,
    /// The access token is bound to another key.
    KeyMismatch,
}

impl DpopError {
    /// A stable name, for logs and tests.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "proof_too_large",
            Self::Malformed => "proof_malformed",
            Self::DuplicateMember => "proof_duplicate_member",
            Self::Type => "proof_type",
            Self::Algorithm => "proof_algorithm",
            Self::CriticalHeader => "proof_critical_header",
            Self::Key(InvalidJwk::PrivateKey) => "proof_private_key",
            Self::Key(_) => "proof_key",
            Self::Signature => "proof_signature",
            Self::Claim(_) => "proof_claim",
            Self::Method => "proof_method",
            Self::Url => "proof_url",
            Self::TooOld => "proof_too_old",
            Self::IssuedInFuture => "proof_from_future",
            Self::NonceMissing => "proof_nonce_missing",
            Self::Nonce => "proof_nonce",
            Self::TokenHashMissing => "proof_token_hash_missing",
            Self::TokenHash => "proof_token_hash",
            Self::KeyMismatch => "proof_key_mismatch",
        }
    }
}

impl fmt::Display for DpopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "the proof is longer than {MAX_PROOF_LENGTH} bytes"),
            Self::Malformed => f.write_str("the proof is not a compact JWS of JSON objects"),
            Self::DuplicateMember => f.write_str("the proof names a member twice"),
            Self::Type => f.write_str("the proof's typ is not dpop+jwt"),
            Self::Algorithm => f.write_str("the proof's alg is not ES256"),
            Self::CriticalHeader => f.write_str("the proof demands an unknown extension"),
            Self::Key(cause) => write!(f, "the proof's jwk: {cause}"),
            Self::Signature => f.write_str("the proof's signature does not match its key"),
            Self::Claim(name) => write!(f, "the proof's claim {name} is missing or malformed"),
            Self::Method => f.write_str("the proof is for another method"),
            Self::Url => f.write_str("the proof is for another URL"),
            Self::TooOld => f.write_str("the proof is too old"),
            Self::IssuedInFuture => f.write_str("the proof was made in the future"),
            Self::NonceMissing => f.write_str("the proof has no nonce"),
            Self::Nonce => f.write_str("the proof's nonce is not accepted"),
            Self::TokenHashMissing => f.write_str("the proof has no hash of the token"),
            Self::TokenHash => f.write_str("the proof is for another token"),
            Self::KeyMismatch => f.write_str("the token is bound to another key than the proof's"),
        }
    }
}

impl std::error::Error for DpopError {}

impl From<JwsError> for DpopError {
    fn from(error: JwsError) -> Self {
        match error {
            JwsError::Malformed => Self::Malformed,
            JwsError::DuplicateMember => Self::DuplicateMember,
            JwsError::CriticalHeader => Self::CriticalHeader,
            JwsError::Algorithm => Self::Algorithm,
            JwsError::Signature => Self::Signature,
        }
    }
}

impl From<JsonError> for DpopError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Malformed => Self::Malformed,
            JsonError::DuplicateMember => Self::DuplicateMember,
        }
    }
}

/// A proof whose signature has not been looked at: for whoever wants to refuse what is wrong anyway before a signature
/// costs time. Nothing in it can be relied on until [`UnverifiedProof::verify`] has said so.
#[derive(Debug)]
pub struct UnverifiedProof<'a> {
    jws: Jws<'a>,
    proof: Proof,
    claims: Map<String, Value>,
}

impl<'a> UnverifiedProof<'a> {
    /// Reads a proof: form, header, key, types of claims.
    ///
    /// # Errors
    /// [`DpopError`].
    pub fn parse(text: &'a str) -> Result<Self, DpopError> {
        if text.len() > MAX_PROOF_LENGTH {
            return Err(DpopError::TooLarge);
        }
        let jws = Jws::parse(text)?;
        if jws.header().get("typ").is_none_or(|typ| typ != "dpop+jwt") {
            return Err(DpopError::Type);
        }
        if jws.algorithm() != "ES256" {
            return Err(DpopError::Algorithm);
        }
        let jwk = jws.header().get("jwk").and_then(Value::as_object).ok_or(DpopError::Key(InvalidJwk::Malformed))?;
        let key = P256PublicKey::from_jwk(jwk).map_err(DpopError::Key)?;
        let claims = json::parse_object(jws.payload())?;
        let proof = Proof::with_claims(key, &claims)?;
        Ok(Self { jws, proof, claims })
    }

    /// [`Proof::check`], on the word of whoever sent it.
    ///
    /// # Errors
    /// [`DpopError`].
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), DpopError> {
        self.proof.check(expected)
    }

    /// [`Proof::url`], on the word of whoever sent it.
    #[must_use]
    pub const fn url(&self) -> &HttpUri {
        self.proof.url()
    }

    /// Any claim, also one that no document names: what a client and a server have agreed on.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    /// The thumbprint of the key that the proof names.
    #[must_use]
    pub const fn thumbprint(&self) -> &Thumbprint {
        self.proof.thumbprint()
    }

    /// The proof, when its signature is its own key's.
    ///
    /// # Errors
    /// [`DpopError::Signature`].
    pub fn verify(self) -> Result<Proof, DpopError> {
        self.jws.verify_es256(&self.proof.key)?;
        Ok(self.proof)
    }
}

impl Proof {
    /// Reads a proof and checks everything that needs no request: form, header, key, signature, types of claims.
    ///
    /// # Errors
    /// [`DpopError`].
    pub fn parse(text: &str) -> Result<Self, DpopError> {
        UnverifiedProof::parse(text)?.verify()
    }

    fn with_claims(key: P256PublicKey, claims: &Map<String, Value>) -> Result<Self, DpopError> {
        let iat = claims.get("iat").and_then(Value::as_f64).filter(|iat| UnixTime::from_numeric_date(*iat).is_some());
        let claims_read = ProofClaims {
            jti: required_text(claims, "jti")?.to_owned(),
            htm: required_text(claims, "htm")?.to_owned(),
            htu: required_text(claims, "htu")?.to_owned(),
            iat: iat.ok_or(DpopError::Claim("iat"))?,
            nonce: claims.get("nonce").filter(|nonce| !nonce.is_null()).cloned(),
            ath: optional_text(claims, "ath")?,
            msgs: optional_text(claims, "msgs")?,
            htq: optional_text(claims, "htq")?,
        };
        if claims_read.jti.len() > MAX_JTI_LENGTH {
            return Err(DpopError::Claim("jti"));
        }
        Ok(Self {
            key,
            htu: HttpUri::parse(&claims_read.htu).map_err(|_| DpopError::Claim("htu"))?,
            not_before: optional_date(claims, "nbf")?,
            expires: optional_date(claims, "exp")?,
            claims: claims_read,
        })
    }

    /// Checks the proof against a request.
    ///
    /// # Errors
    /// [`DpopError`]: the first of method, URL, time, nonce, token hash, key that does not fit.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), DpopError> {
        if self.claims.htm != expected.method {
            return Err(DpopError::Method);
        }
        if self.htu != *expected.url {
            return Err(DpopError::Url);
        }
        self.check_time(expected)?;
        if let Nonce::Checked(accepts) = expected.nonce {
            let nonce = self.claims.nonce.as_ref().ok_or(DpopError::NonceMissing)?;
            if !accepts(nonce) {
                return Err(DpopError::Nonce);
            }
        }
        if let Some(token) = expected.access_token {
            let ath = self.claims.ath.as_ref().ok_or(DpopError::TokenHashMissing)?;
            if *ath != encode_base64url(&sha256(token.as_bytes())) {
                return Err(DpopError::TokenHash);
            }
        }
        if expected.thumbprint.is_some_and(|bound_to| bound_to != self.thumbprint()) {
            return Err(DpopError::KeyMismatch);
        }
        Ok(())
    }

    fn check_time(&self, expected: &Expected<'_>) -> Result<(), DpopError> {
        let made = self.issued_at();
        let latest = expected.now.plus(expected.clock_skew);
        if made < expected.now.minus(expected.max_age) || self.expires.is_some_and(|end| end <= expected.now) {
            return Err(DpopError::TooOld);
        }
        if made > latest || self.not_before.is_some_and(|start| start > latest) {
            return Err(DpopError::IssuedInFuture);
        }
        Ok(())
    }

    /// When the proof was made, by its maker's clock (`iat`).
    #[must_use]
    pub fn issued_at(&self) -> UnixTime {
        UnixTime::from_numeric_date(self.claims.iat).unwrap_or(UnixTime::from_millis(0))
    }

    /// The URL that the proof is for (`htu`): chooses [`Expected::url`] where a server is found at several.
    #[must_use]
    pub const fn url(&self) -> &HttpUri {
        &self.htu
    }

    /// The proof's claims.
    #[must_use]
    pub const fn claims(&self) -> &ProofClaims {
        &self.claims
    }

    /// The key that made the proof.
    #[must_use]
    pub const fn key(&self) -> &P256PublicKey {
        &self.key
    }

    /// The thumbprint of the key that made the proof.
    #[must_use]
    pub const fn thumbprint(&self) -> &Thumbprint {
        self.key.thumbprint()
    }

    /// What to remember in a [`ReplayStore`](crate::replay::ReplayStore), at least as long as the proof's age would
    /// pass [`Proof::check`], that is until [`Proof::issued_at`] plus [`Expected::max_age`].
    #[must_use]
    pub fn replay_key(&self) -> ReplayKey {
        ReplayKey::new("jti", self.thumbprint(), self.claims.jti.as_bytes())
    }

    /// Whether `msgs` fits a message: unpadded base64url of its SHA-256 hash, or of a signature over it
    /// (64 bytes, ES256) by the proof's key, as the web SDK's `messageSignature` makes it.
    /// A proof without `msgs` fits none.
    #[must_use]
    pub fn matches_message(&self, message_hash: &[u8; 32]) -> bool {
        let msgs = self.claims.msgs.as_deref().and_then(decode_base64url);
        msgs.is_some_and(|msgs| msgs == message_hash || self.key.verifies_digest(message_hash, &msgs))
    }

    /// Whether the proof covers the query of a request, given without its question mark: `htq` is its hash, or both
    /// are absent. (RFC 9449 leaves the query out of `htu`, so a proof without `htq` passes with any query.)
    #[must_use]
    pub fn covers_query(&self, query: &str) -> bool {
        let htq = self.claims.htq.as_deref();
        htq.map_or(query.is_empty(), |htq| htq == encode_base64url(&sha256(query.as_bytes())))
    }
}

fn required_text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, DpopError> {
    claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or(DpopError::Claim(name))
}

fn optional_text(claims: &Map<String, Value>, name: &'static str) -> Result<Option<String>, DpopError> {
    if claims.contains_key(name) { required_text(claims, name).map(|text| Some(text.to_owned())) } else { Ok(None) }
}

fn optional_date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<UnixTime>, DpopError> {
    claims.get(name).map_or(Ok(None), |date| {
        date.as_f64().and_then(UnixTime::from_numeric_date).map(Some).ok_or(DpopError::Claim(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9449 section 4.1, figure 1 (token request) and section 7.1, figure 14 (resource request with `ath`).
    const TOKEN_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
    const RESOURCE_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    const ACCESS_TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";

    fn expected<'a>(method: &'a str, url: &'a HttpUri, seconds: i64) -> Expected<'a> {
        Expected {
            method,
            url,
            nonce: Nonce::Ignored,
            access_token: None,
            thumbprint: None,
            now: UnixTime::from_secs(seconds),
            max_age: Duration::from_secs(60),
            clock_skew: Duration::from_secs(5),
        }
    }

    fn token_url() -> HttpUri {
        HttpUri::parse("https://server.example.com/token").unwrap()
    }

    #[test]
    fn an_unverified_proof_is_checked_without_its_signature_and_becomes_a_proof_only_with_it() {
        let (signed, _) = TOKEN_REQUEST.rsplit_once('.').unwrap();
        let (_, signature) = RESOURCE_REQUEST.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{signature}");
        let proof = UnverifiedProof::parse(&forged).unwrap();
        let url = token_url();
        assert_eq!(proof.check(&expected("POST", &url, 1_562_262_616)), Ok(()));
        assert_eq!(proof.check(&expected("GET", &url, 1_562_262_616)), Err(DpopError::Method));
        assert_eq!(proof.thumbprint().to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        assert_eq!(proof.verify().unwrap_err(), DpopError::Signature);
        assert_eq!(Proof::parse(&forged).unwrap_err(), DpopError::Signature);
        assert!(UnverifiedProof::parse(TOKEN_REQUEST).unwrap().verify().is_ok());
    }

    #[test]
    fn the_proofs_of_rfc_9449_are_accepted() {
        let proof = Proof::parse(TOKEN_REQUEST).unwrap();
        assert_eq!(proof.claims().jti, "-BwC3ESc6acc2lTc");
        assert_eq!(proof.thumbprint().to_string(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        assert_eq!(proof.check(&expected("POST", &token_url(), 1_562_262_616)), Ok(()));

        let proof = Proof::parse(RESOURCE_REQUEST).unwrap();
        let url = HttpUri::parse("https://resource.example.org/protectedresource?page=2").unwrap();
        let demands = Expected {
            access_token: Some(ACCESS_TOKEN),
            thumbprint: Some(proof.thumbprint()),
            ..expected("GET", &url, 1_562_262_618)
        };
        assert_eq!(proof.check(&demands), Ok(()));
    }

    #[test]
    fn a_proof_for_another_request_is_refused() {
        let proof = Proof::parse(TOKEN_REQUEST).unwrap();
        let url = token_url();
        let now = 1_562_262_616;
        assert_eq!(proof.check(&expected("GET", &url, now)), Err(DpopError::Method));
        assert_eq!(proof.check(&expected("post", &url, now)), Err(DpopError::Method));
        for other in [
            "http://server.example.com/token",
            "https://server.example.com/token/",
            "https://server.example.com:444/token",
            "https://evil.example/token",
        ] {
            assert_eq!(proof.check(&expected("POST", &HttpUri::parse(other).unwrap(), now)), Err(DpopError::Url));
        }
    }

    #[test]
    fn a_proof_is_accepted_within_its_window_only() {
        let proof = Proof::parse(TOKEN_REQUEST).unwrap();
        let url = token_url();
        let made = 1_562_262_616;
        for (now, verdict) in [
            (made + 60, Ok(())),
            (made + 61, Err(DpopError::TooOld)),
            (made - 5, Ok(())),
            (made - 6, Err(DpopError::IssuedInFuture)),
        ] {
            assert_eq!(proof.check(&expected("POST", &url, now)), verdict, "{}", now - made);
        }
    }

    #[test]
    fn a_proof_for_another_token_or_key_is_refused() {
        let proof = Proof::parse(RESOURCE_REQUEST).unwrap();
        let url = HttpUri::parse("https://resource.example.org/protectedresource").unwrap();
        let demands = expected("GET", &url, 1_562_262_618);
        assert_eq!(proof.check(&Expected { access_token: Some("other"), ..demands }), Err(DpopError::TokenHash));
        let other_key = Thumbprint::from_bytes([7; 32]);
        assert_eq!(proof.check(&Expected { thumbprint: Some(&other_key), ..demands }), Err(DpopError::KeyMismatch));

        let proof = Proof::parse(TOKEN_REQUEST).unwrap();
        let url = token_url();
        let demands = Expected { access_token: Some(ACCESS_TOKEN), ..expected("POST", &url, 1_562_262_616) };
        assert_eq!(proof.check(&demands), Err(DpopError::TokenHashMissing));
    }

    #[test]
    fn a_demanded_nonce_is_demanded() {
        let proof = Proof::parse(TOKEN_REQUEST).unwrap();
        let url = token_url();
        let demands = Expected { nonce: Nonce::Checked(&|_| true), ..expected("POST", &url, 1_562_262_616) };
        assert_eq!(proof.check(&demands), Err(DpopError::NonceMissing));
    }

    #[test]
    fn an_altered_proof_is_refused() {
        let (signed, signature) = TOKEN_REQUEST.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let (_, other_claims) = RESOURCE_REQUEST.rsplit_once('.').unwrap().0.split_once('.').unwrap();
        assert_eq!(Proof::parse(&format!("{header}.{other_claims}.{signature}")).unwrap_err(), DpopError::Signature);
        assert_eq!(Proof::parse(&format!("{header}.{claims}.")).unwrap_err(), DpopError::Signature);
        assert_eq!(Proof::parse(&format!("{header}.{claims}")).unwrap_err(), DpopError::Malformed);
        assert_eq!(Proof::parse(&"a".repeat(MAX_PROOF_LENGTH + 1)).unwrap_err(), DpopError::TooLarge);
    }

    #[test]
    fn the_same_jti_of_the_same_key_has_one_replay_key() {
        let [one, other] = [TOKEN_REQUEST, RESOURCE_REQUEST].map(|text| Proof::parse(text).unwrap().replay_key());
        assert_ne!(one, other);
        assert_eq!(one, Proof::parse(TOKEN_REQUEST).unwrap().replay_key());
        assert!(!Proof::parse(TOKEN_REQUEST).unwrap().matches_message(&[0; 32]));
    }
}
