//! The wire protocol: every name that travels, what is sent, and how answers are read (docs/PROTOCOL.md).
//!
//! The session protocol of the hosted service is not public. To speak another dialect, change this file.

use crate::config::Config;
use crate::error::{Code, Error};
use crate::json::{Json, integer_literal};
use crate::jws::base64url;
use crate::named::Named;
use crate::secret::Secret;
use crate::time::UnixMillis;
use crate::token_request::{Binding, Results};

/// The request header with the proof.
pub const PROOF_HEADER: &str = "DPoP";
/// The answer header with the nonce for the next proof.
pub const NONCE_HEADER: &str = "DPoP-Nonce";
/// The media type of an attest request.
pub const FORM_TYPE: &str = "application/x-www-form-urlencoded";
/// An answer's body may be this long, in bytes.
pub const LARGEST_BODY: usize = 256 * 1024;

const INVALID_NONCE: &str = "aprv-invalid-nonce";
const INVALID_REFRESH_TOKEN: &str = "aprv-invalid-refresh-token";
/// With this begin the codes for APIs that a request must not ask for.
const UNUSABLE_API: &str = "aprv-api-";
/// The name of the session's own expiry among the expiries.
pub const SESSION: &str = "session";
/// Lifetimes beyond ten years are taken for nonsense.
const LONGEST_LIFETIME: f64 = 315_360_000.0;
/// Moments beyond the year 9999 are taken for nonsense.
const LATEST_MOMENT: f64 = 253_402_300_799_999.0;

/// An attest request, but for its proof.
#[derive(Debug)]
pub struct Attest<'a> {
    /// The site key, and the public keys of the check services.
    pub config: &'a Config,
    /// The domains of the APIs that tokens are wanted for.
    pub apis: &'a [String],
    /// The hash to bind the tokens to.
    pub binding: Option<&'a Binding>,
    /// The results to be looked up.
    pub results: &'a Results,
    /// The refresh token of the last answer.
    pub refresh_token: Option<&'a Secret>,
}

/// An answer of the service, as the browser edge hands it over.
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

/// The body of an answer.
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// None was read.
    #[default]
    Empty,
    /// Text that is not JSON.
    Text(String),
    /// JSON, decoded.
    Json(Json),
    /// More than [`LARGEST_BODY`].
    TooLarge,
    /// Not UTF-8.
    NotText,
}

/// A successful answer to an attest request.
#[derive(Debug)]
pub enum Granted {
    /// Tokens and what continues the session.
    Session(Grant),
    /// One bare token without a session: the older public form of the service.
    Bare(Secret),
}

/// Tokens and what continues the session.
#[derive(Debug)]
pub struct Grant {
    /// A token per API.
    pub tokens: Named<Secret>,
    /// How long the tokens live, in milliseconds.
    pub token_lifetime: i64,
    /// What the next request continues the session with.
    pub refresh_token: Secret,
    /// When the session ends, by the service's clock.
    pub session_expiry: UnixMillis,
    /// When the session and each check result end, by the service's clock, under the names that `getExpiries` shows.
    pub expiries: Named<UnixMillis>,
    /// The service's clock when it answered.
    pub server_time: UnixMillis,
}

impl Attest<'_> {
    /// The request's body.
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
        if let (Some(key), Some(result)) = (&self.config.checks.fingerprint, &self.results.fingerprint) {
            form.append("fingerprintjs-token", key);
            form.append("fingerprintjs-visitor-id", result.visitor_id.expose());
            form.append("fingerprintjs-request-id", result.request_id.expose());
        }
        if let (Some(key), Some(result)) = (&self.config.checks.hcaptcha, &self.results.hcaptcha) {
            form.append("hcaptcha-site-key", key);
            form.append("hcaptcha-token", result.token.expose());
            if let Some(challenge) = &result.key {
                form.append("hcaptcha-key", challenge.expose());
            }
            if let Some(host) = &result.host {
                form.append("hcaptcha-host", host);
            }
        }
        if let (Some(key), Some(token)) = (&self.config.checks.recaptcha, &self.results.recaptcha) {
            form.append("recaptcha-site-key", key);
            form.append("recaptcha-token", token.expose());
        }
        form.0
    }
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

    /// Reads the answer to an attest request.
    ///
    /// # Errors
    /// `service` with the service's error map, or `invalid-response` for an answer that the protocol does not know.
    pub fn into_granted(self) -> Result<Granted, Error> {
        if !self.is_success() {
            return Err(self.into_refusal());
        }
        match self.body {
            Body::Json(Json::Object(members)) => Grant::parse(members).map(Granted::Session),
            Body::Text(text) if self.content_type == "text/plain" => {
                let token = text.trim_ascii();
                if is_token(token) {
                    Ok(Granted::Bare(token.into()))
                } else {
                    Err(malformed(&["a text that is not a token"]))
                }
            }
            body => Err(malformed(&[&body.kind(&self.content_type), ", where a JSON object was expected"])),
        }
    }

    /// The error that an unsuccessful answer stands for.
    #[must_use]
    pub fn into_refusal(self) -> Error {
        let Response { status, status_text, content_type, body, .. } = self;
        let retryable = matches!(status, 429 | 500 | 502..=504);
        let message = if status_text.is_empty() { reason_phrase(status) } else { status_text };
        let kind = body.kind(&content_type);
        let error = match error_map(body) {
            Some(errors) if (400..600).contains(&status) => {
                Error::new(Code::Service, &[&message]).with_service_errors(errors)
            }
            _ => Error::new(
                Code::InvalidResponse,
                &[
                    "the Approov service answered ",
                    &integer_literal(status.into()),
                    " ",
                    &message,
                    " with ",
                    &kind,
                    ", where error codes in JSON were expected",
                ],
            ),
        };
        error.retryable_if(retryable)
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

    /// Whether the service refused the refresh token.
    #[must_use]
    pub fn is_invalid_refresh_token(&self) -> bool {
        self.has_service_code(INVALID_REFRESH_TOKEN)
    }

    /// Whether the service refused the request only for the APIs that it asks for: it has not looked at any result.
    #[must_use]
    pub fn is_about_apis(&self) -> bool {
        let errors = self.service_errors();
        !errors.is_empty() && errors.iter().all(|(code, _)| code.starts_with(UNUSABLE_API))
    }

    fn has_service_code(&self, code: &str) -> bool {
        self.service_errors().get(code).is_some()
    }
}

impl Body {
    fn kind(&self, content_type: &str) -> String {
        match self {
            Body::Empty => "an empty body".to_owned(),
            Body::Text(_) if content_type.is_empty() => "text".to_owned(),
            Body::Text(_) if is_json(content_type) => "broken JSON".to_owned(),
            Body::Text(_) => ["text of type ", content_type].concat(),
            Body::Json(json) => [json.kind(), " in JSON"].concat(),
            Body::TooLarge => "a body of more than 256 KiB".to_owned(),
            Body::NotText => "a body that is not UTF-8".to_owned(),
        }
    }
}

impl Grant {
    fn parse(members: Named<Json>) -> Result<Grant, Error> {
        let mut members = Members(members);
        let tokens = members.object("tokens")?.try_map(|api, token| match token {
            Json::String(token) if is_token(&token) => Ok(Secret::from(token)),
            other => Err(malformed(&[other.kind(), " as the token for \"", api, "\""])),
        })?;
        let token_lifetime = members.number("token-lifetime", 0.0, LONGEST_LIFETIME)?;
        let refresh_token = members.string("refresh-token")?;
        if !is_token(&refresh_token) {
            return Err(malformed(&["an unusable \"refresh-token\""]));
        }
        let expiries = members.object("expiries")?.try_map(|name, moment| moment_of(&moment, name))?;
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

/// The members of a JSON object that has to have them.
struct Members(Named<Json>);

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

    fn object(&mut self, name: &str) -> Result<Named<Json>, Error> {
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
        Json::Number(moment) if *moment >= 0.0 && *moment <= LATEST_MOMENT => Ok(whole(*moment)),
        Json::Number(_) => Err(malformed(&["a moment out of range as \"", name, "\""])),
        other => Err(malformed(&[other.kind(), " as \"", name, "\""])),
    }
}

#[allow(clippy::cast_possible_truncation)] // saturates, and the callers bound the value
fn whole(number: f64) -> i64 {
    number as i64
}

/// Whether a media type says that the text is JSON.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    content_type.ends_with("/json") || content_type.ends_with("+json")
}

/// Whether the text can be a token: not empty, not huge, and only of characters that a header may carry.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 * 1024 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The error codes in a body: a flat object of strings, or such an object as the member `errors`.
fn error_map(body: Body) -> Option<Named<String>> {
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

/// The standard phrase of a status (RFC 9110, section 15), for HTTP/2 and later, which have none.
fn reason_phrase(status: u16) -> String {
    match status {
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
    use crate::config::{CheckKeys, KeyStorage};
    use crate::token_request::{FingerprintResult, HcaptchaResult};
    use serde_json::{Value, json};

    fn config() -> Config {
        Config {
            attest_url: "https://example.com/attest".into(),
            site_key: "site key".into(),
            checks: CheckKeys {
                fingerprint: Some("fp".into()),
                hcaptcha: Some("hc".into()),
                recaptcha: Some("re".into()),
            },
            key_storage: KeyStorage::Auto,
        }
    }

    fn response(status: u16, body: &Value) -> Response {
        Response {
            status,
            content_type: "application/json".into(),
            body: Body::Json(serde_json::from_value(body.clone()).expect("JSON")),
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
            results: &Results {
                fingerprint: Some(FingerprintResult { visitor_id: "v".into(), request_id: "q".into() }),
                hcaptcha: Some(HcaptchaResult {
                    token: "t&".into(),
                    key: Some("k".into()),
                    host: Some("example.com".into()),
                }),
                recaptcha: Some("r".into()),
            },
            refresh_token: Some(&"fresh".into()),
        }
        .to_form();
        assert_eq!(
            form,
            "api=a.example.com&api=b.example.com&approov-site-key=site+key\
             &payload=__________________________________________8&refresh-token=fresh\
             &fingerprintjs-token=fp&fingerprintjs-visitor-id=v&fingerprintjs-request-id=q\
             &hcaptcha-site-key=hc&hcaptcha-token=t%26&hcaptcha-key=k&hcaptcha-host=example.com\
             &recaptcha-site-key=re&recaptcha-token=r"
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
        let Ok(Granted::Session(grant)) = response(200, &grant()).into_granted() else { panic!("a grant") };
        assert_eq!(grant.tokens.get("api.example.com").map(Secret::expose), Some("a.b.c"));
        assert_eq!(grant.token_lifetime, 120_000);
        assert_eq!(grant.session_expiry, 1_700_007_200_000);
        assert_eq!(grant.expiries.len(), 2);
        assert_eq!(grant.server_time, 1_700_000_000_000);
    }

    #[test]
    fn a_plain_text_answer_is_a_bare_token() {
        let plain = |text: &str| Response {
            status: 200,
            content_type: "text/plain".into(),
            body: Body::Text(text.into()),
            ..Response::default()
        };
        let Ok(Granted::Bare(token)) = plain("a.b.c\n").into_granted() else { panic!("a token") };
        assert_eq!(token.expose(), "a.b.c");
        for wrong in ["", "two words", "<html>\n</html>"] {
            assert_eq!(plain(wrong).into_granted().expect_err("an error").code(), Code::InvalidResponse);
        }
    }

    #[test]
    fn every_missing_or_absurd_member_is_named() {
        for name in ["tokens", "token-lifetime", "refresh-token", "expiries", "server-time"] {
            let mut without = grant();
            without.as_object_mut().expect("an object").remove(name);
            let error = response(200, &without).into_granted().expect_err("an error");
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
                assert!(response(200, &wrong).into_granted().is_err(), "{name}: {absurd}");
            }
        }
    }

    #[test]
    fn other_successful_answers_are_malformed() {
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
            let answer = Response { status: 200, content_type: content_type.into(), body, ..Response::default() };
            let error = answer.into_granted().expect_err("an error");
            assert_eq!(error.code(), Code::InvalidResponse);
            assert!(!error.is_retryable());
        }
    }

    #[test]
    fn error_maps_arrive_unchanged_flat_or_under_errors() {
        let codes = json!({"aprv-no-site-key": "", "rqst-illegal-params": "a, b"});
        for body in [codes.clone(), json!({"message": "m", "errors": codes})] {
            let error = response(400, &body).into_granted().expect_err("an error");
            assert_eq!(error.code(), Code::Service);
            assert_eq!(error.message(), "Bad Request");
            let errors: Vec<_> = error.service_errors().iter().collect();
            assert_eq!(errors, [("aprv-no-site-key", &String::new()), ("rqst-illegal-params", &"a, b".to_owned())]);
        }
        let with_text = Response { status_text: "Nope".into(), ..response(400, &codes) };
        assert_eq!(with_text.into_granted().expect_err("an error").message(), "Nope");
    }

    #[test]
    fn failures_without_codes_are_not_service_errors() {
        for body in [json!({}), json!([]), json!({"a": 1}), json!({"errors": "x"}), json!({"errors": {}})] {
            assert_eq!(
                response(500, &body).into_granted().expect_err("an error").code(),
                Code::InvalidResponse,
                "{body}"
            );
        }
        let redirect = response(302, &json!({"a": ""}));
        assert_eq!(redirect.into_granted().expect_err("an error").code(), Code::InvalidResponse);
    }

    #[test]
    fn overload_and_gateway_troubles_are_retryable_and_the_rest_is_not() {
        for status in 400..600 {
            let retryable = response(status, &json!({"x": ""})).into_refusal().is_retryable();
            assert_eq!(retryable, [429, 500, 502, 503, 504].contains(&status), "{status}");
        }
    }

    #[test]
    fn special_codes_are_recognised() {
        assert!(response(401, &json!({"aprv-invalid-nonce": ""})).into_refusal().is_invalid_nonce());
        assert!(response(401, &json!({"aprv-invalid-refresh-token": "x"})).into_refusal().is_invalid_refresh_token());
    }

    #[test]
    fn unusable_nonces_are_ignored() {
        let with = |nonce: &str| Response { nonce: Some(nonce.into()), ..Response::default() };
        assert_eq!(with("abc.DEF-_~").usable_nonce(), Some("abc.DEF-_~"));
        for wrong in ["", "a b", "a\"b", "a\\b", "é", &"x".repeat(5000)] {
            assert_eq!(with(wrong).usable_nonce(), None);
        }
    }
}
