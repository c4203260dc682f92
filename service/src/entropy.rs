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

/// The random bytes that one attest request uses up, drawn at once: each draw costs more than its bytes.
#[derive(Clone, Copy)]
pub struct RequestEntropy {
    /// Of the nonce that the answer brings.
    pub nonce: [u8; 8],
    /// Seals the refresh token.
    pub refresh: [u8; 12],
    /// Names the answer in its tokens and in the log.
    pub arc: [u8; 10],
}

impl RequestEntropy {
    /// Draws them.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn draw() -> Result<Self, TokenError> {
        let mut bytes = random::<30>()?.into_iter();
        Ok(Self { nonce: take(&mut bytes), refresh: take(&mut bytes), arc: take(&mut bytes) })
    }
}

fn take<const N: usize>(bytes: &mut impl Iterator<Item = u8>) -> [u8; N] {
    let mut taken = [0; N];
    taken.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    taken
}

/// Ten base32 characters (RFC 4648) from 50 of these random bits: the `arc` claim.
pub fn arc_text(random: [u8; 10]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    random.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 31))).map(|letter| char::from(*letter)).collect()
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
        assert_ne!(one.arc.last_chunk::<4>(), Some(&[0; 4]), "the draw is long enough for all parts");
    }

    #[test]
    fn an_arc_is_ten_base32_characters() {
        assert_eq!(arc_text([0, 1, 25, 26, 31, 32, 63, 64, 254, 255]), "ABZ27A7A67");
    }
}
