//! One session, from `initializeSession` to its end: which token a call gets, what has to be requested, and what answers change.
//!
//! Nothing here waits or sends. A call of `fetchToken` becomes a [`Step`]; a request that a step asks for is a batch, which stays
//! open for more APIs until [`Session::seal`] turns it into a request body, and is over with [`Session::complete`] or
//! [`Session::abandon`].
//!
//! Two counters keep late answers from doing harm. A *stand* is the combination of binding and check results that the latest call
//! asked for: a token is cached only while the stand that it was requested for is the current one. The *result stand* counts the
//! check results alone: an answer continues the session only if no newer results have been accepted meanwhile.

use crate::cache::{Cache, Lookup};
use crate::config::Config;
use crate::error::{Code, Error};
use crate::named::Named;
use crate::secret::Secret;
use crate::time::{Reading, ServiceClock, UnixMillis};
use crate::token_request::{Binding, Results, TokenRequest};
use crate::wire::{Attest, Grant, Granted, Response};

/// After a refresh behind an ageing token has failed, the next one waits this long, in milliseconds.
const REFRESH_PAUSE: i64 = 5_000;

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    config: Config,
    clock: ServiceClock,
    nonce: Option<String>,
    standing: Standing,
    stand: u64,
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
    /// The session is over.
    Ended,
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
    stand: u64,
    result_stand: u64,
    sent_with: Option<Secret>,
    is_open: bool,
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
            stand: 0,
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
            Standing::Established(established) => established
                .expiries
                .iter()
                .map(|(name, &moment)| (name.to_owned(), self.clock.to_wall(moment, local)))
                .collect(),
            Standing::Fresh | Standing::Ended => Vec::new(),
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
            Standing::Ended => return Err(session_expired()),
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
            Standing::Ended => return Err(session_expired()),
        };
        let batch = self.batches.iter_mut().find(|batch| batch.id == id).ok_or_else(no_such_batch)?;
        if refresh_token.is_none() && batch.fresh.is_empty() {
            return Err(results_required());
        }
        batch.is_open = false;
        batch.sent_with.clone_from(&refresh_token);
        let attest = Attest {
            config: &self.config,
            apis: &batch.apis,
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

    /// Takes the outcome of a batch's request, and gives the tokens for those who wait for it.
    ///
    /// # Errors
    /// The error of the outcome; `session-expired` in place of a refused refresh token.
    pub fn complete(
        &mut self,
        id: BatchId,
        outcome: Result<Granted, Error>,
        sent: Reading,
        received: Reading,
    ) -> Result<Tokens, Error> {
        let position = self.batches.iter().position(|batch| batch.id == id).ok_or_else(no_such_batch)?;
        let batch = self.batches.remove(position);
        match outcome {
            Ok(Granted::Session(grant)) => {
                self.clock.learn(sent, received, grant.server_time, 1);
                Ok(self.accept(&batch, grant))
            }
            Ok(Granted::Bare(token)) => Ok(Tokens::Bare(token)),
            Err(error) => {
                if batch.fresh.is_empty() {
                    self.no_refresh_before = Some(received.monotonic.saturating_add(REFRESH_PAUSE));
                }
                Err(self.ended_by(&batch, error))
            }
        }
    }

    /// Forgets a batch that nobody waits for any more.
    pub fn abandon(&mut self, id: BatchId) {
        self.batches.retain(|batch| batch.id != id);
    }

    fn end_if_expired(&mut self, local: Reading) {
        if let Standing::Established(established) = &self.standing
            && self.clock.at(local).earliest >= established.expiry
        {
            self.end();
        }
    }

    fn end(&mut self) {
        self.standing = Standing::Ended;
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
            self.stand = self.stand.saturating_add(1);
            self.binding = binding;
            self.cache.clear();
            self.no_refresh_before = None;
        }
    }

    fn refresh_is_paused(&self, local: Reading) -> bool {
        self.no_refresh_before.is_some_and(|moment| local.monotonic < moment)
    }

    /// The batch that brings the token of an API at the current stand: one that has it, one that is still open, or a new one.
    fn batch_for(&mut self, api: &str, fresh: Results) -> Wanted {
        let stand = self.stand;
        let mut current = self.batches.iter().filter(|batch| batch.stand == stand);
        if let Some(batch) = current.find(|batch| batch.apis.iter().any(|known| known == api)) {
            return Wanted::Joined(batch.id);
        }
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.stand == stand && batch.is_open) {
            batch.apis.push(api.to_owned());
            return Wanted::Joined(batch.id);
        }
        let after = self.latest_with_results();
        self.last_batch = self.last_batch.saturating_add(1);
        let id = BatchId(self.last_batch);
        let batch = Batch {
            id,
            apis: vec![api.to_owned()],
            binding: self.binding,
            fresh,
            stand,
            result_stand: self.result_stand,
            sent_with: None,
            is_open: true,
        };
        self.batches.push(batch);
        Wanted::New { batch: id, after }
    }

    fn accept(&mut self, batch: &Batch, grant: Grant) -> Tokens {
        let is_newest = match &self.standing {
            Standing::Fresh => true,
            Standing::Established(established) => batch.result_stand >= established.result_stand,
            Standing::Ended => false,
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
        if is_newest && batch.stand == self.stand {
            let expires = grant.server_time.saturating_add(grant.token_lifetime);
            for api in &batch.apis {
                if let Some(token) = grant.tokens.get(api) {
                    self.cache.insert(api.clone(), token.clone(), grant.token_lifetime, expires);
                }
            }
            self.no_refresh_before = None;
        }
        Tokens::PerApi(grant.tokens)
    }

    /// A refused refresh token ends the session that it belongs to.
    fn ended_by(&mut self, batch: &Batch, error: Error) -> Error {
        let was_current = match &self.standing {
            Standing::Established(established) => batch.sent_with.as_ref() == Some(&established.refresh_token),
            Standing::Fresh => false,
            Standing::Ended => true,
        };
        if !(was_current && error.is_invalid_refresh_token()) {
            return error;
        }
        self.end();
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
}

impl Tokens {
    /// The token of an API.
    ///
    /// # Errors
    /// `token-unavailable` if the answer has none.
    pub fn get(&self, api: &str) -> Result<Secret, Error> {
        match self {
            Tokens::PerApi(tokens) => tokens.get(api).cloned(),
            Tokens::Bare(token) => Some(token.clone()),
        }
        .ok_or_else(|| {
            Error::new(
                Code::TokenUnavailable,
                format!("the Approov service gave no token for \"{api}\": is the API added to the account and enabled for the web?"),
            )
        })
    }
}

fn session_expired() -> Error {
    Error::new(
        Code::SessionExpired,
        "the Approov session has ended: call initializeSession() and fetch a token with fresh check results",
    )
}

fn results_required() -> Error {
    Error::new(
        Code::ResultsRequired,
        "the first token of a session needs the result of a check: \"fingerprintIDResult\", \"hcaptchaToken\" or \"recaptchaToken\"",
    )
}

fn no_such_batch() -> Error {
    Error::new(Code::Internal, "a request of the Approov SDK was answered twice")
}
