//! What the facade calls. Arguments are decoded before anything is awaited, so that what a caller does to them later has no effect.

use std::cell::OnceCell;
use std::future::{Future, pending};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use js_sys::Promise;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::future_to_promise;

use super::host::Browser;
use super::signal::Abort;
use super::{Failure, convert};
use crate::driver::Sdk;
use crate::shared::LocalBoxFuture;

thread_local! {
    static SDK: OnceCell<Rc<Sdk<Browser>>> = const { OnceCell::new() };
}

/// `Approov.initializeSession`
#[wasm_bindgen(js_name = initializeSession)]
pub fn initialize_session(options: &JsValue) -> Promise {
    let options = convert::options(options);
    promise(async move {
        sdk().initialize_session(options?).await?;
        Ok(JsValue::UNDEFINED)
    })
}

/// `Approov.fetchToken`
#[wasm_bindgen(js_name = fetchToken)]
pub fn fetch_token(api: &JsValue, options: &JsValue) -> Promise {
    let decoded =
        convert::token_arguments(api, options).and_then(|(arguments, signal)| Ok((arguments, Abort::listen(&signal)?)));
    promise(async move {
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

/// `Approov.getDPoPToken`
#[wasm_bindgen(js_name = getDPoPToken)]
pub fn get_dpop_token(
    method: &JsValue,
    uri: &JsValue,
    nonce: &JsValue,
    token: &JsValue,
    message_signature: &JsValue,
) -> Promise {
    let claims = convert::claims(method, uri, nonce, token, message_signature);
    promise(async move { Ok(sdk().proof(claims?).await?.into()) })
}

/// `Approov.messageSignature`
#[wasm_bindgen(js_name = messageSignature)]
pub fn message_signature(message: &JsValue) -> Promise {
    let message = convert::message(message);
    promise(async move {
        let message = message?;
        let signature = sdk().with_key(async |key| key.sign(&message).await).await?;
        Ok(signature.buffer().into())
    })
}

/// `Approov.getExpiries`
#[wasm_bindgen(js_name = getExpiries)]
pub fn get_expiries() -> Promise {
    promise(async { convert::expiries(sdk().expiries().await?) })
}

fn sdk() -> Rc<Sdk<Browser>> {
    SDK.with(|sdk| Rc::clone(sdk.get_or_init(|| Rc::new(Sdk::new(Browser)))))
}

fn promise(call: impl Future<Output = Result<JsValue, Failure>> + 'static) -> Promise {
    // On the heap, so that all exports share the code that drives them.
    let mut call: LocalBoxFuture<_> = Box::pin(call);
    // Many calls are over at once, and the others get to what they wait for without a turn through the queue of tasks. Whatever
    // wakes a call before it is polled again below is not missed, because it is polled again in any case.
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => Promise::resolve(&value),
        Poll::Ready(Err(failure)) => Promise::reject(&convert::failure(failure)),
        Poll::Pending => future_to_promise(async move { call.await.map_err(convert::failure) }),
    }
}
