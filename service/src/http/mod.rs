//! The HTTP face: routes, cross-origin answers, limits, request ids, and one log line per request.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use approov_verify::time::UnixTime;
use approov_verify::uri::HttpUri;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower::ServiceExt as _;

use crate::attest::{self, Form, Incoming, Live, Service, Trace};
use crate::crypto::RequestEntropy;
use crate::error::{Code, Refusal};
use crate::store::Store as _;
use crate::telemetry::{RequestLine, millis};
use crate::time::http_date;

const DPOP: &str = "dpop";
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
/// How long browsers may keep a preflight answer, seconds. Chromium keeps none longer.
const PREFLIGHT_AGE: &str = "7200";
/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Headers that an answer gets, so that their table is made once.
const ANSWER_HEADERS: usize = 12;

/// The address of the connection's other end; the accept loop adds it to every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// In an answer's extensions: the connection closes instead of sending it.
#[derive(Clone, Copy, Debug)]
pub struct CloseConnection;

/// What the log says about an answer; handlers leave it in the answer's extensions.
#[derive(Clone, Default)]
struct Told {
    outcome: &'static str,
    codes: Vec<&'static str>,
    checks: Vec<String>,
    arc: Option<String>,
    detail: Option<String>,
}

/// Answers every request to the service.
///
/// `/attest` is nearly all that is ever asked for, so it is answered before any route is looked for: each layer of
/// routes copies its service and takes a future of its own from the heap.
#[derive(Clone)]
pub struct Face {
    service: Arc<Service>,
    others: Router,
}

impl Face {
    /// `more` are routes of the development mode.
    pub fn new(service: Arc<Service>, more: Router<Arc<Service>>) -> Self {
        let others = Router::new()
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/openapi.json", get(description))
            .merge(more)
            .fallback(not_found)
            .with_state(Arc::clone(&service));
        Self { service, others }
    }
}

impl tower::Service<Request> for Face {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let face = self.clone();
        Box::pin(async move { Ok(observe(&face, request).await) })
    }
}

/// What is known of a request before it is answered.
struct Seen<'a> {
    service: &'a Service,
    /// The configuration that it keeps to its end.
    live: &'a Live,
    now: UnixTime,
    /// The browser's address.
    ip: IpAddr,
    origin: Option<&'a str>,
}

/// Gives every request an id, an end in bounded time, and a line in the log.
async fn observe(face: &Face, request: Request) -> Response {
    let service = &*face.service;
    let begun = Instant::now();
    let live = service.live();
    let id = service.request_id();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let seen = Seen {
        service,
        live: &live,
        now: service.now(),
        ip: client_ip(&live, &request),
        origin: origin.as_ref().and_then(|origin| origin.to_str().ok()),
    };
    let answer = pin!(async {
        match uri.path() {
            "/attest" => attest(&seen, request).await,
            // Rare, so on the heap: every request makes room for what may be awaited here.
            _ => Box::pin(face.others.clone().oneshot(request)).await.into_response(),
        }
    });
    let mut response = match tokio::time::timeout(live.config.limits.request, answer).await {
        Ok(response) => response,
        Err(_) => {
            let mut refusal = Refusal::new(Code::Unavailable, "out of time");
            refusal.retry_after = Some(1);
            let mut response = refused(&refusal, Trace::default());
            cross_origin(&seen, response.headers_mut());
            response
        }
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let told = response.extensions_mut().remove::<Told>().unwrap_or_else(|| {
        let outcome = if uri.path().starts_with("/sim/") { "simulator" } else { "other" };
        Told { outcome, ..Told::default() }
    });
    let (status, time) = (response.status().as_u16(), begun.elapsed());
    service.metrics.request(told.outcome, status, &told.codes, time);
    service.log.request(
        seen.now,
        &RequestLine {
            id: &id,
            method: method.as_str(),
            path: uri.path(),
            status,
            outcome: told.outcome,
            ms: millis(time),
            ip: seen.ip,
            origin: seen.origin,
            codes: &told.codes,
            checks: &told.checks,
            arc: told.arc.as_deref(),
            detail: told.detail.as_deref(),
        },
    );
    response
}

/// `/attest`: preflight, nonce request and attest request.
async fn attest(seen: &Seen<'_>, request: Request) -> Response {
    let asks = matches!(*request.method(), Method::GET | Method::POST);
    let entropy = if asks { RequestEntropy::draw().ok() } else { None };
    let mut response = match (request.method(), entropy) {
        (&Method::OPTIONS, _) => preflight(seen),
        (&Method::GET, Some(entropy)) => nonce_request(seen, &request, entropy),
        (&Method::POST, Some(entropy)) => attest_request(seen, request, entropy).await,
        (&Method::GET | &Method::POST, None) => {
            refused(&Refusal::new(Code::Unavailable, "there are no random numbers"), Trace::default())
        }
        _ => {
            let mut response = StatusCode::METHOD_NOT_ALLOWED.into_response();
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST, OPTIONS"));
            response
        }
    };
    let headers = response.headers_mut();
    if let Ok(date) = HeaderValue::try_from(http_date(seen.now)) {
        headers.insert(header::DATE, date);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(entropy) = entropy
        && let Ok(nonce) =
            HeaderValue::try_from(seen.live.issue_nonce(seen.now, seen.service.store.epoch(), entropy.nonce))
    {
        headers.insert(DPOP_NONCE, nonce);
    }
    cross_origin(seen, headers);
    response
}

fn preflight(seen: &Seen<'_>) -> Response {
    if let Some(origin) = seen.origin.filter(|origin| !seen.live.some_account_allows(origin)) {
        return refused(&Refusal::new(Code::OriginNotAllowed, origin), Trace::default());
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("dpop, content-type"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE));
    tell(&mut response, "preflight", Trace::default());
    response
}

fn nonce_request(seen: &Seen<'_>, request: &Request, entropy: RequestEntropy) -> Response {
    let mut trace = Trace::default();
    let outcome = (|| {
        if request.uri().query().is_some_and(|query| !query.is_empty()) {
            return Err(Refusal::new(Code::IllegalParams, "a nonce request has no parameters"));
        }
        let url = seen_url(seen, request.uri(), request.headers())?;
        let proofs = proofs(request.headers());
        let incoming = Incoming {
            method: "GET",
            url: &url,
            proofs: &proofs,
            origin: seen.origin,
            client_ip: seen.ip,
            now: seen.now,
            entropy,
        };
        attest::check_nonce_request(&incoming, &mut trace)
    })();
    match outcome {
        Ok(()) => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            tell(&mut response, "nonce", trace);
            response
        }
        Err(refusal) => refused(&refusal, trace),
    }
}

async fn attest_request(seen: &Seen<'_>, request: Request, entropy: RequestEntropy) -> Response {
    let mut trace = Trace::default();
    let (parts, body) = request.into_parts();
    let body = read_body(body, &parts.headers, seen.live.config.limits.body_bytes).await;
    let form = match &body {
        Ok(body) => Form::read(parts.uri.query(), text(&parts.headers, header::CONTENT_TYPE), body),
        Err(refusal) => Err(refusal.clone()),
    };
    let url = match seen_url(seen, &parts.uri, &parts.headers) {
        Ok(url) => url,
        Err(refusal) => return refused(&refusal, trace),
    };
    let incoming = Incoming {
        method: "POST",
        url: &url,
        proofs: &proofs(&parts.headers),
        origin: seen.origin,
        client_ip: seen.ip,
        now: seen.now,
        entropy,
    };
    match attest::attest(seen.service, seen.live, form, &incoming, &mut trace).await {
        Err(refusal) => refused(&refusal, trace),
        Ok(granted) => {
            let Ok(body) = granted.to_json() else {
                return refused(&Refusal::new(Code::Unavailable, "tokens could not be made"), trace);
            };
            let mut response = json(StatusCode::OK, body);
            let outcome = match (granted.passed, granted.checked) {
                (false, _) => "failed-check",
                (true, true) => "token",
                (true, false) => "refreshed",
            };
            tell(&mut response, outcome, trace);
            response
        }
    }
}

async fn read_body(body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(Code::BodyTooLarge, format!("more than {limit} bytes"));
    let declared = text(headers, header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(Code::BodyReadFail, "the body ended early")),
        Err(_) => Err(Refusal::new(Code::BodyReadFail, "the body did not come in time")),
    }
}

/// The URL of a request as the browser sees it: what its proof is about.
fn seen_url(seen: &Seen<'_>, uri: &Uri, headers: &HeaderMap) -> Result<HttpUri, Refusal> {
    let path = uri.path();
    let text = match &seen.live.config.public_url {
        Some(public) => format!("{}{path}", public.as_str().trim_end_matches('/')),
        None => {
            let authority = uri.authority().map(|authority| authority.as_str());
            let host = authority.or_else(|| text(headers, header::HOST)).unwrap_or_default();
            [if seen.service.over_tls { "https://" } else { "http://" }, host, path].concat()
        }
    };
    HttpUri::parse(&text).map_err(|_| Refusal::new(Code::InvalidDpopToken, "the request's Host is not usable"))
}

fn proofs(headers: &HeaderMap) -> Vec<&str> {
    // A header that is not text counts: as one that cannot be read.
    headers.get_all(DPOP).iter().map(|value| value.to_str().unwrap_or_default()).collect()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The browser's address: the peer, or what the trusted proxies in front say.
fn client_ip<B>(live: &Live, request: &axum::http::Request<B>) -> IpAddr {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    let proxies = live.config.trusted_proxies;
    if proxies == 0 {
        return peer.to_canonical();
    }
    let forwarded: Vec<&str> = request
        .headers()
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let ip = forwarded.len().checked_sub(proxies).and_then(|at| forwarded.get(at));
    // Some proxies write the port, too.
    let parse = |text: &&str| text.parse().ok().or_else(|| text.parse().ok().map(|peer: SocketAddr| peer.ip()));
    ip.and_then(parse).unwrap_or(peer).to_canonical()
}

/// Cross-origin headers. Nothing here depends on cookies, so reading is allowed to every page that
/// some account serves, refusals included: a page must be able to learn why it was refused.
fn cross_origin(seen: &Seen<'_>, headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = seen.origin.filter(|origin| seen.live.some_account_allows(origin)) else {
        return;
    };
    let Ok(origin) = HeaderValue::from_str(origin) else {
        return;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(TIMING_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("DPoP-Nonce, Date, Retry-After"));
}

fn refused(refusal: &Refusal, trace: Trace) -> Response {
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
    tell(&mut response, "refused", trace);
    if let Some(told) = response.extensions_mut().get_mut::<Told>() {
        told.codes = refusal.codes().map(|(code, _)| code.name()).collect();
    }
    response
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(ANSWER_HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn tell(response: &mut Response, outcome: &'static str, trace: Trace) {
    response.extensions_mut().insert(Told {
        outcome,
        codes: Vec::new(),
        checks: trace.checks,
        arc: trace.arc,
        detail: trace.detail,
    });
}

async fn health() -> Response {
    plain(StatusCode::OK, "ok\n", "health")
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    match service.store.ready().await {
        Ok(()) => plain(StatusCode::OK, "ready\n", "health"),
        Err(_) => {
            service.metrics.store_error();
            plain(StatusCode::SERVICE_UNAVAILABLE, "the store is away\n", "health")
        }
    }
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let text = service.metrics.render(service.now());
    let mut response = ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response();
    tell(&mut response, "metrics", Trace::default());
    response
}

/// The OpenAPI description of these routes.
pub const OPENAPI: &str = include_str!("../../openapi.json");

async fn description() -> Response {
    let mut response = json(StatusCode::OK, OPENAPI.to_owned());
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    tell(&mut response, "description", Trace::default());
    response
}

async fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "not found\n", "not-found")
}

fn plain(status: StatusCode, text: &'static str, outcome: &'static str) -> Response {
    let mut response = (status, text).into_response();
    tell(&mut response, outcome, Trace::default());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_description_knows_every_error_code_and_every_parameter() {
        let description: Value = serde_json::from_str(OPENAPI).unwrap();
        let schemas = &description["components"]["schemas"];
        let listed: Vec<&str> =
            schemas["ErrorCode"]["enum"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
        assert_eq!(listed, Code::ALL.iter().map(|code| code.name()).collect::<Vec<_>>());
        let mut params: Vec<&str> = crate::provider::Provider::ALL
            .iter()
            .flat_map(|provider| provider.params().iter().map(|(name, ..)| *name))
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
        let answers = &description["paths"]["/attest"]["post"]["responses"];
        for code in Code::ALL {
            assert!(answers.get(code.status().to_string()).is_some(), "{code}");
        }
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
