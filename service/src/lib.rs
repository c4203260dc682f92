//! The Approov web protection service.
//!
//! Dependencies between the rooms point one way, from the top of this list to its end:
//!
//! | room | concept |
//! |---|---|
//! | [`server`] | the process: `serve` from its arguments to its end |
//! | [`cli`] | the commands that edit the configuration |
//! | [`dev`] | development only: an account of its own, simulated check services, faults on demand |
//! | [`http`] | the routes: `/attest`, health, metrics; cross-origin headers, one log line per request |
//! | [`attest`] | the flow of a token request: parameters, proof, session, checks, tokens |
//! | [`limits`] | what one client, one session and one site may take from the others |
//! | [`store`] | what replicas share: proofs used, checks counted; in memory or Redis |
//! | [`config`] | the configuration file: TOML in, checked values out |
//! | [`token`] | Approov tokens: claims, signatures, encryption |
//! | [`session`] | sessions in refresh tokens, and nonces |
//! | [`check`] | the check services: one file each, with all its names, its request and how its response is judged |
//! | [`telemetry`] | the log and the counters |
//! | [`allowed_origins`] | which pages may use an account |
//! | [`secrets`] | lists of secrets with times, and where they are kept |
//! | [`settings`] | a configuration file being read: positions, values within bounds |
//! | [`host`] | host names in their one form, and those that are this machine itself |
//! | [`error`] | refusals: error codes, status codes, the JSON map |
//! | [`crypto`] | randomness, derived keys, key pairs |
//! | [`time`] | points in time as text |
//!
//! Pure are `config`, `settings`, `token`, `session`, `error` and what judges responses in `check`: time and randomness come
//! in as values. (Signatures by a keyset draw their own random numbers, in `crypto`.)

#![warn(missing_docs)]

pub mod allowed_origins;
pub mod attest;
pub mod check;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod dev;
pub mod error;
pub mod host;
pub mod http;
pub mod limits;
pub mod secrets;
pub mod server;
pub mod session;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod token;
