//! The tokens of a session, one per API, and how long they can still be used.

use crate::secret::Secret;
use crate::small_map::SmallMap;
use crate::time::{ServiceTime, UnixMillis};

/// One token per API.
#[derive(Debug, Default)]
pub struct Cache {
    entries: SmallMap<Entry>,
}

#[derive(Debug)]
struct Entry {
    token: Secret,
    lifetime: i64,
    expires: UnixMillis,
    /// When it came, in milliseconds by the monotonic clock.
    received: i64,
}

/// A token that a backend refuses this long after it came, in milliseconds, may have been good before.
const MAX_REFUSED_AGE: i64 = 10_000;

/// What the cache has for an API.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A token with enough of its lifetime left.
    Fresh(Secret),
    /// A token that can still be used while another is requested (RFC 5861, stale-while-revalidate).
    Stale(Secret),
    /// No token, or none that would live long enough to reach a backend.
    Miss,
}

impl Cache {
    /// Keeps a token that came at `received` by the monotonic clock and lives for `lifetime` milliseconds, until `expires` by the
    /// service's clock.
    pub fn insert(&mut self, api: String, token: Secret, lifetime: i64, expires: UnixMillis, received: i64) {
        self.entries.insert(api, Entry { token, lifetime, expires, received });
    }

    /// Takes note that a backend refuses a token, and tells whether another one may do better: it is no longer the token that is
    /// given out, or is not any more, since it came a while ago. A token that has only just come is kept.
    pub fn refuse(&mut self, token: &str, now: i64) -> bool {
        let is_young = |entry: &Entry| now.saturating_sub(entry.received) < MAX_REFUSED_AGE;
        let has_it = self.entries.iter().any(|(_, entry)| entry.token.expose() == token && is_young(entry));
        self.entries.retain(|entry| entry.token.expose() != token || is_young(entry));
        !has_it
    }

    /// Drops all tokens.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Looks up the token of an API. It is stale in the last quarter of its lifetime; in the last twentieth (5 s at most) it is no
    /// longer returned, since it might expire before a backend checks it.
    #[must_use]
    pub fn get(&self, api: &str, now: ServiceTime) -> Lookup {
        let Some(entry) = self.entries.get(api) else { return Lookup::Miss };
        let left = entry.expires.saturating_sub(now.latest);
        if left <= (entry.lifetime / 20).min(5_000) {
            Lookup::Miss
        } else if left <= entry.lifetime / 4 {
            Lookup::Stale(entry.token.clone())
        } else {
            Lookup::Fresh(entry.token.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(moment: UnixMillis) -> ServiceTime {
        ServiceTime { earliest: moment - 10, latest: moment }
    }

    #[test]
    fn a_token_is_fresh_then_stale_then_gone() {
        let mut cache = Cache::default();
        cache.insert("api".into(), "t".into(), 120_000, 1_120_000, 0);
        let token = || Secret::from("t");
        for (now, expected) in [
            (1_000_000, Lookup::Fresh(token())),
            (1_089_999, Lookup::Fresh(token())),
            (1_090_000, Lookup::Stale(token())),
            (1_114_999, Lookup::Stale(token())),
            (1_115_000, Lookup::Miss),
            (i64::MAX, Lookup::Miss),
        ] {
            assert_eq!(cache.get("api", at(now)), expected, "{now}");
        }
        assert_eq!(cache.get("other", at(1_000_000)), Lookup::Miss);
        cache.clear();
        assert_eq!(cache.get("api", at(1_000_000)), Lookup::Miss);
    }

    #[test]
    fn a_short_lived_token_keeps_a_margin_in_proportion() {
        let mut cache = Cache::default();
        cache.insert("api".into(), "t".into(), 2_000, 2_000, 0);
        assert_eq!(cache.get("api", at(1_899)), Lookup::Stale("t".into()));
        assert_eq!(cache.get("api", at(1_900)), Lookup::Miss);
    }

    #[test]
    fn a_token_that_a_backend_refuses_is_dropped_unless_it_has_only_just_come() {
        let mut cache = Cache::default();
        cache.insert("api".into(), "t".into(), 120_000, 1_120_000, 5_000);
        assert!(!cache.refuse("t", 14_999));
        assert_eq!(cache.get("api", at(1_000_000)), Lookup::Fresh("t".into()));
        assert!(cache.refuse("another", 5_000), "what is given out now may do better");
        assert!(cache.refuse("t", 15_000));
        assert_eq!(cache.get("api", at(1_000_000)), Lookup::Miss);
    }
}
