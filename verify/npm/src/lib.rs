//! The face of `approov-verify` for JavaScript: see `engine.js` next to the package's other files.
#![cfg(target_arch = "wasm32")]

use approov_verify::time::UnixTime;
use approov_verify_face::{Call, Face, Step};
use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::*;

/// A verifier.
#[wasm_bindgen]
pub struct Engine(Face);

/// A request while it is checked, and what has to be done next.
#[wasm_bindgen]
pub struct Check {
    call: Call,
    step: Step,
}

#[wasm_bindgen]
impl Engine {
    /// A verifier with these options, as JSON. Throws what is wrong with them.
    #[wasm_bindgen(constructor)]
    pub fn new(options: &str) -> Result<Engine, JsError> {
        Face::new(options).map(Self).map_err(|error| JsError::new(&error))
    }

    /// Begins to check a request, given as JSON.
    pub fn start(&self, request: &str, now: f64, keys_fetched: bool) -> Result<Check, JsError> {
        let (call, step) = self.0.start(request, time(now), keys_fetched).map_err(|error| JsError::new(&error))?;
        Ok(Check { call, step })
    }

    /// Goes on with the body.
    pub fn body(&self, check: &mut Check, body: &[u8]) {
        check.step = self.0.body(&mut check.call, body);
    }

    /// Goes on with a response of Redis, or with a text that says why there is none.
    pub fn reply(&self, check: &mut Check, response: Option<f64>, failure: Option<String>) {
        // Counts of keys are far below where f64 stops being exact.
        #[allow(clippy::cast_possible_truncation)]
        let response = response.map(|number| number as i64).ok_or_else(|| failure.unwrap_or_default());
        check.step = self.0.reply(&mut check.call, response);
    }

    /// Takes fetched keys, or a text that says why there are none. Returns what was wrong, for logs.
    pub fn keys(&self, keys: Option<String>, failure: Option<String>, now: f64) -> Option<String> {
        let response = keys.as_deref().ok_or_else(|| failure.unwrap_or_default());
        self.0.keys(response, time(now)).err()
    }

    /// A refusal for a reason of the host's.
    pub fn refusal(&self, check: &Check, status: u16, code: &str, detail: &str) -> String {
        self.0.refusal(&check.call, status, code, detail)
    }
}

#[wasm_bindgen]
impl Check {
    /// What has to be done: `done`, `body`, `keys` or `command`.
    #[wasm_bindgen(getter)]
    pub fn step(&self) -> String {
        match &self.step {
            Step::Done(_) => "done",
            Step::Body => "body",
            Step::Keys(_) => "keys",
            Step::Command(_) => "command",
        }
        .to_owned()
    }

    /// The verdict, or the URL of the keys.
    #[wasm_bindgen(getter)]
    pub fn text(&self) -> Option<String> {
        match &self.step {
            Step::Done(text) | Step::Keys(text) => Some(text.clone()),
            Step::Body | Step::Command(_) => None,
        }
    }

    /// The command for Redis.
    #[wasm_bindgen(getter)]
    pub fn command(&self) -> Array {
        match &self.step {
            Step::Command(words) => words.iter().map(|word| Uint8Array::from(word.as_slice())).collect(),
            _ => Array::new(),
        }
    }
}

/// Whether a proof for the first URL is one for a request to the second, or to this target of the second. `undefined`: no
/// proof is.
#[wasm_bindgen(js_name = isSameUrl)]
pub fn is_same_url(htu: &str, url: &str, target: Option<String>) -> Result<Option<bool>, JsError> {
    Face::is_same_url(htu, url, target.as_deref()).map_err(|error| JsError::new(&error))
}

fn time(millis: f64) -> UnixTime {
    // Casts saturate; NaN is 1970, when every proof is from the future.
    #[allow(clippy::cast_possible_truncation)]
    UnixTime::from_millis(millis as i64)
}
