//! The routes for operators: health, metrics, the description of the interface.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::attest::Service;
use crate::store::Store as _;
use crate::telemetry::RequestNotes;

use super::respond::{annotate, json, text_response};

/// These routes.
pub(super) fn router() -> Router<Arc<Service>> {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(description))
}

async fn health() -> Response {
    text_response(StatusCode::OK, "ok\n", "health")
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    match service.store.ready().await {
        Ok(()) => text_response(StatusCode::OK, "ready\n", "health"),
        Err(_) => {
            service.metrics.store_error();
            text_response(StatusCode::SERVICE_UNAVAILABLE, "the store is unavailable\n", "health")
        }
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
    let mut response = json(StatusCode::OK, OPENAPI.to_owned());
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
            .chain(["api", "approov-site-key", "payload", "refresh-token"])
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
