//! Randomness, drawn at the edge and handed to the pure parts as values.

use aws_lc_rs::rand;

use crate::token::TokenError;

/// Random bytes from the cryptographic module.
///
/// # Errors
/// When it has none.
pub fn random<const N: usize>() -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// `text` of ten base32 characters (RFC 4648) from 50 random bits: the `arc` claim.
///
/// # Errors
/// When there are no random numbers.
pub fn random_arc() -> Result<String, TokenError> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    Ok(random::<10>()?
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)))
        .map(|letter| char::from(*letter))
        .collect())
}
