//! What comes of a check.

use serde_json::{Map, Value};

/// What came of a check that ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// `Err` says which rule was not met.
    pub verdict: Result<(), FailedRule>,
    /// What tokens embed by default. A failed check has the same members, so that it looks no different.
    pub brief: Map<String, Value>,
    /// The whole response, for encrypted tokens.
    pub full: Map<String, Value>,
}

/// Why a check failed. For the service's log and metrics; clients do not learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedRule {
    /// The check service does not accept the result: wrong, expired or used.
    NotAccepted,
    /// Solved on a host that is not listed, or not the one the page named.
    Host,
    /// Made for an action that is not listed.
    Action,
    /// The score is too low.
    Score,
    /// The identification is another visitor's or unknown.
    Visitor,
    /// The identification is too old.
    Age,
    /// Probably a bot.
    Bot,
}

impl FailedRule {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            FailedRule::NotAccepted => "not-accepted",
            FailedRule::Host => "host",
            FailedRule::Action => "action",
            FailedRule::Score => "score",
            FailedRule::Visitor => "visitor",
            FailedRule::Age => "age",
            FailedRule::Bot => "bot",
        }
    }
}

/// The check could not be made. The text is fit for clients: no secrets, no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckError(pub String);

/// Text of another server, cut down to what cannot do harm in a message.
pub(super) fn sanitized(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | ',')).take(120).collect()
}
