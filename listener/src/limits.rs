//! The bounds of a listener.

use std::time::Duration;

/// Longest time for a TLS handshake, and from there to the head of the first request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time between two requests of a connection. Longer than people take for a challenge, between
/// nonce and attest request, and than a token lives by default, between two refreshes: so neither
/// waits for a new connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// Longest request head, bytes.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Requests that one HTTP/2 connection may have open.
pub const MAX_CONCURRENT_STREAMS: u32 = 128;
/// How long running requests have to finish when the process ends.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections open at once.
    pub connections: usize,
}
