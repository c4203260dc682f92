//! Server API v4: what the agent asks for, what the service looks up, and results sealed for it.

use std::io::Write as _;
use std::sync::Arc;

use approov_verify::time::UnixTime;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::crypto::random;
use crate::dev::sim::keys::{FINGERPRINT_SEALED_KEY, FINGERPRINT_SECRET};
use crate::dev::sim::token::{Outcome, Token};
use crate::dev::sim::{header_text, json_response};

use super::{Visit, Visits, identified_at, is_bot, is_known};

/// What sealed results begin with.
const SEALED_HEADER: [u8; 4] = [0x9e, 0x85, 0xdc, 0xed];

/// The visitor of IDs that were made by hand.
const UNNAMED_VISITOR: &str = "visitor";

/// What the agent sends.
#[derive(Deserialize)]
struct Identify {
    outcome: String,
    visitor: String,
    url: String,
    #[serde(default)]
    tags: Value,
    #[serde(default)]
    linked_id: Value,
}

/// Gives the agent an event.
pub(in crate::dev::sim) async fn identify(
    State(visits): State<Arc<Visits>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut response = made_event(&visits, &key, &headers, &body);
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn made_event(visits: &Visits, key: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    if !is_known(key) {
        return error(StatusCode::FORBIDDEN, "public_api_key_not_found", "public API key is not found");
    }
    let Ok(identify) = serde_json::from_slice::<Identify>(body) else {
        return error(StatusCode::BAD_REQUEST, "request_cannot_be_parsed", "request cannot be parsed");
    };
    let Ok(random) = random::<6>() else {
        return failed();
    };
    let (now, random) = (UnixTime::now().as_millis(), URL_SAFE_NO_PAD.encode(random).replace(['-', '_'], "0"));
    let id = format!("sim-{}-{now}x{random}_{}", identify.outcome, identify.visitor);
    let visit = Visit {
        page: Some(identify.url),
        tags: identify.tags,
        linked_id: identify.linked_id,
        user_agent: header_text(headers, "user-agent").map(str::to_owned),
    };
    // An outcome that there is none of: as of all simulated results, the server refuses it.
    let event = Token::parse(&id).map(|token| (event(&id, &token, &visit), token.outcome));
    visits.note(&id, visit);
    let suspect_score = event.as_ref().and_then(|(event, _)| event.get("suspect_score").cloned());
    // What only shows when the server is asked is not sealed.
    let sealed = event.and_then(|(event, outcome)| match outcome {
        Outcome::Pass | Outcome::Low | Outcome::Bot | Outcome::Expired => seal(&event),
        Outcome::Fail | Outcome::Error | Outcome::Slow(_) => None,
    });
    let result = json!({
        "event_id": id,
        "visitor_id": identify.visitor,
        "suspect_score": suspect_score.unwrap_or(json!(0)),
        "sealed_result": sealed,
    });
    json_response(StatusCode::OK, &result)
}

/// `GET /events/{event_id}`.
pub(in crate::dev::sim) async fn events(
    State(visits): State<Arc<Visits>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    match header_text(&headers, "authorization").and_then(|text| text.strip_prefix("Bearer ")) {
        None | Some("") => {
            return error(StatusCode::FORBIDDEN, "secret_api_key_required", "secret API key in header is missing");
        }
        Some(key) if key != FINGERPRINT_SECRET => {
            return error(StatusCode::FORBIDDEN, "secret_api_key_not_found", "secret API key is not found");
        }
        Some(_) => {}
    }
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return error(StatusCode::BAD_REQUEST, "request_cannot_be_parsed", "invalid event_id");
    }
    match Token::parse(&id) {
        None | Some(Token { outcome: Outcome::Fail, .. }) => {
            error(StatusCode::NOT_FOUND, "event_not_found", "event id not found")
        }
        Some(Token { outcome: Outcome::Error, .. }) => failed(),
        Some(token) => {
            token.wait().await;
            let visit = visits.find(&id).or_else(|| visits.find(visitor_of(&token))).unwrap_or_default();
            json_response(StatusCode::OK, &event(&id, &token, &visit))
        }
    }
}

fn visitor_of(token: &Token) -> &str {
    token.unique.split_once('_').map_or(UNNAMED_VISITOR, |(_, visitor)| visitor)
}

fn event(id: &str, token: &Token, visit: &Visit) -> Value {
    let time = identified_at(token).as_millis();
    let (is_bot, page) = (is_bot(token), visit.page.clone());
    let mut event = json!({
        "event_id": id,
        "timestamp": time,
        "incremental_identification_status": "completed",
        "identification": {
            "visitor_id": visitor_of(token),
            "visitor_found": true,
            "confidence": {"score": 0.99, "version": "1.1"},
            "first_seen_at": time,
            "last_seen_at": time,
        },
        "url": page.unwrap_or_else(|| format!("https://{}/", token.host)),
        "ip_address": "127.0.0.1",
        "browser_details": {"browser_name": "Simulated", "browser_major_version": "1", "device": "Other"},
        "sdk": {"platform": "js", "version": "4.1.5"},
        "replayed": false,
        "bot": if is_bot { "bad" } else { "not_detected" },
        "incognito": false,
        "tampering": false,
        "suspect_score": if is_bot { 30 } else { 0 },
    });
    let bot_type = (token.outcome == Outcome::Bot).then(|| json!("headless_chrome"));
    let user_agent = visit.user_agent.clone().map(Value::from);
    // As with the real service: a simple value becomes an object.
    let tags =
        if visit.tags.is_object() || visit.tags.is_null() { visit.tags.clone() } else { json!({"tag": visit.tags}) };
    let optional = [("tags", Some(tags)), ("linked_id", Some(visit.linked_id.clone()))];
    if let Some(event) = event.as_object_mut() {
        for (name, value) in optional.into_iter().chain([("bot_type", bot_type), ("user_agent", user_agent)]) {
            if let Some(value) = value.filter(|value| !value.is_null()) {
                event.insert(name.to_owned(), value);
            }
        }
    }
    event
}

/// An event as only the owner of the key can read it (docs.fingerprint.com/docs/sealed-client-results): raw DEFLATE, encrypted
/// with AES-256-GCM.
fn seal(event: &Value) -> Option<String> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(event.to_string().as_bytes()).ok()?;
    let mut bytes = encoder.finish().ok()?;
    let key = STANDARD.decode(FINGERPRINT_SEALED_KEY).ok()?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?);
    let nonce = random::<NONCE_LEN>().ok()?;
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut bytes).ok()?;
    Some(STANDARD.encode([&SEALED_HEADER[..], &nonce, &bytes].concat()))
}

fn failed() -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, "failed", "internal server error")
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    json_response(status, &json!({"error": {"code": code, "message": message}}))
}
