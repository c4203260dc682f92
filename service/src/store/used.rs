//! Which check results were used: the memory store's part of it.

use std::collections::{BTreeSet, HashMap};

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;

use super::{Claim, ResultKey, ResultUse};

/// Most results remembered; beyond it those go that would be forgotten first. Every one of them has cost a check, and what
/// goes the check services know, too. About 500 bytes each.
const MAX_RESULTS: usize = 100_000;

/// Results, who sent each, and what came of it.
#[derive(Default)]
pub(super) struct UsedResults {
    by_key: HashMap<ResultKey, Used>,
    by_end: BTreeSet<(UnixTime, ResultKey)>,
}

struct Used {
    holder: Thumbprint,
    until: UnixTime,
    /// `None` while it is being checked.
    outcome: Option<Vec<u8>>,
}

impl UsedResults {
    /// Whether a result may be checked now; if so, it is its holder's from then on.
    pub(super) fn claim(&mut self, result: &ResultUse, now: UnixTime) -> Claim {
        self.claim_within(MAX_RESULTS, result, now)
    }

    fn claim_within(&mut self, capacity: usize, result: &ResultUse, now: UnixTime) -> Claim {
        if let Some(used) = self.by_key.get(&result.key).filter(|used| now < used.until) {
            return match &used.outcome {
                _ if used.holder != result.holder => Claim::Others,
                None => Claim::InFlight,
                Some(outcome) => Claim::Known(outcome.clone()),
            };
        }
        self.forget(&result.key);
        let until = now.plus(result.lifetime);
        self.by_key.insert(result.key, Used { holder: result.holder, until, outcome: None });
        self.by_end.insert((until, result.key));
        while let Some((end, first)) = self.by_end.first().copied()
            && (end <= now || self.by_key.len() > capacity)
        {
            self.forget(&first);
        }
        Claim::New
    }

    /// Keeps what came of a result that its holder has claimed. Without an outcome, the claim ends.
    pub(super) fn conclude(&mut self, result: &ResultUse, outcome: Option<Vec<u8>>) {
        let claimed = |used: &&mut Used| used.holder == result.holder && used.outcome.is_none();
        let Some(used) = self.by_key.get_mut(&result.key).filter(claimed) else {
            return;
        };
        match outcome {
            Some(outcome) => used.outcome = Some(outcome),
            None => self.forget(&result.key),
        }
    }

    fn forget(&mut self, key: &ResultKey) {
        if let Some(used) = self.by_key.remove(key) {
            self.by_end.remove(&(used.until, *key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    fn result(name: &str, holder: u8) -> ResultUse {
        ResultUse {
            key: ResultKey::new("site", name),
            holder: Thumbprint::from_bytes([holder; 32]),
            lifetime: Duration::from_secs(600),
        }
    }

    #[test]
    fn a_result_is_its_first_holders_until_it_is_forgotten() {
        let mut used = UsedResults::default();
        let (mine, yours) = (result("a", 1), result("a", 2));
        assert_eq!(used.claim(&mine, NOW), Claim::New);
        assert_eq!(used.claim(&mine, NOW), Claim::InFlight);
        assert_eq!(used.claim(&yours, NOW), Claim::Others);
        used.conclude(&yours, Some(b"forged".to_vec()));
        used.conclude(&yours, None);
        assert_eq!(used.claim(&mine, NOW), Claim::InFlight, "others cannot conclude it");
        used.conclude(&mine, Some(b"passed".to_vec()));
        used.conclude(&mine, Some(b"failed".to_vec()));
        used.conclude(&mine, None);
        assert_eq!(used.claim(&mine, NOW), Claim::Known(b"passed".to_vec()), "the first conclusion stays");
        assert_eq!(used.claim(&yours, NOW.plus(Duration::from_millis(599_999))), Claim::Others);
        assert_eq!(used.claim(&yours, NOW.plus(Duration::from_secs(600))), Claim::New);
        assert_eq!(used.claim(&mine, NOW.plus(Duration::from_secs(600))), Claim::Others);
    }

    #[test]
    fn a_claim_without_an_outcome_ends() {
        let mut used = UsedResults::default();
        assert_eq!(used.claim(&result("a", 1), NOW), Claim::New);
        used.conclude(&result("a", 1), None);
        assert_eq!(used.claim(&result("a", 2), NOW), Claim::New);
        assert_eq!((used.by_key.len(), used.by_end.len()), (1, 1));
    }

    #[test]
    fn memory_is_bounded_and_the_first_to_end_make_room() {
        let mut used = UsedResults::default();
        for n in 0..10 {
            used.claim_within(3, &result(&n.to_string(), 1), NOW.plus(Duration::from_secs(n)));
        }
        let known: Vec<u64> = (0..10).filter(|n| used.by_key.contains_key(&result(&n.to_string(), 1).key)).collect();
        assert_eq!(known, [7, 8, 9]);
        assert_eq!(used.by_end.len(), 3);
        used.claim_within(3, &result("late", 1), NOW.plus(Duration::from_secs(700)));
        assert_eq!((used.by_key.len(), used.by_end.len()), (1, 1), "what has ended goes");
    }
}
