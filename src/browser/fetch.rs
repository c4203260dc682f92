//! Requests to the service through the browser's `fetch`.

use js_sys::{Date, JSON, Object, Reflect, TypeError};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{AbortController, Headers};

use super::Failure;
use super::built_ins::{self, settled, to_vec};
use super::convert::{object, view};
use crate::driver::Request;
use crate::error::{Code, Error};
use crate::json::Json;
use crate::time::UnixMillis;
use crate::wire::{
    Body, DATE_HEADER, FORM_TYPE, MAX_BODY_BYTES, NONCE_HEADER, PROOF_HEADER, RETRY_AFTER_HEADER, Response, TYPE_HEADER,
};

/// Sends a request and reads the whole response. Dropping the future aborts the request.
///
/// # Errors
/// `network` with what `fetch` threw as the cause.
pub(super) async fn send(request: &Request) -> Result<Response, Failure> {
    let unreachable = |cause| {
        let error = Error::new(Code::Network, &["no response from the Approov service at ", &request.url]);
        Failure::caused_by(error, cause)
    };
    exchange(request).await.map_err(unreachable)
}

async fn exchange(request: &Request) -> Result<Response, JsValue> {
    let aborting = AbortOnDrop(AbortController::new()?);
    let init = request_init(request, &aborting.0);
    let response = settled(&built_ins::fetch(&request.url, &init)?).await?;
    // `fetch` may be a wrapper by the page, so nothing is assumed of what it returns.
    let status = get(&response, "status")?.as_f64().ok_or_else(|| TypeError::new("fetch did not give a Response"))?;
    let headers: Headers = get(&response, "headers")?.unchecked_into();
    let content_type = headers.get(TYPE_HEADER)?.unwrap_or_default();
    let content_type =
        content_type.split_once(';').map_or(&*content_type, |(name, _)| name).trim_ascii().to_ascii_lowercase();
    let date = headers.get(DATE_HEADER)?.and_then(|value| moment(&value));
    Ok(Response {
        status: whole(status),
        status_text: get(&response, "statusText")?.as_string().unwrap_or_default(),
        nonce: headers.get(NONCE_HEADER)?,
        date,
        retry_after: headers.get(RETRY_AFTER_HEADER)?.and_then(|value| pause(&value, date)),
        body: match read_limited(&response).await? {
            Some(bytes) => Body::read(bytes, &content_type, |text| Json::decode(&JSON::parse(text).ok()?)),
            None => Body::TooLarge,
        },
        content_type,
    })
}

/// What `fetch` takes. No `cache` mode: with one, Chromium also forgets the preflight of the nonce request. The service's
/// responses are marked `no-store`. Redirects are not followed; that they are an error would be a TypeError in workerd.
fn request_init(request: &Request, aborting: &AbortController) -> Object {
    let (method, content_type, body) = match &request.form {
        Some(form) => ("POST", FORM_TYPE.into(), form.into()),
        None => ("GET", JsValue::UNDEFINED, JsValue::UNDEFINED),
    };
    let headers = object(&[(PROOF_HEADER, &request.proof.as_str().into()), (TYPE_HEADER, &content_type)]);
    object(&[
        ("method", &method.into()),
        ("headers", &headers),
        ("body", &body),
        ("credentials", &"omit".into()),
        ("redirect", &"manual".into()),
        ("referrerPolicy", &"no-referrer".into()),
        ("signal", &aborting.signal()),
    ])
}

/// The bytes of a body; `None` if there are more than the protocol ever needs.
async fn read_limited(response: &JsValue) -> Result<Option<Vec<u8>>, JsValue> {
    let mut bytes = Vec::new();
    let stream = get(response, "body")?;
    if !stream.is_object() {
        append(&mut bytes, &read_whole(response).await?)?;
        return Ok((bytes.len() <= MAX_BODY_BYTES).then_some(bytes));
    }
    let reader = built_ins::call(&stream, "getReader")?;
    loop {
        let chunk = settled(&built_ins::call(&reader, "read")?).await?;
        if get(&chunk, "done")?.is_truthy() {
            return Ok(Some(bytes));
        }
        append(&mut bytes, &get(&chunk, "value")?)?;
        if bytes.len() > MAX_BODY_BYTES {
            // The request is aborted as soon as this returns.
            return Ok(None);
        }
    }
}

/// The body of a response that has no stream: it is empty, or its class does not know streams.
async fn read_whole(response: &JsValue) -> Result<JsValue, JsValue> {
    for method in ["arrayBuffer", "text"] {
        if get(response, method)?.is_function() {
            return settled(&built_ins::call(response, method)?).await;
        }
    }
    Ok(JsValue::UNDEFINED)
}

/// Appends what a body is made of: bytes of any realm, or text. An error never carries it.
fn append(bytes: &mut Vec<u8>, part: &JsValue) -> Result<(), JsValue> {
    if let Some(text) = part.as_string() {
        bytes.extend_from_slice(text.as_bytes());
    } else if let Some(part) = view(part)? {
        bytes.extend_from_slice(&to_vec(&part));
    } else if !part.is_undefined() {
        return Err(TypeError::new("fetch gave a body that is not of bytes").into());
    }
    Ok(())
}

fn get(object: &JsValue, name: &str) -> Result<JsValue, JsValue> {
    Reflect::get(object, &name.into())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
fn whole(number: f64) -> u16 {
    number as u16
}

#[allow(clippy::cast_possible_truncation)] // bounded by what a Date can hold
fn moment(http_date: &str) -> Option<UnixMillis> {
    let moment = Date::parse(http_date);
    moment.is_finite().then_some(moment as UnixMillis)
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3); in milliseconds from now.
fn pause(value: &str, now: Option<UnixMillis>) -> Option<i64> {
    match value.trim_ascii().parse::<i64>() {
        Ok(seconds) => Some(seconds.saturating_mul(1000)),
        Err(_) => Some(moment(value)?.saturating_sub(now?)),
    }
}

/// Aborts the request when its future is dropped; after the response has been read, this does nothing.
struct AbortOnDrop(AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
