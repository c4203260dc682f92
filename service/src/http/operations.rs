//! The routes for balancers and operators: health for everybody; counters and the description of the interface on a
//! listener of their own, which the public does not see.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::attest::{NotReady, Service};
use crate::host::{host_of, is_loopback};
use crate::telemetry::RequestNotes;

use super::respond::{annotate, json, text_response};

/// The routes that the public sees, too.
pub(super) fn health_router() -> Router<Arc<Service>> {
    Router::new().route("/healthz", get(health)).route("/readyz", get(ready))
}

/// What the operations listener serves. On a loopback address it serves this machine only: a page in a browser here
/// that has made its own name one of this machine's ("DNS rebinding") is refused by that name.
pub fn operations(service: Arc<Service>, is_loopback: bool) -> Router {
    let router = health_router()
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(description))
        .fallback(not_found)
        .with_state(service);
    if is_loopback { router.layer(from_fn(require_loopback_host)) } else { router }
}

async fn require_loopback_host(request: Request, next: Next) -> Response {
    if host_of(&request).is_some_and(|host| is_loopback(&host)) {
        return next.run(request).await;
    }
    text_response(StatusCode::MISDIRECTED_REQUEST, "this listener is for this machine only\n", "refused")
}

async fn health() -> Response {
    text_response(StatusCode::OK, "ok\n", "health")
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    let not_ready = |text| text_response(StatusCode::SERVICE_UNAVAILABLE, text, "health");
    match service.readiness.get() {
        Ok(()) => text_response(StatusCode::OK, "ready\n", "health"),
        Err(NotReady::Draining) => not_ready("stopping soon\n"),
        Err(NotReady::Store) => not_ready("the store is unavailable\n"),
    }
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let mut text = service.metrics.render(service.now());
    service.log.render(&mut text);
    service.pressure.render(&mut text);
    let response = ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response();
    annotate(response, RequestNotes::outcome("metrics"))
}

/// The OpenAPI description of these routes.
pub const OPENAPI: &str = include_str!("../../openapi.json");

async fn description() -> Response {
    let mut response = json(StatusCode::OK, Bytes::from_static(OPENAPI.as_bytes()));
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    annotate(response, RequestNotes::outcome("description"))
}

/// The response to any other path.
pub(super) async fn not_found() -> Response {
    text_response(StatusCode::NOT_FOUND, "not found\n", "not-found")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::check::Provider;
    use crate::error::Code;

    #[test]
    fn the_description_knows_every_error_code_and_every_parameter() {
        let description: Value = serde_json::from_str(OPENAPI).unwrap();
        let schemas = &description["components"]["schemas"];
        let listed: Vec<&str> =
            schemas["ErrorCode"]["enum"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
        assert_eq!(listed, Code::ALL.iter().map(|code| code.name()).collect::<Vec<_>>());
        let mut params: Vec<&str> = Provider::ALL
            .into_iter()
            .flat_map(|provider| provider.definition().params.iter().map(|param| param.name))
            .chain(["api", "approov-site-key", "payload", "refresh-token", "work"])
            .collect();
        params.sort_unstable();
        let mut described: Vec<&String> = schemas["AttestRequest"]["properties"].as_object().unwrap().keys().collect();
        described.sort_unstable();
        assert_eq!(described, params);
    }

    #[test]
    fn the_description_knows_the_status_of_every_error_code() {
        let description: Value = serde_json::from_str(OPENAPI).unwrap();
        let responses = &description["paths"]["/attest"]["post"]["responses"];
        for code in Code::ALL {
            assert!(responses.get(code.status().to_string()).is_some(), "{code}");
        }
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
