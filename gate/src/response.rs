//! Verdicts as responses: what gateways copy to the backend's request, and what clients get.

use approov_verify::{Error, NONCE_HEADER, Verified};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

/// The body of a response.
pub type ResponseBody = Full<Bytes>;

/// What a backend learns. A verdict that lets a request pass has all of them, so that a gateway that copies them
/// replaces what a client may have sent under these names.
pub const IDENTITY_HEADERS: [HeaderName; 7] = [VERIFIED, CHANNEL, KEY, CLAIMS, MESSAGE, WOULD_FAIL, POLICY];

const VERIFIED: HeaderName = HeaderName::from_static("approov-verified");
const CHANNEL: HeaderName = HeaderName::from_static("approov-channel");
const KEY: HeaderName = HeaderName::from_static("approov-key");
const CLAIMS: HeaderName = HeaderName::from_static("approov-claims");
const MESSAGE: HeaderName = HeaderName::from_static("approov-message");
const WOULD_FAIL: HeaderName = HeaderName::from_static("approov-would-fail");
const POLICY: HeaderName = HeaderName::from_static("approov-policy");

const NONE: HeaderValue = HeaderValue::from_static("none");
/// As the other faces of the verifier say it.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("10");

/// A request may pass, and this is known of it.
#[must_use]
pub fn pass(policy: &str, verified: Option<&Verified>, would_fail: Option<&'static str>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::default());
    let headers = response.headers_mut();
    for name in IDENTITY_HEADERS {
        headers.insert(name, NONE);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(POLICY, text(policy));
    if let Some(code) = would_fail {
        headers.insert(WOULD_FAIL, HeaderValue::from_static(code));
    }
    let Some(Verified { claims, proof, .. }) = verified else { return response };
    headers.insert(VERIFIED, HeaderValue::from_static(if proof.is_some() { "proof" } else { "token" }));
    headers.insert(CHANNEL, text(&claims.channel.to_string()));
    if let Some(key) = &claims.cnf {
        headers.insert(KEY, text(&key.to_string()));
    }
    let all = serde_json::to_vec(&claims.all).unwrap_or_default();
    headers.insert(CLAIMS, text(&URL_SAFE_NO_PAD.encode(all)));
    if let Some(message) = proof.as_ref().and_then(|proof| proof.msgs.as_deref()) {
        headers.insert(MESSAGE, text(message));
    }
    response
}

/// A value that a client chose may be none for a header: then it is as if it were not there.
fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).ok().filter(|value| !value.is_empty()).unwrap_or(NONE)
}

/// A request may not pass, because of this.
#[must_use]
pub fn refuse(error: &Error) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = problem(status, error.code(), &error.public_detail());
    let headers = response.headers_mut();
    if *error == Error::TooManyProofs {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    if let Some(challenge) = error.challenge() {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge.header_value()));
    }
    response
}

/// A problem document (RFC 9457).
#[must_use]
pub fn problem(status: StatusCode, code: &str, detail: &str) -> Response<ResponseBody> {
    let title = status.canonical_reason().unwrap_or_default();
    let body =
        json!({"type": "about:blank", "title": title, "status": status.as_u16(), "code": code, "detail": detail});
    let mut response = Response::new(ResponseBody::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Adds what a response to a page needs: the nonce for its next proof, and leave to read it.
pub fn for_pages(
    response: &mut Response<ResponseBody>,
    nonce: Option<HeaderValue>,
    cors: impl IntoIterator<Item = (String, String)>,
) {
    let headers = response.headers_mut();
    for (name, value) in cors {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    if let Some(nonce) = nonce {
        headers.insert(NONCE_HEADER, nonce);
        let exposed = HeaderValue::from_static("DPoP-Nonce, WWW-Authenticate");
        headers.entry(ACCESS_CONTROL_EXPOSE_HEADERS).or_insert(exposed);
    }
}
