//! Stand-ins for the three check services, for development and tests: the scripts that pages load and
//! the endpoints that the service calls, over HTTP like the real ones. The token a script makes names
//! the outcome that the endpoint responds with:
//!
//! `sim-<outcome>-<unique>[.base64url(host name)[.base64url(action)]]`, outcome one of `pass`, `fail`,
//! `low`, `expired`, `error`, `slow`, `slow<ms>`.

mod captcha;
mod fingerprint;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The simulated hCaptcha site and its secret: hCaptcha's public test pair.
pub const HCAPTCHA_SITE_KEY: &str = "10000000-ffff-ffff-ffff-000000000001";
/// See [`HCAPTCHA_SITE_KEY`].
pub const HCAPTCHA_SECRET: &str = "0x0000000000000000000000000000000000000000";
/// The response that hCaptcha's test pair always accepts.
const HCAPTCHA_TEST_RESPONSE: &str = "10000000-aaaa-bbbb-cccc-000000000001";
/// The simulated reCAPTCHA site and its secret: Google's public test pair.
pub const RECAPTCHA_SITE_KEY: &str = "6LeIxAcTAAAAAJcZVRqyHh71UMIEGNQ_MXjiZKhI";
/// See [`RECAPTCHA_SITE_KEY`].
pub const RECAPTCHA_SECRET: &str = "6LeIxAcTAAAAAGG-vFI1TnRWxMZNFuojJ4WifJWe";
/// The simulated Fingerprint subscription.
pub const FINGERPRINT_PUBLIC_API_KEY: &str = "dev-fingerprint-public-api-key";
/// Its secret.
pub const FINGERPRINT_SECRET: &str = "dev-fingerprint-secret-api-key";

/// How long `slow` takes.
const SLOW: Duration = Duration::from_secs(3);
/// The longest `slow<ms>`.
const MAX_SLOW: Duration = Duration::from_secs(60);
/// Used tokens are forgotten all at once when there are this many: this is a simulator.
const MAX_USED_TOKENS: usize = 100_000;

#[derive(Default)]
struct Used(Mutex<HashSet<String>>);

impl Used {
    /// Whether this is the token's first use at this service.
    fn first(&self, service: &str, token: &str) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MAX_USED_TOKENS {
            used.clear();
        }
        used.insert(format!("{service}:{token}"))
    }
}

/// The routes below `/sim/`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let fingerprint = Router::new()
        .route("/sim/fingerprint/v3/{key}", get(fingerprint::agent))
        .route("/sim/fingerprint/visitors/{visitor}", get(fingerprint::visitors))
        .route("/sim/fingerprint/events/{request}", get(fingerprint::events))
        .with_state(Arc::default());
    Router::new()
        .route("/sim/hcaptcha/1/api.js", get(|| async { script(include_str!("hcaptcha.js").to_owned()) }))
        .route("/sim/recaptcha/api.js", get(|| async { script(include_str!("recaptcha.js").to_owned()) }))
        .route("/sim/hcaptcha/siteverify", post(captcha::hcaptcha))
        .route("/sim/recaptcha/siteverify", post(captcha::recaptcha))
        .with_state(Arc::new(Used::default()))
        .merge(fingerprint)
}

fn script(text: String) -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text,
    )
        .into_response()
}

/// What a simulated token says about itself.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    outcome: Outcome,
    unique: String,
    host: String,
    action: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Pass,
    Fail,
    Low,
    Expired,
    Error,
    Slow(Duration),
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (outcome, unique) = parts.next()?.strip_prefix("sim-")?.split_once('-')?;
        let outcome = match outcome {
            "pass" => Outcome::Pass,
            "fail" => Outcome::Fail,
            "low" => Outcome::Low,
            "expired" => Outcome::Expired,
            "error" => Outcome::Error,
            "slow" => Outcome::Slow(SLOW),
            other => Outcome::Slow(Duration::from_millis(other.strip_prefix("slow")?.parse().ok()?).min(MAX_SLOW)),
        };
        let mut text = || String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
        Some(Self {
            outcome,
            unique: unique.to_owned(),
            host: text().unwrap_or_else(|| "localhost".to_owned()),
            action: text(),
        })
    }
}

/// A response with a JSON body.
fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// The response of a check service that is down.
fn outage() -> Response {
    json_response(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "simulated outage"}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_how_it_ends() {
        let token = Token::parse("sim-pass-abc.bG9jYWxob3N0.bG9naW4").unwrap();
        assert_eq!((token.host.as_str(), token.action.as_deref()), ("localhost", Some("login")));
        assert_eq!(Token::parse("sim-slow-a").unwrap().outcome, Outcome::Slow(SLOW));
        assert_eq!(Token::parse("sim-slow250-a").unwrap().outcome, Outcome::Slow(Duration::from_millis(250)));
        assert_eq!(Token::parse("sim-slow999999999-a").unwrap().outcome, Outcome::Slow(MAX_SLOW));
        for bad in ["", "pass", "sim-pass", "sim-never-a", "sim-slowly-a"] {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }
}
