//! The global scope, as pages, workers and service workers have it.

use js_sys::Object;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Crypto, Performance};

#[wasm_bindgen]
extern "C" {
    /// What `globalThis` is.
    pub(super) type Global;

    #[wasm_bindgen(method, getter)]
    pub(super) fn crypto(this: &Global) -> Option<Crypto>;

    #[wasm_bindgen(method, getter)]
    pub(super) fn performance(this: &Global) -> Option<Performance>;

    /// Throws where there is no `fetch`.
    #[wasm_bindgen(method, catch)]
    pub(super) fn fetch(this: &Global, url: &str, init: &Object) -> Result<JsValue, JsValue>;
}

/// The global scope.
pub(super) fn global() -> Global {
    js_sys::global().unchecked_into()
}
