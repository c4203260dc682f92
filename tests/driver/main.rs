#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

//! The driver in virtual time, against a scripted service.

mod altcha;
mod behaviour;
mod lifecycle;
#[path = "../support/parsed_json.rs"]
mod parsed_json;
mod properties;
mod simulated;
