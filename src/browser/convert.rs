//! Between JavaScript values and the SDK's own types. All decoding of arguments is here.

use js_sys::{Array, ArrayBuffer, JSON, Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::DomException;

use super::Failure;
use super::signal::Abort;
use crate::argument::{Argument, Text};
use crate::config::{OPTIONS, SessionArguments};
use crate::dpop::ProofArguments;
use crate::error::{Class, Code, Error};
use crate::json::{Json, Parsed, integer_literal};
use crate::time::UnixMillis;
use crate::token_request::{FINGERPRINT_MEMBERS, HCAPTCHA_MEMBERS, TokenArguments};

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

    /// The options of `fetchToken`, one import each: a name that is passed costs a string each time. A getter may throw.
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

/// The options of `initializeSession`, and the values of those in [`OPTIONS`] as they came.
pub(super) fn session_arguments(value: &JsValue) -> Result<(SessionArguments, Vec<JsValue>), Failure> {
    let mut arguments = SessionArguments::default();
    let mut values = Vec::new();
    let Some(object) = optional_object("options", value)? else { return Ok((arguments, values)) };
    let names = Reflect::own_keys(object)
        .map_err(|cause| Failure::caused_by(Error::invalid_argument(&["\"options\" could not be read"]), cause))?;
    for name in names {
        if let Some(name) = name.as_string()
            && !member(object, &name)?.is_undefined()
        {
            arguments.given_names.push(name);
        }
    }
    for (name, slot) in OPTIONS.into_iter().zip(arguments.slots()) {
        let value = member(object, name)?;
        *slot = argument(name, &value, &[])?;
        values.push(value);
    }
    Ok((arguments, values))
}

/// Notes the options of a session in an object that outlives this instance: all of them, or those that were given.
pub(super) fn remember(memory: &JsValue, values: &[JsValue], all: bool) {
    for (name, value) in OPTIONS.into_iter().zip(values) {
        if all || !value.is_undefined() {
            set(memory, name, value);
        }
    }
}

/// The arguments of `fetchToken`, and its signal, which is listened to from now on.
///
/// # Errors
/// Those of [`Abort::listen`], too.
pub(super) fn token_arguments(api: &JsValue, options: &JsValue) -> Result<(TokenArguments, Option<Abort>), Failure> {
    let api = argument("api", api, &[])?;
    let Some(object) = optional_object("options", options)? else {
        return Ok((TokenArguments { api, ..TokenArguments::default() }, None));
    };
    let options: &TokenOptions = object.unchecked_ref();
    let option = |name, value: Result<Option<JsValue>, JsValue>, members| match or_unreadable(name, value)? {
        Some(value) => argument(name, &value, members),
        None => Ok(Argument::Absent),
    };
    let signal = or_unreadable("signal", options.signal())?.unwrap_or(JsValue::UNDEFINED);
    let abort = Abort::listen(&signal)?;
    let arguments = TokenArguments {
        api,
        payload: option("payload", options.payload(), &[])?,
        fingerprint_id_result: option("fingerprintIDResult", options.fingerprint_id_result(), &FINGERPRINT_MEMBERS)?,
        hcaptcha_token: option("hcaptchaToken", options.hcaptcha_token(), &HCAPTCHA_MEMBERS)?,
        recaptcha_token: option("recaptchaToken", options.recaptcha_token(), &[])?,
        timeout: option("timeout", options.timeout(), &[])?,
        unusable_signal: if abort.is_some() { Argument::Absent } else { argument("signal", &signal, &[])? },
    };
    Ok((arguments, abort))
}

/// The arguments of `getDPoPToken`.
pub(super) fn proof_arguments(
    method: &JsValue,
    uri: &JsValue,
    nonce: &JsValue,
    token: &JsValue,
    message_signature: &JsValue,
) -> Result<ProofArguments, Failure> {
    Ok(ProofArguments {
        method: argument("method", method, &[])?.into_text(),
        uri: argument("uri", uri, &[])?.into_text(),
        nonce: if nonce.is_truthy() { Some(json_text("nonce", nonce)?) } else { None },
        token: text_unless_falsy("token", token)?,
        message_signature: text_unless_falsy("messageSignature", message_signature)?,
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
pub(super) fn expiries(expiries: Vec<(String, UnixMillis)>) -> JsValue {
    let object = Object::new();
    for (name, moment) in expiries {
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        set(&object, &name, &JsValue::from(moment as f64));
    }
    object.into()
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
        Class::Session if error.service_errors().is_empty() => JsValue::UNDEFINED,
        Class::Service | Class::Session => {
            let errors = Object::new();
            for (code, detail) in error.service_errors().iter() {
                set(&errors, code, &detail.into());
            }
            errors.into()
        }
        Class::Fetch => cause.clone().unwrap_or_default(),
        Class::Approov => JsValue::UNDEFINED,
    };
    object(&[
        ("class", &class.as_str().into()),
        ("code", &error.code().as_str().into()),
        ("message", &error.message().into()),
        ("retryable", &error.is_retryable().into()),
        ("cause", &cause.unwrap_or_default()),
        ("errors", &errors),
    ])
    .into()
}

/// A plain object with these members, without those that are `undefined`.
pub(super) fn object(members: &[(&str, &JsValue)]) -> Object {
    let object = Object::new();
    for (name, value) in members {
        if !value.is_undefined() {
            set(&object, name, value);
        }
    }
    object
}

#[inline(never)]
fn set(object: &JsValue, name: &str, value: &JsValue) {
    // Setting a property of a plain object of our own cannot fail.
    let _ = Reflect::set(object, &name.into(), value);
}

impl Parsed for JsValue {
    fn leaf(&self) -> Option<Json> {
        if let Some(text) = self.as_string() {
            return Some(Json::String(text));
        }
        if let Some(number) = self.as_f64() {
            return Some(Json::Number(number));
        }
        if self.is_null() {
            return Some(Json::Null);
        }
        self.as_bool().map(Json::Bool)
    }

    fn length(&self) -> Option<u32> {
        if is_array(self) { Some(self.unchecked_ref::<Array>().length()) } else { None }
    }

    fn item(&self, index: u32) -> Option<JsValue> {
        Some(self.unchecked_ref::<Array>().get(index))
    }

    fn names(&self) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for name in Reflect::own_keys(self).ok()? {
            names.push(name.as_string()?);
        }
        Some(names)
    }

    fn member(&self, name: &str) -> Option<JsValue> {
        Reflect::get(self, &name.into()).ok()
    }
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
    or_unreadable(name, Reflect::get(object, &name.into()))
}

/// The value of a member, unless reading it threw.
fn or_unreadable<T>(name: &str, value: Result<T, JsValue>) -> Result<T, Failure> {
    value.map_err(|cause| Failure::caused_by(Error::invalid_argument(&["\"", name, "\" could not be read"]), cause))
}

/// Decodes one argument; of an object, the requested members.
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

fn text_unless_falsy(name: &str, value: &JsValue) -> Result<Option<Text>, Failure> {
    if value.is_truthy() { Ok(Some(argument(name, value, &[])?.into_text())) } else { Ok(None) }
}

/// A value as JSON text, if `JSON.stringify` makes text of it.
fn json_text(name: &str, value: &JsValue) -> Result<Text, Failure> {
    let error = || Error::invalid_argument(&["\"", name, "\" must be a value that JSON can carry"]);
    let text = JSON::stringify(value).map_err(|cause| Failure::caused_by(error(), cause))?;
    Ok(argument(name, &text, &[])?.into_text())
}

/// A copy of a buffer, or of what a view shows of one; `None` for what is neither.
fn buffer_copy(name: &str, value: &JsValue) -> Result<Option<Uint8Array>, Failure> {
    if !value.is_object() {
        return Ok(None);
    }
    let view = if ArrayBuffer::is_view(value) {
        let buffer = member(value, "buffer")?;
        View::of_buffer(&buffer).and_then(|_| {
            View::of_part(&buffer, &member_or_undefined(value, "byteOffset"), &member_or_undefined(value, "byteLength"))
        })
    } else if matches!(tag(value).as_str(), "[object ArrayBuffer]" | "[object SharedArrayBuffer]") {
        View::of_buffer(value)
    } else {
        return Ok(None);
    };
    match view {
        // `slice` copies into a new buffer, which is never shared.
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

fn member_or_undefined(value: &JsValue, name: &str) -> JsValue {
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
