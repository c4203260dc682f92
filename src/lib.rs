//! Approov web protection SDK.
//!
//! Dependencies point one way: `browser` (the edge: exports, fetch, keys, timers) uses `driver` (carries out what a session
//! decides), and that uses the pure modules, which do no I/O, read no clock and draw no randomness. Everything but `browser` is
//! compiled and tested natively.

#![warn(missing_docs)]

#[cfg(target_arch = "wasm32")]
pub mod browser;

pub mod driver;

pub mod cache;
pub mod session;
pub mod wire;

pub mod argument;
pub mod config;
pub mod token_request;

pub mod dpop;
pub mod jws;
#[cfg(feature = "wasm-key")]
pub mod key;

pub mod error;
pub mod json;
pub mod named;
pub mod secret;
pub mod shared;
pub mod time;
