//! JSON values, and the two pieces of JSON text that the SDK writes itself.
//!
//! Parsing is the engine's: the browser edge hands over what `JSON.parse` made, decoded by serde.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::named::Named;

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Json {
    /// `null`; also what JavaScript calls `undefined`.
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
    Object(Named<Json>),
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

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AtDepth(0).deserialize(deserializer)
    }
}

/// Values nest at most this deep, so that a hostile answer cannot exhaust the stack.
const DEEPEST: u8 = 16;

/// Reads a value at some depth of nesting.
#[derive(Clone, Copy)]
struct AtDepth(u8);

impl AtDepth {
    fn deeper<E: Error>(self) -> Result<AtDepth, E> {
        if self.0 < DEEPEST { Ok(AtDepth(self.0.saturating_add(1))) } else { Err(E::custom("nested too deeply")) }
    }
}

impl<'de> DeserializeSeed<'de> for AtDepth {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtDepth {
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

    #[allow(clippy::cast_precision_loss)] // JSON numbers are doubles; JSON.parse loses the same digits
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
        let deeper = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(deeper)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let deeper = self.deeper()?;
        let mut object = Named::default();
        while let Some(name) = members.next_key()? {
            object.insert(name, members.next_value_seed(deeper)?);
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
    fn integers_are_written_in_decimal() {
        for number in [0, 7, 10, 1_700_000_000, -1, -90, i64::MIN, i64::MAX] {
            assert_eq!(integer_literal(number), number.to_string());
        }
    }

    #[test]
    fn every_kind_of_value_is_decoded() {
        let value: Json =
            serde_json::from_str(r#"{"a":[null,true,1,-2,1.5,"x"],"b":{},"a2":1e300}"#).expect("valid JSON");
        let Json::Object(members) = value else { panic!("an object") };
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
    }

    #[test]
    fn hostile_nesting_is_refused() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(serde_json::from_str::<Json>(&nested(16)).is_ok());
        assert!(serde_json::from_str::<Json>(&nested(17)).is_err());
    }
}
