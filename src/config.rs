//! The options of `initializeSession`, parsed.

use crate::argument::{Argument, Problems};
use crate::error::Error;

/// The options of `initializeSession` as given.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `approovHost`
    pub approov_host: Argument,
    /// `approovSiteKey`
    pub approov_site_key: Argument,
    /// `fingerprintPublicAPIKey`
    pub fingerprint_public_api_key: Argument,
    /// `hcaptchaSiteKey`
    pub hcaptcha_site_key: Argument,
    /// `recaptchaSiteKey`
    pub recaptcha_site_key: Argument,
    /// `keyStorage`
    pub key_storage: Argument,
    /// The names of all options that were given, known or not; only used to suggest what a missing one may have been meant to be.
    pub given_names: Vec<String>,
}

/// A session's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The service's one URL: `https://{host}/attest`.
    pub attest_url: String,
    /// The Approov site key of the account.
    pub site_key: String,
    /// The site keys of the check services.
    pub checks: CheckKeys,
    /// Where the session's private key is to live.
    pub key_storage: KeyStorage,
}

/// The public keys by which the check services know the site; at least one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckKeys {
    /// The Fingerprint public API key.
    pub fingerprint: Option<String>,
    /// The hCaptcha site key.
    pub hcaptcha: Option<String>,
    /// The reCAPTCHA site key.
    pub recaptcha: Option<String>,
}

/// Where a session's private key lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyStorage {
    /// WebCrypto where the browser has it, else WebAssembly memory.
    #[default]
    Auto,
    /// A non-extractable WebCrypto key.
    WebCrypto,
    /// WebAssembly memory, wiped on drop.
    Wasm,
}

/// The parts of a URL that the configuration looks at, as the WHATWG URL parser gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlParts {
    /// The scheme, without the colon: `https`.
    pub scheme: String,
    /// Scheme, host and port, serialised: `https://api.example.com:8443`.
    pub origin: String,
    /// The host without the port: `api.example.com`, `[::1]`.
    pub hostname: String,
    /// The path, percent-encoded, from the first slash on.
    pub path: String,
}

impl Config {
    /// Parses the options of `initializeSession`; with none of the required ones given, `previous` is taken again.
    /// `parse_url` is the WHATWG URL parser: `None` for what it refuses.
    ///
    /// # Errors
    /// `invalid-argument`, naming every option that is missing or unusable.
    pub fn parse(
        options: &Options,
        previous: Option<&Config>,
        parse_url: impl Fn(&str) -> Option<UrlParts>,
    ) -> Result<Config, Error> {
        let mut problems = Problems::default();
        let key_storage = key_storage(&options.key_storage, &mut problems);
        if options.names_no_service() && !options.has_near_miss() {
            problems.into_result()?;
            let previous = previous.ok_or_else(|| {
                Error::invalid_argument(&[
                    "\"approovHost\", \"approovSiteKey\" and at least one of \"fingerprintPublicAPIKey\", \"hcaptchaSiteKey\" \
                     and \"recaptchaSiteKey\" are missing: the first call of initializeSession needs them",
                ])
            })?;
            return Ok(Config { key_storage: key_storage.unwrap_or(previous.key_storage), ..previous.clone() });
        }
        let attest_url = problems
            .required_text("approovHost", &options.approov_host, "a host name such as web-1.approovr.io")
            .and_then(|host| attest_url(&host, &mut problems, parse_url));
        let site_key = problems.required_text("approovSiteKey", &options.approov_site_key, "your Approov site key");
        let checks = CheckKeys {
            fingerprint: problems.optional_text(
                "fingerprintPublicAPIKey",
                &options.fingerprint_public_api_key,
                "your Fingerprint public API key",
            ),
            hcaptcha: problems.optional_text("hcaptchaSiteKey", &options.hcaptcha_site_key, "your hCaptcha site key"),
            recaptcha: problems.optional_text(
                "recaptchaSiteKey",
                &options.recaptcha_site_key,
                "your reCAPTCHA site key",
            ),
        };
        if options.names_no_check() {
            problems.add(&[
                "one of \"fingerprintPublicAPIKey\", \"hcaptchaSiteKey\" and \"recaptchaSiteKey\" is missing: at least one check service is needed",
            ]);
        }
        options.suggest_near_misses(&mut problems);
        match (attest_url, site_key) {
            (Some(attest_url), Some(site_key)) if options.is_complete() => {
                problems.into_result()?;
                Ok(Config { attest_url, site_key, checks, key_storage: key_storage.unwrap_or_default() })
            }
            _ => match problems.into_result() {
                Err(error) => Err(error),
                Ok(()) => Err(Error::invalid_argument(&["the options of initializeSession are incomplete"])),
            },
        }
    }
}

/// Near misses are looked for among these.
const KNOWN_NAMES: [&str; 6] =
    ["approovHost", "approovSiteKey", "fingerprintPublicAPIKey", "hcaptchaSiteKey", "recaptchaSiteKey", "keyStorage"];

impl Options {
    fn names_no_check(&self) -> bool {
        ![&self.fingerprint_public_api_key, &self.hcaptcha_site_key, &self.recaptcha_site_key]
            .iter()
            .any(|key| key.is_given())
    }

    fn names_no_service(&self) -> bool {
        self.names_no_check() && !self.approov_host.is_given() && !self.approov_site_key.is_given()
    }

    fn is_complete(&self) -> bool {
        !self.names_no_check() && self.approov_host.is_given() && self.approov_site_key.is_given()
    }

    fn has_near_miss(&self) -> bool {
        self.given_names.iter().any(|given| near_miss(given).is_some())
    }

    /// A misspelt option is only worth a word when the one it was meant for is missing.
    fn suggest_near_misses(&self, problems: &mut Problems) {
        for given in &self.given_names {
            if let Some(meant) = near_miss(given)
                && !self.given_names.iter().any(|name| name == meant)
            {
                problems.add_hint(&["\"", given, "\" is not an option: did you mean \"", meant, "\"?"]);
            }
        }
    }
}

/// The known option that `given` is a misspelling of: the same letters in another case, or up to two edits away; the nearest.
fn near_miss(given: &str) -> Option<&'static str> {
    if KNOWN_NAMES.contains(&given) {
        return None;
    }
    let folded = fold(given);
    (0..=2).find_map(|limit| KNOWN_NAMES.into_iter().find(|known| edits_within(&folded, &fold(known), limit)))
}

fn fold(name: &str) -> Vec<char> {
    name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether the Levenshtein distance of two short names is at most `limit`.
fn edits_within(left: &[char], right: &[char], limit: usize) -> bool {
    match (left.split_first(), right.split_first()) {
        (None, _) => right.len() <= limit,
        (_, None) => left.len() <= limit,
        (Some((a, left_rest)), Some((b, right_rest))) if a == b => edits_within(left_rest, right_rest, limit),
        (Some((_, left_rest)), Some((_, right_rest))) => {
            let Some(limit) = limit.checked_sub(1) else { return false };
            edits_within(left_rest, right_rest, limit)
                || edits_within(left_rest, right, limit)
                || edits_within(left, right_rest, limit)
        }
    }
}

fn key_storage(argument: &Argument, problems: &mut Problems) -> Option<KeyStorage> {
    const EXPECTED: &str = "'auto', 'webcrypto' or 'wasm'";
    match problems.optional_text("keyStorage", argument, EXPECTED)?.as_str() {
        "auto" => Some(KeyStorage::Auto),
        "webcrypto" => Some(KeyStorage::WebCrypto),
        "wasm" => Some(KeyStorage::Wasm),
        other => {
            problems.add(&["\"keyStorage\" must be ", EXPECTED, ", got \"", other, "\""]);
            None
        }
    }
}

fn attest_url(host: &str, problems: &mut Problems, parse_url: impl Fn(&str) -> Option<UrlParts>) -> Option<String> {
    let (scheme, bare) = match host.strip_prefix("http://") {
        Some(bare) => ("http", bare),
        None => ("https", host),
    };
    let is_bare = !bare.is_empty()
        && !bare
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '@' | '%'));
    let parts = if is_bare { parse_url(&[scheme, "://", bare].concat()) } else { None };
    let Some(parts) = parts else {
        problems.add(&[
            "\"approovHost\" must be a host name such as web-1.approovr.io, optionally with a port, got \"",
            host,
            "\"",
        ]);
        return None;
    };
    if scheme == "http" && !is_loopback(&parts.hostname) {
        problems.add(&[
            "\"approovHost\" may use http:// for this machine only (localhost, 127.0.0.1, [::1]), got \"",
            host,
            "\"",
        ]);
        return None;
    }
    Some(parts.origin + "/attest")
}

fn is_loopback(hostname: &str) -> bool {
    hostname == "localhost"
        || hostname.ends_with(".localhost")
        || hostname == "[::1]"
        // The parser has written every form of an IPv4 address as four decimal numbers.
        || hostname.starts_with("127.") && hostname.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_url(text: &str) -> Option<UrlParts> {
        let url = url::Url::parse(text).ok()?;
        Some(UrlParts {
            scheme: url.scheme().to_owned(),
            origin: url.origin().ascii_serialization(),
            hostname: url.host_str()?.to_owned(),
            path: url.path().to_owned(),
        })
    }

    fn text(value: &str) -> Argument {
        Argument::Text(value.to_owned())
    }

    fn options(host: &str) -> Options {
        Options {
            approov_host: text(host),
            approov_site_key: text("site"),
            hcaptcha_site_key: text("hcap"),
            given_names: ["approovHost", "approovSiteKey", "hcaptchaSiteKey"].map(String::from).to_vec(),
            ..Options::default()
        }
    }

    fn parse(options: &Options) -> Result<Config, Error> {
        Config::parse(options, None, parse_url)
    }

    fn message(options: &Options) -> String {
        parse(options).expect_err("an error").message().to_owned()
    }

    #[test]
    fn hosts_become_the_attest_url() {
        for (host, url) in [
            ("web-1.approovr.io", "https://web-1.approovr.io/attest"),
            ("WEB-1.Approovr.io", "https://web-1.approovr.io/attest"),
            ("example.com:8443", "https://example.com:8443/attest"),
            ("example.com:443", "https://example.com/attest"),
            ("bücher.example", "https://xn--bcher-kva.example/attest"),
            ("[::1]:8087", "https://[::1]:8087/attest"),
            ("http://localhost:8087", "http://localhost:8087/attest"),
            ("http://127.0.0.1:8087", "http://127.0.0.1:8087/attest"),
            ("http://127.9.9.9", "http://127.9.9.9/attest"),
            ("http://[::1]:1", "http://[::1]:1/attest"),
            ("http://dev.localhost", "http://dev.localhost/attest"),
        ] {
            assert_eq!(parse(&options(host)).map(|config| config.attest_url).as_deref(), Ok(url), "{host}");
        }
    }

    #[test]
    fn anything_but_a_bare_host_is_refused_by_name() {
        for host in [
            "https://web-1.approovr.io",
            "web-1.approovr.io/",
            "web-1.approovr.io/attest",
            "user@example.com",
            "example.com?x",
            "example.com#x",
            "exa mple.com",
            " example.com",
            "example.com:99999",
            "a:b:c",
            "ftp://example.com",
            "http://",
            "http://example.com",
            "http://localhost.example.com",
            "http://localhost/",
            "exam%70le.com",
            "example.com\\x",
        ] {
            let message = message(&options(host));
            assert!(message.contains("\"approovHost\"") && message.contains(host), "{host}: {message}");
        }
    }

    #[test]
    fn all_problems_come_in_one_message() {
        let wrong =
            Options { approov_site_key: Argument::Number(5.0), key_storage: text("disk"), ..Options::default() };
        let message = message(&wrong);
        for part in [
            "\"approovHost\" is missing",
            "\"approovSiteKey\" must be",
            "got a number",
            "\"keyStorage\" must be",
            "at least one check service",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn an_empty_site_key_is_named() {
        let message = message(&Options { recaptcha_site_key: text(""), ..options("example.com") });
        assert!(
            message.contains("\"recaptchaSiteKey\" must be your reCAPTCHA site key, got an empty string"),
            "{message}"
        );
    }

    #[test]
    fn a_misspelt_option_is_suggested_when_the_right_one_is_missing() {
        let misspelt = Options {
            approov_host: text("example.com"),
            approov_site_key: text("site"),
            given_names: ["approovHost", "approovSiteKey", "recaptchaSitekey"].map(String::from).to_vec(),
            ..Options::default()
        };
        let message = message(&misspelt);
        assert!(
            message.contains("\"recaptchaSitekey\" is not an option: did you mean \"recaptchaSiteKey\"?"),
            "{message}"
        );
    }

    #[test]
    fn a_misspelt_option_alone_is_not_taken_for_a_call_without_options() {
        let previous = parse(&options("example.com")).expect("valid");
        let misspelt = Options { given_names: vec!["aproovHost".to_owned()], ..Options::default() };
        let error = Config::parse(&misspelt, Some(&previous), parse_url).expect_err("an error");
        assert!(error.message().contains("did you mean \"approovHost\"?"), "{}", error.message());
    }

    #[test]
    fn unknown_options_are_ignored() {
        let mut with_unknown = options("example.com");
        with_unknown.given_names.push("somethingElse".to_owned());
        assert!(parse(&with_unknown).is_ok());
        let mut with_near_miss = options("example.com");
        with_near_miss.given_names.push("recaptchaSitekey".to_owned());
        assert!(parse(&with_near_miss).is_ok());
    }

    #[test]
    fn no_options_mean_the_previous_ones() {
        let previous = parse(&options("example.com")).expect("valid");
        assert_eq!(Config::parse(&Options::default(), Some(&previous), parse_url), Ok(previous.clone()));
        let in_wasm = Options { key_storage: text("wasm"), ..Options::default() };
        let changed = Config::parse(&in_wasm, Some(&previous), parse_url).expect("valid");
        assert_eq!(changed, Config { key_storage: KeyStorage::Wasm, ..previous });
        assert!(message(&Options::default()).contains("\"approovHost\""));
    }
}
