//! The browser's functions that secrets pass through, as they were when the package was evaluated (`pkg-template/built-ins.js`).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

use js_sys::{Object, Uint8Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen(js_namespace = builtIns)]
extern "C" {
    /// `fetch`
    #[wasm_bindgen(catch)]
    pub(super) fn fetch(url: &str, init: &Object) -> Result<JsValue, JsValue>;

    /// `crypto.subtle.generateKey` for a non-extractable ES256 key.
    #[wasm_bindgen(catch, js_name = generateKey)]
    pub(super) fn generate_key() -> Result<JsValue, JsValue>;

    /// The keys that PBKDF2 derives from a nonce and so many counters, as the promise of one array.
    #[wasm_bindgen(catch, js_name = deriveKeys)]
    pub(super) fn derive_keys(
        nonce: &Uint8Array,
        salt: &Uint8Array,
        iterations: u32,
        first: u32,
        count: u32,
    ) -> Result<JsValue, JsValue>;

    /// Whether the browser says that a key can be exported.
    #[wasm_bindgen(catch, js_name = isExtractable)]
    pub(super) fn is_extractable(key: &JsValue) -> Result<bool, JsValue>;

    /// `crypto.subtle.exportKey` for the uncompressed point of a public key.
    #[wasm_bindgen(catch, js_name = exportKey)]
    pub(super) fn export_key(public_key: &JsValue) -> Result<JsValue, JsValue>;

    /// `crypto.subtle.sign` with ES256.
    #[wasm_bindgen(catch)]
    pub(super) fn sign(private_key: &JsValue, message: &Uint8Array) -> Result<JsValue, JsValue>;

    /// `crypto.getRandomValues`
    #[wasm_bindgen(catch, js_name = getRandomValues)]
    pub(super) fn get_random_values(bytes: &mut [u8]) -> Result<(), JsValue>;

    /// Calls a method of an object, with no options.
    #[wasm_bindgen(catch)]
    pub(super) fn call(object: &JsValue, method: &str) -> Result<JsValue, JsValue>;

    /// Sets a property of the object itself, whatever its prototypes have.
    pub(super) fn set(object: &JsValue, name: &str, value: &JsValue);

    /// An object without a prototype.
    pub(super) fn record() -> Object;

    /// Tells the facade of something that has happened.
    pub(super) fn notify(kind: &str, value: &JsValue);

    fn settle(promise: &JsValue, callback: &JsValue);
    fn copy(target: &mut [u8], source: &Uint8Array);
}

/// The bytes of an array.
pub(super) fn to_vec(source: &Uint8Array) -> Vec<u8> {
    let mut bytes = vec![0; source.length() as usize];
    copy(&mut bytes, source);
    bytes
}

/// Waits until a promise is settled. A future of a promise that never settles is never freed.
pub(super) fn settled(promise: &JsValue) -> impl Future<Output = Result<JsValue, JsValue>> + use<> {
    let settlement = Rc::new(RefCell::new((None, None::<Waker>)));
    let filled = Rc::clone(&settlement);
    let callback = Closure::once_into_js(move |is_fulfilled: bool, value: JsValue| {
        let waker = {
            let (outcome, waker) = &mut *filled.borrow_mut();
            *outcome = Some(if is_fulfilled { Ok(value) } else { Err(value) });
            waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    });
    settle(promise, &callback);
    poll_fn(move |context| {
        let (outcome, waker) = &mut *settlement.borrow_mut();
        match outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    })
}
