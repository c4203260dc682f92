//! The server process: `serve` from its arguments to its end, the accept loop, the TLS identity.

mod listener;
mod run;
mod tls;

pub use listener::{Face, serve};
pub use run::{Options, run};
