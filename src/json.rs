//! JSON values, and the two pieces of JSON text that the SDK writes itself.
//!
//! Parsing is the engine's: the browser edge hands over what `JSON.parse` made, decoded by serde.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`; also what JavaScript calls `undefined`.
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
    Object(BTreeMap<String, Json>),
}

impl Json {
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

    /// The text, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Json::String(text) = self { Some(text) } else { None }
    }
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

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    #[allow(clippy::cast_precision_loss)] // JSON numbers are doubles; integers beyond 2^53 lose digits in JSON.parse as well
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    #[allow(clippy::cast_precision_loss)]
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((name, value)) = members.next_entry()? {
            object.insert(name, value);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_read_back_as_the_text_they_were_made_of() {
        let awkward: String = (0..0x80u8).map(char::from).chain("é\u{2028}\u{2029}😀".chars()).collect();
        let read: String = serde_json::from_str(&string_literal(&awkward)).expect("valid JSON");
        assert_eq!(read, awkward);
    }

    #[test]
    fn every_kind_of_value_is_decoded() {
        let value: Json =
            serde_json::from_str(r#"{"a":[null,true,1,-2,1.5,"x"],"b":{},"a2":1e300}"#).expect("valid JSON");
        let Json::Object(members) = value else { panic!("an object") };
        assert_eq!(
            members["a"],
            Json::Array(vec![
                Json::Null,
                Json::Bool(true),
                Json::Number(1.0),
                Json::Number(-2.0),
                Json::Number(1.5),
                Json::String("x".into())
            ])
        );
        assert_eq!(members["b"].kind(), "an object");
    }
}
