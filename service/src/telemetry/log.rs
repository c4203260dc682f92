//! The log: one line per event on standard error, for people or as JSON for machines. Lines hold no
//! tokens, no proofs, no secrets and no check results, only their outcomes.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use approov_verify::time::UnixTime;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::time::rfc3339;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
    /// No lines for requests; faults only, as text.
    Quiet,
}

/// Writes log lines.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    format: LogFormat,
}

/// What the log says about one request.
#[derive(Debug, Serialize)]
pub struct RequestLine<'a> {
    /// Finds the request in other logs (`X-Request-Id`).
    pub id: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// Path, without the query.
    pub path: &'a str,
    /// HTTP status.
    pub status: u16,
    /// Milliseconds from the request's head to the answer's.
    pub ms: u64,
    /// The client's address.
    pub ip: IpAddr,
    /// The page's origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'a str>,
    /// What the handler says about it.
    #[serde(flatten)]
    pub notes: &'a RequestNotes,
}

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

impl Log {
    /// A log that writes in this format.
    pub fn new(format: LogFormat) -> Self {
        Self { format }
    }

    /// One request.
    pub fn request(&self, now: UnixTime, line: &RequestLine<'_>) {
        match self.format {
            LogFormat::Quiet => {}
            LogFormat::Json => {
                let mut object = Map::from_iter([
                    ("time".to_owned(), Value::from(rfc3339(now))),
                    ("event".to_owned(), "request".into()),
                ]);
                if let Ok(Value::Object(fields)) = serde_json::to_value(line) {
                    object.extend(fields);
                }
                write(&Value::Object(object).to_string());
            }
            LogFormat::Text => {
                let mut text = format!(
                    "{} {} {} {} {} {}ms",
                    rfc3339(now),
                    line.method,
                    line.path,
                    line.status,
                    line.notes.outcome,
                    line.ms
                );
                let notes = line.notes;
                let parts = notes.codes.iter().copied().chain(notes.checks.iter().map(String::as_str));
                for part in parts.chain(notes.detail.as_deref()) {
                    text.push_str(" [");
                    text.push_str(part);
                    text.push(']');
                }
                write(&text);
            }
        }
    }

    /// Anything else an operator should know: started, reloaded, a fault.
    pub fn event(&self, name: &str, message: &str) {
        match self.format {
            LogFormat::Json => write(
                &serde_json::json!({
                    "time": rfc3339(UnixTime::now()),
                    "event": name,
                    "message": message,
                })
                .to_string(),
            ),
            LogFormat::Text | LogFormat::Quiet => {
                write(&format!("{} {name}: {message}", rfc3339(UnixTime::now())));
            }
        }
    }
}

fn write(line: &str) {
    // A log that cannot be written has nowhere to say so.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whole milliseconds, for log lines.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
