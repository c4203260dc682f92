//! The server process: `serve` from its arguments to its end.

mod run;
mod serving;
mod tls;

pub use run::{Options, run};
pub use serving::listener;
