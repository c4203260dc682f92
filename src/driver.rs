//! The driver: carries out what a session decides, on a host that has clocks, randomness, a key store and a network.
//!
//! A request is one future that all who wait for it share. It makes progress as long as anybody waits; when the last one has left
//! (time-out, abort), it is dropped, and with it the fetch.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use futures_util::future::{Either, select};

use crate::config::{Config, KeyStorage, Options, UrlParts};
use crate::dpop::{Claims, LastTokenHash, Method, ProofHeader};
use crate::error::{Code, Error};
use crate::json::{integer_literal, string_literal};
use crate::jws::{self, PublicKey};
use crate::secret::Secret;
use crate::session::{BatchId, Sealed, Session, Step, Tokens, Wanted};
use crate::shared::{Shared, WeakShared};
use crate::time::{Reading, UnixMillis};
use crate::token_request::{Arguments, DEFAULT_TIMEOUT, TokenRequest};
use crate::wire::{Granted, Response};

/// A refresh is tried again after this long, in milliseconds, then after twice as long.
const BACKOFF: u32 = 250;
/// How often a refresh is tried again.
const REFRESH_RETRIES: u32 = 2;

/// A proof signed ahead is used for this long, in milliseconds, so that its `iat` is one that any service takes for recent.
const LONGEST_AHEAD: i64 = 60_000;

/// What the driver needs from where it runs.
#[allow(async_fn_in_trait)] // all runs on one thread
pub trait Host: Clone + 'static {
    /// What the host throws; goes along as the cause of an error.
    type Cause: Clone + 'static;
    /// A private key.
    type Key: 'static;

    /// Reads the clocks.
    fn now(&self) -> Reading;
    /// Draws random bytes.
    fn random<const N: usize>(&self) -> Result<[u8; N], Failure<Self::Cause>>;
    /// Parses a URL as the WHATWG URL standard does.
    fn parse_url(&self, text: &str) -> Option<UrlParts>;
    /// Makes a session key.
    async fn generate_key(&self, storage: KeyStorage) -> Result<(Self::Key, PublicKey), Failure<Self::Cause>>;
    /// Signs with ES256: r and s, 32 bytes each.
    async fn sign(&self, key: &Self::Key, message: &[u8]) -> Result<Vec<u8>, Failure<Self::Cause>>;
    /// Sends a request; an answer of any status is a success.
    async fn send(&self, request: Request) -> Result<Response, Failure<Self::Cause>>;
    /// Waits so many milliseconds.
    async fn sleep(&self, milliseconds: u32);
    /// Waits until everything that is due in this turn of the event loop has been called.
    async fn turn(&self);
    /// Lets a task run on its own.
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

/// What came of a batch.
struct Settled<C> {
    tokens: Tokens,
    /// What the host threw, if that ended a batch of which some APIs had got their tokens.
    cause: Option<C>,
}

impl<C: Clone> Settled<C> {
    fn get(&self, api: &str) -> Result<Secret, Failure<C>> {
        self.tokens.get(api).map_err(|error| self.failure(error))
    }

    /// Why there is no token at all.
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
    active: RefCell<Option<Rc<Active<H>>>>,
    /// The latest call of `initializeSession` that is not over yet; it waits for the ones before it.
    starting: RefCell<Option<Shared<Outcome<H, ()>>>>,
    starts: Cell<u64>,
}

/// A session with its key: one generation. Requests in flight hold on to theirs, so they cannot touch a newer one.
pub struct Active<H: Host> {
    host: H,
    /// The session's key.
    pub key: H::Key,
    header: ProofHeader,
    token_hash: RefCell<LastTokenHash>,
    session: RefCell<Session>,
    nonce_request: RefCell<Option<WeakShared<Outcome<H, ()>>>>,
    /// The nonce, the proof and the moment (monotonic) of the first attest request, signed as soon as there is a nonce.
    proof_ahead: Cell<Option<(Option<String>, String, i64)>>,
    batches: RefCell<Vec<(BatchId, WeakTokens<H>)>>,
}

impl<H: Host> Sdk<H> {
    /// An SDK without a session.
    pub fn new(host: H) -> Self {
        Sdk { host, active: RefCell::new(None), starting: RefCell::new(None), starts: Cell::new(0) }
    }

    /// Begins a session with a fresh key, in place of the one before, and asks the service for a nonce without waiting for it.
    ///
    /// # Errors
    /// `invalid-argument`, or `unsupported` if the key cannot be made; the session before stays as it is.
    pub async fn initialize_session(self: &Rc<Self>, options: Options) -> Outcome<H, ()> {
        let before = self.starting.borrow().clone();
        let sdk = Rc::clone(self);
        let start = Shared::new(async move {
            if let Some(before) = before {
                let _told_its_own_caller = before.await;
            }
            sdk.start(&options).await
        });
        let number = self.starts.get().wrapping_add(1);
        self.starts.set(number);
        *self.starting.borrow_mut() = Some(start.clone());
        let outcome = start.await;
        if self.starts.get() == number {
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
        arguments: Arguments,
        cancelled: impl Future<Output = Failure<H::Cause>>,
    ) -> Outcome<H, String> {
        let active = self.active().await?;
        let request = TokenRequest::parse(&arguments, &active.session.borrow().config().checks)?;
        let step = active.session.borrow_mut().request(&request, self.host.now())?;
        let wanted = match step {
            Step::Cached(token) => return Ok(token.expose().to_owned()),
            Step::Ageing(token, wanted) => {
                // If this fails, the next call finds the token older, and asks again.
                if let Ok(refresh) = active.batch(wanted) {
                    active.work_behind(refresh);
                }
                return Ok(token.expose().to_owned());
            }
            Step::Wait(wanted) => wanted,
        };
        let tokens = active.batch(wanted)?;
        let timeout = request.timeout;
        let gave_up = async {
            match select(Box::pin(self.host.sleep(timeout)), Box::pin(cancelled)).await {
                Either::Left(((), _)) => {
                    let timeout = integer_literal(timeout.into());
                    Error::new(Code::Timeout, &["no answer from the Approov service within ", &timeout, " ms"]).into()
                }
                Either::Right((failure, _)) => failure,
            }
        };
        match select(tokens, Box::pin(gave_up)).await {
            Either::Left((tokens, _)) => Ok(tokens?.get(&request.api)?.expose().to_owned()),
            Either::Right((failure, _)) => Err(failure),
        }
    }

    /// The session, once the calls of `initializeSession` that came before have been carried out.
    ///
    /// # Errors
    /// `not-initialized` without a session.
    pub async fn active(&self) -> Outcome<H, Rc<Active<H>>> {
        let starting = self.starting.borrow().clone();
        if let Some(starting) = starting {
            let _told_its_own_caller = starting.await;
        }
        let active = self.active.borrow().clone();
        active.ok_or_else(|| {
            Error::new(Code::NotInitialized, &["there is no Approov session: call initializeSession first"]).into()
        })
    }

    async fn start(&self, options: &Options) -> Outcome<H, ()> {
        let previous = self.active.borrow().clone();
        let config = {
            let previous = previous.as_ref().map(|active| active.session.borrow().config().clone());
            Config::parse(options, previous.as_ref(), |text| self.host.parse_url(text))?
        };
        drop(previous);
        let (key, public_key) = self.host.generate_key(config.key_storage).await?;
        let active = Rc::new(Active {
            host: self.host.clone(),
            key,
            header: ProofHeader::new(&public_key),
            token_hash: RefCell::default(),
            session: RefCell::new(Session::new(config)),
            nonce_request: RefCell::new(None),
            proof_ahead: Cell::new(None),
            batches: RefCell::new(Vec::new()),
        });
        *self.active.borrow_mut() = Some(Rc::clone(&active));
        // A failure here is not the caller's yet: the attest request asks again, and reports it.
        active.work_behind(active.nonce());
        Ok(())
    }
}

impl<H: Host> Active<H> {
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

    /// A future that is over when there is a nonce, or none is to be had. All who need one share one request.
    fn nonce(self: &Rc<Self>) -> Shared<Outcome<H, ()>> {
        if let Some(running) = self.nonce_request.borrow().as_ref().and_then(WeakShared::upgrade)
            && running.peek().is_none_or(Result::is_ok)
        {
            return running;
        }
        let active = Rc::clone(self);
        let request = Shared::new(async move {
            let (response, _, _) = active.exchange(Method::get(), None).await?;
            if response.usable_nonce().is_none() {
                return Err(response.into_refusal().into());
            }
            // The visitor still solves the challenge. If this fails, the attest request signs for itself, and reports it.
            let claims = active.claims(Method::post());
            if let Ok(proof) = active.proof(&claims).await {
                active.proof_ahead.set(Some((claims.nonce, proof, active.host.now().monotonic)));
            }
            Ok(())
        });
        *self.nonce_request.borrow_mut() = Some(request.downgrade());
        request
    }

    async fn ensure_nonce(self: &Rc<Self>) -> Outcome<H, ()> {
        if self.session.borrow().nonce().is_some() {
            return Ok(());
        }
        self.nonce().await
    }

    /// What the proof of the next request to the service says.
    fn claims(&self, method: Method) -> Claims {
        let session = self.session.borrow();
        let url = session.config().attest_url.clone();
        Claims { method, url, nonce: session.nonce().map(string_literal), token: None, message_signature: None }
    }

    /// Sends one request with a proof of its own, and learns from the answer.
    async fn exchange(&self, method: Method, form: Option<String>) -> Outcome<H, (Response, Reading, Reading)> {
        let claims = self.claims(method);
        let proof = match self.proof_ahead.take() {
            Some((nonce, proof, signed))
                if nonce == claims.nonce && self.host.now().monotonic.saturating_sub(signed) <= LONGEST_AHEAD =>
            {
                proof
            }
            _ => self.proof(&claims).await?,
        };
        let sent = self.host.now();
        let response = self.host.send(Request { url: claims.url, proof, form }).await?;
        let received = self.host.now();
        self.session.borrow_mut().learn(&response, sent, received);
        Ok((response, sent, received))
    }

    /// Lets work that nobody waits for go on, within the usual time-out.
    fn work_behind<T: Clone + 'static>(&self, work: Shared<T>) {
        let time_out = self.host.clone();
        self.host.spawn(async move {
            let _unreported = select(work, Box::pin(time_out.sleep(DEFAULT_TIMEOUT))).await;
        });
    }

    /// The future of a batch, started if it is new.
    fn batch(self: &Rc<Self>, wanted: Wanted) -> Result<SharedTokens<H>, Error> {
        let running = |id| {
            let batches = self.batches.borrow();
            batches.iter().find(|(known, _)| *known == id).and_then(|(_, weak)| weak.upgrade())
        };
        match wanted {
            Wanted::Joined(id) => {
                running(id).ok_or_else(|| Error::new(Code::Internal, &["a request of the Approov SDK was lost"]))
            }
            Wanted::New { batch: id, after } => {
                let future = Shared::new(self.clone().carry_out(id, after.and_then(running)));
                self.batches.borrow_mut().push((id, future.downgrade()));
                Ok(future)
            }
        }
    }

    fn carry_out(
        self: Rc<Self>,
        id: BatchId,
        after: Option<SharedTokens<H>>,
    ) -> impl Future<Output = Outcome<H, Rc<Settled<H::Cause>>>> {
        let entry = Entry { active: self, id };
        async move {
            let active = &entry.active;
            active.host.turn().await;
            active.ensure_nonce().await?;
            let failed_before = match after {
                Some(after) => after.await.map_or_else(Some, |settled| settled.failed()),
                None => None,
            };
            loop {
                let sealed = active.session.borrow_mut().seal(id);
                let (outcome, sent, received) = match sealed {
                    Ok(sealed) => active.attest(&sealed).await?,
                    Err(error) => {
                        let failure = match &failed_before {
                            // The results that this request relied on were not accepted; why, is what the caller needs to know.
                            Some(failure) if error.code() == Code::ResultsRequired => failure.clone(),
                            _ => error.into(),
                        };
                        (Err(failure), active.host.now(), active.host.now())
                    }
                };
                let (outcome, cause) = match outcome {
                    Ok(granted) => (Ok(granted), None),
                    Err(Failure { error, cause }) => (Err(error), cause),
                };
                let completed = active.session.borrow_mut().complete(id, outcome, sent, received);
                match completed {
                    Ok(Some(tokens)) => return Ok(Rc::new(Settled { tokens, cause })),
                    Ok(None) => {}
                    Err(error) => return Err(Failure { error, cause }),
                }
            }
        }
    }

    /// Sends one request body, as often as it takes and is allowed.
    async fn attest(&self, sealed: &Sealed) -> Outcome<H, (Outcome<H, Granted>, Reading, Reading)> {
        let mut retries = Retries::new(sealed.carries_results);
        loop {
            let attempt = self.exchange(Method::post(), Some(sealed.form.clone())).await;
            let (outcome, sent, received, retry_after) = match attempt {
                Ok((response, sent, received)) => {
                    let retry_after = response.retry_after;
                    let has_nonce = response.usable_nonce().is_some();
                    let outcome = response.into_granted();
                    if has_nonce && outcome.as_ref().is_err_and(Error::is_invalid_nonce) && retries.take_nonce_retry() {
                        continue;
                    }
                    (outcome.map_err(Failure::from), sent, received, retry_after)
                }
                Err(failure) => (Err(failure), self.host.now(), self.host.now(), None),
            };
            let retry = match &outcome {
                Err(failure) if failure.error.is_retryable() => retries.next_pause(retry_after, self.host.random()?),
                _ => None,
            };
            match retry {
                Some(pause) => self.host.sleep(pause).await,
                None => return Ok((outcome, sent, received)),
            }
        }
    }
}

/// A batch's place in the list; given up when its future is over, or dropped because nobody waits for it.
struct Entry<H: Host> {
    active: Rc<Active<H>>,
    id: BatchId,
}

impl<H: Host> Drop for Entry<H> {
    fn drop(&mut self) {
        if let Ok(mut batches) = self.active.batches.try_borrow_mut() {
            batches.retain(|(id, _)| *id != self.id);
        }
        if let Ok(mut session) = self.active.session.try_borrow_mut() {
            session.abandon(self.id);
        }
    }
}

/// How often a request may still be sent again.
#[derive(Debug)]
struct Retries {
    nonce: bool,
    refresh: u32,
    pause: u32,
}

impl Retries {
    /// A request that carries results may have had them consumed: only a refused nonce shows that it has not.
    fn new(carries_results: bool) -> Self {
        Retries { nonce: true, refresh: if carries_results { 0 } else { REFRESH_RETRIES }, pause: BACKOFF }
    }

    fn take_nonce_retry(&mut self) -> bool {
        std::mem::take(&mut self.nonce)
    }

    /// How long to wait before the next try, in milliseconds: what the service asks for, or a time that doubles and is spread by
    /// half in both directions, so that clients which failed together do not return together. None where no try is left, or the
    /// service asks for more time than a call has.
    fn next_pause(&mut self, retry_after: Option<i64>, [dice]: [u8; 1]) -> Option<u32> {
        self.refresh = self.refresh.checked_sub(1)?;
        let jittered = (self.pause / 2).saturating_add(self.pause.saturating_mul(u32::from(dice)) / 255);
        self.pause = self.pause.saturating_mul(2);
        let asked = retry_after.map_or(0, |asked| u32::try_from(asked.max(0)).unwrap_or(u32::MAX));
        // Who waits would have given up before such a pause is over: the service's reason is of more use than a time-out.
        (asked < DEFAULT_TIMEOUT).then(|| jittered.max(asked))
    }
}
