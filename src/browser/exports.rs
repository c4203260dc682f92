//! What the facade calls. Arguments are decoded before anything is awaited, so that what a caller does to them later has no effect.
//!
//! Each gives its result, or a promise of it. Nothing here waits for WebCrypto to sign for a caller: that promise is given away, since
//! every one that Rust awaits costs two closures and two turns of the queue.

use std::cell::OnceCell;
use std::future::{Future, pending};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use js_sys::{Array, Promise, Uint8Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::future_to_promise;

use super::host::Browser;
use super::signal::Abort;
use super::{Failure, convert};
use crate::driver::{Active, Sdk};
use crate::shared::LocalBoxFuture;

thread_local! {
    static SDK: OnceCell<Rc<Sdk<Browser>>> = const { OnceCell::new() };
}

/// `Approov.initializeSession`
#[wasm_bindgen(js_name = initializeSession)]
pub fn initialize_session(options: &JsValue) -> JsValue {
    let options = convert::options(options);
    answer(async move {
        sdk().initialize_session(options?).await?;
        Ok(JsValue::UNDEFINED)
    })
}

/// `Approov.fetchToken`
#[wasm_bindgen(js_name = fetchToken)]
pub fn fetch_token(api: &JsValue, options: &JsValue) -> JsValue {
    let decoded =
        convert::token_arguments(api, options).and_then(|(arguments, signal)| Ok((arguments, Abort::listen(&signal)?)));
    answer(async move {
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
    let claims = convert::claims(method, uri, nonce, token, message_signature);
    with_session(move |session| {
        let input = session.signing_input(&claims?)?;
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
type Work = Box<dyn FnOnce(&Active<Browser>) -> Outcome>;

/// Carries out what waits for nothing but the session.
fn with_session(work: impl FnOnce(&Active<Browser>) -> Outcome + 'static) -> JsValue {
    let work: Work = Box::new(work);
    answer(async move { work(&*sdk().active().await?) })
}

fn answer(call: impl Future<Output = Outcome> + 'static) -> JsValue {
    // On the heap, so that all exports share the code that drives them.
    let mut call: LocalBoxFuture<_> = Box::pin(call);
    // Many calls are over at once, and the others get to what they wait for without a turn through the queue of tasks. Whatever
    // wakes a call before it is polled again below is not missed, because it is polled again in any case.
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => value,
        Poll::Ready(Err(failure)) => Promise::reject(&convert::failure(failure)).into(),
        Poll::Pending => future_to_promise(async move { call.await.map_err(convert::failure) }).into(),
    }
}
