//! Sessions live in the refresh token: sealed with a key only the service's replicas have, bound to
//! the browser key's thumbprint, carrying the results that later tokens embed.

mod id;
mod nonce;
mod outcome;
mod refresh_token;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check::Provider;

pub use id::{InvalidSessionId, SessionId};
pub use nonce::{Epoch, NONCE_LIFETIME, NonceKeys, NonceStamp};
pub use outcome::{Outcome, OutcomeKeys};
pub use refresh_token::RefreshKeys;

/// How often a key's session was checked: each request with fresh results raises it.
pub type Generation = u32;

/// What the service knows about a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    #[serde(rename = "i")]
    pub id: SessionId,
    /// When it began, Unix milliseconds.
    #[serde(rename = "t")]
    pub started: i64,
    /// Of its latest fresh results.
    #[serde(rename = "g")]
    pub generation: Generation,
    /// RFC 7638 thumbprint of the session's key.
    #[serde(rename = "k")]
    pub thumbprint: String,
    /// End of the refresh token's lifetime, Unix milliseconds.
    #[serde(rename = "e")]
    pub expires: i64,
    /// At most one result of each check service.
    #[serde(rename = "r")]
    pub results: Vec<CheckResult>,
}

/// A check result as the session remembers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Which service gave it.
    #[serde(rename = "p", with = "provider_prefix")]
    pub provider: Provider,
    /// Site key or public API key.
    #[serde(rename = "s")]
    pub site: String,
    /// Digest of the parameters, to know the same result when it comes again.
    #[serde(rename = "d")]
    pub digest: String,
    /// End of the result's lifetime, Unix milliseconds.
    #[serde(rename = "e")]
    pub expires: i64,
    /// Whether it met the account's rules. A number, so that its length says nothing.
    #[serde(rename = "o")]
    pub passed: u8,
    /// Whether it did not, and passed since its check is only watched.
    #[serde(rename = "m", default, skip_serializing_if = "is_zero")]
    pub would_fail: u8,
    /// What every token embeds.
    #[serde(rename = "b")]
    pub brief: Map<String, Value>,
    /// What encrypted tokens embed instead, when the site is configured so.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Map<String, Value>>,
    /// White space that makes the full result as long as others, bytes.
    #[serde(rename = "w", with = "fixed_width")]
    pub padding: u16,
}

// The form that serde wants.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl CheckResult {
    /// The key of this result in `embed` and `expiries`.
    pub fn embed_key(&self) -> String {
        [self.provider.prefix(), ":", &self.site].concat()
    }
}

impl Session {
    /// What becomes of this session when a check of its key failed in `failed_generation` (0: none did). A session that is no
    /// newer has no good result any more: a client that keeps an older refresh token gains nothing by it.
    pub fn after_failed_check(&mut self, failed_generation: Generation) {
        if self.generation <= failed_generation {
            self.generation = failed_generation;
            for result in &mut self.results {
                result.passed = 0;
            }
        }
    }

    /// The generation of results that are checked for it now.
    pub fn next_generation(&self) -> Generation {
        self.generation.saturating_add(1)
    }

    /// Adds results that it does not have yet. One that was sent again is no newer than it was.
    pub fn add(&mut self, fresh: Vec<Outcome>) {
        for Outcome { generation, result } in fresh {
            self.generation = self.generation.max(generation);
            self.results.push(result);
        }
    }

    /// Takes into account which checks are enforced now: what passed since its check was watched does not pass any more.
    pub fn enforce(&mut self, enforces: impl Fn(Provider) -> bool) {
        for result in self.results.iter_mut().filter(|result| result.would_fail == 1 && enforces(result.provider)) {
            (result.passed, result.would_fail) = (0, 0);
        }
    }

    /// White space that its results ask for, bytes.
    pub fn padding(&self) -> usize {
        self.results.iter().map(|result| usize::from(result.padding)).sum()
    }

    /// Whether every result passed. `needs_one`: whether there must be one.
    pub fn passed(&self, needs_one: bool) -> bool {
        (!needs_one || !self.results.is_empty()) && self.results.iter().all(|result| result.passed == 1)
    }

    /// When the session ends: the earliest of the refresh token's and the results' ends.
    pub fn expiry(&self) -> i64 {
        self.results.iter().map(|result| result.expires).fold(self.expires, i64::min)
    }
}

/// A number that is as long as every other.
mod fixed_width {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    // By reference: that is how serde calls it.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(number: &u16, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:04x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
        u16::from_str_radix(<&str>::deserialize(deserializer)?, 16).map_err(D::Error::custom)
    }
}

mod provider_prefix {
    use super::Provider;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(provider: &Provider, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(provider.prefix())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Provider, D::Error> {
        let prefix = <&str>::deserialize(deserializer)?;
        Provider::ALL
            .into_iter()
            .find(|provider| provider.prefix() == prefix)
            .ok_or_else(|| D::Error::custom("unknown check service"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that ends a second after `now`, with a result that ends half a second after it.
    pub(super) fn session(now: i64) -> Session {
        Session {
            id: SessionId::from_bytes([7; 16]),
            started: now,
            generation: 1,
            thumbprint: "jkt".into(),
            expires: now + 1000,
            results: vec![CheckResult {
                would_fail: 0,
                provider: Provider::Hcaptcha,
                site: "h".into(),
                digest: "d".into(),
                expires: now + 500,
                passed: 1,
                brief: Map::new(),
                full: None,
                padding: 0,
            }],
        }
    }

    #[test]
    fn a_failed_check_spoils_what_is_not_newer_until_fresh_results_come() {
        let mut session = session(0);
        session.after_failed_check(0);
        assert!(session.passed(true));
        session.after_failed_check(3);
        assert!(!session.passed(true));
        let fresh = session.results.first().cloned().map(|result| CheckResult { passed: 1, ..result });
        let mut renewed = Session { results: Vec::new(), ..session };
        let generation = renewed.next_generation();
        renewed.add(fresh.clone().into_iter().map(|result| Outcome { generation, result }).collect());
        assert_eq!((renewed.generation, renewed.passed(true)), (4, true));
        renewed.after_failed_check(3);
        assert!(renewed.passed(true), "newer than the failed check");
        renewed.results.clear();
        renewed.add(fresh.into_iter().map(|result| Outcome { generation: 2, result }).collect());
        assert_eq!(renewed.generation, 4, "a result that is sent again makes nothing newer");
    }

    #[test]
    fn a_session_ends_with_its_first_result() {
        assert_eq!(session(1000).expiry(), 1500);
    }
}
