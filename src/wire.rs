//! The wire protocol: every name that travels (those of the check services are in `checks.rs`), the form of requests, and the reading
//! of responses (docs/PROTOCOL.md).
//!
//! The session protocol of the hosted service is not public. Another dialect with other names and forms is a change in this file;
//! one with other steps than a nonce request, then attest requests, is a change in `driver.rs` as well.

use crate::altcha::Challenge;
use crate::checks::Results;
use crate::config::Config;
use crate::error::{Code, Error};
use crate::json::{Json, integer_literal, string_literal};
use crate::jws::base64url;
use crate::secret::Secret;
use crate::small_map::SmallMap;
use crate::time::UnixMillis;
use crate::token_request::Binding;

/// The path of the service's one URL.
pub const ATTEST_PATH: &str = "/attest";
/// The request header with the proof.
pub const PROOF_HEADER: &str = "DPoP";
/// The response header with the nonce for the next proof.
pub const NONCE_HEADER: &str = "DPoP-Nonce";
/// The header with the media type, of requests and responses.
pub const TYPE_HEADER: &str = "content-type";
/// The response header with the service's time.
pub const DATE_HEADER: &str = "date";
/// The response header that says when to try again.
pub const RETRY_AFTER_HEADER: &str = "retry-after";
/// The media type of an attest request.
pub const FORM_TYPE: &str = "application/x-www-form-urlencoded";
/// The longest body of a response, in bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

const WORK_REQUIRED: &str = "aprv-work-required";
const INVALID_NONCE: &str = "aprv-invalid-nonce";
const INVALID_PROOF: &str = "aprv-invalid-dpop-token";
const INVALID_REFRESH_TOKEN: &str = "aprv-invalid-refresh-token";
/// Prefix of the error codes about requested APIs.
const API_ERROR_PREFIX: &str = "aprv-api-";
/// The name of the session's own expiry among the expiries.
pub const SESSION: &str = "session";
/// The member of a response with notes for the page, of a service for development.
const NOTES: &str = "notes";
/// Longer lifetimes, beyond ten years, are rejected.
const MAX_LIFETIME_SECONDS: f64 = 315_360_000.0;
/// Later moments, beyond the year 9999, are rejected.
const MAX_UNIX_MILLIS: f64 = 253_402_300_799_999.0;

/// An attest request, but for its proof.
#[derive(Debug)]
pub struct Attest<'a> {
    /// The site key, and the public keys of the check services.
    pub config: &'a Config,
    /// The domains of the APIs to get tokens for.
    pub apis: &'a [String],
    /// The hash to bind the tokens to.
    pub binding: Option<&'a Binding>,
    /// The results to be verified.
    pub results: &'a Results,
    /// The refresh token of the latest response.
    pub refresh_token: Option<&'a Secret>,
}

/// A response of the service, as the host received it.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// The reason phrase; empty over HTTP/2.
    pub status_text: String,
    /// The media type, without parameters, in lower case.
    pub content_type: String,
    /// The `DPoP-Nonce` header.
    pub nonce: Option<String>,
    /// The `Date` header.
    pub date: Option<UnixMillis>,
    /// The `Retry-After` header, in milliseconds.
    pub retry_after: Option<i64>,
    /// The body.
    pub body: Body,
}

/// The body of a response.
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// Empty.
    #[default]
    Empty,
    /// Text that is not JSON.
    Text(String),
    /// JSON, decoded.
    Json(Json),
    /// More than [`MAX_BODY_BYTES`].
    TooLarge,
    /// Not UTF-8.
    NotText,
}

/// A successful response to an attest request.
#[derive(Debug)]
pub enum Granted {
    /// Tokens, and what continues the session.
    Session(Grant),
    /// One bare token without a session: the older public form of the service.
    Bare(Secret),
}

/// Tokens, and what continues the session.
#[derive(Debug)]
pub struct Grant {
    /// A token per API.
    pub tokens: SmallMap<Secret>,
    /// The lifetime of the tokens, in milliseconds.
    pub token_lifetime: i64,
    /// The refresh token of the next request.
    pub refresh_token: Secret,
    /// When the session ends, by the service's clock.
    pub session_expiry: UnixMillis,
    /// When the session and each check result end, by the service's clock, under the names that `getExpiries` shows.
    pub expiries: SmallMap<UnixMillis>,
    /// The service's clock when it sent the response.
    pub server_time: UnixMillis,
}

impl Attest<'_> {
    /// The body of the request.
    #[must_use]
    pub fn to_form(&self) -> String {
        let mut form = Form::default();
        for api in self.apis {
            form.append("api", api);
        }
        form.append("approov-site-key", &self.config.site_key);
        if let Some(binding) = self.binding {
            form.append("payload", &base64url(binding));
        }
        if let Some(token) = self.refresh_token {
            form.append("refresh-token", token.expose());
        }
        self.results.for_each_parameter(&self.config.checks, |name, value| form.append(name, value));
        form.0
    }
}

/// A form with this value of a parameter, in place of the one that it has.
#[must_use]
pub fn with_parameter(form: &str, name: &str, value: &str) -> String {
    let mut changed = Form::default();
    for pair in form.split('&').filter(|pair| pair.split('=').next() != Some(name)) {
        if !changed.0.is_empty() {
            changed.0.push('&');
        }
        changed.0.push_str(pair);
    }
    changed.append(name, value);
    changed.0
}

/// What a nonce request asks for with an ALTCHA challenge: the claim `aprv`.
#[must_use]
pub fn challenge_request(site_key: &str, altcha_site_key: &str) -> String {
    let (site_key, altcha_site_key) = (string_literal(site_key), string_literal(altcha_site_key));
    [r#"{"site-key":"#, &site_key, r#","altcha-site-key":"#, &altcha_site_key, "}"].concat()
}

/// Text of [`FORM_TYPE`], as the WHATWG URL standard writes it.
#[derive(Default)]
struct Form(String);

impl Form {
    fn append(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'*' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => self.0.push(byte.into()),
                b' ' => self.0.push('+'),
                _ => {
                    self.0.push('%');
                    for digit in [byte >> 4, byte & 15] {
                        self.0.push(if digit < 10 { b'0' + digit } else { b'A' - 10 + digit }.into());
                    }
                }
            }
        }
    }
}

impl Response {
    /// The nonce for the next proof, if there is a usable one (RFC 9449, section 8.1).
    #[must_use]
    pub fn usable_nonce(&self) -> Option<&str> {
        let is_nonce_character = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        self.nonce
            .as_deref()
            .filter(|nonce| !nonce.is_empty() && nonce.len() <= 4096 && nonce.bytes().all(is_nonce_character))
    }

    /// Reads the response to an attest request.
    ///
    /// # Errors
    /// `service` with the service's error map, or `invalid-response` for a response that the protocol does not know.
    pub fn into_grant(self) -> Result<Granted, Error> {
        if !self.is_success() {
            return Err(self.into_refusal());
        }
        match self.body {
            Body::Json(Json::Object(members)) => Grant::parse(members).map(Granted::Session),
            Body::Text(text) if self.content_type == "text/plain" => {
                let token = text.trim_ascii();
                if is_token(token) && is_compact(token) {
                    Ok(Granted::Bare(token.into()))
                } else {
                    Err(malformed(&["a text that is not a token"]))
                }
            }
            body => Err(malformed(&[&body.kind(&self.content_type), ", where a JSON object was expected"])),
        }
    }

    /// The error that an unsuccessful response stands for.
    #[must_use]
    pub fn into_refusal(self) -> Error {
        let Response { status, status_text, content_type, body, retry_after, .. } = self;
        let retryable = matches!(status, 429 | 500 | 502..=504);
        let has_phrase = !status_text.is_empty();
        let mut message = if has_phrase { status_text } else { reason_phrase(status) };
        let kind = body.kind(&content_type);
        let error = match error_map(body) {
            Some(errors) if (400..600).contains(&status) => {
                if !has_phrase {
                    for (index, (code, _)) in errors.iter().enumerate() {
                        message.push_str(if index == 0 { ": " } else { ", " });
                        message.push_str(code);
                    }
                }
                Error::new(Code::Service, &[&message]).with_service_errors(errors)
            }
            _ => Error::new(
                Code::InvalidResponse,
                &[
                    "the Approov service responded with ",
                    &integer_literal(status.into()),
                    " ",
                    &message,
                    " and ",
                    &kind,
                    ", where error codes in JSON were expected",
                ],
            ),
        };
        error.retryable_if(retryable).with_retry_after(retry_after)
    }

    /// The error of a response to a nonce request that has no usable nonce.
    #[must_use]
    pub fn into_nonce_error(self) -> Error {
        if !self.is_success() {
            return self.into_refusal();
        }
        malformed(&[
            "no usable ",
            NONCE_HEADER,
            " header: a proxy may have removed or doubled it, or Access-Control-Expose-Headers does not name it",
        ])
    }

    /// What a service for development adds for the page: why something went wrong.
    #[must_use]
    pub fn take_notes(&mut self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Body::Json(Json::Object(members)) = &mut self.body
            && let Some(Json::Array(items)) = members.remove(NOTES)
        {
            for item in items {
                if let Json::String(note) = item {
                    notes.push(note);
                }
            }
        }
        notes
    }

    /// The challenge of the ALTCHA check, if the response to a nonce request has one.
    #[must_use]
    pub fn take_challenge(&mut self) -> Option<Challenge> {
        match &mut self.body {
            Body::Json(Json::Object(members)) => Challenge::read(members.take("altcha")?),
            _ => None,
        }
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Error {
    /// Whether the service refused the proof's nonce.
    #[must_use]
    pub fn is_invalid_nonce(&self) -> bool {
        self.has_service_code(INVALID_NONCE)
    }

    /// Whether the service refused the proof for another reason: it was used before, if a browser repeated the request by itself.
    #[must_use]
    pub fn is_invalid_proof(&self) -> bool {
        self.has_service_code(INVALID_PROOF)
    }

    /// Whether the service refused the refresh token.
    #[must_use]
    pub fn is_invalid_refresh_token(&self) -> bool {
        self.has_service_code(INVALID_REFRESH_TOKEN)
    }

    /// Whether the service refused the request only because of the requested APIs: it has not consumed any result.
    #[must_use]
    pub fn is_about_apis(&self) -> bool {
        let errors = self.service_errors();
        !errors.is_empty() && errors.iter().all(|(code, _)| code.starts_with(API_ERROR_PREFIX))
    }

    /// The challenge that has to be solved before the request is served, as the service encoded it.
    #[must_use]
    pub fn required_work(&self) -> Option<&str> {
        self.service_errors().get(WORK_REQUIRED).map(String::as_str)
    }

    fn has_service_code(&self, code: &str) -> bool {
        self.service_errors().get(code).is_some()
    }
}

impl Body {
    /// Reads the bytes of a body of some media type. An object is read as JSON whatever its type: proxies change that. `parse` is a
    /// JSON parser: `None` for what is not JSON, or nests too deeply.
    pub fn read(bytes: Vec<u8>, content_type: &str, parse: impl FnOnce(&str) -> Option<Json>) -> Body {
        if bytes.is_empty() {
            return Body::Empty;
        }
        let Ok(text) = String::from_utf8(bytes) else { return Body::NotText };
        let may_be_json = is_json(content_type) || text.trim_ascii_start().starts_with('{');
        let json = if may_be_json { parse(&text) } else { None };
        json.map_or(Body::Text(text), Body::Json)
    }

    fn kind(&self, content_type: &str) -> String {
        match self {
            Body::Empty => "an empty body".to_owned(),
            Body::Text(_) if content_type.is_empty() => "text".to_owned(),
            Body::Text(_) if is_json(content_type) => "broken JSON".to_owned(),
            Body::Text(_) => ["text of type ", content_type].concat(),
            Body::Json(json) => [json.kind(), " in JSON"].concat(),
            Body::TooLarge => {
                const MAX_KIB: i64 = (MAX_BODY_BYTES / 1024) as i64;
                ["a body of more than ", &integer_literal(MAX_KIB), " KiB"].concat()
            }
            Body::NotText => "a body that is not UTF-8".to_owned(),
        }
    }
}

impl Grant {
    fn parse(members: SmallMap<Json>) -> Result<Grant, Error> {
        let mut members = Members(members);
        let tokens = members.object("tokens")?.try_map(|_, token| match token {
            Json::String(token) if is_token(&token) => Ok(Secret::from(token)),
            other => Err(malformed(&[other.kind(), " as a token"])),
        })?;
        let token_lifetime = members.number("token-lifetime", 0.0, MAX_LIFETIME_SECONDS)?;
        let refresh_token = members.string("refresh-token")?;
        if !is_token(&refresh_token) {
            return Err(malformed(&["an unusable \"refresh-token\""]));
        }
        let expiries = members.object("expiries")?.try_map(|_, moment| moment_of(&moment, "expiries"))?;
        let session_expiry =
            expiries.get(SESSION).copied().ok_or_else(|| malformed(&["no \"session\" among the \"expiries\""]))?;
        let server_time = moment_of(&members.take("server-time")?, "server-time")?;
        Ok(Grant {
            tokens,
            token_lifetime: whole(token_lifetime * 1000.0),
            refresh_token: refresh_token.into(),
            session_expiry,
            expiries,
            server_time,
        })
    }
}

/// The members of a JSON object, which are all required.
struct Members(SmallMap<Json>);

impl Members {
    fn take(&mut self, name: &str) -> Result<Json, Error> {
        self.0.take(name).ok_or_else(|| malformed(&["no \"", name, "\""]))
    }

    fn string(&mut self, name: &str) -> Result<String, Error> {
        match self.take(name)? {
            Json::String(text) => Ok(text),
            other => Err(malformed(&[other.kind(), " as \"", name, "\""])),
        }
    }

    fn object(&mut self, name: &str) -> Result<SmallMap<Json>, Error> {
        match self.take(name)? {
            Json::Object(members) => Ok(members),
            other => Err(malformed(&[other.kind(), " as \"", name, "\""])),
        }
    }

    fn number(&mut self, name: &str, above: f64, up_to: f64) -> Result<f64, Error> {
        match self.take(name)? {
            Json::Number(number) if number > above && number <= up_to => Ok(number),
            Json::Number(_) => Err(malformed(&["a number out of range as \"", name, "\""])),
            other => Err(malformed(&[other.kind(), " as \"", name, "\""])),
        }
    }
}

fn moment_of(value: &Json, name: &str) -> Result<UnixMillis, Error> {
    match value {
        Json::Number(moment) if *moment >= 0.0 && *moment <= MAX_UNIX_MILLIS => Ok(whole(*moment)),
        Json::Number(_) => Err(malformed(&["a moment out of range as \"", name, "\""])),
        other => Err(malformed(&[other.kind(), " as \"", name, "\""])),
    }
}

#[allow(clippy::cast_possible_truncation)] // saturates, and the callers have bounded the value
fn whole(number: f64) -> i64 {
    number as i64
}

/// Whether a media type is JSON's.
fn is_json(content_type: &str) -> bool {
    content_type.ends_with("/json") || content_type.ends_with("+json")
}

/// Whether the text can be a token: not empty, not huge, and only of characters that a header may carry.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 * 1024 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a text has the form of a compact JWS or JWE: three or five parts of base64url.
fn is_compact(token: &str) -> bool {
    let (mut parts, mut previous) = (1, b'.');
    for byte in token.bytes() {
        match byte {
            b'.' if previous != b'.' => parts += 1,
            b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {}
            _ => return false,
        }
        previous = byte;
    }
    previous != b'.' && matches!(parts, 3 | 5)
}

/// The error codes in a body: a flat object of strings, or such an object as the member `errors`.
fn error_map(body: Body) -> Option<SmallMap<String>> {
    let Body::Json(Json::Object(mut members)) = body else { return None };
    let members = match members.take("errors") {
        Some(Json::Object(errors)) => errors,
        Some(_) => return None,
        None => members,
    };
    if members.is_empty() {
        return None;
    }
    members.try_map(|_, detail| if let Json::String(detail) = detail { Ok(detail) } else { Err(()) }).ok()
}

fn malformed(what: &[&str]) -> Error {
    Error::new(Code::InvalidResponse, &["the Approov service sent ", &what.concat()])
}

/// The standard phrase of a status (RFC 9110, section 15), for HTTP/2 and later, which do not send one.
fn reason_phrase(status: u16) -> String {
    match status {
        // What `fetch` shows of a redirect that it does not follow.
        0 => "a redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        other => return ["HTTP ", &integer_literal(other.into())].concat(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::CheckKeys;
    use crate::config::KeyStorage;
    use serde_json::{Value, json};

    fn config() -> Config {
        Config {
            attest_urls: vec!["https://example.com/attest".into()],
            persistent: false,
            site_key: "site key".into(),
            checks: CheckKeys::of(&[("hcaptchaSiteKey", "hc"), ("recaptchaSiteKey", "re"), ("turnstileSiteKey", "tu")]),
            key_storage: KeyStorage::Auto,
        }
    }

    fn response(status: u16, body: &Value) -> Response {
        Response {
            status,
            content_type: "application/json".into(),
            body: Body::Json(Json::decode(body).expect("JSON")),
            ..Response::default()
        }
    }

    fn grant() -> Value {
        json!({
            "tokens": {"api.example.com": "a.b.c"},
            "token-lifetime": 120,
            "refresh-token": "refresh",
            "expiries": {"session": 1_700_007_200_000_u64, "hcap:hc": 1_700_007_200_000_u64},
            "server-time": 1_700_000_000_000_u64,
        })
    }

    #[test]
    fn forms_are_written_as_the_url_standard_says() {
        let awkward: String = (1..0x80u8).map(char::from).chain("é\u{2028}😀".chars()).collect();
        let mut form = Form::default();
        form.append("first", &awkward);
        form.append("second-one", "");
        let mut expected = url::form_urlencoded::Serializer::new(String::new());
        assert_eq!(form.0, expected.append_pair("first", &awkward).append_pair("second-one", "").finish());
    }

    #[test]
    fn a_whole_request_has_the_public_parameter_names() {
        let form = Attest {
            config: &config(),
            apis: &["a.example.com".into(), "b.example.com".into()],
            binding: Some(&[0xff; 32]),
            results: &Results::of(&[("hcaptchaToken", "t&"), ("turnstileToken", "t2")]),
            refresh_token: Some(&"fresh".into()),
        }
        .to_form();
        assert_eq!(
            form,
            "api=a.example.com&api=b.example.com&approov-site-key=site+key\
             &payload=__________________________________________8&refresh-token=fresh\
             &hcaptcha-site-key=hc&hcaptcha-token=t%26&turnstile-site-key=tu&turnstile-token=t2"
        );
    }

    #[test]
    fn site_keys_travel_only_with_a_result() {
        let form = Attest {
            config: &config(),
            apis: &["a".into()],
            binding: None,
            results: &Results::default(),
            refresh_token: Some(&"fresh".into()),
        }
        .to_form();
        assert_eq!(form, "api=a&approov-site-key=site+key&refresh-token=fresh");
    }

    #[test]
    fn a_grant_is_read_whole() {
        let Ok(Granted::Session(grant)) = response(200, &grant()).into_grant() else { panic!("a grant") };
        assert_eq!(grant.tokens.get("api.example.com").map(Secret::expose), Some("a.b.c"));
        assert_eq!(grant.token_lifetime, 120_000);
        assert_eq!(grant.session_expiry, 1_700_007_200_000);
        assert_eq!(grant.expiries.len(), 2);
        assert_eq!(grant.server_time, 1_700_000_000_000);
    }

    #[test]
    fn a_plain_text_response_is_a_bare_token() {
        let plain = |text: &str| Response {
            status: 200,
            content_type: "text/plain".into(),
            body: Body::Text(text.into()),
            ..Response::default()
        };
        let Ok(Granted::Bare(token)) = plain("a.b.c\n").into_grant() else { panic!("a token") };
        assert_eq!(token.expose(), "a.b.c");
        assert!(matches!(plain("a.b.c.d.e-_9").into_grant(), Ok(Granted::Bare(_))));
        for wrong in
            ["", "two words", "<html>\n</html>", "OK", "a.b", "a.b.c.d", "a..c", "a.b.c!", "a.b.c.d.e.f", "{}x.y.z"]
        {
            assert_eq!(plain(wrong).into_grant().expect_err("an error").code(), Code::InvalidResponse);
        }
    }

    #[test]
    fn every_missing_or_absurd_member_is_named() {
        for name in ["tokens", "token-lifetime", "refresh-token", "expiries", "server-time"] {
            let mut without = grant();
            without.as_object_mut().expect("an object").remove(name);
            let error = response(200, &without).into_grant().expect_err("an error");
            assert!(error.code() == Code::InvalidResponse && error.message().contains(name), "{name}: {error}");
            for absurd in [
                json!(null),
                json!(-1),
                json!(1e300),
                json!([]),
                json!(""),
                json!({"session": -1}),
                json!({"a": ""}),
                json!({"a": 5}),
            ] {
                let mut wrong = grant();
                wrong[name] = absurd.clone();
                assert!(response(200, &wrong).into_grant().is_err(), "{name}: {absurd}");
            }
        }
    }

    #[test]
    fn other_successful_responses_are_malformed() {
        let bodies = [
            (Body::Empty, "application/json"),
            (Body::Text("{\"tokens\":".into()), "application/json"),
            (Body::Text("<html>".into()), "text/html"),
            (Body::TooLarge, "application/json"),
            (Body::NotText, "text/plain"),
            (Body::Json(Json::Array(vec![])), "application/json"),
            (Body::Json(Json::Null), "application/json"),
        ];
        for (body, content_type) in bodies {
            let response = Response { status: 200, content_type: content_type.into(), body, ..Response::default() };
            let error = response.into_grant().expect_err("an error");
            assert_eq!(error.code(), Code::InvalidResponse);
            assert!(!error.is_retryable());
        }
    }

    #[test]
    fn error_maps_arrive_unchanged_flat_or_under_errors() {
        let codes = json!({"aprv-no-site-key": "", "rqst-illegal-params": "a, b"});
        for body in [codes.clone(), json!({"message": "m", "errors": codes})] {
            let error = response(400, &body).into_grant().expect_err("an error");
            assert_eq!(error.code(), Code::Service);
            assert_eq!(error.message(), "Bad Request: aprv-no-site-key, rqst-illegal-params");
            let errors: Vec<_> = error.service_errors().iter().collect();
            assert_eq!(errors, [("aprv-no-site-key", &String::new()), ("rqst-illegal-params", &"a, b".to_owned())]);
        }
        let with_text = Response { status_text: "Nope".into(), ..response(400, &codes) };
        assert_eq!(with_text.into_grant().expect_err("an error").message(), "Nope");
    }

    #[test]
    fn failures_without_codes_are_not_service_errors() {
        for body in [json!({}), json!([]), json!({"a": 1}), json!({"errors": "x"}), json!({"errors": {}})] {
            assert_eq!(
                response(500, &body).into_grant().expect_err("an error").code(),
                Code::InvalidResponse,
                "{body}"
            );
        }
        let redirect = response(302, &json!({"a": ""}));
        assert_eq!(redirect.into_grant().expect_err("an error").code(), Code::InvalidResponse);
    }

    #[test]
    fn overload_and_gateway_errors_are_retryable_and_the_rest_is_not() {
        for status in 400..600 {
            let retryable = response(status, &json!({"x": ""})).into_refusal().is_retryable();
            assert_eq!(retryable, [429, 500, 502, 503, 504].contains(&status), "{status}");
        }
    }

    #[test]
    fn special_codes_are_recognised() {
        assert!(response(401, &json!({"aprv-invalid-nonce": ""})).into_refusal().is_invalid_nonce());
        assert!(response(401, &json!({"aprv-invalid-dpop-token": ""})).into_refusal().is_invalid_proof());
        assert!(response(401, &json!({"aprv-invalid-refresh-token": "x"})).into_refusal().is_invalid_refresh_token());
    }

    #[test]
    fn a_response_without_its_nonce_says_what_may_have_become_of_it() {
        for nonce in [None, Some("one, two".to_owned())] {
            let error = Response { status: 204, nonce, ..Response::default() }.into_nonce_error();
            assert_eq!(error.code(), Code::InvalidResponse);
            for part in ["DPoP-Nonce", "proxy", "Access-Control-Expose-Headers"] {
                assert!(error.message().contains(part), "{error}");
            }
        }
        assert_eq!(response(403, &json!({"aprv-x": ""})).into_nonce_error().code(), Code::Service);
        let redirect = Response::default().into_nonce_error();
        assert!(redirect.message().contains("a redirect"), "{redirect}");
    }

    #[test]
    fn no_error_quotes_a_body() {
        for body in [
            json!({"tokens": {"secret": 5}, "token-lifetime": 1}),
            json!({"tokens": {"secret": "two words"}}),
            json!({"tokens": {}, "token-lifetime": 1, "refresh-token": "secret secret"}),
            json!({"tokens": {}, "token-lifetime": 1, "refresh-token": "r", "expiries": {"secret": "x"}}),
            json!({"secret": "secret"}),
        ] {
            let error = response(200, &body).into_grant().expect_err("an error");
            assert!(!error.message().contains("secret"), "{error}");
        }
    }

    #[test]
    fn unusable_nonces_are_ignored() {
        let with = |nonce: &str| Response { nonce: Some(nonce.into()), ..Response::default() };
        assert_eq!(with("abc.DEF-_~").usable_nonce(), Some("abc.DEF-_~"));
        for wrong in ["", "a b", "a\"b", "a\\b", "é", &"x".repeat(5000)] {
            assert_eq!(with(wrong).usable_nonce(), None);
        }
    }

    #[test]
    fn a_body_is_read_by_its_media_type() {
        let read = |bytes: &[u8], content_type| {
            Body::read(bytes.to_vec(), content_type, |text| Json::decode(&serde_json::from_str::<Value>(text).ok()?))
        };
        assert!(matches!(read(b"", "application/json"), Body::Empty));
        assert!(matches!(read(b"[1]", "application/problem+json"), Body::Json(Json::Array(_))));
        assert!(matches!(read(b"[1", "application/json"), Body::Text(text) if text == "[1"));
        assert!(matches!(read(b"[1]", "text/plain"), Body::Text(_)));
        assert!(matches!(read(b"\n {\"a\":1}", "text/plain"), Body::Json(Json::Object(_))), "whatever its type");
        assert!(matches!(read(b"{\"a\":1", ""), Body::Text(_)));
        assert!(matches!(read(&[0xff], "application/json"), Body::NotText));
    }
}
