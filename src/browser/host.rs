//! What the driver needs from its host, given by the browser.

use std::cell::RefCell;
use std::future::Future;

use gloo_timers::future::TimeoutFuture;
use js_sys::{Date, JSON, Promise, Uint8Array};
use wasm_bindgen::JsValue;
use web_sys::{Performance, Url};

use super::built_ins::{notify, settled, to_vec};
use super::crypto::{self, Key};
use super::global::global;
use super::{Failure, convert, fetch};
use crate::altcha::Challenge;
use crate::config::KeyStorage;
use crate::driver::{Host, Request};
use crate::json::Json;
use crate::jws::PublicKey;
use crate::notice::Notice;
use crate::shared::LocalBoxFuture;
use crate::time::ClockReading;
use crate::wire::Response;

/// The browser, as the driver sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Browser;

thread_local! {
    static PERFORMANCE: Option<Performance> = global().performance();
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; 256], left: 0 }) };
}

/// Random bytes drawn in advance, since every draw is a call into the browser. For what becomes public anyway: no keys.
struct Pool {
    bytes: [u8; 256],
    left: usize,
}

impl Pool {
    fn draw<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        if self.left < N {
            self.bytes = crypto::random()?;
            self.left = self.bytes.len();
        }
        let mut drawn = [0; N];
        self.left = self.left.saturating_sub(N);
        for (byte, fresh) in drawn.iter_mut().zip(self.bytes.iter().skip(self.left)) {
            *byte = *fresh;
        }
        Ok(drawn)
    }
}

impl Host for Browser {
    type Cause = JsValue;
    type Key = Key;

    #[allow(clippy::cast_possible_truncation)] // a float to integer cast saturates
    fn now(&self) -> ClockReading {
        let wall = Date::now();
        let monotonic = PERFORMANCE.with(|clock| clock.as_ref().map_or(wall, Performance::now));
        ClockReading { wall: wall as i64, monotonic: monotonic as i64 }
    }

    fn random<const N: usize>(&self) -> Result<[u8; N], Failure> {
        POOL.with_borrow_mut(|pool| pool.draw())
    }

    fn href(&self, url: &str) -> Option<String> {
        Url::new(url).ok().map(|url| url.href())
    }

    fn notify(&self, notice: Notice<'_, Self>) {
        let (kind, value) = match notice {
            Notice::Session { expires, is_new } => (if is_new { "session" } else { "moved" }, convert::millis(expires)),
            Notice::End(code) => ("sessionend", code.into()),
            Notice::Token(api) => ("tokenrefresh", api.into()),
            Notice::Failed(failure) => ("error", convert::failure(failure)),
            Notice::Log(parts) => ("log", parts.concat().into()),
            Notice::Record { key, public_key, account, host, continuation, is_new } => {
                // A key in WebAssembly memory is not kept: it would be readable.
                let Some(key) = key.as_webcrypto() else { return };
                let record = convert::to_keep(key, public_key, account, host, &continuation);
                (if is_new { "record" } else { "refreshed" }, record)
            }
        };
        notify(kind, &value);
    }

    async fn generate_key(&self, storage: KeyStorage) -> Result<(Key, PublicKey), Failure> {
        crypto::generate(storage).await
    }

    async fn sign(&self, key: &Key, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let signature = key.sign(&Uint8Array::from(message))?;
        let signature = settled(&signature).await.map_err(crypto::could_not_sign)?;
        Ok(to_vec(&Uint8Array::new(&signature)))
    }

    async fn derive_keys(&self, challenge: &Challenge, first: u32, count: u32) -> Result<Vec<u8>, Failure> {
        crypto::derive_keys(challenge, first, count).await
    }

    fn json(&self, text: &str) -> Option<Json> {
        Json::decode(&JSON::parse(text).ok()?)
    }

    async fn send(&self, request: Request) -> Result<Response, Failure> {
        fetch::send(&request).await
    }

    async fn sleep(&self, milliseconds: u32) {
        // Browsers treat a delay of 2^31 ms or more as none.
        TimeoutFuture::new(milliseconds.min(i32::MAX.unsigned_abs())).await;
    }

    async fn yield_microtask(&self) {
        // A promise that is already resolved continues after what is queued now; it cannot be rejected.
        let _ = settled(&Promise::resolve(&JsValue::UNDEFINED)).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let task: LocalBoxFuture<()> = Box::pin(task);
        wasm_bindgen_futures::spawn_local(task);
    }
}
