//! One session, from `initializeSession` to its end: which token a call gets, what has to be requested, and what responses change.
//!
//! ```text
//!            tokens for check results                    the expiry has passed, or the
//!   Fresh ─────────────────────────────▶ Established ────────────────────────────────▶ Ended
//!   a call needs results                 ▲         │     refresh token was refused     every call fails
//!                                        └─────────┘
//!                             tokens for the refresh token, or for newer results
//! ```
//!
//! Nothing here waits or sends. A call of `fetchToken` becomes a [`Step`]; a request that a step asks for is a batch (`batch.rs`),
//! which is open for more APIs until [`Session::seal`] turns it into a request body, and done with [`Session::complete`] or
//! [`Session::abandon`]:
//!
//! ```
//! use approov_web_sdk::config::{Config, SessionArguments};
//! use approov_web_sdk::argument::Argument;
//! use approov_web_sdk::session::{Pending, Session, Step};
//! use approov_web_sdk::time::{ClockReading, RoundTrip};
//! use approov_web_sdk::token_request::{TokenArguments, TokenRequest};
//! use approov_web_sdk::wire::Granted;
//!
//! let text = |value: &str| Argument::Text(value.to_owned());
//! let arguments = SessionArguments::default()
//!     .with("approovHost", text("web-1.approovr.io"))
//!     .with("approovSiteKey", text("site"))
//!     .with("recaptchaSiteKey", text("key"));
//! let mut session = Session::new(Config::parse(&arguments, None, |url| Some(format!("{url}/")))?);
//! let now = ClockReading { wall: 1_700_000_000_000, monotonic: 0 };
//!
//! let arguments = TokenArguments { api: text("api.example.com"), ..TokenArguments::default() };
//! let request = TokenRequest::parse(&arguments.with("recaptchaToken", text("result")), &session.config().checks)?;
//! let Step::Wait(Pending::New { batch, .. }) = session.request(&request, now)? else { panic!("there is no token yet") };
//! assert!(session.seal(batch)?.form.ends_with("recaptcha-token=result"));
//!
//! // The host sends the form, and reads the response: here a bare token.
//! let granted = Ok(Granted::Bare("token".into()));
//! let tokens = session.complete(batch, granted, RoundTrip::instant(now))?.expect("one request is all");
//! assert_eq!(tokens.get("api.example.com")?.expose(), "token");
//! # Ok::<(), approov_web_sdk::error::Error>(())
//! ```
//!
//! Late responses do no harm: a token is cached only while binding and check results are still those that it was requested for, and
//! a response continues the session only if no newer results have been accepted meanwhile. For that, the results have a version,
//! which every new result increments.

use crate::altcha::Challenge;
use crate::batch::{Batch, BatchId, Settlement, Tokens};
use crate::cache::{Cache, Lookup};
use crate::checks::{CheckKeys, Results};
use crate::config::Config;
use crate::error::{Code, Error};
use crate::secret::Secret;
use crate::small_map::SmallMap;
use crate::time::{ClockReading, RoundTrip, ServiceClock, ServiceTime, UnixMillis};
use crate::token_request::{Binding, TokenRequest};
use crate::wire::{Attest, Grant, Granted, Response, SESSION};

/// After a refresh in the background has failed, the next one waits this long, in milliseconds.
const REFRESH_PAUSE: i64 = 5_000;

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    config: Config,
    clock: ServiceClock,
    nonce: Option<String>,
    phase: Phase,
    results_version: u64,
    binding: Option<Binding>,
    accepted: Results,
    cache: Cache,
    batches: Vec<Batch>,
    last_batch: u64,
    no_refresh_before: Option<i64>,
}

/// How far the session has come.
#[derive(Debug)]
enum Phase {
    /// No token yet: the next request needs check results.
    Fresh,
    /// The service continues the session for this refresh token.
    Established(Established),
    /// The session has ended, as these expiries show.
    Ended(SmallMap<UnixMillis>),
}

#[derive(Debug)]
struct Established {
    refresh_token: Secret,
    results_version: u64,
    expiry: UnixMillis,
    expiries: SmallMap<UnixMillis>,
}

/// How far a session has come, for those who watch it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// No token yet.
    #[default]
    Fresh,
    /// It has had a token, and ends then, by the service's clock.
    Established(UnixMillis),
    /// It has ended.
    Ended,
}

/// What continues a session: its refresh token and moments of the service's clock, and how far that is from the local one.
#[derive(Clone, Debug)]
pub struct Continuation {
    /// The refresh token.
    pub refresh_token: Secret,
    /// When the session ends.
    pub expiry: UnixMillis,
    /// What `getExpiries` shows.
    pub expiries: SmallMap<UnixMillis>,
    /// How far the service's clock is ahead of the local wall clock, in milliseconds.
    pub offset: i64,
}

/// With less time left than this, in milliseconds, a session is not continued.
const MIN_CONTINUATION: i64 = 60_000;

impl Continuation {
    /// Whether it is worth continuing.
    #[must_use]
    pub fn has_time(&self, local: ClockReading) -> bool {
        self.expiry.saturating_sub(local.wall.saturating_add(self.offset)) >= MIN_CONTINUATION
    }
}

/// What a call of `fetchToken` comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The token, with no request.
    Cached(Secret),
    /// The cached token; a background request will replace it.
    Stale(Secret, Pending),
    /// The token will be in the response to this request.
    Wait(Pending),
}

/// A request that a call depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// It is under way, or waits to be sent: this call shares it.
    Existing(BatchId),
    /// It is to be started, once the batch `after` (whose results the session waits for) is done.
    New {
        /// The batch to be started.
        batch: BatchId,
        /// The batch to wait for.
        after: Option<BatchId>,
    },
}

impl Pending {
    /// The batch that brings the token.
    #[must_use]
    pub fn batch(self) -> BatchId {
        match self {
            Pending::Existing(batch) | Pending::New { batch, .. } => batch,
        }
    }
}

/// The body of an attest request, and what may be done when the request fails.
#[derive(Debug)]
pub struct AttestBody {
    /// The form to be posted.
    pub form: String,
    /// Whether it carries results, which the service may consume.
    pub carries_results: bool,
}

impl Session {
    /// A session that has just begun.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Session {
            config,
            clock: ServiceClock::default(),
            nonce: None,
            phase: Phase::Fresh,
            results_version: 0,
            binding: None,
            accepted: Results::default(),
            cache: Cache::default(),
            batches: Vec::new(),
            last_batch: 0,
            no_refresh_before: None,
        }
    }

    /// A session that another page began.
    #[must_use]
    pub fn continued(config: Config, continuation: Continuation, local: ClockReading) -> Self {
        let Continuation { refresh_token, expiry, expiries, offset } = continuation;
        let mut session = Session::new(config);
        session.clock.observe(RoundTrip::instant(local), local.wall.saturating_add(offset), 1);
        session.phase = Phase::Established(Established { refresh_token, results_version: 0, expiry, expiries });
        session
    }

    /// What continues it in another page; `None` while it has no token, and once it has ended.
    #[must_use]
    pub fn continuation(&self, local: ClockReading) -> Option<Continuation> {
        let Phase::Established(Established { refresh_token, expiry, expiries, .. }) = &self.phase else { return None };
        Some(Continuation {
            refresh_token: refresh_token.clone(),
            expiry: *expiry,
            expiries: expiries.clone(),
            offset: self.clock.at(local).earliest.saturating_sub(local.wall),
        })
    }

    /// How far it has come.
    pub fn stage(&mut self, local: ClockReading) -> Stage {
        self.end_if_expired(local);
        match &self.phase {
            Phase::Fresh => Stage::Fresh,
            Phase::Established(established) => Stage::Established(established.expiry),
            Phase::Ended(_) => Stage::Ended,
        }
    }

    /// A moment of the service's clock, as the local wall clock will show it.
    #[must_use]
    pub fn to_wall(&self, moment: UnixMillis, local: ClockReading) -> UnixMillis {
        self.clock.to_wall(moment, local)
    }

    /// The service's time.
    #[must_use]
    pub fn time(&self, local: ClockReading) -> ServiceTime {
        self.clock.at(local)
    }

    /// Whether a token is the one that calls get without a request.
    #[must_use]
    pub fn gives(&self, api: &str, token: &Secret, local: ClockReading) -> bool {
        match self.cache.get(api, self.clock.at(local)) {
            Lookup::Fresh(cached) | Lookup::Stale(cached) => cached == *token,
            Lookup::Miss => false,
        }
    }

    /// The configuration that the session was begun with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The nonce for the next proof to the service.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// The `iat` of a proof made now, in seconds since the Unix epoch by the service's clock.
    #[must_use]
    pub fn issued_at(&self, local: ClockReading) -> i64 {
        self.clock.at(local).earliest.div_euclid(1000)
    }

    /// When the session and its check results end, by the local wall clock; empty before the first token.
    #[must_use]
    pub fn expiries(&self, local: ClockReading) -> Vec<(String, UnixMillis)> {
        match &self.phase {
            Phase::Established(Established { expiries, .. }) | Phase::Ended(expiries) => {
                expiries.iter().map(|(name, &moment)| (name.to_owned(), self.clock.to_wall(moment, local))).collect()
            }
            Phase::Fresh => Vec::new(),
        }
    }

    /// Whether the next request needs a check result, and none is on its way.
    pub fn needs_results(&mut self, local: ClockReading) -> bool {
        self.end_if_expired(local);
        matches!(self.phase, Phase::Fresh) && self.latest_with_results().is_none()
    }

    /// Whether an ALTCHA challenge can still be solved in time.
    #[must_use]
    pub fn has_time_for(&self, challenge: &Challenge, local: ClockReading) -> bool {
        challenge.is_good_at(self.clock.at(local).latest)
    }

    /// Decides what a call of `fetchToken` gets.
    ///
    /// # Errors
    /// `session-expired` once the session has ended, `results-required` when a check result is needed and none came; either leaves
    /// the session as it was.
    pub fn request(&mut self, request: &TokenRequest, local: ClockReading) -> Result<Step, Error> {
        self.end_if_expired(local);
        let fresh = request.results.newer_than(&self.known_results());
        match self.phase {
            Phase::Ended(_) => return Err(session_expired()),
            Phase::Fresh if fresh.is_empty() && self.latest_with_results().is_none() => {
                return Err(results_required(&self.config.checks, &request.hints));
            }
            Phase::Fresh | Phase::Established(_) => {}
        }
        self.note_call(request.binding, &fresh);
        match self.cache.get(&request.api, self.clock.at(local)) {
            Lookup::Fresh(token) => Ok(Step::Cached(token)),
            Lookup::Stale(token) if self.refresh_is_paused(local) => Ok(Step::Cached(token)),
            Lookup::Stale(token) => Ok(match self.batch_for(&request.api, fresh) {
                Pending::Existing(_) => Step::Cached(token),
                pending @ Pending::New { .. } => Step::Stale(token, pending),
            }),
            Lookup::Miss => Ok(Step::Wait(self.batch_for(&request.api, fresh))),
        }
    }

    /// Closes a batch to further APIs and makes its request body.
    ///
    /// # Errors
    /// `session-expired` or `results-required` if the session can no longer be continued as it could when the batch was begun.
    pub fn seal(&mut self, id: BatchId) -> Result<AttestBody, Error> {
        let refresh_token = match &self.phase {
            Phase::Established(established) => Some(established.refresh_token.clone()),
            Phase::Fresh => None,
            Phase::Ended(_) => return Err(session_expired()),
        };
        let batch = self.batches.iter_mut().find(|batch| batch.id == id).ok_or_else(no_such_batch)?;
        if refresh_token.is_none() && batch.fresh.is_empty() {
            return Err(results_required(&self.config.checks, ""));
        }
        batch.seal(refresh_token);
        let attest = Attest {
            config: &self.config,
            apis: batch.requested(),
            binding: batch.binding.as_ref(),
            results: &batch.fresh,
            refresh_token: batch.sent_refresh_token.as_ref(),
        };
        Ok(AttestBody { form: attest.to_form(), carries_results: !batch.fresh.is_empty() })
    }

    /// Whether a batch is under way with results that the service may have consumed.
    #[must_use]
    pub fn has_sent_results(&self, id: BatchId) -> bool {
        self.batches.iter().any(|batch| batch.id == id && !batch.is_open() && !batch.fresh.is_empty())
    }

    /// Takes from a response what every response carries, whatever else it says: the next nonce and the service's time.
    pub fn observe(&mut self, response: &Response, trip: RoundTrip) {
        if let Some(nonce) = response.usable_nonce() {
            self.nonce = Some(nonce.to_owned());
        }
        if let Some(date) = response.date {
            self.clock.observe(trip, date, 1000);
        }
    }

    /// Takes the outcome of a batch's request, and gives the tokens for those who wait for it; `None` if the batch is to be sealed
    /// again, for the next of its APIs alone.
    ///
    /// # Errors
    /// The error of the outcome; `session-expired` in place of a refused refresh token.
    pub fn complete(
        &mut self,
        id: BatchId,
        outcome: Result<Granted, Error>,
        trip: RoundTrip,
    ) -> Result<Option<Tokens>, Error> {
        let position = self.batches.iter().position(|batch| batch.id == id).ok_or_else(no_such_batch)?;
        let mut batch = self.batches.remove(position);
        if outcome.as_ref().is_err_and(|error| batch.divide_after(error)) {
            self.batches.insert(position, batch);
            return Ok(None);
        }
        let outcome = self.apply(&batch, outcome, trip);
        let has_failed = outcome.is_err();
        let results_are_unused = outcome.as_ref().is_err_and(Error::is_about_apis);
        let Settlement::Done(tokens) = batch.settle(outcome) else {
            self.batches.insert(position, batch);
            return Ok(None);
        };
        if results_are_unused {
            self.requeue_results(&batch.fresh);
        }
        if has_failed {
            self.restore_results_version();
        }
        tokens.map(Some)
    }

    /// Gives results that the service has not consumed to the next request that is still open.
    fn requeue_results(&mut self, fresh: &Results) {
        if let Some(next) = self.batches.iter_mut().find(|batch| batch.is_open()) {
            let newer = std::mem::replace(&mut next.fresh, fresh.clone());
            next.fresh.update(&newer);
        }
    }

    /// Changes the session as an outcome requires.
    fn apply(&mut self, batch: &Batch, outcome: Result<Granted, Error>, trip: RoundTrip) -> Result<Tokens, Error> {
        match outcome {
            Ok(Granted::Session(grant)) => {
                self.clock.observe(trip, grant.server_time, 1);
                Ok(self.accept(batch, grant, trip.received.monotonic))
            }
            Ok(Granted::Bare(token)) => Ok(Tokens::Bare(token)),
            Err(error) => {
                if batch.fresh.is_empty() {
                    self.no_refresh_before = Some(trip.received.monotonic.saturating_add(REFRESH_PAUSE));
                }
                Err(self.end_if_refused(batch, error, trip.received))
            }
        }
    }

    /// Forgets a batch that nobody waits for any more.
    pub fn abandon(&mut self, id: BatchId) {
        let before = self.batches.len();
        self.batches.retain(|batch| batch.id != id);
        if self.batches.len() < before {
            self.restore_results_version();
        }
    }

    /// Takes note that a backend refuses a token; see [`Cache::refuse`].
    pub fn refuse(&mut self, token: &str, local: ClockReading) -> bool {
        self.cache.refuse(token, local.monotonic)
    }

    fn end_if_expired(&mut self, local: ClockReading) {
        if let Phase::Established(established) = &self.phase
            && self.clock.at(local).earliest >= established.expiry
        {
            self.end(local);
        }
    }

    /// Ends the session; its expiry is in the past from now on, so that a page which watches it renews the session.
    fn end(&mut self, local: ClockReading) {
        let mut expiries = SmallMap::default();
        if let Phase::Established(established) = &mut self.phase {
            std::mem::swap(&mut expiries, &mut established.expiries);
            let now = self.clock.at(local).earliest;
            expiries.insert(SESSION.to_owned(), established.expiry.min(now));
        }
        self.phase = Phase::Ended(expiries);
        self.accepted = Results::default();
        self.cache.clear();
    }

    /// The results that the service has, or will have when the requests under way have succeeded.
    fn known_results(&self) -> Results {
        let mut known = self.accepted.clone();
        for batch in &self.batches {
            known.update(&batch.fresh);
        }
        known
    }

    fn latest_with_results(&self) -> Option<BatchId> {
        self.batches.iter().rev().find(|batch| !batch.fresh.is_empty()).map(|batch| batch.id)
    }

    /// Notes the binding and the new results of a call: if they differ from before, the cached tokens are void.
    fn note_call(&mut self, binding: Option<Binding>, fresh: &Results) {
        if !fresh.is_empty() {
            self.results_version = self.results_version.saturating_add(1);
        }
        if !fresh.is_empty() || binding != self.binding {
            self.binding = binding;
            self.cache.clear();
            self.no_refresh_before = None;
        }
    }

    /// If the newest results have come to nothing, falls back to the newest that are pending or accepted: requests made with them
    /// count as current again.
    fn restore_results_version(&mut self) {
        let accepted = match &self.phase {
            Phase::Established(established) => Some(established.results_version),
            Phase::Fresh | Phase::Ended(_) => None,
        };
        let pending = self.batches.iter().filter(|batch| !batch.fresh.is_empty()).map(|batch| batch.results_version);
        let Some(newest) = pending.chain(accepted).max() else { return };
        for batch in self.batches.iter_mut().filter(|batch| batch.results_version >= newest) {
            batch.results_version = self.results_version;
        }
    }

    fn refresh_is_paused(&self, local: ClockReading) -> bool {
        self.no_refresh_before.is_some_and(|moment| local.monotonic < moment)
    }

    /// The batch for the token of an API with the current binding and results: one that has it, one that is open, or a new one.
    fn batch_for(&mut self, api: &str, fresh: Results) -> Pending {
        let (binding, results_version) = (self.binding, self.results_version);
        let is_current = |batch: &Batch| batch.binding == binding && batch.results_version == results_version;
        if let Some(batch) = self.batches.iter().find(|batch| is_current(batch) && batch.has(api)) {
            return Pending::Existing(batch.id);
        }
        if let Some(batch) = self.batches.iter_mut().find(|batch| is_current(batch) && batch.is_open()) {
            batch.join(api);
            return Pending::Existing(batch.id);
        }
        let after = self.latest_with_results();
        self.last_batch = self.last_batch.saturating_add(1);
        let id = BatchId(self.last_batch);
        self.batches.push(Batch::new(id, api.to_owned(), binding, fresh, results_version));
        Pending::New { batch: id, after }
    }

    fn accept(&mut self, batch: &Batch, grant: Grant, received: i64) -> Tokens {
        let is_newest = match &self.phase {
            Phase::Fresh => true,
            Phase::Established(established) => batch.results_version >= established.results_version,
            Phase::Ended(_) => false,
        };
        if is_newest {
            self.accepted.update(&batch.fresh);
            self.phase = Phase::Established(Established {
                refresh_token: grant.refresh_token,
                results_version: batch.results_version,
                expiry: grant.session_expiry,
                expiries: grant.expiries,
            });
        }
        if is_newest && batch.binding == self.binding && batch.results_version == self.results_version {
            let expires = grant.server_time.saturating_add(grant.token_lifetime);
            for api in batch.requested() {
                if let Some(token) = grant.tokens.get(api) {
                    self.cache.insert(api.clone(), token.clone(), grant.token_lifetime, expires, received);
                }
            }
            self.no_refresh_before = None;
        }
        Tokens::PerApi(grant.tokens)
    }

    /// Ends the session if its refresh token was refused.
    fn end_if_refused(&mut self, batch: &Batch, error: Error, received: ClockReading) -> Error {
        let was_current = match &self.phase {
            Phase::Established(established) => batch.sent_refresh_token.as_ref() == Some(&established.refresh_token),
            Phase::Fresh => false,
            Phase::Ended(_) => true,
        };
        if !(was_current && error.is_invalid_refresh_token()) {
            return error;
        }
        if matches!(self.phase, Phase::Established(_)) {
            self.end(received);
        }
        session_expired().with_service_errors(error.service_errors().clone())
    }
}

fn session_expired() -> Error {
    Error::new(
        Code::SessionExpired,
        &["the Approov session has ended: call initializeSession() and fetch a token with fresh check results"],
    )
}

fn results_required(checks: &CheckKeys, hints: &str) -> Error {
    let separator = if hints.is_empty() { "" } else { "; " };
    let options = checks.result_options();
    Error::new(
        Code::ResultsRequired,
        &["the first token of a session needs the result of a check: ", &options, separator, hints],
    )
}

fn no_such_batch() -> Error {
    Error::new(Code::Internal, &["a request of the Approov SDK was completed twice"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyStorage;
    use crate::json::Json;
    use crate::wire::Body;
    use serde_json::json;

    const START: UnixMillis = 1_700_000_000_000;

    fn session() -> Session {
        Session::new(Config {
            attest_urls: vec!["https://example.com/attest".into()],
            persistent: false,
            site_key: "site".into(),
            checks: CheckKeys::of(&[("hcaptchaSiteKey", "hc"), ("recaptchaSiteKey", "re")]),
            key_storage: KeyStorage::Auto,
        })
    }

    fn at(milliseconds: i64) -> ClockReading {
        ClockReading { wall: START + milliseconds, monotonic: milliseconds }
    }

    fn call(api: &str) -> TokenRequest {
        TokenRequest {
            solves: false,
            api: api.into(),
            binding: None,
            results: Results::default(),
            timeout: 10_000,
            hints: String::new(),
        }
    }

    fn with_recaptcha(api: &str, token: &str) -> TokenRequest {
        TokenRequest { results: Results::of(&[("recaptchaToken", token)]), ..call(api) }
    }

    fn with_hcaptcha(api: &str, token: &str) -> TokenRequest {
        TokenRequest { results: Results::of(&[("hcaptchaToken", token)]), ..call(api) }
    }

    fn bound(api: &str, binding: u8) -> TokenRequest {
        TokenRequest { binding: Some([binding; 32]), ..call(api) }
    }

    /// A response at `now` with a token `TAG:API` per API, living 120 s, and a session of two hours.
    fn granted(apis: &[&str], tag: &str, now: i64) -> Result<Granted, Error> {
        let tokens: serde_json::Map<_, _> =
            apis.iter().map(|api| ((*api).to_owned(), json!(format!("{tag}:{api}")))).collect();
        let body = json!({
            "tokens": tokens, "token-lifetime": 120, "refresh-token": format!("refresh-{tag}"),
            "expiries": {"session": START + 7_200_000, "recap:re": START + 7_200_000}, "server-time": START + now,
        });
        Response {
            status: 200,
            content_type: "application/json".into(),
            body: Body::Json(Json::decode(&body).expect("JSON")),
            ..Response::default()
        }
        .into_grant()
    }

    fn refused(code: &str) -> Error {
        let mut errors = SmallMap::default();
        errors.insert(code.to_owned(), String::new());
        Error::new(Code::Service, &["Unauthorized"]).with_service_errors(errors)
    }

    fn new_batch(step: &Step) -> BatchId {
        match step {
            Step::Wait(Pending::New { batch, .. }) | Step::Stale(_, Pending::New { batch, .. }) => *batch,
            other => panic!("expected a new request, got {other:?}"),
        }
    }

    /// Makes the call, and seals the request that it starts.
    fn sent(session: &mut Session, request: &TokenRequest, local: ClockReading) -> (BatchId, AttestBody) {
        let batch = new_batch(&session.request(request, local).expect("a step"));
        (batch, session.seal(batch).expect("sealed"))
    }

    fn complete(
        session: &mut Session,
        id: BatchId,
        outcome: Result<Granted, Error>,
        now: i64,
    ) -> Result<Tokens, Error> {
        session.complete(id, outcome, RoundTrip::instant(at(now))).map(|tokens| tokens.expect("a batch that is done"))
    }

    /// A session that has just got its first token, for "api".
    fn established() -> Session {
        let mut session = session();
        let (batch, _) = sent(&mut session, &with_recaptcha("api", "r1"), at(0));
        complete(&mut session, batch, granted(&["api"], "first", 0), 0).expect("tokens");
        session
    }

    #[test]
    fn the_first_call_needs_a_result_and_changes_nothing_without_one() {
        let mut session = session();
        for _ in 0..2 {
            let error = session.request(&bound("api", 1), at(0)).expect_err("an error");
            assert_eq!(error.code(), Code::ResultsRequired);
        }
        assert_eq!(session.binding, None);
        assert!(session.expiries(at(0)).is_empty());
    }

    #[test]
    fn the_first_request_carries_the_result_and_later_ones_the_refresh_token() {
        let mut session = session();
        let (batch, sealed) = sent(&mut session, &with_recaptcha("api", "r1"), at(0));
        assert!(sealed.carries_results);
        assert_eq!(sealed.form, "api=api&approov-site-key=site&recaptcha-site-key=re&recaptcha-token=r1");
        complete(&mut session, batch, granted(&["api"], "first", 0), 0).expect("tokens");
        let (_, sealed) = sent(&mut session, &with_recaptcha("other", "r1"), at(10));
        assert!(!sealed.carries_results);
        assert_eq!(sealed.form, "api=other&approov-site-key=site&refresh-token=refresh-first");
    }

    #[test]
    fn a_token_comes_from_the_cache_until_it_is_stale_then_is_refreshed_once_in_the_background() {
        let mut session = established();
        assert_eq!(session.request(&call("api"), at(89_000)), Ok(Step::Cached("first:api".into())));
        let step = session.request(&call("api"), at(91_000)).expect("a step");
        assert!(matches!(&step, Step::Stale(token, Pending::New { .. }) if token.expose() == "first:api"));
        assert_eq!(session.request(&call("api"), at(92_000)), Ok(Step::Cached("first:api".into())));
        let batch = new_batch(&step);
        session.seal(batch).expect("sealed");
        complete(&mut session, batch, granted(&["api"], "second", 92_500), 92_500).expect("tokens");
        assert_eq!(session.request(&call("api"), at(93_000)), Ok(Step::Cached("second:api".into())));
    }

    #[test]
    fn an_expired_token_is_awaited_and_never_returned() {
        let mut session = established();
        assert!(matches!(session.request(&call("api"), at(116_000)), Ok(Step::Wait(Pending::New { .. }))));
        assert!(matches!(session.request(&call("api"), at(900_000)), Ok(Step::Wait(Pending::Existing(_)))));
    }

    #[test]
    fn a_background_refresh_that_failed_pauses_the_next_one() {
        let mut session = established();
        let (batch, _) = sent(&mut session, &call("api"), at(91_000));
        complete(&mut session, batch, Err(Error::new(Code::Network, &[""])), 91_000).expect_err("an error");
        assert_eq!(session.request(&call("api"), at(95_000)), Ok(Step::Cached("first:api".into())));
        assert!(matches!(session.request(&call("api"), at(96_000)), Ok(Step::Stale(..))));
    }

    #[test]
    fn calls_with_equal_parameters_share_a_request_and_other_apis_join_until_it_is_sent() {
        let mut session = session();
        let batch = new_batch(&session.request(&with_recaptcha("a", "r1"), at(0)).expect("a step"));
        for request in [with_recaptcha("a", "r1"), call("a"), call("b"), with_recaptcha("c", "r1")] {
            assert_eq!(session.request(&request, at(0)), Ok(Step::Wait(Pending::Existing(batch))), "{request:?}");
        }
        let sealed = session.seal(batch).expect("sealed");
        assert!(sealed.form.starts_with("api=a&api=b&api=c&approov-site-key"), "{}", sealed.form);
        assert_eq!(session.request(&call("c"), at(1)), Ok(Step::Wait(Pending::Existing(batch))));
        let late = session.request(&call("d"), at(1)).expect("a step");
        assert!(matches!(late, Step::Wait(Pending::New { after: Some(after), .. }) if after == batch));
    }

    #[test]
    fn a_changed_binding_drops_all_cached_tokens() {
        let mut session = established();
        let batch = new_batch(&session.request(&bound("api", 1), at(10)).expect("a step"));
        assert!(session.seal(batch).expect("sealed").form.contains("payload=AQEB"));
        complete(&mut session, batch, granted(&["api"], "bound", 10), 10).expect("tokens");
        assert_eq!(session.request(&bound("api", 1), at(20)), Ok(Step::Cached("bound:api".into())));
        assert!(matches!(session.request(&bound("api", 2), at(30)), Ok(Step::Wait(_))));
        assert!(matches!(session.request(&call("api"), at(30)), Ok(Step::Wait(_))));
    }

    #[test]
    fn a_changed_result_drops_all_cached_tokens_and_is_looked_up() {
        let mut session = established();
        let (batch, sealed) = sent(&mut session, &with_recaptcha("api", "r2"), at(10));
        assert!(sealed.carries_results);
        assert!(sealed.form.contains("refresh-token=refresh-first") && sealed.form.contains("recaptcha-token=r2"));
        complete(&mut session, batch, granted(&["api"], "second", 10), 10).expect("tokens");
        assert_eq!(session.request(&with_recaptcha("api", "r2"), at(20)), Ok(Step::Cached("second:api".into())));
    }

    #[test]
    fn a_result_of_another_check_is_added() {
        let mut session = established();
        let (batch, _) = sent(&mut session, &with_hcaptcha("api", "h1"), at(10));
        complete(&mut session, batch, granted(&["api"], "second", 10), 10).expect("tokens");
        assert_eq!(session.request(&with_hcaptcha("api", "h1"), at(20)), Ok(Step::Cached("second:api".into())));
        assert_eq!(session.request(&with_recaptcha("api", "r1"), at(20)), Ok(Step::Cached("second:api".into())));
    }

    #[test]
    fn a_binding_that_comes_back_shares_the_request_that_is_still_under_way() {
        let mut session = established();
        let (bound_once, _) = sent(&mut session, &bound("other", 1), at(10));
        session.request(&bound("other", 2), at(20)).expect("a step");
        assert_eq!(session.request(&bound("other", 1), at(30)), Ok(Step::Wait(Pending::Existing(bound_once))));
    }

    #[test]
    fn after_new_results_failed_the_requests_with_the_accepted_ones_are_shared_again() {
        let mut session = established();
        let (plain, _) = sent(&mut session, &call("other"), at(10));
        let (fresh, _) = sent(&mut session, &with_recaptcha("api", "r2"), at(20));
        assert!(matches!(session.request(&call("other"), at(25)), Ok(Step::Wait(Pending::New { .. }))));
        complete(&mut session, fresh, Err(Error::new(Code::Network, &[])), 30).expect_err("an error");
        assert_eq!(session.request(&call("other"), at(40)), Ok(Step::Wait(Pending::Existing(plain))));
        complete(&mut session, plain, granted(&["other"], "plain", 50), 50).expect("tokens");
        assert_eq!(session.request(&call("other"), at(60)), Ok(Step::Cached("plain:other".into())));
    }

    #[test]
    fn a_response_for_an_older_binding_is_not_cached() {
        let mut session = established();
        let (older, _) = sent(&mut session, &bound("api", 1), at(10));
        let (newer, _) = sent(&mut session, &bound("api", 2), at(20));
        complete(&mut session, newer, granted(&["api"], "newer", 30), 30).expect("tokens");
        let tokens = complete(&mut session, older, granted(&["api"], "older", 40), 40).expect("tokens");
        assert_eq!(tokens.get("api").map(|token| token.expose().to_owned()).as_deref(), Ok("older:api"));
        assert_eq!(session.request(&bound("api", 2), at(50)), Ok(Step::Cached("newer:api".into())));
    }

    #[test]
    fn a_response_without_the_newest_results_does_not_continue_the_session() {
        let mut session = established();
        let (plain, _) = sent(&mut session, &call("other"), at(10));
        let (fresh, _) = sent(&mut session, &with_recaptcha("api", "r2"), at(10));
        complete(&mut session, fresh, granted(&["api"], "fresh", 20), 20).expect("tokens");
        complete(&mut session, plain, granted(&["other"], "plain", 30), 30).expect("tokens");
        let next = new_batch(&session.request(&call("third"), at(40)).expect("a step"));
        assert!(session.seal(next).expect("sealed").form.contains("refresh-token=refresh-fresh"));
    }

    #[test]
    fn only_a_sealed_batch_with_results_may_have_consumed_them() {
        let mut session = session();
        let batch = new_batch(&session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step"));
        assert!(!session.has_sent_results(batch));
        session.seal(batch).expect("sealed");
        assert!(session.has_sent_results(batch));
        complete(&mut session, batch, granted(&["api"], "first", 10), 10).expect("tokens");
        assert!(!session.has_sent_results(batch));
        let (refresh, _) = sent(&mut session, &call("other"), at(20));
        assert!(!session.has_sent_results(refresh));
    }

    #[test]
    fn two_different_first_results_are_sent_one_after_the_other() {
        let mut session = session();
        let first = new_batch(&session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step"));
        let second = session.request(&with_recaptcha("api", "r2"), at(0)).expect("a step");
        assert!(matches!(second, Step::Wait(Pending::New { after: Some(after), .. }) if after == first));
        let second = new_batch(&second);
        session.seal(first).expect("sealed");
        complete(&mut session, first, granted(&["api"], "first", 10), 10).expect("tokens");
        let sealed = session.seal(second).expect("sealed");
        assert!(sealed.form.contains("refresh-token=refresh-first") && sealed.form.contains("recaptcha-token=r2"));
        complete(&mut session, second, granted(&["api"], "second", 20), 20).expect("tokens");
        assert_eq!(session.request(&call("api"), at(30)), Ok(Step::Cached("second:api".into())));
    }

    #[test]
    fn a_failure_is_not_remembered_and_the_same_result_may_be_sent_again() {
        let mut session = session();
        let (batch, _) = sent(&mut session, &with_recaptcha("api", "r1"), at(0));
        let error = complete(&mut session, batch, Err(Error::new(Code::Network, &["gone"])), 10).expect_err("an error");
        assert_eq!(error.code(), Code::Network);
        assert_eq!(session.request(&call("api"), at(20)).expect_err("an error").code(), Code::ResultsRequired);
        let again = new_batch(&session.request(&with_recaptcha("api", "r1"), at(20)).expect("a step"));
        assert!(session.seal(again).expect("sealed").form.contains("recaptcha-token=r1"));
    }

    #[test]
    fn a_batch_that_waited_for_results_which_failed_cannot_be_sealed() {
        let mut session = session();
        let (first, _) = sent(&mut session, &with_recaptcha("a", "r1"), at(0));
        let dependent = new_batch(&session.request(&call("b"), at(0)).expect("a step"));
        complete(&mut session, first, Err(Error::new(Code::Network, &[""])), 10).expect_err("an error");
        assert_eq!(session.seal(dependent).expect_err("an error").code(), Code::ResultsRequired);
    }

    #[test]
    fn the_session_ends_by_the_services_clock() {
        let mut session = established();
        assert!(session.request(&call("api"), at(7_199_999)).is_ok());
        for request in [call("api"), with_recaptcha("api", "r9")] {
            assert_eq!(session.request(&request, at(7_200_000)).expect_err("an error").code(), Code::SessionExpired);
        }
    }

    #[test]
    fn a_wall_clock_that_jumped_ahead_does_not_end_the_session_but_asks_the_service() {
        let mut session = established();
        let jumped = ClockReading { wall: START + 90_000_000, monotonic: 1_000 };
        assert!(matches!(session.request(&call("api"), jumped), Ok(Step::Wait(_))));
    }

    #[test]
    fn a_refused_refresh_token_ends_the_session() {
        let mut session = established();
        let (batch, _) = sent(&mut session, &call("other"), at(10));
        let error =
            complete(&mut session, batch, Err(refused("aprv-invalid-refresh-token")), 20).expect_err("an error");
        assert_eq!(error.code(), Code::SessionExpired);
        assert_eq!(session.request(&call("api"), at(30)).expect_err("an error").code(), Code::SessionExpired);
        let expiries = session.expiries(at(30));
        assert!(expiries.contains(&("session".to_owned(), START + 20)), "{expiries:?}");
    }

    #[test]
    fn a_refused_refresh_token_of_the_past_does_not_end_the_session() {
        let mut session = established();
        let (plain, _) = sent(&mut session, &call("other"), at(10));
        let (fresh, _) = sent(&mut session, &with_recaptcha("api", "r2"), at(10));
        complete(&mut session, fresh, granted(&["api"], "fresh", 20), 20).expect("tokens");
        let error =
            complete(&mut session, plain, Err(refused("aprv-invalid-refresh-token")), 30).expect_err("an error");
        assert_eq!(error.code(), Code::Service);
        assert!(session.request(&call("api"), at(40)).is_ok());
    }

    #[test]
    fn a_response_after_the_end_revives_nothing() {
        let mut session = established();
        let (late, _) = sent(&mut session, &call("other"), at(10));
        let (ending, _) = sent(&mut session, &call("third"), at(10));
        complete(&mut session, ending, Err(refused("aprv-invalid-refresh-token")), 20).expect_err("an error");
        let tokens = complete(&mut session, late, granted(&["other"], "late", 30), 30).expect("tokens");
        assert!(tokens.get("other").is_ok());
        assert_eq!(session.request(&call("other"), at(40)).expect_err("an error").code(), Code::SessionExpired);
        assert_eq!(session.seal(late).expect_err("an error").code(), Code::SessionExpired);
    }

    #[test]
    fn an_api_without_a_token_is_named() {
        let mut session = session();
        let (batch, _) = sent(&mut session, &with_recaptcha("api", "r1"), at(0));
        let tokens = complete(&mut session, batch, granted(&["other"], "x", 0), 0).expect("tokens");
        let error = tokens.get("api").expect_err("an error");
        assert!(error.code() == Code::TokenUnavailable && error.message().contains("\"api\""));
    }

    #[test]
    fn a_bare_token_is_returned_without_a_session() {
        let mut session = session();
        let (batch, _) = sent(&mut session, &with_recaptcha("api", "r1"), at(0));
        let tokens = complete(&mut session, batch, Ok(Granted::Bare("bare".into())), 0).expect("tokens");
        assert_eq!(tokens.get("api").map(|token| token.expose().to_owned()).as_deref(), Ok("bare"));
        assert_eq!(session.request(&call("api"), at(10)).expect_err("an error").code(), Code::ResultsRequired);
    }

    #[test]
    fn expiries_are_given_by_the_local_clock() {
        let mut session = session();
        let local = ClockReading { wall: START - 6 * 3_600_000, monotonic: 5 };
        let (batch, _) = sent(&mut session, &with_recaptcha("api", "r1"), local);
        session.complete(batch, granted(&["api"], "first", 0), RoundTrip::instant(local)).expect("tokens");
        let expiries = session.expiries(local);
        assert!(expiries.contains(&("session".to_owned(), local.wall + 7_200_000)), "{expiries:?}");
        assert_eq!(session.issued_at(local), START / 1000);
    }

    #[test]
    fn nonce_and_time_are_taken_from_every_response() {
        let mut session = session();
        let response =
            Response { status: 500, nonce: Some("n1".into()), date: Some(START + 5_000_000), ..Response::default() };
        session.observe(&response, RoundTrip { sent: at(0), received: at(10) });
        assert_eq!(session.nonce(), Some("n1"));
        assert_eq!(session.issued_at(at(10)), (START + 5_000_000) / 1000);
        session.observe(&Response::default(), RoundTrip { sent: at(10), received: at(20) });
        assert_eq!(session.nonce(), Some("n1"));
    }

    /// Found by the properties of `tests/driver`: the newest results were abandoned while older ones were still on their way.
    #[test]
    fn when_newer_results_come_to_nothing_those_on_their_way_are_the_current_ones_again() {
        let mut session = session();
        let (older, _) = sent(&mut session, &with_recaptcha("api", "r1"), at(0));
        let waiting = session.request(&call("api"), at(0)).expect("a step");
        let newer = new_batch(&session.request(&with_recaptcha("api", "r2"), at(0)).expect("a step"));
        session.abandon(newer);
        assert_eq!(waiting, Step::Wait(Pending::Existing(older)));
        assert_eq!(session.request(&call("api"), at(0)).expect("a step"), Step::Wait(Pending::Existing(older)));
        complete(&mut session, older, granted(&["api"], "first", 0), 1).expect("tokens");
        assert!(matches!(session.request(&call("api"), at(2)).expect("a step"), Step::Cached(_)));
    }

    #[test]
    fn an_abandoned_request_is_forgotten() {
        let mut session = session();
        let batch = new_batch(&session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step"));
        session.abandon(batch);
        assert_eq!(session.seal(batch).expect_err("an error").code(), Code::Internal);
        let again = session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step");
        assert_ne!(new_batch(&again), batch);
    }

    #[test]
    fn no_secret_of_a_session_is_printed() {
        let printed = format!("{:?}", established());
        for secret in ["first:api", "refresh-first", "r1"] {
            assert!(!printed.contains(&format!("\"{secret}\"")), "{secret}");
        }
    }
}
