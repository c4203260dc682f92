//! Remembering what may be used once.

use crate::crypto::sha256;
use crate::encoding::encode_base64url;
use crate::jwk::Thumbprint;
use crate::time::UnixTime;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
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

/// Something to remember: who used it, what it is, and until when it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayEntry {
    /// The thumbprint of the key whose holder used it. A store bounds how much it remembers for each.
    pub holder: Thumbprint,
    /// What was used.
    pub key: ReplayKey,
    /// The end of the time in which it must not be used again, inclusive.
    pub until: UnixTime,
}

/// Whether a key was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayCheck {
    /// It was not, and is remembered from now on.
    New,
    /// It was.
    Replayed,
    /// Its holder has as many keys remembered as it may. This one is not: it may be used when others have expired.
    OverQuota,
}

/// A store that could not decide. Nothing may be accepted then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// The store holds as many unexpired keys as it may.
    Full,
    /// The store cannot be reached, or reported an error: its message, for logs.
    Unavailable(String),
    /// The store is configured to forget keys before they expire, by this policy (Redis: `maxmemory-policy`).
    Evicts(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the replay store is full"),
            Self::Evicts(policy) => {
                write!(f, "the replay store forgets keys too early (maxmemory-policy {policy}): set it to noeviction")
            }
            Self::Unavailable(cause) => write!(f, "the replay store is unavailable: {cause}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Remembers keys until they expire. Servers behind the same URL must share one store.
pub trait ReplayStore: Send + Sync {
    /// Remembers an entry and reports whether its key is new, as one atomic step.
    ///
    /// # Errors
    /// [`StoreError`] when that cannot be decided; the caller must then refuse.
    fn remember(
        &self,
        entry: ReplayEntry,
        now: UnixTime,
    ) -> impl Future<Output = Result<ReplayCheck, StoreError>> + Send;
}

/// The most keys that a store remembers for one holder when it is half full.
pub const MAX_KEYS_PER_HOLDER: usize = 1000;

/// How many keys a holder may have in a store that holds `held` keys of `capacity`.
///
/// While half of the store is free there is no limit. From there on the quota is proportional to the room that is left
/// (the dynamic thresholds of Choudhury and Hahne for shared buffers): it begins at [`MAX_KEYS_PER_HOLDER`], or at a
/// sixteenth of a small store, and ends at 1. So the last room is for those who have used little.
pub(crate) fn quota(capacity: usize, held: usize) -> usize {
    let free = capacity.saturating_sub(held);
    if free >= capacity.div_ceil(2) {
        return usize::MAX;
    }
    let at_half = MAX_KEYS_PER_HOLDER.min(capacity / 16);
    (at_half.saturating_mul(free).saturating_mul(2) / capacity).max(1)
}

/// A store in this process's memory, with a bound, and with a share of it for everybody.
///
/// It never forgets an unexpired key: forgetting would let replays pass. So that nobody fills it for all others, there
/// is a quota from the moment when it is half full: 1,000 keys for each holder (a sixteenth of a store for fewer than
/// 16,000), and proportionally fewer as the room gets smaller. A holder beyond it gets [`ReplayCheck::OverQuota`].
///
/// What that costs an attacker, with the default of a million keys, each remembered for up to 90 seconds:
///
/// - One session cannot hold more than half of the store, whatever it sends. Each session costs a passed check.
/// - To *keep* the store so full that a client with 10 recent requests is refused takes 100,000 sessions, each of
///   which is then allowed no more than 10 requests in 90 seconds itself; for a client with 100 recent requests,
///   9,500 sessions.
/// - To *bring* it there, for less than 90 seconds at a time, takes 2,300 sessions that send a million good requests in that
///   time, one session after the other while the quota falls. (With the same quota of 1,000 at every level, 500 would
///   do, and for as long as they like.)
/// - Only when it is entirely full does it return [`StoreError::Full`] to everybody. To bring it there takes
///   4,000 sessions.
///
/// An entry takes 150 to 300 bytes.
#[derive(Debug)]
pub struct MemoryReplayStore {
    capacity: usize,
    entries: Mutex<Entries>,
}

// Hash tables of WebAssembly have no random key, so that clients could choose what collides in them.
#[cfg(target_arch = "wasm32")]
use std::collections::{BTreeMap as Table, BTreeSet as Set, btree_map::Entry};
#[cfg(not(target_arch = "wasm32"))]
use std::collections::{HashMap as Table, HashSet as Set, hash_map::Entry};

#[derive(Debug, Default)]
struct Entries {
    keys: Set<ReplayKey>,
    by_expiry: BinaryHeap<Reverse<(UnixTime, ReplayKey, Thumbprint)>>,
    held: Table<Thumbprint, usize>,
}

impl Entries {
    fn remove_expired(&mut self, now: UnixTime) {
        while let Some(Reverse((until, key, holder))) = self.by_expiry.peek().copied() {
            if until >= now {
                break;
            }
            self.by_expiry.pop();
            self.keys.remove(&key);
            if let Entry::Occupied(mut held) = self.held.entry(holder) {
                match held.get() {
                    0 | 1 => drop(held.remove()),
                    many => *held.get_mut() = many - 1,
                }
            }
        }
    }
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
    pub fn remember_now(&self, entry: ReplayEntry, now: UnixTime) -> Result<ReplayCheck, StoreError> {
        let ReplayEntry { holder, key, until } = entry;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = &mut *entries;
        entries.remove_expired(now);
        if entries.keys.contains(&key) {
            return Ok(ReplayCheck::Replayed);
        }
        if entries.keys.len() >= self.capacity {
            return Err(StoreError::Full);
        }
        let quota = quota(self.capacity, entries.keys.len());
        let held = entries.held.entry(holder).or_default();
        if *held >= quota {
            return Ok(ReplayCheck::OverQuota);
        }
        *held += 1;
        entries.keys.insert(key);
        entries.by_expiry.push(Reverse((until, key, holder)));
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
        entry: ReplayEntry,
        now: UnixTime,
    ) -> impl Future<Output = Result<ReplayCheck, StoreError>> + Send {
        future::ready(self.remember_now(entry, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::ReplayCheck::{New, OverQuota, Replayed};

    fn key(kind: &str, holder: u8, value: &str) -> ReplayKey {
        ReplayKey::new(kind, &thumbprint(holder.into()), value.as_bytes())
    }

    fn thumbprint(number: u32) -> Thumbprint {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Thumbprint::from_bytes(bytes)
    }

    /// The `number`th key of a holder.
    fn entry(holder: u32, number: usize, until: UnixTime) -> ReplayEntry {
        let holder = thumbprint(holder);
        ReplayEntry { holder, key: ReplayKey::new("jti", &holder, &number.to_be_bytes()), until }
    }

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_secs(seconds)
    }

    /// Remembers keys of one holder until the store refuses; how many it took, and what it said then.
    fn flood(
        store: &MemoryReplayStore,
        holder: u32,
        until: UnixTime,
        now: UnixTime,
    ) -> (usize, Result<ReplayCheck, StoreError>) {
        let remember = |number| store.remember_now(entry(holder, number, until), now);
        (0..).map(|number| (number, remember(number))).find(|(_, check)| *check != Ok(New)).expect("a bound")
    }

    #[test]
    fn a_key_is_replayed_until_it_expires() {
        let store = MemoryReplayStore::default();
        assert!(store.is_empty());
        assert_eq!(store.remember_now(entry(1, 1, at(100)), at(50)), Ok(New));
        assert_eq!(store.remember_now(entry(1, 1, at(100)), at(50)), Ok(Replayed));
        assert_eq!(store.remember_now(entry(1, 1, at(200)), at(100)), Ok(Replayed));
        assert_eq!(store.len(), 1);
        assert!(!store.is_empty());
        assert_eq!(store.remember_now(entry(1, 1, at(200)), at(101)), Ok(New));
    }

    #[test]
    fn keys_differ_by_kind_holder_and_value() {
        let store = MemoryReplayStore::default();
        for key in [key("jti", 1, "a"), key("nonce", 1, "a"), key("jti", 2, "a"), key("jti", 1, "b")] {
            let entry = ReplayEntry { holder: thumbprint(1), key, until: at(100) };
            assert_eq!(store.remember_now(entry, at(50)), Ok(New));
        }
        assert_eq!(key("jti", 1, "a").to_string().len(), 43);
    }

    #[test]
    fn a_full_store_refuses_instead_of_forgetting() {
        let store = MemoryReplayStore::with_capacity(2);
        assert_eq!(store.remember_now(entry(1, 1, at(100)), at(50)), Ok(New));
        assert_eq!(store.remember_now(entry(2, 1, at(90)), at(50)), Ok(New));
        assert_eq!(store.remember_now(entry(3, 1, at(100)), at(50)), Err(StoreError::Full));
        assert_eq!(store.remember_now(entry(1, 1, at(100)), at(50)), Ok(Replayed));
        assert_eq!(store.remember_now(entry(3, 1, at(100)), at(91)), Ok(New));
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn one_holder_gets_half_of_a_store_and_others_still_find_room() {
        let store = MemoryReplayStore::with_capacity(20_000);
        assert_eq!(flood(&store, 1, at(100), at(50)), (10_000 + 1, Ok(OverQuota)));
        // Nothing of what it sends from now on takes room, and what it used stays used.
        assert_eq!(store.remember_now(entry(1, 0, at(100)), at(50)), Ok(Replayed));
        assert_eq!(store.remember_now(entry(1, 99_999, at(100)), at(50)), Ok(OverQuota));
        assert_eq!(store.len(), 10_001);
        // A hundred honest clients with 40 requests each.
        for holder in 2..102 {
            for number in 0..40 {
                assert_eq!(store.remember_now(entry(holder, number, at(100)), at(50)), Ok(New), "{holder} {number}");
            }
        }
        // When its keys have expired, the first one is served again.
        assert_eq!(store.remember_now(entry(1, 99_999, at(200)), at(101)), Ok(New));
    }

    #[test]
    fn many_holders_leave_room_for_those_who_used_little() {
        // With the same quota at every level, 50 sessions would fill the second half of this store.
        let store = MemoryReplayStore::with_capacity(100_000);
        for attacker in 0..50 {
            assert_eq!(flood(&store, attacker, at(100), at(50)).1, Ok(OverQuota));
        }
        for honest in 100..200 {
            for number in 0..100 {
                assert_eq!(store.remember_now(entry(honest, number, at(100)), at(50)), Ok(New));
            }
        }
        assert!(store.len() < 95_000, "{}", store.len());
    }

    #[test]
    fn the_quota_begins_at_half_and_shrinks_with_the_room() {
        for (capacity, held, expected) in [
            (1_000_000, 0, usize::MAX),
            (1_000_000, 500_000, usize::MAX),
            (1_000_000, 500_001, 999),
            (1_000_000, 750_000, 500),
            (1_000_000, 995_000, 10),
            (1_000_000, 999_999, 1),
            (1_000_000, 1_000_000, 1),
            (1_000_000, 2_000_000, 1),
            (16, 8, usize::MAX),
            (16, 9, 1),
            (2, 1, usize::MAX),
            (1, 0, usize::MAX),
            (1, 1, 1),
            (usize::MAX, usize::MAX / 2 + 2, 0),
        ] {
            if expected > 0 {
                assert_eq!(quota(capacity, held), expected, "{capacity} {held}");
            } else {
                assert!((1..=MAX_KEYS_PER_HOLDER).contains(&quota(capacity, held)));
            }
        }
    }

    #[test]
    fn expired_keys_leave_nothing() {
        let store = MemoryReplayStore::with_capacity(64);
        for second in 0..1000_u32 {
            let now = at(second.into());
            assert_eq!(store.remember_now(entry(second % 7, 0, now), now), Ok(New));
        }
        let entries = store.entries.lock().unwrap();
        assert_eq!((entries.keys.len(), entries.by_expiry.len(), entries.held.len()), (1, 1, 1));
    }
}
