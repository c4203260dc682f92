//! Points in time as values.

use std::time::{Duration, SystemTime};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// Arithmetic saturates, so no token can overflow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The time now, by this machine's clock.
    #[must_use]
    pub fn now() -> Self {
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self(saturating_millis(since)),
            Err(before) => Self(saturating_millis(before.duration()).saturating_neg()),
        }
    }

    /// A time from Unix milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// A time from Unix seconds.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// A time from a JWT `NumericDate` (RFC 7519 section 2): Unix seconds, fractions allowed.
    ///
    /// `None` for a number that is not finite or is negative. Fractions of a millisecond are dropped.
    #[must_use]
    pub fn from_numeric_date(seconds: f64) -> Option<Self> {
        if !seconds.is_finite() || seconds < 0.0 {
            return None;
        }
        // A float to integer cast saturates, which is what is wanted of dates beyond all ranges.
        #[allow(clippy::cast_possible_truncation)]
        Some(Self((seconds * 1000.0) as i64))
    }

    /// Unix milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Unix seconds, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This time and `duration` later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_millis(duration)))
    }

    /// This time and `duration` earlier.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_millis(duration)))
    }

    /// The time from `earlier` to this; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn saturating_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractional_dates_keep_their_milliseconds() {
        // The `exp` of a published Approov token.
        let time = UnixTime::from_numeric_date(4_708_683_205.891_912).unwrap();
        assert_eq!(time.as_millis(), 4_708_683_205_891);
        assert_eq!(time.as_secs(), 4_708_683_205);
    }

    #[test]
    fn absurd_dates_are_none_or_saturate() {
        assert_eq!(UnixTime::from_numeric_date(f64::NAN), None);
        assert_eq!(UnixTime::from_numeric_date(f64::INFINITY), None);
        assert_eq!(UnixTime::from_numeric_date(-1.0), None);
        let last = UnixTime::from_numeric_date(1e300).unwrap();
        assert_eq!(last.plus(Duration::MAX), last);
        assert!(last.minus(Duration::MAX) < UnixTime::now());
        assert_eq!(UnixTime::from_secs(i64::MAX).as_millis(), i64::MAX);
    }

    #[test]
    fn the_time_since_something_later_is_zero() {
        let (earlier, later) = (UnixTime::from_millis(1), UnixTime::from_millis(3));
        assert_eq!(later.since(earlier), Duration::from_millis(2));
        assert_eq!(earlier.since(later), Duration::ZERO);
        assert_eq!(UnixTime(i64::MAX).since(UnixTime(i64::MIN)), Duration::from_millis(i64::MAX.unsigned_abs()));
    }

    #[test]
    fn seconds_round_down_before_the_epoch_too() {
        assert_eq!(UnixTime::from_millis(-1).as_secs(), -1);
        assert_eq!(UnixTime::from_millis(1_999).as_secs(), 1);
        assert!(UnixTime::now() > UnixTime::from_secs(1_700_000_000));
    }
}
