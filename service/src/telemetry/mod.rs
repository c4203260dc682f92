//! What the service reports about itself: log lines and counters.

mod log;
mod metrics;

pub use log::{Log, LogFormat, RequestLine, RequestNotes, millis};
pub use metrics::Metrics;
