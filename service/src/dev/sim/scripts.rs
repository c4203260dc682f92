//! The simulated scripts, as they are served.

use approov_verify::time::UnixTime;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::keys;

/// What every script begins with.
const SHARED: &str = include_str!("scripts/shared.js");

/// A script of the simulators.
#[derive(Clone, Copy)]
pub(super) enum Script {
    /// For a `<script>` without a type, in a scope of its own.
    Classic(&'static str),
    /// For `import()`.
    Module(&'static str),
}

/// hCaptcha's `api.js`.
pub(super) const HCAPTCHA: Script = Script::Classic(include_str!("scripts/hcaptcha.js"));
/// reCAPTCHA's `api.js` and `enterprise.js`.
pub(super) const RECAPTCHA: Script = Script::Classic(include_str!("scripts/recaptcha.js"));
/// Turnstile's `api.js`.
pub(super) const TURNSTILE: Script = Script::Classic(include_str!("scripts/turnstile.js"));
/// Friendly Captcha's `site.js`.
pub(super) const FRIENDLY: Script = Script::Classic(include_str!("scripts/friendly.js"));
/// The agent v3 of Fingerprint.
pub(super) const FINGERPRINT_V3: Script = Script::Module(include_str!("scripts/fingerprint-v3.js"));
/// The agent v4 of Fingerprint.
pub(super) const FINGERPRINT_V4: Script = Script::Module(include_str!("scripts/fingerprint-v4.js"));

/// What a script's URL says.
#[derive(Default)]
struct Params {
    outcome: String,
    site_key: Option<String>,
}

impl Params {
    fn read(query: Option<&str>) -> Self {
        let mut params = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                // It becomes part of a script.
                "approov-sim" | "outcome" => params.outcome = value.chars().filter(is_of_a_name).collect(),
                "render" => params.site_key = Some(value.into_owned()),
                _ => {}
            }
        }
        params
    }
}

fn is_of_a_name(character: &char) -> bool {
    character.is_ascii_alphanumeric() || "-_.:".contains(*character)
}

impl Script {
    /// The script for a request with this query.
    pub(super) fn serve(self, query: Option<&str>) -> Response {
        self.serve_with(query, &[])
    }

    /// The same, with placeholders of its own replaced.
    pub(super) fn serve_with(self, query: Option<&str>, values: &[(&str, &str)]) -> Response {
        let params = Params::read(query);
        let key =
            params.site_key.as_deref().or_else(|| values.iter().find(|(name, _)| *name == KEY).map(|(_, key)| *key));
        let by_key = key.and_then(keys::outcome_of).unwrap_or_default();
        if [params.outcome.as_str(), by_key].contains(&"script-blocked") {
            let headers = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::CACHE_CONTROL, "no-store")];
            return (StatusCode::FORBIDDEN, headers, "blocked (simulated)\n").into_response();
        }
        let headers = [
            (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (headers, self.text(&params.outcome, values)).into_response()
    }

    fn text(self, outcome: &str, values: &[(&str, &str)]) -> String {
        let mut text = match self {
            Self::Classic(script) => format!(";(() => {{\n{SHARED}\n{script}\n}})()\n"),
            Self::Module(script) => format!("{SHARED}\n{script}"),
        };
        let served = UnixTime::now().as_millis().to_string();
        for (name, value) in [("SERVED_AT", served.as_str()), ("SCRIPT_OUTCOME", outcome)].iter().chain(values) {
            text = text.replace(name, value);
        }
        text
    }
}

/// The placeholder of a public API key, which is part of the script's path.
pub(super) const KEY: &str = "PUBLIC_KEY";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_in_the_url_becomes_part_of_the_script_and_nothing_else_does() {
        for query in ["approov-sim=low-score", "outcome=low-score", "render=explicit&approov-sim=low-score"] {
            let text = HCAPTCHA.text(&Params::read(Some(query)).outcome, &[]);
            assert!(text.contains("'low-score' ||"), "{query}");
        }
        let outcome = Params::read(Some("approov-sim=reject:challenge-closed%27%2Balert(1)%5C")).outcome;
        assert_eq!(outcome, "reject:challenge-closedalert1");
        assert!(HCAPTCHA.text("", &[]).contains("'' ||"));
    }

    #[test]
    fn a_script_can_be_blocked_by_its_url_and_by_the_site_key_in_it() {
        for query in ["approov-sim=script-blocked", "render=key-sim-script-blocked"] {
            assert_eq!(RECAPTCHA.serve(Some(query)).status(), StatusCode::FORBIDDEN, "{query}");
        }
        let blocked = FINGERPRINT_V4.serve_with(None, &[(KEY, "key-sim-script-blocked")]);
        assert_eq!(blocked.status(), StatusCode::FORBIDDEN);
        for query in [None, Some("render=explicit"), Some("render=key-sim-fail"), Some("approov-sim=fail")] {
            assert_eq!(RECAPTCHA.serve(query).status(), StatusCode::OK, "{query:?}");
        }
    }

    #[test]
    fn no_placeholder_is_left() {
        let own = [("VISITOR_ID", "v"), (KEY, "k")];
        for script in [HCAPTCHA, RECAPTCHA, TURNSTILE, FRIENDLY, FINGERPRINT_V3, FINGERPRINT_V4] {
            let text = script.text("", &own);
            for name in ["SERVED_AT", "SCRIPT_OUTCOME", "VISITOR_ID", KEY] {
                assert!(!text.contains(name), "{name}");
            }
        }
    }
}
