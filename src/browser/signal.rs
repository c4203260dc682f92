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
    /// Whether a value is a signal. Not `instanceof`: it may come from another realm, or be a polyfill's.
    pub(super) fn can_listen(signal: &JsValue) -> bool {
        // First of all an object: most calls have no signal, and asking `undefined` for a member makes and throws an error.
        signal.is_object()
            && Reflect::get(signal, &"aborted".into()).is_ok_and(|aborted| aborted.as_bool().is_some())
            && Reflect::get(signal, &"addEventListener".into()).is_ok_and(|method| method.is_function())
    }

    /// Starts to listen; `None` where there is no signal, or something else in its place.
    ///
    /// # Errors
    /// `aborted` for a signal that already is, `invalid-argument` for one that does not let itself be listened to.
    pub(super) fn listen(signal: &JsValue) -> Result<Option<Abort>, Failure> {
        if !Abort::can_listen(signal) {
            return Ok(None);
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
        // A future of a promise that never settles is never freed. Nobody looks at what this one settles to.
        let _unobserved = self.listener.call0(&JsValue::UNDEFINED);
    }
}

fn aborted(signal: &AbortSignal) -> Failure {
    let error = Error::new(Code::Aborted, &["the call was aborted by its signal"]);
    match Reflect::get(signal, &"reason".into()) {
        Ok(reason) if !reason.is_undefined() => Failure::caused_by(error, reason),
        Ok(_) | Err(_) => error.into(),
    }
}
