//! Cross-origin requests: what browsers ask before them, and who may read responses.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};

use crate::telemetry::RequestNotes;

use super::RequestContext;
use super::respond::annotate;

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
/// How long browsers may keep a preflight response, seconds. Chromium keeps none longer.
const PREFLIGHT_AGE: &str = "7200";

/// Request headers that the service reads.
const OWN_HEADERS: &str = "dpop, content-type";
/// How many other request headers a preflight allows, and how long their names may be.
const MAX_OTHER_HEADERS: usize = 16;
const MAX_HEADER_NAME_BYTES: usize = 64;

/// The response to a preflight request. It is granted whatever the origin is: the request itself tells a page that it
/// is not allowed, which a refused preflight cannot.
pub(super) fn preflight(request: &Request) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    if let Ok(allowed) = HeaderValue::try_from(allowed_headers(request.headers())) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE));
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    annotate(response, RequestNotes::outcome("preflight"))
}

/// The request headers that a page may send: those that are read, and what tools of the page add to every request
/// (`traceparent`, `baggage`, …), which is ignored. Not those in which proxies say where a request comes from.
fn allowed_headers(requested: &HeaderMap) -> String {
    let mut allowed = OWN_HEADERS.to_owned();
    let names = requested.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let others = names
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| name.as_str().len() <= MAX_HEADER_NAME_BYTES && !is_own(name) && !is_of_proxies(name));
    for name in others.take(MAX_OTHER_HEADERS) {
        allowed.push_str(", ");
        allowed.push_str(name.as_str());
    }
    allowed
}

fn is_own(name: &HeaderName) -> bool {
    OWN_HEADERS.split(", ").any(|own| own == name.as_str())
}

fn is_of_proxies(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "forwarded" | "x-real-ip" | "via") || name.starts_with("x-forwarded-")
}

/// Adds the cross-origin headers. Nothing here depends on cookies, and what a page may not have is refused to its
/// request, so every page may read what it gets: it must be able to learn why it was refused.
pub(super) fn allow_reading(context: &RequestContext<'_>, headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(Ok(origin)) = context.origin.map(HeaderValue::from_str) else {
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(TIMING_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("DPoP-Nonce, Date, Retry-After"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(requested: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in requested {
            headers.append(header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_str(line).unwrap());
        }
        allowed_headers(&headers)
    }

    #[test]
    fn what_tools_of_the_page_add_is_allowed() {
        assert_eq!(allowed(&[]), "dpop, content-type");
        assert_eq!(allowed(&["content-type,dpop"]), "dpop, content-type");
        assert_eq!(
            allowed(&["baggage,content-type,DPoP,sentry-trace", "Traceparent"]),
            "dpop, content-type, baggage, sentry-trace, traceparent"
        );
    }

    #[test]
    fn not_what_proxies_say_and_not_without_end() {
        assert_eq!(allowed(&["x-forwarded-for, forwarded, X-Forwarded-Host, x-real-ip"]), "dpop, content-type");
        assert_eq!(allowed(&["a b, :x, \u{e9}, ,"]), "dpop, content-type");
        assert_eq!(allowed(&[&"x".repeat(65)]), "dpop, content-type");
        let many: Vec<String> = (0..100).map(|n| format!("x-{n}")).collect();
        assert_eq!(allowed(&[&many.join(",")]).split(", ").count(), 2 + MAX_OTHER_HEADERS);
    }
}
