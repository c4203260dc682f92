//! The log: one line per event on standard error, for people or as JSON for machines.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
#[derive(Clone, Debug)]
pub struct Log {
    format: LogFormat,
}

/// What the log says about one request.
#[derive(Debug, Serialize)]
pub struct RequestLine<'a, N> {
    /// Finds the request in other logs (`X-Request-Id`).
    pub id: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// Path, without the query.
    pub path: &'a str,
    /// HTTP status.
    pub status: u16,
    /// Milliseconds from the request's head to the response's.
    pub ms: u64,
    /// The client's address.
    pub ip: IpAddr,
    /// The page's origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'a str>,
    /// What the service says about it.
    #[serde(flatten)]
    pub notes: &'a N,
}

/// What a service says about a request: JSON lines have all its members, text lines these.
pub trait Notes: Serialize {
    /// What became of the request, in a word.
    fn summary(&self) -> &str;

    /// What else a person wants to see.
    fn remarks(&self) -> impl Iterator<Item = &str>;
}

#[derive(Serialize)]
struct JsonLine<'a, T> {
    time: &'a str,
    event: &'a str,
    #[serde(flatten)]
    content: T,
}

#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

impl Log {
    /// A log that writes in this format.
    #[must_use]
    pub fn new(format: LogFormat) -> Self {
        Self { format }
    }

    /// One request, which came at `time`.
    pub fn request<N: Notes>(&self, time: SystemTime, line: &RequestLine<'_, N>) {
        match self.format {
            LogFormat::Quiet => {}
            LogFormat::Json => write(&json(time, "request", line)),
            LogFormat::Text => {
                let RequestLine { method, path, status, ms, notes, .. } = line;
                let mut text = format!("{} {method} {path} {status} {} {ms}ms", rfc3339(time), notes.summary());
                for remark in notes.remarks() {
                    text.push_str(" [");
                    text.push_str(remark);
                    text.push(']');
                }
                write(&text);
            }
        }
    }

    /// Anything else an operator should know: started, reloaded, a fault.
    pub fn event(&self, name: &str, message: &str) {
        let now = SystemTime::now();
        match self.format {
            LogFormat::Json => write(&json(now, name, Message { message })),
            LogFormat::Text | LogFormat::Quiet => write(&format!("{} {name}: {message}", rfc3339(now))),
        }
    }
}

fn json(time: SystemTime, event: &str, content: impl Serialize) -> String {
    // Names and texts can always be written as JSON; a service's notes are expected to be such.
    serde_json::to_string(&JsonLine { time: &rfc3339(time), event, content }).unwrap_or_default()
}

fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

fn write(line: &str) {
    // A log that cannot be written has nowhere to say so.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whole milliseconds, for log lines.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
