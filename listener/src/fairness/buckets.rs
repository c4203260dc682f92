//! Token buckets, one for each cell.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::prefix::CELLS;

/// How fast a bucket fills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The time in which one token comes.
    pub interval: Duration,
    /// Tokens of a full bucket.
    pub burst: u32,
}

impl Rate {
    /// So many tokens in each `period`.
    #[must_use]
    pub fn per(period: Duration, tokens: u32, burst: u32) -> Self {
        Self { interval: period / tokens.max(1), burst }
    }

    /// The same for a wide prefix.
    #[must_use]
    pub fn times(self, factor: u32) -> Self {
        Self { interval: self.interval / factor.max(1), burst: self.burst.saturating_mul(factor) }
    }
}

/// Token buckets in fixed memory: each cell holds the time at which its bucket is full again ("generic cell rate
/// algorithm"), so that an unused one costs nothing. Times are durations since any fixed moment.
#[derive(Debug)]
pub struct Buckets(Box<[AtomicU64]>);

impl Default for Buckets {
    fn default() -> Self {
        Self((0..CELLS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Buckets {
    /// Takes a token.
    ///
    /// # Errors
    /// When there is none: the time until one comes.
    pub fn take(&self, cell: u16, now: Duration, rate: Rate) -> Result<(), Duration> {
        let mut missing = Duration::ZERO;
        let taken = self.update(cell, now, |full_in| {
            missing = lack(full_in, rate);
            missing.is_zero().then(|| full_in + rate.interval)
        });
        if taken { Ok(()) } else { Err(missing) }
    }

    /// Whether there is a token, which stays.
    ///
    /// # Errors
    /// When there is none: the time until one comes.
    pub fn peek(&self, cell: u16, now: Duration, rate: Rate) -> Result<(), Duration> {
        let mut missing = Duration::ZERO;
        self.update(cell, now, |full_in| {
            missing = lack(full_in, rate);
            None
        });
        if missing.is_zero() { Ok(()) } else { Err(missing) }
    }

    /// Takes a token that may not be there: for what has happened already.
    pub fn charge(&self, cell: u16, now: Duration, rate: Rate) {
        // No deeper than empty, or those that came at once would be paid for by those that come later.
        let most = rate.interval.saturating_mul(rate.burst);
        self.update(cell, now, |full_in| Some((full_in + rate.interval).min(most)));
    }

    /// Replaces the time in which a bucket is full; says whether it did.
    fn update(&self, cell: u16, now: Duration, mut change: impl FnMut(Duration) -> Option<Duration>) -> bool {
        let now = micros(now);
        self.0.get(usize::from(cell)).is_some_and(|full_at| {
            let update = |full_at: u64| {
                let full_in = Duration::from_micros(full_at.saturating_sub(now));
                change(full_in).map(|full_in| now.saturating_add(micros(full_in)))
            };
            full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update).is_ok()
        })
    }
}

/// The time until a bucket that is full in `full_in` has a token.
fn lack(full_in: Duration, rate: Rate) -> Duration {
    (full_in + rate.interval).saturating_sub(rate.interval.saturating_mul(rate.burst))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { interval: Duration::from_secs(1), burst: 3 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let buckets = Buckets::default();
        for _ in 0..3 {
            assert_eq!(buckets.take(7, at(0), RATE), Ok(()));
        }
        assert_eq!(buckets.take(7, at(0), RATE), Err(Duration::from_secs(1)));
        assert_eq!(buckets.take(8, at(0), RATE), Ok(()), "another cell has its own");
        assert_eq!(buckets.take(7, at(1), RATE), Ok(()));
        assert_eq!(buckets.peek(7, at(1), RATE), Err(Duration::from_secs(1)));
        assert_eq!(buckets.peek(7, at(2), RATE), Ok(()));
        assert_eq!(buckets.take(7, at(2), RATE), Ok(()), "a look takes nothing");
        for _ in 0..3 {
            assert_eq!(buckets.take(7, at(100), RATE), Ok(()), "no more is saved than a bucket holds");
        }
        assert!(buckets.take(7, at(100), RATE).is_err());
    }

    #[test]
    fn what_has_happened_is_charged_but_nobody_goes_into_debt() {
        let buckets = Buckets::default();
        for _ in 0..50 {
            buckets.charge(7, at(0), RATE);
        }
        assert_eq!(buckets.peek(7, at(0), RATE), Err(Duration::from_secs(1)));
        assert_eq!(buckets.peek(7, at(1), RATE), Ok(()));
    }

    #[test]
    fn a_rate_is_so_many_in_a_period() {
        assert_eq!(Rate::per(Duration::from_secs(60), 60, 120).interval, Duration::from_secs(1));
        let wide = Rate::per(Duration::from_secs(1), 50, 200).times(4);
        assert_eq!((wide.interval, wide.burst), (Duration::from_millis(5), 800));
    }
}
