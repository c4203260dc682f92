//! Counters for Prometheus (text exposition format 0.0.4).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use approov_verify::time::UnixTime;

/// Upper bounds of the latency buckets, seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];
/// A session is active when it got a token in this time.
const ACTIVE: Duration = Duration::from_secs(300);
/// Most sessions counted, so that the count cannot eat the memory.
const MOST_SESSIONS: usize = 1_000_000;

/// What the service counts about itself. It starts at zero with the process.
#[derive(Default)]
pub struct Metrics(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(&'static str, u16), u64>,
    request_time: BTreeMap<&'static str, Histogram>,
    refusals: BTreeMap<&'static str, u64>,
    checks: BTreeMap<(&'static str, &'static str), u64>,
    check_time: BTreeMap<&'static str, Histogram>,
    reloads: BTreeMap<&'static str, u64>,
    store_errors: u64,
    connections: u64,
    sessions: Sessions,
}

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (bucket, bound) in self.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// Sessions seen in the present period of [`ACTIVE`] and the one before.
#[derive(Default)]
struct Sessions {
    period: u64,
    present: HashSet<u64>,
    past: HashSet<u64>,
}

impl Sessions {
    fn turn(&mut self, now: UnixTime) {
        let period = now.since(UnixTime::from_secs(0)).as_secs() / ACTIVE.as_secs();
        if period != self.period {
            let present = std::mem::take(&mut self.present);
            self.past = if period == self.period + 1 { present } else { HashSet::new() };
            self.period = period;
        }
    }

    fn active(&self) -> usize {
        self.present.len() + self.past.difference(&self.present).count()
    }
}

impl Metrics {
    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request was answered.
    pub fn request(&self, outcome: &'static str, status: u16, codes: &[&'static str], time: Duration) {
        self.with(|counts| {
            *counts.requests.entry((outcome, status)).or_default() += 1;
            counts.request_time.entry(outcome).or_default().observe(time);
            for code in codes {
                *counts.refusals.entry(code).or_default() += 1;
            }
        });
    }

    /// A check service was asked.
    pub fn check(&self, service: &'static str, result: &'static str, time: Duration) {
        self.with(|counts| {
            *counts.checks.entry((service, result)).or_default() += 1;
            counts.check_time.entry(service).or_default().observe(time);
        });
    }

    /// The store did not answer.
    pub fn store_error(&self) {
        self.with(|counts| counts.store_errors += 1);
    }

    /// The configuration was read again.
    pub fn reload(&self, result: &'static str) {
        self.with(|counts| *counts.reloads.entry(result).or_default() += 1);
    }

    /// A connection was accepted.
    pub fn connection(&self) {
        self.with(|counts| counts.connections += 1);
    }

    /// A session got a token; `id` is any number that belongs to it.
    pub fn session(&self, id: u64, now: UnixTime) {
        self.with(|counts| {
            counts.sessions.turn(now);
            if counts.sessions.present.len() < MOST_SESSIONS {
                counts.sessions.present.insert(id);
            }
        });
    }

    /// Everything, in Prometheus' text format.
    pub fn render(&self, now: UnixTime) -> String {
        self.with(|counts| {
            counts.sessions.turn(now);
            counts.render()
        })
    }
}

impl Counts {
    fn render(&self) -> String {
        let mut out = String::new();
        head(&mut out, "approov_requests_total", "counter", "Requests answered, by outcome and HTTP status.");
        for ((outcome, status), count) in &self.requests {
            line(&mut out, "approov_requests_total", &format!("outcome=\"{outcome}\",status=\"{status}\""), count);
        }
        head(&mut out, "approov_refusals_total", "counter", "Error codes sent.");
        for (code, count) in &self.refusals {
            line(&mut out, "approov_refusals_total", &format!("code=\"{code}\""), count);
        }
        head(&mut out, "approov_checks_total", "counter", "Checks made, by service and result.");
        for ((service, result), count) in &self.checks {
            line(&mut out, "approov_checks_total", &format!("service=\"{service}\",result=\"{result}\""), count);
        }
        histograms(
            &mut out,
            "approov_request_seconds",
            "Time from a request's head to its answer's.",
            "outcome",
            &self.request_time,
        );
        histograms(&mut out, "approov_check_seconds", "Time a check service took.", "service", &self.check_time);
        head(&mut out, "approov_config_reloads_total", "counter", "Configuration reloads, by result.");
        for (result, count) in &self.reloads {
            line(&mut out, "approov_config_reloads_total", &format!("result=\"{result}\""), count);
        }
        head(&mut out, "approov_store_errors_total", "counter", "Times the store did not answer.");
        line(&mut out, "approov_store_errors_total", "", &self.store_errors);
        head(&mut out, "approov_connections_total", "counter", "Connections accepted.");
        line(&mut out, "approov_connections_total", "", &self.connections);
        head(
            &mut out,
            "approov_active_sessions",
            "gauge",
            "Sessions that got a token from this replica in the last five to ten minutes.",
        );
        line(&mut out, "approov_active_sessions", "", &(self.sessions.active() as u64));
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: &u64) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}

fn histograms(out: &mut String, name: &str, help: &str, label: &str, all: &BTreeMap<&'static str, Histogram>) {
    head(out, name, "histogram", help);
    for (value, histogram) in all {
        for (bound, count) in BUCKETS.iter().zip(histogram.buckets) {
            let _ = writeln!(out, "{name}_bucket{{{label}=\"{value}\",le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_bucket{{{label}=\"{value}\",le=\"+Inf\"}} {}", histogram.count);
        let _ = writeln!(out, "{name}_sum{{{label}=\"{value}\"}} {}", histogram.sum);
        let _ = writeln!(out, "{name}_count{{{label}=\"{value}\"}} {}", histogram.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_rendered_by_outcome() {
        let metrics = Metrics::default();
        metrics.request("token", 200, &[], Duration::from_millis(3));
        metrics.request("refused", 400, &["aprv-no-site-key"], Duration::from_millis(1));
        metrics.check("hcaptcha", "passed", Duration::from_millis(20));
        let text = metrics.render(UnixTime::from_millis(0));
        for line in [
            "approov_requests_total{outcome=\"token\",status=\"200\"} 1",
            "approov_refusals_total{code=\"aprv-no-site-key\"} 1",
            "approov_checks_total{service=\"hcaptcha\",result=\"passed\"} 1",
            "approov_request_seconds_bucket{outcome=\"token\",le=\"0.0025\"} 0",
            "approov_request_seconds_bucket{outcome=\"token\",le=\"0.005\"} 1",
            "approov_request_seconds_count{outcome=\"token\"} 1",
            "approov_store_errors_total 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_session_counts_once_and_fades() {
        let metrics = Metrics::default();
        let now = UnixTime::from_millis(1_700_000_000_000);
        metrics.session(1, now);
        metrics.session(1, now);
        metrics.session(2, now.plus(ACTIVE));
        let active = |now| {
            let text = metrics.render(now);
            text.lines().find_map(|line| line.strip_prefix("approov_active_sessions ")).unwrap().to_owned()
        };
        assert_eq!(active(now.plus(ACTIVE)), "2");
        assert_eq!(active(now.plus(ACTIVE * 2)), "1");
        assert_eq!(active(now.plus(ACTIVE * 9)), "0");
    }
}
