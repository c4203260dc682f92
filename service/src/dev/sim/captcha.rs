//! The simulated captcha services: `siteverify` of hCaptcha and of reCAPTCHA.

use std::sync::Arc;

use approov_verify::time::UnixTime;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::time::rfc3339;

use super::keys::{HCAPTCHA_SECRET, HCAPTCHA_SITE_KEY, RECAPTCHA_SECRET, without_outcome};
use super::token::{Outcome, Token, Used};
use super::{json_response, outage};

/// hCaptcha's public test keys, all of one secret, and the responses that it then always accepts, with these scores.
const HCAPTCHA_TESTS: [(&str, &str, f64); 3] = [
    (HCAPTCHA_SITE_KEY, "10000000-aaaa-bbbb-cccc-000000000001", 0.9),
    ("20000000-ffff-ffff-ffff-000000000002", "20000000-aaaa-bbbb-cccc-000000000002", 0.9),
    ("30000000-ffff-ffff-ffff-000000000003", "30000000-aaaa-bbbb-cccc-000000000003", 0.0),
];

/// A request to `siteverify`.
#[derive(Default)]
struct Form {
    secret: Option<String>,
    response: Option<String>,
    sitekey: Option<String>,
}

impl Form {
    fn read(body: &Bytes) -> Self {
        let mut form = Self::default();
        for (name, value) in url::form_urlencoded::parse(body) {
            match &*name {
                "secret" => form.secret = Some(value.into_owned()),
                "response" => form.response = Some(value.into_owned()),
                "sitekey" => form.sitekey = Some(value.into_owned()),
                _ => {}
            }
        }
        form
    }
}

/// What the captcha services differ in.
struct Captcha {
    name: &'static str,
    secret: &'static str,
    /// Whether a site key belongs to the secret, for services that take one.
    owns: Option<fn(&str) -> bool>,
    /// The error codes of tokens that were used before, and of old ones.
    used: &'static str,
    expired: &'static str,
    /// What is said of a token that passes with this score.
    passed: fn(&Token, f64) -> Value,
}

const HCAPTCHA: Captcha = Captcha {
    name: "hcaptcha",
    secret: HCAPTCHA_SECRET,
    owns: Some(|key| HCAPTCHA_TESTS.iter().any(|(known, ..)| *known == without_outcome(key))),
    used: "already-seen-response",
    expired: "expired-input-response",
    passed: |token, score| hcaptcha_passed(token.made(), &token.host, score),
};

const RECAPTCHA: Captcha = Captcha {
    name: "recaptcha",
    secret: RECAPTCHA_SECRET,
    owns: None,
    used: "timeout-or-duplicate",
    expired: "timeout-or-duplicate",
    passed: |token, score| {
        let mut body = json!({
            "success": true,
            "challenge_ts": rfc3339(token.made()),
            "hostname": token.host,
        });
        // v3 has an action and a score, v2 neither; a low score is requested by name.
        if let Some(body) = body.as_object_mut()
            && (token.action.is_some() || matches!(token.outcome, Outcome::Low | Outcome::Bot))
        {
            body.insert("score".to_owned(), score.into());
            body.insert("action".to_owned(), token.action.clone().unwrap_or_default().into());
        }
        body
    },
};

fn hcaptcha_passed(solved: UnixTime, host: &str, score: f64) -> Value {
    json!({
        "success": true,
        "challenge_ts": rfc3339(solved),
        "hostname": host,
        "credit": false,
        "score": 1.0 - score,
        "score_reason": if score > 0.0 { json!([]) } else { json!(["automation"]) },
    })
}

pub(super) async fn hcaptcha(State(used): State<Arc<Used>>, body: Bytes) -> Response {
    let form = Form::read(&body);
    let test = HCAPTCHA_TESTS.iter().find(|(_, response, _)| form.response.as_deref() == Some(response));
    match (HCAPTCHA.refusal(&form), test) {
        (Some(code), _) => refused(code),
        (None, Some((_, _, score))) => {
            json_response(StatusCode::OK, &hcaptcha_passed(UnixTime::now(), "dummy-key-pass", *score))
        }
        (None, None) => HCAPTCHA.verify(&form, &used).await,
    }
}

pub(super) async fn recaptcha(State(used): State<Arc<Used>>, body: Bytes) -> Response {
    let form = Form::read(&body);
    match RECAPTCHA.refusal(&form) {
        None => RECAPTCHA.verify(&form, &used).await,
        Some(code) => refused(code),
    }
}

impl Captcha {
    /// What is wrong with the request itself.
    fn refusal(&self, form: &Form) -> Option<&'static str> {
        match form.secret.as_deref() {
            None | Some("") => return Some("missing-input-secret"),
            Some(secret) if secret != self.secret => return Some("invalid-input-secret"),
            Some(_) => {}
        }
        if let (Some(owns), Some(key)) = (self.owns, &form.sitekey)
            && !owns(key)
        {
            return Some("sitekey-secret-mismatch");
        }
        form.response.as_ref().is_none_or(String::is_empty).then_some("missing-input-response")
    }

    async fn verify(&self, form: &Form, used: &Used) -> Response {
        let response = form.response.as_deref().unwrap_or_default();
        let Some(token) = Token::parse(response) else {
            return refused("invalid-input-response");
        };
        if !used.first(self.name, response) {
            return refused(self.used);
        }
        let pass = |score| json_response(StatusCode::OK, &(self.passed)(&token, score));
        match token.outcome {
            Outcome::Pass => pass(0.9),
            Outcome::Low => pass(0.1),
            Outcome::Bot => pass(0.0),
            Outcome::Fail => refused("invalid-input-response"),
            Outcome::Expired => refused(self.expired),
            Outcome::Error => outage(),
            Outcome::Slow(_) => {
                token.wait().await;
                pass(0.9)
            }
        }
    }
}

fn refused(code: &str) -> Response {
    json_response(StatusCode::OK, &json!({"success": false, "error-codes": [code]}))
}
