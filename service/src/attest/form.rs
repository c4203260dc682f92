//! The parameters of an attest request as they came: a form in the query or in the body.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::error::{Code, Refusal};

/// The decoded parameters, in the order they came.
#[derive(Debug, Default)]
pub struct Form<'a>(Vec<Param<'a>>);

/// Most parameters of a request. Each costs time before anybody knows who sent it.
const MAX_PARAMS: usize = 64;

/// Name and value; copied only when they came encoded.
type Param<'a> = (Cow<'a, str>, Cow<'a, str>);

impl<'a> Form<'a> {
    /// Decodes the parameters of a request from its query or its body.
    ///
    /// # Errors
    /// When both have some, or they are not a well-formed form.
    pub fn read(query: Option<&'a str>, content_type: Option<&str>, body: &'a [u8]) -> Result<Self, Refusal> {
        let query = query.unwrap_or_default();
        if body.is_empty() {
            return decode(query.as_bytes()).map(Self);
        }
        if !query.is_empty() {
            return Err(Refusal::new(Code::ParamsInBodyAndPath, ""));
        }
        let essence = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        if essence.is_some_and(|text| !text.eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
            return Err(Refusal::new(Code::BodyParse, "the body must be application/x-www-form-urlencoded"));
        }
        decode(body).map(Self)
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Every value of a parameter.
    pub(super) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Names and values, in the order they came.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// Strict `application/x-www-form-urlencoded`: what does not decode to UTF-8 is refused, not replaced.
fn decode(text: &[u8]) -> Result<Vec<Param<'_>>, Refusal> {
    let malformed = || Refusal::new(Code::BodyParse, "the parameters are not well-formed percent-encoded UTF-8");
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    if text.split('&').nth(MAX_PARAMS).is_some() {
        return Err(Refusal::new(Code::IllegalParams, format!("more than {MAX_PARAMS} parameters")));
    }
    let param = |pair| {
        let (name, value) = str::split_once(pair, '=').unwrap_or((pair, ""));
        Some((component(name)?, component(value)?))
    };
    text.split('&').filter(|pair| !pair.is_empty()).map(param).collect::<Option<_>>().ok_or_else(malformed)
}

fn component(text: &str) -> Option<Cow<'_, str>> {
    // Two searches for one character use memchr; a search for a set of characters does not.
    if !text.contains('%') && !text.contains('+') {
        return Some(Cow::Borrowed(text));
    }
    let spaced: Vec<u8> = text.bytes().map(|b| if b == b'+' { b' ' } else { b }).collect();
    let mut rest = spaced.as_slice();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        let hex = rest.get(at + 1..at + 3)?;
        if !hex.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        rest = rest.get(at + 3..)?;
    }
    percent_decode(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_with_too_many_parameters_is_refused_before_they_are_read() {
        assert_eq!(Form::read(None, None, "api=a&".repeat(63).as_bytes()).unwrap().0.len(), 63);
        for long in ["a&".repeat(64), "&".repeat(64), "%&".repeat(30_000)] {
            let refusal = Form::read(None, None, long.as_bytes()).unwrap_err();
            assert!(refusal.has(Code::IllegalParams), "{refusal:?}");
        }
    }

    #[test]
    fn a_form_that_does_not_decode_is_refused_whole() {
        for bad in [&b"a=%"[..], b"a=%1", b"a=%zz", b"a=%ff", b"\xff=1"] {
            let refusal = Form::read(None, None, bad).unwrap_err();
            assert!(refusal.has(Code::BodyParse), "{bad:?}");
        }
        let refusal = Form::read(None, Some("application/json"), b"{}").unwrap_err();
        assert!(refusal.has(Code::BodyParse));
        let refusal = Form::read(Some("api=a"), None, b"api=a").unwrap_err();
        assert!(refusal.has(Code::ParamsInBodyAndPath));
        assert!(!Form::read(Some("api=a"), None, b"").unwrap().is_empty());
    }
}
