//! Secrets as the configuration has them: lists with times, so that one can be rotated without a request that fails, each
//! in the file itself or in a place that only the running service reads.
//!
//! ```text
//!             from                       until
//! staged ──────┼───────── makes ──────────┼── ended
//! opens        │ opens, until a newer     │
//! already      │ one's time has come      │
//! ```

mod kept;
mod read;
mod timeline;

pub use kept::{KeptSecret, Outside, Place, ProcessEnvironment, SecretKind};
pub use timeline::{Timed, Timeline};

/// One secret and those that come after and before it.
pub type SecretList = Timeline<KeptSecret>;
