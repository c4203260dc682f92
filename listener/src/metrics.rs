//! Counters in Prometheus' text exposition format 0.0.4.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::connection::Ending;
use crate::places::Refusal;

/// What a listener counts. It starts at zero with the process.
#[derive(Debug, Default)]
pub struct Metrics {
    accepted: AtomicU64,
    closed: AtomicU64,
    failed_accepts: AtomicU64,
    refused: [AtomicU64; Refusal::NAMES.len()],
    failed_handshakes: AtomicU64,
    ended: [AtomicU64; Ending::ALL.len()],
}

impl Metrics {
    pub(crate) fn accepted(&self) {
        increment(&self.accepted);
    }

    pub(crate) fn failed_accept(&self) {
        increment(&self.failed_accepts);
    }

    /// A connection was closed before it cost a handshake.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        let counters = Refusal::NAMES.iter().zip(&self.refused);
        counters.filter(|(name, _)| **name == refusal.name()).for_each(|(_, counter)| increment(counter));
    }

    pub(crate) fn failed_handshake(&self) {
        increment(&self.failed_handshakes);
    }

    /// A connection closed; `ending` says why, when this side ended it.
    pub(crate) fn closed(&self, ending: Option<Ending>) {
        increment(&self.closed);
        let counters = Ending::ALL.iter().zip(&self.ended);
        counters.filter(|(name, _)| Some(**name) == ending).for_each(|(_, counter)| increment(counter));
    }

    /// Adds everything to `out`.
    pub fn render(&self, out: &mut String) {
        let (closed, accepted) = (get(&self.closed), get(&self.accepted));
        family(out, "approov_connections_total", "counter", "Connections accepted.");
        sample(out, "approov_connections_total", "", accepted);
        family(out, "approov_connections_open", "gauge", "Connections open now.");
        sample(out, "approov_connections_open", "", accepted.saturating_sub(closed));
        let name = "approov_connections_ended_total";
        family(out, name, "counter", "Connections that this side ended, by the limit that they broke.");
        for (ending, counter) in Ending::ALL.iter().zip(&self.ended) {
            sample(out, name, &format!("limit=\"{}\"", ending.name()), get(counter));
        }
        let name = "approov_connections_refused_total";
        family(out, name, "counter", "Connections that were closed at once, by the limit that they broke.");
        for (limit, counter) in Refusal::NAMES.iter().zip(&self.refused) {
            sample(out, name, &format!("limit=\"{limit}\""), get(counter));
        }
        let name = "approov_accept_errors_total";
        family(out, name, "counter", "Times a connection could not be accepted.");
        sample(out, name, "", get(&self.failed_accepts));
        let name = "approov_handshakes_failed_total";
        family(out, name, "counter", "TLS handshakes that failed or did not end in time.");
        sample(out, name, "", get(&self.failed_handshakes));
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Begins a family of samples.
pub fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Adds a sample; `labels` are as they stand between the braces.
pub fn sample(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}
