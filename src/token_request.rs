//! The arguments of `fetchToken`, parsed.

use sha2::{Digest, Sha256};

use crate::argument::{Argument, Problems};
use crate::config::CheckKeys;
use crate::error::Error;
use crate::secret::Secret;

/// How long a call waits unless it says otherwise, in milliseconds.
pub const DEFAULT_TIMEOUT: u32 = 10_000;

/// The arguments of `fetchToken` as given.
#[derive(Clone, Debug, Default)]
pub struct TokenArguments {
    /// `api`
    pub api: Argument,
    /// `payload`
    pub payload: Argument,
    /// `fingerprintIDResult`, with the members of [`FINGERPRINT_MEMBERS`]
    pub fingerprint_id_result: Argument,
    /// `hcaptchaToken`, with the members of [`HCAPTCHA_MEMBERS`]
    pub hcaptcha_token: Argument,
    /// `recaptchaToken`
    pub recaptcha_token: Argument,
    /// `timeout`
    pub timeout: Argument,
    /// What came as `signal` and is none; a signal itself stays at the browser edge.
    pub unusable_signal: Argument,
}

/// The documented names in a Fingerprint result, and those that the agent uses.
pub const FINGERPRINT_MEMBERS: [&str; 4] = ["fingerprintVisitorId", "fingerprintRequestId", "visitorId", "requestId"];

/// The members of the object form of an hCaptcha token.
pub const HCAPTCHA_MEMBERS: [&str; 3] = ["response", "key", "host"];

/// What one call of `fetchToken` requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The domain of the API that the token is for, in lower case.
    pub api: String,
    /// The SHA-256 of the data that the token is to be bound to.
    pub binding: Option<Binding>,
    /// The check results that came with the call.
    pub results: Results,
    /// How long the caller waits, in milliseconds.
    pub timeout: u32,
}

/// The SHA-256 of the data that a token is bound to.
pub type Binding = [u8; 32];

/// Results of checks that the page has passed, one per check service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Of a Fingerprint identification.
    pub fingerprint: Option<FingerprintResult>,
    /// Of an hCaptcha challenge.
    pub hcaptcha: Option<HcaptchaResult>,
    /// Of a reCAPTCHA challenge: its token.
    pub recaptcha: Option<Secret>,
}

/// What a Fingerprint identification gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintResult {
    /// The visitor ID.
    pub visitor_id: Secret,
    /// The ID of the identification request.
    pub request_id: Secret,
}

/// What an hCaptcha challenge gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HcaptchaResult {
    /// The response token.
    pub token: Secret,
    /// The challenge key.
    pub key: Option<Secret>,
    /// The root host domain that the response must be for.
    pub host: Option<String>,
}

impl TokenRequest {
    /// Parses the arguments of `fetchToken` for a session with the given check services.
    ///
    /// # Errors
    /// `invalid-argument`, naming every argument that is missing or unusable.
    pub fn parse(arguments: &TokenArguments, checks: &CheckKeys) -> Result<TokenRequest, Error> {
        let mut problems = Problems::default();
        let api = api(&arguments.api, &mut problems);
        let binding = binding(&arguments.payload, &mut problems);
        let results = Results {
            fingerprint: fingerprint(&arguments.fingerprint_id_result, &mut problems),
            hcaptcha: hcaptcha(&arguments.hcaptcha_token, &mut problems),
            recaptcha: problems
                .optional_text("recaptchaToken", &arguments.recaptcha_token, "the token of a reCAPTCHA challenge")
                .map(Secret::from),
        };
        let timeout = timeout(&arguments.timeout, &mut problems);
        if arguments.unusable_signal.is_given() {
            problems.add(&["\"signal\" must be an AbortSignal, got ", arguments.unusable_signal.kind()]);
        }
        for (given, name, configured, option) in [
            (
                results.fingerprint.is_some(),
                "fingerprintIDResult",
                checks.fingerprint.is_some(),
                "fingerprintPublicAPIKey",
            ),
            (results.hcaptcha.is_some(), "hcaptchaToken", checks.hcaptcha.is_some(), "hcaptchaSiteKey"),
            (results.recaptcha.is_some(), "recaptchaToken", checks.recaptcha.is_some(), "recaptchaSiteKey"),
        ] {
            if given && !configured {
                problems.add(&["\"", name, "\" needs the option \"", option, "\" of initializeSession"]);
            }
        }
        problems.into_result()?;
        Ok(TokenRequest { api: api.unwrap_or_default(), binding, results, timeout: timeout.unwrap_or(DEFAULT_TIMEOUT) })
    }
}

impl Results {
    /// Whether no check has a result.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Results::default()
    }

    /// These results without those that `known` holds with the same value.
    #[must_use]
    pub fn newer_than(&self, known: &Results) -> Results {
        Results {
            fingerprint: self.fingerprint.clone().filter(|result| known.fingerprint.as_ref() != Some(result)),
            hcaptcha: self.hcaptcha.clone().filter(|result| known.hcaptcha.as_ref() != Some(result)),
            recaptcha: self.recaptcha.clone().filter(|result| known.recaptcha.as_ref() != Some(result)),
        }
    }

    /// Replaces the results for which `newer` has one.
    pub fn update(&mut self, newer: &Results) {
        self.fingerprint = newer.fingerprint.clone().or_else(|| self.fingerprint.take());
        self.hcaptcha = newer.hcaptcha.clone().or_else(|| self.hcaptcha.take());
        self.recaptcha = newer.recaptcha.clone().or_else(|| self.recaptcha.take());
    }
}

fn api(argument: &Argument, problems: &mut Problems) -> Option<String> {
    const EXPECTED: &str = "the domain of an API such as api.example.com";
    let api = problems.required_text("api", argument, EXPECTED)?;
    if api.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '@')) {
        problems.add(&["\"api\" must be ", EXPECTED, ", without a scheme or path, got \"", &api, "\""]);
        return None;
    }
    // Domains are case-insensitive, and the service refuses two spellings of one as a duplicate.
    Some(api.to_ascii_lowercase())
}

fn binding(argument: &Argument, problems: &mut Problems) -> Option<Binding> {
    match argument {
        Argument::Absent => None,
        Argument::Text(text) if !text.is_empty() => Some(Sha256::digest(text.as_bytes()).into()),
        Argument::Bytes(bytes) if !bytes.is_empty() => Some(Sha256::digest(bytes).into()),
        other => {
            problems.add_wrong("payload", "a non-empty string or Uint8Array", other.kind());
            None
        }
    }
}

fn fingerprint(argument: &Argument, problems: &mut Problems) -> Option<FingerprintResult> {
    const EXPECTED: &str = "the result of a Fingerprint identification, with its visitor ID and request ID";
    match argument {
        Argument::Absent => None,
        Argument::Object(_) => {
            let mut member = |names: [&'static str; 2]| {
                let name = if argument.member(names[0]).is_given() { names[0] } else { names[1] };
                problems.required_text(
                    &["fingerprintIDResult.", name].concat(),
                    argument.member(name),
                    "a non-empty string",
                )
            };
            let visitor_id = member(["fingerprintVisitorId", "visitorId"]);
            let request_id = member(["fingerprintRequestId", "requestId"]);
            Some(FingerprintResult { visitor_id: visitor_id?.into(), request_id: request_id?.into() })
        }
        other => {
            problems.add_wrong("fingerprintIDResult", EXPECTED, other.kind());
            None
        }
    }
}

fn hcaptcha(argument: &Argument, problems: &mut Problems) -> Option<HcaptchaResult> {
    const EXPECTED: &str = "the token of an hCaptcha challenge, or an object with it as \"response\"";
    match argument {
        Argument::Object(_) => {
            let token = problems.required_text(
                "hcaptchaToken.response",
                argument.member("response"),
                "the token of an hCaptcha challenge",
            );
            let key = problems.optional_text("hcaptchaToken.key", argument.member("key"), "a non-empty string");
            let host = problems.optional_text("hcaptchaToken.host", argument.member("host"), "a host name");
            Some(HcaptchaResult { token: token?.into(), key: key.map(Secret::from), host })
        }
        other => problems.optional_text("hcaptchaToken", other, EXPECTED).map(|token| HcaptchaResult {
            token: token.into(),
            key: None,
            host: None,
        }),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the value is within u32, or refused
fn timeout(argument: &Argument, problems: &mut Problems) -> Option<u32> {
    match argument {
        Argument::Absent => None,
        Argument::Number(ms) if *ms >= 1.0 && *ms <= f64::from(i32::MAX) => Some(*ms as u32),
        Argument::Number(ms) => {
            let got = if *ms >= 1.0 { "more" } else { "less, or no number" };
            problems.add_wrong("timeout", "from 1 to 2147483647 milliseconds", got);
            None
        }
        other => {
            problems.add_wrong("timeout", "a number of milliseconds", other.kind());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::base64url;

    fn text(value: &str) -> Argument {
        Argument::Text(value.to_owned())
    }

    fn object<const N: usize>(members: [(&'static str, Argument); N]) -> Argument {
        Argument::Object(members.into_iter().collect())
    }

    fn all_checks() -> CheckKeys {
        CheckKeys { fingerprint: Some("f".into()), hcaptcha: Some("h".into()), recaptcha: Some("r".into()) }
    }

    fn parse(arguments: &TokenArguments) -> Result<TokenRequest, Error> {
        TokenRequest::parse(arguments, &all_checks())
    }

    fn for_api() -> TokenArguments {
        TokenArguments { api: text("api.example.com"), ..TokenArguments::default() }
    }

    #[test]
    fn both_shapes_of_a_fingerprint_result_are_understood() {
        let expected = Some(FingerprintResult { visitor_id: "v".into(), request_id: "q".into() });
        for result in [
            object([("fingerprintVisitorId", text("v")), ("fingerprintRequestId", text("q"))]),
            object([("visitorId", text("v")), ("requestId", text("q"))]),
            object([("fingerprintVisitorId", text("v")), ("visitorId", text("x")), ("requestId", text("q"))]),
        ] {
            let request = parse(&TokenArguments { fingerprint_id_result: result, ..for_api() }).expect("valid");
            assert_eq!(request.results.fingerprint, expected);
        }
    }

    #[test]
    fn both_shapes_of_an_hcaptcha_token_are_understood() {
        let request = parse(&TokenArguments { hcaptcha_token: text("t"), ..for_api() }).expect("valid");
        assert_eq!(request.results.hcaptcha, Some(HcaptchaResult { token: "t".into(), key: None, host: None }));
        let whole = object([("response", text("t")), ("key", text("k")), ("host", text("example.com"))]);
        let request = parse(&TokenArguments { hcaptcha_token: whole, ..for_api() }).expect("valid");
        assert_eq!(
            request.results.hcaptcha,
            Some(HcaptchaResult { token: "t".into(), key: Some("k".into()), host: Some("example.com".into()) })
        );
    }

    #[test]
    fn a_payload_is_hashed_whether_text_or_bytes() {
        // Vector of Approov's documentation of token binding, where `pay` is the padded base64 of the same hash.
        let expected = "71tnS3rSq2lanEWrKz4MoexiOMtv7w0fspfM8BAQKNU";
        for payload in
            [text("Bearer myauth_tokenmy-device-id"), Argument::Bytes(b"Bearer myauth_tokenmy-device-id".to_vec())]
        {
            let request = parse(&TokenArguments { payload, ..for_api() }).expect("valid");
            assert_eq!(request.binding.map(|hash| base64url(&hash)).as_deref(), Some(expected));
        }
    }

    #[test]
    fn every_unusable_argument_is_named_in_one_message() {
        let error = parse(&TokenArguments {
            api: text(""),
            payload: Argument::Number(1.0),
            fingerprint_id_result: object([("visitorId", text("v"))]),
            hcaptcha_token: object([("response", text("")), ("key", Argument::Other("a boolean"))]),
            recaptcha_token: text(""),
            timeout: Argument::Number(f64::NAN),
            unusable_signal: Argument::Other("a boolean"),
        })
        .expect_err("an error");
        for part in [
            "\"api\"",
            "\"payload\"",
            "\"fingerprintIDResult.requestId\" is missing",
            "\"hcaptchaToken.response\"",
            "\"hcaptchaToken.key\"",
            "\"recaptchaToken\"",
            "\"timeout\"",
            "\"signal\" must be an AbortSignal, got a boolean",
        ] {
            assert!(error.message().contains(part), "{part}: {}", error.message());
        }
    }

    #[test]
    fn an_api_is_a_bare_domain() {
        for api in ["https://api.example.com", "api.example.com/v1", "a b", "user@api.example.com"] {
            let error = parse(&TokenArguments { api: text(api), ..TokenArguments::default() }).expect_err("an error");
            assert!(error.message().contains("\"api\"") && error.message().contains(api));
        }
        assert!(parse(&TokenArguments::default()).expect_err("an error").message().contains("\"api\" is missing"));
    }

    #[test]
    fn the_case_of_an_api_makes_no_difference() {
        let api = |given| parse(&TokenArguments { api: text(given), ..TokenArguments::default() }).expect("valid").api;
        assert_eq!(api("API.Example.com:8443"), "api.example.com:8443");
        assert_eq!(api("api.example.com:8443"), "api.example.com:8443");
    }

    #[test]
    fn a_result_needs_its_site_key() {
        let only_hcaptcha = CheckKeys { hcaptcha: Some("h".into()), ..CheckKeys::default() };
        let arguments = TokenArguments { recaptcha_token: text("t"), ..for_api() };
        let error = TokenRequest::parse(&arguments, &only_hcaptcha).expect_err("an error");
        assert_eq!(error.message(), "\"recaptchaToken\" needs the option \"recaptchaSiteKey\" of initializeSession");
    }

    #[test]
    fn timeouts_are_bounded() {
        for (given, expected) in [(1.0, Some(1)), (2_500.5, Some(2_500)), (0.0, None), (-1.0, None), (1e12, None)] {
            let parsed = parse(&TokenArguments { timeout: Argument::Number(given), ..for_api() });
            assert_eq!(parsed.ok().map(|request| request.timeout), expected, "{given}");
        }
        assert_eq!(parse(&for_api()).expect("valid").timeout, DEFAULT_TIMEOUT);
    }

    #[test]
    fn secrets_of_a_request_are_not_printed() {
        let request =
            parse(&TokenArguments { recaptcha_token: text("private"), hcaptcha_token: text("private"), ..for_api() });
        assert!(!format!("{request:?}").contains("private"));
    }

    #[test]
    fn only_changed_results_are_newer() {
        let known = Results { recaptcha: Some("r1".into()), ..Results::default() };
        let given = Results {
            recaptcha: Some("r1".into()),
            hcaptcha: Some(HcaptchaResult { token: "h".into(), key: None, host: None }),
            ..Results::default()
        };
        let newer = given.newer_than(&known);
        assert!(newer.recaptcha.is_none() && newer.hcaptcha.is_some());
        let mut updated = known.clone();
        updated.update(&newer);
        assert_eq!(updated, given);
    }
}
