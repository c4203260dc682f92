//! The table `[limits]`: bounds on what clients may use.

use std::time::Duration;

use approov_listener::fairness::Rate;
use approov_listener::limits as listener;
use serde::Deserialize;
use toml::Spanned;

use crate::settings::{Read, Source};

/// Bounds on what clients may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest request body, bytes.
    pub body_bytes: usize,
    /// Longest time from a request's first byte to its response.
    pub request: Duration,
    /// Longest wait for one response of a check service.
    pub check: Duration,
    /// Most proofs remembered by the memory store. For half of them, any store has no quota.
    pub replay_entries: usize,
    /// Proofs of one key that may be live when more than half of the store is full; `None`: any number.
    pub live_proofs: Option<u32>,
    /// How often a session may ask for tokens; `None`: as often as it likes.
    pub refreshes: Option<Rate>,
    /// New sessions that any network gets in ten seconds, however short the service runs; `None`: nobody is held to a
    /// share.
    pub least_share: Option<u32>,
    /// Results of a client that may not be accepted in ten minutes; `None`: as many as it likes.
    pub failed_checks: Option<u32>,
    /// Checks of a site that may be under way; `None`: any number.
    pub checks_in_flight: Option<usize>,
    /// How long the service says that it is not ready before it stops.
    pub drain: Duration,
    /// What the listener holds clients to.
    pub listener: listener::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 64 * 1024,
            request: Duration::from_secs(30),
            check: Duration::from_secs(8),
            replay_entries: 4_000_000,
            live_proofs: Some(1000),
            refreshes: Some(refreshes(60)),
            least_share: Some(64),
            failed_checks: Some(20),
            checks_in_flight: Some(64),
            // Balancers ask every second or few.
            drain: Duration::from_secs(5),
            listener: listener::Limits::default(),
        }
    }
}

/// Tokens for a session each minute, and twice as many at once: several tabs open, a laptop wakes up.
fn refreshes(per_minute: u32) -> Rate {
    Rate::per(Duration::from_secs(60), per_minute, per_minute.saturating_mul(2))
}

/// A number of things, off when it is 0.
fn number<T: Copy + PartialEq + From<u8>>(value: Option<T>, default: Option<T>) -> Option<T> {
    value.map_or(default, |value| (value != T::from(0)).then_some(value))
}

/// The bursts of connections that a client may open, in seconds of its rate.
const HANDSHAKE_BURST_SECONDS: u32 = 4;

/// As it is written. What is a number of things is off when it is 0.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    body_bytes: Option<usize>,
    connections: Option<usize>,
    handshakes_per_second: Option<u32>,
    head_seconds: Option<Spanned<f64>>,
    body_seconds: Option<Spanned<f64>>,
    write_seconds: Option<Spanned<f64>>,
    idle_seconds: Option<Spanned<f64>>,
    connection_seconds: Option<Spanned<f64>>,
    request_seconds: Option<Spanned<f64>>,
    check_seconds: Option<Spanned<f64>>,
    drain_seconds: Option<Spanned<f64>>,
    refreshes_per_minute: Option<u32>,
    least_share: Option<u32>,
    failed_checks: Option<u32>,
    checks_in_flight: Option<usize>,
    replay_entries: Option<usize>,
    live_proofs: Option<u32>,
}

impl Raw {
    pub(super) fn read(&self, source: &Source<'_>) -> Read<Limits> {
        let default = Limits::default();
        let seconds = |value: &Option<Spanned<f64>>, default| match value {
            None => Ok(default),
            Some(value) => source.duration(value),
        };
        let optional = |value: &Option<Spanned<f64>>| match value {
            Some(value) if *value.get_ref() != 0.0 => source.duration(value).map(Some),
            _ => Ok(None),
        };
        Ok(Limits {
            body_bytes: self.body_bytes.unwrap_or(default.body_bytes),
            request: seconds(&self.request_seconds, default.request)?,
            check: seconds(&self.check_seconds, default.check)?,
            replay_entries: self.replay_entries.unwrap_or(default.replay_entries).max(1),
            live_proofs: number(self.live_proofs, default.live_proofs),
            refreshes: number(self.refreshes_per_minute, None)
                .map(refreshes)
                .or(default.refreshes.filter(|_| self.refreshes_per_minute.is_none())),
            least_share: number(self.least_share, default.least_share),
            failed_checks: number(self.failed_checks, default.failed_checks),
            checks_in_flight: number(self.checks_in_flight, default.checks_in_flight),
            drain: match &self.drain_seconds {
                None => default.drain,
                some => optional(some)?.unwrap_or_default(),
            },
            listener: listener::Limits {
                connections: self.connections.unwrap_or(default.listener.connections).max(1),
                handshakes: match self.handshakes_per_second {
                    None => default.listener.handshakes,
                    Some(0) => None,
                    Some(rate) => {
                        let burst = rate.saturating_mul(HANDSHAKE_BURST_SECONDS);
                        Some(Rate::per(Duration::from_secs(1), rate, burst))
                    }
                },
                timeouts: listener::Timeouts {
                    head: seconds(&self.head_seconds, default.listener.timeouts.head)?,
                    body: seconds(&self.body_seconds, default.listener.timeouts.body)?,
                    write: seconds(&self.write_seconds, default.listener.timeouts.write)?,
                    idle: seconds(&self.idle_seconds, default.listener.timeouts.idle)?,
                    age: optional(&self.connection_seconds)?,
                },
            },
        })
    }
}

impl Limits {
    /// The limits that are off, each with what that allows.
    pub fn warnings(&self) -> Vec<&'static str> {
        let off = [
            (
                self.listener.handshakes.is_none(),
                "limits.handshakes_per_second is 0: one client can keep the service busy with handshakes",
            ),
            (
                self.refreshes.is_none(),
                "limits.refreshes_per_minute is 0: one session can keep the service busy with refreshes",
            ),
            (
                self.least_share.is_none(),
                "limits.least_share is 0: one client can take all that the service has for new sessions",
            ),
            (
                self.failed_checks.is_none(),
                "limits.failed_checks is 0: one client can make any number of calls to check services with junk",
            ),
            (
                self.checks_in_flight.is_none(),
                "limits.checks_in_flight is 0: one client can have any number of checks under way",
            ),
            (self.live_proofs.is_none(), "limits.live_proofs is 0: one session can fill the store of used proofs"),
        ];
        off.into_iter().filter(|(is_off, _)| *is_off).map(|(_, warning)| warning).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn limits(text: &str) -> Limits {
        Config::parse(&format!("[limits]\n{text}")).unwrap_or_else(|error| panic!("{error}")).limits
    }

    #[test]
    fn what_is_not_given_is_the_default() {
        assert_eq!(limits(""), Limits::default());
        assert!(limits("").warnings().is_empty());
    }

    #[test]
    fn a_limit_is_off_at_zero_and_that_is_a_warning() {
        for name in [
            "handshakes_per_second",
            "refreshes_per_minute",
            "least_share",
            "failed_checks",
            "checks_in_flight",
            "live_proofs",
        ] {
            assert_eq!(limits(&format!("{name} = 0")).warnings().len(), 1, "{name}");
            assert!(limits(&format!("{name} = 7")).warnings().is_empty(), "{name}");
        }
        assert_eq!(limits("refreshes_per_minute = 30").refreshes, Some(refreshes(30)));
        assert_eq!(limits("connection_seconds = 0").listener.timeouts.age, None);
        assert_eq!(limits("connection_seconds = 60").listener.timeouts.age, Some(Duration::from_secs(60)));
        assert_eq!(limits("drain_seconds = 0").drain, Duration::ZERO);
        for never in ["head_seconds", "body_seconds", "write_seconds", "idle_seconds", "request_seconds"] {
            let error = Config::parse(&format!("[limits]\n{never} = 0")).unwrap_err();
            assert!(error.message.contains("above 0"), "{error}");
        }
    }
}
