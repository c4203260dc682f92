//! The state that replicas share: which proofs and which check results were used, which keys failed a check, and how many
//! checks a site made this minute.
//!
//! A store has an epoch, a number that changes whenever it may have forgotten something (the process
//! restarted, Redis restarted or was flushed). Nonces carry the epoch they were issued in, and only
//! proofs with a nonce of the current epoch are accepted: what the store has forgotten cannot be
//! replayed. Sessions survive, at the price of one more round trip for a fresh nonce.

mod failed;
mod memory;
mod redis;
mod used;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use approov_verify::jwk::Thumbprint;
use approov_verify::replay::ReplayKey;
use approov_verify::time::UnixTime;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

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
    /// Its holder has as many live proofs as it may. This one is not remembered.
    OverQuota,
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
    /// How many proofs of its holder may be live when more than half of the store is full; `None`: any number.
    pub quota: Option<u32>,
}

/// What the store knows when a proof is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of the proof.
    pub replay: ReplayCheck,
    /// The generation of the latest failed check of its holder; 0 when none is known.
    pub failed_generation: Generation,
}

/// Names a result of a check service: SHA-256 over its site and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResultKey([u8; 32]);

impl ResultKey {
    /// The key of a `result` of the site with this name among all.
    pub fn new(site: &str, result: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&site.len().to_be_bytes());
        context.update(site.as_bytes());
        context.update(result.as_bytes());
        let mut key = [0; 32];
        key.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(key)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ResultKey {
    /// Unpadded base64url.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// A check result that is about to be used.
#[derive(Clone, Copy, Debug)]
pub struct ResultUse {
    /// Which result.
    pub key: ResultKey,
    /// Who sent it.
    pub holder: Thumbprint,
    /// How long it is to be remembered that it was used.
    pub lifetime: Duration,
}

/// What the store knows of a check result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has used it. From now on it is its holder's, who has to conclude it.
    New,
    /// The same holder sent it, and it is being checked.
    InFlight,
    /// The same holder sent it, and this came of it.
    Known(Vec<u8>),
    /// Another holder sent it.
    Others,
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

    /// Whether this result may be checked; marks it as its holder's. One atomic step.
    ///
    /// # Errors
    /// When the store is unavailable. The caller must refuse, before the check service is asked.
    fn claim(&self, result: &ResultUse, now: UnixTime) -> impl Future<Output = Result<Claim, StoreError>> + Send;

    /// Keeps what came of a result that was claimed, as long as the mark; `None` lets go of it, when nothing came of it. The
    /// first conclusion stays, and a mark that is another's is left alone.
    ///
    /// # Errors
    /// When the store is unavailable. The caller must refuse: the result could be used again.
    fn conclude(
        &self,
        result: &ResultUse,
        outcome: Option<Vec<u8>>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Counts one use of `name` in the current minute. `Ok(true)`: within `limit`.
    ///
    /// # Errors
    /// When the store is unavailable. The caller must refuse.
    fn count(&self, name: &str, limit: u64, now: UnixTime) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// What the operator should know about a store that responds.
    fn warning(&self) -> Option<&'static str>;

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
            StoreAddress::Redis(url) => RedisStore::new(url, replay_entries).map(AnyStore::Redis),
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

    async fn claim(&self, result: &ResultUse, now: UnixTime) -> Result<Claim, StoreError> {
        match self {
            AnyStore::Memory(store) => store.claim(result, now).await,
            AnyStore::Redis(store) => store.claim(result, now).await,
        }
    }

    async fn conclude(&self, result: &ResultUse, outcome: Option<Vec<u8>>) -> Result<(), StoreError> {
        match self {
            AnyStore::Memory(store) => store.conclude(result, outcome).await,
            AnyStore::Redis(store) => store.conclude(result, outcome).await,
        }
    }

    async fn count(&self, name: &str, limit: u64, now: UnixTime) -> Result<bool, StoreError> {
        match self {
            AnyStore::Memory(store) => store.count(name, limit, now).await,
            AnyStore::Redis(store) => store.count(name, limit, now).await,
        }
    }

    fn warning(&self) -> Option<&'static str> {
        match self {
            AnyStore::Memory(store) => store.warning(),
            AnyStore::Redis(store) => store.warning(),
        }
    }

    async fn ready(&self) -> Result<(), StoreError> {
        match self {
            AnyStore::Memory(store) => store.ready().await,
            AnyStore::Redis(store) => store.ready().await,
        }
    }
}
