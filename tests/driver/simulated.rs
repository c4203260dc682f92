//! A host with virtual time and a scripted service, for tests of the driver. Nothing here waits for real.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use approov_web_sdk::altcha::Challenge;
use approov_web_sdk::argument::Argument;
use approov_web_sdk::config::{KeyStorage, SessionArguments};
use approov_web_sdk::driver::{Failure, Host, Request, Sdk};
use approov_web_sdk::error::{Code, Error};
use approov_web_sdk::json::Json;
use approov_web_sdk::jws::PublicKey;
use approov_web_sdk::notice::{Notice, Record};
use approov_web_sdk::session::Continuation;
use approov_web_sdk::time::ClockReading;
use approov_web_sdk::token_request::TokenArguments;
use approov_web_sdk::wire::{Body, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_channel::oneshot;
use futures_executor::{LocalPool, LocalSpawner};
use futures_util::task::LocalSpawnExt;
use serde_json::{Value, json};

use crate::parsed_json::decode_value;

pub const START: i64 = 1_700_000_000_000;

/// What the service does with a request: responds after so many milliseconds, or breaks the connection.
pub type Reply = (u32, Result<Response, &'static str>);

/// A request as the service received it.
#[derive(Clone, Debug)]
pub struct Received {
    pub at: i64,
    pub form: Option<String>,
    pub claims: Value,
    /// Which of the keys made so far signed the proof.
    pub key: u8,
}

type Service = Box<dyn FnMut(&Received) -> Reply>;

#[derive(Clone)]
pub struct Simulation(Rc<Inner>);

struct Inner {
    now: Cell<i64>,
    wall_error: Cell<i64>,
    timers: RefCell<Vec<(i64, oneshot::Sender<()>)>>,
    spawner: LocalSpawner,
    service: RefCell<Service>,
    received: RefCell<Vec<Received>>,
    aborted: Cell<usize>,
    randomness: Cell<u64>,
    broken_keys: Cell<bool>,
    keys: Cell<u8>,
    signatures: Cell<usize>,
    signing_takes: Cell<u32>,
    in_flight: RefCell<Vec<Received>>,
    notices: RefCell<Vec<String>>,
    record: RefCell<Option<Kept>>,
}

/// What was kept last.
#[derive(Clone)]
pub struct Kept {
    public_key: PublicKey,
    account: String,
    host: usize,
    continuation: Continuation,
}

impl Kept {
    pub fn record(self) -> Record<()> {
        let Kept { public_key, account, host, continuation } = self;
        Record { key: (), public_key, account, host, continuation }
    }
}

pub struct World {
    pub pool: LocalPool,
    pub host: Simulation,
    pub sdk: Rc<Sdk<Simulation>>,
}

impl World {
    pub fn new(service: impl FnMut(&Received) -> Reply + 'static) -> World {
        let pool = LocalPool::new();
        let host = Simulation(Rc::new(Inner {
            now: Cell::new(0),
            wall_error: Cell::new(0),
            timers: RefCell::default(),
            spawner: pool.spawner(),
            service: RefCell::new(Box::new(service)),
            received: RefCell::default(),
            aborted: Cell::new(0),
            randomness: Cell::new(0),
            broken_keys: Cell::new(false),
            keys: Cell::new(0),
            signatures: Cell::new(0),
            signing_takes: Cell::new(0),
            in_flight: RefCell::default(),
            notices: RefCell::default(),
            record: RefCell::default(),
        }));
        World { pool, sdk: Rc::new(Sdk::new(host.clone())), host }
    }

    /// A world whose service grants everything after 10 ms, with a session begun.
    pub fn started() -> World {
        let mut world = World::new(|request| (10, Ok(good(request))));
        world.initialize().expect("a session");
        world
    }

    /// Runs a future to its end; virtual time moves whenever nothing else can.
    pub fn run<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let (sender, mut receiver) = oneshot::channel();
        self.spawn(async move { drop(sender.send(future.await)) });
        loop {
            self.pool.run_until_stalled();
            if let Ok(Some(value)) = receiver.try_recv() {
                return value;
            }
            assert!(self.host.to_next_timer(), "the future waits for something that never comes");
        }
    }

    /// Lets everything run that can without time passing.
    pub fn settle(&mut self) {
        self.pool.run_until_stalled();
    }

    /// Lets time pass, timer by timer.
    pub fn pass(&mut self, milliseconds: i64) {
        let end = self.host.0.now.get() + milliseconds;
        self.pool.run_until_stalled();
        while self.host.next_deadline().is_some_and(|deadline| deadline <= end) {
            self.host.to_next_timer();
            self.pool.run_until_stalled();
        }
        self.host.0.now.set(end);
    }

    /// Lets time pass without a timer being called, as when a page is blocked.
    pub fn block(&mut self, milliseconds: i64) {
        self.pool.run_until_stalled();
        self.host.0.now.set(self.host.0.now.get() + milliseconds);
    }

    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.pool.spawner().spawn_local(future).expect("spawned");
    }

    pub fn initialize(&mut self) -> Result<(), Failure<&'static str>> {
        let sdk = Rc::clone(&self.sdk);
        self.run(async move { sdk.initialize_session(options(), SessionArguments::default(), None).await })
    }

    pub fn fetch(&mut self, arguments: TokenArguments) -> Result<String, Failure<&'static str>> {
        let sdk = Rc::clone(&self.sdk);
        self.run(async move { sdk.fetch_token(arguments, std::future::pending()).await })
    }

    /// Starts a call without waiting for it.
    pub fn start_fetch(&self, arguments: TokenArguments) -> oneshot::Receiver<Result<String, Failure<&'static str>>> {
        let (sender, receiver) = oneshot::channel();
        let sdk = Rc::clone(&self.sdk);
        self.spawn(async move {
            drop(sender.send(sdk.fetch_token(arguments, std::future::pending()).await));
        });
        receiver
    }
}

impl Simulation {
    pub fn received(&self) -> Vec<Received> {
        self.0.received.borrow().clone()
    }

    /// The forms of the attest requests so far.
    pub fn posts(&self) -> Vec<String> {
        self.received().into_iter().filter_map(|request| request.form).collect()
    }

    /// What the host was told since the last time, but for what is only said in words.
    pub fn notices(&self) -> Vec<String> {
        self.0.notices.take().into_iter().filter(|line| !line.starts_with("log ")).collect()
    }

    /// What the host was told in words since the last time.
    pub fn log(&self) -> Vec<String> {
        self.0.notices.take().into_iter().filter_map(|line| Some(line.strip_prefix("log ")?.to_owned())).collect()
    }

    /// What was kept last.
    pub fn kept(&self) -> Option<Kept> {
        self.0.record.borrow().clone()
    }

    /// Whether anything waits for time to pass.
    pub fn has_timers(&self) -> bool {
        self.0.timers.borrow().iter().any(|(_, timer)| !timer.is_canceled())
    }

    pub fn now_since_start(&self) -> i64 {
        self.0.now.get()
    }

    /// The requests that have been sent, and have neither got a response nor been aborted.
    pub fn in_flight(&self) -> Vec<Received> {
        self.0.in_flight.borrow().clone()
    }

    pub fn aborted(&self) -> usize {
        self.0.aborted.get()
    }

    pub fn serve(&self, service: impl FnMut(&Received) -> Reply + 'static) {
        *self.0.service.borrow_mut() = Box::new(service);
    }

    /// Moves the user's wall clock, and nothing else.
    pub fn set_wall_error(&self, milliseconds: i64) {
        self.0.wall_error.set(milliseconds);
    }

    /// How often a key has signed.
    pub fn signatures(&self) -> usize {
        self.0.signatures.get()
    }

    pub fn set_signing_takes(&self, milliseconds: u32) {
        self.0.signing_takes.set(milliseconds);
    }

    pub fn break_keys(&self, broken: bool) {
        self.0.broken_keys.set(broken);
    }

    fn next_deadline(&self) -> Option<i64> {
        self.0.timers.borrow().iter().filter(|(_, timer)| !timer.is_canceled()).map(|(deadline, _)| *deadline).min()
    }

    fn to_next_timer(&self) -> bool {
        let Some(deadline) = self.next_deadline() else { return false };
        self.0.now.set(self.0.now.get().max(deadline));
        let mut timers = self.0.timers.borrow_mut();
        let (due, later): (Vec<_>, Vec<_>) = timers.drain(..).partition(|(moment, _)| *moment <= deadline);
        *timers = later;
        for (_, timer) in due {
            // Whoever waited for it may have gone.
            let _ = timer.send(());
        }
        true
    }
}

impl Host for Simulation {
    type Cause = &'static str;
    type Key = ();

    fn now(&self) -> ClockReading {
        let now = self.0.now.get();
        ClockReading { wall: START + now + self.0.wall_error.get(), monotonic: now }
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], Failure<&'static str>> {
        self.0.randomness.set(self.0.randomness.get() + 1);
        let mut bytes = [0; N];
        for (byte, drawn) in bytes.iter_mut().zip(self.0.randomness.get().to_le_bytes()) {
            *byte = drawn;
        }
        Ok(bytes)
    }

    fn href(&self, url: &str) -> Option<String> {
        url::Url::parse(url).ok().map(String::from)
    }

    fn notify(&self, notice: Notice<'_, Self>) {
        let line = match notice {
            Notice::Session { expires, is_new } => {
                format!("{} {}", if is_new { "session" } else { "moved" }, expires - START)
            }
            Notice::End(code) => format!("end {code}"),
            Notice::Token(api) => format!("token {api}"),
            Notice::Failed(failure) => format!("failed {}", failure.error.code().as_str()),
            Notice::Log(parts) => format!("log {}", parts.concat()),
            Notice::Record { public_key, account, host, continuation, is_new, .. } => {
                *self.0.record.borrow_mut() =
                    Some(Kept { public_key: public_key.clone(), account: account.to_owned(), host, continuation });
                (if is_new { "record" } else { "refreshed" }).to_owned()
            }
        };
        self.0.notices.borrow_mut().push(line);
    }

    async fn generate_key(&self, _: KeyStorage) -> Result<((), PublicKey), Failure<&'static str>> {
        self.yield_microtask().await;
        if self.0.broken_keys.get() {
            return Err(Failure::caused_by(Error::new(Code::Unsupported, &["no key"]), "broken"));
        }
        self.0.keys.set(self.0.keys.get() + 1);
        let point = [&[4][..], &[self.0.keys.get(); 64]].concat();
        Ok(((), PublicKey::from_uncompressed_point(&point).expect("a point")))
    }

    async fn sign(&self, (): &(), _: &[u8]) -> Result<Vec<u8>, Failure<&'static str>> {
        self.0.signatures.set(self.0.signatures.get() + 1);
        match self.0.signing_takes.get() {
            0 => {}
            time => self.sleep(time).await,
        }
        Ok(vec![0; 64])
    }

    async fn derive_keys(
        &self,
        challenge: &Challenge,
        first: u32,
        count: u32,
    ) -> Result<Vec<u8>, Failure<&'static str>> {
        self.sleep(1).await;
        let mut keys = Vec::new();
        for counter in first..first + count {
            let password = [&challenge.nonce[..], &counter.to_be_bytes()].concat();
            let mut key = [0; 32];
            pbkdf2::pbkdf2_hmac::<sha2::Sha256>(&password, &challenge.salt, challenge.cost, &mut key);
            keys.extend(key);
        }
        Ok(keys)
    }

    fn json(&self, text: &str) -> Option<Json> {
        Some(decode_value(&serde_json::from_str(text).ok()?))
    }

    async fn send(&self, request: Request) -> Result<Response, Failure<&'static str>> {
        let part = |index| -> Value {
            let part = request.proof.split('.').nth(index).and_then(from_base64url).expect("base64url");
            serde_json::from_slice(&part).expect("JSON")
        };
        let x = part(0)["jwk"]["x"].as_str().and_then(from_base64url).expect("a key");
        let received = Received { at: self.0.now.get(), form: request.form, claims: part(1), key: x[0] };
        let used = self.0.received.borrow().iter().any(|before| before.claims["jti"] == received.claims["jti"]);
        assert!(!used, "a proof was used twice");
        self.0.received.borrow_mut().push(received.clone());
        self.0.in_flight.borrow_mut().push(received.clone());
        let _in_flight = InFlightGuard(Rc::clone(&self.0), received.claims["jti"].clone());
        let (delay, reply) = (self.0.service.borrow_mut())(&received);
        let aborted = CountDrop(Some(Rc::clone(&self.0)));
        self.sleep(delay).await;
        aborted.disarm();
        reply.map_err(|cause| Failure::caused_by(Error::new(Code::Network, &["no response"]), cause))
    }

    async fn sleep(&self, milliseconds: u32) {
        let (sender, receiver) = oneshot::channel();
        self.0.timers.borrow_mut().push((self.0.now.get() + i64::from(milliseconds), sender));
        let _ = receiver.await;
    }

    async fn yield_microtask(&self) {
        // After everything that is queued already, as a microtask would be.
        let (sender, receiver) = oneshot::channel();
        self.spawn(async move {
            let _ = sender.send(());
        });
        let _ = receiver.await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.spawner.spawn_local(task).expect("spawned");
    }
}

/// Takes a request off the list of those in flight.
struct InFlightGuard(Rc<Inner>, Value);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.in_flight.borrow_mut().retain(|request| request.claims["jti"] != self.1);
    }
}

/// Counts requests that are dropped before their response has come.
struct CountDrop(Option<Rc<Inner>>);

impl CountDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CountDrop {
    fn drop(&mut self) {
        if let Some(inner) = &self.0 {
            inner.aborted.set(inner.aborted.get() + 1);
        }
    }
}

pub fn text(value: &str) -> Argument {
    Argument::Text(value.to_owned())
}

pub fn options() -> SessionArguments {
    SessionArguments::default()
        .with("approovHost", text("service.example.com"))
        .with("approovSiteKey", text("site"))
        .with("recaptchaSiteKey", text("re"))
}

pub fn api(name: &str) -> TokenArguments {
    TokenArguments { api: text(name), ..TokenArguments::default() }
}

pub fn with_result(name: &str, token: &str) -> TokenArguments {
    api(name).with("recaptchaToken", text(token))
}

/// The bytes of unpadded base64url.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// The values of a parameter in a form.
pub fn parameter<'a>(form: &'a str, name: &'a str) -> Vec<String> {
    url::form_urlencoded::parse(form.as_bytes())
        .filter(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// What a healthy service responds with: a nonce, or a token `TIME:API` for every requested API.
pub fn good(request: &Received) -> Response {
    let nonce = Some(format!("nonce-{}", request.at));
    let Some(form) = &request.form else { return Response { status: 204, nonce, ..Response::default() } };
    let tokens: serde_json::Map<_, _> =
        parameter(form, "api").into_iter().map(|api| (api.clone(), json!(format!("{}:{api}", request.at)))).collect();
    Response {
        nonce,
        ..json_response(
            200,
            &json!({
                "tokens": tokens,
                "token-lifetime": 120,
                "refresh-token": format!("refresh-{}", request.at),
                "expiries": {"session": START + 7_200_000},
                "server-time": START + request.at,
            }),
        )
    }
}

pub fn refusal(status: u16, code: &str) -> Response {
    let mut body = serde_json::Map::new();
    body.insert(code.to_owned(), json!(""));
    Response { nonce: Some("fresh".into()), ..json_response(status, &Value::Object(body)) }
}

pub fn json_response(status: u16, body: &Value) -> Response {
    let body = Body::Json(decode_value(body));
    Response { status, content_type: "application/json".into(), body, ..Response::default() }
}
