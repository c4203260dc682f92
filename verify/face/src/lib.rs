//! What the npm and the PyPI package have in common: options and requests as JSON, a check in steps, verdicts as JSON.
//!
//! The check stops wherever its host has to do something that only the host can do (read a body, ask Redis, fetch keys), and
//! goes on with the result. Texts of headers have one character for each byte, as HTTP libraries of both languages have them.

mod cors;
mod options;
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
        options::read(options)
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
        let (Store::Redis(commands), Some(checked)) = (&self.store, &mut call.checked) else {
            return self.out_of_order(call);
        };
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
        let _ = checked;
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
