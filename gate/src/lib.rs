//! The server that gateways ask whether a request may pass: for backends in any language.
//!
//! Dependencies between the rooms point one way, from the top of this list to its end:
//!
//! | room | concept |
//! |---|---|
//! | [`run`] | the process: from a configuration file to its end |
//! | [`app`] | the HTTP face: routes, one log line for each request |
//! | [`gate`] | one question of a gateway, and the verdict |
//! | [`response`] | verdicts as responses |
//! | [`original`] | the request that a gateway asks about |
//! | [`config`] | the configuration file |
//! | [`policy`] | which requests have to carry what |
//! | [`metrics`] | counters |
//!
//! What is checked of tokens and proofs, and how it is configured, is `approov-verify`'s.

#![warn(missing_docs)]

pub mod app;
pub mod config;
pub mod gate;
pub mod metrics;
pub mod original;
pub mod policy;
pub mod response;
pub mod run;
