//! Where the token and the proof are in a request's headers.

use crate::dpop::DpopError;
use crate::token::TokenError;
use crate::verifier::{Error, PROOF_HEADER};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What a request's headers carry.
#[derive(Clone, Copy)]
pub(super) struct Presented<'a> {
    pub(super) token: &'a str,
    /// The token came as `Authorization: DPoP …`, which demands a proof (RFC 9449 section 7.1).
    pub(super) by_scheme: bool,
    pub(super) proof: Option<&'a HeaderValue>,
}

impl<'a> Presented<'a> {
    pub(super) fn read(headers: &'a HeaderMap, token_header: &HeaderName) -> Result<Self, Error> {
        let own = single(headers, token_header).map_err(|Repeated| Error::TokenRepeated)?;
        let credentials = if *token_header == AUTHORIZATION { None } else { dpop_credentials(headers)? };
        let proof = single(headers, &PROOF_HEADER).map_err(|Repeated| Error::ProofRepeated)?;
        let (token, by_scheme) = match (own, credentials) {
            (Some(_), Some(_)) => return Err(Error::TokenRepeated),
            (Some(value), None) => (value.as_bytes(), false),
            (None, Some(token)) => (token, true),
            (None, None) => return Err(Error::TokenMissing),
        };
        Ok(Self { token: text(token).ok_or(TokenError::Malformed)?, by_scheme, proof })
    }

    pub(super) fn proof(&self) -> Result<Option<&'a str>, DpopError> {
        self.proof.map(|value| text(value.as_bytes()).ok_or(DpopError::Malformed)).transpose()
    }
}

struct Repeated;

/// The one value of a header field.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Repeated> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() { Err(Repeated) } else { Ok(value) }
}

/// The token in `Authorization`, when its scheme is DPoP. Other schemes are for others, such as the user's own token.
fn dpop_credentials(headers: &HeaderMap) -> Result<Option<&[u8]>, Error> {
    let token = headers.get_all(AUTHORIZATION).iter().find_map(|value| dpop_token(value.as_bytes()));
    match single(headers, &AUTHORIZATION) {
        // Another server on the way could read the other value.
        Err(Repeated) if token.is_some() => Err(Error::TokenRepeated),
        _ => Ok(token),
    }
}

fn dpop_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"DPoP".len())?;
    match rest {
        _ if !scheme.eq_ignore_ascii_case(b"DPoP") => None,
        [] => Some(rest),
        [b' ', ..] => rest.iter().position(|byte| *byte != b' ').map_or(Some(b""), |start| rest.get(start..)),
        _ => None,
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}
