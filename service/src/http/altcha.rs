//! Challenges for the official ALTCHA widget, which knows nothing of proofs: a simple request of any page that may use the
//! site.

use axum::extract::Request;
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};

use crate::config::Account;
use crate::crypto::RequestEntropy;
use crate::error::{Code, Refusal};
use crate::telemetry::RequestNotes;

use super::respond::{annotate, json, refused};
use super::{RequestContext, cors};

const SITE_KEY: &str = "site-key";
const ACCOUNT: &str = "approov-site-key";

/// `GET /altcha?site-key=KEY`, with `approov-site-key` where several accounts have a site with this key.
pub(super) fn challenge(context: &RequestContext<'_>, request: &Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = StatusCode::METHOD_NOT_ALLOWED.into_response();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let mut response = match find(context, request) {
        Ok(challenge) => annotate(json(StatusCode::OK, challenge), RequestNotes::outcome("challenge")),
        Err(refusal) => refused(&refusal, RequestNotes::default()),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    cors::allow_reading(context, headers);
    response
}

fn find(context: &RequestContext<'_>, request: &Request) -> Result<String, Refusal> {
    let unavailable = || Refusal::new(Code::Unavailable, "there are no random numbers");
    let query = request.uri().query().unwrap_or_default();
    let value = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value)
    };
    let key = value(SITE_KEY).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| Refusal::new(Code::AltchaEmptySiteKey, ""))?;
    let named = value(ACCOUNT);
    let is_named = |account: &&Account| named.as_ref().is_none_or(|named| account.site_key == **named);
    let attest = context.attest("GET", &[], RequestEntropy::draw().map_err(|_| unavailable())?);
    let mut accounts = context.active.config.accounts.values().filter(is_named);
    let challenge = accounts.find_map(|account| attest.widget_challenge(account, &key));
    // As a nonce does, a challenge counts in its client's share.
    let counters = &context.service.limits;
    counters.note_newcomer(counters.client(context.ip), counters.now());
    challenge.ok_or_else(|| Refusal::new(Code::AltchaSiteKeyNotFound, key.chars().take(64).collect::<String>()))
}
