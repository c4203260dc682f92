//! Bytes that must not be shown: wiped on drop, redacted when printed, compared in constant time.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

/// A symmetric key or a password.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over raw bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Decodes base64 or base64url, padded or not: account secrets are handed out in either form.
    pub fn from_base64(text: &str) -> Option<Self> {
        let text = text.trim();
        STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok().map(Self::new)
    }

    /// The bytes. Named so that a reader notices each use.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The text of a secret that is text (the check services' secrets are).
    pub fn expose_text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new(b"hunter2-hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(15 bytes)");
    }

    #[test]
    fn both_base64_alphabets_with_and_without_padding_are_read() {
        for text in ["+/8=", "+/8", "-_8=", "-_8", " -_8\n"] {
            assert_eq!(Secret::from_base64(text).unwrap().expose(), [0xfb, 0xff], "{text}");
        }
        assert!(Secret::from_base64("+_8").is_none());
    }
}
