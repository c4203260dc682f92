//! Cross-origin requests: what browsers ask before them, and who may read responses.

use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use crate::error::{Code, Refusal};
use crate::telemetry::RequestNotes;

use super::RequestContext;
use super::respond::{annotate, refused};

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
/// How long browsers may keep a preflight response, seconds. Chromium keeps none longer.
const PREFLIGHT_AGE: &str = "7200";

/// The response to a preflight request.
pub(super) fn preflight(context: &RequestContext<'_>) -> Response {
    if let Some(origin) = context.origin.filter(|origin| !context.active.any_account_allows(origin)) {
        return refused(&Refusal::new(Code::OriginNotAllowed, origin), RequestNotes::default());
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("dpop, content-type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE));
    annotate(response, RequestNotes::outcome("preflight"))
}

/// Adds the cross-origin headers. Nothing here depends on cookies, so reading is allowed to every page that
/// some account serves, refusals included: a page must be able to learn why it was refused.
pub(super) fn allow_reading(context: &RequestContext<'_>, headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = context.origin.filter(|origin| context.active.any_account_allows(origin)) else {
        return;
    };
    let Ok(origin) = HeaderValue::from_str(origin) else {
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(TIMING_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("DPoP-Nonce, Date, Retry-After"));
}
