//! What has been said already.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Remembers which lines are in the log, of those that clients could fill it with.
#[derive(Debug, Default)]
pub struct Said(Mutex<BTreeSet<&'static str>>);

impl Said {
    /// Whether this is the first time for `line`.
    pub fn first(&self, line: &'static str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(line)
    }
}
