//! Refusals: the error codes of the specification's troubleshooting table, their HTTP status, and the flat JSON map
//! that carries them.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $status:literal;)+) => {
        /// One reason for a refusal. The names are the specification's, except for [`Code::EXTENSIONS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// Every code, in the order of the specification's table.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)+ }
            }

            /// The HTTP status of a response that carries this code alone.
            pub fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)+ }
            }
        }
    };
}

codes! {
    /// The body could not be read to its end.
    BodyReadFail = "rqst-body-read-fail", 400;
    /// There are parameters in the URL and in the body.
    ParamsInBodyAndPath = "rqst-params-in-body-and-path", 400;
    /// The body is longer than the service reads.
    BodyTooLarge = "rqst-body-too-large", 413;
    /// The body is not a well-formed form.
    BodyParse = "rqst-body-parse", 400;
    /// Parameters the service does not know, or that appear twice, or whose text cannot be one; the value lists them.
    IllegalParams = "rqst-illegal-params", 400;
    /// `approov-site-key` is missing.
    NoSiteKey = "aprv-no-site-key", 400;
    /// Neither a check result nor a refresh token came.
    NoWebProtectParams = "aprv-no-web-protect-params", 400;
    /// No account has this site key.
    NoMatchingAccount = "aprv-no-matching-account", 400;
    /// The account has no check service at all.
    NoWebProtectDef = "aprv-no-web-protect-def", 400;
    /// `payload` does not decode to 32 bytes.
    PayloadInvalidSize = "aprv-payload-param-invalid-size", 400;
    /// `payload` is not unpadded base64url.
    PayloadNotBase64Url = "aprv-payload-not-b64url", 400;
    /// No `api` parameter.
    ApiNoTargets = "aprv-api-no-targets", 400;
    /// An `api` parameter is empty.
    ApiEmptyTarget = "aprv-api-empty-target", 400;
    /// The same `api` twice.
    ApiDuplicateTarget = "aprv-api-duplicate-target", 400;
    /// More `api` parameters than the account has APIs.
    ApiTooManyTargets = "aprv-api-too-many-targets", 400;
    /// An `api` the account does not have.
    ApiNotFound = "aprv-api-not-found", 400;
    /// An `api` that is not open to the web.
    ApiNotWebEnabled = "aprv-api-not-web-enabled", 400;
    /// The nonce in the proof is missing, malformed, not ours or too old.
    InvalidNonce = "aprv-invalid-nonce", 401;
    /// The `DPoP` header is missing, malformed, wrongly signed, about another request, or seen before.
    InvalidDpopToken = "aprv-invalid-dpop-token", 401;
    /// The refresh token is malformed, not ours, another key's, revoked, or past its lifetime.
    InvalidRefreshToken = "aprv-invalid-refresh-token", 401;
    /// Fingerprint parameters, but the account has no subscription.
    FpConfigNotFound = "fp-config-not-found", 400;
    /// The account requires Fingerprint and no result came.
    FpMissingRequired = "fp-missing-required-params", 400;
    /// Some of the Fingerprint parameters are missing.
    FpParamMismatch = "fp-param-mismatch", 400;
    /// The public API key is empty.
    FpEmptyBrowserToken = "fp-empty-browser-tok", 400;
    /// The visitor ID is empty.
    FpEmptyVisitorId = "fp-empty-vis-id", 400;
    /// The request ID is empty.
    FpEmptyRequestId = "fp-empty-rqst-id", 400;
    /// The account has no subscription with this public API key.
    FpBrowserTokenNotFound = "fp-browser-tok-not-found", 400;
    /// Fingerprint could not be asked, or responded with an error.
    FpTokenCheck = "fp-tok-check", 502;
    /// hCaptcha parameters, but the account has no hCaptcha site.
    HcapConfigNotFound = "hcap-config-not-found", 400;
    /// The account requires hCaptcha and no result came.
    HcapMissingRequired = "hcap-missing-required-params", 400;
    /// Some of the hCaptcha parameters are missing.
    HcapParamMismatch = "hcap-param-mismatch", 400;
    /// The hCaptcha site key is empty.
    HcapEmptySiteKey = "hcap-empty-site-key", 400;
    /// The hCaptcha token is empty.
    HcapEmptyToken = "hcap-empty-token", 400;
    /// The account has no hCaptcha site with this key.
    HcapSiteKeyNotFound = "hcap-site-key-not-found", 400;
    /// hCaptcha could not be asked, or responded with an error.
    HcapTokenCheck = "hcap-token-check", 502;
    /// reCAPTCHA parameters, but the account has no reCAPTCHA site.
    RecapConfigNotFound = "recap-config-not-found", 400;
    /// The account requires reCAPTCHA and no result came.
    RecapMissingRequired = "recap-missing-required-params", 400;
    /// Some of the reCAPTCHA parameters are missing.
    RecapParamMismatch = "recap-param-mismatch", 400;
    /// The reCAPTCHA site key is empty.
    RecapEmptySiteKey = "recap-empty-site-key", 400;
    /// The reCAPTCHA token is empty.
    RecapEmptyToken = "recap-empty-token", 400;
    /// The account has no reCAPTCHA site with this key.
    RecapSiteKeyNotFound = "recap-site-key-not-found", 400;
    /// reCAPTCHA could not be asked, or responded with an error.
    RecapTokenCheck = "recap-token-check", 502;
    /// Extension: Turnstile parameters, but the account has no Turnstile site.
    TurnstileConfigNotFound = "turnstile-config-not-found", 400;
    /// Extension: the account requires Turnstile and no result came.
    TurnstileMissingRequired = "turnstile-missing-required-params", 400;
    /// Extension: some of the Turnstile parameters are missing.
    TurnstileParamMismatch = "turnstile-param-mismatch", 400;
    /// Extension: the Turnstile site key is empty.
    TurnstileEmptySiteKey = "turnstile-empty-site-key", 400;
    /// Extension: the Turnstile token is empty.
    TurnstileEmptyToken = "turnstile-empty-token", 400;
    /// Extension: the account has no Turnstile site with this key.
    TurnstileSiteKeyNotFound = "turnstile-site-key-not-found", 400;
    /// Extension: Turnstile could not be asked, or responded with an error.
    TurnstileTokenCheck = "turnstile-token-check", 502;
    /// Extension: Friendly Captcha parameters, but the account has no Friendly Captcha site.
    FriendlyConfigNotFound = "friendly-config-not-found", 400;
    /// Extension: the account requires Friendly Captcha and no result came.
    FriendlyMissingRequired = "friendly-missing-required-params", 400;
    /// Extension: some of the Friendly Captcha parameters are missing.
    FriendlyParamMismatch = "friendly-param-mismatch", 400;
    /// Extension: the Friendly Captcha site key is empty.
    FriendlyEmptySiteKey = "friendly-empty-site-key", 400;
    /// Extension: the Friendly Captcha response is empty.
    FriendlyEmptyResponse = "friendly-empty-response", 400;
    /// Extension: the account has no Friendly Captcha site with this key.
    FriendlySiteKeyNotFound = "friendly-site-key-not-found", 400;
    /// Extension: Friendly Captcha could not be asked, or responded with an error.
    FriendlyResponseCheck = "friendly-response-check", 502;
    /// Extension: ALTCHA parameters, but the account has no ALTCHA site.
    AltchaConfigNotFound = "altcha-config-not-found", 400;
    /// Extension: the account requires ALTCHA and no result came.
    AltchaMissingRequired = "altcha-missing-required-params", 400;
    /// Extension: some of the ALTCHA parameters are missing.
    AltchaParamMismatch = "altcha-param-mismatch", 400;
    /// Extension: the ALTCHA site key is empty.
    AltchaEmptySiteKey = "altcha-empty-site-key", 400;
    /// Extension: the ALTCHA payload is empty.
    AltchaEmptyPayload = "altcha-empty-payload", 400;
    /// Extension: the account has no ALTCHA site with this key.
    AltchaSiteKeyNotFound = "altcha-site-key-not-found", 400;
    /// Extension: a challenge has to be solved first; the value is one, as JSON in unpadded base64url.
    WorkRequired = "aprv-work-required", 429;
    /// Extension: the page's origin is not one the account allows.
    OriginNotAllowed = "aprv-origin-not-allowed", 403;
    /// Extension: the site's or subscription's requests per minute are used up, or the client has had its share.
    RateLimit = "aprv-rate-limit", 429;
    /// Extension: the service is unavailable for now (shared store unavailable, too busy, a result in flight, out of time).
    Unavailable = "aprv-unavailable", 503;
}

impl Code {
    /// The codes that the specification does not have.
    pub const EXTENSIONS: [Code; 24] = [
        Code::TurnstileConfigNotFound,
        Code::TurnstileMissingRequired,
        Code::TurnstileParamMismatch,
        Code::TurnstileEmptySiteKey,
        Code::TurnstileEmptyToken,
        Code::TurnstileSiteKeyNotFound,
        Code::TurnstileTokenCheck,
        Code::FriendlyConfigNotFound,
        Code::FriendlyMissingRequired,
        Code::FriendlyParamMismatch,
        Code::FriendlyEmptySiteKey,
        Code::FriendlyEmptyResponse,
        Code::FriendlySiteKeyNotFound,
        Code::FriendlyResponseCheck,
        Code::AltchaConfigNotFound,
        Code::AltchaMissingRequired,
        Code::AltchaParamMismatch,
        Code::AltchaEmptySiteKey,
        Code::AltchaEmptyPayload,
        Code::AltchaSiteKeyNotFound,
        Code::WorkRequired,
        Code::OriginNotAllowed,
        Code::RateLimit,
        Code::Unavailable,
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal: at least one code, each with a detail that may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    codes: BTreeMap<Code, String>,
    /// When trying again makes sense, in seconds (the `Retry-After` header).
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// A refusal with one code.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { codes: BTreeMap::from([(code, detail.into())]), retry_after: None }
    }

    /// The codes and their details.
    pub fn codes(&self) -> impl Iterator<Item = (Code, &str)> {
        self.codes.iter().map(|(code, detail)| (*code, detail.as_str()))
    }

    /// Whether `code` is among the reasons.
    pub fn has(&self, code: Code) -> bool {
        self.codes.contains_key(&code)
    }

    /// The HTTP status: the kind of fault that has to be fixed first decides.
    pub fn status(&self) -> u16 {
        const STATUS_PRECEDENCE: [u16; 7] = [413, 503, 400, 401, 403, 429, 502];
        STATUS_PRECEDENCE
            .into_iter()
            .find(|status| self.codes.keys().any(|code| code.status() == *status))
            .unwrap_or(400)
    }

    /// The body: a flat JSON object, code to detail.
    pub fn to_json(&self) -> String {
        let map: serde_json::Map<String, serde_json::Value> =
            self.codes.iter().map(|(code, detail)| (code.name().to_owned(), detail.as_str().into())).collect();
        serde_json::Value::Object(map).to_string()
    }
}

/// Gathers refusal codes, so that one response reports all that is wrong.
#[derive(Default)]
pub struct Problems(BTreeMap<Code, String>);

impl Problems {
    /// Notes a problem. The first detail of a code is kept.
    pub fn add(&mut self, code: Code, detail: impl Into<String>) {
        self.0.entry(code).or_insert_with(|| detail.into());
    }

    /// Takes over the codes of a refusal.
    pub fn extend(&mut self, refusal: Refusal) {
        for (code, detail) in refusal.codes {
            self.add(code, detail);
        }
    }

    /// The value, or nothing after taking over the codes of its refusal.
    pub fn take<T>(&mut self, result: Result<T, Refusal>) -> Option<T> {
        result.map_err(|refusal| self.extend(refusal)).ok()
    }

    /// Whether nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok` when nothing was wrong.
    ///
    /// # Errors
    /// The refusal that carries every problem noted.
    pub fn into_result(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(Refusal { codes: self.0, retry_after: None }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_has_42_codes() {
        assert_eq!(Code::ALL.len() - Code::EXTENSIONS.len(), 42);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn a_bad_parameter_is_reported_before_a_stale_nonce() {
        let mut problems = Problems::default();
        problems.add(Code::InvalidNonce, "");
        problems.add(Code::NoSiteKey, "");
        let refusal = problems.into_result().unwrap_err();
        assert_eq!(refusal.status(), 400);
        assert_eq!(refusal.to_json(), r#"{"aprv-invalid-nonce":"","aprv-no-site-key":""}"#);
    }

    #[test]
    fn every_code_alone_has_its_own_status() {
        for code in Code::ALL {
            assert_eq!(Refusal::new(*code, "").status(), code.status(), "{code}");
        }
    }
}
