//! Time as values: readings of the local clocks, and an estimate of the service's clock.
//!
//! Everything that expires does so by the service's clock, so that a wrong clock on the user's machine changes nothing.
//! The estimate is an interval, not a point: network delay widens it, and so does a wall clock that ran ahead of the monotonic
//! one. That is either a computer that slept or a user who set the clock, and the two cannot be told apart.

/// Milliseconds since the Unix epoch.
pub type UnixMillis = i64;

/// Both local clocks, read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// `Date.now()`: may be wrong, may jump.
    pub wall: UnixMillis,
    /// `performance.now()` in whole milliseconds: never jumps, but may stop while the computer sleeps.
    pub monotonic: i64,
}

/// When a request was sent, and when its response was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// Read just before the request was sent.
    pub sent: ClockReading,
    /// Read when the response was there.
    pub received: ClockReading,
}

/// Bounds on the service's current time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTime {
    /// The lower bound.
    pub earliest: UnixMillis,
    /// The upper bound.
    pub latest: UnixMillis,
}

/// An estimate of the service's clock. Before the first response: the local wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceClock {
    anchor: Option<Anchor>,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    local: ClockReading,
    service: ServiceTime,
}

impl RoundTrip {
    /// A request that took no time, or was never sent.
    #[must_use]
    pub fn instant(now: ClockReading) -> Self {
        RoundTrip { sent: now, received: now }
    }

    fn duration(self) -> i64 {
        self.received.monotonic.saturating_sub(self.sent.monotonic).max(0)
    }
}

impl ServiceClock {
    /// Takes the timestamp that a response carried into account. `resolution` is that of the timestamp, in milliseconds
    /// (1 for `server-time`, 1000 for a `Date` header).
    pub fn observe(&mut self, trip: RoundTrip, timestamp: UnixMillis, resolution: i64) {
        let latest = timestamp.saturating_add(trip.duration()).saturating_add(resolution.saturating_sub(1));
        let fresh = ServiceTime { earliest: timestamp, latest };
        self.anchor = Some(Anchor { local: trip.received, service: self.intersected(fresh, trip.received) });
    }

    /// The service's time at the moment of `local`.
    #[must_use]
    pub fn at(&self, local: ClockReading) -> ServiceTime {
        let Some(anchor) = self.anchor else {
            return ServiceTime { earliest: local.wall, latest: local.wall };
        };
        let monotonic_elapsed = local.monotonic.saturating_sub(anchor.local.monotonic).max(0);
        let wall_elapsed = local.wall.saturating_sub(anchor.local.wall);
        ServiceTime {
            earliest: anchor.service.earliest.saturating_add(monotonic_elapsed),
            latest: anchor.service.latest.saturating_add(monotonic_elapsed.max(wall_elapsed)),
        }
    }

    /// A moment of the service's clock, as the local wall clock will show it.
    #[must_use]
    pub fn to_wall(&self, moment: UnixMillis, local: ClockReading) -> UnixMillis {
        let left = moment.saturating_sub(self.at(local).earliest);
        local.wall.saturating_add(left)
    }

    /// A coarse timestamp must not widen the interval that finer ones gave, unless it contradicts them.
    fn intersected(&self, fresh: ServiceTime, received: ClockReading) -> ServiceTime {
        if self.anchor.is_none() {
            return fresh;
        }
        let known = self.at(received);
        let both = ServiceTime { earliest: fresh.earliest.max(known.earliest), latest: fresh.latest.min(known.latest) };
        if both.earliest <= both.latest { both } else { fresh }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn reading(wall: i64, monotonic: i64) -> ClockReading {
        ClockReading { wall, monotonic }
    }

    fn trip(sent: (i64, i64), received: (i64, i64)) -> RoundTrip {
        RoundTrip { sent: reading(sent.0, sent.1), received: reading(received.0, received.1) }
    }

    /// A clock after one response with a fine timestamp, received after 40 ms, at 1,040 by the monotonic clock.
    fn observed(wall: i64, service: i64) -> ServiceClock {
        let mut clock = ServiceClock::default();
        clock.observe(trip((wall, 1_000), (wall + 40, 1_040)), service, 1);
        clock
    }

    #[test]
    fn without_a_response_the_wall_clock_is_believed() {
        let now = ServiceClock::default().at(reading(5_000, 7));
        assert_eq!(now, ServiceTime { earliest: 5_000, latest: 5_000 });
    }

    #[test]
    fn a_clock_six_hours_wrong_in_either_direction_changes_nothing() {
        for wrong in [-6 * HOUR, 0, 6 * HOUR] {
            let service = 1_700_000_000_000;
            let clock = observed(service + wrong, service);
            let later = clock.at(reading(service + wrong + 40 + 500, 1_540));
            assert_eq!(later, ServiceTime { earliest: service + 500, latest: service + 540 });
        }
    }

    #[test]
    fn a_wall_clock_set_back_is_ignored() {
        let clock = observed(1_000_000, 2_000_000);
        let now = clock.at(reading(1_000_000 - HOUR, 2_040));
        assert_eq!(now, ServiceTime { earliest: 2_001_000, latest: 2_001_040 });
    }

    #[test]
    fn a_wall_clock_that_ran_ahead_is_a_sleep_or_a_change_and_widens_the_interval() {
        let clock = observed(1_000_000, 2_000_000);
        let now = clock.at(reading(1_000_040 + HOUR, 1_050));
        assert_eq!(now, ServiceTime { earliest: 2_000_010, latest: 2_000_040 + HOUR });
    }

    #[test]
    fn a_response_after_the_jump_settles_it() {
        let mut clock = observed(1_000_000, 2_000_000);
        clock.observe(trip((1_000_040 + HOUR, 1_050), (1_000_050 + HOUR, 1_060)), 2_000_020, 1);
        let now = clock.at(reading(1_000_050 + HOUR, 1_060));
        assert_eq!(now, ServiceTime { earliest: 2_000_020, latest: 2_000_030 });
    }

    #[test]
    fn a_coarse_timestamp_does_not_blur_a_fine_one_and_a_contradicting_one_wins() {
        let mut clock = observed(1_000_000, 2_000_500);
        clock.observe(trip((1_000_040, 1_040), (1_000_045, 1_045)), 2_000_000, 1_000);
        let now = clock.at(reading(1_000_045, 1_045));
        assert_eq!(now, ServiceTime { earliest: 2_000_505, latest: 2_000_545 });
        clock.observe(trip((1_000_045, 1_045), (1_000_050, 1_050)), 9_000_000, 1_000);
        assert_eq!(clock.at(reading(1_000_050, 1_050)).earliest, 9_000_000);
    }

    #[test]
    fn moments_of_the_service_are_shown_on_the_local_wall_clock() {
        let clock = observed(1_000_000, 2_000_000);
        assert_eq!(clock.to_wall(2_060_000, reading(1_000_040, 1_040)), 1_060_040);
        assert_eq!(clock.to_wall(2_060_000, reading(1_000_040 + HOUR, 1_040)), 1_060_040 + HOUR);
    }

    #[test]
    fn absurd_values_saturate() {
        let mut clock = ServiceClock::default();
        clock.observe(trip((i64::MIN, i64::MIN), (i64::MAX, i64::MAX)), i64::MAX, i64::MAX);
        assert_eq!(clock.at(reading(i64::MAX, i64::MAX)).latest, i64::MAX);
        assert!(clock.to_wall(i64::MIN, reading(i64::MIN, i64::MAX)) < 0);
    }
}
