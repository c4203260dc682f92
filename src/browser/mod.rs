//! The browser edge: everything that touches JavaScript. No decisions are made here.
//!
//! It runs in pages, workers and service workers alike, so it reaches for the global scope and never for `window`.

use rlsf::SmallGlobalTlsf;

mod built_ins;
mod convert;
mod crypto;
pub mod exports;
mod fetch;
mod global;
mod host;
mod signal;

/// An error with the JavaScript value that caused it.
type Failure = crate::driver::Failure<wasm_bindgen::JsValue>;

/// Smaller than the standard library's allocator by 5 kB.
#[global_allocator]
static ALLOCATOR: SmallGlobalTlsf = SmallGlobalTlsf::new();
