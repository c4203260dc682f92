//! The simulated Turnstile: `siteverify`, of forms and of JSON.

use std::sync::Arc;

use approov_verify::time::UnixTime;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::time::rfc3339;

use super::keys::{TURNSTILE_SECRET, TURNSTILE_TEST_SECRETS, TURNSTILE_TEST_TOKEN};
use super::token::{Outcome, Token, Used};
use super::{header_text, json_response};

/// The longest response that is one, bytes.
const MAX_RESPONSE_BYTES: usize = 2048;

/// A request to `siteverify`.
#[derive(Default, Deserialize)]
struct Request {
    secret: Option<String>,
    response: Option<String>,
    idempotency_key: Option<String>,
}

impl Request {
    fn read(headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        if header_text(headers, "content-type").is_some_and(|kind| kind.starts_with("application/json")) {
            return serde_json::from_slice(body).ok();
        }
        let mut form = Self::default();
        for (name, value) in url::form_urlencoded::parse(body) {
            match &*name {
                "secret" => form.secret = Some(value.into_owned()),
                "response" => form.response = Some(value.into_owned()),
                "idempotency_key" => form.idempotency_key = Some(value.into_owned()),
                _ => {}
            }
        }
        Some(form)
    }
}

pub(super) async fn siteverify(State(used): State<Arc<Used>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(request) = Request::read(&headers, &body) else {
        return json_response(StatusCode::BAD_REQUEST, &refused("bad-request"));
    };
    match verify(&request, &used).await {
        Some(verdict) => json_response(StatusCode::OK, &verdict),
        None => json_response(StatusCode::INTERNAL_SERVER_ERROR, &refused("internal-error")),
    }
}

/// The verdict; `None`: the service is down.
async fn verify(request: &Request, used: &Used) -> Option<Value> {
    let secret = request.secret.as_deref().unwrap_or_default();
    let response = request.response.as_deref().unwrap_or_default();
    let test = TURNSTILE_TEST_SECRETS.iter().position(|known| *known == secret);
    match (secret, test) {
        ("", _) => return Some(refused("missing-input-secret")),
        (TURNSTILE_SECRET, _) | (_, Some(_)) => {}
        _ => return Some(refused("invalid-input-secret")),
    }
    if response.is_empty() {
        return Some(refused("missing-input-response"));
    }
    let idempotency_key = request.idempotency_key.as_deref();
    if idempotency_key.is_some_and(|key| !is_uuid(key)) {
        return Some(refused("bad-request"));
    }
    // Secrets for tests refuse real results, and real ones that for tests.
    let token = match test {
        Some(index) if response == TURNSTILE_TEST_TOKEN => return Some(of_test_secret(index)),
        Some(_) => None,
        None => Token::parse(response).filter(|_| response.len() <= MAX_RESPONSE_BYTES),
    };
    let Some(token) = token else {
        return Some(refused("invalid-input-response"));
    };
    if !used.first_or_repeated("turnstile", response, idempotency_key) {
        return Some(refused("timeout-or-duplicate"));
    }
    match token.outcome {
        Outcome::Error => None,
        Outcome::Expired => Some(refused("timeout-or-duplicate")),
        // Turnstile has no scores: widgets give bots no result.
        Outcome::Fail | Outcome::Bot => Some(refused("invalid-input-response")),
        Outcome::Pass | Outcome::Low | Outcome::Slow(_) => {
            token.wait().await;
            Some(passed(&token))
        }
    }
}

fn passed(token: &Token) -> Value {
    json!({
        "success": true,
        "challenge_ts": rfc3339(token.made()),
        "hostname": token.host,
        "error-codes": [],
        "action": token.action.as_deref().unwrap_or_default(),
        "cdata": token.more.as_deref().unwrap_or_default(),
        "metadata": {"interactive": false},
    })
}

fn of_test_secret(index: usize) -> Value {
    let mut verdict = match index {
        0 => json!({
            "success": true,
            "challenge_ts": rfc3339(UnixTime::now()),
            "hostname": "example.com",
            "error-codes": [],
            "action": "",
            "cdata": "",
        }),
        1 => refused("invalid-input-response"),
        _ => refused("timeout-or-duplicate"),
    };
    if let Some(verdict) = verdict.as_object_mut() {
        verdict.insert("metadata".to_owned(), json!({"result_with_testing_key": true}));
    }
    verdict
}

fn refused(code: &str) -> Value {
    json!({"success": false, "error-codes": [code], "messages": []})
}

/// Whether this is the text of a UUID (RFC 9562), of any version.
fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}
