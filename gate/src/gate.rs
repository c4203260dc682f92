//! One question of a gateway, and the verdict.

use crate::config::{Bodies, Preflights, Rules, StoreConfig};
use crate::original::{NoQuestion, Original, body_is_cut};
use crate::policy::{Access, Scope, can_be_read_in_one_way};
use crate::response::{ResponseBody, for_pages, pass, problem, refuse};
use approov_verify::jwks::http_fetcher;
use approov_verify::redis::RedisReplayStore;
use approov_verify::replay::{MemoryReplayStore, ReplayCheck, ReplayEntry, ReplayStore, StoreError};
use approov_verify::time::UnixTime;
use approov_verify::uri::HttpUri;
use approov_verify::{Body, Error, PROOF_HEADER, PublicUrl, Request as Checked, TOKEN_HEADER, Verified, Verifier};
use approov_verify_face::cors::Cors;
use bytes::Bytes;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

/// Where used proofs are remembered.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process.
    Memory(Arc<MemoryReplayStore>),
    /// In Redis, for several.
    Redis(Box<RedisReplayStore>),
}

impl Store {
    /// The store that a configuration names.
    ///
    /// # Errors
    /// When Redis is not there, or forgets what it must not.
    pub async fn open(config: &StoreConfig) -> Result<Self, String> {
        let Some(url) = &config.redis else {
            return Ok(Self::Memory(Arc::new(MemoryReplayStore::with_capacity(config.capacity))));
        };
        let timeout = Duration::from_millis(config.timeout_ms);
        let store = RedisReplayStore::connect(url, config.prefix.clone(), timeout).await;
        let store = store.map_err(|error| format!("store.redis: {error}"))?;
        Ok(Self::Redis(Box::new(store.capacity(config.capacity))))
    }
}

impl ReplayStore for Store {
    async fn remember(&self, entry: ReplayEntry, now: UnixTime) -> Result<ReplayCheck, StoreError> {
        match self {
            Self::Memory(store) => store.remember_now(entry, now),
            Self::Redis(store) => store.remember(entry, now).await,
        }
    }
}

/// Decides what gateways ask.
pub struct Gate {
    public_urls: Vec<PublicUrl>,
    /// What paths are joined to where only they count: policies are about those below a public URL's own, as a backend sees them.
    nowhere: PublicUrl,
    bodies: Bodies,
    body_limit: usize,
    preflights: Preflights,
    cors: Option<Cors>,
    /// The default one is last, and for every request.
    policies: Vec<Policy>,
}

struct Policy {
    name: String,
    scope: Option<Scope>,
    access: Access,
    monitor: bool,
    verifier: Verifier<Store>,
}

/// A verdict.
#[derive(Debug)]
pub struct Decision {
    /// What was asked about, if it was a question.
    pub original: Option<Original>,
    /// The policy that it is under; empty: none.
    pub policy: String,
    /// `ok`, `open`, `preflight`, or the code of a refusal.
    pub code: &'static str,
    /// More about it, for logs.
    pub detail: Option<String>,
    /// What the gateway gets.
    pub response: Response<ResponseBody>,
}

impl Gate {
    /// A gate with these rules, which remembers used proofs in this store.
    ///
    /// # Errors
    /// What of the rules cannot be.
    pub fn new(rules: Rules, store: &Store) -> Result<Self, String> {
        let mut policies = Vec::new();
        for policy in rules.policies {
            let mut builder = policy.options.builder()?;
            if let Some(url) = policy.options.jwks_url() {
                builder = builder.jwks(url, http_fetcher()?);
            }
            let verifier = builder.replay_store(store.clone()).build().map_err(|error| error.to_string())?;
            let (name, scope, access, monitor) = (policy.name, policy.scope, policy.access, policy.monitor);
            policies.push(Policy { name, scope, access, monitor, verifier });
        }
        let nowhere = PublicUrl::parse("http://path.invalid").map_err(|error| error.to_string())?;
        let (public_urls, bodies, body_limit) = (rules.public_urls, rules.bodies, rules.body_limit);
        Ok(Self { public_urls, nowhere, bodies, body_limit, preflights: rules.preflights, cors: rules.cors, policies })
    }

    /// Decides a question.
    pub async fn decide<B>(&self, request: Request<B>, now: UnixTime) -> Decision
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let original = match Original::of(&request) {
            Ok(original) => original,
            Err(no) => return no_question(no),
        };
        let (parts, body) = request.into_parts();
        let mut nonce = None;
        let (policy, verdict) = if self.preflights == Preflights::Pass && is_preflight(&original.method, &parts.headers)
        {
            (String::new(), Verdict::pass("preflight", None))
        } else {
            match self.policy(&original) {
                Err(refusal) => (String::new(), refusal),
                Ok((policy, url)) => {
                    nonce = policy.verifier.dpop_nonce(now);
                    let verdict = match policy.access {
                        Access::Open => Verdict::pass("open", None),
                        Access::Verify => self.check(policy, &original, &url, &parts.headers, body, now).await,
                    };
                    (policy.name.clone(), verdict)
                }
            }
        };
        let mut response = match &verdict.outcome {
            Outcome::Pass { verified, would_fail } => pass(&policy, verified.as_deref(), *would_fail),
            Outcome::Refuse(error) => refuse(error),
            Outcome::Problem(status, detail) => problem(*status, verdict.code, detail),
        };
        let passes = matches!(verdict.outcome, Outcome::Pass { .. });
        for_pages(&mut response, nonce, self.cors_fields(&parts.headers, passes));
        Decision { original: Some(original), policy, code: verdict.code, detail: verdict.detail, response }
    }

    /// The policy for a request, and the request's URL as its client sees it: empty, which no proof fits, when there is none.
    fn policy(&self, original: &Original) -> Result<(&Policy, String), Verdict> {
        let known = PublicUrl::of_request(&self.public_urls, original.host.as_deref());
        let url = known.and_then(|url| url.request_url(&original.target).ok()).unwrap_or_default();
        let Some((default, special)) = self.policies.split_last() else {
            let why = "there is no policy".to_owned();
            return Err(Verdict::problem(StatusCode::INTERNAL_SERVER_ERROR, "no_policy", why));
        };
        if special.is_empty() {
            return Ok((default, url));
        }
        let path = known.and_then(|_| self.nowhere.request_url(&original.target).ok());
        let path = path.and_then(|url| HttpUri::of_request(&url).ok());
        match path.filter(|path| can_be_read_in_one_way(path.path())) {
            Some(path) => {
                let method = original.method.as_str();
                let fits = |policy: &&Policy| policy.scope.as_ref().is_some_and(|scope| scope.has(method, path.path()));
                Ok((special.iter().find(fits).unwrap_or(default), url))
            }
            None => {
                let why = "the request's path can be read in more than one way, or its host is unknown".to_owned();
                Err(Verdict::problem(StatusCode::FORBIDDEN, "path_ambiguous", why))
            }
        }
    }

    async fn check<B>(
        &self,
        policy: &Policy,
        original: &Original,
        url: &str,
        headers: &HeaderMap,
        body: B,
        now: UnixTime,
    ) -> Verdict
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        // Without a proof nothing says what the body must be.
        let bytes = match self.bodies {
            Bodies::Forwarded if headers.contains_key(PROOF_HEADER) => match self.read(headers, body).await {
                Ok(bytes) => Some(bytes),
                Err(refusal) => return refusal,
            },
            _ => None,
        };
        let body = bytes.as_ref().map_or(Body::Unread, |bytes| Body::Bytes(bytes));
        let request = Checked { method: original.method.as_str(), url, headers, body, binding: None };
        match policy.verifier.verify(&request, now).await {
            Ok(verified) => match verified.would_fail.clone() {
                Some(error) => Verdict::monitored(&error, Some(verified)),
                None => Verdict::pass("ok", Some(verified)),
            },
            Err(error) if policy.monitor => Verdict::monitored(&error, None),
            Err(error) => {
                Verdict { code: error.code(), detail: Some(error.to_string()), outcome: Outcome::Refuse(error) }
            }
        }
    }

    async fn read<B>(&self, headers: &HeaderMap, body: B) -> Result<Bytes, Verdict>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let too_long = || {
            let why = "the body is too long to be checked".to_owned();
            Verdict::problem(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", why)
        };
        if body_is_cut(headers) {
            return Err(too_long());
        }
        match Limited::new(body, self.body_limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
            Err(error) => {
                let why = "the body could not be read".to_owned();
                let verdict = Verdict::problem(StatusCode::BAD_REQUEST, "body_unreadable", why);
                Err(Verdict { detail: Some(error.to_string()), ..verdict })
            }
        }
    }

    /// Pages read refusals, which come from here. What the backend sends it sends with headers of its own.
    fn cors_fields(&self, headers: &HeaderMap, passes: bool) -> Vec<(String, String)> {
        let Some(cors) = self.cors.as_ref().filter(|_| !passes) else { return Vec::new() };
        let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
        let text = |value: serde_json::Value| value.as_str().map(str::to_owned);
        cors.fields(origin).into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
    }
}

struct Verdict {
    code: &'static str,
    detail: Option<String>,
    outcome: Outcome,
}

enum Outcome {
    Pass { verified: Option<Box<Verified>>, would_fail: Option<&'static str> },
    Refuse(Error),
    Problem(StatusCode, String),
}

impl Verdict {
    fn pass(code: &'static str, verified: Option<Verified>) -> Self {
        let verified = verified.map(Box::new);
        Self { code, detail: None, outcome: Outcome::Pass { verified, would_fail: None } }
    }

    fn monitored(error: &Error, verified: Option<Verified>) -> Self {
        let detail = Some(format!("would fail: {}: {error}", error.code()));
        Self {
            code: "monitored",
            detail,
            outcome: Outcome::Pass { verified: verified.map(Box::new), would_fail: Some(error.code()) },
        }
    }

    const fn problem(status: StatusCode, code: &'static str, detail: String) -> Self {
        Self { code, detail: None, outcome: Outcome::Problem(status, detail) }
    }
}

fn no_question(no: NoQuestion) -> Decision {
    let (code, status, detail) = match no {
        NoQuestion::NotFound => ("not_found", StatusCode::NOT_FOUND, "there is nothing here".to_owned()),
        NoQuestion::Incomplete(why) => ("incomplete_question", StatusCode::INTERNAL_SERVER_ERROR, why),
    };
    // What is wrong with a gateway's configuration is for its operator, and gateways pass refusals on to clients.
    let said = if status.is_server_error() { "the request cannot be checked at the moment" } else { &detail };
    let response = problem(status, code, said);
    Decision { original: None, policy: String::new(), code, detail: Some(detail), response }
}

/// What browsers send before a page's own request (Fetch Standard, section "CORS-preflight fetch"): it has no token and no body.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    let has_body = headers.contains_key(http::header::TRANSFER_ENCODING)
        || headers.get_all(http::header::CONTENT_LENGTH).iter().any(|length| length != "0");
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        && !headers.contains_key(TOKEN_HEADER)
        && !headers.contains_key(PROOF_HEADER)
        && !has_body
}
