//! The driver: carries out what a session decides, on a host that has clocks, randomness, a key store and a network.
//!
//! ```text
//!   initializeSession ──▶ generate a key ──▶ replace the active session ──▶ done
//!                                                        └─ in the background: nonce request, first proof signed
//!
//!   fetchToken ──▶ session decides ─┬─ Cached ─▶ token
//!                                   ├─ Stale ──▶ token; the batch runs in the background
//!                                   └─ Wait ───▶ the batch, a time-out and the caller's signal: the first to end decides
//!
//!   batch:   end of the turn (further APIs join) ─▶ nonce ─▶ batch before it ─▶ seal ─▶ attest ─▶ complete ─▶ tokens
//!                                                                                ▲                   │
//!                                                                                └── next API alone ─┘
//!
//!   attest:  sign ─▶ send ─┬─ granted, or an error that is final ─▶ outcome
//!             ▲            ├─ proof refused, or its nonce: once, with a fresh one
//!             ├────────────┼─ work required: once, with the solution of its challenge
//!             └────────────┴─ retryable: twice, after a pause; with results once, if the network failed
//! ```
//!
//! A request is one future that all who wait for it share. It makes progress as long as anybody waits; when the last one has left
//! (time-out, abort), it is dropped, and with it the fetch. But once it has carried results to the service, it goes on in the
//! background: they are good for one request, and its token is cached for the next call with the same results.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use futures_util::future::{Either, select};

use crate::altcha::{Challenge, KEY_BYTES};
use crate::batch::{BatchId, Tokens};
use crate::config::{Config, KeyStorage, SessionArguments};
use crate::dpop::{
    Claims, HtuCache, Method, ProofArguments, ProofHeader, TokenHashCache, decode_any_base64, token_hash,
};
use crate::error::{Code, Error};
use crate::issued::IssuedTokens;
use crate::json::{Json, integer_literal, string_literal};
use crate::jws::{self, PublicKey};
use crate::notice::{Notice, Record};
use crate::secret::Secret;
use crate::session::{AttestBody, Pending, Session, Stage, Step};
use crate::shared::{LocalBoxFuture, Shared, WeakShared};
use crate::time::{ClockReading, RoundTrip, UnixMillis};
use crate::token_request::{DEFAULT_TIMEOUT, TokenArguments, TokenRequest};
use crate::wire::{Granted, Response, challenge_request, with_parameter};

/// A refresh is retried after this long, in milliseconds, then after twice as long.
const BACKOFF: u32 = 250;
/// How often a refresh is retried.
const MAX_REFRESH_RETRIES: u32 = 2;

/// When a time-out comes late, the response gets as long again, up to this long, in milliseconds.
const MAX_LATE_GRACE: i64 = 1_000;

/// With several hosts, the next one is asked when one has not responded for this long, in milliseconds.
const HOST_PATIENCE: u32 = 2_000;

/// So many keys of a challenge are derived at once: enough for every processor, and soon done.
const TRIES: u32 = 32;

/// An older presigned proof, in milliseconds, is not used: its `iat` must be one that any service considers recent.
const PRESIGNED_PROOF_MAX_AGE: i64 = 60_000;

/// What the driver needs from where it runs.
#[allow(async_fn_in_trait)] // all runs on one thread
pub trait Host: Clone + 'static {
    /// What the host throws; goes along as the cause of an error.
    type Cause: Clone + 'static;
    /// A private key.
    type Key: 'static;

    /// Reads the clocks.
    fn now(&self) -> ClockReading;
    /// Draws random bytes.
    fn random<const N: usize>(&self) -> Result<[u8; N], Failure<Self::Cause>>;
    /// Parses a URL as the WHATWG URL standard does, and serialises it; `None` if it is not one.
    fn href(&self, url: &str) -> Option<String>;
    /// Makes a session key.
    async fn generate_key(&self, storage: KeyStorage) -> Result<(Self::Key, PublicKey), Failure<Self::Cause>>;
    /// Signs with ES256: r and s, 32 bytes each.
    async fn sign(&self, key: &Self::Key, message: &[u8]) -> Result<Vec<u8>, Failure<Self::Cause>>;
    /// The keys of so many counters of a challenge from `first` on, one after the other.
    async fn derive_keys(&self, challenge: &Challenge, first: u32, count: u32)
    -> Result<Vec<u8>, Failure<Self::Cause>>;
    /// Parses JSON text; `None` if it is not that.
    fn json(&self, text: &str) -> Option<Json>;
    /// Sends a request; a response of any status is a success.
    async fn send(&self, request: Request) -> Result<Response, Failure<Self::Cause>>;
    /// Waits this long.
    async fn sleep(&self, milliseconds: u32);
    /// Waits for one microtask: everything that the current turn of the event loop does at once is done by then.
    async fn yield_microtask(&self);
    /// Takes note of what has happened.
    fn notify(&self, notice: Notice<'_, Self>)
    where
        Self: Sized;
    /// Runs a task in the background.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}

/// A request to the service.
#[derive(Clone, Debug)]
pub struct Request {
    /// The service's URL.
    pub url: String,
    /// The proof, for the `DPoP` header.
    pub proof: String,
    /// The form of an attest request; none for a nonce request, which is a `GET`.
    pub form: Option<String>,
}

/// An error with what caused it.
#[derive(Clone, Debug)]
pub struct Failure<C> {
    /// The error.
    pub error: Error,
    /// What the host threw, if that is where it came from.
    pub cause: Option<C>,
}

impl<C> Failure<C> {
    /// An error with its cause.
    pub fn caused_by(error: Error, cause: C) -> Self {
        Failure { error, cause: Some(cause) }
    }
}

impl<C> From<Error> for Failure<C> {
    fn from(error: Error) -> Self {
        Failure { error, cause: None }
    }
}

type Outcome<H, T> = Result<T, Failure<<H as Host>::Cause>>;
type SharedTokens<H> = Shared<Outcome<H, Rc<Settled<<H as Host>::Cause>>>>;
type WeakTokens<H> = WeakShared<Outcome<H, Rc<Settled<<H as Host>::Cause>>>>;
type SharedStart<H> = Shared<Outcome<H, ()>>;

/// The tokens of a batch that is done.
struct Settled<C> {
    tokens: Tokens,
    /// What the host threw, if that ended a batch after some of its APIs had got their tokens.
    cause: Option<C>,
}

impl<C: Clone> Settled<C> {
    fn get(&self, api: &str) -> Result<Secret, Failure<C>> {
        self.tokens.get(api).map_err(|error| self.failure(error))
    }

    /// The latest failure, if no API got a token.
    fn failed(&self) -> Option<Failure<C>> {
        self.tokens.error().map(|error| self.failure(error.clone()))
    }

    fn failure(&self, error: Error) -> Failure<C> {
        let cause = if error.is_about_apis() { None } else { self.cause.clone() };
        Failure { error, cause }
    }
}

/// The SDK: at most one session at a time.
pub struct Sdk<H: Host> {
    host: H,
    active: RefCell<Option<Rc<ActiveSession<H>>>>,
    /// The latest call of `initializeSession` that is under way; it waits for the ones before it.
    starting: RefCell<Option<SharedStart<H>>>,
    start_count: Cell<u64>,
    session_count: Cell<u64>,
    issued: Rc<RefCell<IssuedTokens>>,
}

/// What a request to a backend is sent with.
pub struct Authorization<H: Host> {
    /// The session that token and proof are of.
    pub session: Rc<ActiveSession<H>>,
    /// The token.
    pub token: String,
    /// What the proof signs.
    pub input: String,
}

/// A session with its key. Requests in flight belong to theirs, so they cannot change a newer one.
pub struct ActiveSession<H: Host> {
    host: H,
    /// Which of the sessions so far this is.
    number: u64,
    /// Whether it is the one that calls use.
    is_active: Cell<bool>,
    /// What the host has been told.
    told: Cell<Stage>,
    issued: Rc<RefCell<IssuedTokens>>,
    /// The session's key.
    pub key: H::Key,
    public_key: PublicKey,
    /// Which of its hosts it is with.
    place: Cell<usize>,
    header: ProofHeader,
    token_hash: RefCell<TokenHashCache>,
    htu: RefCell<HtuCache>,
    session: RefCell<Session>,
    nonce_request: RefCell<Option<WeakShared<Outcome<H, ()>>>>,
    /// The latest that a nonce came with, until it is solved.
    challenge: RefCell<Option<Challenge>>,
    solving: RefCell<Option<WeakShared<Outcome<H, ()>>>>,
    /// What the latest work came to.
    solution: RefCell<Option<Secret>>,
    presigned_proof: Cell<Option<PresignedProof>>,
    batches: RefCell<Vec<(BatchId, WeakTokens<H>)>>,
}

/// The proof of the first attest request, signed as soon as there is a nonce.
struct PresignedProof {
    htu: String,
    nonce: Option<String>,
    proof: String,
    /// When it was signed, by the monotonic clock.
    signed: i64,
}

impl<H: Host> Sdk<H> {
    /// An SDK without a session.
    pub fn new(host: H) -> Self {
        Sdk {
            host,
            active: RefCell::new(None),
            starting: RefCell::new(None),
            start_count: Cell::new(0),
            session_count: Cell::new(0),
            issued: Rc::default(),
        }
    }

    /// Begins a session with a fresh key, in place of the one before, and requests a nonce from the service without waiting for it.
    /// `last` are the options of a session that this SDK does not know, since another instance had it; they count where there is
    /// no session yet, and the options name no service. A `record` of the same account is continued in place of a fresh key, if the
    /// session is to outlive the page.
    ///
    /// # Errors
    /// `invalid-argument`, or `unsupported` if the key cannot be made; the session before stays as it is.
    pub async fn initialize_session(
        self: &Rc<Self>,
        options: SessionArguments,
        last: SessionArguments,
        record: Option<Record<H::Key>>,
    ) -> Outcome<H, ()> {
        let before = self.starting.borrow().clone();
        let sdk = Rc::clone(self);
        let start = Shared::new(async move {
            if let Some(before) = before {
                // Its own caller gets the outcome.
                let _ = before.await;
            }
            let (session, is_continued) = sdk.make_session(&options, &last, record).await?;
            sdk.activate(session, is_continued);
            Ok(())
        });
        let number = self.start_count.get().wrapping_add(1);
        self.start_count.set(number);
        *self.starting.borrow_mut() = Some(start.clone());
        let outcome = start.await;
        if self.start_count.get() == number {
            *self.starting.borrow_mut() = None;
        }
        outcome
    }

    /// The token of an API, from the cache or from the service. `cancelled` resolves when the caller gives up.
    ///
    /// # Errors
    /// Those of the specification; see [`Code`].
    pub async fn fetch_token(
        &self,
        arguments: TokenArguments,
        cancelled: impl Future<Output = Failure<H::Cause>>,
    ) -> Outcome<H, String> {
        self.active().await?.fetch_token(arguments, cancelled).await
    }

    /// The token of an API and what a proof for it signs, both of one session, which goes along with its key. The proof's own token
    /// is the one that was fetched.
    ///
    /// # Errors
    /// Those of [`Sdk::fetch_token`] and [`ActiveSession::proof_input`].
    pub async fn authorize(
        &self,
        arguments: TokenArguments,
        proof: ProofArguments,
        cancelled: impl Future<Output = Failure<H::Cause>>,
    ) -> Outcome<H, Authorization<H>> {
        let session = self.active().await?;
        let token = session.fetch_token(arguments, cancelled).await?;
        let input = session.proof_input(ProofArguments { token: Some(Ok(token.clone())), ..proof })?;
        Ok(Authorization { session, token, input })
    }

    /// Begins a session beside the active one, and puts it in its place once it has its first token. `arguments` passes the check,
    /// while the nonce is on its way. Whatever fails, the session before stays; and it gives way to a session that the app itself
    /// has begun meanwhile. Tells whether the new session is the active one. For `last` and `record`, see
    /// [`Sdk::initialize_session`]: a session that is continued needs no `arguments`.
    ///
    /// # Errors
    /// Those of [`Sdk::initialize_session`] and [`Sdk::fetch_token`], and what `arguments` fails with.
    pub async fn renew<Cancelled: Future<Output = Failure<H::Cause>>>(
        self: &Rc<Self>,
        options: &SessionArguments,
        last: &SessionArguments,
        record: Option<Record<H::Key>>,
        arguments: impl Future<Output = Outcome<H, (TokenArguments, Cancelled)>>,
    ) -> Outcome<H, bool> {
        let starting = self.starting.borrow().clone();
        if let Some(starting) = starting {
            // Its own caller gets the outcome.
            let _ = starting.await;
        }
        let number = self.start_count.get();
        let (session, is_continued) = self.make_session(options, last, record).await?;
        if !is_continued {
            let (arguments, cancelled) = arguments.await?;
            session.fetch_token(arguments, cancelled).await?;
        }
        let is_latest = self.start_count.get() == number;
        if is_latest {
            self.activate(session, is_continued);
        }
        Ok(is_latest)
    }

    /// Continues the session that another page has begun with the same account, in place of this page's.
    pub fn adopt(&self, record: Record<H::Key>) {
        let Some(active) = self.active.borrow().clone() else { return };
        let config = active.session.borrow().config().clone();
        if config.persistent && record.is_for(&config, self.host.now()) && record.public_key != active.public_key {
            self.activate(self.continued(config, record), true);
        }
    }

    /// How long the session has left, in milliseconds, at most or at least: while the computer sleeps, a clock may have stood still.
    /// 0 once it has ended, none before it has its first token.
    pub fn time_left(&self, at_most: bool) -> Option<i64> {
        let active = self.active.borrow().clone()?;
        active.tell_stage();
        let now = self.host.now();
        let stage = active.session.borrow_mut().stage(now);
        match stage {
            Stage::Fresh => None,
            Stage::Established(expiry) => {
                let time = active.session.borrow().time(now);
                Some(expiry.saturating_sub(if at_most { time.earliest } else { time.latest }).max(0))
            }
            Stage::Ended => Some(0),
        }
    }

    /// Takes note that a backend refuses a token, and tells whether another may do better than it; see [`Session::refuse`].
    pub fn refuse(&self, token: &str) -> bool {
        let active = self.active.borrow().clone();
        active.is_none_or(|active| active.session.borrow_mut().refuse(token, self.host.now()))
    }

    /// The session, once the calls of `initializeSession` that came before are done.
    ///
    /// # Errors
    /// `not-initialized` without a session.
    pub async fn active(&self) -> Outcome<H, Rc<ActiveSession<H>>> {
        let starting = self.starting.borrow().clone();
        if let Some(starting) = starting {
            // Its own caller gets the outcome.
            let _ = starting.await;
        }
        let active = self.active.borrow().clone();
        active.ok_or_else(|| {
            Error::new(Code::NotInitialized, &["there is no Approov session: call initializeSession first"]).into()
        })
    }

    /// Makes a session the one that calls use. Of one that continues, the host has the record.
    fn activate(&self, session: Rc<ActiveSession<H>>, is_continued: bool) {
        let before = self.active.borrow_mut().replace(Rc::clone(&session));
        if let Some(before) = before {
            before.tell_stage();
            before.is_active.set(false);
            if matches!(before.told.get(), Stage::Established(_)) {
                self.host.notify(Notice::End("replaced"));
            }
        }
        session.is_active.set(true);
        session.tell_stage();
        if !is_continued {
            session.tell_record(true);
        }
    }

    /// A session with a fresh key, or one that continues, which requests its nonce in the background; and whether it continues.
    async fn make_session(
        &self,
        options: &SessionArguments,
        last: &SessionArguments,
        record: Option<Record<H::Key>>,
    ) -> Outcome<H, (Rc<ActiveSession<H>>, bool)> {
        let parse = |options, previous| Config::parse(options, previous, |url| self.host.href(url));
        let previous = match &*self.active.borrow() {
            Some(active) => Some(active.session.borrow().config().clone()),
            None => parse(last, None).ok(),
        };
        let config = parse(options, previous.as_ref())?;
        let is_usable = |record: &Record<_>| config.persistent && record.is_for(&config, self.host.now());
        if let Some(record) = record.filter(is_usable) {
            return Ok((self.continued(config, record), true));
        }
        let (key, public_key) = self.host.generate_key(config.key_storage).await?;
        Ok((self.with_key(Session::new(config), key, public_key, 0), false))
    }

    fn continued(&self, config: Config, record: Record<H::Key>) -> Rc<ActiveSession<H>> {
        let session = Session::continued(config, record.continuation, self.host.now());
        self.with_key(session, record.key, record.public_key, record.host)
    }

    fn with_key(&self, session: Session, key: H::Key, public_key: PublicKey, place: usize) -> Rc<ActiveSession<H>> {
        let number = self.session_count.get();
        self.session_count.set(number.wrapping_add(1));
        let session = Rc::new(ActiveSession {
            host: self.host.clone(),
            number,
            is_active: Cell::new(false),
            told: Cell::default(),
            issued: Rc::clone(&self.issued),
            key,
            header: ProofHeader::new(&public_key),
            public_key,
            place: Cell::new(place),
            token_hash: RefCell::default(),
            htu: RefCell::default(),
            session: RefCell::new(session),
            nonce_request: RefCell::new(None),
            challenge: RefCell::new(None),
            solving: RefCell::new(None),
            solution: RefCell::new(None),
            presigned_proof: Cell::new(None),
            batches: RefCell::new(Vec::new()),
        });
        // A failure here is not the caller's yet: the attest request tries again, and reports it.
        session.spawn_background(session.nonce(), false);
        session
    }
}

impl<K> Record<K> {
    /// Whether a session of this configuration can go on with it.
    fn is_for(&self, config: &Config, local: ClockReading) -> bool {
        self.account == config.account() && self.host < config.attest_urls.len() && self.continuation.has_time(local)
    }
}

/// Waits for a call's time-out. A page that was blocked hears of the time-out before it hears of a response that came meanwhile:
/// however late the timer is, the response gets as long again.
async fn time_out<H: Host>(host: &H, milliseconds: u32) {
    let due = host.now().monotonic.saturating_add(milliseconds.into());
    host.sleep(milliseconds).await;
    let late = host.now().monotonic.saturating_sub(due).min(MAX_LATE_GRACE);
    if let Ok(grace @ 1..) = late.try_into() {
        host.sleep(grace).await;
    }
}

impl<H: Host> ActiveSession<H> {
    /// The token of an API; see [`Sdk::fetch_token`].
    async fn fetch_token(
        self: &Rc<Self>,
        arguments: TokenArguments,
        cancelled: impl Future<Output = Failure<H::Cause>>,
    ) -> Outcome<H, String> {
        let mut request = TokenRequest::parse(&arguments, &self.session.borrow().config().checks)?;
        let mut cancelled = Box::pin(cancelled);
        if request.solves || request.results.is_empty() && self.must_solve() {
            // However long it takes: the time-out is for what the service takes.
            match select(self.solved(), &mut cancelled).await {
                Either::Left((outcome, _)) => {
                    outcome?;
                    request.results.set_built_in(self.solution.borrow().as_ref());
                }
                Either::Right((failure, _)) => return Err(failure),
            }
        }
        let step = self.session.borrow_mut().request(&request, self.host.now());
        self.tell_stage();
        let step = step?;
        let pending = match step {
            Step::Cached(token) => return Ok(token.expose().to_owned()),
            Step::Stale(token, pending) => {
                // If this fails, the next call finds the token still stale, and tries again.
                if let Ok(refresh) = self.batch(pending) {
                    self.spawn_background(refresh, true);
                }
                return Ok(token.expose().to_owned());
            }
            Step::Wait(pending) => pending,
        };
        let tokens = self.batch(pending)?;
        let timeout = request.timeout;
        let cancelled_or_timed_out = async {
            match select(Box::pin(time_out(&self.host, timeout)), cancelled).await {
                Either::Left(((), _)) => {
                    let timeout = integer_literal(timeout.into());
                    Error::new(Code::Timeout, &["no response from the Approov service within ", &timeout, " ms"]).into()
                }
                Either::Right((failure, _)) => failure,
            }
        };
        match select(tokens, Box::pin(cancelled_or_timed_out)).await {
            Either::Left((tokens, _)) => Ok(tokens?.get(&request.api)?.expose().to_owned()),
            Either::Right((failure, tokens)) => {
                if self.session.borrow().has_sent_results(pending.batch()) {
                    self.spawn_background(tokens, true);
                }
                Err(failure)
            }
        }
    }

    /// What the proof of `getDPoPToken` signs.
    ///
    /// # Errors
    /// `invalid-argument`, naming the argument that is unusable; `session-expired` for a token of a session before this one; what
    /// the host's random numbers report.
    pub fn proof_input(&self, arguments: ProofArguments) -> Outcome<H, String> {
        let claims = Claims::parse(arguments, &mut self.htu.borrow_mut(), |uri| self.host.href(uri))?;
        if let Some(token) = &claims.token
            && !self.token_hash.borrow().is_of(token)
            && self.issued.borrow().is_of_another(&token_hash(token.expose()), self.number)
        {
            return Err(token_of_another_session().into());
        }
        self.signing_input(&claims)
    }

    /// What a DPoP proof of these claims signs.
    ///
    /// # Errors
    /// What the host's random numbers report.
    pub fn signing_input(&self, claims: &Claims) -> Outcome<H, String> {
        let iat = self.session.borrow().issued_at(self.host.now());
        let jti = self.host.random()?;
        Ok(claims.signing_input(&self.header, &mut self.token_hash.borrow_mut(), jti, iat))
    }

    /// When the session and its check results end, in milliseconds by the local wall clock; empty before the first token.
    #[must_use]
    pub fn expiries(&self) -> Vec<(String, UnixMillis)> {
        self.session.borrow().expiries(self.host.now())
    }

    async fn proof(&self, claims: &Claims) -> Outcome<H, String> {
        let input = self.signing_input(claims)?;
        let signature = self.host.sign(&self.key, input.as_bytes()).await?;
        Ok(jws::compact(&input, &signature))
    }

    /// A future that ends when there is a nonce, or none could be had. All who need one share one request.
    fn nonce(self: &Rc<Self>) -> Shared<Outcome<H, ()>> {
        if let Some(running) = self.nonce_request.borrow().as_ref().and_then(WeakShared::upgrade)
            && running.peek().is_none_or(Result::is_ok)
        {
            return running;
        }
        self.ask_nonce()
    }

    /// A new nonce request, whatever the one before came to.
    fn ask_nonce(self: &Rc<Self>) -> Shared<Outcome<H, ()>> {
        let active = Rc::clone(self);
        let request = Shared::new(async move {
            let (place, mut response) = Rc::clone(&active).first_nonce(0).await?;
            active.place.set(place);
            *active.challenge.borrow_mut() = response.take_challenge();
            if response.usable_nonce().is_none() {
                return Err(response.into_nonce_error().into());
            }
            // The visitor is still solving the challenge. If this fails, the attest request signs for itself, and reports it.
            let claims = active.claims(place, Method::post());
            if let Ok(proof) = active.proof(&claims).await {
                let signed = active.host.now().monotonic;
                active.presigned_proof.set(Some(PresignedProof {
                    htu: claims.htu,
                    nonce: claims.nonce,
                    proof,
                    signed,
                }));
            }
            Ok(())
        });
        *self.nonce_request.borrow_mut() = Some(request.downgrade());
        request
    }

    /// The response to a nonce request, and which host it is of: the session's own, or after that the first which has one.
    fn first_nonce(self: Rc<Self>, tried: usize) -> LocalBoxFuture<Outcome<H, (usize, Response)>> {
        Box::pin(async move {
            let count = self.session.borrow().config().attest_urls.len();
            let place = self.place.get().saturating_add(tried).checked_rem(count).unwrap_or(0);
            let ask = Box::pin(self.exchange(place, Method::get(), None));
            let next = tried.saturating_add(1);
            if next >= count {
                return ask.await.map(|(response, _)| (place, response));
            }
            let answered = |outcome: Outcome<H, (Response, RoundTrip)>| match outcome {
                Ok((response, _)) if !matches!(response.status, 502..=504) => Some((place, response)),
                Ok(_) | Err(_) => None,
            };
            match select(ask, Box::pin(self.host.sleep(HOST_PATIENCE))).await {
                Either::Left((outcome, _)) => match answered(outcome) {
                    Some(first) => Ok(first),
                    None => Rc::clone(&self).first_nonce(next).await,
                },
                Either::Right(((), ask)) => match select(ask, Rc::clone(&self).first_nonce(next)).await {
                    Either::Left((outcome, others)) => match answered(outcome) {
                        Some(late) => Ok(late),
                        None => others.await,
                    },
                    Either::Right((Ok(other), _)) => Ok(other),
                    Either::Right((Err(failure), ask)) => answered(ask.await).ok_or(failure),
                },
            }
        })
    }

    async fn ensure_nonce(self: &Rc<Self>) -> Outcome<H, ()> {
        if self.session.borrow().nonce().is_some() {
            return Ok(());
        }
        self.nonce().await
    }

    /// Whether a call that brings no result has the SDK pass its own check.
    fn must_solve(&self) -> bool {
        let mut session = self.session.borrow_mut();
        session.config().checks.are_built_in() && session.needs_results(self.host.now())
    }

    /// A future that ends when a challenge is solved. All who wait for one at a time share it.
    fn solved(self: &Rc<Self>) -> Shared<Outcome<H, ()>> {
        if let Some(running) = self.solving.borrow().as_ref().and_then(WeakShared::upgrade)
            && running.peek().is_none()
        {
            return running;
        }
        let active = Rc::clone(self);
        let solving = Shared::new(async move {
            let challenge = active.fresh_challenge().await?;
            *active.solution.borrow_mut() = Some(active.solve(&challenge).await?);
            Ok(())
        });
        *self.solving.borrow_mut() = Some(solving.downgrade());
        solving
    }

    /// The challenge that the latest nonce came with, or that of another one.
    async fn fresh_challenge(self: &Rc<Self>) -> Outcome<H, Challenge> {
        let running = self.nonce_request.borrow().as_ref().and_then(WeakShared::upgrade);
        if let Some(running) = running {
            // What it comes to shows below.
            let _ = running.await;
        }
        let mut has_asked = false;
        loop {
            let challenge = self.challenge.borrow_mut().take();
            let has_time = |challenge: &Challenge| self.session.borrow().has_time_for(challenge, self.host.now());
            if let Some(challenge) = challenge.filter(has_time) {
                return Ok(challenge);
            }
            if has_asked {
                let what = "the Approov service offers no ALTCHA challenge: does the account have this altchaSiteKey, and may this page use it?";
                return Err(Error::new(Code::InvalidResponse, &[what]).into());
            }
            has_asked = true;
            self.ask_nonce().await?;
        }
    }

    /// Solves a challenge, in portions, so that it ends soon after nobody waits for it any more.
    async fn solve(&self, challenge: &Challenge) -> Outcome<H, Secret> {
        let mut first = 0_u32;
        loop {
            let keys = self.host.derive_keys(challenge, first, TRIES).await?;
            for (counter, key) in (first..).zip(keys.chunks_exact(KEY_BYTES)) {
                if challenge.is_solved_by(key) {
                    return Ok(challenge.payload(counter, key));
                }
            }
            let exhausted = || Error::new(Code::Internal, &["an ALTCHA challenge has no solution"]);
            first = first.checked_add(TRIES).ok_or_else(exhausted)?;
        }
    }

    /// The challenge that an error asks to be solved.
    fn required_work(&self, error: &Error) -> Option<Challenge> {
        let text = String::from_utf8(decode_any_base64(error.required_work()?.as_bytes())).ok()?;
        Challenge::read(self.host.json(&text)?)
    }

    /// The claims of the proof of the next request to the service.
    fn claims(&self, place: usize, method: Method) -> Claims {
        let session = self.session.borrow();
        let config = session.config();
        let request = match config.checks.altcha() {
            Some(altcha) if method == Method::get() => Some(challenge_request(&config.site_key, altcha)),
            _ => None,
        };
        Claims {
            method,
            htu: config.attest_urls.get(place).cloned().unwrap_or_default(),
            nonce: session.nonce().map(string_literal),
            token: None,
            message_signature: None,
            query_hash: None,
            request,
        }
    }

    /// Sends one request with a proof of its own, and lets the session observe the response.
    async fn exchange(&self, place: usize, method: Method, form: Option<String>) -> Outcome<H, (Response, RoundTrip)> {
        let claims = self.claims(place, method);
        let is_recent = |signed| self.host.now().monotonic.saturating_sub(signed) <= PRESIGNED_PROOF_MAX_AGE;
        let proof = match self.presigned_proof.take() {
            Some(ready) if ready.nonce == claims.nonce && ready.htu == claims.htu && is_recent(ready.signed) => {
                ready.proof
            }
            _ => self.proof(&claims).await?,
        };
        let sent = self.host.now();
        let what = if form.is_some() { "POST " } else { "GET " };
        let url = claims.htu.clone();
        let outcome = self.host.send(Request { url: claims.htu, proof, form }).await;
        let mut response = match outcome {
            Ok(response) => response,
            Err(failure) => {
                self.log(&[what, &url, ": ", failure.error.message()]);
                return Err(failure);
            }
        };
        self.log(&[what, &url, ": ", &integer_literal(response.status.into())]);
        for note in response.take_notes() {
            self.log(&["the service says: ", &note]);
        }
        let trip = RoundTrip { sent, received: self.host.now() };
        self.session.borrow_mut().observe(&response, trip);
        Ok((response, trip))
    }

    /// Runs work that no caller waits for, within the usual time-out.
    fn spawn_background<T: Clone + 'static>(self: &Rc<Self>, work: Shared<Outcome<H, T>>, is_told: bool) {
        let active = Rc::clone(self);
        self.host.spawn(async move {
            let outcome = select(work, Box::pin(active.host.sleep(DEFAULT_TIMEOUT))).await;
            if let Either::Left((Err(failure), _)) = outcome
                && is_told
                && active.is_active.get()
            {
                active.host.notify(Notice::Failed(failure));
            }
        });
    }

    fn log(&self, message: &[&str]) {
        self.host.notify(Notice::Log(message));
    }

    /// Tells the host how far the active session has come, if that is news.
    fn tell_stage(&self) {
        let now = self.host.now();
        let stage = self.session.borrow_mut().stage(now);
        if !self.is_active.get() || stage == self.told.get() {
            return;
        }
        let is_new = self.told.replace(stage) == Stage::Fresh;
        match stage {
            Stage::Established(expiry) => {
                let expires = self.session.borrow().to_wall(expiry, now);
                self.host.notify(Notice::Session { expires, is_new });
            }
            Stage::Ended => self.host.notify(Notice::End(Code::SessionExpired.as_str())),
            Stage::Fresh => {}
        }
    }

    /// Gives the host what continues the active session, if it is to outlive the page.
    fn tell_record(&self, is_new: bool) {
        let session = self.session.borrow();
        if self.is_active.get()
            && session.config().persistent
            && let Some(continuation) = session.continuation(self.host.now())
        {
            self.host.notify(Notice::Record {
                key: &self.key,
                public_key: &self.public_key,
                account: &session.config().account(),
                host: self.place.get(),
                continuation,
                is_new,
            });
        }
    }

    /// Notes the tokens that came, and tells the host what they change.
    fn tell_grant(&self, tokens: &Tokens, has_results: bool) {
        self.tell_stage();
        self.tell_record(has_results);
        let now = self.host.now();
        tokens.for_each(|api, token| {
            self.issued.borrow_mut().note(token_hash(token.expose()), self.number);
            if self.is_active.get() && self.session.borrow().gives(api, token, now) {
                self.host.notify(Notice::Token(api));
            }
        });
    }

    /// The future of a batch, started if it is new.
    fn batch(self: &Rc<Self>, pending: Pending) -> Result<SharedTokens<H>, Error> {
        let running = |id| {
            let batches = self.batches.borrow();
            batches.iter().find(|(known, _)| *known == id).and_then(|(_, weak)| weak.upgrade())
        };
        match pending {
            Pending::Existing(id) => {
                running(id).ok_or_else(|| Error::new(Code::Internal, &["a request of the Approov SDK was lost"]))
            }
            Pending::New { batch: id, after } => {
                let future = Shared::new(self.clone().run_batch(id, after.and_then(running)));
                self.batches.borrow_mut().push((id, future.downgrade()));
                Ok(future)
            }
        }
    }

    fn run_batch(
        self: Rc<Self>,
        id: BatchId,
        after: Option<SharedTokens<H>>,
    ) -> impl Future<Output = Outcome<H, Rc<Settled<H::Cause>>>> {
        let guard = BatchGuard { active: self, id };
        async move {
            let active = &guard.active;
            active.host.yield_microtask().await;
            active.ensure_nonce().await?;
            let failed_before = match after {
                Some(after) => after.await.map_or_else(Some, |settled| settled.failed()),
                None => None,
            };
            loop {
                let body = active.session.borrow_mut().seal(id);
                let (outcome, trip) = match body {
                    Ok(body) => active.attest(&body).await?,
                    Err(error) => {
                        let failure = match &failed_before {
                            // The results that this request relied on were not accepted; the caller needs to know why.
                            Some(failure) if error.code() == Code::ResultsRequired => failure.clone(),
                            _ => error.into(),
                        };
                        (Err(failure), RoundTrip::instant(active.host.now()))
                    }
                };
                let (outcome, cause) = match outcome {
                    Ok(granted) => (Ok(granted), None),
                    Err(Failure { error, cause }) => (Err(error), cause),
                };
                let has_results = active.session.borrow().has_sent_results(id);
                let completed = active.session.borrow_mut().complete(id, outcome, trip);
                match completed {
                    Ok(Some(tokens)) => {
                        active.tell_grant(&tokens, has_results);
                        return Ok(Rc::new(Settled { tokens, cause }));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        active.tell_stage();
                        return Err(Failure { error, cause });
                    }
                }
            }
        }
    }

    /// Sends one request body, as often as is needed and allowed.
    async fn attest(&self, body: &AttestBody) -> Outcome<H, (Outcome<H, Granted>, RoundTrip)> {
        let mut retries = Retries::new(body.carries_results);
        let mut form = body.form.clone();
        let mut hosts_left = self.session.borrow().config().attest_urls.len().saturating_sub(1);
        loop {
            let place = self.place.get();
            let mut is_asked_to_wait = false;
            let (outcome, trip, retry_after) = match self.exchange(place, Method::post(), Some(form.clone())).await {
                Ok((response, trip)) => {
                    let retry_after = response.retry_after;
                    is_asked_to_wait = retry_after.is_some() || response.status == 429;
                    let has_nonce = response.usable_nonce().is_some();
                    let outcome = response.into_grant();
                    if let Err(error) = &outcome
                        && (error.is_invalid_proof() || has_nonce && error.is_invalid_nonce())
                        && retries.take_proof_retry()
                    {
                        continue;
                    }
                    // Nothing has been consumed: whatever else the request has is sent again.
                    if let Err(error) = &outcome
                        && let Some(challenge) = self.required_work(error)
                        && retries.take_work_retry()
                    {
                        let solution = self.solve(&challenge).await?;
                        form = with_parameter(&form, challenge.parameter(), solution.expose());
                        continue;
                    }
                    (outcome.map_err(Failure::from), trip, retry_after)
                }
                Err(failure) => (Err(failure), RoundTrip::instant(self.host.now()), None),
            };
            let pause = match &outcome {
                Err(failure) => retries.next_pause(&failure.error, retry_after, self.host.random()?),
                Ok(_) => None,
            };
            match pause {
                Some(pause) => self.host.sleep(pause).await,
                // A result is never sent to a second host.
                None if !body.carries_results
                    && hosts_left > 0
                    && !is_asked_to_wait
                    && outcome.as_ref().is_err_and(|failure| failure.error.is_retryable()) =>
                {
                    hosts_left = hosts_left.saturating_sub(1);
                    let count = self.session.borrow().config().attest_urls.len();
                    self.place.set(place.saturating_add(1).checked_rem(count).unwrap_or(0));
                    retries = Retries::new(false);
                }
                None => return Ok((outcome, trip)),
            }
        }
    }
}

fn token_of_another_session() -> Error {
    Error::new(
        Code::SessionExpired,
        &[
            "\"token\" is of an Approov session before this one: call fetchToken() again, and make the proof for its token",
        ],
    )
}

/// Removes a batch from the lists when its future has ended, or is dropped because nobody waits for it.
struct BatchGuard<H: Host> {
    active: Rc<ActiveSession<H>>,
    id: BatchId,
}

impl<H: Host> Drop for BatchGuard<H> {
    fn drop(&mut self) {
        if let Ok(mut batches) = self.active.batches.try_borrow_mut() {
            batches.retain(|(id, _)| *id != self.id);
        }
        if let Ok(mut session) = self.active.session.try_borrow_mut() {
            session.abandon(self.id);
        }
    }
}

/// How often a request may be sent again.
#[derive(Debug)]
struct Retries {
    carries_results: bool,
    has_proof_retry: bool,
    has_work_retry: bool,
    left: u32,
    pause: u32,
}

impl Retries {
    /// Results are good for one request. When the network failed, the service may have consumed them; it gives the same key the
    /// same outcome for the same results, so they may be sent once more. After a response, only a refused proof shows that this
    /// request has not consumed them.
    fn new(carries_results: bool) -> Self {
        let left = if carries_results { 1 } else { MAX_REFRESH_RETRIES };
        Retries { carries_results, has_proof_retry: true, has_work_retry: true, left, pause: BACKOFF }
    }

    fn take_proof_retry(&mut self) -> bool {
        std::mem::take(&mut self.has_proof_retry)
    }

    fn take_work_retry(&mut self) -> bool {
        std::mem::take(&mut self.has_work_retry)
    }

    /// How long to wait before the next retry, in milliseconds: what the service requests, or a time that doubles and is spread by
    /// half in both directions, so that clients which failed together do not retry together. None where no retry is allowed, or the
    /// service requests more time than a call has.
    fn next_pause(&mut self, error: &Error, retry_after: Option<i64>, [jitter]: [u8; 1]) -> Option<u32> {
        if !error.is_retryable() || (self.carries_results && error.code() != Code::Network) {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let jittered = (self.pause / 2).saturating_add(self.pause.saturating_mul(u32::from(jitter)) / 255);
        self.pause = self.pause.saturating_mul(2);
        let requested = retry_after.map_or(0, |pause| u32::try_from(pause.max(0)).unwrap_or(u32::MAX));
        // The caller would have given up before such a pause ends: the service's reason is of more use than a time-out.
        (requested < DEFAULT_TIMEOUT).then(|| jittered.max(requested))
    }
}
