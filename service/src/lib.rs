//! The Approov web protection service.
//!
//! Dependencies point one way: the edge (`main`, `cli`, `serve`, `http`) → the flow (`attest`) → pure
//! parts that take time and randomness as values (`params`, `nonce`, `session`, `token`, `check`,
//! `origin`, `config`, `error`).

pub mod config;
pub mod error;
pub mod nonce;
pub mod origin;
pub mod provider;
pub mod secret;
pub mod session;
pub mod time;
pub mod token;
