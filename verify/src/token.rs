//! Approov tokens: what they say, and whether they can be trusted.

use crate::json::{self, JsonError};
use crate::jwe::{self, JweError, JweKey};
use crate::jwk::Thumbprint;
use crate::jwks::RemoteKeySet;
use crate::jws::{Jws, JwsError};
use crate::keyset::KeySet;
use crate::time::UnixTime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// The claims of a token that was found good.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Claims {
    /// Which kind of client the token was issued to.
    pub channel: Channel,
    /// When the token ends (`exp`).
    pub expires: UnixTime,
    /// When it was issued (`iat`).
    pub issued: Option<UnixTime>,
    /// The address that the client had towards Approov (`ip`).
    pub ip: Option<String>,
    /// Approov's annotation of the client's properties (`arc`).
    pub arc: Option<String>,
    /// The mobile device's identifier (`did`).
    pub device: Option<String>,
    /// Results of the web check services (`embed`).
    pub embed: Embed,
    /// The SHA-256 of the data that the token is bound to (`pay`).
    pub pay: Option<[u8; 32]>,
    /// The thumbprint of the key that the token is bound to (`cnf.jkt`).
    pub cnf: Option<Thumbprint>,
    /// All claims as they are, these included.
    pub all: Map<String, Value>,
}

/// Which kind of client a token was issued to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A browser: the token has `embed`.
    Web,
    /// A mobile app: the token has `did`.
    Mobile,
    /// The token says neither, as example tokens do.
    Unspecified,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Web => "web",
            Self::Mobile => "mobile",
            Self::Unspecified => "unspecified",
        })
    }
}

/// The results of the check services, by public API key or site key.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Embed {
    /// Fingerprint results (`fp:…`).
    pub fingerprint: BTreeMap<String, FingerprintResult>,
    /// hCaptcha results (`hcap:…`).
    pub hcaptcha: BTreeMap<String, CaptchaResult>,
    /// reCAPTCHA results (`recap:…`).
    pub recaptcha: BTreeMap<String, CaptchaResult>,
    /// Turnstile results (`turnstile:…`).
    pub turnstile: BTreeMap<String, CaptchaResult>,
    /// Friendly Captcha results (`friendly:…`).
    pub friendly_captcha: BTreeMap<String, CaptchaResult>,
    /// ALTCHA results (`altcha:…`).
    pub altcha: BTreeMap<String, CaptchaResult>,
    /// The names of debug tokens (`debug:…`) that stood in for a check.
    pub debug: BTreeSet<String>,
}

/// What a token says about a Fingerprint identification.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FingerprintResult {
    /// The visitor that Fingerprint recognised.
    pub visitor_id: String,
    /// The identification requests that were looked up.
    pub request_ids: Vec<String>,
    /// The whole result; encrypted tokens may hold more than the members above.
    pub full: Map<String, Value>,
}

/// What a token says about the check of a captcha.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CaptchaResult {
    /// When the challenge was passed, as the check service writes it (ISO 8601).
    pub challenge_time: Option<String>,
    /// The host name of the page.
    pub hostname: Option<String>,
    /// The whole result; encrypted tokens may hold more than the members above.
    pub full: Map<String, Value>,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than the verifier's limit.
    TooLarge,
    /// Not a compact JWS or JWE, or its header or claims are not JSON objects.
    Malformed,
    /// A member of the header or the claims appears twice.
    DuplicateMember,
    /// The header has `crit`.
    CriticalHeader,
    /// `typ` is there and is not `JWT`.
    Type,
    /// `alg` or `enc` is not one that the verifier has a key for.
    Algorithm,
    /// `kid` names no key of the verifier.
    UnknownKey,
    /// The signature does not match: the service found the client's check failed, or the token is forged.
    Signature,
    /// The token is not encrypted, and must be.
    NotEncrypted,
    /// The encrypted content is not a signed token.
    NotNested,
    /// The token was encrypted for another key, or altered.
    Decryption,
    /// A claim, named here, is missing or malformed.
    Claim(&'static str),
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come.
    NotYetValid,
    /// `iss` is not the issuer that the verifier asks for, or is missing.
    Issuer,
    /// `aud` does not name this API, or is missing.
    Audience,
    /// A debug token stood in for a check, and the verifier does not allow that.
    Debug,
    /// The account's public keys could not be fetched.
    KeysUnavailable,
}

impl TokenError {
    /// A stable name, for logs and tests.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Malformed => "token_malformed",
            Self::DuplicateMember => "token_duplicate_member",
            Self::CriticalHeader => "token_critical_header",
            Self::Type => "token_type",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "token_unknown_key",
            Self::Signature => "token_signature",
            Self::NotEncrypted => "token_not_encrypted",
            Self::NotNested => "token_not_nested",
            Self::Decryption => "token_decryption",
            Self::Claim(_) => "token_claim",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Debug => "token_debug",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the token is too long"),
            Self::Malformed => f.write_str("the token is not a compact JWS or JWE of JSON objects"),
            Self::DuplicateMember => f.write_str("the token names a member twice"),
            Self::CriticalHeader => f.write_str("the token demands an unknown extension"),
            Self::Type => f.write_str("the token's typ is not JWT"),
            Self::Algorithm => f.write_str("the token's algorithm is not accepted"),
            Self::UnknownKey => f.write_str("the token's kid names no known key"),
            Self::Signature => f.write_str("the token's signature does not match"),
            Self::NotEncrypted => f.write_str("the token is not encrypted"),
            Self::NotNested => f.write_str("the encrypted token holds no signed token"),
            Self::Decryption => f.write_str("the token cannot be decrypted"),
            Self::Claim(name) => write!(f, "the token's claim {name} is missing or malformed"),
            Self::Expired => f.write_str("the token has expired"),
            Self::NotYetValid => f.write_str("the token is not valid yet"),
            Self::Issuer => f.write_str("the token is of another issuer"),
            Self::Audience => f.write_str("the token is for another API"),
            Self::Debug => f.write_str("the token was made with a debug token, which is not allowed here"),
            Self::KeysUnavailable => f.write_str("the keys of the tokens' issuer could not be fetched"),
        }
    }
}

impl std::error::Error for TokenError {}

impl From<JsonError> for TokenError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Malformed => Self::Malformed,
            JsonError::DuplicateMember => Self::DuplicateMember,
        }
    }
}

impl From<JwsError> for TokenError {
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

impl From<JweError> for TokenError {
    fn from(error: JweError) -> Self {
        match error {
            JweError::Malformed => Self::Malformed,
            JweError::DuplicateMember => Self::DuplicateMember,
            JweError::CriticalHeader => Self::CriticalHeader,
            JweError::Algorithm => Self::Algorithm,
            JweError::NotNested => Self::NotNested,
            JweError::Decryption => Self::Decryption,
        }
    }
}

/// What a verifier needs to read tokens.
#[derive(Debug)]
pub(crate) struct TokenReader {
    pub(crate) keys: KeySet,
    pub(crate) remote_keys: Option<RemoteKeySet>,
    pub(crate) jwe_keys: Vec<JweKey>,
    pub(crate) must_be_encrypted: bool,
    pub(crate) max_length: usize,
    pub(crate) leeway: Duration,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) debug_allowed: bool,
}

impl TokenReader {
    pub(crate) fn read(&self, text: &str, now: UnixTime) -> Result<Claims, TokenError> {
        if text.len() > self.max_length {
            return Err(TokenError::TooLarge);
        }
        let claims = match text.bytes().filter(|byte| *byte == b'.').count() {
            4 => self.signed_claims(&self.decrypt(text)?, now)?,
            _ if self.must_be_encrypted => return Err(TokenError::NotEncrypted),
            _ => self.signed_claims(text, now)?,
        };
        let claims = Claims::read(claims)?;
        if claims.expires.plus(self.leeway) <= now {
            return Err(TokenError::Expired);
        }
        let not_before = optional(&claims.all, "nbf", date)?;
        if not_before.is_some_and(|start| start > now.plus(self.leeway)) {
            return Err(TokenError::NotYetValid);
        }
        self.check_parties(&claims)?;
        Ok(claims)
    }

    /// Who made the token, for whom, and by what means.
    fn check_parties(&self, claims: &Claims) -> Result<(), TokenError> {
        let names = |claim: &str, wanted: &str| match claims.all.get(claim) {
            Some(Value::String(one)) => one == wanted,
            // Several audiences (RFC 7519 section 4.1.3).
            Some(Value::Array(several)) if claim == "aud" => several.iter().any(|one| one == wanted),
            _ => false,
        };
        if self.issuer.as_ref().is_some_and(|wanted| !names("iss", wanted)) {
            return Err(TokenError::Issuer);
        }
        if self.audience.as_ref().is_some_and(|wanted| !names("aud", wanted)) {
            return Err(TokenError::Audience);
        }
        if !claims.embed.debug.is_empty() && !self.debug_allowed {
            return Err(TokenError::Debug);
        }
        Ok(())
    }

    /// Tries each key. An error other than a wrong key is the same for all of them.
    fn decrypt(&self, text: &str) -> Result<String, TokenError> {
        let mut verdict = Err(TokenError::Algorithm);
        for key in &self.jwe_keys {
            verdict = jwe::decrypt_nested(text, key).map_err(TokenError::from);
            if verdict != Err(TokenError::Decryption) {
                break;
            }
        }
        verdict
    }

    fn signed_claims(&self, text: &str, now: UnixTime) -> Result<Map<String, Value>, TokenError> {
        let remote = self.remote_keys.as_ref().map(|keys| keys.current(now));
        let verdict = self.signed_claims_by(text, remote.as_ref().and_then(Option::as_deref));
        match (verdict, remote) {
            // One of the keys that are missing might be the token's.
            (Err(TokenError::Algorithm | TokenError::UnknownKey), Some(None)) => Err(TokenError::KeysUnavailable),
            (verdict, _) => verdict,
        }
    }

    fn signed_claims_by(&self, text: &str, remote: Option<&KeySet>) -> Result<Map<String, Value>, TokenError> {
        let jws = Jws::parse(text)?;
        let header = jws.header();
        if !header.get("typ").is_none_or(|typ| typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"))) {
            return Err(TokenError::Type);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return Err(TokenError::Malformed),
        };
        // A key decides what it is used for; `alg` and `kid` of the header can but narrow the choice.
        let keys = self.keys.iter().chain(remote.into_iter().flat_map(KeySet::iter));
        let mut of_algorithm = keys.filter(|named| named.key.algorithm().name() == jws.algorithm()).peekable();
        of_algorithm.peek().ok_or(TokenError::Algorithm)?;
        let mut candidates = of_algorithm.filter(|named| named.matches_kid(kid)).peekable();
        candidates.peek().ok_or(TokenError::UnknownKey)?;
        let payload = candidates.find_map(|named| jws.verify(&named.key).ok()).ok_or(TokenError::Signature)?;
        Ok(json::parse_object(payload)?)
    }
}

impl Claims {
    fn read(all: Map<String, Value>) -> Result<Self, TokenError> {
        let embed = all.get("embed").map(Embed::read).transpose()?;
        let device = optional(&all, "did", text)?;
        let channel = match (&embed, &device) {
            (Some(_), Some(_)) => return Err(TokenError::Claim("embed")),
            (Some(_), None) => Channel::Web,
            (None, Some(_)) => Channel::Mobile,
            (None, None) => Channel::Unspecified,
        };
        Ok(Self {
            channel,
            expires: optional(&all, "exp", date)?.ok_or(TokenError::Claim("exp"))?,
            issued: optional(&all, "iat", date)?,
            ip: optional(&all, "ip", text)?,
            arc: optional(&all, "arc", text)?,
            device,
            embed: embed.unwrap_or_default(),
            pay: optional(&all, "pay", |value| STANDARD.decode(value.as_str()?).ok()?.try_into().ok())?,
            cnf: optional(&all, "cnf", |value| value.get("jkt")?.as_str()?.parse().ok())?,
            all,
        })
    }
}

impl Embed {
    fn read(value: &Value) -> Result<Self, TokenError> {
        const MALFORMED: TokenError = TokenError::Claim("embed");
        let mut embed = Self::default();
        for (name, result) in value.as_object().ok_or(MALFORMED)? {
            let Some((service, key)) = name.split_once(':') else {
                continue;
            };
            let result = result.as_object();
            let key = key.to_owned();
            match service {
                "fp" => {
                    embed.fingerprint.insert(key, result.and_then(FingerprintResult::read).ok_or(MALFORMED)?);
                }
                "hcap" => {
                    embed.hcaptcha.insert(key, result.map(CaptchaResult::read).ok_or(MALFORMED)?);
                }
                "recap" => {
                    embed.recaptcha.insert(key, result.map(CaptchaResult::read).ok_or(MALFORMED)?);
                }
                "turnstile" => {
                    embed.turnstile.insert(key, result.map(CaptchaResult::read).ok_or(MALFORMED)?);
                }
                "friendly" => {
                    embed.friendly_captcha.insert(key, result.map(CaptchaResult::read).ok_or(MALFORMED)?);
                }
                "altcha" => {
                    embed.altcha.insert(key, result.map(CaptchaResult::read).ok_or(MALFORMED)?);
                }
                "debug" => {
                    embed.debug.insert(key);
                }
                _ => {}
            }
        }
        Ok(embed)
    }
}

impl FingerprintResult {
    fn read(full: &Map<String, Value>) -> Option<Self> {
        let visits = full.get("visits").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Some(Self {
            visitor_id: text(full.get("visitorId")?)?,
            request_ids: visits.iter().filter_map(|visit| visit.get("requestId").and_then(text)).collect(),
            full: full.clone(),
        })
    }
}

impl CaptchaResult {
    fn read(full: &Map<String, Value>) -> Self {
        Self {
            challenge_time: full.get("challenge_ts").and_then(text),
            hostname: full.get("hostname").and_then(text),
            full: full.clone(),
        }
    }
}

fn optional<T>(
    claims: &Map<String, Value>,
    name: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, TokenError> {
    claims.get(name).map(|value| read(value).ok_or(TokenError::Claim(name))).transpose()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn date(value: &Value) -> Option<UnixTime> {
    value.as_f64().and_then(UnixTime::from_numeric_date)
}
