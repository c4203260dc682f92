//! DPoP proofs (RFC 9449, section 4.2) with the additions of the specification: a nonce of any JSON value, and `msgs`.

use sha2::{Digest, Sha256};

use crate::argument::Text;
use crate::error::Error;
use crate::json::{integer_literal, string_literal};
use crate::jws::{self, PublicKey, base64url};
use crate::secret::Secret;

/// The type of a proof, in its header (RFC 9449, section 4.2).
const PROOF_TYPE: &[u8] = b"dpop+jwt";

/// The header of all proofs by one key, encoded once.
#[derive(Clone, Debug)]
pub struct ProofHeader(String);

/// The arguments of `getDPoPToken` as given; of the last three, none for falsy values.
#[derive(Clone, Debug)]
pub struct ProofArguments {
    /// `method`
    pub method: Text,
    /// `uri`
    pub uri: Text,
    /// `nonce`, as JSON text.
    pub nonce: Option<Text>,
    /// `token`
    pub token: Option<Text>,
    /// `messageSignature`
    pub message_signature: Option<Text>,
    /// Whether the proof covers the query of the URI, too.
    pub covers_query: bool,
}

/// The claims of a proof, but for time and randomness.
#[derive(Clone, Debug)]
pub struct Claims {
    /// `htm`, as given.
    pub method: Method,
    /// `htu`: origin and path, no query, no fragment (RFC 9449, section 4.2).
    pub htu: String,
    /// `nonce`: any JSON value, as JSON text.
    pub nonce: Option<String>,
    /// The token that goes with the proof, whose hash is `ath`.
    pub token: Option<Secret>,
    /// `msgs`: a signature or hash of the message, made by the caller.
    pub message_signature: Option<String>,
    /// `htq`: the hash of the query, without its question mark. (RFC 9449 leaves the query out.)
    pub query_hash: Option<String>,
    /// `aprv`: what a nonce request asks the service for, as JSON text.
    pub request: Option<String>,
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
    /// Parses the arguments of `getDPoPToken`. `href` is the WHATWG URL parser and serialiser: `None` for what it refuses.
    ///
    /// # Errors
    /// `invalid-argument`, naming the first argument that is unusable.
    pub fn parse(
        arguments: ProofArguments,
        htu: &mut HtuCache,
        href: impl Fn(&str) -> Option<String>,
    ) -> Result<Claims, Error> {
        let ProofArguments { method, uri, nonce, token, message_signature, covers_query } = arguments;
        let method = Method::parse(&text("method", method)?)?;
        let uri = text("uri", uri)?;
        let query_hash = if covers_query { query_hash(&uri) } else { None };
        Ok(Claims {
            method,
            htu: htu.of(uri, href)?,
            query_hash,
            nonce: match nonce {
                None => None,
                // A number that is not finite is written as null.
                Some(Ok(json)) if json != "null" => Some(json),
                Some(_) => return Err(Error::invalid_argument(&["\"nonce\" must be a value that JSON can carry"])),
            },
            token: token.map(|token| text("token", token)).transpose()?.map(Secret::from),
            message_signature: message_signature.map(|given| text("messageSignature", given)).transpose()?,
            request: None,
        })
    }

    /// What is to be signed: header and claims. `jti` are 128 random bits, `iat` is in seconds since the Unix epoch.
    #[must_use]
    pub fn signing_input(&self, header: &ProofHeader, hash: &mut TokenHashCache, jti: [u8; 16], iat: i64) -> String {
        let token_hash = self.token.as_ref().map(|token| string_literal(hash.of(token)));
        let message_signature = self.message_signature.as_deref().map(string_literal);
        let query_hash = self.query_hash.as_deref().map(string_literal);
        let mut claims = String::new();
        for (name, json) in [
            (r#"{"jti":"#, Some(&string_literal(&base64url(&jti)))),
            (r#","htm":"#, Some(&string_literal(&self.method.0))),
            (r#","htu":"#, Some(&string_literal(&self.htu))),
            (r#","iat":"#, Some(&integer_literal(iat))),
            (r#","nonce":"#, self.nonce.as_ref()),
            (r#","ath":"#, token_hash.as_ref()),
            (r#","msgs":"#, message_signature.as_ref()),
            (r#","htq":"#, query_hash.as_ref()),
            (r#","aprv":"#, self.request.as_ref()),
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

/// Whether a text is the encoded header of a proof, for whichever verifier: what is not base64 is skipped, JSON's escapes are
/// resolved, and neither case nor the place of the type counts. A signature of what begins like this, up to the first dot, would
/// make a proof of whatever follows it (RFC 8725, section 3.11).
#[must_use]
pub fn is_proof_header(encoded: &[u8]) -> bool {
    let header = decode_any_base64(encoded);
    let mut unescaped = Vec::new();
    let mut rest = header.into_iter();
    while let Some(mut byte) = rest.next() {
        if byte == b'\\' {
            byte = rest.next().unwrap_or(byte);
            if byte == b'u' {
                let digits = rest.by_ref().take(4).map(|digit| char::from(digit).to_digit(16).unwrap_or(0));
                byte = digits.fold(0, |code, digit| code << 4 | digit).try_into().unwrap_or(0);
            }
        }
        unescaped.push(byte.to_ascii_lowercase());
    }
    unescaped.windows(PROOF_TYPE.len()).any(|part| part == PROOF_TYPE)
}

/// The bytes of base64 in either alphabet; what is not base64 is skipped.
#[must_use]
pub fn decode_any_base64(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let (mut bits, mut length) = (0_u32, 0);
    for byte in encoded {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        length += 6;
        if length >= 8 {
            length -= 8;
            decoded.push((bits >> length) as u8);
        }
    }
    decoded
}

#[inline(never)]
fn text(name: &str, given: Text) -> Result<String, Error> {
    given.map_err(|kind| Error::invalid_argument(&["\"", name, "\" must be a non-empty string, got ", kind]))
}

/// The `ath` of a token: unpadded base64url of its SHA-256 (RFC 9449, section 4.2).
#[must_use]
pub fn token_hash(token: &str) -> String {
    base64url(&Sha256::digest(token))
}

/// The `htq` of a serialised URL: unpadded base64url of the SHA-256 of its query; none where that is empty.
fn query_hash(href: &str) -> Option<String> {
    let (_, query) = href.split('#').next()?.split_once('?')?;
    if query.is_empty() { None } else { Some(base64url(&Sha256::digest(query))) }
}

/// The `ath` of the latest token: pages make one proof after the other for the same token.
#[derive(Debug, Default)]
pub struct TokenHashCache(Option<(Secret, String)>);

impl TokenHashCache {
    /// Whether a token is the latest one.
    #[must_use]
    pub fn is_of(&self, token: &Secret) -> bool {
        self.0.as_ref().is_some_and(|(last, _)| last == token)
    }

    /// The `ath` of a token.
    pub fn of(&mut self, token: &Secret) -> &str {
        if !self.is_of(token) {
            self.0 = None;
        }
        &self.0.get_or_insert_with(|| (token.clone(), token_hash(token.expose()))).1
    }
}

/// The `htu` of the latest URI: pages request the same URL again and again, and parsing one takes a quarter of the time that a
/// proof costs Firefox apart from the signature.
#[derive(Debug, Default)]
pub struct HtuCache {
    uri: String,
    htu: String,
}

impl HtuCache {
    /// The `htu` of a URI.
    ///
    /// # Errors
    /// `invalid-argument` if the URI could not be parsed or is not of HTTP.
    fn of(&mut self, uri: String, href: impl Fn(&str) -> Option<String>) -> Result<String, Error> {
        if self.uri != uri {
            self.htu = htu(&uri, href(&uri))?;
            self.uri = uri;
        }
        Ok(self.htu.clone())
    }
}

/// The `htu` of a URI: origin and path. `href` is what the WHATWG URL standard serialises `uri` to.
fn htu(uri: &str, href: Option<String>) -> Result<String, Error> {
    let htu = href.and_then(|href| {
        let scheme = ["https://", "http://"].into_iter().find(|scheme| href.starts_with(scheme))?;
        let rest = href.get(scheme.len()..)?;
        let rest = rest.get(..rest.find(['?', '#']).unwrap_or(rest.len()))?;
        // An @ in the user information would be percent-encoded, one in the path comes after the first slash.
        let host = rest.get(..rest.find('/')?)?.find('@').map_or(0, |at| at.saturating_add(1));
        Some([scheme, rest.get(host..)?].concat())
    });
    htu.ok_or_else(|| Error::invalid_argument(&["\"uri\" must be an absolute https URL, got \"", uri, "\""]))
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
            request: None,
            query_hash: None,
            method: Method::post(),
            htu: "https://api.example.com/v1".to_owned(),
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
        let [header, _] = decoded(&claims().signing_input(&header(), &mut TokenHashCache::default(), [0; 16], 0));
        let coordinate = base64url(&[7; 32]);
        assert_eq!(
            header,
            json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": {"kty": "EC", "crv": "P-256", "x": coordinate, "y": coordinate}})
        );
    }

    /// The hashes are those of `printf '%s' QUERY | openssl dgst -sha256 -binary | basenc --base64url`.
    #[test]
    fn a_proof_may_cover_the_query() {
        let of = |uri: &str| {
            let arguments = ProofArguments { uri: Ok(uri.to_owned()), covers_query: true, ..arguments() };
            parse(arguments).expect("claims").query_hash
        };
        assert_eq!(
            of("https://a.example/p?a=1&b=%202#f?x").as_deref(),
            Some("5HcKAL5mrsdzxYmd9L0WwWGh2V7VkR6fKw4_JVp_q3c")
        );
        assert_eq!(of("https://a.example/p??").as_deref(), Some("io3oI9XtPhJ0amLvFpvPNyvgykTwoSNqvDXfBdlpKOE"));
        assert_eq!(of("https://a.example/p?"), None);
        assert_eq!(of("https://a.example/p#?a"), None);
        let arguments = ProofArguments { uri: Ok("https://a.example/p?a".to_owned()), ..arguments() };
        assert_eq!(parse(arguments).expect("claims").query_hash, None);
    }

    #[test]
    fn optional_claims_are_there_only_when_given() {
        let [_, bare] =
            decoded(&claims().signing_input(&header(), &mut TokenHashCache::default(), [0; 16], 1_700_000_000));
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
        let [_, whole] = decoded(&whole.signing_input(&header(), &mut TokenHashCache::default(), [255; 16], 0));
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
    fn only_http_urls_become_an_htu() {
        for (uri, expected) in [
            ("https://h", "https://h/"),
            ("HTTPS://User:p%40w@H:443/a@b?q=/@#f", "https://h/a@b"),
            ("http://h:1/p?", "http://h:1/p"),
            ("https://u@h:8443?q", "https://h:8443/"),
            ("https://[::1]:8443/#f", "https://[::1]:8443/"),
            ("https://b\u{fc}cher.example/\u{e9}", "https://xn--bcher-kva.example/%C3%A9"),
            ("https://h/a/../b/./c%2f", "https://h/b/c%2f"),
        ] {
            let href = url::Url::parse(uri).expect("a URL").to_string();
            assert_eq!(htu(uri, Some(href)).as_deref(), Ok(expected), "{uri}");
        }
        for href in ["ftp://h/", "data:text/plain,x", "blob:https://h/x", "about:blank"] {
            assert!(htu("the-uri", Some(href.to_owned())).expect_err("an error").message().contains("the-uri"));
        }
        assert!(htu("the-uri", None).is_err());
    }

    #[test]
    fn the_cached_hash_is_that_of_the_token() {
        let mut hash = TokenHashCache::default();
        for token in ["a", "a", "b", "a"] {
            assert_eq!(hash.of(&token.into()), token_hash(token));
        }
    }

    fn arguments() -> ProofArguments {
        ProofArguments {
            method: Ok("GET".into()),
            uri: Ok("https://h/a".into()),
            nonce: None,
            token: None,
            message_signature: None,
            covers_query: false,
        }
    }

    fn parse(arguments: ProofArguments) -> Result<Claims, Error> {
        Claims::parse(arguments, &mut HtuCache::default(), |uri| url::Url::parse(uri).ok().map(String::from))
    }

    #[test]
    fn the_arguments_of_a_proof_become_its_claims() {
        let given = ProofArguments {
            nonce: Some(Ok("[1]".into())),
            token: Some(Ok("t".into())),
            message_signature: Some(Ok("s".into())),
            ..arguments()
        };
        let claims = parse(given).expect("valid");
        assert_eq!((claims.method, claims.htu.as_str()), (Method::get(), "https://h/a"));
        assert_eq!((claims.nonce.as_deref(), claims.message_signature.as_deref()), (Some("[1]"), Some("s")));
        assert_eq!(claims.token, Some("t".into()));
        let bare = parse(arguments()).expect("valid");
        assert!(bare.nonce.is_none() && bare.token.is_none() && bare.message_signature.is_none());
    }

    #[test]
    fn an_unusable_argument_of_a_proof_is_named() {
        for (given, message) in [
            (
                ProofArguments { method: Err("nothing"), ..arguments() },
                "\"method\" must be a non-empty string, got nothing",
            ),
            (
                ProofArguments { uri: Err("an empty string"), ..arguments() },
                "\"uri\" must be a non-empty string, got an empty string",
            ),
            (
                ProofArguments { uri: Ok("/a".into()), ..arguments() },
                "\"uri\" must be an absolute https URL, got \"/a\"",
            ),
            (
                ProofArguments { nonce: Some(Ok("null".into())), ..arguments() },
                "\"nonce\" must be a value that JSON can carry",
            ),
            (
                ProofArguments { nonce: Some(Err("a function")), ..arguments() },
                "\"nonce\" must be a value that JSON can carry",
            ),
            (
                ProofArguments { token: Some(Err("a number")), ..arguments() },
                "\"token\" must be a non-empty string, got a number",
            ),
            (
                ProofArguments { message_signature: Some(Err("a boolean")), ..arguments() },
                "\"messageSignature\" must be a non-empty string, got a boolean",
            ),
        ] {
            assert_eq!(parse(given).expect_err("an error").message(), message);
        }
    }

    #[test]
    fn a_uri_is_parsed_once_in_a_row() {
        let parsed = std::cell::Cell::new(0);
        let mut cache = HtuCache::default();
        for (uri, expected) in [("https://a", 1), ("https://a", 1), ("https://b", 2), ("https://a", 3)] {
            let htu = cache.of(uri.to_owned(), |uri| {
                parsed.set(parsed.get() + 1);
                Some([uri, "/"].concat())
            });
            assert_eq!((htu, parsed.get()), (Ok([uri, "/"].concat()), expected));
        }
        assert!(cache.of("ftp://a".to_owned(), |_| None).is_err());
        assert!(cache.of("ftp://a".to_owned(), |_| None).is_err(), "a failure is not cached");
    }

    #[test]
    fn the_header_of_a_proof_is_recognised_however_it_is_encoded() {
        let encoded = |text: &str| base64url(text.as_bytes());
        let own = header().0;
        assert!(is_proof_header(own.as_bytes()));
        for header in [
            r#"{"typ":"dpop+jwt","alg":"ES256"}"#,
            r#"{"alg":"ES256","typ":"DPoP+JWT"}"#,
            r#" { "typ" : "application/dpop+jwt" } "#,
            r#"{"typ":"dpop\u002bjwt"}"#,
            r#"{"typ":"\u0064\u0070\u006f\u0070\u002B\u006a\u0077\u0074"}"#,
            r#"{"typ":"dp\u006Fp+jwt","typ":"JWT"}"#,
            r#"{"typ":"JWT","typ":"dpop+jwt"}"#,
            r#"{"x":"}{","typ":"dpop+jwt"}"#,
            "\u{feff}{\"typ\":\"dpop+jwt\"}",
        ] {
            let text = encoded(header);
            assert!(is_proof_header(text.as_bytes()), "{header}");
            let lenient = [" ", &text.replace('-', "+").replace('_', "/"), "=\r\n"].concat();
            assert!(is_proof_header(lenient.as_bytes()), "{header}");
            let (left, right) = text.split_at(5);
            assert!(is_proof_header([left, "\n~", right].concat().as_bytes()), "{header}");
        }
        for header in [
            r#"{"typ":"JWT","alg":"ES256"}"#,
            r#"{"alg":"ES256"}"#,
            r#"{"typ":"dpop jwt"}"#,
            r#"{"typ":"\\u0064pop+jwt"}"#,
            r#"{"typ":"\u0164pop+jwt"}"#,
            "",
        ] {
            assert!(!is_proof_header(encoded(header).as_bytes()), "{header}");
        }
        assert!(!is_proof_header(b"dpop+jwt"), "as it is, it is no header");
        assert!(!is_proof_header(&[0xff; 100]));
    }
}
