//! Counters in Prometheus' text exposition format 0.0.4.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a listener counts. It starts at zero with the process.
#[derive(Debug, Default)]
pub struct Metrics {
    accepted: AtomicU64,
}

impl Metrics {
    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds everything to `out`.
    pub fn render(&self, out: &mut String) {
        family(out, "approov_connections_total", "counter", "Connections accepted.");
        sample(out, "approov_connections_total", "", self.accepted.load(Ordering::Relaxed));
    }
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
