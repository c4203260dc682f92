//! Between JavaScript values and the SDK's own types. All decoding of arguments is here.
//!
//! Of objects with options, own properties count alone: what a page or its libraries add to `Object.prototype` is not an option.

use js_sys::{Array, ArrayBuffer, JSON, Object, Reflect, Uint8Array};
use serde::Serializer as _;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::DomException;

use super::Failure;
use super::built_ins::{call, record, set, to_vec};
use super::crypto::Key;
use super::signal::Abort;
use crate::argument::{Argument, Text};
use crate::checks::{Provider, SEALED_RESULT};
use crate::config::{SESSION_OPTIONS, SessionArguments};
use crate::dpop::{ProofArguments, is_proof_header};
use crate::error::{Class, Code, Error};
use crate::json::{Json, Parsed, integer_literal};
use crate::jws::PublicKey;
use crate::notice::Record;
use crate::secret::Secret;
use crate::session::Continuation;
use crate::time::UnixMillis;
use crate::token_request::TokenArguments;

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
}

/// The values of options as they came.
pub(super) type Values = Vec<(&'static str, JsValue)>;

/// The options of `initializeSession`, and the values of the known ones as they came.
pub(super) fn session_arguments(value: &JsValue) -> Result<(SessionArguments, Values), Failure> {
    let mut arguments = SessionArguments::default();
    let mut values = Vec::new();
    if let Some(object) = optional_object("options", value)? {
        for (name, key) in own_names("options", object)? {
            let value = property(&name, object, &key)?;
            if value.is_undefined() {
                continue;
            }
            if let Some((known, slot)) = arguments.slot(&name) {
                *slot = match texts(&name, &value)? {
                    Some(texts) => Argument::Texts(texts),
                    None => argument(&name, &value, None)?,
                };
                values.push((known, value));
            }
            arguments.given_names.push(name);
        }
    }
    Ok((arguments, values))
}

/// Notes the options of a session in an object that outlives this instance: all of them, or those that were given.
pub(super) fn remember(memory: &JsValue, values: &Values, all: bool) {
    if all {
        SESSION_OPTIONS.find(&mut |name| {
            set(memory, name, &JsValue::UNDEFINED);
            false
        });
    }
    for (name, value) in values {
        set(memory, name, value);
    }
}

/// The arguments of `fetchToken`, and its signal, which is listened to from now on.
///
/// # Errors
/// Those of [`Abort::listen`], too.
pub(super) fn token_arguments(api: &JsValue, options: &JsValue) -> Result<(TokenArguments, Option<Abort>), Failure> {
    let mut arguments = TokenArguments { api: argument("api", api, None)?, ..TokenArguments::default() };
    let mut abort = None;
    let Some(object) = optional_object("options", options)? else { return Ok((arguments, abort)) };
    for (name, key) in own_names("options", object)? {
        if let Some((slot, provider)) = arguments.slot(&name) {
            let value = property(&name, object, &key)?;
            if name == "signal" {
                abort = Abort::listen(&value)?;
            }
            if abort.is_none() || name != "signal" {
                *slot = argument(&name, &value, provider)?;
            }
        }
        arguments.given_names.push(name);
    }
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
        method: argument("method", method, None)?.into_text(),
        uri: argument("uri", uri, None)?.into_text(),
        nonce: if nonce.is_truthy() { Some(json_text("nonce", nonce)?) } else { None },
        token: text_unless_falsy("token", token)?,
        message_signature: text_unless_falsy("messageSignature", message_signature)?,
        covers_query: false,
    })
}

/// A copy of the message of `messageSignature`.
///
/// # Errors
/// `invalid-argument` for what is not bytes, and for what a proof signs: a page that signs what others write must not make proofs of
/// it.
pub(super) fn message(value: &JsValue) -> Result<Uint8Array, Failure> {
    let message = match buffer_copy("message", value)? {
        Some(bytes) => bytes,
        None if is_array(value) => bytes_of_array(value.unchecked_ref())?,
        None => {
            let got = argument("message", value, None)?.kind();
            let expected = "an ArrayBuffer, a view such as Uint8Array, or an array of bytes";
            let hint = if value.is_string() { " (encode text with new TextEncoder().encode(text))" } else { "" };
            return Err(Error::invalid_argument(&["\"message\" must be ", expected, ", got ", got, hint]).into());
        }
    };
    let header_length = u32::try_from(message.index_of(b'.', 0)).unwrap_or(0);
    if is_proof_header(&to_vec(&message.subarray(0, header_length))) {
        return Err(Error::invalid_argument(&["\"message\" would be a DPoP proof: getDPoPToken makes proofs"]).into());
    }
    Ok(message)
}

/// What `getExpiries` resolves to: Unix milliseconds by name. By way of a `Map`: setting the properties of an object would call
/// setters that a page has on `Object.prototype`.
pub(super) fn expiries(expiries: Vec<(String, UnixMillis)>) -> Result<JsValue, Failure> {
    #[allow(clippy::cast_precision_loss)] // far below 2^53
    let members = expiries.into_iter().map(|(name, moment)| (name, moment as f64));
    let object = serde_wasm_bindgen::Serializer::new()
        .collect_map(members)
        .map_err(JsValue::from)
        .and_then(|map| Object::from_entries(&map));
    object.map(JsValue::from).map_err(|cause| {
        Failure::caused_by(Error::new(Code::Internal, &["the expiries could not be put into an object"]), cause)
    })
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
        ("retryAfter", &error.retry_after().map_or(JsValue::UNDEFINED, millis)),
    ])
    .into()
}

/// An object without a prototype, with these members, without those that are `undefined`.
pub(super) fn object(members: &[(&str, &JsValue)]) -> Object {
    let object = record();
    for (name, value) in members {
        if !value.is_undefined() {
            set(&object, name, value);
        }
    }
    object
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
    let got = argument(name, value, None)?.kind();
    Err(Error::invalid_argument(&["\"", name, "\" must be an object, got ", got]).into())
}

/// What continues a session in another page, as it is kept.
pub(super) fn to_keep(
    key: &JsValue,
    public_key: &PublicKey,
    account: &str,
    host: usize,
    continuation: &Continuation,
) -> JsValue {
    let expiries = Object::new();
    for (name, &moment) in continuation.expiries.iter() {
        set(&expiries, name, &millis(moment));
    }
    let (x, y) = public_key.as_text();
    object(&[
        ("key", key),
        ("x", &x.into()),
        ("y", &y.into()),
        ("account", &account.into()),
        ("host", &u32::try_from(host).unwrap_or_default().into()),
        ("refreshToken", &continuation.refresh_token.expose().into()),
        ("expiry", &millis(continuation.expiry)),
        ("expiries", &expiries),
        ("offset", &millis(continuation.offset)),
    ])
    .into()
}

/// A record that was kept, whose key the facade has looked at; `None` if it is not one.
pub(super) fn kept(value: &JsValue) -> Option<Record<Key>> {
    if !value.is_object() {
        return None;
    }
    let member = |name: &str| Reflect::get(value, &name.into()).ok();
    let text = |name| member(name)?.as_string();
    let Json::Object(moments) = Json::decode(&member("expiries")?)? else { return None };
    let expiries = moments.try_map(|_, moment| whole(&moment).ok_or(())).ok()?;
    Some(Record {
        key: Key::WebCrypto(member("key")?),
        public_key: PublicKey::from_text(text("x")?, text("y")?),
        account: text("account")?,
        host: usize::try_from(whole(&Json::Number(member("host")?.as_f64()?))?).ok()?,
        continuation: Continuation {
            refresh_token: Secret::from(text("refreshToken")?.as_str()),
            expiry: whole(&Json::Number(member("expiry")?.as_f64()?))?,
            expiries,
            offset: whole(&Json::Number(member("offset")?.as_f64()?))?,
        },
    })
}

#[allow(clippy::cast_possible_truncation)] // a float to integer cast saturates
fn whole(number: &Json) -> Option<i64> {
    match number {
        Json::Number(number) if number.is_finite() => Some(*number as i64),
        _ => None,
    }
}

/// Milliseconds as a number.
#[allow(clippy::cast_precision_loss)] // far below 2^53
pub(super) fn millis(milliseconds: i64) -> JsValue {
    JsValue::from_f64(milliseconds as f64)
}

/// The texts of an array that has nothing else.
fn texts(name: &str, value: &JsValue) -> Result<Option<Vec<String>>, Failure> {
    if !is_array(value) {
        return Ok(None);
    }
    let array: &Array = value.unchecked_ref();
    let mut texts = Vec::new();
    // Longer than any that is allowed.
    for index in 0..array.length().min(8) {
        let Some(text) = property(name, value, &index.into())?.as_string() else { return Ok(None) };
        texts.push(text);
    }
    Ok(Some(texts))
}

/// The names of an object's own properties, and each as a key to read it with.
fn own_names(what: &str, object: &JsValue) -> Result<Vec<(String, JsValue)>, Failure> {
    let keys = Reflect::own_keys(object).map_err(|cause| unreadable(what, cause))?;
    let mut names = Vec::new();
    for key in keys {
        if let Some(name) = key.as_string() {
            names.push((name, key));
        }
    }
    Ok(names)
}

/// The value of a property, unless reading it throws.
fn property(name: &str, object: &JsValue, key: &JsValue) -> Result<JsValue, Failure> {
    Reflect::get(object, key).map_err(|cause| unreadable(name, cause))
}

fn unreadable(name: &str, cause: JsValue) -> Failure {
    Failure::caused_by(Error::invalid_argument(&["\"", name, "\" could not be read"]), cause)
}

/// Decodes one argument; of an object that is a check's result, the members that it may have.
fn argument(name: &str, value: &JsValue, provider: Option<&'static Provider>) -> Result<Argument, Failure> {
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
        return Ok(Argument::Bytes(to_vec(&bytes)));
    }
    let of_object = provider.filter(|provider| provider.takes_objects());
    Ok(match value {
        _ if value.is_truthy() && value.as_bool().is_some() => Argument::True,
        _ if value.as_bool().is_some() => Argument::Other("a boolean"),
        _ if value.is_bigint() => Argument::Other("a BigInt"),
        _ if value.is_symbol() => Argument::Other("a symbol"),
        _ if value.is_function() => Argument::Other("a function"),
        _ if is_array(value) => Argument::Other("an array"),
        _ if tag(value) == "[object Promise]" => Argument::Other("a promise (is an await missing?)"),
        _ => {
            let Some(provider) = of_object else { return Ok(Argument::Other("an object")) };
            let mut read = Vec::new();
            for (given, key) in own_names(name, value)? {
                if let Some(member) = provider.member(&given) {
                    let path = [name, ".", member].concat();
                    let mut value = property(&path, value, &key)?;
                    if member == SEALED_RESULT && value.is_object() {
                        value = base64_of(&path, &value)?;
                    }
                    read.push((member, argument(&path, &value, None)?));
                }
            }
            Argument::Object(read)
        }
    })
}

/// What a `BinaryOutput` of Fingerprint's agent gives as text.
fn base64_of(name: &str, output: &JsValue) -> Result<JsValue, Failure> {
    call(output, "base64").map_err(|cause| {
        let expected = "\" must be text in base64, or an object whose method base64() gives it";
        Failure::caused_by(Error::invalid_argument(&["\"", name, expected]), cause)
    })
}

fn text_unless_falsy(name: &str, value: &JsValue) -> Result<Option<Text>, Failure> {
    if value.is_truthy() { Ok(Some(argument(name, value, None)?.into_text())) } else { Ok(None) }
}

/// A value as JSON text, if `JSON.stringify` makes text of it.
fn json_text(name: &str, value: &JsValue) -> Result<Text, Failure> {
    let error = || Error::invalid_argument(&["\"", name, "\" must be a value that JSON can carry"]);
    let text = JSON::stringify(value).map_err(|cause| Failure::caused_by(error(), cause))?;
    Ok(argument(name, &text, None)?.into_text())
}

/// A copy of a buffer, or of what a view shows of one; `None` for what is neither.
fn buffer_copy(name: &str, value: &JsValue) -> Result<Option<Uint8Array>, Failure> {
    match view(value) {
        // `slice` copies into a new buffer, which is never shared.
        Ok(view) => Ok(view.map(|view| view.slice(0, view.length()))),
        Err(cause) => {
            let error = Error::invalid_argument(&["\"", name, "\" is a buffer that can no longer be read (detached)"]);
            Err(Failure::caused_by(error, cause))
        }
    }
}

/// The bytes of a buffer, or what a view shows of one, of whichever realm; `None` for what is neither.
///
/// # Errors
/// What reading a detached buffer throws.
pub(super) fn view(value: &JsValue) -> Result<Option<Uint8Array>, JsValue> {
    if !value.is_object() {
        return Ok(None);
    }
    let view = if ArrayBuffer::is_view(value) {
        let member = |name: &str| Reflect::get(value, &name.into());
        let buffer = member("buffer")?;
        View::of_buffer(&buffer)?;
        View::of_part(&buffer, &member("byteOffset")?, &member("byteLength")?)?
    } else if matches!(tag(value).as_str(), "[object ArrayBuffer]" | "[object SharedArrayBuffer]") {
        View::of_buffer(value)?
    } else {
        return Ok(None);
    };
    Ok(Some(view.into()))
}

fn is_array(value: &JsValue) -> bool {
    is_array_or_throws(value).unwrap_or(false)
}

fn tag(value: &JsValue) -> String {
    object_tag(value).unwrap_or_default()
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
