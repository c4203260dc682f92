//! The arguments of `fetchToken`, parsed.

use sha2::{Digest, Sha256};

use crate::argument::{Argument, Problems};
use crate::checks::{CheckKeys, PROVIDERS, PerProvider, Provider, Results};
use crate::error::Error;
use crate::near_miss::Options;

/// How long a call waits unless it says otherwise, in milliseconds.
pub const DEFAULT_TIMEOUT: u32 = 10_000;

/// The options of `fetchToken` by name.
pub const TOKEN_OPTIONS: Options =
    Options { own: &["payload", "timeout", "signal"], of_check: |provider| provider.result_option };

/// The arguments of `fetchToken` as given.
#[derive(Clone, Debug, Default)]
pub struct TokenArguments {
    /// `api`
    pub api: Argument,
    /// `payload`
    pub payload: Argument,
    /// The results of the check services, such as `recaptchaToken`; of objects, the members that their parts have.
    pub results: PerProvider,
    /// `timeout`
    pub timeout: Argument,
    /// What came as `signal` and is none; a signal itself stays at the browser edge.
    pub unusable_signal: Argument,
    /// The names of all options that were given, known or not; only used to suggest what a missing one may have been meant to be.
    pub given_names: Vec<String>,
}

/// What one call of `fetchToken` requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The domain of the API that the token is for, in lower case.
    pub api: String,
    /// The SHA-256 of the data that the token is to be bound to.
    pub binding: Option<Binding>,
    /// The check results that came with the call.
    pub results: Results,
    /// Whether the SDK is to pass its own check for the call.
    pub solves: bool,
    /// How long the caller waits, in milliseconds.
    pub timeout: u32,
    /// Which options the call may have been meant to have: for the message where one is missing.
    pub hints: String,
}

/// The SHA-256 of the data that a token is bound to.
pub type Binding = [u8; 32];

impl TokenArguments {
    /// The place of an option's value, and the check service whose result it is.
    pub fn slot(&mut self, name: &str) -> Option<(&mut Argument, Option<&'static Provider>)> {
        Some(match name {
            "payload" => (&mut self.payload, None),
            "timeout" => (&mut self.timeout, None),
            "signal" => (&mut self.unusable_signal, None),
            _ => {
                let mut places = PROVIDERS.iter().zip(&mut self.results);
                let (provider, slot) = places.find(|(provider, _)| provider.result_option == name)?;
                (slot, Some(provider))
            }
        })
    }

    /// These options and one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: Argument) -> Self {
        if let Some((slot, _)) = self.slot(name) {
            *slot = value;
        }
        self.given_names.push(name.to_owned());
        self
    }
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
        let results = Results::parse(&arguments.results, checks, &mut problems);
        let timeout = timeout(&arguments.timeout, &mut problems);
        if arguments.unusable_signal.is_given() {
            problems.add(&["\"signal\" must be an AbortSignal, got ", arguments.unusable_signal.kind()]);
        }
        let hints = TOKEN_OPTIONS.hints(&arguments.given_names);
        problems.add_hint(&hints);
        problems.into_result()?;
        let api = api.unwrap_or_default();
        let solves = Results::are_wished(&arguments.results);
        Ok(TokenRequest { api, binding, results, solves, timeout: timeout.unwrap_or(DEFAULT_TIMEOUT), hints })
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

    fn all_checks() -> CheckKeys {
        let keys = ["fingerprintPublicAPIKey", "hcaptchaSiteKey", "recaptchaSiteKey"];
        CheckKeys::of(&keys.map(|option| (option, "key")))
    }

    fn parse(arguments: &TokenArguments) -> Result<TokenRequest, Error> {
        TokenRequest::parse(arguments, &all_checks())
    }

    fn for_api() -> TokenArguments {
        TokenArguments { api: text("api.example.com"), ..TokenArguments::default() }
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
        let wrong = TokenArguments { api: text(""), ..TokenArguments::default() }
            .with("payload", Argument::Number(1.0))
            .with("fingerprintIDResult", Argument::Object(vec![("visitorId", text("v"))]))
            .with(
                "hcaptchaToken",
                Argument::Object(vec![("response", text("")), ("key", Argument::Other("a boolean"))]),
            )
            .with("recaptchaToken", text(""))
            .with("turnstileToken", text("t"))
            .with("timeout", Argument::Number(f64::NAN))
            .with("signal", Argument::Other("a boolean"))
            .with("cfTurnstileToken", text("t"))
            .with("frcCaptchaResponse", text("t"));
        let error = parse(&wrong).expect_err("an error");
        for part in [
            "\"api\"",
            "\"payload\"",
            "\"fingerprintIDResult\" must be",
            "\"turnstileToken\" needs the option \"turnstileSiteKey\"",
            "\"frcCaptchaResponse\" is not an option: did you mean \"friendlyCaptchaResponse\"?",
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
    fn every_option_has_its_place() {
        let mut arguments = TokenArguments::default();
        assert_eq!(TOKEN_OPTIONS.find(&mut |name| arguments.slot(name).is_none()), None);
        assert!(arguments.slot("recaptchaSiteKey").is_none());
    }

    #[test]
    fn a_misspelt_result_is_noted_and_changes_nothing_else() {
        let request = parse(&for_api().with("hCaptchaToken", text("t")).with("headers", text("x"))).expect("valid");
        assert_eq!(request.hints, "\"hCaptchaToken\" is not an option: did you mean \"hcaptchaToken\"?");
        assert!(request.results.is_empty());
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
        let request = parse(&for_api().with("recaptchaToken", text("private")).with("hcaptchaToken", text("private")));
        assert!(!format!("{request:?}").contains("private"));
    }
}
