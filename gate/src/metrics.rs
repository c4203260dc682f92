//! Counters in Prometheus' text format.

use approov_listener::metrics::{family, sample};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The upper bounds of the histogram's buckets, seconds.
const BUCKETS: [f64; 9] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];

/// What the gate counts. It starts at zero with the process.
#[derive(Debug, Default)]
pub struct Metrics {
    verdicts: Mutex<BTreeMap<(String, &'static str), u64>>,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    /// Counts a verdict under a policy.
    pub fn verdict(&self, policy: &str, code: &'static str, time: Duration) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        *verdicts.entry((policy.to_owned(), code)).or_default() += 1;
        drop(verdicts);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = time.as_secs_f64();
        for (bound, count) in BUCKETS.iter().zip(&mut times.buckets) {
            *count += u64::from(seconds <= *bound);
        }
        times.count += 1;
        times.seconds += seconds;
    }

    /// Adds everything to `out`.
    pub fn render(&self, out: &mut String) {
        let name = "approov_gate_verdicts_total";
        family(out, name, "counter", "Questions of gateways, by policy and verdict: ok, open, preflight, or why not.");
        for ((policy, code), count) in &*self.verdicts.lock().unwrap_or_else(PoisonError::into_inner) {
            sample(out, name, &format!("policy=\"{policy}\",verdict=\"{code}\""), count);
        }
        let name = "approov_gate_seconds";
        family(out, name, "histogram", "Time from a question to its verdict.");
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        for (bound, count) in BUCKETS.iter().zip(times.buckets) {
            sample(out, "approov_gate_seconds_bucket", &format!("le=\"{bound}\""), count);
        }
        sample(out, "approov_gate_seconds_bucket", "le=\"+Inf\"", times.count);
        sample(out, "approov_gate_seconds_sum", "", times.seconds);
        sample(out, "approov_gate_seconds_count", "", times.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_counted_by_policy_and_times_in_buckets() {
        let metrics = Metrics::default();
        metrics.verdict("default", "ok", Duration::from_micros(300));
        metrics.verdict("default", "ok", Duration::from_millis(2));
        metrics.verdict("public", "open", Duration::from_secs(5));
        let mut text = String::new();
        metrics.render(&mut text);
        for line in [
            "approov_gate_verdicts_total{policy=\"default\",verdict=\"ok\"} 2",
            "approov_gate_verdicts_total{policy=\"public\",verdict=\"open\"} 1",
            "approov_gate_seconds_bucket{le=\"0.0005\"} 1",
            "approov_gate_seconds_bucket{le=\"0.0025\"} 2",
            "approov_gate_seconds_bucket{le=\"+Inf\"} 3",
            "approov_gate_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
