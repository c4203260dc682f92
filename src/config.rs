//! The options of `initializeSession`, parsed.

use crate::argument::{Argument, Problems};
use crate::checks::{CheckKeys, PROVIDERS, PerProvider, key_options};
use crate::error::Error;
use crate::near_miss::Options;
use crate::wire::ATTEST_PATH;

/// The options of `initializeSession` by name.
pub const SESSION_OPTIONS: Options = Options {
    own: &["approovHost", "approovSiteKey", "keyStorage", "persistence"],
    of_check: |provider| provider.key.option,
};

/// So many hosts a session may have.
const MAX_HOSTS: usize = 4;

/// The options of `initializeSession` as given.
#[derive(Clone, Debug, Default)]
pub struct SessionArguments {
    /// `approovHost`
    pub approov_host: Argument,
    /// `approovSiteKey`
    pub approov_site_key: Argument,
    /// The public keys of the check services, such as `recaptchaSiteKey`.
    pub check_keys: PerProvider,
    /// `keyStorage`
    pub key_storage: Argument,
    /// `persistence`
    pub persistence: Argument,
    /// The names of all options that were given, known or not; only used to suggest what a missing one may have been meant to be.
    pub given_names: Vec<String>,
}

/// A session's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The service's one URL at each of its hosts, in order of preference: `https://{host}/attest`.
    pub attest_urls: Vec<String>,
    /// The Approov site key of the account.
    pub site_key: String,
    /// The public keys of the check services.
    pub checks: CheckKeys,
    /// Where the session's private key is to live.
    pub key_storage: KeyStorage,
    /// Whether the session outlives the page.
    pub persistent: bool,
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

impl Config {
    /// Parses the options of `initializeSession`; with none of the required ones given, `previous` is used again.
    /// `href` is the WHATWG URL parser and serialiser: `None` for what it refuses.
    ///
    /// # Errors
    /// `invalid-argument`, naming every option that is missing or unusable.
    pub fn parse(
        arguments: &SessionArguments,
        previous: Option<&Config>,
        href: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, Error> {
        let mut problems = Problems::default();
        let key_storage = key_storage(&arguments.key_storage, &mut problems);
        let persistent = persistent(&arguments.persistence, key_storage, &mut problems);
        if !arguments.names_service() && !arguments.has_near_miss() {
            problems.into_result()?;
            let previous = previous.ok_or_else(|| {
                Error::invalid_argument(&[
                    "\"approovHost\", \"approovSiteKey\" and at least one of ",
                    &key_options(),
                    " are missing: the first call of initializeSession needs them",
                ])
            })?;
            let key_storage = key_storage.unwrap_or(previous.key_storage);
            let persistent = persistent.unwrap_or(previous.persistent);
            if persistent && key_storage == KeyStorage::Wasm {
                return Err(Error::invalid_argument(&[NOT_KEPT]));
            }
            return Ok(Config { key_storage, persistent, ..previous.clone() });
        }
        let attest_urls = attest_urls(&arguments.approov_host, &mut problems, href);
        let site_key = problems.required_text("approovSiteKey", &arguments.approov_site_key, "your Approov site key");
        let checks = CheckKeys::parse(&arguments.check_keys, &mut problems);
        if arguments.names_no_check() {
            problems.add(&["one of ", &key_options(), " is missing: at least one check service is needed"]);
        }
        // A misspelt option is only worth mentioning when something is wrong.
        problems.add_hint(&SESSION_OPTIONS.hints(&arguments.given_names));
        problems.into_result()?;
        // What is missing is among the problems.
        Ok(Config {
            attest_urls,
            site_key: site_key.unwrap_or_default(),
            checks,
            key_storage: key_storage.unwrap_or_default(),
            persistent: persistent.unwrap_or_default(),
        })
    }
}

impl Config {
    /// What tells the sessions of this configuration from those of others.
    #[must_use]
    pub fn account(&self) -> String {
        let mut account = self.attest_urls.join(" ");
        account.push('\n');
        account.push_str(&self.site_key);
        self.checks.for_each(&mut |name, key| {
            for part in ["\n", name, " ", key] {
                account.push_str(part);
            }
        });
        account
    }
}

impl SessionArguments {
    /// An option, and the place of its value.
    pub fn slot(&mut self, name: &str) -> Option<(&'static str, &mut Argument)> {
        Some(match name {
            "approovHost" => ("approovHost", &mut self.approov_host),
            "approovSiteKey" => ("approovSiteKey", &mut self.approov_site_key),
            "keyStorage" => ("keyStorage", &mut self.key_storage),
            "persistence" => ("persistence", &mut self.persistence),
            _ => {
                let mut places = PROVIDERS.iter().zip(&mut self.check_keys);
                let (provider, slot) = places.find(|(provider, _)| provider.key.option == name)?;
                (provider.key.option, slot)
            }
        })
    }

    /// These options and one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: Argument) -> Self {
        if let Some((_, slot)) = self.slot(name) {
            *slot = value;
        }
        self.given_names.push(name.to_owned());
        self
    }

    fn names_no_check(&self) -> bool {
        !self.check_keys.iter().any(Argument::is_given)
    }

    /// Whether these options are a configuration of their own, and not a call that uses the previous one again.
    #[must_use]
    pub fn names_service(&self) -> bool {
        !self.names_no_check() || self.approov_host.is_given() || self.approov_site_key.is_given()
    }

    fn has_near_miss(&self) -> bool {
        self.given_names.iter().any(|given| SESSION_OPTIONS.near_miss(given).is_some())
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

/// What is wrong with keeping such a key.
const NOT_KEPT: &str = "\"persistence\" cannot be 'browser' with keyStorage: 'wasm'";

/// Whether the session outlives the page. What is kept is a key of WebCrypto: one in WebAssembly memory would be readable.
fn persistent(argument: &Argument, key_storage: Option<KeyStorage>, problems: &mut Problems) -> Option<bool> {
    const EXPECTED: &str = "'memory' or 'browser'";
    match problems.optional_text("persistence", argument, EXPECTED)?.as_str() {
        "memory" => Some(false),
        "browser" => {
            if key_storage == Some(KeyStorage::Wasm) {
                problems.add(&[NOT_KEPT]);
            }
            Some(true)
        }
        other => {
            problems.add(&["\"persistence\" must be ", EXPECTED, ", got \"", other, "\""]);
            None
        }
    }
}

/// The URLs of one host, or of several.
fn attest_urls(argument: &Argument, problems: &mut Problems, href: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let hosts = match argument {
        Argument::Texts(hosts) => hosts.clone(),
        one => {
            let host = problems.required_text("approovHost", one, "a host name such as web-1.approovr.io");
            host.into_iter().collect()
        }
    };
    let is_list = matches!(argument, Argument::Texts(_));
    if is_list && !(1..=MAX_HOSTS).contains(&hosts.len()) {
        problems.add(&["\"approovHost\" must be one host name, or an array of up to four"]);
    }
    let mut urls = Vec::new();
    for host in &hosts {
        if let Some(url) = attest_url(host, problems, &href)
            && !urls.contains(&url)
        {
            urls.push(url);
        }
    }
    urls
}

fn attest_url(host: &str, problems: &mut Problems, href: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let (scheme, bare) = match host.strip_prefix("http://") {
        Some(bare) => ("http://", bare),
        None => ("https://", host),
    };
    let is_bare = !bare.is_empty()
        && !bare
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '@' | '%'));
    let href = if is_bare { href(&[scheme, bare].concat()) } else { None };
    // Of a bare host, the URL is scheme, host, port and a slash.
    let Some(origin) = href.as_deref().and_then(|href| href.strip_suffix('/')) else {
        problems.add(&[
            "\"approovHost\" must be a host name such as web-1.approovr.io, optionally with a port, got \"",
            host,
            "\"",
        ]);
        return None;
    };
    if let Some(authority) = origin.strip_prefix("http://")
        && !is_loopback(authority)
    {
        problems.add(&[
            "\"approovHost\" may use http:// for this machine only (localhost, 127.0.0.1, [::1]), got \"",
            host,
            "\"",
        ]);
        return None;
    }
    Some([origin, ATTEST_PATH].concat())
}

/// Whether a host, which may have a port, is this machine.
fn is_loopback(authority: &str) -> bool {
    let without_digits = authority.trim_end_matches(|c: char| c.is_ascii_digit());
    let hostname = without_digits.strip_suffix(':').unwrap_or(authority);
    hostname == "localhost"
        || hostname.ends_with(".localhost")
        || hostname == "[::1]"
        // The parser has written every form of an IPv4 address as four decimal numbers.
        || hostname.starts_with("127.") && hostname.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn href(text: &str) -> Option<String> {
        url::Url::parse(text).ok().map(String::from)
    }

    fn text(value: &str) -> Argument {
        Argument::Text(value.to_owned())
    }

    fn arguments(host: &str) -> SessionArguments {
        service(host).with("hcaptchaSiteKey", text("hcap"))
    }

    /// Without a check service.
    fn service(host: &str) -> SessionArguments {
        SessionArguments::default().with("approovHost", text(host)).with("approovSiteKey", text("site"))
    }

    fn parse(arguments: &SessionArguments) -> Result<Config, Error> {
        Config::parse(arguments, None, href)
    }

    fn message(arguments: &SessionArguments) -> String {
        parse(arguments).expect_err("an error").message().to_owned()
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
            ("http://[::1]", "http://[::1]/attest"),
            ("http://[0:0:0:0:0:0:0:1]:80", "http://[::1]/attest"),
            ("http://dev.localhost", "http://dev.localhost/attest"),
        ] {
            assert_eq!(parse(&arguments(host)).map(|config| config.attest_urls), Ok(vec![url.to_owned()]), "{host}");
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
            "http://[::2]",
            "http://127.0.0.1.example.com:1",
            "http://localhost/",
            "exam%70le.com",
            "example.com\\x",
        ] {
            let message = message(&arguments(host));
            assert!(message.contains("\"approovHost\"") && message.contains(host), "{host}: {message}");
        }
    }

    #[test]
    fn all_problems_come_in_one_message() {
        let wrong = SessionArguments {
            approov_site_key: Argument::Number(5.0),
            key_storage: text("disk"),
            ..SessionArguments::default()
        };
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
        let message = message(&arguments("example.com").with("recaptchaSiteKey", text("")));
        assert!(
            message.contains("\"recaptchaSiteKey\" must be your reCAPTCHA site key, got an empty string"),
            "{message}"
        );
    }

    #[test]
    fn every_option_has_its_place() {
        let mut arguments = SessionArguments::default();
        let mut is_misplaced = |name: &'static str| arguments.slot(name).is_none_or(|(known, _)| known != name);
        assert_eq!(SESSION_OPTIONS.find(&mut is_misplaced), None);
        assert!(arguments.slot("recaptchaToken").is_none());
    }

    #[test]
    fn each_check_service_is_enough() {
        for provider in &PROVIDERS {
            let config = parse(&service("example.com").with(provider.key.option, text("key"))).expect("valid");
            assert_eq!(config.checks, CheckKeys::of(&[(provider.key.option, "key")]));
            let message = message(&service("example.com"));
            assert!(
                message.contains(provider.key.option) && message.contains("at least one check service"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_misspelt_option_is_suggested_when_the_right_one_is_missing() {
        for (given, meant) in [
            ("recaptchaSitekey", "recaptchaSiteKey"),
            ("turnstileSitekey", "turnstileSiteKey"),
            ("friendlySiteKey", "friendlyCaptchaSiteKey"),
        ] {
            let message = message(&service("example.com").with(given, text("key")));
            assert!(message.contains(&format!("\"{given}\" is not an option: did you mean \"{meant}\"?")), "{message}");
        }
    }

    #[test]
    fn a_misspelt_option_alone_is_not_taken_for_a_call_without_options() {
        let previous = parse(&arguments("example.com")).expect("valid");
        let misspelt = SessionArguments { given_names: vec!["aproovHost".to_owned()], ..SessionArguments::default() };
        let error = Config::parse(&misspelt, Some(&previous), href).expect_err("an error");
        assert!(error.message().contains("did you mean \"approovHost\"?"), "{}", error.message());
    }

    #[test]
    fn unknown_options_are_ignored() {
        let mut with_unknown = arguments("example.com");
        with_unknown.given_names.push("somethingElse".to_owned());
        assert!(parse(&with_unknown).is_ok());
        let mut with_near_miss = arguments("example.com");
        with_near_miss.given_names.push("recaptchaSitekey".to_owned());
        assert!(parse(&with_near_miss).is_ok());
    }

    #[test]
    fn no_options_mean_the_previous_ones() {
        let previous = parse(&arguments("example.com")).expect("valid");
        assert_eq!(Config::parse(&SessionArguments::default(), Some(&previous), href), Ok(previous.clone()));
        let in_wasm = SessionArguments { key_storage: text("wasm"), ..SessionArguments::default() };
        let changed = Config::parse(&in_wasm, Some(&previous), href).expect("valid");
        assert_eq!(changed, Config { key_storage: KeyStorage::Wasm, ..previous });
        assert!(message(&SessionArguments::default()).contains("\"approovHost\""));
    }
}
