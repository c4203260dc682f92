//! The state that replicas share: which proofs were used, which keys failed a check, and how many checks a site made
//! this minute.
//!
//! A store has an epoch, a number that changes whenever it may have forgotten something (the process
//! restarted, Redis restarted or was flushed). Nonces carry the epoch they were issued in, and only
//! proofs with a nonce of the current epoch are accepted: what the store has forgotten cannot be
//! replayed. Sessions survive, at the price of one more round trip for a fresh nonce.

mod failed;
mod memory;
mod redis;

use std::fmt;
use std::future::Future;

use approov_verify::jwk::Thumbprint;
use approov_verify::replay::ReplayKey;
use approov_verify::time::UnixTime;

use crate::config::StoreAddress;
use crate::crypto::random;
use crate::session::{Epoch, Generation, NonceStamp};

pub use memory::MemoryStore;
pub use redis::RedisStore;

/// What the store knows of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayCheck {
    /// It is new, and remembered from now on.
    New,
    /// It was used before.
    Replayed,
    /// The store cannot tell: its nonce is from an epoch that the store no longer remembers.
    StaleEpoch,
}

/// A proof that is about to be used.
#[derive(Clone, Copy, Debug)]
pub struct ProofUse {
    /// What tells it from other proofs.
    pub proof: ReplayKey,
    /// Whose it is.
    pub holder: Thumbprint,
    /// When and in which epoch its nonce was issued.
    pub nonce: NonceStamp,
}

/// What the store knows when a proof is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of the proof.
    pub replay: ReplayCheck,
    /// The generation of the latest failed check of its holder; 0 when none is known.
    pub failed_generation: Generation,
}

/// What came of the checks of a request.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// Whose checks they were.
    pub holder: Thumbprint,
    /// Of the session that has their results.
    pub generation: Generation,
    /// Whether all of them passed.
    pub passed: bool,
    /// When no refresh token from before can be in use any more.
    pub until: UnixTime,
}

/// Why a store did not respond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store is unavailable: {}", self.0)
    }
}

impl std::error::Error for StoreError {}

/// What the service needs of a store.
pub trait Store: Send + Sync {
    /// The current epoch, as far as it is known without a request.
    fn epoch(&self) -> Epoch;

    /// Whether this proof was used before; remembers it for the nonce's lifetime. One atomic step.
    ///
    /// # Errors
    /// When the store is unavailable. The caller must refuse.
    fn remember(&self, used: ProofUse, now: UnixTime) -> impl Future<Output = Result<Known, StoreError>> + Send;

    /// Remembers failed checks of a key, and costs the same when they passed. What is remembered of a key never becomes
    /// less, in whatever order its requests end.
    ///
    /// # Errors
    /// When the store is unavailable. The caller must refuse, whatever came of the checks.
    fn settle(&self, checks: Settled, now: UnixTime) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Counts one use of `name` in the current minute. `Ok(true)`: within `limit`.
    ///
    /// # Errors
    /// When the store is unavailable. The caller must refuse.
    fn count(&self, name: &str, limit: u64, now: UnixTime) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Whether the store responds.
    ///
    /// # Errors
    /// When it does not.
    fn ready(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Seconds until the next minute begins: when a rate limit lets requests through again.
pub fn seconds_to_next_minute(now: UnixTime) -> u64 {
    60 - now.as_secs().rem_euclid(60).unsigned_abs()
}

/// The configured store.
pub enum AnyStore {
    /// In this process.
    Memory(MemoryStore),
    /// In Redis.
    Redis(RedisStore),
}

impl AnyStore {
    /// Opens the configured store.
    ///
    /// # Errors
    /// When its address cannot be used. A server that cannot be reached is not an error: it may come back.
    pub fn open(address: &StoreAddress, replay_entries: usize) -> Result<Self, StoreError> {
        match address {
            StoreAddress::Memory => {
                let random = random().map_err(|_| StoreError("no random numbers".to_owned()))?;
                Ok(AnyStore::Memory(MemoryStore::new(replay_entries, u64::from_be_bytes(random))))
            }
            StoreAddress::Redis(url) => RedisStore::new(url).map(AnyStore::Redis),
        }
    }
}

impl Store for AnyStore {
    fn epoch(&self) -> Epoch {
        match self {
            AnyStore::Memory(store) => store.epoch(),
            AnyStore::Redis(store) => store.epoch(),
        }
    }

    async fn remember(&self, used: ProofUse, now: UnixTime) -> Result<Known, StoreError> {
        match self {
            AnyStore::Memory(store) => store.remember(used, now).await,
            // On the heap, so that requests reserve no space for it when there is no Redis.
            AnyStore::Redis(store) => Box::pin(store.remember(used, now)).await,
        }
    }

    async fn settle(&self, checks: Settled, now: UnixTime) -> Result<(), StoreError> {
        match self {
            AnyStore::Memory(store) => store.settle(checks, now).await,
            AnyStore::Redis(store) => store.settle(checks, now).await,
        }
    }

    async fn count(&self, name: &str, limit: u64, now: UnixTime) -> Result<bool, StoreError> {
        match self {
            AnyStore::Memory(store) => store.count(name, limit, now).await,
            AnyStore::Redis(store) => store.count(name, limit, now).await,
        }
    }

    async fn ready(&self) -> Result<(), StoreError> {
        match self {
            AnyStore::Memory(store) => store.ready().await,
            AnyStore::Redis(store) => store.ready().await,
        }
    }
}
