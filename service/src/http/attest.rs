//! `/attest`: preflight, nonce request and attest request.

use approov_listener::body::BodyError;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::attest::{Attest, Form, Incoming};
use crate::crypto::RequestEntropy;
use crate::error::{Code, Problems, Refusal};
use crate::store::Store as _;
use crate::telemetry::RequestNotes;
use crate::time::http_date;

use super::RequestContext;
use super::cors;
use super::respond::{annotate, json, refused};

const DPOP: &str = "dpop";
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Serves a request to `/attest`.
pub(super) async fn attest(context: &RequestContext<'_>, request: Request) -> Response {
    let needs_nonce = matches!(*request.method(), Method::GET | Method::POST);
    let entropy = if needs_nonce { RequestEntropy::draw().ok() } else { None };
    let mut response = match (request.method(), entropy) {
        (&Method::OPTIONS, _) => cors::preflight(&request),
        (&Method::GET, Some(entropy)) => nonce_request(context, &request, entropy),
        (&Method::POST, Some(entropy)) => attest_request(context, request, entropy).await,
        (&Method::GET | &Method::POST, None) => {
            refused(&Refusal::new(Code::Unavailable, "there are no random numbers"), RequestNotes::default())
        }
        _ => {
            let mut response = StatusCode::METHOD_NOT_ALLOWED.into_response();
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST, OPTIONS"));
            response
        }
    };
    let headers = response.headers_mut();
    if let Ok(date) = HeaderValue::try_from(http_date(context.now)) {
        headers.insert(header::DATE, date);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(entropy) = entropy
        && let Ok(nonce) =
            HeaderValue::try_from(context.active.issue_nonce(context.now, context.service.store.epoch(), entropy.nonce))
    {
        headers.insert(DPOP_NONCE, nonce);
    }
    cors::allow_reading(context, headers);
    response
}

fn nonce_request(context: &RequestContext<'_>, request: &Request, entropy: RequestEntropy) -> Response {
    if request.uri().query().is_some_and(|query| !query.is_empty()) {
        let refusal = Refusal::new(Code::IllegalParams, "a nonce request has no parameters");
        return refused(&refusal, RequestNotes::default());
    }
    let proofs = proofs(request.headers());
    let mut attest = context.attest("GET", &proofs, entropy);
    match attest.check_nonce_request() {
        Ok(None) => {
            let notes = RequestNotes { outcome: "nonce", ..attest.notes };
            annotate(StatusCode::NO_CONTENT.into_response(), notes)
        }
        Ok(Some(challenge)) => {
            let notes = RequestNotes { outcome: "challenge", ..attest.notes };
            annotate(json(StatusCode::OK, challenge), notes)
        }
        Err(refusal) => refused(&refusal, attest.notes),
    }
}

async fn attest_request(context: &RequestContext<'_>, request: Request, entropy: RequestEntropy) -> Response {
    let (parts, body) = request.into_parts();
    let mut problems = Problems::default();
    let body = problems.take(read_body(body, &parts.headers, context.active.config.limits.body_bytes).await);
    let content_type = text(&parts.headers, header::CONTENT_TYPE);
    let form = body.as_ref().and_then(|body| problems.take(Form::read(parts.uri.query(), content_type, body)));
    let proofs = proofs(&parts.headers);
    let mut attest = context.attest("POST", &proofs, entropy);
    let granted = match attest.grant_tokens(form.as_ref(), problems).await {
        Ok(granted) => granted,
        Err(refusal) => return refused(&refusal, attest.notes),
    };
    match granted.to_json() {
        Ok(body) => {
            let notes = RequestNotes { outcome: granted.outcome(), ..attest.notes };
            annotate(json(StatusCode::OK, body), notes)
        }
        Err(_) => refused(&Refusal::new(Code::Unavailable, "tokens could not be made"), attest.notes),
    }
}

impl<'a> RequestContext<'a> {
    pub(super) fn attest(&self, method: &'a str, proofs: &'a [&'a str], entropy: RequestEntropy) -> Attest<'a> {
        let incoming = Incoming { method, proofs, origin: self.origin, client_ip: self.ip, now: self.now, entropy };
        Attest::new(self.service, self.active, incoming)
    }
}

async fn read_body(body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(Code::BodyTooLarge, format!("more than {limit} bytes"));
    let declared = text(headers, header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) if BodyError::is_time_out(&*error) => {
            Err(Refusal::new(Code::BodyReadFail, "the body did not come in time"))
        }
        Err(_) => Err(Refusal::new(Code::BodyReadFail, "the body ended early")),
    }
}

fn proofs(headers: &HeaderMap) -> Vec<&str> {
    // A header that is not text counts: as one that cannot be read.
    headers.get_all(DPOP).iter().map(|value| value.to_str().unwrap_or_default()).collect()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
