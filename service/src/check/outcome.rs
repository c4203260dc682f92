//! What comes of a check.

use serde_json::{Map, Value};

use super::altcha::challenge::Unsolved;
use super::brief::Brief;

/// What came of a check that ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// `Err` says which rule was not met.
    pub verdict: Result<(), FailedRule>,
    /// From 0.0, certainly a bot, to 1.0, certainly a person, where the check service gives one.
    pub score: Option<f64>,
    /// What tokens embed by default.
    pub brief: Brief,
    /// The whole response, for encrypted tokens.
    pub full: Map<String, Value>,
}

/// Why a check failed. For the service's log and metrics; clients do not learn it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedRule {
    /// The check service does not accept the result: wrong, expired or used.
    NotAccepted,
    /// Another key used it before.
    Used,
    /// Solved on a host that is not listed, or not the one the page named.
    Host,
    /// Made on a page that may not use the account.
    Origin,
    /// Made for an action that is not listed.
    Action,
    /// The score is too low.
    Score,
    /// The identification is another visitor's or unknown.
    Visitor,
    /// What the identification was made of had been sent before.
    Replayed,
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
            FailedRule::Used => "used",
            FailedRule::Host => "host",
            FailedRule::Origin => "origin",
            FailedRule::Action => "action",
            FailedRule::Score => "score",
            FailedRule::Visitor => "visitor",
            FailedRule::Replayed => "replayed",
            FailedRule::Age => "age",
            FailedRule::Bot => "bot",
        }
    }
}

/// The check could not be made. Nobody failed it, and nobody passed it. The reason is for the log: clients learn the
/// kind only, whatever a check service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckError {
    /// The check service cannot be reached or does not do its work.
    Unavailable(String),
    /// It does not accept what is configured: a secret, a region, a quota.
    Misconfigured(String),
    /// No check service was asked: the browser has to solve another challenge of ours.
    Unsolved(Unsolved),
}

impl CheckError {
    /// What clients learn, and the name in logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Misconfigured(_) => "misconfigured",
            Self::Unsolved(why) => why.name(),
        }
    }

    /// What the operator learns: no secrets, no addresses.
    pub fn reason(&self) -> &str {
        match self {
            Self::Unavailable(reason) | Self::Misconfigured(reason) => reason,
            Self::Unsolved(why) => why.name(),
        }
    }

    /// A response that says by its status alone that there was no check. `name` is the check service's.
    pub(super) fn of_status(name: &str, status: u16) -> Self {
        Self::of_status_and_text(name, status, "")
    }

    /// The same, with what the response says.
    pub(super) fn of_status_and_text(name: &str, status: u16, text: &str) -> Self {
        let text = sanitized(text);
        let separator = if text.is_empty() { "" } else { ": " };
        let reason = format!("{name} responded with status {status}{separator}{text}");
        match status {
            401 | 403 => Self::Misconfigured(reason),
            _ => Self::Unavailable(reason),
        }
    }
}

/// Text of another server, cut down to what cannot do harm in a message.
pub(super) fn sanitized(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | ',')).take(120).collect()
}
