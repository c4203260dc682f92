//! Whether requests can be served, as it was last known: asking costs nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Service;
use crate::store::{Store as _, StoreError};

/// What balancers are told.
#[derive(Debug, Default)]
pub struct Readiness {
    is_draining: AtomicBool,
    lacks_store: AtomicBool,
}

/// Why new clients should go elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The process is about to stop.
    Draining,
    /// The store is unavailable.
    Store,
}

impl Readiness {
    /// Whether new clients can be served.
    ///
    /// # Errors
    /// Why not.
    pub fn get(&self) -> Result<(), NotReady> {
        if self.is_draining.load(Ordering::Relaxed) {
            Err(NotReady::Draining)
        } else if self.lacks_store.load(Ordering::Relaxed) {
            Err(NotReady::Store)
        } else {
            Ok(())
        }
    }

    /// The process is about to stop.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn lacks_store(&self, lacks_store: bool) {
        self.lacks_store.store(lacks_store, Ordering::Relaxed);
    }
}

impl Service {
    /// Looks again whether the store responds. The log gets its warning, once for each configuration.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn refresh_readiness(&self) -> Result<(), StoreError> {
        let ready = self.store.ready().await;
        self.readiness.lacks_store(ready.is_err());
        if ready.is_err() {
            self.metrics.store_error();
        }
        if let Some(warning) = self.store.warning()
            && self.active().said.first(warning)
        {
            self.log.event("store", warning);
        }
        ready
    }
}
