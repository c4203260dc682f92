//! Between JavaScript values and the SDK's own types. All decoding of arguments is here.

use std::cell::RefCell;

use js_sys::{Array, ArrayBuffer, JSON, Object, Reflect, Uint8Array};
use serde::{Serialize, Serializer};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{DomException, Url};

use super::Failure;
use super::signal::Abort;
use crate::argument::Argument;
use crate::config::Options;
use crate::dpop::{self, Claims, Method};
use crate::error::{Class, Code, Error};
use crate::json::{Json, integer_literal};
use crate::named::Named;
use crate::secret::Secret;
use crate::time::UnixMillis;
use crate::token_request::{Arguments, FINGERPRINT_MEMBERS, HCAPTCHA_MEMBERS};

#[wasm_bindgen]
extern "C" {
    /// `Object.prototype.toString`: what an object is, in whichever realm it was made.
    #[wasm_bindgen(catch, js_namespace = ["Object", "prototype", "toString"], js_name = call)]
    fn object_tag(value: &JsValue) -> Result<String, JsValue>;

    /// `Array.isArray`, which throws for a proxy that has been revoked.
    #[wasm_bindgen(catch, js_namespace = Array, js_name = isArray)]
    fn is_array_or_throws(value: &JsValue) -> Result<bool, JsValue>;

    /// `Uint8Array`, with a constructor that may throw: the buffer may be detached.
    #[wasm_bindgen(js_name = Uint8Array, extends = Uint8Array)]
    type View;

    #[wasm_bindgen(constructor, catch, js_class = "Uint8Array")]
    fn of_buffer(buffer: &JsValue) -> Result<View, JsValue>;

    #[wasm_bindgen(constructor, catch, js_class = "Uint8Array")]
    fn of_part(buffer: &JsValue, offset: &JsValue, length: &JsValue) -> Result<View, JsValue>;

    /// The options of `fetchToken`. Named here, because a name that is passed costs a string each time; a getter may throw.
    type TokenOptions;

    #[wasm_bindgen(method, getter, catch)]
    fn payload(this: &TokenOptions) -> Result<Option<JsValue>, JsValue>;

    #[wasm_bindgen(method, getter, catch, js_name = fingerprintIDResult)]
    fn fingerprint_id_result(this: &TokenOptions) -> Result<Option<JsValue>, JsValue>;

    #[wasm_bindgen(method, getter, catch, js_name = hcaptchaToken)]
    fn hcaptcha_token(this: &TokenOptions) -> Result<Option<JsValue>, JsValue>;

    #[wasm_bindgen(method, getter, catch, js_name = recaptchaToken)]
    fn recaptcha_token(this: &TokenOptions) -> Result<Option<JsValue>, JsValue>;

    #[wasm_bindgen(method, getter, catch)]
    fn timeout(this: &TokenOptions) -> Result<Option<JsValue>, JsValue>;

    #[wasm_bindgen(method, getter, catch)]
    fn signal(this: &TokenOptions) -> Result<Option<JsValue>, JsValue>;
}

/// The options of `initializeSession`.
pub(super) fn options(value: &JsValue) -> Result<Options, Failure> {
    let Some(object) = optional_object("options", value)? else { return Ok(Options::default()) };
    let mut options = Options::default();
    let names = Reflect::own_keys(object)
        .map_err(|cause| Failure::caused_by(Error::invalid_argument(&["\"options\" could not be read"]), cause))?;
    for name in names {
        if let Some(name) = name.as_string()
            && !member(object, &name)?.is_undefined()
        {
            options.given_names.push(name);
        }
    }
    for (name, option) in [
        ("approovHost", &mut options.approov_host),
        ("approovSiteKey", &mut options.approov_site_key),
        ("fingerprintPublicAPIKey", &mut options.fingerprint_public_api_key),
        ("hcaptchaSiteKey", &mut options.hcaptcha_site_key),
        ("recaptchaSiteKey", &mut options.recaptcha_site_key),
        ("keyStorage", &mut options.key_storage),
    ] {
        *option = argument(name, &member(object, name)?, &[])?;
    }
    Ok(options)
}

/// The arguments of `fetchToken`, and its signal as given.
pub(super) fn token_arguments(api: &JsValue, options: &JsValue) -> Result<(Arguments, JsValue), Failure> {
    let api = argument("api", api, &[])?;
    let Some(object) = optional_object("options", options)? else {
        return Ok((Arguments { api, ..Arguments::default() }, JsValue::UNDEFINED));
    };
    let options: &TokenOptions = object.unchecked_ref();
    let option = |name, value: Result<Option<JsValue>, JsValue>, members| match readable(name, value)? {
        Some(value) => argument(name, &value, members),
        None => Ok(Argument::Absent),
    };
    let signal = readable("signal", options.signal())?.unwrap_or(JsValue::UNDEFINED);
    let arguments = Arguments {
        api,
        payload: option("payload", options.payload(), &[])?,
        fingerprint_id_result: option("fingerprintIDResult", options.fingerprint_id_result(), &FINGERPRINT_MEMBERS)?,
        hcaptcha_token: option("hcaptchaToken", options.hcaptcha_token(), &HCAPTCHA_MEMBERS)?,
        recaptcha_token: option("recaptchaToken", options.recaptcha_token(), &[])?,
        timeout: option("timeout", options.timeout(), &[])?,
        unusable_signal: if Abort::can_listen(&signal) { Argument::Absent } else { argument("signal", &signal, &[])? },
    };
    Ok((arguments, signal))
}

/// The arguments of `getDPoPToken`.
pub(super) fn claims(
    method: &JsValue,
    uri: &JsValue,
    nonce: &JsValue,
    token: &JsValue,
    message_signature: &JsValue,
) -> Result<Claims, Failure> {
    let method = Method::parse(&text("method", method)?)?;
    Ok(Claims {
        method,
        url: http_url(text("uri", uri)?)?,
        nonce: if nonce.is_truthy() { Some(json_text("nonce", nonce)?) } else { None },
        token: truthy_text("token", token)?.map(Secret::from),
        message_signature: truthy_text("messageSignature", message_signature)?,
    })
}

/// The `htu` of a URI. That of the last proof is kept: pages ask the same address again and again, and parsing one is a quarter
/// of what a proof costs Firefox beside the signature.
fn http_url(uri: String) -> Result<String, Error> {
    thread_local! {
        static LAST: RefCell<(String, String)> = const { RefCell::new((String::new(), String::new())) };
    }
    LAST.with_borrow_mut(|last| {
        if last.0 != uri {
            let href = Url::new(&uri).ok().map(|url| url.href());
            let url = dpop::http_url(&uri, href)?;
            *last = (uri, url);
        }
        Ok(last.1.clone())
    })
}

/// A copy of the message of `messageSignature`.
pub(super) fn message(value: &JsValue) -> Result<Uint8Array, Failure> {
    if let Some(bytes) = buffer_copy("message", value)? {
        return Ok(bytes);
    }
    if is_array(value) {
        return bytes_of_array(value.unchecked_ref());
    }
    let got = argument("message", value, &[])?.kind();
    let expected = "an ArrayBuffer, a view such as Uint8Array, or an array of bytes";
    let hint = if value.is_string() { " (encode text with new TextEncoder().encode(text))" } else { "" };
    Err(Error::invalid_argument(&["\"message\" must be ", expected, ", got ", got, hint]).into())
}

/// What `getExpiries` resolves to.
pub(super) fn expiries(expiries: Vec<(String, UnixMillis)>) -> Result<JsValue, Failure> {
    #[allow(clippy::cast_precision_loss)] // far below 2^53
    object_of(expiries.into_iter().map(|(name, moment)| (name, moment as f64)))
}

/// A failure as the facade takes it: the class of the error to be made, and its properties.
pub(super) fn failure(failure: Failure) -> JsValue {
    let Failure { error, cause } = failure;
    let class = error.code().class();
    let cause = cause.or_else(|| match error.code() {
        Code::Timeout => {
            DomException::new_with_message_and_name(error.message(), "TimeoutError").ok().map(JsValue::from)
        }
        _ => None,
    });
    let errors = match class {
        Class::Service => object_of(error.service_errors().iter()).ok(),
        Class::Session if !error.service_errors().is_empty() => object_of(error.service_errors().iter()).ok(),
        Class::Fetch => cause.clone(),
        Class::Approov | Class::Session => None,
    };
    object(&[
        ("class", &class.as_str().into()),
        ("code", &error.code().as_str().into()),
        ("message", &error.message().into()),
        ("retryable", &error.is_retryable().into()),
        ("cause", &cause.unwrap_or_default()),
        ("errors", &errors.unwrap_or_default()),
    ])
    .into()
}

/// A plain object with these members, without those that are `undefined`.
#[inline(never)]
pub(super) fn object(members: &[(&str, &JsValue)]) -> Object {
    let object = Object::new();
    for (name, value) in members {
        if !value.is_undefined() {
            // Setting a property of a plain object that was just made cannot fail.
            let _set = Reflect::set(&object, &(*name).into(), value);
        }
    }
    object
}

/// What `JSON.parse` made of an answer; `None` if it nests more than `deeper` levels. Walked here, and not decoded by
/// serde-wasm-bindgen, which would more than double what a page downloads for it (15 kB after brotli).
pub(super) fn json(value: &JsValue, deeper: u8) -> Option<Json> {
    if let Some(text) = value.as_string() {
        return Some(Json::String(text));
    }
    if let Some(number) = value.as_f64() {
        return Some(Json::Number(number));
    }
    if value.is_null() {
        return Some(Json::Null);
    }
    if let Some(truth) = value.as_bool() {
        return Some(Json::Bool(truth));
    }
    let deeper = deeper.checked_sub(1)?;
    if is_array(value) {
        let mut items = Vec::new();
        for item in value.unchecked_ref::<Array>().iter() {
            items.push(json(&item, deeper)?);
        }
        return Some(Json::Array(items));
    }
    let mut members = Named::default();
    for name in Reflect::own_keys(value).ok()? {
        members.insert(name.as_string()?, json(&Reflect::get(value, &name).ok()?, deeper)?);
    }
    Some(Json::Object(members))
}

fn optional_object<'a>(name: &str, value: &'a JsValue) -> Result<Option<&'a Object>, Failure> {
    if value.is_undefined() || value.is_null() {
        return Ok(None);
    }
    if value.is_object() && !is_array(value) {
        return Ok(Some(value.unchecked_ref()));
    }
    let got = argument(name, value, &[])?.kind();
    Err(Error::invalid_argument(&["\"", name, "\" must be an object, got ", got]).into())
}

fn member(object: &JsValue, name: &str) -> Result<JsValue, Failure> {
    readable(name, Reflect::get(object, &name.into()))
}

/// The value of a member, unless reading it threw.
fn readable<T>(name: &str, value: Result<T, JsValue>) -> Result<T, Failure> {
    value.map_err(|cause| Failure::caused_by(Error::invalid_argument(&["\"", name, "\" could not be read"]), cause))
}

/// Decodes one argument; of an object, those members that are asked for.
fn argument(name: &str, value: &JsValue, members: &[&'static str]) -> Result<Argument, Failure> {
    if value.is_undefined() || value.is_null() {
        return Ok(Argument::Absent);
    }
    if let Some(text) = value.as_string() {
        return Ok(Argument::Text(text));
    }
    if let Some(number) = value.as_f64() {
        return Ok(Argument::Number(number));
    }
    if let Some(bytes) = buffer_copy(name, value)? {
        return Ok(Argument::Bytes(bytes.to_vec()));
    }
    Ok(match value {
        _ if value.as_bool().is_some() => Argument::Other("a boolean"),
        _ if value.is_bigint() => Argument::Other("a BigInt"),
        _ if value.is_symbol() => Argument::Other("a symbol"),
        _ if value.is_function() => Argument::Other("a function"),
        _ if is_array(value) => Argument::Other("an array"),
        _ if tag(value) == "[object Promise]" => Argument::Other("a promise (is an await missing?)"),
        _ if members.is_empty() => Argument::Other("an object"),
        _ => {
            let mut read = Vec::new();
            for &name in members {
                read.push((name, argument(name, &member(value, name)?, &[])?));
            }
            Argument::Object(read)
        }
    })
}

fn text(name: &str, value: &JsValue) -> Result<String, Failure> {
    match argument(name, value, &[])? {
        Argument::Text(text) if !text.is_empty() => Ok(text),
        other => {
            Err(Error::invalid_argument(&["\"", name, "\" must be a non-empty string, got ", other.kind()]).into())
        }
    }
}

fn truthy_text(name: &str, value: &JsValue) -> Result<Option<String>, Failure> {
    if value.is_truthy() { text(name, value).map(Some) } else { Ok(None) }
}

/// A value as JSON text.
fn json_text(name: &str, value: &JsValue) -> Result<String, Failure> {
    let error = || Error::invalid_argument(&["\"", name, "\" must be a value that JSON can carry"]);
    let text = JSON::stringify(value).map_err(|cause| Failure::caused_by(error(), cause))?;
    match text.as_string() {
        // `undefined` for a function or symbol; "null" for a number that is not finite.
        Some(text) if text != "null" => Ok(text),
        _ => Err(error().into()),
    }
}

/// A copy of a buffer, or of what a view shows of one; `None` for what is neither.
fn buffer_copy(name: &str, value: &JsValue) -> Result<Option<Uint8Array>, Failure> {
    if !value.is_object() {
        return Ok(None);
    }
    let view = if ArrayBuffer::is_view(value) {
        let buffer = member(value, "buffer")?;
        View::of_buffer(&buffer)
            .and_then(|_| View::of_part(&buffer, &member_or(value, "byteOffset"), &member_or(value, "byteLength")))
    } else if matches!(tag(value).as_str(), "[object ArrayBuffer]" | "[object SharedArrayBuffer]") {
        View::of_buffer(value)
    } else {
        return Ok(None);
    };
    match view {
        // `slice` copies into a buffer of its own, which is never shared.
        Ok(view) => Ok(Some(view.slice(0, view.length()))),
        Err(cause) => {
            let error = Error::invalid_argument(&["\"", name, "\" is a buffer that can no longer be read (detached)"]);
            Err(Failure::caused_by(error, cause))
        }
    }
}

fn is_array(value: &JsValue) -> bool {
    is_array_or_throws(value).unwrap_or(false)
}

fn tag(value: &JsValue) -> String {
    object_tag(value).unwrap_or_default()
}

fn member_or(value: &JsValue, name: &str) -> JsValue {
    Reflect::get(value, &name.into()).unwrap_or(JsValue::UNDEFINED)
}

fn bytes_of_array(array: &Array) -> Result<Uint8Array, Failure> {
    let mut bytes = Vec::new();
    for (index, item) in array.iter().enumerate() {
        match item.as_f64() {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked right here
            Some(byte) if (0.0..=255.0).contains(&byte) && byte.fract() == 0.0 => bytes.push(byte as u8),
            _ => {
                let index = integer_literal(i64::try_from(index).unwrap_or(i64::MAX));
                return Err(Error::invalid_argument(&[
                    "\"message\" must be an array of whole numbers from 0 to 255, but item ",
                    &index,
                    " is not one",
                ])
                .into());
            }
        }
    }
    Ok(Uint8Array::from(bytes.as_slice()))
}

/// A plain object with these members.
fn object_of<N: Serialize, V: Serialize>(members: impl Iterator<Item = (N, V)>) -> Result<JsValue, Failure> {
    serde_wasm_bindgen::Serializer::json_compatible()
        .collect_map(members)
        .map_err(|cause| Failure::caused_by(Error::new(Code::Internal, &["an object could not be made"]), cause.into()))
}
