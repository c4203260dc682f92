//! JSON objects in which every member name is used once.
//!
//! Two parsers that disagree on which of two equal names counts can be played against each other, so JOSE asks
//! receivers to refuse them (RFC 7515 section 4, RFC 7519 section 4).

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Why a text is not an acceptable JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonError {
    /// Not JSON, or not an object, or not UTF-8.
    Malformed,
    /// A member name appears twice in one object, at any depth.
    DuplicateMember,
}

pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let mut repeated = false;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Unique { repeated: &mut repeated }.deserialize(&mut reader).map_err(|_| JsonError::Malformed)?;
    reader.end().map_err(|_| JsonError::Malformed)?;
    match value {
        Value::Object(_) if repeated => Err(JsonError::DuplicateMember),
        Value::Object(object) => Ok(object),
        _ => Err(JsonError::Malformed),
    }
}

/// Reads a value and notes whether an object in it repeats a name.
struct Unique<'a> {
    repeated: &'a mut bool,
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Unique { repeated: self.repeated })?;
            if object.insert(name, value).is_some() {
                *self.repeated = true;
            }
        }
        Ok(Value::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = seq.next_element_seed(Unique { repeated: self.repeated })? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_object_is_read() {
        let object = parse_object(br#" {"a": [1, -2, 2.5, true, null, {"a": "b"}], "b": {"a": 1}} "#).unwrap();
        assert_eq!(object["a"][5]["a"], "b");
    }

    #[test]
    fn a_name_used_twice_is_refused_at_any_depth() {
        for text in
            [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[0,{"b":1,"c":{},"b":2}]}"#]
        {
            assert_eq!(parse_object(text.as_bytes()), Err(JsonError::DuplicateMember), "{text}");
        }
    }

    #[test]
    fn anything_but_one_object_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(500), "]".repeat(500));
        for text in ["", "1", "[]", "null", "{", "{}{}", "{} x", "{'a':1}", "{\"a\":NaN}", "{\"a\":\"\u{1}\"}", &deep] {
            assert_eq!(parse_object(text.as_bytes()), Err(JsonError::Malformed), "{text}");
        }
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}"), Err(JsonError::Malformed));
        assert_eq!(parse_object(br#"{"a":"\ud800"}"#), Err(JsonError::Malformed));
    }
}
