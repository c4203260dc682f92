//! JSON values, and the two pieces of JSON text that the SDK writes itself.
//!
//! Parsing is the engine's. What `JSON.parse` made is decoded here, by the same code in a browser, in a test and in a fuzzer: only
//! [`Parsed`] differs. (Decoding with serde-wasm-bindgen would add 15 kB after brotli.)

use crate::small_map::SmallMap;

/// Values nest at most this deep, so that a hostile response cannot exhaust the stack.
const MAX_DEPTH: u8 = 16;

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; of members with the same name the last one counts, as in `JSON.parse`.
    Object(SmallMap<Json>),
}

/// A value that an engine has parsed.
pub trait Parsed: Sized {
    /// The value, if it holds no others: `null`, a boolean, a number, a string.
    fn leaf(&self) -> Option<Json>;
    /// The number of items of an array; `None` for an object.
    fn length(&self) -> Option<u32>;
    /// An item of an array.
    fn item(&self, index: u32) -> Option<Self>;
    /// The names of an object's members.
    fn names(&self) -> Option<Vec<String>>;
    /// A member of an object.
    fn member(&self, name: &str) -> Option<Self>;
}

impl Json {
    /// Decodes a parsed value; `None` if it nests too deeply, or is not JSON.
    #[must_use]
    pub fn decode(value: &impl Parsed) -> Option<Json> {
        decode(value, MAX_DEPTH)
    }

    /// What kind of value this is, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        }
    }
}

fn decode<V: Parsed>(value: &V, depth_left: u8) -> Option<Json> {
    let leaf = value.leaf();
    if leaf.is_some() {
        return leaf;
    }
    let depth_left = depth_left.checked_sub(1)?;
    if let Some(length) = value.length() {
        let mut items = Vec::new();
        for index in 0..length {
            items.push(decode(&value.item(index)?, depth_left)?);
        }
        return Some(Json::Array(items));
    }
    let mut members = SmallMap::default();
    for name in value.names()? {
        let member = decode(&value.member(&name)?, depth_left)?;
        members.insert(name, member);
    }
    Some(Json::Object(members))
}

/// `text` as a JSON string literal, quotes included.
#[must_use]
pub fn string_literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len().saturating_add(2));
    literal.push('"');
    for character in text.chars() {
        match character {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            control if control < ' ' => {
                literal.push_str("\\u00");
                literal.push(if control < '\u{10}' { '0' } else { '1' });
                literal.push(char::from_digit(u32::from(control) & 0xf, 16).unwrap_or('0'));
            }
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal
}

/// `number` as a JSON number.
#[must_use]
pub fn integer_literal(number: i64) -> String {
    let mut literal = String::new();
    if number < 0 {
        literal.push('-');
    }
    push_digits(&mut literal, number.unsigned_abs());
    literal
}

fn push_digits(literal: &mut String, number: u64) {
    if number >= 10 {
        push_digits(literal, number / 10);
    }
    literal.push(char::from_digit((number % 10) as u32, 10).unwrap_or('0'));
}

#[cfg(test)]
use serde_json::Value;

#[cfg(test)]
impl Parsed for Value {
    fn leaf(&self) -> Option<Json> {
        match self {
            Value::Null => Some(Json::Null),
            Value::Bool(value) => Some(Json::Bool(*value)),
            Value::Number(number) => number.as_f64().map(Json::Number),
            Value::String(text) => Some(Json::String(text.clone())),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn length(&self) -> Option<u32> {
        self.as_array().and_then(|items| items.len().try_into().ok())
    }

    fn item(&self, index: u32) -> Option<Self> {
        self.get(index as usize).cloned()
    }

    fn names(&self) -> Option<Vec<String>> {
        self.as_object().map(|members| members.keys().cloned().collect())
    }

    fn member(&self, name: &str) -> Option<Self> {
        self.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<Json> {
        Json::decode(&serde_json::from_str::<Value>(text).expect("valid JSON"))
    }

    #[test]
    fn literals_read_back_as_the_text_they_were_made_of() {
        let awkward: String = (0..0x80u8).map(char::from).chain("é\u{2028}\u{2029}😀".chars()).collect();
        let read: String = serde_json::from_str(&string_literal(&awkward)).expect("valid JSON");
        assert_eq!(read, awkward);
    }

    #[test]
    fn integers_are_written_in_decimal() {
        for number in [0, 7, 10, 1_700_000_000, -1, -90, i64::MIN, i64::MAX] {
            assert_eq!(integer_literal(number), number.to_string());
        }
    }

    #[test]
    fn every_kind_of_value_is_decoded() {
        let Some(Json::Object(members)) = decoded(r#"{"a":[null,true,1,-2,1.5,"x"],"b":{},"a2":1e300}"#) else {
            panic!("an object")
        };
        assert_eq!(
            members.get("a"),
            Some(&Json::Array(vec![
                Json::Null,
                Json::Bool(true),
                Json::Number(1.0),
                Json::Number(-2.0),
                Json::Number(1.5),
                Json::String("x".into())
            ]))
        );
        assert_eq!(members.get("b").map(Json::kind), Some("an object"));
        assert_eq!(members.get("a2"), Some(&Json::Number(1e300)));
    }

    #[test]
    fn hostile_nesting_is_refused() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert!(decoded(&nested(16)).is_some());
            assert!(decoded(&nested(17)).is_none());
        }
    }
}
