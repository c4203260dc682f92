//! Checks of Approov tokens and DPoP proofs, for backends.
//!
//! Dependencies between the rooms point one way, from the top of this list to its end:
//!
//! | room | concept |
//! |---|---|
//! | `layer` (feature `tower`) | the check as a tower layer |
//! | [`Verifier`] | the whole check of a request |
//! | [`token`] | what a token says, and whether it can be trusted |
//! | [`dpop`] | a DPoP proof (RFC 9449) and what a request demands of it |
//! | [`jws`] | compact JSON Web Signatures (RFC 7515) |
//! | [`jwe`] | encrypted tokens (RFC 7516) |
//! | [`jwks`] | the same, fetched from a URL |
//! | [`keyset`] | an account's public keys |
//! | [`jwk`] | public keys and their thumbprints (RFC 7517, RFC 7638) |
//! | [`secret`] | shared secrets |
//! | `nonce` | nonces that a server gives out, without memory |
//! | [`replay`] | remembering what may be used once |
//! | `redis` (feature `redis`) | the same in Redis |
//! | [`redis_commands`] | what is said to Redis for it |
//! | [`PublicUrl`] | where clients find a server, and the URL of a request to it |
//! | [`uri`] | URLs compared by normalisation (RFC 3986) |
//! | [`time`] | points in time as values |
//! | `crypto` | cryptography, by AWS-LC or the RustCrypto crates |
//!
//! Nothing here reads a clock: `now` is an argument everywhere.

#![warn(missing_docs)]

mod crypto;
pub mod dpop;
mod encoding;
mod json;
pub mod jwe;
pub mod jwk;
pub mod jwks;
pub mod jws;
pub mod keyset;
#[cfg(feature = "tower")]
pub mod layer;
mod nonce;
mod public_url;
#[cfg(feature = "redis")]
pub mod redis;
pub mod redis_commands;
pub mod replay;
pub mod secret;
pub mod time;
pub mod token;
pub mod uri;
mod verifier;

pub use public_url::PublicUrl;
pub use verifier::{
    Body, Challenge, Checked, ConfigError, Error, MessagePolicy, NONCE_HEADER, NoncePolicy, PROOF_HEADER, ProofPolicy,
    QueryPolicy, Request, ServerNoncePolicy, TOKEN_HEADER, UsedOnce, Verified, Verifier, VerifierBuilder,
};

/// The examples of the README are compiled.
#[cfg(all(doctest, feature = "tower"))]
#[doc = include_str!("../README.md")]
struct Readme;
