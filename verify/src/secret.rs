//! Shared secrets.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use std::fmt;
use zeroize::Zeroizing;

/// The bytes of a shared secret. Wiped when dropped; `Debug` shows nothing of them.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

const PADDING_OPTIONAL: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING_OPTIONAL);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING_OPTIONAL);

impl Secret {
    /// A secret from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A secret from base64 or base64url text, padded or not, as Approov hands it out
    /// (`secret -get base64` or `base64url`). White space around the text is ignored.
    ///
    /// # Errors
    /// [`InvalidSecret`] when the text is neither, or mixes both alphabets, or is empty.
    pub fn from_base64(text: &str) -> Result<Self, InvalidSecret> {
        let text = text.trim();
        let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|_| InvalidSecret)?;
        if bytes.is_empty() { Err(InvalidSecret) } else { Ok(Self::from_bytes(bytes)) }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A text that is not a base64 or base64url secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSecret;

impl fmt::Display for InvalidSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret must be base64 or base64url text, not empty")
    }
}

impl std::error::Error for InvalidSecret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read_padded_or_not() {
        for text in ["++/+", "--_-"] {
            assert_eq!(Secret::from_base64(text).unwrap().as_bytes(), [0xfb, 0xef, 0xfe]);
        }
        for text in ["+w==", "+w", "-w==", "-w", " -w\n"] {
            assert_eq!(Secret::from_base64(text).unwrap().as_bytes(), [0xfb], "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", " ", "+-", "a b", "é", "+x=="] {
            assert!(Secret::from_base64(text).is_err(), "{text}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        assert_eq!(format!("{:?}", Secret::from_bytes(b"hunter2".to_vec())), "Secret(…)");
    }
}
