//! An HTTP listener that misbehaving clients cannot take from the others. It does not know what is served.
//!
//! Dependencies between the rooms point one way, from the top of this list to its end:
//!
//! | room | concept |
//! |---|---|
//! | `accept` | the accept loop: who gets a connection, and how all of them end |
//! | `places` | who has how many connections, and whose makes way |
//! | `proxy_protocol` | what a proxy says of a connection before it passes it on |
//! | `connection` | one connection: HTTP/1.1 or HTTP/2, and its time-outs |
//! | [`body`] | bodies of requests, with an end in bounded time |
//! | [`service`] | what is served, and what it learns of and says to its connection |
//! | [`shutdown`] | signals that end the process |
//! | [`tls`] | the TLS identity |
//! | [`log`] | log lines |
//! | [`metrics`] | counters in Prometheus' text format |
//! | [`pressure`] | how close the process is to its bounds |
//! | [`fairness`] | who has how much: counters for address prefixes in fixed memory |
//! | [`limits`] | the bounds |

#![warn(missing_docs)]

mod accept;
pub mod body;
mod connection;
pub mod fairness;
pub mod limits;
pub mod log;
pub mod metrics;
mod places;
pub mod pressure;
mod proxy_protocol;
pub mod service;
pub mod shutdown;
pub mod tls;

pub use accept::{IsTrusted, Listener};
