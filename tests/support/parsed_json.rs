//! What `serde_json` parsed, in the place of what a browser's `JSON.parse` made: the SDK decodes both by the same code.

use approov_web_sdk::json::{Json, Parsed};
use serde_json::Value;

/// Decodes JSON text as a browser does; `None` for what is not JSON, or nests too deeply.
#[allow(dead_code)] // each test uses one of the two
pub fn decode_text(text: &str) -> Option<Json> {
    Json::decode(&ParsedJson(&serde_json::from_str(text).ok()?))
}

/// Decodes a JSON value that was written down in a test.
#[allow(dead_code)]
pub fn decode_value(value: &Value) -> Json {
    Json::decode(&ParsedJson(value)).expect("JSON that does not nest deeply")
}

struct ParsedJson<'a>(&'a Value);

impl Parsed for ParsedJson<'_> {
    fn leaf(&self) -> Option<Json> {
        match self.0 {
            Value::Null => Some(Json::Null),
            Value::Bool(value) => Some(Json::Bool(*value)),
            Value::Number(number) => number.as_f64().map(Json::Number),
            Value::String(text) => Some(Json::String(text.clone())),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn length(&self) -> Option<u32> {
        self.0.as_array().and_then(|items| items.len().try_into().ok())
    }

    fn item(&self, index: u32) -> Option<Self> {
        self.0.get(index as usize).map(ParsedJson)
    }

    fn names(&self) -> Option<Vec<String>> {
        self.0.as_object().map(|members| members.keys().cloned().collect())
    }

    fn member(&self, name: &str) -> Option<Self> {
        self.0.get(name).map(ParsedJson)
    }
}
