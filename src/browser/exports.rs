//! What the facade calls. Arguments are decoded before anything is awaited, so that changing them later has no effect.
//!
//! Each returns its result, or a promise of it. Nothing here awaits a signature that is for the caller: its promise is returned,
//! since every one that Rust awaits costs two closures and two turns of the microtask queue.

use std::cell::OnceCell;
use std::future::{Future, pending};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use js_sys::{Array, Function, Promise, Uint8Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::future_to_promise;

use super::built_ins::settled;
use super::host::Browser;
use super::signal::Abort;
use super::{Failure, convert};
use crate::dpop::ProofArguments;
use crate::driver::{ActiveSession, Authorization, Sdk};
use crate::error::{Code, Error};
use crate::shared::LocalBoxFuture;

thread_local! {
    static SDK: OnceCell<Rc<Sdk<Browser>>> = const { OnceCell::new() };
}

/// `Approov.initializeSession`. `memory` is an object of the caller's, empty at first, that is passed to every call: the options of
/// the last session are noted in it, for an instance that does not know them. `record` is one that was kept, if there is one.
#[wasm_bindgen(js_name = initializeSession)]
pub fn initialize_session(options: &JsValue, memory: &JsValue, record: &JsValue) -> JsValue {
    let record = convert::kept(record);
    let given = convert::session_arguments(options);
    let last = convert::session_arguments(memory);
    let memory = memory.clone();
    run(async move {
        let (arguments, values) = given?;
        let is_new = arguments.names_service();
        sdk().initialize_session(arguments, last?.0, record).await?;
        convert::remember(&memory, &values, is_new);
        Ok(JsValue::UNDEFINED)
    })
}

/// `Approov.fetchToken`
#[wasm_bindgen(js_name = fetchToken)]
pub fn fetch_token(api: &JsValue, options: &JsValue) -> JsValue {
    let decoded = convert::token_arguments(api, options);
    run(async move {
        let (arguments, abort) = decoded?;
        Ok(sdk().fetch_token(arguments, cancelled(abort)).await?.into())
    })
}

/// Token and proof of one session for a request of `createFetch`: what the proof signs, the promise of the signature, and the token.
/// The URL is one that the browser has serialised.
#[wasm_bindgen]
pub fn authorize(
    api: &JsValue,
    options: &JsValue,
    method: &JsValue,
    url: &JsValue,
    nonce: &JsValue,
    body_hash: &JsValue,
) -> JsValue {
    let decoded = convert::token_arguments(api, options);
    let proof = convert::proof_arguments(method, url, nonce, &JsValue::UNDEFINED, body_hash);
    run(async move {
        let (arguments, abort) = decoded?;
        let proof = ProofArguments { covers_query: true, ..proof? };
        let Authorization { session, token, input } = sdk().authorize(arguments, proof, cancelled(abort)).await?;
        let signature = session.key.sign(&Uint8Array::from(input.as_bytes()))?;
        Ok(Array::of3(&input.into(), &signature, &token.into()).into())
    })
}

/// Begins a session beside the active one, for `createFetch`. `check` gives a promise of the options of `fetchToken`; it is called
/// when the key is there. For `memory` and `record`, see [`initialize_session`].
#[wasm_bindgen]
pub fn renew(options: &JsValue, memory: &JsValue, api: &JsValue, check: &Function, record: &JsValue) -> JsValue {
    let record = convert::kept(record);
    let given = convert::session_arguments(options);
    let last = convert::session_arguments(memory);
    let (memory, api, check) = (memory.clone(), api.clone(), check.clone());
    run(async move {
        let (options, values) = given?;
        let is_new = options.names_service();
        let last = last?.0;
        let arguments = async {
            let thrown =
                |cause| Failure::caused_by(Error::new(Code::Internal, &["what passes the check is no promise"]), cause);
            let promise = Promise::from(check.call0(&JsValue::UNDEFINED).map_err(thrown)?);
            // What it rejects with is thrown by the facade, which knows it.
            let result = settled(&promise).await.map_err(thrown)?;
            let (arguments, abort) = convert::token_arguments(&api, &result)?;
            Ok((arguments, cancelled(abort)))
        };
        if sdk().renew(&options, &last, record, arguments).await? {
            convert::remember(&memory, &values, is_new);
        }
        Ok(JsValue::UNDEFINED)
    })
}

/// Takes note that a backend refuses a token; whether another may do better.
#[wasm_bindgen]
pub fn refuse(token: &str) -> bool {
    sdk().refuse(token)
}

/// Continues the session of a record that another page has kept since.
#[wasm_bindgen]
pub fn adopt(record: &JsValue) {
    if let Some(record) = convert::kept(record) {
        sdk().adopt(record);
    }
}

/// How many milliseconds the session has left, at most or at least; `undefined` before its first token.
#[wasm_bindgen(js_name = timeLeft)]
#[allow(clippy::cast_precision_loss)] // far below 2^53
pub fn time_left(at_most: bool) -> Option<f64> {
    sdk().time_left(at_most).map(|left| left as f64)
}

async fn cancelled(abort: Option<Abort>) -> Failure {
    match abort {
        Some(abort) => abort.wait().await,
        None => pending().await,
    }
}

/// `Approov.getDPoPToken`, in two parts: what is signed, and the promise of the signature.
#[wasm_bindgen(js_name = getDPoPToken)]
pub fn get_dpop_token(
    method: &JsValue,
    uri: &JsValue,
    nonce: &JsValue,
    token: &JsValue,
    message_signature: &JsValue,
) -> JsValue {
    let arguments = convert::proof_arguments(method, uri, nonce, token, message_signature);
    with_session(move |session| {
        let input = session.proof_input(arguments?)?;
        let signature = session.key.sign(&Uint8Array::from(input.as_bytes()))?;
        Ok(Array::of2(&input.into(), &signature).into())
    })
}

/// `Approov.messageSignature`
#[wasm_bindgen(js_name = messageSignature)]
pub fn message_signature(message: &JsValue) -> JsValue {
    let message = convert::message(message);
    with_session(move |session| Ok(session.key.sign(&message?)?.into()))
}

/// `Approov.getExpiries`
#[wasm_bindgen(js_name = getExpiries)]
pub fn get_expiries() -> JsValue {
    with_session(|session| convert::expiries(session.expiries()))
}

fn sdk() -> Rc<Sdk<Browser>> {
    SDK.with(|sdk| Rc::clone(sdk.get_or_init(|| Rc::new(Sdk::new(Browser)))))
}

type Outcome = Result<JsValue, Failure>;
type Work = Box<dyn FnOnce(&ActiveSession<Browser>) -> Outcome>;

/// Runs what waits for nothing but the session.
fn with_session(work: impl FnOnce(&ActiveSession<Browser>) -> Outcome + 'static) -> JsValue {
    let work: Work = Box::new(work);
    run(async move { work(&*sdk().active().await?) })
}

fn run(call: impl Future<Output = Outcome> + 'static) -> JsValue {
    // Boxed, so that all exports share one poll loop instead of one instantiation each.
    let mut call: LocalBoxFuture<_> = Box::pin(call);
    // Many calls end at once, and the others get to what they wait for without a turn of the task queue. A wake-up before the call
    // is polled again below is not missed, because it is polled again in any case.
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => value,
        Poll::Ready(Err(failure)) => Promise::reject(&convert::failure(failure)).into(),
        Poll::Pending => future_to_promise(async move { call.await.map_err(convert::failure) }).into(),
    }
}
