//! Stand-ins for the check services, for development and tests: the scripts that pages load and the endpoints that the
//! service calls, over HTTP like the real ones.
//!
//! | room | concept |
//! |---|---|
//! | `keys` | site keys and secrets |
//! | `token` | simulated results |
//! | `scripts` | what pages load |
//! | `captcha` | `siteverify` of hCaptcha and reCAPTCHA |
//! | `enterprise` | assessments of reCAPTCHA Enterprise |
//! | `turnstile` | `siteverify` of Turnstile |
//! | `friendly` | `siteverify` of Friendly Captcha |
//! | `fingerprint` | agents and Server API of Fingerprint |
//!
//! # Outcomes
//!
//! All services know the same. A page chooses one with `window.approovSim = { outcome: 'fail' }`, with `?approov-sim=fail` in its
//! own URL or in that of the script, or with a site key that ends with `-sim-fail`; the first of them that there is holds.
//!
//! | outcome | what happens |
//! |---|---|
//! | `pass` | the result is accepted |
//! | `fail` | the server refuses the result |
//! | `low-score` | accepted with a bad score; Turnstile and Friendly Captcha have no score for the service |
//! | `bot` | certainly a bot: the worst score; Turnstile gives the page no result, Friendly Captcha refuses it |
//! | `expired` | the server says that the result is too old |
//! | `error` | the server is down |
//! | `slow`, `slow500` | the server takes 3 seconds, or 500 milliseconds |
//! | `timeout` | no result: the script says that it took too long |
//! | `never` | no result: the script says nothing at all, and promises never settle |
//! | `reject`, `reject:CODE` | no result: the script fails, with a code that the real one has |
//! | `script-blocked` | the script does not load (in `window.approovSim`: loads, and does nothing) |
//!
//! With `window.approovSim = { interactive: true }` hCaptcha, Turnstile and Friendly Captcha ask the visitor to click, whatever the outcome
//! then is. `reject:unsupported` is a browser that Turnstile cannot run in.
//!
//! The result names the outcome that the server then gives (`low` for `low-score`), so that a test can write one:
//!
//! `sim-<outcome>-<unique>[.base64url(host name)[.base64url(action)[.base64url(more)]]]`

mod captcha;
mod enterprise;
mod fingerprint;
mod friendly;
mod keys;
mod scripts;
mod token;
mod turnstile;

use std::sync::Arc;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde_json::{Value, json};

pub use keys::{
    FINGERPRINT_PUBLIC_API_KEY, FINGERPRINT_SEALED_KEY, FINGERPRINT_SECRET, FRIENDLY_API_KEY, FRIENDLY_SITE_KEY,
    HCAPTCHA_SECRET, HCAPTCHA_SITE_KEY, OUTCOMES, RECAPTCHA_ENTERPRISE_API_KEY, RECAPTCHA_ENTERPRISE_PROJECT,
    RECAPTCHA_ENTERPRISE_SITE_KEY, RECAPTCHA_SECRET, RECAPTCHA_SITE_KEY, TURNSTILE_SECRET, TURNSTILE_SITE_KEY,
    TURNSTILE_TEST_SECRETS, TURNSTILE_TEST_TOKEN, with_outcome,
};

use scripts::Script;
use token::Used;

/// The routes below `/sim/`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let fingerprint = Router::new()
        .route("/sim/fingerprint/v3/{key}", get(fingerprint::agent_v3))
        .route("/sim/fingerprint/visitors/{visitor}", get(fingerprint::visitors))
        .route("/sim/fingerprint/events/{request}", get(fingerprint::events_v3))
        .route("/sim/fingerprint/v4/{key}", get(fingerprint::agent_v4).post(fingerprint::identify))
        .route("/sim/fingerprint/v4/events/{event}", get(fingerprint::events_v4))
        .with_state(Arc::default());
    Router::new()
        .route("/sim/hcaptcha/1/api.js", script(scripts::HCAPTCHA))
        .route("/sim/recaptcha/api.js", script(scripts::RECAPTCHA))
        .route("/sim/recaptcha/enterprise.js", script(scripts::RECAPTCHA))
        .route("/sim/turnstile/v0/api.js", script(scripts::TURNSTILE))
        .route("/sim/friendly/site.js", script(scripts::FRIENDLY))
        .route("/sim/hcaptcha/siteverify", post(captcha::hcaptcha))
        .route("/sim/recaptcha/siteverify", post(captcha::recaptcha))
        .route("/sim/recaptcha-enterprise/v1/projects/{project}/assessments", post(enterprise::assess))
        .route("/sim/turnstile/v0/siteverify", post(turnstile::siteverify))
        .route("/sim/friendly/api/v2/captcha/siteverify", post(friendly::siteverify))
        .with_state(Arc::new(Used::default()))
        .merge(fingerprint)
}

fn script<S: Clone + Send + Sync + 'static>(script: Script) -> MethodRouter<S> {
    get(move |RawQuery(query): RawQuery| async move { script.serve(query.as_deref()) })
}

/// A header as text, if there is one.
fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
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
mod tests;
