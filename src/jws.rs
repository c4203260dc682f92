//! Compact JWS with ES256, and the public JWK in its header (RFC 7515, RFC 7517).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Unpadded base64url (RFC 7515, section 2).
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len().div_ceil(3).saturating_mul(4)];
    // Neither can fail: the buffer is large enough, and base64 is ASCII. (`encode` panics instead, which costs a page 3 kB.)
    let length = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).unwrap_or_default();
    text.truncate(length);
    String::from_utf8(text).unwrap_or_default()
}

/// A public key on P-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    x: String,
    y: String,
}

impl PublicKey {
    /// From an uncompressed point (SEC 1): 0x04, x and y. `None` for any other form.
    #[must_use]
    pub fn from_uncompressed_point(point: &[u8]) -> Option<PublicKey> {
        let (tag, coordinates) = point.split_first()?;
        let (x, y) = coordinates.split_at_checked(32)?;
        if *tag == 4 { Some(PublicKey::from_coordinates(x.try_into().ok()?, y.try_into().ok()?)) } else { None }
    }

    /// From its coordinates, most significant byte first.
    #[must_use]
    pub fn from_coordinates(x: &[u8; 32], y: &[u8; 32]) -> PublicKey {
        PublicKey { x: base64url(x), y: base64url(y) }
    }

    /// From its coordinates in unpadded base64url.
    #[must_use]
    pub fn from_text(x: String, y: String) -> PublicKey {
        PublicKey { x, y }
    }

    /// Its coordinates in unpadded base64url.
    #[must_use]
    pub fn as_text(&self) -> (&str, &str) {
        (&self.x, &self.y)
    }

    /// The key as a JWK with its required members only, in the order of RFC 7638, section 3.
    #[must_use]
    pub fn to_jwk(&self) -> String {
        [r#"{"crv":"P-256","kty":"EC","x":""#, &self.x, r#"","y":""#, &self.y, r#""}"#].concat()
    }
}

/// Header and claims, encoded and joined: what is signed (RFC 7515, section 5.1).
#[must_use]
pub fn signing_input(encoded_header: &str, claims: &str) -> String {
    [encoded_header, ".", &base64url(claims.as_bytes())].concat()
}

/// The whole JWS.
#[must_use]
pub fn compact(signing_input: &str, signature: &[u8]) -> String {
    [signing_input, ".", &base64url(signature)].concat()
}

/// The bytes of unpadded base64url; `None` if it is not that.
#[cfg(test)]
pub(crate) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point() -> Vec<u8> {
        [vec![4], vec![0xfb; 32], vec![0x07; 32]].concat()
    }

    #[test]
    fn a_point_becomes_a_jwk_of_base64url_coordinates() {
        let key = PublicKey::from_uncompressed_point(&point()).expect("a point");
        let jwk: serde_json::Value = serde_json::from_str(&key.to_jwk()).expect("JSON");
        let coordinate = |name: &str| from_base64url(jwk[name].as_str().expect("text")).expect("base64url");
        assert_eq!((coordinate("x"), coordinate("y")), (vec![0xfb; 32], vec![0x07; 32]));
        assert_eq!((&jwk["kty"], &jwk["crv"]), (&"EC".into(), &"P-256".into()));
        assert_eq!(jwk.as_object().map(serde_json::Map::len), Some(4));
    }

    #[test]
    fn other_forms_of_a_point_are_refused() {
        let whole = point();
        for wrong in [&whole[1..], &whole[..64], &[&whole[..], &[0]].concat(), &[], &[&[2], &whole[1..]].concat()] {
            assert_eq!(PublicKey::from_uncompressed_point(wrong), None);
        }
    }

    #[test]
    fn the_parts_are_joined_as_in_rfc_7515_appendix_a_3() {
        let claims = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
        let input = signing_input("eyJhbGciOiJFUzI1NiJ9", claims);
        assert_eq!(
            input,
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        );
        let signature = [1, 2, 3];
        assert!(compact(&input, &signature).ends_with(".AQID"));
    }
}
