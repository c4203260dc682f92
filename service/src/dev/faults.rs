//! Faults on demand, for tests of clients. Development mode only.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use approov_listener::service::CloseConnection;
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use serde::Deserialize;

/// What goes wrong with requests to `/attest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection closes before anything is done.
    Drop,
    /// Everything is done, then the connection closes without a response.
    Lose,
    /// The response comes this much later.
    Delay(Duration),
    /// A response with this status and an HTML body, as of a gateway in trouble.
    Status(StatusCode),
    /// The service's clock is off by this many milliseconds.
    Clock(i64),
}

/// Where faults are asked for.
pub(super) const FAULT_PATH: &str = "/sim/fault";

/// What `--fault` and `PUT /sim/fault` take.
pub const EXPECTED: &str = "none, drop, lose, delay:MS, 5xx, 5xx:STATUS or clock:SECONDS";

/// Reads a fault; `Some(None)` is `none`.
pub fn parse(text: &str) -> Option<Option<Fault>> {
    let (name, operand) = text.split_once(':').map_or((text, None), |(name, operand)| (name, Some(operand)));
    Some(Some(match (name, operand) {
        ("none", None) => return Some(None),
        ("drop", None) => Fault::Drop,
        ("lose", None) => Fault::Lose,
        ("delay", Some(ms)) => Fault::Delay(Duration::from_millis(ms.parse().ok()?)),
        ("5xx", None) => Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
        ("5xx", Some(status)) => {
            Fault::Status(StatusCode::from_u16(status.parse().ok()?).ok().filter(StatusCode::is_server_error)?)
        }
        ("clock", Some(seconds)) => Fault::Clock(seconds.parse::<i64>().ok()?.checked_mul(1000)?),
        _ => return None,
    }))
}

/// The faults in force.
#[derive(Default)]
pub struct Faults {
    latency: Duration,
    clock: Arc<AtomicI64>,
    mode: Mutex<Mode>,
}

#[derive(Default, Clone, Copy)]
struct Mode {
    fault: Option<Fault>,
    /// For how many requests more; `None`: until the next change.
    left: Option<u32>,
}

impl Faults {
    /// Every request to `/attest` takes `latency` longer; `fault` is in force; `clock` is the offset
    /// of the service's clock.
    pub fn new(latency: Duration, fault: Option<Fault>, clock: Arc<AtomicI64>) -> Self {
        let faults = Self { latency, clock, mode: Mutex::default() };
        faults.set(fault, None);
        faults
    }

    fn set(&self, fault: Option<Fault>, left: Option<u32>) {
        let offset = if let Some(Fault::Clock(offset)) = fault { offset } else { 0 };
        self.clock.store(offset, Ordering::Relaxed);
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = Mode { fault, left };
    }

    /// The fault for the next request. Preflights do not use faults up.
    fn next(&self, method: &Method) -> Option<Fault> {
        let mut mode = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        if *method == Method::OPTIONS {
            return None;
        }
        match &mut mode.left {
            None => {}
            Some(0) => mode.fault = None,
            Some(left) => *left -= 1,
        }
        mode.fault
    }
}

/// `PUT /sim/fault?mode=drop&count=1`.
pub fn router<S: Clone + Send + Sync + 'static>(faults: Arc<Faults>) -> Router<S> {
    Router::new().route(FAULT_PATH, put(change)).with_state(faults)
}

#[derive(Deserialize)]
struct Change {
    mode: String,
    count: Option<u32>,
}

async fn change(State(faults): State<Arc<Faults>>, Query(change): Query<Change>) -> Response {
    match parse(&change.mode) {
        Some(fault) => {
            faults.set(fault, change.count);
            StatusCode::NO_CONTENT.into_response()
        }
        None => (StatusCode::BAD_REQUEST, format!("mode must be {EXPECTED}\n")).into_response(),
    }
}

/// The layer that makes things go wrong.
pub async fn inject(State(faults): State<Arc<Faults>>, request: Request, next: Next) -> Response {
    if request.uri().path() != "/attest" {
        return next.run(request).await;
    }
    tokio::time::sleep(faults.latency).await;
    match faults.next(request.method()) {
        None | Some(Fault::Clock(_)) => next.run(request).await,
        Some(Fault::Drop) => close(StatusCode::OK.into_response()),
        Some(Fault::Lose) => close(next.run(request).await),
        Some(Fault::Delay(time)) => {
            let response = next.run(request).await;
            tokio::time::sleep(time).await;
            response
        }
        Some(Fault::Status(status)) => {
            let html = format!("<html><body><h1>{status}</h1></body></html>\n");
            let cross_origin = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::CONTENT_TYPE, "text/html")];
            (status, cross_origin, html).into_response()
        }
    }
}

fn close(mut response: Response) -> Response {
    response.extensions_mut().insert(CloseConnection);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_documented() {
        assert_eq!(parse("none"), Some(None));
        assert_eq!(parse("drop"), Some(Some(Fault::Drop)));
        assert_eq!(parse("delay:250"), Some(Some(Fault::Delay(Duration::from_millis(250)))));
        assert_eq!(parse("5xx:504"), Some(Some(Fault::Status(StatusCode::GATEWAY_TIMEOUT))));
        assert_eq!(parse("clock:-21600"), Some(Some(Fault::Clock(-21_600_000))));
        for bad in ["", "Drop", "delay", "5xx:200", "5xx:x", "clock", "drop:1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_counted_fault_ends() {
        let faults = Faults::default();
        faults.set(Some(Fault::Drop), Some(2));
        let seen: Vec<_> = [Method::POST, Method::OPTIONS, Method::GET, Method::POST]
            .iter()
            .map(|method| faults.next(method).is_some())
            .collect();
        assert_eq!(seen, [true, false, true, false]);
    }
}
