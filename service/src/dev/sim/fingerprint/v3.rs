//! Server API v3.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use crate::dev::sim::keys::FINGERPRINT_SECRET;
use crate::dev::sim::token::{Outcome, Token};
use crate::dev::sim::{header_text, json_response, outage};

use super::{Visits, identified_at, is_bot};

#[derive(Deserialize)]
pub(in crate::dev::sim) struct VisitorQuery {
    request_id: Option<String>,
}

fn wrong_key(headers: &HeaderMap) -> Option<Response> {
    (header_text(headers, "auth-api-key") != Some(FINGERPRINT_SECRET))
        .then(|| json_response(StatusCode::FORBIDDEN, &json!({"error": "secret key is wrong"})))
}

pub(in crate::dev::sim) async fn visitors(
    State(visits): State<Arc<Visits>>,
    headers: HeaderMap,
    Path(visitor): Path<String>,
    Query(query): Query<VisitorQuery>,
) -> Response {
    if let Some(response) = wrong_key(&headers) {
        return response;
    }
    let request = query.request_id.unwrap_or_default();
    let visits = match Token::parse(&request) {
        None | Some(Token { outcome: Outcome::Fail, .. }) => json!([]),
        Some(Token { outcome: Outcome::Error, .. }) => {
            return outage();
        }
        Some(token) => {
            token.wait().await;
            let page = visits.find(&visitor).and_then(|visit| visit.page);
            let bot_probability = match token.outcome {
                Outcome::Bot => 1.0,
                Outcome::Low => 0.9,
                Outcome::Pass | Outcome::Fail | Outcome::Expired | Outcome::Error | Outcome::Slow(_) => 0.0,
            };
            json!([{
                "requestId": request,
                "url": page.unwrap_or_else(|| format!("https://{}/", token.host)),
                "browserDetails": {"browserName": "Simulated", "botProbability": bot_probability},
                "incognito": false,
                "ip": "127.0.0.1",
                "timestamp": identified_at(&token).as_millis(),
                "tag": {},
            }])
        }
    };
    json_response(StatusCode::OK, &json!({"visitorId": visitor, "visits": visits}))
}

pub(in crate::dev::sim) async fn events(headers: HeaderMap, Path(request): Path<String>) -> Response {
    if let Some(response) = wrong_key(&headers) {
        return response;
    }
    let Some(token) = Token::parse(&request) else {
        return json_response(StatusCode::NOT_FOUND, &json!({"error": "request not found"}));
    };
    let bot = if is_bot(&token) { "bad" } else { "notDetected" };
    json_response(
        StatusCode::OK,
        &json!({"products": {
            "identification": {"data": {"requestId": request, "timestamp": identified_at(&token).as_millis()}},
            "botd": {"data": {"bot": {"result": bot}}},
        }}),
    )
}
