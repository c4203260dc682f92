//! The simulated Fingerprint: its agent, and the Server API v3.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use approov_verify::time::UnixTime;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;

use crate::crypto::random;

use super::{FINGERPRINT_PUBLIC_API_KEY, FINGERPRINT_SECRET, Outcome, Token, json_response, outage, script};

/// Pages that are forgotten all at once when there are this many: this is a simulator.
const MAX_PAGES: usize = 10_000;

/// The pages that loaded the agent, by the visitor that it was made for.
#[derive(Default)]
pub(super) struct Pages(Mutex<HashMap<String, String>>);

impl Pages {
    fn note(&self, visitor: &str, page: &str) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= MAX_PAGES {
            pages.clear();
        }
        pages.insert(visitor.to_owned(), page.to_owned());
    }

    fn of(&self, visitor: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(visitor).cloned()
    }
}

pub(super) async fn agent(State(pages): State<Arc<Pages>>, Path(key): Path<String>, headers: HeaderMap) -> Response {
    if key != FINGERPRINT_PUBLIC_API_KEY {
        return (StatusCode::FORBIDDEN, [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], "unknown public API key\n")
            .into_response();
    }
    let Ok(random) = random::<12>() else {
        return outage();
    };
    let visitor = format!("sim{}", URL_SAFE_NO_PAD.encode(random));
    if let Some(page) = headers.get(header::REFERER).and_then(|page| page.to_str().ok()) {
        pages.note(&visitor, page);
    }
    let now = UnixTime::now().as_millis().to_string();
    script(include_str!("fingerprint.js").replace("SERVED_AT", &now).replace("VISITOR_ID", &visitor))
}

#[derive(Deserialize)]
pub(super) struct VisitorQuery {
    request_id: Option<String>,
}

fn wrong_key(headers: &HeaderMap) -> Option<Response> {
    let key = headers.get("auth-api-key").and_then(|key| key.to_str().ok());
    (key != Some(FINGERPRINT_SECRET))
        .then(|| json_response(StatusCode::FORBIDDEN, &json!({"error": "secret key is wrong"})))
}

pub(super) async fn visitors(
    State(pages): State<Arc<Pages>>,
    headers: HeaderMap,
    Path(visitor): Path<String>,
    Query(query): Query<VisitorQuery>,
) -> Response {
    if let Some(response) = wrong_key(&headers) {
        return response;
    }
    let request = query.request_id.unwrap_or_default();
    let token = Token::parse(&request);
    let visits = match &token {
        None | Some(Token { outcome: Outcome::Fail, .. }) => json!([]),
        Some(Token { outcome: Outcome::Error, .. }) => {
            return outage();
        }
        Some(token) => {
            if let Outcome::Slow(time) = token.outcome {
                tokio::time::sleep(time).await;
            }
            json!([{
                "requestId": request,
                "url": pages.of(&visitor).unwrap_or_else(|| format!("https://{}/", token.host)),
                "browserDetails": {"browserName": "Simulated", "botProbability": if token.outcome == Outcome::Low { 0.9 } else { 0.0 }},
                "incognito": false,
                "ip": "127.0.0.1",
                "timestamp": identified_at(token),
                "tag": {},
            }])
        }
    };
    json_response(StatusCode::OK, &json!({"visitorId": visitor, "visits": visits}))
}

/// When a visitor was identified: the agent puts the time before an `x`; other tokens mean now.
fn identified_at(token: &Token) -> i64 {
    let now = UnixTime::now().as_millis();
    let made = token.unique.split_once('x').and_then(|(time, _)| time.parse().ok()).unwrap_or(now);
    match token.outcome {
        Outcome::Expired => made.saturating_sub(3_600_000),
        Outcome::Pass | Outcome::Fail | Outcome::Low | Outcome::Error | Outcome::Slow(_) => made,
    }
}

pub(super) async fn events(headers: HeaderMap, Path(request): Path<String>) -> Response {
    if let Some(response) = wrong_key(&headers) {
        return response;
    }
    let Some(token) = Token::parse(&request) else {
        return json_response(StatusCode::NOT_FOUND, &json!({"error": "request not found"}));
    };
    let bot = if token.outcome == Outcome::Low { "bad" } else { "notDetected" };
    json_response(
        StatusCode::OK,
        &json!({"products": {
            "identification": {"data": {"requestId": request, "timestamp": identified_at(&token)}},
            "botd": {"data": {"bot": {"result": bot}}},
        }}),
    )
}
