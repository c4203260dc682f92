//! The bounds of a listener.

use std::time::Duration;

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
/// How long running requests have to finish when the process ends.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections open at once.
    pub connections: usize,
    /// How long clients may take.
    pub timeouts: Timeouts,
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
