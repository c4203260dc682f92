//! Sessions live in the refresh token: sealed with a key only the service's replicas have, bound to
//! the browser key's thumbprint, carrying the results that later tokens embed.

mod nonce;
mod refresh_token;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::check::Provider;

pub use nonce::{Epoch, NONCE_LIFETIME, NonceKey, NonceStamp};
pub use refresh_token::RefreshKey;

/// What the service knows about a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
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
    /// What every token embeds.
    #[serde(rename = "b")]
    pub brief: Map<String, Value>,
    /// What encrypted tokens embed instead, when the site is configured so.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Map<String, Value>>,
}

impl CheckResult {
    /// The key of this result in `embed` and `expiries`.
    pub fn embed_key(&self) -> String {
        [self.provider.prefix(), ":", &self.site].concat()
    }
}

impl Session {
    /// Whether every result passed.
    pub fn passed(&self) -> bool {
        !self.results.is_empty() && self.results.iter().all(|result| result.passed == 1)
    }

    /// When the session ends: the earliest of the refresh token's and the results' ends.
    pub fn expiry(&self) -> i64 {
        self.results.iter().map(|result| result.expires).fold(self.expires, i64::min)
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
            thumbprint: "jkt".into(),
            expires: now + 1000,
            results: vec![CheckResult {
                provider: Provider::Hcaptcha,
                site: "h".into(),
                digest: "d".into(),
                expires: now + 500,
                passed: 1,
                brief: Map::new(),
                full: None,
            }],
        }
    }

    #[test]
    fn a_session_ends_with_its_first_result() {
        assert_eq!(session(1000).expiry(), 1500);
    }
}
