//! A caller's `AbortSignal`.

use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;

use super::Failure;
use crate::error::{Code, Error};

/// Listens to a signal for as long as this lives.
pub(super) struct Abort {
    signal: AbortSignal,
    listener: Function,
    aborted: Promise,
}

impl Abort {
    /// Starts to listen; `None` where there is no signal.
    ///
    /// # Errors
    /// `invalid-argument` for a value that is no signal, `aborted` for a signal that already is.
    pub(super) fn listen(signal: &JsValue) -> Result<Option<Abort>, Failure> {
        if signal.is_undefined() || signal.is_null() {
            return Ok(None);
        }
        // Not `instanceof`: a signal may come from another realm, or be a polyfill's.
        let is_signal = Reflect::get(signal, &"aborted".into()).is_ok_and(|aborted| aborted.as_bool().is_some())
            && Reflect::get(signal, &"addEventListener".into()).is_ok_and(|method| method.is_function());
        if !is_signal {
            return Err(Error::invalid_argument(&["\"signal\" must be an AbortSignal"]).into());
        }
        let signal: AbortSignal = signal.unchecked_ref::<AbortSignal>().clone();
        if signal.aborted() {
            return Err(aborted(&signal));
        }
        let mut listener = None;
        let promise = Promise::new(&mut |resolve, _reject| listener = Some(resolve));
        let Some(listener) = listener else {
            return Err(Error::new(Code::Internal, &["a promise could not be made"]).into());
        };
        signal.add_event_listener_with_callback("abort", &listener).map_err(|cause| {
            Failure::caused_by(Error::invalid_argument(&["\"signal\" must be an AbortSignal"]), cause)
        })?;
        Ok(Some(Abort { signal, listener, aborted: promise }))
    }

    /// Waits until the signal is aborted.
    pub(super) async fn wait(self) -> Failure {
        let _event = JsFuture::from(self.aborted.clone()).await;
        aborted(&self.signal)
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        // Nothing is lost if a foreign signal refuses: its listener resolves a promise that nobody awaits.
        let _refused = self.signal.remove_event_listener_with_callback("abort", &self.listener);
    }
}

fn aborted(signal: &AbortSignal) -> Failure {
    let error = Error::new(Code::Aborted, &["the call was aborted by its signal"]);
    match Reflect::get(signal, &"reason".into()) {
        Ok(reason) if !reason.is_undefined() => Failure::caused_by(error, reason),
        Ok(_) | Err(_) => error.into(),
    }
}
