//! What the service reports about itself: log lines and counters. Log lines hold no tokens, no proofs, no secrets and
//! no check results, only their outcomes.

mod metrics;
mod notes;
mod said;

pub use approov_listener::log::{Log, LogFormat, RequestLine, millis};
pub use metrics::{ALARM_AFTER, Metrics};
pub use notes::RequestNotes;
pub use said::Said;
