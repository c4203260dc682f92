//! The simulated Friendly Captcha (v2): its `siteverify`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::time::rfc3339;

use super::keys::{FRIENDLY_API_KEY, FRIENDLY_SITE_KEY, without_outcome};
use super::token::{Outcome, Token, Used};
use super::{header_text, json_response};

#[derive(Deserialize)]
struct Request {
    response: Option<String>,
    sitekey: Option<String>,
}

pub(super) async fn siteverify(State(used): State<Arc<Used>>, headers: HeaderMap, body: Bytes) -> Response {
    match header_text(&headers, "x-api-key") {
        None | Some("") => return refused(StatusCode::UNAUTHORIZED, "auth_required"),
        Some(key) if key != FRIENDLY_API_KEY => return refused(StatusCode::UNAUTHORIZED, "auth_invalid"),
        Some(_) => {}
    }
    let Ok(request) = serde_json::from_slice::<Request>(&body) else {
        return refused(StatusCode::BAD_REQUEST, "bad_request");
    };
    let Some(response) = request.response.filter(|response| !response.is_empty()) else {
        return refused(StatusCode::BAD_REQUEST, "response_missing");
    };
    if request.sitekey.is_some_and(|key| without_outcome(&key) != FRIENDLY_SITE_KEY) {
        return refused(StatusCode::BAD_REQUEST, "sitekey_invalid");
    }
    let Some(token) = Token::parse(&response) else {
        return refused(StatusCode::OK, "response_invalid");
    };
    if !used.first("friendly", &response) {
        return refused(StatusCode::OK, "response_duplicate");
    }
    match token.outcome {
        Outcome::Error => refused(StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error"),
        Outcome::Expired => refused(StatusCode::OK, "response_timeout"),
        Outcome::Fail | Outcome::Bot => refused(StatusCode::OK, "response_invalid"),
        Outcome::Pass | Outcome::Low | Outcome::Slow(_) => {
            token.wait().await;
            json_response(StatusCode::OK, &passed(&token))
        }
    }
}

fn passed(token: &Token) -> Value {
    // From 1, no risk, to 5. Plans without risk intelligence get null.
    let risk =
        (token.outcome == Outcome::Low).then(|| json!({"risk_scores": {"overall": 5, "network": 4, "browser": 5}}));
    json!({
        "success": true,
        "data": {
            "event_id": format!("ev_{}", token.unique),
            "challenge": {"timestamp": rfc3339(token.made()), "origin": token.host},
            "risk_intelligence": risk,
        },
    })
}

fn refused(status: StatusCode, code: &str) -> Response {
    let error = json!({"error_code": code, "detail": "simulated"});
    json_response(status, &json!({"success": false, "error": error}))
}
