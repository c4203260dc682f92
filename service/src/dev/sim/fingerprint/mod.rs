//! The simulated Fingerprint: its agents, and both interfaces of its server.
//!
//! An ID says how its identification ends, when it was made and whom it identified:
//! `sim-<outcome>-<milliseconds>x<random>_<visitor>`. So each interface knows those of both agents. One without a visitor is of
//! the visitor `visitor`.

mod v3;
mod v4;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use approov_verify::time::UnixTime;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::crypto::random;

use super::keys::{FINGERPRINT_PUBLIC_API_KEY, without_outcome};
use super::scripts::{FINGERPRINT_V3, FINGERPRINT_V4, KEY, Script};
use super::token::{Outcome, Token};
use super::{header_text, outage};

pub(super) use v3::{events as events_v3, visitors};
pub(super) use v4::{events as events_v4, identify};

/// Visits that are forgotten all at once when there are this many: this is a simulator.
const MAX_VISITS: usize = 10_000;

/// What an agent says besides the ID.
#[derive(Clone, Default)]
struct Visit {
    page: Option<String>,
    tags: Value,
    linked_id: Value,
    user_agent: Option<String>,
}

/// The visits: the last one of each visitor, and those that have an event of their own.
#[derive(Default)]
pub(super) struct Visits(Mutex<HashMap<String, Visit>>);

impl Visits {
    fn note(&self, id: &str, visit: Visit) {
        let mut visits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if visits.len() >= MAX_VISITS {
            visits.clear();
        }
        visits.insert(id.to_owned(), visit);
    }

    fn find(&self, id: &str) -> Option<Visit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

pub(super) async fn agent_v3(
    State(visits): State<Arc<Visits>>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    agent(FINGERPRINT_V3, &visits, &key, query.as_deref(), &headers)
}

pub(super) async fn agent_v4(
    State(visits): State<Arc<Visits>>,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    agent(FINGERPRINT_V4, &visits, &key, query.as_deref(), &headers)
}

/// An agent, made for one visitor.
fn agent(script: Script, visits: &Visits, key: &str, query: Option<&str>, headers: &HeaderMap) -> Response {
    if !is_known(key) {
        let any_origin = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
        return (StatusCode::FORBIDDEN, any_origin, "unknown public API key\n").into_response();
    }
    let Ok(random) = random::<12>() else {
        return outage();
    };
    let visitor = format!("sim{}", URL_SAFE_NO_PAD.encode(random));
    if let Some(page) = header_text(headers, "referer") {
        visits.note(&visitor, Visit { page: Some(page.to_owned()), ..Visit::default() });
    }
    script.serve_with(query, &[("VISITOR_ID", &visitor), (KEY, key)])
}

/// Whether a public API key is the subscription's. An outcome that it chooses becomes part of a script.
fn is_known(key: &str) -> bool {
    let is_plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    is_plain && without_outcome(key) == FINGERPRINT_PUBLIC_API_KEY
}

/// When a visitor was identified.
fn identified_at(token: &Token) -> UnixTime {
    let made = token.made();
    match token.outcome {
        Outcome::Expired => UnixTime::from_millis(made.as_millis().saturating_sub(3_600_000)),
        Outcome::Pass | Outcome::Fail | Outcome::Low | Outcome::Bot | Outcome::Error | Outcome::Slow(_) => made,
    }
}

/// Whether a visitor is a bot. Agents that only seem to be one are taken for one: there is no more than yes and no.
fn is_bot(token: &Token) -> bool {
    matches!(token.outcome, Outcome::Low | Outcome::Bot)
}
