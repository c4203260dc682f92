//! The Approov web protection service.
//!
//! Dependencies point one way: the edge ([`run`], [`serve`], [`http`], [`dev`], [`sim`]; [`cli`], [`edit`]) → the flow
//! ([`attest`] over [`service`], [`store`], [`lookup`]) → pure parts that take time and randomness as
//! values ([`params`], [`check`], [`session`], [`nonce`], [`token`], [`origin`], [`config`], [`error`]).

#![warn(missing_docs)]

pub mod args;
pub mod attest;
pub mod check;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod dev;
pub mod edit;
pub mod error;
pub mod faults;
pub mod http;
pub mod log;
pub mod lookup;
pub mod metrics;
pub mod nonce;
pub mod origin;
pub mod params;
pub mod provider;
pub mod run;
pub mod serve;
pub mod service;
pub mod session;
pub mod sim;
pub mod store;
pub mod time;
pub mod tls;
pub mod token;
