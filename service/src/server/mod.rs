//! The server process: `serve` from its arguments to its end.

mod reload;
mod run;
mod tls;
mod watch;

pub use run::{Options, listener, run};
