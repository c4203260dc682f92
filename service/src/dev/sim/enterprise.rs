//! The simulated reCAPTCHA Enterprise: assessments in a project.

use std::sync::Arc;

use approov_verify::time::UnixTime;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::time::rfc3339;

use super::keys::{RECAPTCHA_ENTERPRISE_API_KEY, RECAPTCHA_ENTERPRISE_PROJECT};
use super::token::{Outcome, Token, Used};
use super::{header_text, json_response};

#[derive(Deserialize)]
pub(super) struct KeyQuery {
    key: Option<String>,
}

#[derive(Deserialize)]
struct Request {
    event: Option<Map<String, Value>>,
}

pub(super) async fn assess(
    State(used): State<Arc<Used>>,
    Path(project): Path<String>,
    Query(query): Query<KeyQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match query.key.as_deref().or_else(|| header_text(&headers, "x-goog-api-key")) {
        None => {
            let text = "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or \
                        other form of API consumer identity to call this API.";
            return error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", text, None);
        }
        Some(key) if key != RECAPTCHA_ENTERPRISE_API_KEY => {
            let text = "API key not valid. Please pass a valid API key.";
            return error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", text, Some("API_KEY_INVALID"));
        }
        Some(_) => {}
    }
    if project != RECAPTCHA_ENTERPRISE_PROJECT {
        return error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "The caller does not have permission", None);
    }
    let Ok(Request { event: Some(event) }) = serde_json::from_slice(&body) else {
        return error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "Invalid JSON payload received.", None);
    };
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let (response, site_key) = (text("token"), text("siteKey"));
    if site_key.is_empty() {
        return error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "Request contains an invalid argument.", None);
    }
    let assessed = match Token::parse(response) {
        Some(Token { outcome: Outcome::Error, .. }) => {
            let text = "The service is currently unavailable.";
            return error(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", text, None);
        }
        Some(token) => verify(token, response, site_key, &used),
        None if response.is_empty() => Err("MISSING"),
        None => Err("MALFORMED"),
    };
    if let Ok(token) = &assessed {
        token.wait().await;
    }
    json_response(StatusCode::OK, &assessment(&event, assessed.as_ref()))
}

/// A token that is valid, or why it is not.
fn verify(token: Token, response: &str, site_key: &str, used: &Used) -> Result<Token, &'static str> {
    if token.more.as_ref().is_some_and(|made_for| made_for != site_key) {
        return Err("KEY_MISMATCH");
    }
    if !used.first("recaptcha-enterprise", response) {
        return Err("DUPE");
    }
    match token.outcome {
        Outcome::Fail => Err("MALFORMED"),
        Outcome::Expired => Err("EXPIRED"),
        Outcome::Pass | Outcome::Low | Outcome::Bot | Outcome::Error | Outcome::Slow(_) => Ok(token),
    }
}

fn assessment(event: &Map<String, Value>, assessed: Result<&Token, &&str>) -> Value {
    let (score, reasons) = match assessed.map(|token| token.outcome) {
        Err(_) => (0.0, json!([])),
        Ok(Outcome::Low) => (0.3, json!(["LOW_CONFIDENCE_SCORE"])),
        Ok(Outcome::Bot) => (0.1, json!(["AUTOMATION"])),
        Ok(Outcome::Pass | Outcome::Fail | Outcome::Expired | Outcome::Error | Outcome::Slow(_)) => (0.9, json!([])),
    };
    let properties = match assessed {
        Ok(token) => json!({
            "valid": true,
            "invalidReason": "INVALID_REASON_UNSPECIFIED",
            "createTime": rfc3339(token.made()),
            "hostname": token.host,
            "androidPackageName": "",
            "iosBundleId": "",
            "action": token.action.as_deref().unwrap_or_default(),
        }),
        Err(reason) => json!({
            "valid": false,
            "invalidReason": reason,
            "createTime": rfc3339(UnixTime::from_millis(0)),
            "hostname": "",
            "androidPackageName": "",
            "iosBundleId": "",
            "action": "",
        }),
    };
    json!({
        "name": format!("projects/1234567890/assessments/{:016x}", UnixTime::now().as_millis()),
        "event": event,
        "riskAnalysis": {"score": score, "reasons": reasons, "extendedVerdictReasons": [], "challenge": "NOCAPTCHA"},
        "tokenProperties": properties,
    })
}

/// An error as Google's APIs have them.
fn error(status: StatusCode, name: &str, message: &str, reason: Option<&str>) -> Response {
    let details: Vec<Value> = reason
        .map(|reason| {
            json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "googleapis.com",
                "metadata": {"service": "recaptchaenterprise.googleapis.com"},
            })
        })
        .into_iter()
        .collect();
    let error = json!({"code": status.as_u16(), "message": message, "status": name, "details": details});
    json_response(status, &json!({ "error": error }))
}
