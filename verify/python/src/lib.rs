//! The face of `approov-verify` for Python: see `py/approov_verify`.

use approov_verify::time::UnixTime;
use approov_verify_face::{Call, Face, Step};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::{Mutex, PoisonError};

/// A verifier.
#[pyclass(frozen)]
struct Engine(Face);

/// A request while it is checked, and what has to be done next.
#[pyclass(frozen)]
struct Check(Mutex<(Call, Step)>);

#[pymethods]
impl Engine {
    #[new]
    fn new(options: &str) -> PyResult<Self> {
        Face::new(options).map(Self).map_err(PyValueError::new_err)
    }

    /// Begins to check a request, given as JSON.
    fn start(&self, request: &str, now: f64, keys_fetched: bool) -> PyResult<Check> {
        let begun = self.0.start(request, time(now), keys_fetched).map_err(PyValueError::new_err)?;
        Ok(Check(Mutex::new(begun)))
    }

    /// Goes on with the body.
    fn body(&self, check: &Check, body: &[u8]) {
        check.go_on(|call| self.0.body(call, body));
    }

    /// Goes on with a response of Redis, or with a text that says why there is none.
    fn reply(&self, check: &Check, response: Option<i64>, failure: Option<String>) {
        check.go_on(|call| self.0.reply(call, response.ok_or_else(|| failure.unwrap_or_default())));
    }

    /// Takes fetched keys, or a text that says why there are none. Returns what was wrong, for logs.
    fn keys(&self, keys: Option<&str>, failure: Option<String>, now: f64) -> Option<String> {
        self.0.keys(keys.ok_or_else(|| failure.unwrap_or_default()), time(now)).err()
    }

    /// A refusal for a reason of the host's.
    fn refusal(&self, check: &Check, status: u16, code: &str, detail: &str) -> String {
        let guard = check.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.refusal(&guard.0, status, code, detail)
    }
}

impl Check {
    fn go_on(&self, next: impl FnOnce(&mut Call) -> Step) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.1 = next(&mut guard.0);
    }
}

#[pymethods]
impl Check {
    /// What has to be done: the verdict as `("done", text)`, `("keys", url)`, `("body", None)` or `("command", words)`.
    fn step<'py>(&self, python: Python<'py>) -> PyResult<(&'static str, Bound<'py, PyAny>)> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match &guard.1 {
            Step::Done(text) => ("done", text.into_pyobject(python)?.into_any()),
            Step::Keys(url) => ("keys", url.into_pyobject(python)?.into_any()),
            Step::Body => ("body", python.None().into_bound(python)),
            Step::Command(words) => {
                let words: Vec<_> = words.iter().map(|word| PyBytes::new(python, word)).collect();
                ("command", words.into_pyobject(python)?.into_any())
            }
        })
    }
}

/// Whether a proof for the first URL is one for a request to the second, or to this target of the second. None: no proof is.
#[pyfunction]
#[pyo3(signature = (htu, url, target=None))]
fn is_same_url(htu: &str, url: &str, target: Option<&str>) -> PyResult<Option<bool>> {
    Face::is_same_url(htu, url, target).map_err(PyValueError::new_err)
}

#[allow(clippy::cast_possible_truncation)]
fn time(millis: f64) -> UnixTime {
    UnixTime::from_millis(millis as i64)
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Engine>()?;
    module.add_class::<Check>()?;
    module.add_function(wrap_pyfunction!(is_same_url, module)?)
}
