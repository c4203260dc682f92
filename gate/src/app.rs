//! The HTTP face: routes, request ids, and one log line for each request.

use crate::gate::{Decision, Gate};
use crate::metrics::Metrics;
use crate::response::{ResponseBody, problem};
use approov_listener::body::RequestBody;
use approov_listener::log::{Log, Notes, RequestIds, RequestLine, millis};
use approov_listener::metrics::Metrics as ListenerMetrics;
use approov_listener::service::Peer;
use approov_listener::shutdown::Phase;
use approov_verify::time::UnixTime;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN};
use http::{Request, Response, StatusCode};
use ipnet::IpNet;
use serde::Serialize;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};
use tokio::sync::watch;
use tower_service::Service;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a running gate consists of.
pub struct State {
    active: RwLock<Arc<Active>>,
    /// Where it says what became of requests.
    pub log: Log,
    /// What it counts.
    pub metrics: Metrics,
    /// What its listener counts.
    pub listener: Arc<ListenerMetrics>,
    ids: RequestIds,
}

/// What a configuration puts in force.
pub struct Active {
    /// Decides.
    pub gate: Gate,
    /// Who may ask.
    pub trusted_peers: Vec<IpNet>,
}

impl State {
    /// A gate that begins with this.
    #[must_use]
    pub fn new(active: Active, log: Log) -> Self {
        Self {
            active: RwLock::new(Arc::new(active)),
            log,
            metrics: Metrics::default(),
            listener: Arc::default(),
            ids: RequestIds::default(),
        }
    }

    /// What is in force now.
    #[must_use]
    pub fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts something else in force. Requests keep what they began with.
    pub fn activate(&self, active: Active) {
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(active);
    }

    /// Whether an address is a gateway's.
    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.active().trusts(ip)
    }
}

impl Active {
    fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted_peers.iter().any(|network| network.contains(&ip))
    }
}

/// Serves gateways.
#[derive(Clone)]
pub struct App {
    state: Arc<State>,
    phases: watch::Receiver<Phase>,
}

/// Serves operators: metrics and health.
#[derive(Clone)]
pub struct Operations {
    state: Arc<State>,
    phases: watch::Receiver<Phase>,
}

type Responding = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

impl App {
    /// Serves until `phases` say otherwise.
    #[must_use]
    pub const fn new(state: Arc<State>, phases: watch::Receiver<Phase>) -> Self {
        Self { state, phases }
    }
}

impl Operations {
    /// Serves until `phases` say otherwise.
    #[must_use]
    pub const fn new(state: Arc<State>, phases: watch::Receiver<Phase>) -> Self {
        Self { state, phases }
    }
}

impl Service<Request<RequestBody>> for App {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Responding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Responding {
        let app = self.clone();
        Box::pin(async move {
            Ok(match health(request.uri().path(), &app.phases) {
                Some(response) => response,
                None => respond(&app.state, request).await,
            })
        })
    }
}

impl Service<Request<RequestBody>> for Operations {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Responding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Responding {
        let path = request.uri().path();
        let response = match path {
            "/metrics" => {
                let mut text = String::new();
                self.state.metrics.render(&mut text);
                self.state.listener.render(&mut text);
                self.state.log.render(&mut text);
                plain(StatusCode::OK, text, "text/plain; version=0.0.4")
            }
            _ => health(path, &self.phases)
                .unwrap_or_else(|| problem(StatusCode::NOT_FOUND, "not_found", "there is nothing here")),
        };
        Box::pin(std::future::ready(Ok(response)))
    }
}

fn plain(status: StatusCode, text: String, kind: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `/healthz`: the process lives. `/readyz`: it takes new questions.
fn health(path: &str, phases: &watch::Receiver<Phase>) -> Option<Response<ResponseBody>> {
    match path {
        "/healthz" => Some(plain(StatusCode::OK, "ok\n".to_owned(), "text/plain")),
        "/readyz" => Some(match *phases.borrow() {
            Phase::Running => plain(StatusCode::OK, "ok\n".to_owned(), "text/plain"),
            _ => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned(), "text/plain"),
        }),
        _ => None,
    }
}

/// What the log says of a question.
#[derive(Serialize)]
struct DecisionNotes<'a> {
    outcome: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    policy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl Notes for DecisionNotes<'_> {
    fn summary(&self) -> &str {
        self.outcome
    }

    fn remarks(&self) -> impl Iterator<Item = &str> {
        [Some(self.policy).filter(|policy| !matches!(*policy, "" | "default")), self.detail].into_iter().flatten()
    }
}

async fn respond(state: &State, request: Request<RequestBody>) -> Response<ResponseBody> {
    let (begun, time) = (Instant::now(), SystemTime::now());
    let active = state.active();
    let ip = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    let (asked_method, asked_path) = (request.method().clone(), request.uri().path().to_owned());
    let origin = request.headers().get(ORIGIN).cloned();
    let decision = if active.trusts(ip) {
        active.gate.decide(request, UnixTime::now()).await
    } else {
        let detail = format!("{ip} is not among trusted_peers");
        let response = problem(StatusCode::FORBIDDEN, "untrusted_peer", "only gateways may ask");
        Decision { original: None, policy: String::new(), code: "untrusted_peer", detail: Some(detail), response }
    };
    let Decision { original, policy, code, detail, mut response } = decision;
    let id = state.ids.next_id();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let taken = begun.elapsed();
    state.metrics.verdict(&policy, code, taken);
    let path = original.as_ref().map_or(asked_path.as_str(), |original| {
        original.target.split_once('?').map_or(original.target.as_str(), |(path, _)| path)
    });
    state.log.request(
        time,
        &RequestLine {
            id: &id,
            method: original.as_ref().map_or(&asked_method, |original| &original.method).as_str(),
            path,
            status: response.status().as_u16(),
            ms: millis(taken),
            ip,
            origin: origin.as_ref().and_then(|origin| origin.to_str().ok()),
            notes: &DecisionNotes {
                outcome: code,
                policy: &policy,
                host: original.as_ref().and_then(|original| original.host.as_deref()),
                detail: detail.as_deref(),
            },
        },
    );
    response
}
