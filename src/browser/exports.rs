//! What the facade calls. Arguments are decoded before anything is awaited, so that changing them later has no effect.
//!
//! Each returns its result, or a promise of it. Nothing here awaits a signature that is for the caller: its promise is returned,
//! since every one that Rust awaits costs two closures and two turns of the microtask queue.

use std::cell::OnceCell;
use std::future::{Future, pending};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use js_sys::{Array, Promise, Uint8Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::future_to_promise;

use super::host::Browser;
use super::{Failure, convert};
use crate::driver::{ActiveSession, Sdk};
use crate::shared::LocalBoxFuture;

thread_local! {
    static SDK: OnceCell<Rc<Sdk<Browser>>> = const { OnceCell::new() };
}

/// `Approov.initializeSession`. `memory` is an object of the caller's, empty at first, that is passed to every call: the options of
/// the last session are noted in it, for an instance that does not know them.
#[wasm_bindgen(js_name = initializeSession)]
pub fn initialize_session(options: &JsValue, memory: &JsValue) -> JsValue {
    let given = convert::session_arguments(options);
    let last = convert::session_arguments(memory);
    let memory = memory.clone();
    run(async move {
        let (arguments, values) = given?;
        let is_new = arguments.names_service();
        sdk().initialize_session(arguments, last?.0).await?;
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
        let cancelled = async {
            match abort {
                Some(abort) => abort.wait().await,
                None => pending().await,
            }
        };
        Ok(sdk().fetch_token(arguments, cancelled).await?.into())
    })
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
