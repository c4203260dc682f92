//! DPoP proofs (RFC 9449, section 4.2) with the additions of the specification: a nonce of any JSON value, and `msgs`.

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::json::{integer_literal, string_literal};
use crate::jws::{self, PublicKey, base64url};
use crate::secret::Secret;

/// The header of all proofs by one key, encoded once.
#[derive(Clone, Debug)]
pub struct ProofHeader(String);

/// The claims of a proof, but for time and randomness.
#[derive(Clone, Debug)]
pub struct Claims {
    /// `htm`, as given.
    pub method: Method,
    /// `htu`: origin and path, no query, no fragment (RFC 9449, section 4.2).
    pub url: String,
    /// `nonce`: any JSON value, as JSON text.
    pub nonce: Option<String>,
    /// The token that goes with the proof, whose hash is `ath`.
    pub token: Option<Secret>,
    /// `msgs`: a signature or hash of the message, made by the caller.
    pub message_signature: Option<String>,
}

/// An HTTP method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(String);

impl Method {
    /// `GET`, of the nonce request.
    #[must_use]
    pub fn get() -> Self {
        Method("GET".to_owned())
    }

    /// `POST`, of the attest request.
    #[must_use]
    pub fn post() -> Self {
        Method("POST".to_owned())
    }

    /// A method as the caller writes it: any token (RFC 9110, section 9.1), in any case.
    ///
    /// # Errors
    /// `invalid-argument` for an empty text or one with characters that no method has.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let is_token = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if is_token {
            Ok(Method(text.to_owned()))
        } else {
            Err(Error::invalid_argument(&["\"method\" must be an HTTP method such as POST, got \"", text, "\""]))
        }
    }
}

impl ProofHeader {
    /// The header for proofs by `key`.
    #[must_use]
    pub fn new(key: &PublicKey) -> Self {
        let header = [r#"{"typ":"dpop+jwt","alg":"ES256","jwk":"#, &key.to_jwk(), "}"].concat();
        ProofHeader(base64url(header.as_bytes()))
    }
}

impl Claims {
    /// What is to be signed: header and claims. `jti` are 128 random bits, `iat` is in seconds since the Unix epoch.
    #[must_use]
    pub fn signing_input(&self, header: &ProofHeader, hash: &mut LastTokenHash, jti: [u8; 16], iat: i64) -> String {
        let token_hash = self.token.as_ref().map(|token| string_literal(hash.of(token)));
        let message_signature = self.message_signature.as_deref().map(string_literal);
        let mut claims = String::new();
        for (name, json) in [
            (r#"{"jti":"#, Some(&string_literal(&base64url(&jti)))),
            (r#","htm":"#, Some(&string_literal(&self.method.0))),
            (r#","htu":"#, Some(&string_literal(&self.url))),
            (r#","iat":"#, Some(&integer_literal(iat))),
            (r#","nonce":"#, self.nonce.as_ref()),
            (r#","ath":"#, token_hash.as_ref()),
            (r#","msgs":"#, message_signature.as_ref()),
        ] {
            if let Some(json) = json {
                claims.push_str(name);
                claims.push_str(json);
            }
        }
        claims.push('}');
        jws::signing_input(&header.0, &claims)
    }
}

/// The `ath` of a token: unpadded base64url of its SHA-256 (RFC 9449, section 4.2).
#[must_use]
pub fn token_hash(token: &str) -> String {
    base64url(&Sha256::digest(token))
}

/// The hash of the token that goes with one proof after the other, made once.
#[derive(Debug, Default)]
pub struct LastTokenHash(Option<(Secret, String)>);

impl LastTokenHash {
    /// The `ath` of a token.
    pub fn of(&mut self, token: &Secret) -> &str {
        if self.0.as_ref().is_none_or(|(last, _)| last != token) {
            self.0 = None;
        }
        &self.0.get_or_insert_with(|| (token.clone(), token_hash(token.expose()))).1
    }
}

/// The `htu` of a URL: origin and path. `href` is what the WHATWG URL standard serialises `uri` to.
///
/// # Errors
/// `invalid-argument` if the URL could not be parsed or is not of HTTP.
pub fn http_url(uri: &str, href: Option<String>) -> Result<String, Error> {
    let proven = href.and_then(|href| {
        let scheme = ["https://", "http://"].into_iter().find(|scheme| href.starts_with(scheme))?;
        let rest = href.get(scheme.len()..)?;
        let rest = rest.get(..rest.find(['?', '#']).unwrap_or(rest.len()))?;
        // An @ in the user information would be percent-encoded, one in the path is behind the first slash.
        let host = rest.get(..rest.find('/')?)?.find('@').map_or(0, |at| at.saturating_add(1));
        Some([scheme, rest.get(host..)?].concat())
    });
    proven.ok_or_else(|| Error::invalid_argument(&["\"uri\" must be an absolute https URL, got \"", uri, "\""]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::from_base64url;
    use serde_json::json;

    fn header() -> ProofHeader {
        let mut point = [7; 65];
        point[0] = 4;
        ProofHeader::new(&PublicKey::from_uncompressed_point(&point).expect("a point"))
    }

    fn claims() -> Claims {
        Claims {
            method: Method::post(),
            url: "https://api.example.com/v1".to_owned(),
            nonce: None,
            token: None,
            message_signature: None,
        }
    }

    fn decoded(input: &str) -> [serde_json::Value; 2] {
        let mut parts = input
            .split('.')
            .map(|part| serde_json::from_slice(&from_base64url(part).expect("base64url")).expect("JSON"));
        [parts.next().expect("a header"), parts.next().expect("claims")]
    }

    #[test]
    fn the_header_has_type_algorithm_and_the_public_key_alone() {
        let [header, _] = decoded(&claims().signing_input(&header(), &mut LastTokenHash::default(), [0; 16], 0));
        let coordinate = base64url(&[7; 32]);
        assert_eq!(
            header,
            json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": {"kty": "EC", "crv": "P-256", "x": coordinate, "y": coordinate}})
        );
    }

    #[test]
    fn optional_claims_are_there_only_when_given() {
        let [_, bare] =
            decoded(&claims().signing_input(&header(), &mut LastTokenHash::default(), [0; 16], 1_700_000_000));
        assert_eq!(
            bare,
            json!({"jti": "AAAAAAAAAAAAAAAAAAAAAA", "htm": "POST", "htu": "https://api.example.com/v1", "iat": 1_700_000_000})
        );
        let whole = Claims {
            nonce: Some(r#"{"a":[1,"x"]}"#.to_owned()),
            token: Some("token".into()),
            message_signature: Some("sig\"\\".to_owned()),
            ..claims()
        };
        let [_, whole] = decoded(&whole.signing_input(&header(), &mut LastTokenHash::default(), [255; 16], 0));
        assert_eq!(whole["nonce"], json!({"a": [1, "x"]}));
        assert_eq!(whole["msgs"], "sig\"\\");
        assert_eq!(whole["jti"], "_____________________w");
        assert_eq!(whole["ath"], "PEaenWxYddN6Q_NT1PiOYfz4EsZu7jRXRlpAsNpBU-A");
    }

    #[test]
    fn the_token_hash_is_that_of_rfc_9449_section_7_1() {
        assert_eq!(
            token_hash("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"),
            "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
        );
    }

    #[test]
    fn methods_are_tokens_in_any_case() {
        for method in ["GET", "get", "Patch", "M-SEARCH", "X!#$%&'*+-.^_`|~9"] {
            assert_eq!(Method::parse(method), Ok(Method(method.to_owned())));
        }
        for method in ["", " ", "PO ST", "GET\r\n", "GÉT", "a/b", "\"GET\""] {
            assert!(Method::parse(method).expect_err("an error").message().contains("\"method\""), "{method:?}");
        }
    }

    #[test]
    fn only_http_urls_can_be_proven() {
        for (uri, proven) in [
            ("https://h", "https://h/"),
            ("HTTPS://User:p%40w@H:443/a@b?q=/@#f", "https://h/a@b"),
            ("http://h:1/p?", "http://h:1/p"),
            ("https://u@h:8443?q", "https://h:8443/"),
            ("https://[::1]:8443/#f", "https://[::1]:8443/"),
            ("https://b\u{fc}cher.example/\u{e9}", "https://xn--bcher-kva.example/%C3%A9"),
            ("https://h/a/../b/./c%2f", "https://h/b/c%2f"),
        ] {
            let href = url::Url::parse(uri).expect("a URL").to_string();
            assert_eq!(http_url(uri, Some(href)).as_deref(), Ok(proven), "{uri}");
        }
        for href in ["ftp://h/", "data:text/plain,x", "blob:https://h/x", "about:blank"] {
            assert!(http_url("the-uri", Some(href.to_owned())).expect_err("an error").message().contains("the-uri"));
        }
        assert!(http_url("the-uri", None).is_err());
    }

    #[test]
    fn the_hash_of_a_token_is_made_anew_for_another_token() {
        let mut hash = LastTokenHash::default();
        for token in ["a", "a", "b", "a"] {
            assert_eq!(hash.of(&token.into()), token_hash(token));
        }
    }
}
