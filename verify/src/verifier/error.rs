//! Why a request is refused, and what its client learns of it.

use crate::dpop::DpopError;
use crate::replay::StoreError;
use crate::token::{Channel, TokenError};
use std::fmt;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There is no token.
    TokenMissing,
    /// There is more than one token.
    TokenRepeated,
    /// The token is not good.
    Token(TokenError),
    /// The token was issued to another kind of client: this one.
    Channel(Channel),
    /// The token is not bound to data (`pay`), and must be.
    BindingMissing,
    /// The token must be bound to data that the request lacks.
    BindingDataMissing,
    /// The token is bound to other data.
    Binding,
    /// The token is not bound to a key (`cnf`), and must be.
    KeyBindingMissing,
    /// There is no proof.
    ProofMissing,
    /// There is more than one proof.
    ProofRepeated,
    /// The proof is not good.
    Proof(DpopError),
    /// The proof does not cover the query (`htq`), and must.
    QueryMissing,
    /// The proof's `htq` is not of this query.
    Query,
    /// The proof has no `msgs`.
    MessageMissing,
    /// The proof's `msgs` is not of this body.
    Message,
    /// The proof was used before.
    Replayed,
    /// The proof's `nonce`, which its client chose, was used before by the same key.
    NonceReused,
    /// The proof's `nonce`, which the application demanded, was used before by the same key: the client needs another.
    NonceSpent,
    /// The proof's key has used so many proofs of late that the replay store remembers no more of them, as it has to
    /// have room for others. Later it will again.
    TooManyProofs,
    /// The proof's `msgs` cannot be checked because the caller gave no body.
    BodyUnread,
    /// The replay store cannot decide whether the proof was used before.
    Store(StoreError),
}

/// The `error` of a `WWW-Authenticate: DPoP` challenge (RFC 9449 section 7.1, RFC 6750 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// No `error`: the request carries no token.
    None,
    /// `invalid_token`.
    InvalidToken,
    /// `invalid_dpop_proof`.
    InvalidDpopProof,
    /// `use_dpop_nonce`: the nonce is missing or not one that this server accepts (RFC 9449 section 9).
    UseDpopNonce,
}

impl Challenge {
    /// The value of `WWW-Authenticate`.
    #[must_use]
    pub const fn header_value(self) -> &'static str {
        match self {
            Self::None => r#"DPoP algs="ES256""#,
            Self::InvalidToken => r#"DPoP error="invalid_token", algs="ES256""#,
            Self::InvalidDpopProof => r#"DPoP error="invalid_dpop_proof", algs="ES256""#,
            Self::UseDpopNonce => r#"DPoP error="use_dpop_nonce", algs="ES256""#,
        }
    }

    /// The value of the `error` parameter.
    #[must_use]
    pub const fn error(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::InvalidToken => Some("invalid_token"),
            Self::InvalidDpopProof => Some("invalid_dpop_proof"),
            Self::UseDpopNonce => Some("use_dpop_nonce"),
        }
    }
}

impl Error {
    /// A stable name, for logs and tests.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenRepeated => "token_repeated",
            Self::Token(error) => error.code(),
            Self::Channel(_) => "token_channel",
            Self::BindingMissing => "binding_missing",
            Self::BindingDataMissing => "binding_data_missing",
            Self::Binding => "binding_mismatch",
            Self::KeyBindingMissing => "key_binding_missing",
            Self::ProofMissing => "proof_missing",
            Self::ProofRepeated => "proof_repeated",
            Self::Proof(error) => error.code(),
            Self::QueryMissing => "query_missing",
            Self::Query => "query_mismatch",
            Self::MessageMissing => "message_missing",
            Self::Message => "message_mismatch",
            Self::Replayed => "proof_replayed",
            Self::NonceReused | Self::NonceSpent => "nonce_reused",
            Self::TooManyProofs => "proof_quota",
            Self::BodyUnread => "body_unread",
            Self::Store(_) => "replay_store",
        }
    }

    /// The challenge for the client, or `None` when neither another token nor another proof would help.
    #[must_use]
    pub const fn challenge(&self) -> Option<Challenge> {
        match self {
            Self::TokenMissing => Some(Challenge::None),
            Self::Token(TokenError::KeysUnavailable) => None,
            Self::TokenRepeated
            | Self::Token(_)
            | Self::Channel(_)
            | Self::BindingMissing
            | Self::BindingDataMissing
            | Self::Binding
            | Self::KeyBindingMissing => Some(Challenge::InvalidToken),
            Self::Proof(DpopError::Nonce | DpopError::NonceMissing) | Self::NonceSpent => Some(Challenge::UseDpopNonce),
            Self::ProofMissing
            | Self::ProofRepeated
            | Self::Proof(_)
            | Self::QueryMissing
            | Self::Query
            | Self::MessageMissing
            | Self::Message
            | Self::Replayed
            | Self::NonceReused => Some(Challenge::InvalidDpopProof),
            Self::TooManyProofs | Self::BodyUnread | Self::Store(_) => None,
        }
    }

    /// Whether a key that is not known yet could help.
    #[must_use]
    pub const fn is_of_missing_key(&self) -> bool {
        matches!(self, Self::Token(TokenError::UnknownKey | TokenError::Algorithm | TokenError::KeysUnavailable))
    }

    /// What may be said to the client: what is wrong inside this server is for its logs.
    #[must_use]
    pub fn public_detail(&self) -> String {
        match self.status() {
            500.. => "the request cannot be checked at the moment".to_owned(),
            _ => self.to_string(),
        }
    }

    /// The HTTP status: 401, or 429 for too many proofs, or 500 or 503 when the fault is this server's.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::TooManyProofs => 429,
            Self::BodyUnread => 500,
            Self::Store(_) | Self::Token(TokenError::KeysUnavailable) => 503,
            _ => 401,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenMissing => f.write_str("the request has no token"),
            Self::TokenRepeated => f.write_str("the request has more than one token"),
            Self::Token(cause) => cause.fmt(f),
            Self::Channel(channel) => {
                write!(f, "tokens of the channel \"{channel}\" are not accepted")
            }
            Self::BindingMissing => f.write_str("the token is not bound to data"),
            Self::BindingDataMissing => f.write_str("the request lacks the data that its token must be bound to"),
            Self::Binding => f.write_str("the token is bound to other data"),
            Self::KeyBindingMissing => f.write_str("the token is not bound to a key"),
            Self::ProofMissing => f.write_str("the request has no proof"),
            Self::ProofRepeated => f.write_str("the request has more than one proof"),
            Self::Proof(cause) => cause.fmt(f),
            Self::QueryMissing => f.write_str("the proof does not cover the query"),
            Self::Query => f.write_str("the proof is for another query"),
            Self::MessageMissing => f.write_str("the proof does not cover the body"),
            Self::Message => f.write_str("the proof is for another body"),
            Self::Replayed => f.write_str("the proof was used before"),
            Self::NonceReused | Self::NonceSpent => f.write_str("the proof's nonce was used before"),
            Self::TooManyProofs => f.write_str("the proof's key has used too many proofs within a short time"),
            Self::BodyUnread => f.write_str("the body was not given to the verifier"),
            Self::Store(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Token(cause) => Some(cause),
            Self::Proof(cause) => Some(cause),
            Self::Store(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl From<DpopError> for Error {
    fn from(error: DpopError) -> Self {
        Self::Proof(error)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn faults_of_the_server_are_no_challenges_to_the_client() {
        let store = Error::Store(StoreError::Full);
        assert_eq!((store.status(), store.challenge()), (503, None));
        assert_eq!((Error::BodyUnread.status(), Error::BodyUnread.challenge()), (500, None));
        assert_eq!((Error::Replayed.status(), Error::Replayed.challenge()), (401, Some(Challenge::InvalidDpopProof)));
    }

    #[test]
    fn errors_name_their_cause() {
        let cause = |error: Error| error.source().map(ToString::to_string);
        assert_eq!(cause(Error::Token(TokenError::Expired)).unwrap(), TokenError::Expired.to_string());
        assert_eq!(cause(Error::Proof(DpopError::Url)).unwrap(), DpopError::Url.to_string());
        assert_eq!(cause(Error::Store(StoreError::Full)).unwrap(), StoreError::Full.to_string());
        assert_eq!(cause(Error::Replayed), None);
    }
}
