//! The HTTP face: routes, limits, request ids, and one log line per request.

mod altcha;
mod attest;
mod client_ip;
mod cors;
mod jwks;
mod operations;
mod respond;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use approov_listener::service::Peer;
use approov_verify::time::UnixTime;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Version;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use tower::ServiceExt as _;

use crate::attest::{ActiveConfig, Service};
use crate::error::{Code, Refusal};
use crate::telemetry::{RequestLine, RequestNotes, millis};
use crate::time::system_time;

pub use operations::{OPENAPI, operations};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Serves every request to the service.
///
/// `/attest` bypasses the router: it is nearly all the traffic, and each router layer clones its service and boxes a
/// future.
#[derive(Clone)]
pub struct App {
    service: Arc<Service>,
    others: Router,
    /// Whether responses go on with the notes that the log has of them.
    keeps_notes: bool,
}

impl App {
    /// `more` are routes of the development mode.
    pub fn new(service: Arc<Service>, more: Router<Arc<Service>>) -> Self {
        let others = operations::health_router()
            .merge(jwks::router())
            .merge(more)
            .fallback(operations::not_found)
            .with_state(Arc::clone(&service));
        Self { service, others, keeps_notes: false }
    }

    /// The same, whose responses go on with the notes that the log has of them: for the development mode, which shows them.
    #[must_use]
    pub fn keeping_notes(self) -> Self {
        Self { keeps_notes: true, ..self }
    }
}

impl<B> tower::Service<Request<B>> for App
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (app, request) = (self.clone(), request.map(Body::new));
        Box::pin(async move { Ok(respond(&app, request).await) })
    }
}

/// What is known of a request before it is served.
struct RequestContext<'a> {
    service: &'a Arc<Service>,
    /// The configuration that it keeps to its end.
    active: &'a Arc<ActiveConfig>,
    now: UnixTime,
    /// The browser's address.
    ip: IpAddr,
    origin: Option<&'a str>,
}

/// Gives every request an id, an end in bounded time, and a line in the log.
async fn respond(app: &App, request: Request) -> Response {
    let service = &app.service;
    let begun = Instant::now();
    let active = service.active();
    let id = service.request_ids.next_id();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let context = RequestContext {
        service,
        active: &active,
        now: service.now(),
        ip: client_ip(service, &active, &request),
        origin: origin.as_ref().and_then(|origin| origin.to_str().ok()),
    };
    let response = pin!(async {
        match uri.path() {
            _ if !has_one_host(&request) => respond::one_host_needed(),
            "/attest" => attest::attest(&context, request).await,
            "/altcha" => altcha::challenge(&context, &request),
            // Boxed: these are rare, and would make every request's future as large as theirs.
            _ => Box::pin(app.others.clone().oneshot(request)).await.into_response(),
        }
    });
    let mut response = match tokio::time::timeout(active.config.limits.request, response).await {
        Ok(response) => response,
        Err(_) => out_of_time(&context),
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let notes = response
        .extensions_mut()
        .remove::<RequestNotes>()
        .unwrap_or_else(|| RequestNotes::outcome(if uri.path().starts_with("/sim/") { "simulator" } else { "other" }));
    let (status, time) = (response.status().as_u16(), begun.elapsed());
    service.metrics.request(notes.outcome, status, &notes.codes, time);
    service.log.request(
        system_time(context.now),
        &RequestLine {
            id: &id,
            method: method.as_str(),
            path: uri.path(),
            status,
            ms: millis(time),
            ip: context.ip,
            origin: context.origin,
            notes: &notes,
        },
    );
    if app.keeps_notes {
        response.extensions_mut().insert(notes);
    }
    response
}

fn out_of_time(context: &RequestContext<'_>) -> Response {
    let mut refusal = Refusal::new(Code::Unavailable, "out of time");
    refusal.retry_after = Some(1);
    let mut response = respond::refused(&refusal, RequestNotes::default());
    cors::allow_reading(context, response.headers_mut());
    response
}

/// Whether a request names one host (RFC 9112 section 3.2, RFC 9113 section 8.3.1). Which one does not matter: proxies
/// send their own.
fn has_one_host(request: &Request) -> bool {
    match request.headers().get_all(header::HOST).iter().count() {
        1 => true,
        0 => match request.version() {
            Version::HTTP_09 | Version::HTTP_10 => true,
            Version::HTTP_11 => false,
            _ => request.uri().authority().is_some(),
        },
        _ => false,
    }
}

/// Where a request comes from. A forwarding header that does not count is counted, and said once.
fn client_ip(service: &Service, active: &ActiveConfig, request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    let (ip, fault) = client_ip::client_ip(&active.config.trusted_proxies, peer, request.headers());
    if let Some(fault) = fault {
        service.metrics.forwarding_fault(fault.name());
        if active.said.first(fault.name()) {
            service.log.event("forwarding", &fault.explain(peer));
        }
    }
    ip
}
