//! Names that are nearly those of options, so that a misspelt option can be told from one that is meant for somebody else.

use crate::checks::{PROVIDERS, Provider};

/// The options of a function: its own, and one per check service.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Those of no check service.
    pub own: &'static [&'static str],
    /// That of a check service.
    pub of_check: fn(&Provider) -> &'static str,
}

impl Options {
    /// The first option that `is_wanted` says yes to.
    pub fn find(&self, is_wanted: &mut dyn FnMut(&'static str) -> bool) -> Option<&'static str> {
        for provider in &PROVIDERS {
            let option = (self.of_check)(provider);
            if is_wanted(option) {
                return Some(option);
            }
        }
        self.own.iter().copied().find(|option| is_wanted(option))
    }

    /// For each name that is no option: which one it was meant to be, if that was not given. Clauses for a message.
    #[must_use]
    pub fn hints(&self, given: &[String]) -> String {
        let mut hints = String::new();
        for name in given {
            if let Some(meant) = self.near_miss(name)
                && !given.iter().any(|given| given == meant)
            {
                let separator = if hints.is_empty() { "" } else { "; " };
                for part in [separator, "\"", name, "\" is not an option: did you mean \"", meant, "\"?"] {
                    hints.push_str(part);
                }
            }
        }
        hints
    }

    /// The option that `given` was meant to be: what the name of a check service is in, if the end of the name says which of its
    /// options; or else the same letters in another case, or up to two edits away, the nearest.
    #[must_use]
    pub fn near_miss(&self, given: &str) -> Option<&'static str> {
        if self.find(&mut |option| option == given).is_some() {
            return None;
        }
        let folded = fold(given);
        if let Some(meant) = option_of_check(&folded)
            && self.find(&mut |option| option == meant).is_some()
        {
            return Some(meant);
        }
        (0..=2).find_map(|limit| self.find(&mut |option| edits_within(&folded, &fold(option), limit)))
    }
}

/// `friendlySiteKey`, `cf-turnstile-response`.
fn option_of_check(folded: &[u8]) -> Option<&'static str> {
    let provider = PROVIDERS.iter().find(|provider| provider.words.iter().any(|word| has(folded, word)))?;
    let is_end = |end: &&str| folded.ends_with(end.as_bytes());
    if is_end(&"key") {
        Some(provider.key.option)
    } else if ["token", "response", "result", "solution"].iter().any(is_end) {
        Some(provider.result_option)
    } else {
        None
    }
}

fn has(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|part| part == word.as_bytes())
}

/// The letters and digits of a name, in lower case. As bytes: looking for one text in another can panic, with a message that the shipped
/// WebAssembly cannot format.
fn fold(name: &str) -> Vec<u8> {
    let mut folded = name.to_ascii_lowercase().into_bytes();
    folded.retain(u8::is_ascii_alphanumeric);
    folded
}

/// Whether the Levenshtein distance of two short names is at most `limit`.
fn edits_within(left: &[u8], right: &[u8], limit: usize) -> bool {
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

#[cfg(test)]
mod tests {
    use crate::config::SESSION_OPTIONS;
    use crate::token_request::TOKEN_OPTIONS;

    fn session_option(given: &str) -> Option<&'static str> {
        SESSION_OPTIONS.near_miss(given)
    }

    fn token_option(given: &str) -> Option<&'static str> {
        TOKEN_OPTIONS.near_miss(given)
    }

    #[test]
    fn misspelt_options_are_recognised() {
        for (given, meant) in [
            ("approovhost", "approovHost"),
            ("aproovHost", "approovHost"),
            ("recaptchaSitekey", "recaptchaSiteKey"),
            ("hCaptchaSiteKey", "hcaptchaSiteKey"),
            ("turnstileSitekey", "turnstileSiteKey"),
            ("turnstileKey", "turnstileSiteKey"),
            ("cfTurnstileSiteKey", "turnstileSiteKey"),
            ("friendlySiteKey", "friendlyCaptchaSiteKey"),
            ("friendlycaptchaSitekey", "friendlyCaptchaSiteKey"),
            ("frcCaptchaSitekey", "friendlyCaptchaSiteKey"),
            ("fingerprintApiKey", "fingerprintPublicAPIKey"),
        ] {
            assert_eq!(session_option(given), Some(meant), "{given}");
        }
        for (given, meant) in [
            ("hCaptchaToken", "hcaptchaToken"),
            ("h-captcha-response", "hcaptchaToken"),
            ("gRecaptchaResponse", "recaptchaToken"),
            ("turnstiletoken", "turnstileToken"),
            ("cfTurnstileResponse", "turnstileToken"),
            ("cf-turnstile-response", "turnstileToken"),
            ("turnstileResponse", "turnstileToken"),
            ("friendlyCaptchaToken", "friendlyCaptchaResponse"),
            ("friendlyResponse", "friendlyCaptchaResponse"),
            ("frc-captcha-response", "friendlyCaptchaResponse"),
            ("friendlyCaptchaSolution", "friendlyCaptchaResponse"),
            ("fingerprintResult", "fingerprintIDResult"),
            ("timeOut", "timeout"),
        ] {
            assert_eq!(token_option(given), Some(meant), "{given}");
        }
    }

    #[test]
    fn options_and_names_meant_for_others_are_no_near_misses() {
        assert_eq!(SESSION_OPTIONS.find(&mut |name| session_option(name).is_some()), None);
        assert_eq!(TOKEN_OPTIONS.find(&mut |name| token_option(name).is_some()), None);
        for name in ["siteKey", "turnstileAction", "recaptchaVersion", "somethingElse", "turnstileToken", "wasm", ""] {
            assert_eq!(session_option(name), None, "{name}");
        }
        for name in ["token", "turnstileSiteKey", "hcaptchaTheme", "headers", "api"] {
            assert_eq!(token_option(name), None, "{name}");
        }
    }

    #[test]
    fn what_was_given_is_not_suggested() {
        let given = ["turnstileSitekey", "turnstileSiteKey", "friendlySiteKey"].map(String::from);
        let hints = SESSION_OPTIONS.hints(&given);
        assert_eq!(hints, "\"friendlySiteKey\" is not an option: did you mean \"friendlyCaptchaSiteKey\"?");
    }
}
