//! The bounds of a listener.

use std::io;
use std::time::Duration;

use crate::fairness::Rate;

/// Longest request head, bytes.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Requests that one HTTP/2 connection may have open.
pub const MAX_CONCURRENT_STREAMS: u32 = 32;
/// The part of a request body that is taken from an HTTP/2 client before it is read, bytes: of one stream, and of all
/// streams of a connection.
pub const MAX_STREAM_WINDOW: u32 = 64 * 1024;
/// See [`MAX_STREAM_WINDOW`].
pub const MAX_CONNECTION_WINDOW: u32 = 256 * 1024;
/// The part of a response that waits to be sent on an HTTP/2 stream, bytes.
pub const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// File descriptors that are kept for everything but clients' connections: check services, stores, files.
const OPEN_FILES_HEADROOM: u64 = 256;
/// How long running requests have to finish when the process ends.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections open at once.
    pub connections: usize,
    /// Connections that a prefix may open under pressure; `None`: as many as it likes.
    pub handshakes: Option<Rate>,
    /// How long clients may take.
    pub timeouts: Timeouts,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshakes: Some(Rate::per(Duration::from_secs(1), 50, 200)),
            timeouts: Timeouts::default(),
        }
    }
}

/// How long clients may take. Each is counted from the last thing that got on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Longest time for a TLS handshake, from there to the head of the first request, and from the first byte of any
    /// head to its last.
    pub head: Duration,
    /// Longest time from a request's head to the end of its body.
    pub body: Duration,
    /// Longest time in which nothing of what waits can be written, and in which a response cannot be sent on.
    pub write: Duration,
    /// Longest time between two requests of a connection, whatever else is exchanged on it.
    pub idle: Duration,
    /// Longest life of a connection; `None`: as long as it is used.
    pub age: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            write: Duration::from_secs(10),
            // Longer than people take for a challenge, between nonce and attest request, and than a token lives by
            // default, between two refreshes: so neither waits for a new connection.
            idle: Duration::from_secs(150),
            age: None,
        }
    }
}

/// Lets this process open as many files as it may, and says how many connections that leaves room for; `None`: as many
/// as one likes.
///
/// # Errors
/// When the system does not say.
pub fn raise_open_files() -> io::Result<Option<usize>> {
    let files = rlimit::increase_nofile_limit(u64::MAX)?;
    Ok((files != u64::MAX).then(|| connections_within(files)))
}

/// The connections that fit into so many open files. Where there are few, the head-room is a quarter of them.
fn connections_within(files: u64) -> usize {
    let connections = files.saturating_sub(OPEN_FILES_HEADROOM).max(files / 4 * 3).max(1);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        for (files, connections) in [(1_048_576, 1_048_320), (4096, 3840), (1024, 768), (256, 192), (2, 1), (0, 1)] {
            assert_eq!(connections_within(files), connections, "{files}");
        }
    }

    #[test]
    fn files_are_raised_to_what_the_system_allows() {
        let connections = raise_open_files().unwrap();
        let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
        assert!(soft == hard, "{soft} of {hard}");
        assert_eq!(connections, (soft != u64::MAX).then(|| connections_within(soft)));
    }
}
