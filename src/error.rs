//! The errors of the SDK: one type with a stable code, and the table that says which JavaScript class each code becomes.

use std::fmt;

use crate::small_map::SmallMap;

/// A failure as the SDK's user sees it, without the JavaScript value that may have caused it (the driver adds that).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Details>);

/// Boxed, so that the results which may hold an error stay small.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    code: Code,
    message: String,
    service_errors: SmallMap<String>,
    retryable: bool,
    retry_after: Option<i64>,
}

/// What went wrong. The text form of a code is stable: programs may compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// An argument is missing, empty, of the wrong type or unusable.
    InvalidArgument,
    /// The browser lacks something the call needs.
    Unsupported,
    /// The SDK itself failed in a way that it should not.
    Internal,
    /// `initializeSession` has not been called.
    NotInitialized,
    /// The session's first token fetch needs the result of at least one check.
    ResultsRequired,
    /// The session has ended; a new one and fresh check results are needed.
    SessionExpired,
    /// The request did not reach the service, or its response did not arrive.
    Network,
    /// No response came within the call's time-out.
    Timeout,
    /// The caller's `AbortSignal` was aborted.
    Aborted,
    /// The response was not one that the protocol knows.
    InvalidResponse,
    /// The service refused the request and reported why.
    Service,
    /// The service's response had no token for the requested API.
    TokenUnavailable,
}

/// The JavaScript error classes of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `ApproovError`, the base of the others.
    Approov,
    /// `ApproovSessionError`: the session has to be (re-)initialised.
    Session,
    /// `ApproovFetchError`: communication with the service failed.
    Fetch,
    /// `ApproovServiceError`: the service reported errors.
    Service,
}

impl Code {
    /// The `code` property of the JavaScript error.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Code::InvalidArgument => "invalid-argument",
            Code::Unsupported => "unsupported",
            Code::Internal => "internal",
            Code::NotInitialized => "not-initialized",
            Code::ResultsRequired => "results-required",
            Code::SessionExpired => "session-expired",
            Code::Network => "network",
            Code::Timeout => "timeout",
            Code::Aborted => "aborted",
            Code::InvalidResponse => "invalid-response",
            Code::Service => "service",
            Code::TokenUnavailable => "token-unavailable",
        }
    }

    /// The JavaScript class that carries this code.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Code::InvalidArgument | Code::Unsupported | Code::Internal => Class::Approov,
            Code::NotInitialized | Code::ResultsRequired | Code::SessionExpired => Class::Session,
            Code::Network | Code::Timeout | Code::Aborted | Code::InvalidResponse => Class::Fetch,
            Code::Service | Code::TokenUnavailable => Class::Service,
        }
    }

    fn usually_retryable(self) -> bool {
        match self {
            Code::Network | Code::Timeout => true,
            Code::InvalidArgument
            | Code::Unsupported
            | Code::Internal
            | Code::NotInitialized
            | Code::ResultsRequired
            | Code::SessionExpired
            | Code::Aborted
            | Code::InvalidResponse
            | Code::Service
            | Code::TokenUnavailable => false,
        }
    }
}

impl Class {
    /// The name of the class in JavaScript.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Approov => "ApproovError",
            Class::Session => "ApproovSessionError",
            Class::Fetch => "ApproovFetchError",
            Class::Service => "ApproovServiceError",
        }
    }
}

impl Error {
    /// An error that is retryable if errors of its code usually are. The message comes in pieces, which are joined: most messages
    /// quote something, and `format!` would bring all of its machinery along.
    #[inline(never)]
    #[must_use]
    pub fn new(code: Code, message: &[&str]) -> Self {
        let message = message.concat();
        let retryable = code.usually_retryable();
        Error(Box::new(Details { code, message, service_errors: SmallMap::default(), retryable, retry_after: None }))
    }

    /// An argument is unusable; the message names it and says what was expected.
    #[inline(never)]
    #[must_use]
    pub fn invalid_argument(message: &[&str]) -> Self {
        Error::new(Code::InvalidArgument, message)
    }

    /// The same error, marked as one after which repeating the call may succeed, or not.
    #[must_use]
    pub fn retryable_if(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// The same error with the service's map of error codes to details, unchanged.
    #[must_use]
    pub fn with_service_errors(mut self, errors: SmallMap<String>) -> Self {
        self.0.service_errors = errors;
        self
    }

    /// The same error with the pause that the service asks for, in milliseconds.
    #[must_use]
    pub fn with_retry_after(mut self, pause: Option<i64>) -> Self {
        self.0.retry_after = pause;
        self
    }

    /// The pause that the service asks for, in milliseconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<i64> {
        self.0.retry_after
    }

    /// What went wrong, as a stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What went wrong and what to do about it, for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The service's error codes with their details; empty unless the service reported some.
    #[must_use]
    pub fn service_errors(&self) -> &SmallMap<String> {
        &self.0.service_errors
    }

    /// Whether repeating the same call, unchanged, may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code, in the order of the documentation.
    const ALL: [Code; 12] = [
        Code::InvalidArgument,
        Code::Unsupported,
        Code::Internal,
        Code::NotInitialized,
        Code::ResultsRequired,
        Code::SessionExpired,
        Code::Network,
        Code::Timeout,
        Code::Aborted,
        Code::InvalidResponse,
        Code::Service,
        Code::TokenUnavailable,
    ];

    #[test]
    fn every_code_has_the_class_that_the_documentation_gives_it() {
        let table = ALL.map(|code| (code.as_str(), code.class().as_str()));
        assert_eq!(
            table,
            [
                ("invalid-argument", "ApproovError"),
                ("unsupported", "ApproovError"),
                ("internal", "ApproovError"),
                ("not-initialized", "ApproovSessionError"),
                ("results-required", "ApproovSessionError"),
                ("session-expired", "ApproovSessionError"),
                ("network", "ApproovFetchError"),
                ("timeout", "ApproovFetchError"),
                ("aborted", "ApproovFetchError"),
                ("invalid-response", "ApproovFetchError"),
                ("service", "ApproovServiceError"),
                ("token-unavailable", "ApproovServiceError"),
            ]
        );
    }

    #[test]
    fn only_transient_failures_are_retryable_unless_marked_otherwise() {
        let retryable: Vec<_> = ALL.into_iter().filter(|&code| Error::new(code, &[]).is_retryable()).collect();
        assert_eq!(retryable, [Code::Network, Code::Timeout]);
        assert!(Error::new(Code::Service, &[]).retryable_if(true).is_retryable());
    }
}
