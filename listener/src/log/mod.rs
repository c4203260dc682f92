//! The log: one line per event on standard error, for people or as JSON for machines.
//!
//! Whoever logs never waits: lines go through a bounded queue to a thread that writes them, and are dropped and counted
//! when nobody reads what it writes. What clients choose is cut, and characters that a terminal obeys are escaped.

mod repeated;
mod request_id;
mod text;
mod writer;

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::metrics::{family, sample};

pub use repeated::Repeated;
pub use request_id::RequestIds;

use text::{cut, escape, escape_json};
use writer::Writer;

/// The longest method, path, origin and remark that a line shows, characters.
const MAX_METHOD: usize = 32;
const MAX_PATH: usize = 256;
const MAX_ORIGIN: usize = 256;
const MAX_REMARK: usize = 512;
/// The longest message of an event, characters.
const MAX_MESSAGE: usize = 2048;

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

/// Writes log lines. Clones write to the same place.
#[derive(Clone)]
pub struct Log {
    format: LogFormat,
    writer: Arc<Writer>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("format", &self.format).finish_non_exhaustive()
    }
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
    /// A log on standard error.
    #[must_use]
    pub fn new(format: LogFormat) -> Self {
        Self::to(format, std::io::stderr())
    }

    /// A log that is written elsewhere.
    #[must_use]
    pub fn to(format: LogFormat, sink: impl Write + Send + 'static) -> Self {
        let report = match format {
            LogFormat::Json => |lines| json(SystemTime::now(), "log", Message { message: &dropped_lines(lines) }),
            LogFormat::Text | LogFormat::Quiet => |lines| text_event("log", &dropped_lines(lines)),
        };
        Self { format, writer: Arc::new(Writer::new(Box::new(sink), report)) }
    }

    /// One request, which came at `time`.
    pub fn request<N: Notes>(&self, time: SystemTime, line: &RequestLine<'_, N>) {
        let RequestLine { method, path, status, ms, notes, .. } = line;
        match self.format {
            LogFormat::Quiet => {}
            LogFormat::Json => {
                let (method, path) = (&*cut(method, MAX_METHOD), &*cut(path, MAX_PATH));
                let origin = line.origin.map(|origin| cut(origin, MAX_ORIGIN));
                let short = RequestLine { method, path, origin: origin.as_deref(), ..*line };
                self.writer.write(json(time, "request", short));
            }
            LogFormat::Text => {
                let (method, path) = (cut(method, MAX_METHOD), cut(path, MAX_PATH));
                let mut text = format!("{} {method} {path} {status} {} {ms}ms", rfc3339(time), notes.summary());
                for remark in notes.remarks() {
                    text.push_str(" [");
                    text.push_str(&cut(remark, MAX_REMARK));
                    text.push(']');
                }
                self.writer.write(escape(&text).into_owned());
            }
        }
    }

    /// Anything else an operator should know: started, reloaded, a fault.
    pub fn event(&self, name: &str, message: &str) {
        let message = &*cut(message, MAX_MESSAGE);
        self.writer.write(match self.format {
            LogFormat::Json => json(SystemTime::now(), name, Message { message }),
            LogFormat::Text | LogFormat::Quiet => text_event(name, message),
        });
    }

    /// Waits until the lines so far are written, but no longer than `timeout`: for the end of the process.
    pub fn flush(&self, timeout: Duration) {
        self.writer.flush(timeout);
    }

    /// Adds what it counts to `out`, in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        let name = "approov_log_lines_dropped_total";
        family(out, name, "counter", "Log lines dropped because they were not read fast enough.");
        sample(out, name, "", self.writer.dropped());
    }
}

fn dropped_lines(lines: u64) -> String {
    format!("{lines} lines were dropped: they are not read as fast as they come")
}

fn text_event(name: &str, message: &str) -> String {
    format!("{} {name}: {}", rfc3339(SystemTime::now()), escape(message))
}

fn json(time: SystemTime, event: &str, content: impl Serialize) -> String {
    // Names and texts can always be written as JSON; a service's notes are expected to be such.
    let line = serde_json::to_string(&JsonLine { time: &rfc3339(time), event, content }).unwrap_or_default();
    escape_json(line)
}

fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

/// Whole milliseconds, for log lines.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Mutex, mpsc};

    use super::*;

    #[derive(Serialize)]
    struct Outcome {
        outcome: &'static str,
        detail: &'static str,
    }

    impl Notes for Outcome {
        fn summary(&self) -> &str {
            self.outcome
        }

        fn remarks(&self) -> impl Iterator<Item = &str> {
            [self.detail].into_iter()
        }
    }

    /// Passes on what is written.
    struct Pipe(Sender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(format: LogFormat) -> (Log, Receiver<Vec<u8>>) {
        let (sender, written) = channel();
        (Log::to(format, Pipe(sender)), written)
    }

    fn text(log: &Log, written: &Receiver<Vec<u8>>) -> String {
        log.flush(Duration::from_secs(60));
        String::from_utf8(written.try_iter().flatten().collect()).unwrap()
    }

    fn line(path: &str, show: impl FnOnce(&RequestLine<'_, Outcome>)) {
        show(&RequestLine {
            id: "id",
            method: "GET",
            path,
            status: 404,
            ms: 3,
            ip: IpAddr::from([192, 0, 2, 7]),
            origin: None,
            notes: &Outcome { outcome: "other", detail: "why" },
        });
    }

    #[test]
    fn a_request_is_one_line_in_either_format() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_620_127_950_391);
        let (log, written) = log(LogFormat::Text);
        line("/x", |line| log.request(time, line));
        assert_eq!(text(&log, &written), "2021-05-04T11:32:30Z GET /x 404 other 3ms [why]\n");
        let (log, written) = super::tests::log(LogFormat::Json);
        line("/x", |line| log.request(time, line));
        let read: serde_json::Value = serde_json::from_str(&text(&log, &written)).unwrap();
        let expected = serde_json::json!({
            "time": "2021-05-04T11:32:30Z", "event": "request", "id": "id", "method": "GET", "path": "/x",
            "status": 404, "ms": 3, "ip": "192.0.2.7", "outcome": "other", "detail": "why",
        });
        assert_eq!(read, expected);
        let (log, written) = super::tests::log(LogFormat::Quiet);
        line("/x", |line| log.request(time, line));
        log.event("listening", "here");
        let text = text(&log, &written);
        assert!(text.ends_with("Z listening: here\n") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn a_client_does_not_choose_how_long_a_line_is_or_what_a_terminal_does() {
        let path = format!("/\u{9b}31m\u{202e}{}", "a".repeat(30_000));
        for format in [LogFormat::Text, LogFormat::Json] {
            let (log, written) = log(format);
            line(&path, |line| log.request(SystemTime::now(), line));
            log.event("handshake", &path);
            let text = text(&log, &written);
            assert_eq!(text.lines().count(), 2);
            assert!(text.lines().next().is_some_and(|line| line.len() < 600), "{text}");
            assert!(!text.contains(['\u{9b}', '\u{202e}']), "{text}");
        }
    }

    /// A reader that is stuck until its sender is dropped.
    struct Stuck(Mutex<Receiver<()>>, Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.lock().unwrap().recv();
            self.1.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_stops_nobody_and_what_was_dropped_is_counted_and_told() {
        let (release, stuck) = mpsc::channel();
        let (sender, written) = channel();
        let log = Log::to(LogFormat::Text, Stuck(Mutex::new(stuck), sender));
        for n in 0..10_000 {
            log.event("n", &n.to_string());
        }
        let mut metrics = String::new();
        log.render(&mut metrics);
        let dropped: u64 = metrics.lines().last().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(dropped > 0 && dropped < 10_000, "{metrics}");
        log.flush(Duration::ZERO);
        drop(release);
        let text = text(&log, &written);
        assert!(text.contains(&format!(" log: {dropped} lines were dropped")), "{text}");
        assert_eq!(text.lines().filter(|line| line.contains(" n: ")).count() as u64, 10_000 - dropped);
    }
}
