//! Responses: refusals, JSON, text, each with what the log says about it.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use crate::error::{Code, Refusal};
use crate::telemetry::RequestNotes;

/// Headers that a response gets, so that their table is made once.
const HEADER_CAPACITY: usize = 12;

/// The response that carries a refusal.
pub(super) fn refused(refusal: &Refusal, mut notes: RequestNotes) -> Response {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = json(status, refusal.to_json());
    if let Some(seconds) = refusal.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9449 section 8; the map in the body is the specification's.
        let error = if refusal.has(Code::InvalidNonce) { "use_dpop_nonce" } else { "invalid_dpop_proof" };
        if let Ok(value) = HeaderValue::from_str(&format!("DPoP error=\"{error}\", algs=\"ES256\"")) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
    }
    notes.outcome = "refused";
    notes.codes = refusal.codes().map(|(code, _)| code.name()).collect();
    annotate(response, notes)
}

/// The response to a request that names no host, or several.
pub(super) fn one_host_needed() -> Response {
    text_response(StatusCode::BAD_REQUEST, "a request needs exactly one Host header\n", "bad-request")
}

/// A response with a JSON body.
pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADER_CAPACITY);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Details repeat what the client sent: no browser may take it for a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A response with a text body.
pub(super) fn text_response(status: StatusCode, text: &'static str, outcome: &'static str) -> Response {
    annotate((status, text).into_response(), RequestNotes::outcome(outcome))
}

/// Leaves the notes for the log in the response.
pub(super) fn annotate(mut response: Response, notes: RequestNotes) -> Response {
    response.extensions_mut().insert(notes);
    response
}
