//! What the log says about a request.

use approov_listener::log::Notes;
use serde::Serialize;

/// What a request's handler tells the log and the counters. It leaves them in the response's extensions.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RequestNotes {
    /// What became of the request.
    pub outcome: &'static str,
    /// Error codes of a refusal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<&'static str>,
    /// Checks that were made: `hcaptcha: passed`, `fingerprint: age`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    /// The `arc` claim of the tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arc: Option<String>,
    /// The session's ID, by which it can be revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Why a proof was refused or what went wrong inside, in more detail than the client learns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl RequestNotes {
    /// Notes that have no more to say than the outcome.
    pub fn outcome(outcome: &'static str) -> Self {
        Self { outcome, ..Self::default() }
    }
}

impl Notes for RequestNotes {
    fn summary(&self) -> &str {
        self.outcome
    }

    fn remarks(&self) -> impl Iterator<Item = &str> {
        let parts = self.codes.iter().copied().chain(self.checks.iter().map(String::as_str));
        parts.chain(self.detail.as_deref())
    }
}
