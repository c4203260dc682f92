//! The store in memory.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use approov_verify::time::UnixTime;

use crate::session::{Epoch, NONCE_LIFETIME};

use super::failed::FailedChecks;
use super::used::UsedResults;
use super::{Claim, Known, ProofUse, ReplayCheck, ResultUse, Settled, Store, StoreError};

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
    used: Mutex<UsedResults>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Proofs {
    /// Second of issue → proofs and their holders.
    slots: BTreeMap<i64, HashMap<ShortKey, Holder>>,
    len: usize,
    /// How many of them each holder has.
    held: HashMap<Holder, u32>,
    /// Nonces issued in this second or before are not accepted.
    forgotten_through: Option<i64>,
}

/// The first 16 bytes of a replay key (a SHA-256 value: 128 bits do not collide). Two numbers, so that a proof takes 24 bytes.
type ShortKey = (u64, u64);
/// The first 8 bytes of a thumbprint: who shares them, by chance, shares a quota.
type Holder = u64;

impl Proofs {
    fn forget_slot(&mut self, slot: &HashMap<ShortKey, Holder>) {
        self.len -= slot.len();
        for holder in slot.values() {
            if let Entry::Occupied(mut held) = self.held.entry(*holder) {
                match held.get() {
                    0 | 1 => drop(held.remove()),
                    many => *held.get_mut() = many - 1,
                }
            }
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[derive(Default)]
struct Counts {
    minute: i64,
    by_name: HashMap<String, u64>,
}

impl MemoryStore {
    /// An empty store for `capacity` proofs; `random` becomes its epoch.
    pub fn new(capacity: usize, random: u64) -> Self {
        Self {
            epoch: random,
            capacity,
            proofs: Mutex::default(),
            failed: Mutex::default(),
            used: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    fn remember_now(&self, used: &ProofUse, now: UnixTime) -> ReplayCheck {
        let nonce = used.nonce;
        if nonce.epoch != self.epoch {
            return ReplayCheck::StaleEpoch;
        }
        let second = nonce.at.as_secs();
        let key = used.proof.as_bytes();
        let key = (number(key), number(key.get(8..).unwrap_or_default()));
        let holder = number(used.holder.as_bytes());
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        // One second more than the lifetime: a slot holds nonces up to its last millisecond.
        let expired = now.minus(NONCE_LIFETIME + Duration::from_secs(1)).as_secs();
        while let Some(slot) = proofs.slots.first_entry()
            && *slot.key() < expired
        {
            let gone = slot.remove();
            proofs.forget_slot(&gone);
        }
        if proofs.forgotten_through.is_some_and(|to| second <= to) {
            return ReplayCheck::StaleEpoch;
        }
        if proofs.slots.get(&second).is_some_and(|slot| slot.contains_key(&key)) {
            return ReplayCheck::Replayed;
        }
        let is_half_full = proofs.len >= self.capacity.div_ceil(2);
        let held = proofs.held.entry(holder).or_default();
        if is_half_full && used.quota.is_some_and(|quota| *held >= quota) {
            return ReplayCheck::OverQuota;
        }
        *held += 1;
        proofs.slots.entry(second).or_default().insert(key, holder);
        proofs.len += 1;
        while proofs.len > self.capacity
            && let Some((oldest, slot)) = proofs.slots.pop_first()
        {
            proofs.forget_slot(&slot);
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
        Ok(Known { replay: self.remember_now(&used, now), failed_generation: failed })
    }

    async fn settle(&self, checks: Settled, now: UnixTime) -> Result<(), StoreError> {
        if !checks.passed {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.remember(checks.holder, checks.generation, checks.until, now);
        }
        Ok(())
    }

    async fn claim(&self, result: &ResultUse, now: UnixTime) -> Result<Claim, StoreError> {
        Ok(self.used.lock().unwrap_or_else(PoisonError::into_inner).claim(result, now))
    }

    async fn conclude(&self, result: &ResultUse, outcome: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).conclude(result, outcome);
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

    fn warning(&self) -> Option<&'static str> {
        None
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::seconds_to_next_minute;
    use super::*;
    use crate::session::NonceStamp;
    use approov_verify::jwk::Thumbprint;
    use approov_verify::replay::ReplayKey;

    const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    /// The `n`th proof of a holder, with this nonce.
    fn of(holder: u8, n: u64, nonce: NonceStamp) -> ProofUse {
        let holder = Thumbprint::from_bytes([holder; 32]);
        ProofUse { proof: ReplayKey::new("jti", &holder, &n.to_be_bytes()), holder, nonce, quota: Some(1000) }
    }

    fn proof(n: u64, nonce: NonceStamp) -> ProofUse {
        of(1, n, nonce)
    }

    fn issued(seconds_ago: u64) -> NonceStamp {
        NonceStamp { at: NOW.minus(Duration::from_secs(seconds_ago)), epoch: 7 }
    }

    #[test]
    fn a_proof_is_new_once() {
        let store = MemoryStore::new(10, 7);
        assert_eq!(store.remember_now(&proof(1, issued(0)), NOW), ReplayCheck::New);
        assert_eq!(store.remember_now(&proof(1, issued(0)), NOW), ReplayCheck::Replayed);
        assert_eq!(store.remember_now(&proof(2, issued(0)), NOW), ReplayCheck::New);
        let late = NOW.plus(NONCE_LIFETIME);
        assert_eq!(store.remember_now(&proof(1, issued(0)), late), ReplayCheck::Replayed);
    }

    #[test]
    fn a_nonce_of_another_epoch_is_not_judged() {
        let store = MemoryStore::new(10, 7);
        let nonce = NonceStamp { epoch: 8, ..issued(0) };
        assert_eq!(store.remember_now(&proof(1, nonce), NOW), ReplayCheck::StaleEpoch);
    }

    #[test]
    fn a_full_store_forgets_the_oldest_and_never_accepts_them_again() {
        let store = MemoryStore::new(3, 7);
        for n in 0..3 {
            assert_eq!(store.remember_now(&proof(n, issued(100 - n)), NOW), ReplayCheck::New);
        }
        assert_eq!(store.remember_now(&proof(3, issued(1)), NOW), ReplayCheck::New);
        assert_eq!(
            store.remember_now(&proof(0, issued(100)), NOW),
            ReplayCheck::StaleEpoch,
            "the forgotten one is not accepted"
        );
        assert_eq!(store.remember_now(&proof(9, issued(200)), NOW), ReplayCheck::StaleEpoch, "nor anything older");
        assert_eq!(store.remember_now(&proof(1, issued(99)), NOW), ReplayCheck::Replayed, "the others are remembered");
        assert_eq!(store.proofs.lock().unwrap().len, 3);
    }

    #[test]
    fn one_key_cannot_fill_the_store_so_that_others_are_refused() {
        let store = MemoryStore::new(4000, 7);
        assert_eq!(store.remember_now(&of(2, 0, issued(300)), NOW), ReplayCheck::New);
        let taken = (0..100_000).filter(|n| store.remember_now(&of(1, *n, issued(0)), NOW) == ReplayCheck::New).count();
        assert_eq!(taken, 1999, "without a quota while half of the store is free");
        assert_eq!(store.remember_now(&of(1, 99_999, issued(0)), NOW), ReplayCheck::OverQuota);
        assert_eq!(store.remember_now(&of(1, 0, issued(0)), NOW), ReplayCheck::Replayed, "nothing is forgotten");
        assert_eq!(store.remember_now(&of(2, 0, issued(300)), NOW), ReplayCheck::Replayed);
        for n in 1..1000 {
            assert_eq!(store.remember_now(&of(2, n, issued(300)), NOW), ReplayCheck::New, "{n}");
        }
        assert_eq!(store.remember_now(&of(2, 1000, issued(300)), NOW), ReplayCheck::OverQuota);
        // When its nonces have expired, a key begins anew.
        let later = NOW.plus(NONCE_LIFETIME + Duration::from_secs(2));
        let nonce = NonceStamp { at: later, epoch: 7 };
        assert_eq!(store.remember_now(&of(1, 0, nonce), later), ReplayCheck::New);
        assert_eq!(store.proofs.lock().unwrap().held.len(), 1);
        // And nobody is held to a quota that is off.
        let store = MemoryStore::new(10, 7);
        for n in 0..100 {
            let used = ProofUse { quota: None, ..of(1, n, issued(0)) };
            assert_ne!(store.remember_now(&used, NOW), ReplayCheck::OverQuota);
        }
    }

    #[test]
    fn memory_stays_bounded_over_time() {
        let store = MemoryStore::new(100_000, 7);
        for second in 0..2000 {
            let now = NOW.plus(Duration::from_secs(second));
            for n in 0..10 {
                store.remember_now(&proof(second * 10 + n, NonceStamp { at: now, epoch: 7 }), now);
            }
        }
        let proofs = store.proofs.lock().unwrap();
        assert_eq!(proofs.held.values().map(|held| *held as usize).sum::<usize>(), proofs.len);
        assert!(proofs.len <= 10 * (NONCE_LIFETIME.as_secs() as usize + 3), "{}", proofs.len);
        assert_eq!(proofs.len, proofs.slots.values().map(HashMap::len).sum::<usize>());
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
