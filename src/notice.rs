//! What the driver tells its host that no caller asked for: what the page hears as events, and what continues a session elsewhere.

use crate::driver::{Failure, Host};
use crate::jws::PublicKey;
use crate::session::Continuation;
use crate::time::UnixMillis;

/// Something that has happened. Only the active session's is told.
pub enum Notice<'a, H: Host> {
    /// The session has its first token, or its end has moved.
    Session {
        /// When it ends, by the local wall clock.
        expires: UnixMillis,
        /// Whether this is the first that is told of it.
        is_new: bool,
    },
    /// The session is over: `replaced` or `session-expired`.
    End(&'static str),
    /// `fetchToken` has a new token of this API, which it gives without a request.
    Token(&'a str),
    /// Work that no caller waits for has failed.
    Failed(Failure<H::Cause>),
    /// What happens, in words, without secrets; in pieces.
    Log(&'a [&'a str]),
    /// What continues the session in another page, after each grant of one that outlives the page.
    Record {
        /// The private key.
        key: &'a H::Key,
        /// The public key.
        public_key: &'a PublicKey,
        /// Whose session it is.
        account: &'a str,
        /// Which of its hosts it is with.
        host: usize,
        /// The state.
        continuation: Continuation,
        /// Whether the service has just taken a check's result for it.
        is_new: bool,
    },
}

/// What continues a session that another page began.
pub struct Record<K> {
    /// The private key.
    pub key: K,
    /// The public key.
    pub public_key: PublicKey,
    /// Whose session it is; see [`crate::config::Config::account`].
    pub account: String,
    /// Which of its hosts it is with.
    pub host: usize,
    /// The state.
    pub continuation: Continuation,
}
