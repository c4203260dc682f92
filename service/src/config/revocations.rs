//! Sessions that an operator has ended before their time.

use std::collections::BTreeMap;
use std::str::FromStr;

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;
use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use crate::session::{Session, SessionId};
use crate::settings::{Read, Source};

/// Most entries of an account's list. Beyond it, `not_before` is the means.
pub const MAX_REVOKED: usize = 10_000;

/// What an entry of the list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// One session.
    Session(SessionId),
    /// All sessions of a browser's key.
    Key(Thumbprint),
}

impl Revoked {
    /// The member of an entry that says so.
    pub fn member(self) -> &'static str {
        match self {
            Revoked::Session(_) => "session",
            Revoked::Key(_) => "key",
        }
    }
}

impl FromStr for Revoked {
    type Err = String;

    /// Tells a session's ID from a key's thumbprint by its length.
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Revoked::Session).or_else(|_| text.parse().map(Revoked::Key)).map_err(|_| {
            format!(
                "\"{}\" is neither a session ID (22 characters of base64url, in the service's log) nor the thumbprint of a key \
                 (43, the claim cnf.jkt of tokens)",
                text.chars().take(64).collect::<String>()
            )
        })
    }
}

impl std::fmt::Display for Revoked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Revoked::Session(id) => id.fmt(f),
            Revoked::Key(thumbprint) => thumbprint.fmt(f),
        }
    }
}

/// The sessions of an account that are no longer served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// Sessions that began before are over.
    pub not_before: Option<UnixTime>,
    /// Until when which are.
    pub listed: BTreeMap<Revoked, UnixTime>,
}

/// An entry of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRevoked {
    session: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    until: Spanned<Datetime>,
}

impl Revocations {
    pub(super) fn read(
        source: &Source<'_>,
        not_before: Option<&Spanned<Datetime>>,
        list: &[Spanned<RawRevoked>],
    ) -> Read<Self> {
        if let Some(beyond) = list.get(MAX_REVOKED) {
            return source.error(beyond, format!("more than {MAX_REVOKED} revoked sessions: use not_before"));
        }
        let mut listed = BTreeMap::new();
        for entry in list {
            let raw = entry.get_ref();
            let until = source.time(&raw.until)?;
            let text = match (&raw.session, &raw.key) {
                (Some(text), None) | (None, Some(text)) => text,
                _ => return source.error(entry, "an entry of revoked has one of session and key"),
            };
            match text.get_ref().parse::<Revoked>() {
                Ok(revoked) if (revoked.member() == "key") == raw.key.is_some() => {
                    listed.insert(revoked, until);
                }
                Ok(revoked) => return source.error(text, format!("this is a {}'s", revoked.member())),
                Err(message) => return source.error(text, message),
            }
        }
        Ok(Self { not_before: not_before.map(|time| source.time(time)).transpose()?, listed })
    }

    /// Whether nothing of this key is served.
    pub fn ends_key(&self, key: &Thumbprint, now: UnixTime) -> bool {
        self.is_listed(Revoked::Key(*key), now)
    }

    /// Whether this session is over. That of its key is another question.
    pub fn ends(&self, session: &Session, now: UnixTime) -> bool {
        self.not_before.is_some_and(|time| UnixTime::from_millis(session.started) < time)
            || self.is_listed(Revoked::Session(session.id), now)
    }

    fn is_listed(&self, revoked: Revoked, now: UnixTime) -> bool {
        self.listed.get(&revoked).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_from_a_key_by_its_length() {
        let session = SessionId::from_bytes([1; 16]);
        let key = Thumbprint::from_bytes([1; 32]);
        assert_eq!(session.to_string().parse(), Ok(Revoked::Session(session)));
        assert_eq!(key.to_string().parse(), Ok(Revoked::Key(key)));
        for bad in ["", "abc", "ARC2345678", &"A".repeat(23), &"+".repeat(43)] {
            assert!(bad.parse::<Revoked>().unwrap_err().contains("22 characters"), "{bad}");
        }
    }
}
