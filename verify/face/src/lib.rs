//! What the npm and the PyPI package have in common: options and requests as JSON, a check in steps, verdicts as JSON.
//!
//! The check stops wherever its host has to do something that only the host can do (read a body, ask Redis, fetch keys), and
//! goes on with the result. Texts of headers have one character for each byte, as HTTP libraries of both languages have them.

pub mod cors;
pub mod options;
mod verdict;

use approov_verify::redis_commands::{Command, RedisCommands};
use approov_verify::replay::{MemoryReplayStore, StoreError};
use approov_verify::time::UnixTime;
use approov_verify::{Body, Checked, Error, PublicUrl, Request, UsedOnce, Verifier};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::collections::VecDeque;

use cors::Cors;

/// A verifier for hosts in other languages.
pub struct Face {
    verifier: Verifier,
    store: Store,
    public_urls: Vec<PublicUrl>,
    cors: Option<Cors>,
}

enum Store {
    Memory(MemoryReplayStore),
    Redis(RedisCommands),
}

/// What the host has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Respond, or go on: the verdict as JSON.
    Done(String),
    /// Read the body and give it to [`Face::body`].
    Body,
    /// Fetch the keys at this URL, give them to [`Face::keys`], and start again.
    Keys(String),
    /// Send this command to Redis and give the response to [`Face::reply`].
    Command(Command),
}

/// A request while it is checked.
pub struct Call {
    now: UnixTime,
    origin: Option<String>,
    checked: Option<Checked>,
    uses: VecDeque<UsedOnce>,
    exchanging: bool,
}

/// A request as its host describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestData {
    method: String,
    /// The URL as the client sees it, where the host knows it.
    url: Option<String>,
    /// The request target as it was received, to be joined to a public URL. `Host` selects among several.
    target: Option<String>,
    headers: Vec<(String, String)>,
    /// Data that the token must be bound to.
    binding: Option<String>,
}

impl Face {
    /// A verifier with these options, a JSON object.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn new(options: &str) -> Result<Self, String> {
        options::face(options)
    }

    /// Begins to check a request, a JSON object. `keys_fetched`: [`Step::Keys`] was done for it.
    ///
    /// # Errors
    /// When the request is not what the host should have given.
    pub fn start(&self, request: &str, now: UnixTime, keys_fetched: bool) -> Result<(Call, Step), String> {
        let data: RequestData = serde_json::from_str(request).map_err(|error| error.to_string())?;
        let headers = read_headers(&data.headers)?;
        let mut call = Call {
            now,
            origin: headers.get(http::header::ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned),
            checked: None,
            uses: VecDeque::new(),
            exchanging: false,
        };
        if let Some(preflight) = self.cors.as_ref().and_then(|cors| cors.preflight(&data.method, &headers)) {
            return Ok((call, Step::Done(preflight)));
        }
        let url = match (&data.url, &data.target) {
            (Some(url), None) => url.clone(),
            (None, Some(target)) => self.url_of(target, &headers),
            _ => return Err("a request has a url, or a target for which there are public URLs".to_owned()),
        };
        let request = Request {
            method: &data.method,
            url: &url,
            headers: &headers,
            body: Body::Unread,
            binding: data.binding.as_ref().map(String::as_bytes),
        };
        if let Some(step) = self.stale_keys(now, keys_fetched) {
            return Ok((call, step));
        }
        match self.verifier.check_head(&request, now) {
            Err(error) if error.is_of_missing_key() && self.keys_due(true, now) && !keys_fetched => {
                Ok((call, Step::Keys(self.keys_url())))
            }
            Err(error) => {
                let step = self.refused(&call, &error);
                Ok((call, step))
            }
            Ok(checked) => {
                let needs_body = checked.needs_body();
                call.checked = Some(checked);
                let step = if needs_body { Step::Body } else { self.after_body(&mut call, &Body::Unread) };
                Ok((call, step))
            }
        }
    }

    /// Goes on with the body.
    pub fn body(&self, call: &mut Call, body: &[u8]) -> Step {
        self.after_body(call, &Body::Bytes(body))
    }

    /// Goes on with a response of Redis, or with the reason why there is none.
    pub fn reply(&self, call: &mut Call, response: Result<i64, String>) -> Step {
        let Store::Redis(commands) = &self.store else { return self.out_of_order(call) };
        if std::mem::take(&mut call.exchanging) {
            return match response {
                Ok(held) => {
                    commands.exchanged(u64::try_from(held).unwrap_or(0));
                    self.next_use(call)
                }
                Err(cause) => self.judge_next(call, Err(StoreError::Unavailable(cause))),
            };
        }
        let Some(used) = call.uses.front() else { return self.out_of_order(call) };
        let check =
            response.map(|response| commands.verdict(response, &used.entry, call.now)).map_err(StoreError::Unavailable);
        self.judge_next(call, check)
    }

    /// Takes fetched keys, or the reason why there are none.
    ///
    /// # Errors
    /// What is wrong with them, for logs. Requests go on with the keys of before.
    pub fn keys(&self, response: Result<&str, String>, now: UnixTime) -> Result<(), String> {
        let keys = self.verifier.remote_keys().ok_or("there is no URL of keys")?;
        keys.take(response, now).map_err(|error| error.to_string())
    }

    /// A refusal by the host itself, such as for a body that is too long, as JSON.
    pub fn refusal(&self, call: &Call, status: u16, code: &str, detail: &str) -> String {
        verdict::problem(self, call, status, code, detail)
    }

    /// Whether a proof for `htu` is one for a request to this URL, or to this target of a public URL. `None`: no proof is.
    ///
    /// # Errors
    /// When the public URL is none.
    pub fn is_same_url(htu: &str, url: &str, target: Option<&str>) -> Result<Option<bool>, String> {
        use approov_verify::uri::HttpUri;
        let same =
            |url: &str| HttpUri::of_request(url).is_ok_and(|url| HttpUri::parse(htu).is_ok_and(|htu| htu == url));
        let Some(target) = target else { return Ok(Some(same(url))) };
        let public_url = PublicUrl::parse(url).map_err(|error| format!("{url:?}: {error}"))?;
        Ok(public_url.request_url(target).ok().map(|url| same(&url)))
    }

    fn url_of(&self, target: &str, headers: &HeaderMap) -> String {
        let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let url = PublicUrl::of_request(&self.public_urls, host);
        url.and_then(|url| url.request_url(target).ok()).unwrap_or_default()
    }

    fn stale_keys(&self, now: UnixTime, keys_fetched: bool) -> Option<Step> {
        (!keys_fetched && self.keys_due(false, now)).then(|| Step::Keys(self.keys_url()))
    }

    fn keys_due(&self, missing: bool, now: UnixTime) -> bool {
        self.verifier.remote_keys().is_some_and(|keys| keys.is_due(missing, now))
    }

    fn keys_url(&self) -> String {
        self.verifier.remote_keys().map(|keys| keys.url().to_owned()).unwrap_or_default()
    }

    fn after_body(&self, call: &mut Call, body: &Body<'_>) -> Step {
        let Some(checked) = &mut call.checked else { return self.out_of_order(call) };
        if let Err(error) = checked.check_message(body) {
            return self.refused(call, &error);
        }
        call.uses = checked.used_once().into();
        self.next_use(call)
    }

    fn next_use(&self, call: &mut Call) -> Step {
        let Some(used) = call.uses.front() else {
            return match call.checked.take() {
                Some(checked) => Step::Done(verdict::good(self, call, checked.verified())),
                None => self.out_of_order(call),
            };
        };
        match &self.store {
            Store::Memory(store) => {
                let check = store.remember_now(used.entry, call.now);
                self.judge_next(call, check)
            }
            Store::Redis(commands) => {
                if let Some(command) = commands.exchange(call.now) {
                    call.exchanging = true;
                    return Step::Command(command);
                }
                match commands.remember(&used.entry, call.now) {
                    Ok(command) => Step::Command(command),
                    Err(error) => self.judge_next(call, Err(error)),
                }
            }
        }
    }

    fn judge_next(&self, call: &mut Call, check: Result<approov_verify::replay::ReplayCheck, StoreError>) -> Step {
        let (Some(used), Some(checked)) = (call.uses.pop_front(), &mut call.checked) else {
            return self.out_of_order(call);
        };
        match checked.judge(&used, check) {
            Ok(()) => self.next_use(call),
            Err(error) => self.refused(call, &error),
        }
    }

    fn refused(&self, call: &Call, error: &Error) -> Step {
        Step::Done(verdict::bad(self, call, error))
    }

    /// The host did a step that was not asked for.
    fn out_of_order(&self, call: &Call) -> Step {
        Step::Done(self.refusal(call, 500, "out_of_order", "the request cannot be checked at the moment"))
    }
}

fn read_headers(fields: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        // HTTP/2's pseudo-headers, which some hosts list.
        if name.starts_with(':') {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no name of a header"))?;
        let bytes: Result<Vec<u8>, _> = value.chars().map(|character| u8::try_from(u32::from(character))).collect();
        let value = bytes.ok().and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
        headers.append(
            &name,
            value.ok_or_else(|| format!("the value of the header {name} has characters that are no bytes"))?,
        );
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn face(more: &Value) -> Face {
        let mut options = json!({"public_url": "https://api.example.com", "secret": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Face::new(&options.to_string()).unwrap()
    }

    fn request(method: &str, headers: &[(&str, &str)]) -> String {
        json!({"method": method, "target": "/order", "headers": headers}).to_string()
    }

    fn verdict(step: &Step) -> Value {
        match step {
            Step::Done(text) => serde_json::from_str(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn code(step: &Step) -> String {
        verdict(step)["code"].as_str().unwrap().to_owned()
    }

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[test]
    fn steps_that_nobody_asked_for_are_refusals() {
        for options in [json!({}), json!({"redis_prefix": "x"})] {
            let face = face(&options);
            let (mut call, step) = face.start(&request("GET", &[]), NOW, false).unwrap();
            assert_eq!(code(&step), "token_missing");
            assert_eq!(code(&face.body(&mut call, b"")), "out_of_order");
            assert_eq!(code(&face.reply(&mut call, Ok(1))), "out_of_order");
            assert_eq!(verdict(&face.reply(&mut call, Ok(1)))["status"], 500);
        }
    }

    #[test]
    fn only_a_preflight_is_let_off_its_token_and_only_where_pages_of_other_origins_are_expected() {
        let cors = face(&json!({"cors": {"origins": ["https://app.example.com"]}}));
        let asks = ("access-control-request-method", "POST");
        let origin = ("origin", "https://app.example.com");
        let code_of = |face: &Face, method: &str, headers: &[(&str, &str)]| {
            code(&face.start(&request(method, headers), NOW, false).unwrap().1)
        };
        assert_eq!(code_of(&cors, "OPTIONS", &[origin, asks]), "preflight");
        assert_eq!(code_of(&cors, "POST", &[origin, asks]), "token_missing");
        assert_eq!(code_of(&cors, "OPTIONS", &[origin]), "token_missing");
        assert_eq!(code_of(&cors, "OPTIONS", &[asks]), "token_missing");
        assert_eq!(code_of(&face(&json!({})), "OPTIONS", &[origin, asks]), "token_missing");
    }

    #[test]
    fn a_preflight_of_another_origin_is_told_nothing() {
        let cors = face(&json!({"cors": {"origins": "https://app.example.com"}}));
        for origin in
            ["https://evil.example", "null", "https://app.example.com.evil.example", "https://APP.example.com"]
        {
            let headers = [("origin", origin), ("access-control-request-method", "POST")];
            let (_, step) = cors.start(&request("OPTIONS", &headers), NOW, false).unwrap();
            assert_eq!(verdict(&step)["headers"], json!({"Vary": "Origin"}), "{origin}");
        }
    }

    #[test]
    fn what_is_no_request_is_an_error_of_the_host() {
        let face = face(&json!({}));
        for text in [
            "",
            "{}",
            r#"{"method": "GET", "headers": []}"#,
            r#"{"method": "GET", "headers": [], "url": "https://a/", "target": "/"}"#,
            r#"{"method": "GET", "headers": [["a b", ""]], "target": "/"}"#,
            r#"{"method": "GET", "headers": [["a", "€"]], "target": "/"}"#,
            r#"{"method": "GET", "headers": [["a", "\n"]], "target": "/"}"#,
            r#"{"method": "GET", "headers": [], "target": "/", "more": 1}"#,
        ] {
            assert!(face.start(text, NOW, false).is_err(), "{text}");
        }
    }

    #[test]
    fn of_several_public_urls_host_selects_one_and_an_unknown_one_none() {
        let face = face(&json!({"public_url": ["https://a.example", "https://b.example/v1"]}));
        let url =
            |host| face.url_of("/order", &[(http::header::HOST, HeaderValue::from_static(host))].into_iter().collect());
        assert_eq!(url("a.example"), "https://a.example/order");
        assert_eq!(url("B.example:443"), "https://b.example/v1/order");
        assert_eq!(url("evil.example"), "");
    }

    #[test]
    fn keys_that_could_not_be_fetched_are_this_server_s_fault_and_are_not_fetched_twice_for_a_request() {
        let options = json!({"public_url": "https://a.example", "jwks_url": "https://service.example/jwks.json"});
        let face = Face::new(&options.to_string()).unwrap();
        let token = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.e30.AAAA";
        let given = request("GET", &[("approov-token", token)]);
        let (_, step) = face.start(&given, NOW, false).unwrap();
        assert_eq!(step, Step::Keys("https://service.example/jwks.json".to_owned()));
        assert!(face.keys(Err("down".to_owned()), NOW).is_err());
        let (_, step) = face.start(&given, NOW, true).unwrap();
        let verdict = verdict(&step);
        assert_eq!((&verdict["status"], &verdict["code"]), (&json!(503), &json!("keys_unavailable")));
        assert_eq!(verdict["detail"], "the request cannot be checked at the moment");
    }
}
