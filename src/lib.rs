//! Approov web protection SDK.
//!
//! Dependencies point one way: `browser` (the edge: exports, fetch, keys, timers) uses `driver` (carries out what a session
//! decides), and that uses the pure modules, which do no I/O, read no clock and draw no randomness. Everything but `browser` is
//! compiled and tested natively.

#![warn(missing_docs)]

#[cfg(target_arch = "wasm32")]
pub mod browser;

pub mod driver;

// What a session does: the state machine, its requests in flight, its tokens.
pub mod batch;
pub mod cache;
pub mod issued;
pub mod session;

// What travels.
pub mod wire;

// What callers pass, parsed.
pub mod altcha;
pub mod argument;
pub mod checks;
pub mod config;
pub mod near_miss;
pub mod notice;
pub mod token_request;

// Proofs and their keys.
pub mod dpop;
pub mod jws;
#[cfg(feature = "wasm-key")]
pub mod key;

// What all of them use.
pub mod error;
pub mod json;
pub mod secret;
pub mod shared;
pub mod small_map;
pub mod time;
