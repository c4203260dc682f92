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
    /// What became of it.
    pub outcome: &'a str,
    /// Milliseconds from the request's head to the answer's.
    pub ms: u64,
    /// The client's address.
    pub ip: IpAddr,
    /// The page's origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'a str>,
    /// Error codes of a refusal.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub codes: &'a [&'static str],
    /// Checks that were made: `hcaptcha: passed`, `fingerprint: age`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub checks: &'a [String],
    /// The `arc` claim of the tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arc: Option<&'a str>,
    /// Why a proof was refused, in more detail than the client is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
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
                    line.outcome,
                    line.ms
                );
                for part in line.codes.iter().copied().chain(line.checks.iter().map(String::as_str)).chain(line.detail)
                {
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
