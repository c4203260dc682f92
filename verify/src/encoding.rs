//! Base64url as JOSE uses it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The bytes of unpadded base64url (RFC 7515 section 2). Padding, other alphabets, white space and
/// stray bits in the last character are refused, so that each byte string has one spelling.
pub(crate) fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// [`decode_base64url`] of a text that must be of `N` bytes.
pub(crate) fn decode_base64url_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    (length == N).then_some(bytes)
}

pub(crate) fn encode_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_string_has_one_spelling() {
        // RFC 7515 appendix C.
        assert_eq!(decode_base64url("A-z_4ME").unwrap(), [3, 236, 255, 224, 193]);
        assert_eq!(decode_base64url_array("A-z_4ME"), Some([3, 236, 255, 224, 193]));
        assert_eq!(decode_base64url_array::<4>("A-z_4ME"), None);
        assert_eq!(decode_base64url_array::<6>("A-z_4ME"), None);
        assert_eq!(encode_base64url(&[3, 236, 255, 224, 193]), "A-z_4ME");
        for other in ["A-z_4MF", "A-z_4ME=", "A+z/4ME", "A-z_4ME\n", " A-z_4ME", "A-z_4"] {
            assert_eq!(decode_base64url(other), None, "{other:?}");
            assert_eq!(decode_base64url_array::<5>(other), None, "{other:?}");
        }
    }
}
