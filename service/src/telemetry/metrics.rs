//! Counters for Prometheus (text exposition format 0.0.4).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use approov_listener::metrics::{family, sample};
use approov_verify::time::UnixTime;

use crate::limits::Limit;

/// So many checks of a site in a row that are refused for what is configured here are an alarm.
pub const ALARM_AFTER: u32 = 5;

/// Upper bounds of the buckets of scores.
const SCORES: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Upper bounds of the latency buckets, seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];
/// A session is active when it got a token in this time.
const ACTIVE: Duration = Duration::from_secs(300);
/// Most sessions counted, so that the count cannot eat the memory.
const MAX_SESSIONS: usize = 1_000_000;

/// What the service counts about itself. It starts at zero with the process.
#[derive(Default)]
pub struct Metrics {
    counts: Mutex<Counts>,
    /// What its listener counts.
    pub listener: Arc<approov_listener::metrics::Metrics>,
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<(&'static str, u16), u64>,
    request_time: BTreeMap<&'static str, Histogram>,
    refusals: BTreeMap<&'static str, u64>,
    checks: BTreeMap<(&'static str, &'static str), u64>,
    check_time: BTreeMap<&'static str, Histogram>,
    used_again: BTreeMap<(&'static str, &'static str), u64>,
    monitored: BTreeMap<(&'static str, &'static str), u64>,
    scores: BTreeMap<&'static str, Histogram>,
    /// Sites whose latest checks were refused for what is configured here: their check service, and how many.
    misconfigured: BTreeMap<String, (&'static str, u32)>,
    reloads: BTreeMap<&'static str, u64>,
    limited: BTreeMap<Limit, u64>,
    store_errors: u64,
    forwarding_faults: BTreeMap<&'static str, u64>,
    clock_offset_ms: i64,
    sessions: Sessions,
}

struct Histogram {
    bounds: &'static [f64],
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(self.bounds) {
            *bucket += u64::from(value <= *bound);
        }
        self.count += 1;
        self.sum += value;
    }
}

/// Of times.
impl Default for Histogram {
    fn default() -> Self {
        Self::new(&BUCKETS)
    }
}

/// Sessions seen in the current period of [`ACTIVE`] and the one before.
#[derive(Default)]
struct Sessions {
    period: u64,
    current: HashSet<u64>,
    previous: HashSet<u64>,
}

impl Sessions {
    fn rotate(&mut self, now: UnixTime) {
        let period = now.since(UnixTime::from_secs(0)).as_secs() / ACTIVE.as_secs();
        if period != self.period {
            let current = std::mem::take(&mut self.current);
            self.previous = if period == self.period + 1 { current } else { HashSet::new() };
            self.period = period;
        }
    }

    fn active(&self) -> usize {
        self.current.len() + self.previous.difference(&self.current).count()
    }
}

impl Metrics {
    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A request was served.
    pub fn request(&self, outcome: &'static str, status: u16, codes: &[&'static str], time: Duration) {
        self.with(|counts| {
            *counts.requests.entry((outcome, status)).or_default() += 1;
            counts.request_time.entry(outcome).or_default().observe(time.as_secs_f64());
            for code in codes {
                *counts.refusals.entry(code).or_default() += 1;
            }
        });
    }

    /// A check service was asked.
    pub fn check(&self, service: &'static str, result: &'static str, time: Duration) {
        self.with(|counts| {
            *counts.checks.entry((service, result)).or_default() += 1;
            counts.check_time.entry(service).or_default().observe(time.as_secs_f64());
        });
    }

    /// A result came that was used before, or is being checked. `by` says who sent it.
    pub fn used_again(&self, service: &'static str, by: &'static str) {
        self.with(|counts| *counts.used_again.entry((service, by)).or_default() += 1);
    }

    /// A check that is only watched would have failed.
    pub fn monitored(&self, service: &'static str, result: &'static str) {
        self.with(|counts| *counts.monitored.entry((service, result)).or_default() += 1);
    }

    /// A check service gave a score, of a person.
    pub fn score(&self, service: &'static str, score: f64) {
        self.with(|counts| counts.scores.entry(service).or_insert_with(|| Histogram::new(&SCORES)).observe(score));
    }

    /// A check of a site was refused for what is configured here. Whether this is the one that makes an alarm.
    pub fn misconfigured(&self, site: &str, service: &'static str) -> bool {
        self.with(|counts| {
            let (_, in_a_row) = counts.misconfigured.entry(site.to_owned()).or_insert((service, 0));
            *in_a_row = in_a_row.saturating_add(1);
            *in_a_row == ALARM_AFTER
        })
    }

    /// Only these sites are still configured.
    pub fn keep_sites(&self, is_configured: impl Fn(&str) -> bool) {
        self.with(|counts| counts.misconfigured.retain(|site, _| is_configured(site)));
    }

    /// A check of a site passed. Whether that ends an alarm.
    pub fn configured(&self, site: &str) -> bool {
        self.with(|counts| {
            // Most sites have nothing to end.
            if counts.misconfigured.is_empty() {
                return false;
            }
            counts.misconfigured.remove(site).is_some_and(|(_, in_a_row)| in_a_row >= ALARM_AFTER)
        })
    }

    /// A client was over a limit.
    pub fn limited(&self, limit: Limit) {
        self.with(|counts| *counts.limited.entry(limit).or_default() += 1);
    }

    /// The store was unavailable.
    pub fn store_error(&self) {
        self.with(|counts| counts.store_errors += 1);
    }

    /// The configuration was read again.
    pub fn reload(&self, result: &'static str) {
        self.with(|counts| *counts.reloads.entry(result).or_default() += 1);
    }

    /// This machine's clock was compared with another: how far it is ahead.
    pub fn clock_offset(&self, ms: i64) {
        self.with(|counts| counts.clock_offset_ms = ms);
    }

    /// A forwarding header did not count.
    pub fn forwarding_fault(&self, reason: &'static str) {
        self.with(|counts| *counts.forwarding_faults.entry(reason).or_default() += 1);
    }

    /// A session got a token; `id` is any number that belongs to it.
    pub fn session(&self, id: u64, now: UnixTime) {
        self.with(|counts| {
            counts.sessions.rotate(now);
            if counts.sessions.current.len() < MAX_SESSIONS {
                counts.sessions.current.insert(id);
            }
        });
    }

    /// Everything, in Prometheus' text format.
    pub fn render(&self, now: UnixTime) -> String {
        let mut out = self.with(|counts| {
            counts.sessions.rotate(now);
            counts.render()
        });
        self.listener.render(&mut out);
        out
    }
}

impl Counts {
    fn render(&self) -> String {
        let mut out = String::new();
        family(&mut out, "approov_requests_total", "counter", "Responses, by outcome and HTTP status.");
        for ((outcome, status), count) in &self.requests {
            sample(&mut out, "approov_requests_total", &format!("outcome=\"{outcome}\",status=\"{status}\""), count);
        }
        family(&mut out, "approov_refusals_total", "counter", "Error codes sent.");
        for (code, count) in &self.refusals {
            sample(&mut out, "approov_refusals_total", &format!("code=\"{code}\""), count);
        }
        family(&mut out, "approov_checks_total", "counter", "Checks made, by service and result.");
        for ((service, result), count) in &self.checks {
            sample(&mut out, "approov_checks_total", &format!("service=\"{service}\",result=\"{result}\""), count);
        }
        let name = "approov_results_used_again_total";
        family(&mut out, name, "counter", "Results that had been used before, by service and by who sent them.");
        for ((service, by), count) in &self.used_again {
            sample(&mut out, name, &format!("service=\"{service}\",by=\"{by}\""), count);
        }
        let name = "approov_monitored_total";
        family(&mut out, name, "counter", "Checks that are only watched and would have failed, by service and result.");
        for ((service, result), count) in &self.monitored {
            sample(&mut out, name, &format!("service=\"{service}\",result=\"{result}\""), count);
        }
        let name = "approov_check_score";
        histograms(&mut out, name, "Scores of check services, 1 for a person.", "service", &self.scores);
        let name = "approov_check_misconfigured";
        family(&mut out, name, "gauge", "Sites whose checks are refused for what is configured here, by service.");
        let mut alarms: BTreeMap<&str, u64> = BTreeMap::new();
        for (service, in_a_row) in self.misconfigured.values() {
            *alarms.entry(service).or_default() += u64::from(*in_a_row >= ALARM_AFTER);
        }
        for (service, sites) in alarms {
            sample(&mut out, name, &format!("service=\"{service}\""), sites);
        }
        histograms(
            &mut out,
            "approov_request_seconds",
            "Time from a request's head to its response's.",
            "outcome",
            &self.request_time,
        );
        histograms(&mut out, "approov_check_seconds", "Time a check service took.", "service", &self.check_time);
        family(&mut out, "approov_config_reloads_total", "counter", "Configuration reloads, by result.");
        for (result, count) in &self.reloads {
            sample(&mut out, "approov_config_reloads_total", &format!("result=\"{result}\""), count);
        }
        family(&mut out, "approov_limited_total", "counter", "Requests of clients that were over a limit, by limit.");
        for (limit, count) in &self.limited {
            sample(&mut out, "approov_limited_total", &format!("limit=\"{}\"", limit.name()), count);
        }
        family(&mut out, "approov_store_errors_total", "counter", "Times the store was unavailable.");
        sample(&mut out, "approov_store_errors_total", "", self.store_errors);
        family(
            &mut out,
            "approov_forwarding_faults_total",
            "counter",
            "Forwarding headers that did not count, by reason.",
        );
        for (reason, count) in &self.forwarding_faults {
            sample(&mut out, "approov_forwarding_faults_total", &format!("reason=\"{reason}\""), count);
        }
        family(
            &mut out,
            "approov_clock_offset_seconds",
            "gauge",
            "How far this machine's clock is ahead of the check services' at least.",
        );
        #[allow(clippy::cast_precision_loss)]
        let seconds = self.clock_offset_ms as f64 / 1000.0;
        sample(&mut out, "approov_clock_offset_seconds", "", seconds);
        family(
            &mut out,
            "approov_active_sessions",
            "gauge",
            "Sessions that got a token from this replica in the last five to ten minutes.",
        );
        sample(&mut out, "approov_active_sessions", "", self.sessions.active());
        out
    }
}

fn histograms(out: &mut String, name: &str, help: &str, label: &str, all: &BTreeMap<&'static str, Histogram>) {
    family(out, name, "histogram", help);
    for (value, histogram) in all {
        for (bound, count) in histogram.bounds.iter().zip(&histogram.buckets) {
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
