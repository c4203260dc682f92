//! Remembering what may be used once.

use crate::encoding::{encode_base64url, sha256};
use crate::jwk::Thumbprint;
use crate::time::UnixTime;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::future::{self, Future};
use std::sync::{Mutex, PoisonError};

/// What identifies a thing that may be used once: a hash, so that keys have one size whatever a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplayKey([u8; 32]);

impl ReplayKey {
    /// The key of a `value` of a `kind` ("jti", "nonce") that the holder of a key chose.
    #[must_use]
    pub fn new(kind: &str, holder: &Thumbprint, value: &[u8]) -> Self {
        let kind = sha256(kind.as_bytes());
        Self(sha256(&[&kind, holder.as_bytes().as_slice(), value].concat()))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ReplayKey {
    /// Unpadded base64url.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_base64url(&self.0))
    }
}

/// Whether a key was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayCheck {
    /// It was not, and is remembered from now on.
    New,
    /// It was.
    Replayed,
}

/// A store that could not decide. Nothing may be accepted then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// The store holds as many unexpired keys as it may.
    Full,
    /// The store cannot be reached, or reported an error: its message, for logs.
    Unavailable(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the replay store is full"),
            Self::Unavailable(cause) => write!(f, "the replay store is unavailable: {cause}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Remembers keys until they expire. Servers behind the same URL must share one store.
pub trait ReplayStore: Send + Sync {
    /// Remembers `key` until `until` (inclusive) and reports whether it is new, as one atomic step.
    ///
    /// # Errors
    /// [`StoreError`] when that cannot be decided; the caller must then refuse.
    fn remember(
        &self,
        key: ReplayKey,
        until: UnixTime,
        now: UnixTime,
    ) -> impl Future<Output = Result<ReplayCheck, StoreError>> + Send;
}

/// A store in this process's memory, with a bound.
///
/// When it is full of unexpired keys it returns [`StoreError::Full`] and does not forget any: forgetting would
/// let replays pass. Only proofs that passed every other check get this far, so the bound is reached by real
/// sessions alone. An entry takes 100 to 150 bytes.
#[derive(Debug)]
pub struct MemoryReplayStore {
    capacity: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    keys: HashSet<ReplayKey>,
    by_expiry: BinaryHeap<Reverse<(UnixTime, ReplayKey)>>,
}

impl MemoryReplayStore {
    /// A store for at most `capacity` unexpired keys.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::default() }
    }

    /// [`ReplayStore::remember`] without a future.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn remember_now(&self, key: ReplayKey, until: UnixTime, now: UnixTime) -> Result<ReplayCheck, StoreError> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Reverse((expiry, expired))) = entries.by_expiry.peek().copied() {
            if expiry >= now {
                break;
            }
            entries.by_expiry.pop();
            entries.keys.remove(&expired);
        }
        if entries.keys.contains(&key) {
            return Ok(ReplayCheck::Replayed);
        }
        if entries.keys.len() >= self.capacity {
            return Err(StoreError::Full);
        }
        entries.keys.insert(key);
        entries.by_expiry.push(Reverse((until, key)));
        Ok(ReplayCheck::New)
    }

    /// How many keys are held, expired ones that were not yet removed included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).keys.len()
    }

    /// Whether no key is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemoryReplayStore {
    /// A store for a million keys.
    fn default() -> Self {
        Self::with_capacity(1_000_000)
    }
}

impl ReplayStore for MemoryReplayStore {
    fn remember(
        &self,
        key: ReplayKey,
        until: UnixTime,
        now: UnixTime,
    ) -> impl Future<Output = Result<ReplayCheck, StoreError>> + Send {
        future::ready(self.remember_now(key, until, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str, holder: u8, value: &str) -> ReplayKey {
        ReplayKey::new(kind, &Thumbprint::from_bytes([holder; 32]), value.as_bytes())
    }

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_secs(seconds)
    }

    #[test]
    fn a_key_is_replayed_until_it_expires() {
        let store = MemoryReplayStore::default();
        assert!(store.is_empty());
        let one = key("jti", 1, "a");
        assert_eq!(store.remember_now(one, at(100), at(50)), Ok(ReplayCheck::New));
        assert_eq!(store.remember_now(one, at(100), at(50)), Ok(ReplayCheck::Replayed));
        assert_eq!(store.remember_now(one, at(200), at(100)), Ok(ReplayCheck::Replayed));
        assert_eq!(store.len(), 1);
        assert!(!store.is_empty());
        assert_eq!(store.remember_now(one, at(200), at(101)), Ok(ReplayCheck::New));
    }

    #[test]
    fn keys_differ_by_kind_holder_and_value() {
        let store = MemoryReplayStore::default();
        for other in [key("jti", 1, "a"), key("nonce", 1, "a"), key("jti", 2, "a"), key("jti", 1, "b")] {
            assert_eq!(store.remember_now(other, at(100), at(50)), Ok(ReplayCheck::New));
        }
        assert_eq!(key("jti", 1, "a").to_string().len(), 43);
    }

    #[test]
    fn a_full_store_refuses_instead_of_forgetting() {
        let store = MemoryReplayStore::with_capacity(2);
        assert_eq!(store.remember_now(key("jti", 1, "a"), at(100), at(50)), Ok(ReplayCheck::New));
        assert_eq!(store.remember_now(key("jti", 1, "b"), at(90), at(50)), Ok(ReplayCheck::New));
        assert_eq!(store.remember_now(key("jti", 1, "c"), at(100), at(50)), Err(StoreError::Full));
        assert_eq!(store.remember_now(key("jti", 1, "a"), at(100), at(50)), Ok(ReplayCheck::Replayed));
        assert_eq!(store.remember_now(key("jti", 1, "c"), at(100), at(91)), Ok(ReplayCheck::New));
        assert_eq!(store.len(), 2);
    }
}
