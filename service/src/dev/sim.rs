//! Stand-ins for the three check services, for development and tests: the scripts that pages load and
//! the endpoints that the service asks, over HTTP like the real ones. The token a script makes names
//! the outcome that the endpoint answers with:
//!
//! `sim-<outcome>-<unique>[.base64url(host name)[.base64url(action)]]`, outcome one of `pass`, `fail`,
//! `low`, `expired`, `error`, `slow`, `slow<ms>`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use approov_verify::time::UnixTime;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::time::rfc3339;

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
const SLOWEST: Duration = Duration::from_secs(60);
/// Used tokens are forgotten all at once when there are this many: this is a simulator.
const MOST_USED: usize = 100_000;

#[derive(Default)]
struct Used(Mutex<HashSet<String>>);

impl Used {
    /// Whether this is the token's first use at this service.
    fn first(&self, service: &str, token: &str) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= MOST_USED {
            used.clear();
        }
        used.insert(format!("{service}:{token}"))
    }
}

/// The routes below `/sim/`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/sim/hcaptcha/1/api.js", get(|| async { script(include_str!("sim/hcaptcha.js").to_owned()) }))
        .route("/sim/recaptcha/api.js", get(|| async { script(include_str!("sim/recaptcha.js").to_owned()) }))
        .route("/sim/fingerprint/v3/{key}", get(fingerprint_agent))
        .route("/sim/hcaptcha/siteverify", post(hcaptcha))
        .route("/sim/recaptcha/siteverify", post(recaptcha))
        .route("/sim/fingerprint/visitors/{visitor}", get(visitors))
        .route("/sim/fingerprint/events/{request}", get(events))
        .with_state(Arc::new(Used::default()))
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

async fn fingerprint_agent(Path(key): Path<String>) -> Response {
    if key != FINGERPRINT_PUBLIC_API_KEY {
        return (StatusCode::FORBIDDEN, [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], "unknown public API key\n")
            .into_response();
    }
    script(include_str!("sim/fingerprint.js").replace("SERVED_AT", &UnixTime::now().as_millis().to_string()))
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
            other => Outcome::Slow(Duration::from_millis(other.strip_prefix("slow")?.parse().ok()?).min(SLOWEST)),
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

#[derive(Deserialize)]
struct SiteVerify {
    secret: Option<String>,
    response: Option<String>,
    sitekey: Option<String>,
}

fn refused(codes: &[&str]) -> Response {
    axum_json(StatusCode::OK, &json!({"success": false, "error-codes": codes}))
}

fn axum_json(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn form(body: &Bytes) -> SiteVerify {
    let mut form = SiteVerify { secret: None, response: None, sitekey: None };
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

async fn hcaptcha(State(used): State<Arc<Used>>, body: Bytes) -> Response {
    let form = form(&body);
    match form.secret.as_deref() {
        None | Some("") => return refused(&["missing-input-secret"]),
        Some(HCAPTCHA_SECRET) => {}
        Some(_) => return refused(&["invalid-input-secret"]),
    }
    if form.sitekey.as_deref().is_some_and(|key| key != HCAPTCHA_SITE_KEY) {
        return refused(&["sitekey-secret-mismatch"]);
    }
    let Some(response) = form.response.filter(|text| !text.is_empty()) else {
        return refused(&["missing-input-response"]);
    };
    let pass = |host: &str, score: f64| {
        axum_json(
            StatusCode::OK,
            &json!({
                "success": true,
                "challenge_ts": rfc3339(UnixTime::now()),
                "hostname": host,
                "credit": false,
                "score": score,
                "score_reason": [],
            }),
        )
    };
    if response == HCAPTCHA_TEST_RESPONSE {
        return pass("dummy-key-pass", 0.9);
    }
    let Some(token) = Token::parse(&response) else {
        return refused(&["invalid-input-response"]);
    };
    if !used.first("hcaptcha", &response) {
        return refused(&["already-seen-response"]);
    }
    match token.outcome {
        Outcome::Pass => pass(&token.host, 0.9),
        Outcome::Low => pass(&token.host, 0.1),
        Outcome::Fail => refused(&["invalid-input-response"]),
        Outcome::Expired => refused(&["expired-input-response"]),
        Outcome::Error => axum_json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "simulated outage"})),
        Outcome::Slow(time) => {
            tokio::time::sleep(time).await;
            pass(&token.host, 0.9)
        }
    }
}

async fn recaptcha(State(used): State<Arc<Used>>, body: Bytes) -> Response {
    let form = form(&body);
    match form.secret.as_deref() {
        None | Some("") => return refused(&["missing-input-secret"]),
        Some(RECAPTCHA_SECRET) => {}
        Some(_) => return refused(&["invalid-input-secret"]),
    }
    let Some(response) = form.response.filter(|text| !text.is_empty()) else {
        return refused(&["missing-input-response"]);
    };
    let Some(token) = Token::parse(&response) else {
        return refused(&["invalid-input-response"]);
    };
    if !used.first("recaptcha", &response) {
        return refused(&["timeout-or-duplicate"]);
    }
    let pass = |score: f64| {
        let mut body = json!({
            "success": true,
            "challenge_ts": rfc3339(UnixTime::now()),
            "hostname": token.host,
        });
        // v3 has an action and a score, v2 neither; a low score is asked for by name.
        if let Some(body) = body.as_object_mut()
            && (token.action.is_some() || token.outcome == Outcome::Low)
        {
            body.insert("score".to_owned(), score.into());
            body.insert("action".to_owned(), token.action.clone().unwrap_or_default().into());
        }
        axum_json(StatusCode::OK, &body)
    };
    match token.outcome {
        Outcome::Pass => pass(0.9),
        Outcome::Low => pass(0.1),
        Outcome::Fail => refused(&["invalid-input-response"]),
        Outcome::Expired => refused(&["timeout-or-duplicate"]),
        Outcome::Error => axum_json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "simulated outage"})),
        Outcome::Slow(time) => {
            tokio::time::sleep(time).await;
            pass(0.9)
        }
    }
}

#[derive(Deserialize)]
struct VisitorQuery {
    request_id: Option<String>,
}

fn wrong_key(headers: &HeaderMap) -> Option<Response> {
    let key = headers.get("auth-api-key").and_then(|key| key.to_str().ok());
    (key != Some(FINGERPRINT_SECRET))
        .then(|| axum_json(StatusCode::FORBIDDEN, &json!({"error": "secret key is wrong"})))
}

async fn visitors(headers: HeaderMap, Path(visitor): Path<String>, Query(query): Query<VisitorQuery>) -> Response {
    if let Some(answer) = wrong_key(&headers) {
        return answer;
    }
    let request = query.request_id.unwrap_or_default();
    let token = Token::parse(&request);
    let visits = match &token {
        None | Some(Token { outcome: Outcome::Fail, .. }) => json!([]),
        Some(Token { outcome: Outcome::Error, .. }) => {
            return axum_json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "simulated outage"}));
        }
        Some(token) => {
            if let Outcome::Slow(time) = token.outcome {
                tokio::time::sleep(time).await;
            }
            json!([{
                "requestId": request,
                "browserDetails": {"browserName": "Simulated", "botProbability": if token.outcome == Outcome::Low { 0.9 } else { 0.0 }},
                "incognito": false,
                "ip": "127.0.0.1",
                "timestamp": made_at(token),
                "tag": {},
            }])
        }
    };
    axum_json(StatusCode::OK, &json!({"visitorId": visitor, "visits": visits}))
}

/// When an identification was made: the agent puts the time before an `x`; others are just made.
fn made_at(token: &Token) -> i64 {
    let now = UnixTime::now().as_millis();
    let made = token.unique.split_once('x').and_then(|(time, _)| time.parse().ok()).unwrap_or(now);
    match token.outcome {
        Outcome::Expired => made.saturating_sub(3_600_000),
        Outcome::Pass | Outcome::Fail | Outcome::Low | Outcome::Error | Outcome::Slow(_) => made,
    }
}

async fn events(headers: HeaderMap, Path(request): Path<String>) -> Response {
    if let Some(answer) = wrong_key(&headers) {
        return answer;
    }
    let Some(token) = Token::parse(&request) else {
        return axum_json(StatusCode::NOT_FOUND, &json!({"error": "request not found"}));
    };
    let bot = if token.outcome == Outcome::Low { "bad" } else { "notDetected" };
    axum_json(
        StatusCode::OK,
        &json!({"products": {
            "identification": {"data": {"requestId": request, "timestamp": made_at(&token)}},
            "botd": {"data": {"bot": {"result": bot}}},
        }}),
    )
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
        assert_eq!(Token::parse("sim-slow999999999-a").unwrap().outcome, Outcome::Slow(SLOWEST));
        for bad in ["", "pass", "sim-pass", "sim-never-a", "sim-slowly-a"] {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }
}
