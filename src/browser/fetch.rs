//! Requests to the service through the browser's `fetch`.

use js_sys::{Date, JSON, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, Headers, ReadableStreamDefaultReader, ReferrerPolicy, RequestCredentials, RequestInit,
    RequestMode, RequestRedirect,
};

use super::Failure;
use super::global::global;
use crate::driver::Request;
use crate::error::{Code, Error};
use crate::time::UnixMillis;
use crate::wire::{Body, FORM_TYPE, LARGEST_BODY, NONCE_HEADER, PROOF_HEADER, Response, is_json};

/// Sends a request and reads the whole answer. Dropping the future aborts the request.
///
/// # Errors
/// `network` with what `fetch` threw as the cause.
pub(super) async fn send(request: &Request) -> Result<Response, Failure> {
    let unreachable = |cause| {
        let error = Error::new(Code::Network, format!("no answer from the Approov service at {}", request.url));
        Failure::caused_by(error, cause)
    };
    exchange(request).await.map_err(unreachable)
}

async fn exchange(request: &Request) -> Result<Response, JsValue> {
    let aborting = AbortOnDrop(AbortController::new()?);
    let init = request_init(request, &aborting.0)?;
    let answer = JsFuture::from(global().fetch(&request.url, &init)?).await?;
    let answer: web_sys::Response = answer.unchecked_into();
    let headers = answer.headers();
    let header = |name| headers.get(name).ok().flatten();
    let content_type =
        header("content-type").and_then(|value| Some(value.split(';').next()?.trim().to_ascii_lowercase()));
    let content_type = content_type.unwrap_or_default();
    let date = header("date").and_then(|value| moment(&value));
    Ok(Response {
        status: answer.status(),
        status_text: answer.status_text(),
        nonce: header(NONCE_HEADER),
        date,
        retry_after: header("retry-after").and_then(|value| pause(&value, date)),
        body: body(&answer, &content_type).await?,
        content_type,
    })
}

fn request_init(request: &Request, aborting: &AbortController) -> Result<RequestInit, JsValue> {
    let headers = Headers::new()?;
    headers.set(PROOF_HEADER, &request.proof)?;
    let init = RequestInit::new();
    if let Some(form) = &request.form {
        headers.set("content-type", FORM_TYPE)?;
        init.set_method("POST");
        init.set_body(&form.into());
    }
    init.set_headers(&headers);
    init.set_mode(RequestMode::Cors);
    init.set_credentials(RequestCredentials::Omit);
    // No `cache` mode here: with one, Chromium also forgets the preflight of the nonce request. The service's answers say
    // `no-store` themselves.
    init.set_redirect(RequestRedirect::Error);
    init.set_referrer_policy(ReferrerPolicy::NoReferrer);
    init.set_signal(Some(&aborting.signal()));
    Ok(init)
}

async fn body(answer: &web_sys::Response, content_type: &str) -> Result<Body, JsValue> {
    let Some(bytes) = read_limited(answer).await? else { return Ok(Body::TooLarge) };
    if bytes.is_empty() {
        return Ok(Body::Empty);
    }
    let Ok(text) = String::from_utf8(bytes) else { return Ok(Body::NotText) };
    let json = is_json(content_type)
        .then(|| JSON::parse(&text).ok().and_then(|value| serde_wasm_bindgen::from_value(value).ok()));
    Ok(json.flatten().map_or(Body::Text(text), Body::Json))
}

/// The bytes of a body; `None` if there are more than the protocol ever needs.
async fn read_limited(answer: &web_sys::Response) -> Result<Option<Vec<u8>>, JsValue> {
    let mut bytes = Vec::new();
    let Some(stream) = answer.body() else { return Ok(Some(bytes)) };
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    loop {
        let chunk = JsFuture::from(reader.read()).await?;
        if Reflect::get(&chunk, &"done".into())?.is_truthy() {
            return Ok(Some(bytes));
        }
        let chunk: Uint8Array = Reflect::get(&chunk, &"value".into())?.unchecked_into();
        if bytes.len().saturating_add(chunk.length() as usize) > LARGEST_BODY {
            // The request is aborted as soon as this returns; the stream's own word on it is of no interest.
            drop(reader.cancel());
            return Ok(None);
        }
        bytes.extend(chunk.to_vec());
    }
}

#[allow(clippy::cast_possible_truncation)] // bounded by what a Date can hold
fn moment(http_date: &str) -> Option<UnixMillis> {
    let moment = Date::parse(http_date);
    moment.is_finite().then_some(moment as UnixMillis)
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3); in milliseconds from now.
fn pause(value: &str, now: Option<UnixMillis>) -> Option<i64> {
    match value.trim().parse::<i64>() {
        Ok(seconds) => Some(seconds.saturating_mul(1000)),
        Err(_) => Some(moment(value)?.saturating_sub(now?)),
    }
}

/// Aborts the request when its future is dropped; after the answer has been read, this does nothing.
struct AbortOnDrop(AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
