//! A caller's `AbortSignal`.

use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::AbortSignal;

use super::Failure;
use super::built_ins::settled;
use crate::error::{Code, Error};

/// Listens to a signal for as long as this lives.
pub(super) struct Abort {
    signal: AbortSignal,
    listener: Function,
    aborted: Promise,
}

impl Abort {
    /// Starts to listen; `None` for what is not a signal.
    ///
    /// # Errors
    /// `aborted` for a signal that already is, `invalid-argument` for one that cannot be listened to.
    pub(super) fn listen(value: &JsValue) -> Result<Option<Abort>, Failure> {
        if !is_signal(value) {
            return Ok(None);
        }
        let signal: AbortSignal = value.unchecked_ref::<AbortSignal>().clone();
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
        // Resolves to the event, and is never rejected.
        let _ = settled(&self.aborted).await;
        aborted(&self.signal)
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        // Nothing is lost if a foreign signal refuses: its listener resolves a promise that nobody awaits.
        let _ = self.signal.remove_event_listener_with_callback("abort", &self.listener);
        // A future of a promise that never settles is never freed. Nobody uses what this one resolves to.
        let _ = self.listener.call0(&JsValue::UNDEFINED);
    }
}

/// Whether a value is a signal. Not by `instanceof`: it may come from another realm, or be a polyfill's.
fn is_signal(value: &JsValue) -> bool {
    // First of all an object: most calls have no signal, and reading a member of `undefined` makes and throws an error.
    value.is_object()
        && Reflect::get(value, &"aborted".into()).is_ok_and(|aborted| aborted.as_bool().is_some())
        && Reflect::get(value, &"addEventListener".into()).is_ok_and(|method| method.is_function())
}

fn aborted(signal: &AbortSignal) -> Failure {
    let error = Error::new(Code::Aborted, &["the call was aborted by its signal"]);
    match Reflect::get(signal, &"reason".into()) {
        Ok(reason) if !reason.is_undefined() => Failure::caused_by(error, reason),
        Ok(_) | Err(_) => error.into(),
    }
}
