//! Which keys failed a check: the memory store's part of it.

use std::collections::{BTreeSet, HashMap};

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;

use crate::session::Generation;

/// Most keys remembered; beyond it those go whose sessions end first. Every one of them has cost a check.
const MAX_KEYS: usize = 100_000;

/// The generation of the latest failed check of each key, until the sessions of that key have ended.
#[derive(Default)]
pub(super) struct FailedChecks {
    by_key: HashMap<Thumbprint, Failed>,
    by_end: BTreeSet<(UnixTime, Thumbprint)>,
}

#[derive(Clone, Copy)]
struct Failed {
    generation: Generation,
    until: UnixTime,
}

impl FailedChecks {
    /// The generation of the latest failed check of a key; 0 when none is remembered.
    pub(super) fn generation(&self, key: &Thumbprint, now: UnixTime) -> Generation {
        self.by_key.get(key).filter(|failed| now < failed.until).map_or(0, |failed| failed.generation)
    }

    /// Remembers a failed check. What is known of the key never becomes less.
    pub(super) fn remember(&mut self, key: Thumbprint, generation: Generation, until: UnixTime, now: UnixTime) {
        self.remember_within(MAX_KEYS, key, Failed { generation, until }, now);
    }

    fn remember_within(&mut self, capacity: usize, key: Thumbprint, failed: Failed, now: UnixTime) {
        let known = self.by_key.remove(&key);
        if let Some(known) = known {
            self.by_end.remove(&(known.until, key));
        }
        let merged = known.map_or(failed, |known| Failed {
            generation: known.generation.max(failed.generation),
            until: known.until.max(failed.until),
        });
        self.by_key.insert(key, merged);
        self.by_end.insert((merged.until, key));
        while let Some((end, first)) = self.by_end.first().copied()
            && (end <= now || self.by_key.len() > capacity)
        {
            self.by_end.remove(&(end, first));
            self.by_key.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    fn key(n: u8) -> Thumbprint {
        Thumbprint::from_bytes([n; 32])
    }

    fn after(seconds: u64) -> UnixTime {
        NOW.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_known_of_a_key_never_becomes_less() {
        let mut failed = FailedChecks::default();
        failed.remember(key(1), 5, after(20), NOW);
        failed.remember(key(1), 3, after(10), NOW);
        assert_eq!(failed.generation(&key(1), after(19)), 5);
        assert_eq!(failed.generation(&key(1), after(20)), 0, "the sessions have ended");
        assert_eq!(failed.generation(&key(2), NOW), 0);
    }

    #[test]
    fn ended_sessions_and_the_first_to_end_make_room() {
        let mut failed = FailedChecks::default();
        for n in 0..4 {
            let entry = Failed { generation: 1, until: after(10 + u64::from(n)) };
            failed.remember_within(3, key(n), entry, NOW);
        }
        let known = |failed: &FailedChecks| (0..9).filter(|n| failed.generation(&key(*n), NOW) > 0).collect::<Vec<_>>();
        assert_eq!(known(&failed), [1, 2, 3]);
        failed.remember_within(3, key(8), Failed { generation: 1, until: after(99) }, after(12));
        assert_eq!(known(&failed), [3, 8]);
        assert_eq!(failed.by_end.len(), failed.by_key.len());
    }
}
