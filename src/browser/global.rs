//! The global scope, as pages, workers and service workers have it.

use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::wasm_bindgen;
use web_sys::Performance;

#[wasm_bindgen]
extern "C" {
    /// What `globalThis` is.
    pub(super) type Global;

    #[wasm_bindgen(method, getter)]
    pub(super) fn performance(this: &Global) -> Option<Performance>;
}

/// The global scope.
pub(super) fn global() -> Global {
    js_sys::global().unchecked_into()
}
