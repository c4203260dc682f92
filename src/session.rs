//! One session, from `initializeSession` to its end: which token a call gets, what has to be requested, and what answers change.
//!
//! Nothing here waits or sends. A call of `fetchToken` becomes a [`Step`]; a request that a step asks for is a batch, which stays
//! open for more APIs until [`Session::seal`] turns it into a request body, and is over with [`Session::complete`] or
//! [`Session::abandon`].
//!
//! An API that the service refuses does not fail the others of its batch: these are then requested one by one.
//!
//! Late answers do no harm: a token is cached only while binding and check results are still those that it was requested for, and an
//! answer continues the session only if no newer results have been accepted meanwhile. Check results are counted for that: their
//! *stand* grows with every new one.

use crate::cache::{Cache, Lookup};
use crate::config::Config;
use crate::error::{Code, Error};
use crate::named::Named;
use crate::secret::Secret;
use crate::time::{Reading, ServiceClock, UnixMillis};
use crate::token_request::{Binding, Results, TokenRequest};
use crate::wire::{Attest, Grant, Granted, Response, SESSION};

/// After a refresh behind an ageing token has failed, the next one waits this long, in milliseconds.
const REFRESH_PAUSE: i64 = 5_000;

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    config: Config,
    clock: ServiceClock,
    nonce: Option<String>,
    standing: Standing,
    result_stand: u64,
    binding: Option<Binding>,
    accepted: Results,
    cache: Cache,
    batches: Vec<Batch>,
    last_batch: u64,
    no_refresh_before: Option<i64>,
}

/// How far the session has come.
#[derive(Debug)]
enum Standing {
    /// No token yet: the next request needs check results.
    Fresh,
    /// The service continues the session for this refresh token.
    Established(Established),
    /// The session is over, as these expiries show.
    Ended(Named<UnixMillis>),
}

#[derive(Debug)]
struct Established {
    refresh_token: Secret,
    result_stand: u64,
    expiry: UnixMillis,
    expiries: Named<UnixMillis>,
}

/// Names a batch within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId(u64);

/// APIs whose tokens travel in one request.
#[derive(Debug)]
struct Batch {
    id: BatchId,
    apis: Vec<String>,
    binding: Option<Binding>,
    fresh: Results,
    result_stand: u64,
    sent_with: Option<Secret>,
    is_open: bool,
    /// What each API came to so far, once they are requested one by one.
    divided: Option<Named<Result<Secret, Error>>>,
}

impl Batch {
    /// The APIs of the next request.
    fn next(&self) -> &[String] {
        match &self.divided {
            Some(over) => self.apis.get(over.len()..).and_then(|rest| rest.get(..1)).unwrap_or_default(),
            None => &self.apis,
        }
    }
}

/// What a call of `fetchToken` comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The token, with no request.
    Cached(Secret),
    /// The token, and a request that replaces it behind the caller's back.
    Ageing(Secret, Wanted),
    /// The token is in the answer to this request.
    Wait(Wanted),
}

/// A request that a call depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is under way, or waits to be sent: this call shares it.
    Joined(BatchId),
    /// It is to be started, once the batch `after` (whose results the session waits for) is over.
    New {
        /// The batch to be started.
        batch: BatchId,
        /// The batch to wait for.
        after: Option<BatchId>,
    },
}

/// A request body, and what may be done when it fails.
#[derive(Debug)]
pub struct Sealed {
    /// The form to be posted.
    pub form: String,
    /// Whether it carries results that the service may consume: it must not be sent twice.
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
            standing: Standing::Fresh,
            result_stand: 0,
            binding: None,
            accepted: Results::default(),
            cache: Cache::default(),
            batches: Vec::new(),
            last_batch: 0,
            no_refresh_before: None,
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
    pub fn issued_at(&self, local: Reading) -> i64 {
        self.clock.at(local).earliest.div_euclid(1000)
    }

    /// When the session and its check results end, by the local wall clock; empty before the first token.
    #[must_use]
    pub fn expiries(&self, local: Reading) -> Vec<(String, UnixMillis)> {
        match &self.standing {
            Standing::Established(Established { expiries, .. }) | Standing::Ended(expiries) => {
                expiries.iter().map(|(name, &moment)| (name.to_owned(), self.clock.to_wall(moment, local))).collect()
            }
            Standing::Fresh => Vec::new(),
        }
    }

    /// Decides what a call of `fetchToken` gets.
    ///
    /// # Errors
    /// `session-expired` once the session is over, `results-required` when a check result is needed and none came; either leaves
    /// the session as it was.
    pub fn request(&mut self, request: &TokenRequest, local: Reading) -> Result<Step, Error> {
        self.end_if_expired(local);
        let fresh = request.results.newer_than(&self.known_results());
        match self.standing {
            Standing::Ended(_) => return Err(session_expired()),
            Standing::Fresh if fresh.is_empty() && self.latest_with_results().is_none() => {
                return Err(results_required());
            }
            Standing::Fresh | Standing::Established(_) => {}
        }
        self.move_stand(request.binding, &fresh);
        match self.cache.get(&request.api, self.clock.at(local)) {
            Lookup::Fresh(token) => Ok(Step::Cached(token)),
            Lookup::Ageing(token) if self.refresh_is_paused(local) => Ok(Step::Cached(token)),
            Lookup::Ageing(token) => Ok(match self.batch_for(&request.api, fresh) {
                Wanted::Joined(_) => Step::Cached(token),
                wanted @ Wanted::New { .. } => Step::Ageing(token, wanted),
            }),
            Lookup::Missing => Ok(Step::Wait(self.batch_for(&request.api, fresh))),
        }
    }

    /// Closes a batch to further APIs and makes its request body.
    ///
    /// # Errors
    /// `session-expired` or `results-required` if the session can no longer be continued as it could when the batch was begun.
    pub fn seal(&mut self, id: BatchId) -> Result<Sealed, Error> {
        let refresh_token = match &self.standing {
            Standing::Established(established) => Some(established.refresh_token.clone()),
            Standing::Fresh => None,
            Standing::Ended(_) => return Err(session_expired()),
        };
        let batch = self.batches.iter_mut().find(|batch| batch.id == id).ok_or_else(no_such_batch)?;
        if refresh_token.is_none() && batch.fresh.is_empty() {
            return Err(results_required());
        }
        batch.is_open = false;
        batch.sent_with.clone_from(&refresh_token);
        let attest = Attest {
            config: &self.config,
            apis: batch.next(),
            binding: batch.binding.as_ref(),
            results: &batch.fresh,
            refresh_token: refresh_token.as_ref(),
        };
        Ok(Sealed { form: attest.to_form(), carries_results: !batch.fresh.is_empty() })
    }

    /// Learns what every answer tells, whatever else it says: the next nonce and the service's time.
    pub fn learn(&mut self, response: &Response, sent: Reading, received: Reading) {
        if let Some(nonce) = response.usable_nonce() {
            self.nonce = Some(nonce.to_owned());
        }
        if let Some(date) = response.date {
            self.clock.learn(sent, received, date, 1000);
        }
    }

    /// Takes the outcome of a batch's request, and gives the tokens for those who wait for it; `None` if the batch is to be sealed
    /// once more, for the next of its APIs alone.
    ///
    /// # Errors
    /// The error of the outcome; `session-expired` in place of a refused refresh token.
    pub fn complete(
        &mut self,
        id: BatchId,
        outcome: Result<Granted, Error>,
        sent: Reading,
        received: Reading,
    ) -> Result<Option<Tokens>, Error> {
        let position = self.batches.iter().position(|batch| batch.id == id).ok_or_else(no_such_batch)?;
        let mut batch = self.batches.remove(position);
        if let Err(error) = &outcome
            && batch.divided.is_none()
            && batch.apis.len() > 1
            && error.is_about_apis()
        {
            batch.divided = Some(Named::default());
            self.batches.insert(position, batch);
            return Ok(None);
        }
        let outcome = self.take(&batch, outcome, sent, received);
        let is_untouched = outcome.as_ref().is_err_and(Error::is_about_apis);
        let Some(mut over) = batch.divided.take() else {
            if is_untouched {
                self.hand_on(&batch.fresh);
            }
            if outcome.is_err() {
                self.rejoin();
            }
            return outcome.map(Some);
        };
        let ends_here = outcome.as_ref().is_err_and(|error| !error.is_about_apis());
        if outcome.is_ok() {
            // They have been looked at, and must not be sent again.
            batch.fresh = Results::default();
        }
        for api in batch.apis.iter().skip(over.len()).take(if ends_here { batch.apis.len() } else { 1 }) {
            let token = outcome.as_ref().map_err(Error::clone).and_then(|tokens| tokens.get(api));
            over.insert(api.clone(), token);
        }
        if over.len() < batch.apis.len() {
            batch.divided = Some(over);
            self.batches.insert(position, batch);
            return Ok(None);
        }
        if is_untouched {
            self.hand_on(&batch.fresh);
        }
        if outcome.is_err() {
            self.rejoin();
        }
        Ok(Some(Tokens::Divided(over)))
    }

    /// Gives results that the service has not looked at to the next request that waits for them.
    fn hand_on(&mut self, fresh: &Results) {
        if let Some(next) = self.batches.iter_mut().find(|batch| batch.is_open) {
            let newer = std::mem::replace(&mut next.fresh, fresh.clone());
            next.fresh.update(&newer);
        }
    }

    /// Changes the session as an outcome says.
    fn take(
        &mut self,
        batch: &Batch,
        outcome: Result<Granted, Error>,
        sent: Reading,
        received: Reading,
    ) -> Result<Tokens, Error> {
        match outcome {
            Ok(Granted::Session(grant)) => {
                self.clock.learn(sent, received, grant.server_time, 1);
                Ok(self.accept(batch, grant))
            }
            Ok(Granted::Bare(token)) => Ok(Tokens::Bare(token)),
            Err(error) => {
                if batch.fresh.is_empty() {
                    self.no_refresh_before = Some(received.monotonic.saturating_add(REFRESH_PAUSE));
                }
                Err(self.ended_by(batch, error, received))
            }
        }
    }

    /// Forgets a batch that nobody waits for any more.
    pub fn abandon(&mut self, id: BatchId) {
        let before = self.batches.len();
        self.batches.retain(|batch| batch.id != id);
        if self.batches.len() < before {
            self.rejoin();
        }
    }

    fn end_if_expired(&mut self, local: Reading) {
        if let Standing::Established(established) = &self.standing
            && self.clock.at(local).earliest >= established.expiry
        {
            self.end(local);
        }
    }

    /// Ends the session; its expiry is in the past from now on, so that a page which watches it renews the session.
    fn end(&mut self, local: Reading) {
        let mut expiries = Named::default();
        if let Standing::Established(established) = &mut self.standing {
            std::mem::swap(&mut expiries, &mut established.expiries);
            let now = self.clock.at(local).earliest;
            expiries.insert(SESSION.to_owned(), established.expiry.min(now));
        }
        self.standing = Standing::Ended(expiries);
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

    fn move_stand(&mut self, binding: Option<Binding>, fresh: &Results) {
        if !fresh.is_empty() {
            self.result_stand = self.result_stand.saturating_add(1);
        }
        if !fresh.is_empty() || binding != self.binding {
            self.binding = binding;
            self.cache.clear();
            self.no_refresh_before = None;
        }
    }

    /// When results were not accepted and no others are under way, the accepted ones are the current ones again, and so are the
    /// requests that rely on them.
    fn rejoin(&mut self) {
        if let Standing::Established(established) = &self.standing
            && self.batches.iter().all(|batch| batch.fresh.is_empty())
        {
            for batch in self.batches.iter_mut().filter(|batch| batch.result_stand >= established.result_stand) {
                batch.result_stand = self.result_stand;
            }
        }
    }

    fn refresh_is_paused(&self, local: Reading) -> bool {
        self.no_refresh_before.is_some_and(|moment| local.monotonic < moment)
    }

    /// The batch that brings the token of an API for the current binding and results: one that has it, one that is still open, or a new one.
    fn batch_for(&mut self, api: &str, fresh: Results) -> Wanted {
        let (binding, result_stand) = (self.binding, self.result_stand);
        let current = |batch: &Batch| batch.binding == binding && batch.result_stand == result_stand;
        let has_api = |batch: &Batch| batch.apis.iter().any(|known| known == api);
        if let Some(batch) = self.batches.iter().find(|batch| current(batch) && has_api(batch)) {
            return Wanted::Joined(batch.id);
        }
        if let Some(batch) = self.batches.iter_mut().find(|batch| current(batch) && batch.is_open) {
            batch.apis.push(api.to_owned());
            return Wanted::Joined(batch.id);
        }
        let after = self.latest_with_results();
        self.last_batch = self.last_batch.saturating_add(1);
        let id = BatchId(self.last_batch);
        let batch = Batch {
            id,
            apis: vec![api.to_owned()],
            binding,
            fresh,
            result_stand,
            sent_with: None,
            is_open: true,
            divided: None,
        };
        self.batches.push(batch);
        Wanted::New { batch: id, after }
    }

    fn accept(&mut self, batch: &Batch, grant: Grant) -> Tokens {
        let is_newest = match &self.standing {
            Standing::Fresh => true,
            Standing::Established(established) => batch.result_stand >= established.result_stand,
            Standing::Ended(_) => false,
        };
        if is_newest {
            self.accepted.update(&batch.fresh);
            self.standing = Standing::Established(Established {
                refresh_token: grant.refresh_token,
                result_stand: batch.result_stand,
                expiry: grant.session_expiry,
                expiries: grant.expiries,
            });
        }
        if is_newest && batch.binding == self.binding && batch.result_stand == self.result_stand {
            let expires = grant.server_time.saturating_add(grant.token_lifetime);
            for api in batch.next() {
                if let Some(token) = grant.tokens.get(api) {
                    self.cache.insert(api.clone(), token.clone(), grant.token_lifetime, expires);
                }
            }
            self.no_refresh_before = None;
        }
        Tokens::PerApi(grant.tokens)
    }

    /// A refused refresh token ends the session that it belongs to.
    fn ended_by(&mut self, batch: &Batch, error: Error, received: Reading) -> Error {
        let was_current = match &self.standing {
            Standing::Established(established) => batch.sent_with.as_ref() == Some(&established.refresh_token),
            Standing::Fresh => false,
            Standing::Ended(_) => true,
        };
        if !(was_current && error.is_invalid_refresh_token()) {
            return error;
        }
        if matches!(self.standing, Standing::Established(_)) {
            self.end(received);
        }
        session_expired().with_service_errors(error.service_errors().clone())
    }
}

/// The tokens of an answer.
#[derive(Debug)]
pub enum Tokens {
    /// One per API.
    PerApi(Named<Secret>),
    /// One for whichever API was asked for.
    Bare(Secret),
    /// One request's outcome per API.
    Divided(Named<Result<Secret, Error>>),
}

impl Tokens {
    /// Why there is none at all.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        let Tokens::Divided(outcomes) = self else { return None };
        outcomes.iter().try_fold(None, |_, (_, outcome)| outcome.as_ref().err().map(Some)).flatten()
    }

    /// The token of an API.
    ///
    /// # Errors
    /// `token-unavailable` if the answer has none; what the service or the network said, where APIs were asked for one by one.
    pub fn get(&self, api: &str) -> Result<Secret, Error> {
        match self {
            Tokens::PerApi(tokens) => tokens.get(api).cloned(),
            Tokens::Bare(token) => Some(token.clone()),
            Tokens::Divided(outcomes) => outcomes.get(api).cloned().transpose()?,
        }
        .ok_or_else(|| {
            Error::new(
                Code::TokenUnavailable,
                &[
                    "the Approov service gave no token for \"",
                    api,
                    "\": is the API added to the account and enabled for the web?",
                ],
            )
        })
    }
}

fn session_expired() -> Error {
    Error::new(
        Code::SessionExpired,
        &["the Approov session has ended: call initializeSession() and fetch a token with fresh check results"],
    )
}

fn results_required() -> Error {
    Error::new(
        Code::ResultsRequired,
        &[
            "the first token of a session needs the result of a check: \"fingerprintIDResult\", \"hcaptchaToken\" or \"recaptchaToken\"",
        ],
    )
}

fn no_such_batch() -> Error {
    Error::new(Code::Internal, &["a request of the Approov SDK was answered twice"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CheckKeys, KeyStorage};
    use crate::token_request::HcaptchaResult;
    use crate::wire::Body;
    use serde_json::json;

    const START: UnixMillis = 1_700_000_000_000;

    fn session() -> Session {
        Session::new(Config {
            attest_url: "https://example.com/attest".into(),
            site_key: "site".into(),
            checks: CheckKeys { fingerprint: None, hcaptcha: Some("hc".into()), recaptcha: Some("re".into()) },
            key_storage: KeyStorage::Auto,
        })
    }

    fn at(milliseconds: i64) -> Reading {
        Reading { wall: START + milliseconds, monotonic: milliseconds }
    }

    fn call(api: &str) -> TokenRequest {
        TokenRequest { api: api.into(), binding: None, results: Results::default(), timeout: 10_000 }
    }

    fn with_recaptcha(api: &str, token: &str) -> TokenRequest {
        TokenRequest { results: Results { recaptcha: Some(token.into()), ..Results::default() }, ..call(api) }
    }

    fn with_hcaptcha(api: &str, token: &str) -> TokenRequest {
        let result = HcaptchaResult { token: token.into(), key: None, host: None };
        TokenRequest { results: Results { hcaptcha: Some(result), ..Results::default() }, ..call(api) }
    }

    fn bound(api: &str, binding: u8) -> TokenRequest {
        TokenRequest { binding: Some([binding; 32]), ..call(api) }
    }

    /// An answer at `now` with a token `TAG:API` per API, living 120 s, and a session of two hours.
    fn answer(apis: &[&str], tag: &str, now: i64) -> Result<Granted, Error> {
        let tokens: serde_json::Map<_, _> =
            apis.iter().map(|api| ((*api).to_owned(), json!(format!("{tag}:{api}")))).collect();
        let body = json!({
            "tokens": tokens, "token-lifetime": 120, "refresh-token": format!("refresh-{tag}"),
            "expiries": {"session": START + 7_200_000, "recap:re": START + 7_200_000}, "server-time": START + now,
        });
        Response {
            status: 200,
            content_type: "application/json".into(),
            body: Body::Json(serde_json::from_value(body).expect("JSON")),
            ..Response::default()
        }
        .into_granted()
    }

    fn refused(code: &str) -> Error {
        let mut errors = Named::default();
        errors.insert(code.to_owned(), String::new());
        Error::new(Code::Service, &["Unauthorized"]).with_service_errors(errors)
    }

    fn new_batch(step: &Step) -> BatchId {
        match step {
            Step::Wait(Wanted::New { batch, .. }) | Step::Ageing(_, Wanted::New { batch, .. }) => *batch,
            other => panic!("expected a new request, got {other:?}"),
        }
    }

    fn complete(
        session: &mut Session,
        id: BatchId,
        outcome: Result<Granted, Error>,
        now: i64,
    ) -> Result<Tokens, Error> {
        session.complete(id, outcome, at(now), at(now)).map(|tokens| tokens.expect("a batch that is over"))
    }

    /// A session that has just got its first token, for "api".
    fn established() -> Session {
        let mut session = session();
        let batch = new_batch(&session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step"));
        session.seal(batch).expect("sealed");
        complete(&mut session, batch, answer(&["api"], "first", 0), 0).expect("tokens");
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
        let batch = new_batch(&session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step"));
        let sealed = session.seal(batch).expect("sealed");
        assert!(sealed.carries_results);
        assert_eq!(sealed.form, "api=api&approov-site-key=site&recaptcha-site-key=re&recaptcha-token=r1");
        complete(&mut session, batch, answer(&["api"], "first", 0), 0).expect("tokens");
        let batch = new_batch(&session.request(&with_recaptcha("other", "r1"), at(10)).expect("a step"));
        let sealed = session.seal(batch).expect("sealed");
        assert!(!sealed.carries_results);
        assert_eq!(sealed.form, "api=other&approov-site-key=site&refresh-token=refresh-first");
    }

    #[test]
    fn a_token_comes_from_the_cache_until_it_ages_then_is_refreshed_once_behind_the_caller() {
        let mut session = established();
        assert_eq!(session.request(&call("api"), at(89_000)), Ok(Step::Cached("first:api".into())));
        let step = session.request(&call("api"), at(91_000)).expect("a step");
        assert!(matches!(&step, Step::Ageing(token, Wanted::New { .. }) if token.expose() == "first:api"));
        assert_eq!(session.request(&call("api"), at(92_000)), Ok(Step::Cached("first:api".into())));
        let batch = new_batch(&step);
        session.seal(batch).expect("sealed");
        complete(&mut session, batch, answer(&["api"], "second", 92_500), 92_500).expect("tokens");
        assert_eq!(session.request(&call("api"), at(93_000)), Ok(Step::Cached("second:api".into())));
    }

    #[test]
    fn an_expired_token_is_awaited_and_never_returned() {
        let mut session = established();
        assert!(matches!(session.request(&call("api"), at(116_000)), Ok(Step::Wait(Wanted::New { .. }))));
        assert!(matches!(session.request(&call("api"), at(900_000)), Ok(Step::Wait(Wanted::Joined(_)))));
    }

    #[test]
    fn a_refresh_behind_that_failed_pauses_the_next_one() {
        let mut session = established();
        let batch = new_batch(&session.request(&call("api"), at(91_000)).expect("a step"));
        session.seal(batch).expect("sealed");
        complete(&mut session, batch, Err(Error::new(Code::Network, &[""])), 91_000).expect_err("an error");
        assert_eq!(session.request(&call("api"), at(95_000)), Ok(Step::Cached("first:api".into())));
        assert!(matches!(session.request(&call("api"), at(96_000)), Ok(Step::Ageing(..))));
    }

    #[test]
    fn calls_with_equal_parameters_share_a_request_and_other_apis_join_until_it_is_sent() {
        let mut session = session();
        let batch = new_batch(&session.request(&with_recaptcha("a", "r1"), at(0)).expect("a step"));
        for request in [with_recaptcha("a", "r1"), call("a"), call("b"), with_recaptcha("c", "r1")] {
            assert_eq!(session.request(&request, at(0)), Ok(Step::Wait(Wanted::Joined(batch))), "{request:?}");
        }
        let sealed = session.seal(batch).expect("sealed");
        assert!(sealed.form.starts_with("api=a&api=b&api=c&approov-site-key"), "{}", sealed.form);
        assert_eq!(session.request(&call("c"), at(1)), Ok(Step::Wait(Wanted::Joined(batch))));
        let late = session.request(&call("d"), at(1)).expect("a step");
        assert!(matches!(late, Step::Wait(Wanted::New { after: Some(after), .. }) if after == batch));
    }

    #[test]
    fn a_changed_binding_drops_all_cached_tokens() {
        let mut session = established();
        let batch = new_batch(&session.request(&bound("api", 1), at(10)).expect("a step"));
        assert!(session.seal(batch).expect("sealed").form.contains("payload=AQEB"));
        complete(&mut session, batch, answer(&["api"], "bound", 10), 10).expect("tokens");
        assert_eq!(session.request(&bound("api", 1), at(20)), Ok(Step::Cached("bound:api".into())));
        assert!(matches!(session.request(&bound("api", 2), at(30)), Ok(Step::Wait(_))));
        assert!(matches!(session.request(&call("api"), at(30)), Ok(Step::Wait(_))));
    }

    #[test]
    fn a_changed_result_drops_all_cached_tokens_and_is_looked_up() {
        let mut session = established();
        let batch = new_batch(&session.request(&with_recaptcha("api", "r2"), at(10)).expect("a step"));
        let sealed = session.seal(batch).expect("sealed");
        assert!(sealed.carries_results);
        assert!(sealed.form.contains("refresh-token=refresh-first") && sealed.form.contains("recaptcha-token=r2"));
        complete(&mut session, batch, answer(&["api"], "second", 10), 10).expect("tokens");
        assert_eq!(session.request(&with_recaptcha("api", "r2"), at(20)), Ok(Step::Cached("second:api".into())));
    }

    #[test]
    fn a_result_of_another_check_is_added() {
        let mut session = established();
        let batch = new_batch(&session.request(&with_hcaptcha("api", "h1"), at(10)).expect("a step"));
        session.seal(batch).expect("sealed");
        complete(&mut session, batch, answer(&["api"], "second", 10), 10).expect("tokens");
        assert_eq!(session.request(&with_hcaptcha("api", "h1"), at(20)), Ok(Step::Cached("second:api".into())));
        assert_eq!(session.request(&with_recaptcha("api", "r1"), at(20)), Ok(Step::Cached("second:api".into())));
    }

    #[test]
    fn a_binding_that_comes_back_shares_the_request_that_is_still_under_way() {
        let mut session = established();
        let bound_once = new_batch(&session.request(&bound("other", 1), at(10)).expect("a step"));
        session.seal(bound_once).expect("sealed");
        session.request(&bound("other", 2), at(20)).expect("a step");
        assert_eq!(session.request(&bound("other", 1), at(30)), Ok(Step::Wait(Wanted::Joined(bound_once))));
    }

    #[test]
    fn after_new_results_failed_the_requests_with_the_accepted_ones_are_shared_again() {
        let mut session = established();
        let plain = new_batch(&session.request(&call("other"), at(10)).expect("a step"));
        session.seal(plain).expect("sealed");
        let fresh = new_batch(&session.request(&with_recaptcha("api", "r2"), at(20)).expect("a step"));
        session.seal(fresh).expect("sealed");
        assert!(matches!(session.request(&call("other"), at(25)), Ok(Step::Wait(Wanted::New { .. }))));
        complete(&mut session, fresh, Err(Error::new(Code::Network, &[])), 30).expect_err("an error");
        assert_eq!(session.request(&call("other"), at(40)), Ok(Step::Wait(Wanted::Joined(plain))));
        complete(&mut session, plain, answer(&["other"], "plain", 50), 50).expect("tokens");
        assert_eq!(session.request(&call("other"), at(60)), Ok(Step::Cached("plain:other".into())));
    }

    #[test]
    fn an_answer_for_an_older_binding_is_not_cached() {
        let mut session = established();
        let older = new_batch(&session.request(&bound("api", 1), at(10)).expect("a step"));
        session.seal(older).expect("sealed");
        let newer = new_batch(&session.request(&bound("api", 2), at(20)).expect("a step"));
        session.seal(newer).expect("sealed");
        complete(&mut session, newer, answer(&["api"], "newer", 30), 30).expect("tokens");
        let tokens = complete(&mut session, older, answer(&["api"], "older", 40), 40).expect("tokens");
        assert_eq!(tokens.get("api").map(|token| token.expose().to_owned()).as_deref(), Ok("older:api"));
        assert_eq!(session.request(&bound("api", 2), at(50)), Ok(Step::Cached("newer:api".into())));
    }

    #[test]
    fn an_answer_without_the_newest_results_does_not_continue_the_session() {
        let mut session = established();
        let plain = new_batch(&session.request(&call("other"), at(10)).expect("a step"));
        session.seal(plain).expect("sealed");
        let fresh = new_batch(&session.request(&with_recaptcha("api", "r2"), at(10)).expect("a step"));
        session.seal(fresh).expect("sealed");
        complete(&mut session, fresh, answer(&["api"], "fresh", 20), 20).expect("tokens");
        complete(&mut session, plain, answer(&["other"], "plain", 30), 30).expect("tokens");
        let next = new_batch(&session.request(&call("third"), at(40)).expect("a step"));
        assert!(session.seal(next).expect("sealed").form.contains("refresh-token=refresh-fresh"));
    }

    #[test]
    fn two_different_first_results_are_sent_one_after_the_other() {
        let mut session = session();
        let first = new_batch(&session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step"));
        let second = session.request(&with_recaptcha("api", "r2"), at(0)).expect("a step");
        assert!(matches!(second, Step::Wait(Wanted::New { after: Some(after), .. }) if after == first));
        let second = new_batch(&second);
        session.seal(first).expect("sealed");
        complete(&mut session, first, answer(&["api"], "first", 10), 10).expect("tokens");
        let sealed = session.seal(second).expect("sealed");
        assert!(sealed.form.contains("refresh-token=refresh-first") && sealed.form.contains("recaptcha-token=r2"));
        complete(&mut session, second, answer(&["api"], "second", 20), 20).expect("tokens");
        assert_eq!(session.request(&call("api"), at(30)), Ok(Step::Cached("second:api".into())));
    }

    #[test]
    fn a_failure_is_not_remembered_and_the_same_result_may_be_sent_again() {
        let mut session = session();
        let batch = new_batch(&session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step"));
        session.seal(batch).expect("sealed");
        let error = complete(&mut session, batch, Err(Error::new(Code::Network, &["gone"])), 10).expect_err("an error");
        assert_eq!(error.code(), Code::Network);
        assert_eq!(session.request(&call("api"), at(20)).expect_err("an error").code(), Code::ResultsRequired);
        let again = new_batch(&session.request(&with_recaptcha("api", "r1"), at(20)).expect("a step"));
        assert!(session.seal(again).expect("sealed").form.contains("recaptcha-token=r1"));
    }

    #[test]
    fn a_batch_that_waited_for_results_which_failed_cannot_be_sealed() {
        let mut session = session();
        let first = new_batch(&session.request(&with_recaptcha("a", "r1"), at(0)).expect("a step"));
        session.seal(first).expect("sealed");
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
        let jumped = Reading { wall: START + 90_000_000, monotonic: 1_000 };
        assert!(matches!(session.request(&call("api"), jumped), Ok(Step::Wait(_))));
    }

    #[test]
    fn a_refused_refresh_token_ends_the_session() {
        let mut session = established();
        let batch = new_batch(&session.request(&call("other"), at(10)).expect("a step"));
        session.seal(batch).expect("sealed");
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
        let plain = new_batch(&session.request(&call("other"), at(10)).expect("a step"));
        session.seal(plain).expect("sealed");
        let fresh = new_batch(&session.request(&with_recaptcha("api", "r2"), at(10)).expect("a step"));
        session.seal(fresh).expect("sealed");
        complete(&mut session, fresh, answer(&["api"], "fresh", 20), 20).expect("tokens");
        let error =
            complete(&mut session, plain, Err(refused("aprv-invalid-refresh-token")), 30).expect_err("an error");
        assert_eq!(error.code(), Code::Service);
        assert!(session.request(&call("api"), at(40)).is_ok());
    }

    #[test]
    fn an_answer_after_the_end_revives_nothing() {
        let mut session = established();
        let late = new_batch(&session.request(&call("other"), at(10)).expect("a step"));
        session.seal(late).expect("sealed");
        let ending = new_batch(&session.request(&call("third"), at(10)).expect("a step"));
        session.seal(ending).expect("sealed");
        complete(&mut session, ending, Err(refused("aprv-invalid-refresh-token")), 20).expect_err("an error");
        let tokens = complete(&mut session, late, answer(&["other"], "late", 30), 30).expect("tokens");
        assert!(tokens.get("other").is_ok());
        assert_eq!(session.request(&call("other"), at(40)).expect_err("an error").code(), Code::SessionExpired);
        assert_eq!(session.seal(late).expect_err("an error").code(), Code::SessionExpired);
    }

    #[test]
    fn an_api_without_a_token_is_named() {
        let mut session = session();
        let batch = new_batch(&session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step"));
        session.seal(batch).expect("sealed");
        let tokens = complete(&mut session, batch, answer(&["other"], "x", 0), 0).expect("tokens");
        let error = tokens.get("api").expect_err("an error");
        assert!(error.code() == Code::TokenUnavailable && error.message().contains("\"api\""));
    }

    #[test]
    fn a_bare_token_is_handed_on_without_a_session() {
        let mut session = session();
        let batch = new_batch(&session.request(&with_recaptcha("api", "r1"), at(0)).expect("a step"));
        session.seal(batch).expect("sealed");
        let tokens = complete(&mut session, batch, Ok(Granted::Bare("bare".into())), 0).expect("tokens");
        assert_eq!(tokens.get("api").map(|token| token.expose().to_owned()).as_deref(), Ok("bare"));
        assert_eq!(session.request(&call("api"), at(10)).expect_err("an error").code(), Code::ResultsRequired);
    }

    #[test]
    fn expiries_are_told_by_the_local_clock() {
        let mut session = session();
        let local = Reading { wall: START - 6 * 3_600_000, monotonic: 5 };
        let batch = new_batch(&session.request(&with_recaptcha("api", "r1"), local).expect("a step"));
        session.seal(batch).expect("sealed");
        session.complete(batch, answer(&["api"], "first", 0), local, local).expect("tokens");
        let expiries = session.expiries(local);
        assert!(expiries.contains(&("session".to_owned(), local.wall + 7_200_000)), "{expiries:?}");
        assert_eq!(session.issued_at(local), START / 1000);
    }

    #[test]
    fn every_answer_teaches_nonce_and_time() {
        let mut session = session();
        let answer =
            Response { status: 500, nonce: Some("n1".into()), date: Some(START + 5_000_000), ..Response::default() };
        session.learn(&answer, at(0), at(10));
        assert_eq!(session.nonce(), Some("n1"));
        assert_eq!(session.issued_at(at(10)), (START + 5_000_000) / 1000);
        session.learn(&Response::default(), at(10), at(20));
        assert_eq!(session.nonce(), Some("n1"));
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
