//! The server process: `serve` from its arguments to its end.

mod run;
mod tls;

pub use run::{Options, listener, run};
