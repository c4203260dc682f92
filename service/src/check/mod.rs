//! The check services: one file each, over a table of them ([`Provider`]).
//!
//! A file says all that is particular to its check service: names on the wire, in the configuration file and on the
//! command line, the request to its server, how the response is judged (pure: bytes in, verdict out), what tokens embed.
//!
//! Three outcomes are told apart. A check that ran and met the rules passed. A check that ran and did not, failed: the
//! client gets tokens that no backend accepts. A check that did not run (wrong secret, outage, a response that is not
//! understood) is an error that the client learns of.

mod client;
pub mod fingerprint;
pub mod hcaptcha;
mod provider;
pub mod recaptcha;
mod result;
mod site;
mod siteverify;

use serde_json::{Map, Value};

pub use client::{CheckClient, CheckContext};
pub use provider::{Definition, OptionKind, Param, Provider, ProviderCodes, SiteKind, SiteOption};
pub use result::{FreshResult, ResultParams};
pub use site::{COMMON_OPTIONS, Check, Site, VENDOR_OPTIONS, Vendor, site_option};
pub use siteverify::CaptchaRules;

use client::{CheckRequest, ServerResponse};

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
fn sanitized(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | ',')).take(120).collect()
}
