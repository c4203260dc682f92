//! The cryptographic module: randomness, derived keys, key pairs, and the one error that all of them have.
//!
//! Every random byte of the service is drawn here and handed to the pure parts as a value.

mod key_pair;

use std::fmt;

use approov_verify::secret::Secret;
use aws_lc_rs::{hkdf, rand};
use zeroize::Zeroizing;

pub use key_pair::{KeyAlg, KeyPair, PublicParts};

/// The cryptographic module refused. Nothing more is known, and nothing more may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CryptoError;

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cryptographic module failed")
    }
}

impl std::error::Error for CryptoError {}

impl From<aws_lc_rs::error::Unspecified> for CryptoError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        CryptoError
    }
}

/// Random bytes.
///
/// # Errors
/// When there are none.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// 32 bytes derived from a secret for one purpose (HKDF-SHA256, RFC 5869), which is all of these parts together. No purpose
/// may be the beginning of another.
///
/// # Errors
/// When the derivation fails.
pub fn derive_key(secret: &Secret, purpose: &[&[u8]]) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
    let mut bytes = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"approov-web-service")
        .extract(secret.as_bytes())
        .expand(purpose, hkdf::HKDF_SHA256)?
        .fill(bytes.as_mut())?;
    Ok(bytes)
}

/// The random bytes that one attest request uses, drawn at once: each draw costs more than its bytes.
#[derive(Clone, Copy)]
pub struct RequestEntropy {
    /// Of the nonce that the response brings.
    pub nonce: [u8; 8],
    /// Seals the refresh token.
    pub refresh: [u8; 12],
    /// Names the response in its tokens and in the log.
    pub arc: [u8; 10],
    /// Names the session, if this request begins one.
    pub session: [u8; 16],
}

impl RequestEntropy {
    /// Draws them.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn draw() -> Result<Self, CryptoError> {
        let mut bytes = random::<46>()?.into_iter();
        Ok(Self {
            nonce: take(&mut bytes),
            refresh: take(&mut bytes),
            arc: take(&mut bytes),
            session: take(&mut bytes),
        })
    }
}

fn take<const N: usize>(bytes: &mut impl Iterator<Item = u8>) -> [u8; N] {
    let mut taken = [0; N];
    taken.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    taken
}

/// The random bytes that one encryption of a token uses.
pub struct JweEntropy {
    /// Content encryption key.
    pub content_key: Zeroizing<[u8; 32]>,
    /// Nonce of the key wrapping.
    pub wrap_nonce: [u8; 12],
    /// Nonce of the content encryption.
    pub content_nonce: [u8; 12],
}

impl JweEntropy {
    /// Draws them.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn draw() -> Result<Self, CryptoError> {
        Ok(Self { content_key: Zeroizing::new(random()?), wrap_nonce: random()?, content_nonce: random()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_draw_is_random() {
        let draws = [RequestEntropy::draw().unwrap(), RequestEntropy::draw().unwrap()];
        let [one, other] = draws;
        assert_ne!(one.nonce, other.nonce);
        assert_ne!(one.refresh, other.refresh);
        assert_ne!(one.arc, other.arc);
        assert_ne!(one.session, other.session);
        assert_ne!(one.session.last_chunk::<8>(), Some(&[0; 8]), "the draw is long enough for all parts");
    }
}
