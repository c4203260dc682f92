//! An account's public keys as a JWK Set (RFC 7517), for backends that fetch them: under the site key, so that a token's
//! issuer can be `https://host/SITE_KEY`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::response::Response;
use axum::routing::get;

use crate::attest::Service;
use crate::telemetry::RequestNotes;

use super::operations::not_found;
use super::respond::{annotate, json};

/// How long backends may keep a set. A key is published long before it signs.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("max-age=300");
const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");

/// This route.
pub(super) fn router() -> Router<Arc<Service>> {
    Router::new().route("/{site_key}/.well-known/jwks.json", get(jwks))
}

async fn jwks(State(service): State<Arc<Service>>, Path(site_key): Path<String>) -> Response {
    let active = service.active();
    let Some(set) = active.published_keys(&site_key) else {
        return not_found().await;
    };
    let mut response = json(StatusCode::OK, Bytes::from_owner(set));
    response.headers_mut().insert(header::CONTENT_TYPE, JWK_SET);
    response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    annotate(response, RequestNotes::outcome("jwks"))
}
