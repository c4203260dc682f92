//! The store in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use approov_verify::replay::ReplayKey;
use approov_verify::time::UnixTime;

use crate::session::{Epoch, NONCE_LIFETIME, NonceStamp};

use super::failed::FailedChecks;
use super::{Known, ProofUse, ReplayCheck, Settled, Store, StoreError};

/// A store in this process's memory, with a bound.
///
/// Proofs are kept in slots by the second their nonce was issued in; whole slots are dropped when their
/// nonces have expired. When the bound is reached before that, the oldest slots go too, and nonces as
/// old as theirs are no longer accepted.
pub struct MemoryStore {
    epoch: Epoch,
    capacity: usize,
    proofs: Mutex<Proofs>,
    failed: Mutex<FailedChecks>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Proofs {
    /// Second of issue → first 16 bytes of the replay keys (SHA-256 values: 128 bits do not collide).
    slots: BTreeMap<i64, HashSet<u128>>,
    len: usize,
    /// Nonces issued in this second or before are not accepted.
    forgotten_through: Option<i64>,
}

#[derive(Default)]
struct Counts {
    minute: i64,
    by_name: HashMap<String, u64>,
}

impl MemoryStore {
    /// An empty store for `capacity` proofs; `random` becomes its epoch.
    pub fn new(capacity: usize, random: u64) -> Self {
        Self { epoch: random, capacity, proofs: Mutex::default(), failed: Mutex::default(), counts: Mutex::default() }
    }

    fn remember_now(&self, key: ReplayKey, nonce: NonceStamp, now: UnixTime) -> ReplayCheck {
        if nonce.epoch != self.epoch {
            return ReplayCheck::StaleEpoch;
        }
        let second = nonce.at.as_secs();
        let short = key.as_bytes().iter().take(16).fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        // One second more than the lifetime: a slot holds nonces up to its last millisecond.
        let expired = now.minus(NONCE_LIFETIME + Duration::from_secs(1)).as_secs();
        while let Some(slot) = proofs.slots.first_entry()
            && *slot.key() < expired
        {
            let gone = slot.remove().len();
            proofs.len -= gone;
        }
        if proofs.forgotten_through.is_some_and(|to| second <= to) {
            return ReplayCheck::StaleEpoch;
        }
        if !proofs.slots.entry(second).or_default().insert(short) {
            return ReplayCheck::Replayed;
        }
        proofs.len += 1;
        while proofs.len > self.capacity
            && let Some((oldest, keys)) = proofs.slots.pop_first()
        {
            proofs.len -= keys.len();
            proofs.forgotten_through = Some(oldest);
            if oldest == second {
                return ReplayCheck::StaleEpoch;
            }
        }
        ReplayCheck::New
    }
}

impl Store for MemoryStore {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    async fn remember(&self, used: ProofUse, now: UnixTime) -> Result<Known, StoreError> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).generation(&used.holder, now);
        Ok(Known { replay: self.remember_now(used.proof, used.nonce, now), failed_generation: failed })
    }

    async fn settle(&self, checks: Settled, now: UnixTime) -> Result<(), StoreError> {
        if !checks.passed {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.remember(checks.holder, checks.generation, checks.until, now);
        }
        Ok(())
    }

    async fn count(&self, name: &str, limit: u64, now: UnixTime) -> Result<bool, StoreError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.as_secs() / 60;
        if counts.minute != minute {
            counts.minute = minute;
            counts.by_name.clear();
        }
        let count = counts.by_name.entry(name.to_owned()).or_default();
        *count = count.saturating_add(1);
        Ok(*count <= limit)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::seconds_to_next_minute;
    use super::*;
    use approov_verify::jwk::Thumbprint;

    const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    fn key(n: u64) -> ReplayKey {
        ReplayKey::new("jti", &Thumbprint::from_bytes([1; 32]), &n.to_be_bytes())
    }

    fn issued(seconds_ago: u64) -> NonceStamp {
        NonceStamp { at: NOW.minus(Duration::from_secs(seconds_ago)), epoch: 7 }
    }

    #[test]
    fn a_proof_is_new_once() {
        let store = MemoryStore::new(10, 7);
        assert_eq!(store.remember_now(key(1), issued(0), NOW), ReplayCheck::New);
        assert_eq!(store.remember_now(key(1), issued(0), NOW), ReplayCheck::Replayed);
        assert_eq!(store.remember_now(key(2), issued(0), NOW), ReplayCheck::New);
        let late = NOW.plus(NONCE_LIFETIME);
        assert_eq!(store.remember_now(key(1), issued(0), late), ReplayCheck::Replayed);
    }

    #[test]
    fn a_nonce_of_another_epoch_is_not_judged() {
        let store = MemoryStore::new(10, 7);
        let nonce = NonceStamp { epoch: 8, ..issued(0) };
        assert_eq!(store.remember_now(key(1), nonce, NOW), ReplayCheck::StaleEpoch);
    }

    #[test]
    fn a_full_store_forgets_the_oldest_and_never_accepts_them_again() {
        let store = MemoryStore::new(3, 7);
        for n in 0..3 {
            assert_eq!(store.remember_now(key(n), issued(100 - n), NOW), ReplayCheck::New);
        }
        assert_eq!(store.remember_now(key(3), issued(1), NOW), ReplayCheck::New);
        assert_eq!(
            store.remember_now(key(0), issued(100), NOW),
            ReplayCheck::StaleEpoch,
            "the forgotten one is not accepted"
        );
        assert_eq!(store.remember_now(key(9), issued(200), NOW), ReplayCheck::StaleEpoch, "nor anything older");
        assert_eq!(store.remember_now(key(1), issued(99), NOW), ReplayCheck::Replayed, "the others are remembered");
        assert_eq!(store.proofs.lock().unwrap().len, 3);
    }

    #[test]
    fn memory_stays_bounded_over_time() {
        let store = MemoryStore::new(100_000, 7);
        for second in 0..2000 {
            let now = NOW.plus(Duration::from_secs(second));
            for n in 0..10 {
                store.remember_now(key(second * 10 + n), NonceStamp { at: now, epoch: 7 }, now);
            }
        }
        let proofs = store.proofs.lock().unwrap();
        assert!(proofs.len <= 10 * (NONCE_LIFETIME.as_secs() as usize + 3), "{}", proofs.len);
        assert_eq!(proofs.len, proofs.slots.values().map(HashSet::len).sum::<usize>());
    }

    #[tokio::test]
    async fn a_rate_is_counted_by_the_minute() {
        let store = MemoryStore::new(10, 7);
        let next = NOW.plus(Duration::from_secs(seconds_to_next_minute(NOW)));
        assert_eq!(store.count("a", 2, NOW).await, Ok(true));
        assert_eq!(store.count("a", 2, NOW).await, Ok(true));
        assert_eq!(store.count("a", 2, NOW).await, Ok(false));
        assert_eq!(store.count("b", 2, NOW).await, Ok(true));
        assert_eq!(store.count("a", 2, next).await, Ok(true));
    }
}
