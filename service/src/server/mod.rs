//! The server process: `serve` from its arguments to its end.

mod reload;
mod run;
mod serving;
mod tls;
mod watch;

pub use run::{Options, run};
pub use serving::listener;
