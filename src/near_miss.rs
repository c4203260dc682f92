//! Names that are nearly those of options, so that a misspelt option can be told from one that is meant for somebody else.

use crate::checks::PROVIDERS;

/// For each name that is no option: which one it was meant to be, if that was not given. Clauses for a message.
#[must_use]
pub fn hints(given: &[String], options: &[&'static str]) -> Vec<String> {
    let mut hints = Vec::new();
    for name in given {
        if let Some(meant) = near_miss(name, options)
            && !given.iter().any(|given| given == meant)
        {
            hints.push(["\"", name, "\" is not an option: did you mean \"", meant, "\"?"].concat());
        }
    }
    hints
}

/// The option that `given` was meant to be: what the name of a check service is in, if the end of the name says which of its options;
/// or else the same letters in another case, or up to two edits away, the nearest.
#[must_use]
pub fn near_miss(given: &str, options: &[&'static str]) -> Option<&'static str> {
    if options.contains(&given) {
        return None;
    }
    let folded = fold(given);
    let nearest = |limit| options.iter().find(|known| edits_within(folded.as_bytes(), fold(known).as_bytes(), limit));
    option_of_check(&folded).filter(|meant| options.contains(meant)).or_else(|| (0..=2).find_map(nearest).copied())
}

/// `friendlySiteKey`, `cf-turnstile-response`.
fn option_of_check(folded: &str) -> Option<&'static str> {
    let provider = PROVIDERS.iter().find(|provider| provider.words.iter().any(|word| folded.contains(word)))?;
    if folded.ends_with("key") {
        Some(provider.key.option)
    } else if ["token", "response", "result", "solution"].iter().any(|end| folded.ends_with(end)) {
        Some(provider.result_option)
    } else {
        None
    }
}

fn fold(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
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
    use super::*;
    use crate::config::SessionArguments;
    use crate::token_request::TokenArguments;

    fn session_option(given: &str) -> Option<&'static str> {
        near_miss(given, &SessionArguments::names())
    }

    fn token_option(given: &str) -> Option<&'static str> {
        near_miss(given, &TokenArguments::names())
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
        for name in SessionArguments::names() {
            assert_eq!(session_option(name), None);
        }
        for name in TokenArguments::names() {
            assert_eq!(token_option(name), None);
        }
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
        let hints = hints(&given, &SessionArguments::names());
        assert_eq!(hints, ["\"friendlySiteKey\" is not an option: did you mean \"friendlyCaptchaSiteKey\"?"]);
    }
}
