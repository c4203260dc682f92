//! The check as a tower layer, for axum and other servers built on tower. Feature `tower`.

use crate::public_url::PublicUrl;
use crate::replay::{MemoryReplayStore, ReplayStore};
use crate::time::UnixTime;
use crate::verifier::{Body, Challenge, Demands, Error, NONCE_HEADER, Request, Verified, Verifier, joined_values};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::json;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

/// After which time a client that used too many proofs may try again. Each proof is remembered for a minute or two.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("10");

/// Lets good requests pass, with [`Verified`] among their extensions, and rejects the others: `401` with a
/// `WWW-Authenticate: DPoP` challenge and a problem document (RFC 9457) whose member `code` is [`Error::code`].
///
/// Where the verifier has [`server_nonces`](crate::VerifierBuilder::server_nonces), each response has `DPoP-Nonce`, and
/// `Access-Control-Expose-Headers` for it.
///
/// Put it inside the layer that handles CORS preflights (they carry no token), and outside of path rewriting:
/// the path that it sees must be the one that clients request, up to the path of a [`PublicUrl`]. Inside axum's `nest`,
/// which takes the prefix off, it sees the whole path if the feature `axum` is on.
pub struct ApproovLayer<S = MemoryReplayStore> {
    verifier: Arc<Verifier<S>>,
    settings: Settings,
}

#[derive(Clone)]
struct Settings {
    public_urls: Vec<PublicUrl>,
    body_limit: usize,
    bound_headers: Vec<HeaderName>,
    nonces: Option<NonceSource>,
    rules: Vec<Rule>,
    monitor: Option<Report>,
    query_required: bool,
    clock: Clock,
}

type Clock = Arc<dyn Fn() -> UnixTime + Send + Sync>;
type NonceSource = Arc<dyn Fn() -> HeaderValue + Send + Sync>;
type Report = Arc<dyn Fn(&Error, &Parts) + Send + Sync>;
type Rule = Arc<dyn Fn(&Verified, &Parts) -> Result<(), Refusal> + Send + Sync>;

/// Among the extensions of a request that was let pass, without [`Verified`], because the layer only
/// [monitors](ApproovLayer::monitor): why it would have been refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WouldFail(pub Error);

/// Why a rule of the application refuses a request that is good otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: &'static str,
    detail: &'static str,
}

impl Refusal {
    /// A refusal with a stable name for programs and a sentence for people, both sent to the client with `403`.
    #[must_use]
    pub const fn new(code: &'static str, detail: &'static str) -> Self {
        Self { code, detail }
    }
}

impl<S> ApproovLayer<S> {
    /// A layer for a server that clients find at these URLs. Of several, the `Host` of a request selects one.
    #[must_use]
    pub fn new(verifier: Verifier<S>, public_urls: impl IntoIterator<Item = PublicUrl>) -> Self {
        Self {
            verifier: Arc::new(verifier),
            settings: Settings {
                public_urls: public_urls.into_iter().collect(),
                body_limit: 1 << 20,
                bound_headers: Vec::new(),
                nonces: None,
                rules: Vec::new(),
                monitor: None,
                query_required: false,
                clock: Arc::new(UnixTime::now),
            },
        }
    }

    /// The longest body that is read to compare it with a proof's `msgs`, in bytes; a longer one is rejected with
    /// `413`. Bodies that no proof covers pass unread. Default: 1 MiB.
    #[must_use]
    pub const fn body_limit(mut self, bytes: usize) -> Self {
        self.settings.body_limit = bytes;
        self
    }

    /// Demands that tokens are bound (`pay`) to the value of a header. Given several times: to their values, one
    /// after the other with nothing between, as Approov's own integrations join them: so name headers whose values
    /// cannot be cut elsewhere. A request that lacks one of them is refused.
    #[must_use]
    pub fn bound_to_header(mut self, name: HeaderName) -> Self {
        self.settings.bound_headers.push(name);
        self
    }

    /// [`ApproovLayer::bound_to_header`] for `Authorization`.
    #[must_use]
    pub fn bound_to_authorization(self) -> Self {
        self.bound_to_header(AUTHORIZATION)
    }

    /// Demands that a proof for a URL with a query covers the query by `htq`: what
    /// [`QueryPolicy::Required`](crate::QueryPolicy::Required) does, for the routes behind this layer.
    #[must_use]
    pub const fn require_query(mut self) -> Self {
        self.settings.query_required = true;
        self
    }

    /// Sends a nonce in `DPoP-Nonce` with each challenge that asks for one (RFC 9449 section 9). For verifiers
    /// with a [`nonce_check`](crate::VerifierBuilder::nonce_check); those with
    /// [`server_nonces`](crate::VerifierBuilder::server_nonces) have nonces of their own, and need nothing here.
    #[must_use]
    pub fn nonces(mut self, source: impl Fn() -> HeaderValue + Send + Sync + 'static) -> Self {
        self.settings.nonces = Some(Arc::new(source));
        self
    }

    /// Refuses nothing but what the application's own [rules](Self::rule) refuse: for the time in which clients are not all
    /// of the version that sends tokens. What would have been refused is reported, and passes with [`WouldFail`] among its
    /// extensions in place of [`Verified`]. A body that is too long to be compared is still refused.
    #[must_use]
    pub fn monitor(mut self, report: impl Fn(&Error, &Parts) + Send + Sync + 'static) -> Self {
        self.settings.monitor = Some(Arc::new(report));
        self
    }

    /// The clock, for tests. Default: [`UnixTime::now`].
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        self.settings.clock = Arc::new(now);
        self
    }

    /// Adds a rule of the application, such as "mobile only" or "this visitor only". Rules see requests that passed
    /// all checks, in the order in which they were added; the first refusal becomes a `403`.
    #[must_use]
    pub fn rule(mut self, rule: impl Fn(&Verified, &Parts) -> Result<(), Refusal> + Send + Sync + 'static) -> Self {
        self.settings.rules.push(Arc::new(rule));
        self
    }
}

impl<S> fmt::Debug for ApproovLayer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { public_urls, body_limit, bound_headers, .. } = &self.settings;
        f.debug_struct("ApproovLayer")
            .field("public_urls", public_urls)
            .field("body_limit", body_limit)
            .field("bound_headers", bound_headers)
            .finish_non_exhaustive()
    }
}

impl<S> Clone for ApproovLayer<S> {
    fn clone(&self) -> Self {
        Self { verifier: Arc::clone(&self.verifier), settings: self.settings.clone() }
    }
}

impl<S, I> Layer<I> for ApproovLayer<S> {
    type Service = ApproovService<I, S>;

    fn layer(&self, inner: I) -> Self::Service {
        ApproovService { inner, verifier: Arc::clone(&self.verifier), settings: Arc::new(self.settings.clone()) }
    }
}

/// The service that [`ApproovLayer`] makes.
pub struct ApproovService<I, S = MemoryReplayStore> {
    inner: I,
    verifier: Arc<Verifier<S>>,
    settings: Arc<Settings>,
}

impl<I: fmt::Debug, S> fmt::Debug for ApproovService<I, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApproovService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<I: Clone, S> Clone for ApproovService<I, S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), verifier: Arc::clone(&self.verifier), settings: Arc::clone(&self.settings) }
    }
}

impl<I, S, B, R> Service<http::Request<B>> for ApproovService<I, S>
where
    I: Service<http::Request<B>, Response = Response<R>> + Clone + Send + 'static,
    I::Future: Send,
    S: ReplayStore + 'static,
    B: http_body::Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
    R: From<Bytes>,
{
    type Response = Response<R>;
    type Error = I::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, I::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), I::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // The service that was polled ready serves this request; its clone waits for the next.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let (verifier, settings) = (Arc::clone(&self.verifier), Arc::clone(&self.settings));
        Box::pin(async move {
            let mut response = match admit(&verifier, &settings, request, (settings.clock)()).await {
                Ok(request) => inner.call(request).await?,
                Err(problem) => problem.into_response(&settings),
            };
            if let Some(nonce) = verifier.dpop_nonce((settings.clock)()) {
                offer_nonce(response.headers_mut(), nonce);
            }
            Ok(response)
        })
    }
}

/// Adds a nonce to a response, and lets pages of other origins read it, and the challenge along with it.
fn offer_nonce(headers: &mut HeaderMap, nonce: HeaderValue) {
    // An application that is an authorization server itself may have set one.
    headers.entry(NONCE_HEADER).or_insert(nonce);
    headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("DPoP-Nonce, WWW-Authenticate"));
}

/// Checks a request and notes in its extensions what was found.
async fn admit<S, B>(
    verifier: &Verifier<S>,
    settings: &Settings,
    request: http::Request<B>,
    now: UnixTime,
) -> Result<http::Request<B>, Problem>
where
    S: ReplayStore,
    B: http_body::Body<Data = Bytes> + From<Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    let mut body = Some(body);
    match (examine(verifier, settings, &parts, &mut body, now).await, body) {
        (Ok(verified), Some(body)) => {
            parts.extensions.insert(verified);
            Ok(http::Request::from_parts(parts, body))
        }
        (Err(Problem::Unverified(error)), Some(body)) if settings.monitor.is_some() => {
            if let Some(report) = &settings.monitor {
                report(&error, &parts);
            }
            parts.extensions.insert(WouldFail(error));
            Ok(http::Request::from_parts(parts, body))
        }
        (Err(problem), _) => Err(problem),
        (Ok(_), None) => Err(Problem::BodyBroken),
    }
}

/// Checks a request. The body is there afterwards, unless it could not be read.
async fn examine<S, B>(
    verifier: &Verifier<S>,
    settings: &Settings,
    parts: &Parts,
    body: &mut Option<B>,
    now: UnixTime,
) -> Result<Verified, Problem>
where
    S: ReplayStore,
    B: http_body::Body<Data = Bytes> + From<Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let binding = settings.binding(&parts.headers);
    let request = Request {
        method: parts.method.as_str(),
        url: &settings.url(parts),
        headers: &parts.headers,
        body: Body::Unread,
        binding: binding.as_deref(),
    };
    let demands = Demands { binding: !settings.bound_headers.is_empty(), query: settings.query_required };
    let mut checked = verifier.check_with_keys(&request, demands, now).await?;
    match body.take_if(|_| checked.needs_body()) {
        Some(unread) => {
            let bytes = read(unread, settings.body_limit).await?;
            let verdict = checked.check_message(&Body::Bytes(&bytes));
            *body = Some(B::from(bytes));
            verdict?;
        }
        None => checked.check_message(&Body::Unread)?,
    }
    let verified = verifier.check_replay(checked).await?;
    for rule in &settings.rules {
        rule(&verified, parts).map_err(Problem::Refused)?;
    }
    Ok(verified)
}

async fn read<B>(body: B, limit: usize) -> Result<Bytes, Problem>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::BodyTooLarge),
        Err(_) => Err(Problem::BodyBroken),
    }
}

impl Settings {
    /// The URL as the client sees it; empty, which no proof fits, when the request was meant for no known one, or its
    /// target is one that [`PublicUrl::request_url`] refuses.
    fn url(&self, parts: &Parts) -> String {
        let uri = requested_uri(parts);
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let known =
            PublicUrl::of_request(&self.public_urls, uri.authority().map(http::uri::Authority::as_str).or(host));
        let target = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        known.and_then(|url| url.request_url(target).ok()).unwrap_or_default()
    }

    /// The data that the token must be bound to. `None` when it need not be bound, or a header is missing or repeated.
    fn binding(&self, headers: &HeaderMap) -> Option<Vec<u8>> {
        joined_values(headers, &self.bound_headers).filter(|_| !self.bound_headers.is_empty())
    }
}

/// The URI of a request as it arrived. axum's `nest` takes the prefix off the path, and keeps the whole in an extension.
fn requested_uri(parts: &Parts) -> &http::Uri {
    #[cfg(feature = "axum")]
    if let Some(axum::extract::OriginalUri(uri)) = parts.extensions.get() {
        return uri;
    }
    &parts.uri
}

/// Why the layer responds itself.
#[derive(Debug)]
enum Problem {
    Unverified(Error),
    Refused(Refusal),
    BodyTooLarge,
    BodyBroken,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Unverified(error)
    }
}

impl Problem {
    fn into_response<R: From<Bytes>>(self, settings: &Settings) -> Response<R> {
        let (status, code, detail) = match &self {
            Self::Unverified(error) => (error.status(), error.code(), error.public_detail()),
            Self::Refused(refusal) => (403, refusal.code, refusal.detail.to_owned()),
            Self::BodyTooLarge => (413, "body_too_large", "the body is too long to be checked".to_owned()),
            Self::BodyBroken => (400, "body_unreadable", "the body could not be read".to_owned()),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = status.canonical_reason().unwrap_or_default();
        let problem =
            json!({"type": "about:blank", "title": title, "status": status.as_u16(), "code": code, "detail": detail});
        let mut response = Response::new(R::from(Bytes::from(problem.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::Unverified(Error::TooManyProofs)) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Self::Unverified(error) = &self
            && let Some(challenge) = error.challenge()
        {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge.header_value()));
            if challenge == Challenge::UseDpopNonce
                && let Some(source) = &settings.nonces
            {
                headers.insert(NONCE_HEADER, source());
            }
        }
        response
    }
}
