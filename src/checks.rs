//! The check services: what each is called among the options and on the wire, the site's keys, and the results that a page has.
//!
//! A check service is one entry of [`PROVIDERS`]. Options, messages, parameters and the decoding at the browser edge go by that table.

use crate::argument::{Argument, Problems, listed};
use crate::secret::Secret;

/// How many check services there are.
const COUNT: usize = 6;

/// The member of a Fingerprint result that may be an object, whose method `base64()` gives the text.
pub const SEALED_RESULT: &str = "sealed_result";

/// Every check service, in the order in which options, parameters and messages name them.
pub const PROVIDERS: [Provider; COUNT] = [
    Provider {
        key: Key {
            option: "fingerprintPublicAPIKey",
            parameter: "fingerprintjs-token",
            expected: "your Fingerprint public API key",
        },
        result_option: "fingerprintIDResult",
        expected: "what get() of the Fingerprint agent resolves to",
        is_captcha: false,
        // The documented names, those of version 3 of the agent, and those of version 4, which leaves the visitor ID out in its
        // zero-trust mode.
        parts: &[
            Part {
                parameter: "fingerprintjs-visitor-id",
                members: &["fingerprintVisitorId", "visitorId", "visitor_id"],
                need: Need::Unless("event_id"),
            },
            Part {
                parameter: "fingerprintjs-request-id",
                members: &["fingerprintRequestId", "requestId", "event_id"],
                need: Need::Always,
            },
            Part {
                parameter: "fingerprintjs-sealed-result",
                members: &["sealedResult", SEALED_RESULT],
                need: Need::Never,
            },
        ],
        words: &["fingerprint"],
        prefix: "fp:",
    },
    Provider {
        key: Key { option: "hcaptchaSiteKey", parameter: "hcaptcha-site-key", expected: "your hCaptcha site key" },
        result_option: "hcaptchaToken",
        expected: "the token of an hCaptcha challenge, or an object with it as \"response\"",
        is_captcha: true,
        parts: &[
            Part { parameter: "hcaptcha-token", members: &["response"], need: Need::Always },
            Part { parameter: "hcaptcha-key", members: &["key"], need: Need::Never },
            Part { parameter: "hcaptcha-host", members: &["host"], need: Need::Never },
        ],
        words: &["hcaptcha"],
        prefix: "hcap:",
    },
    Provider {
        key: Key { option: "recaptchaSiteKey", parameter: "recaptcha-site-key", expected: "your reCAPTCHA site key" },
        result_option: "recaptchaToken",
        expected: "the token of a reCAPTCHA challenge",
        is_captcha: true,
        parts: &[Part { parameter: "recaptcha-token", members: &[], need: Need::Always }],
        words: &["recaptcha"],
        prefix: "recap:",
    },
    Provider {
        key: Key { option: "turnstileSiteKey", parameter: "turnstile-site-key", expected: "your Turnstile site key" },
        result_option: "turnstileToken",
        expected: "the token of a Turnstile challenge",
        is_captcha: true,
        parts: &[Part { parameter: "turnstile-token", members: &[], need: Need::Always }],
        words: &["turnstile"],
        prefix: "turnstile:",
    },
    Provider {
        key: Key {
            option: "friendlyCaptchaSiteKey",
            parameter: "friendly-site-key",
            expected: "your Friendly Captcha site key",
        },
        result_option: "friendlyCaptchaResponse",
        expected: "the response of a Friendly Captcha widget",
        is_captcha: true,
        parts: &[Part { parameter: "friendly-response", members: &[], need: Need::Always }],
        words: &["friendly", "frccaptcha"],
        prefix: "friendly:",
    },
    Provider {
        key: Key { option: ALTCHA_KEY, parameter: "altcha-site-key", expected: "your ALTCHA site key" },
        result_option: "altchaPayload",
        expected: "the payload of an ALTCHA widget, or true",
        is_captcha: true,
        parts: &[Part { parameter: "altcha-payload", members: &[], need: Need::Always }],
        words: &["altcha"],
        prefix: "altcha:",
    },
];

/// The option with the key of the check that the SDK passes by itself.
const ALTCHA_KEY: &str = "altchaSiteKey";

/// A check service.
#[derive(Debug)]
pub struct Provider {
    /// The public key by which it knows the site.
    pub key: Key,
    /// The option of `fetchToken` with a result.
    pub result_option: &'static str,
    /// What that option must be, for messages.
    expected: &'static str,
    /// Whether a result is, or may be, the text that a captcha gives: the first of the parts.
    is_captcha: bool,
    /// What a result consists of.
    parts: &'static [Part],
    /// Words that are in other names which people give its options, in lower case: those of its own documentation.
    pub words: &'static [&'static str],
    /// What the names of its entries begin with, among the expiries and in a token; the public key follows.
    pub prefix: &'static str,
}

/// A public key by which a check service knows the site.
#[derive(Debug)]
pub struct Key {
    /// The option of `initializeSession`.
    pub option: &'static str,
    /// The parameter that it travels in.
    parameter: &'static str,
    /// What it is, for messages.
    expected: &'static str,
}

/// A part of a result.
#[derive(Debug)]
struct Part {
    /// The parameter that it travels in.
    parameter: &'static str,
    /// The members of an object that may have it; the first that does counts.
    members: &'static [&'static str],
    /// Whether a result needs it.
    need: Need,
}

/// Whether a result needs a part.
#[derive(Clone, Copy, Debug)]
enum Need {
    Always,
    /// Unless there is this member.
    Unless(&'static str),
    Never,
}

/// The public keys of a session; at least one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckKeys([Option<String>; COUNT]);

/// Results of checks that the page has passed, at most one per check service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results([Option<CheckResult>; COUNT]);

/// What one check gave, by parameter.
type CheckResult = Vec<(&'static str, Secret)>;

/// One argument per check service: its public key, or its result.
pub type PerProvider = [Argument; COUNT];

impl CheckKeys {
    /// Reads the options with the keys.
    pub fn parse(arguments: &PerProvider, problems: &mut Problems) -> CheckKeys {
        let mut keys = CheckKeys::default();
        for ((Provider { key, .. }, argument), slot) in PROVIDERS.iter().zip(arguments).zip(&mut keys.0) {
            *slot = problems.optional_text(key.option, argument, key.expected);
        }
        keys
    }

    /// Calls `visit` with the option of each key and the key.
    pub fn for_each(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (provider, key) in PROVIDERS.iter().zip(&self.0) {
            if let Some(key) = key {
                visit(provider.key.option, key);
            }
        }
    }

    /// The key of the check that the SDK passes by itself.
    #[must_use]
    pub fn altcha(&self) -> Option<&str> {
        let places = PROVIDERS.iter().zip(&self.0);
        places.filter(|(provider, _)| provider.is_built_in()).find_map(|(_, key)| key.as_deref())
    }

    /// Whether the SDK passes the only check by itself.
    #[must_use]
    pub fn are_built_in(&self) -> bool {
        PROVIDERS.iter().zip(&self.0).all(|(provider, key)| key.is_none() || provider.is_built_in())
    }

    /// The options of `fetchToken` with results that these keys are for, for messages.
    #[must_use]
    pub fn result_options(&self) -> String {
        let with_key = PROVIDERS.iter().zip(&self.0).filter(|(_, key)| key.is_some());
        listed(&mut with_key.map(|(provider, _)| provider.result_option))
    }
}

/// The options with keys, for messages.
#[must_use]
pub fn key_options() -> String {
    listed(&mut PROVIDERS.iter().map(|provider| provider.key.option))
}

impl Results {
    /// Reads the options with the results, for a session that has these keys.
    pub fn parse(arguments: &PerProvider, keys: &CheckKeys, problems: &mut Problems) -> Results {
        let mut results = Results::default();
        let places = PROVIDERS.iter().zip(arguments).zip(&keys.0).zip(&mut results.0);
        for (((provider, argument), key), slot) in places {
            let is_wish = provider.is_built_in() && *argument == Argument::True;
            *slot = if is_wish { None } else { provider.result(argument, problems) };
            if (slot.is_some() || is_wish) && key.is_none() {
                let option = provider.result_option;
                problems.add(&["\"", option, "\" needs the option \"", provider.key.option, "\" of initializeSession"]);
            }
        }
        results
    }

    /// Whether the options ask the SDK to pass its own check.
    #[must_use]
    pub fn are_wished(arguments: &PerProvider) -> bool {
        PROVIDERS
            .iter()
            .zip(arguments)
            .any(|(provider, argument)| provider.is_built_in() && *argument == Argument::True)
    }

    /// Adds the result of the SDK's own check.
    pub fn set_built_in(&mut self, payload: Option<&Secret>) {
        for (provider, slot) in PROVIDERS.iter().zip(&mut self.0) {
            if provider.is_built_in() {
                *slot =
                    payload.zip(provider.parts.first()).map(|(payload, part)| vec![(part.parameter, payload.clone())]);
            }
        }
    }

    /// Whether no check has a result.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// These results without those that `known` holds with the same value.
    #[must_use]
    pub fn newer_than(&self, known: &Results) -> Results {
        let mut newer = self.clone();
        for (result, known) in newer.0.iter_mut().zip(&known.0) {
            if result == known {
                *result = None;
            }
        }
        newer
    }

    /// Replaces the results for which `newer` has one.
    pub fn update(&mut self, newer: &Results) {
        for (result, newer) in self.0.iter_mut().zip(&newer.0) {
            if newer.is_some() {
                *result = newer.clone();
            }
        }
    }

    /// Calls `visit` with every parameter: for each result the site's key, then its parts.
    pub fn for_each_parameter(&self, keys: &CheckKeys, mut visit: impl FnMut(&str, &str)) {
        for ((provider, key), result) in PROVIDERS.iter().zip(&keys.0).zip(&self.0) {
            if let (Some(key), Some(parts)) = (key, result) {
                visit(provider.key.parameter, key);
                for (parameter, value) in parts {
                    visit(parameter, value.expose());
                }
            }
        }
    }
}

impl Provider {
    /// Whether the SDK passes the check by itself.
    fn is_built_in(&self) -> bool {
        self.key.option == ALTCHA_KEY
    }

    /// Whether a result may be an object.
    #[must_use]
    pub fn takes_objects(&self) -> bool {
        self.parts.iter().any(|part| !part.members.is_empty())
    }

    /// The member of this name that an object may have.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&'static str> {
        self.parts.iter().find_map(|part| part.members.iter().copied().find(|member| *member == name))
    }

    fn result(&self, argument: &Argument, problems: &mut Problems) -> Option<CheckResult> {
        match argument {
            Argument::Absent => None,
            Argument::Object(_) if self.takes_objects() => self.result_of(argument, problems),
            text if self.is_captcha => {
                let answer = self.text(self.result_option, text, self.expected, problems)?;
                self.parts.first().map(|part| vec![(part.parameter, answer)])
            }
            other => {
                problems.add_wrong(self.result_option, self.expected, other.kind());
                None
            }
        }
    }

    fn result_of(&self, object: &Argument, problems: &mut Problems) -> Option<CheckResult> {
        let mut result = Vec::new();
        let mut is_complete = true;
        for part in self.parts {
            let text = match part.members.iter().find(|name| object.member(name).is_given()) {
                Some(name) => {
                    let path = [self.result_option, ".", name].concat();
                    self.text(&path, object.member(name), "a non-empty string", problems)
                }
                None if part.need.is_met_without(object) => continue,
                None => {
                    let got = ["an object without ", &listed(&mut part.members.iter().copied())].concat();
                    problems.add_wrong(self.result_option, self.expected, &got);
                    None
                }
            };
            match text {
                Some(text) => result.push((part.parameter, text)),
                None => is_complete = false,
            }
        }
        is_complete.then_some(result)
    }

    fn text(&self, name: &str, argument: &Argument, expected: &str, problems: &mut Problems) -> Option<Secret> {
        match argument {
            Argument::Text(text) if self.is_captcha && is_unsolved(text) => {
                let got = if text.is_empty() { argument.kind() } else { "a widget's state" };
                problems.add_wrong(name, expected, &[got, ": the captcha is not solved"].concat());
                None
            }
            _ => problems.optional_text(name, argument, expected).map(Secret::from),
        }
    }
}

/// Whether a captcha's text says that it is not solved: it is empty, or the state of a Friendly Captcha widget, such as `.UNSTARTED`.
fn is_unsolved(text: &str) -> bool {
    text.is_empty() || text.starts_with('.')
}

impl Need {
    fn is_met_without(self, object: &Argument) -> bool {
        match self {
            Need::Always => false,
            Need::Unless(member) => object.member(member).is_given(),
            Need::Never => true,
        }
    }
}

#[cfg(test)]
impl CheckKeys {
    /// Keys by option.
    pub(crate) fn of(keys: &[(&str, &str)]) -> CheckKeys {
        CheckKeys(PROVIDERS.each_ref().map(|provider| text_of(keys, provider.key.option)))
    }
}

#[cfg(test)]
impl Results {
    /// Results that are a text, by option.
    pub(crate) fn of(results: &[(&str, &str)]) -> Results {
        let part = |provider: &Provider| provider.parts.iter().find(|part| matches!(part.need, Need::Always));
        Results(PROVIDERS.each_ref().map(|provider| {
            let text = text_of(results, provider.result_option)?;
            Some(vec![(part(provider)?.parameter, text.into())])
        }))
    }
}

#[cfg(test)]
fn text_of(texts: &[(&str, &str)], option: &str) -> Option<String> {
    texts.iter().find(|(name, _)| *name == option).map(|(_, text)| (*text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Argument {
        Argument::Text(value.to_owned())
    }

    fn object<const N: usize>(members: [(&'static str, Argument); N]) -> Argument {
        Argument::Object(members.into_iter().collect())
    }

    fn all_keys() -> CheckKeys {
        CheckKeys(PROVIDERS.each_ref().map(|provider| Some(provider.prefix.to_owned())))
    }

    /// The parameters of the only result that is given.
    fn parameters(option: &str, argument: &Argument) -> Result<Vec<(String, String)>, String> {
        let arguments = PROVIDERS
            .each_ref()
            .map(|provider| if provider.result_option == option { argument.clone() } else { Argument::Absent });
        let mut problems = Problems::default();
        let results = Results::parse(&arguments, &all_keys(), &mut problems);
        problems.into_result().map_err(|error| error.message().to_owned())?;
        let mut parameters = Vec::new();
        results.for_each_parameter(&all_keys(), |name, value| parameters.push((name.to_owned(), value.to_owned())));
        Ok(parameters)
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    fn refused(option: &str, argument: &Argument) -> String {
        parameters(option, argument).expect_err("a problem")
    }

    #[test]
    fn every_shape_of_a_fingerprint_result_is_understood() {
        let both = pairs([
            ("fingerprintjs-token", "fp:"),
            ("fingerprintjs-visitor-id", "v"),
            ("fingerprintjs-request-id", "q"),
        ]);
        for result in [
            object([("fingerprintVisitorId", text("v")), ("fingerprintRequestId", text("q"))]),
            object([("visitorId", text("v")), ("requestId", text("q"))]),
            object([("fingerprintVisitorId", text("v")), ("visitorId", text("x")), ("requestId", text("q"))]),
            object([("event_id", text("q")), ("visitor_id", text("v")), ("sealed_result", Argument::Absent)]),
            object([("event_id", text("q")), ("visitorId", text("v"))]),
        ] {
            assert_eq!(parameters("fingerprintIDResult", &result), Ok(both.clone()), "{result:?}");
        }
    }

    #[test]
    fn a_visitor_id_may_be_missing_beside_an_event_id_alone() {
        let result = object([("event_id", text("e")), ("visitor_id", Argument::Absent)]);
        let expected = pairs([("fingerprintjs-token", "fp:"), ("fingerprintjs-request-id", "e")]);
        assert_eq!(parameters("fingerprintIDResult", &result), Ok(expected));
        let message = refused("fingerprintIDResult", &object([("requestId", text("q"))]));
        assert!(
            message.contains("got an object without \"fingerprintVisitorId\", \"visitorId\" or \"visitor_id\""),
            "{message}"
        );
    }

    #[test]
    fn a_sealed_result_travels_beside_the_ids() {
        for (id, sealed) in [("event_id", "sealed_result"), ("requestId", "sealedResult")] {
            let result = object([(id, text("q")), ("visitorId", text("v")), (sealed, text("noXc7Q=="))]);
            let expected = pairs([
                ("fingerprintjs-token", "fp:"),
                ("fingerprintjs-visitor-id", "v"),
                ("fingerprintjs-request-id", "q"),
                ("fingerprintjs-sealed-result", "noXc7Q=="),
            ]);
            assert_eq!(parameters("fingerprintIDResult", &result), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_fingerprint_result_is_refused_by_name() {
        for (result, part) in [
            (
                text("v"),
                "\"fingerprintIDResult\" must be what get() of the Fingerprint agent resolves to, got a string",
            ),
            (text(""), "got an empty string"),
            (Argument::Other("an array"), "got an array"),
            (object([]), "without \"fingerprintRequestId\", \"requestId\" or \"event_id\""),
            (object([("visitor_id", text("v"))]), "without \"fingerprintRequestId\", \"requestId\" or \"event_id\""),
            (
                object([("event_id", text(""))]),
                "\"fingerprintIDResult.event_id\" must be a non-empty string, got an empty",
            ),
            (
                object([("event_id", text("e")), ("visitor_id", Argument::Number(5.0))]),
                "\"fingerprintIDResult.visitor_id\" must be a non-empty string, got a number",
            ),
            (
                object([("event_id", text("e")), ("sealed_result", Argument::Other("an object"))]),
                "\"fingerprintIDResult.sealed_result\" must be",
            ),
        ] {
            let message = refused("fingerprintIDResult", &result);
            assert!(message.contains(part) && !message.contains("captcha"), "{part}: {message}");
        }
    }

    #[test]
    fn both_shapes_of_an_hcaptcha_token_are_understood() {
        let bare = pairs([("hcaptcha-site-key", "hcap:"), ("hcaptcha-token", "t")]);
        assert_eq!(parameters("hcaptchaToken", &text("t")), Ok(bare.clone()));
        assert_eq!(parameters("hcaptchaToken", &object([("response", text("t"))])), Ok(bare.clone()));
        let whole = object([("response", text("t")), ("key", text("k")), ("host", text("example.com"))]);
        let more = pairs([("hcaptcha-key", "k"), ("hcaptcha-host", "example.com")]);
        assert_eq!(parameters("hcaptchaToken", &whole), Ok([bare, more].concat()));
        let message = refused("hcaptchaToken", &object([("key", text("k"))]));
        assert!(message.contains("got an object without \"response\""), "{message}");
    }

    #[test]
    fn the_token_of_a_captcha_is_text() {
        for (option, key_parameter, parameter) in [
            ("recaptchaToken", "recaptcha-site-key", "recaptcha-token"),
            ("turnstileToken", "turnstile-site-key", "turnstile-token"),
            ("friendlyCaptchaResponse", "friendly-site-key", "friendly-response"),
        ] {
            let sent = parameters(option, &text("t")).expect("a result");
            let names: Vec<_> = sent.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, [key_parameter, parameter]);
            for (wrong, kind) in [(object([]), "an object"), (Argument::Bytes(vec![1]), "a buffer")] {
                let message = refused(option, &wrong);
                assert!(message.starts_with(&format!("\"{option}\" must be the ")), "{message}");
                assert!(message.ends_with(&format!(", got {kind}")), "{message}");
            }
        }
    }

    #[test]
    fn a_captcha_that_is_not_solved_is_called_so() {
        for provider in PROVIDERS.iter().filter(|provider| provider.is_captcha) {
            let option = provider.result_option;
            for unsolved in ["", ".UNSTARTED"] {
                let message = refused(option, &text(unsolved));
                assert!(message.starts_with(&format!("\"{option}\" must be ")), "{message}");
                assert!(message.ends_with(": the captcha is not solved"), "{message}");
            }
        }
        let message = refused("hcaptchaToken", &object([("response", text(""))]));
        assert!(message.starts_with("\"hcaptchaToken.response\"") && message.ends_with("is not solved"), "{message}");
    }

    #[test]
    fn a_result_needs_its_site_key() {
        let arguments =
            PROVIDERS.each_ref().map(|provider| if provider.is_captcha { text("t") } else { Argument::Absent });
        let mut problems = Problems::default();
        Results::parse(&arguments, &CheckKeys::of(&[("recaptchaSiteKey", "k")]), &mut problems);
        let message = problems.into_result().expect_err("problems").message().to_owned();
        assert!(!message.contains("recaptcha"), "{message}");
        for (result, key) in [
            ("hcaptchaToken", "hcaptchaSiteKey"),
            ("turnstileToken", "turnstileSiteKey"),
            ("friendlyCaptchaResponse", "friendlyCaptchaSiteKey"),
        ] {
            let part = format!("\"{result}\" needs the option \"{key}\" of initializeSession");
            assert!(message.contains(&part), "{message}");
        }
    }

    #[test]
    fn only_changed_results_are_newer() {
        let known = Results::of(&[("recaptchaToken", "r1"), ("turnstileToken", "t1")]);
        let given = Results::of(&[("recaptchaToken", "r1"), ("turnstileToken", "t2"), ("hcaptchaToken", "h")]);
        let newer = given.newer_than(&known);
        assert_eq!(newer, Results::of(&[("turnstileToken", "t2"), ("hcaptchaToken", "h")]));
        let mut updated = known.clone();
        updated.update(&newer);
        assert_eq!(updated, given);
        assert!(given.newer_than(&given).is_empty() && !newer.is_empty());
    }

    #[test]
    fn names_in_the_table_are_unique() {
        let mut names: Vec<_> = PROVIDERS
            .iter()
            .flat_map(|provider| {
                let parts = provider.parts.iter().map(|part| part.parameter);
                parts.chain([provider.key.option, provider.key.parameter, provider.result_option, provider.prefix])
            })
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_types_and_the_readme_know_every_check_service() {
        for file in [include_str!("../pkg-template/approov.d.ts"), include_str!("../pkg-template/README.md")] {
            for provider in &PROVIDERS {
                for name in [provider.key.option, provider.result_option, provider.prefix] {
                    assert!(file.contains(name), "{name}");
                }
            }
        }
    }
}
