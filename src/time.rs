//! Time as values: readings of the local clocks, and the service's clock as far as it is known.
//!
//! Everything that expires does so by the service's clock, so that a wrong clock on the user's machine changes nothing.
//! What is known of the service's time is an interval, not a point: network delay widens it, and so does a wall clock that ran
//! ahead of the monotonic one, because that is either a computer that slept or a user who moved the clock, and nothing tells which.

/// Milliseconds since the Unix epoch.
pub type UnixMillis = i64;

/// Both local clocks, read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `Date.now()`: may be wrong, may jump.
    pub wall: UnixMillis,
    /// `performance.now()` in whole milliseconds: never jumps, but may stand still while the computer sleeps.
    pub monotonic: i64,
}

/// The bounds between which the service's clock stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTime {
    /// It is at least this late.
    pub earliest: UnixMillis,
    /// It is at most this late.
    pub latest: UnixMillis,
}

/// What is known of the service's clock. Before the first answer: that it probably agrees with the local wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceClock {
    anchor: Option<Anchor>,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    local: Reading,
    service: ServiceTime,
}

impl ServiceClock {
    /// Learns from an answer that was stamped `service` by the service, somewhere between `sent` and `received`.
    /// `resolution` is how coarse the stamp is, in milliseconds (1 for `server-time`, 1000 for a `Date` header).
    pub fn learn(&mut self, sent: Reading, received: Reading, service: UnixMillis, resolution: i64) {
        let travelled = received.monotonic.saturating_sub(sent.monotonic).max(0);
        let fresh = ServiceTime {
            earliest: service,
            latest: service.saturating_add(travelled).saturating_add(resolution.saturating_sub(1)),
        };
        self.anchor = Some(Anchor { local: received, service: self.narrowed(fresh, received) });
    }

    /// The service's time at the moment of `local`.
    #[must_use]
    pub fn at(&self, local: Reading) -> ServiceTime {
        let Some(anchor) = self.anchor else {
            return ServiceTime { earliest: local.wall, latest: local.wall };
        };
        let ticked = local.monotonic.saturating_sub(anchor.local.monotonic).max(0);
        let walled = local.wall.saturating_sub(anchor.local.wall);
        ServiceTime {
            earliest: anchor.service.earliest.saturating_add(ticked),
            latest: anchor.service.latest.saturating_add(ticked.max(walled)),
        }
    }

    /// A moment of the service's clock, as the local wall clock will show it.
    #[must_use]
    pub fn to_wall(&self, moment: UnixMillis, local: Reading) -> UnixMillis {
        let left = moment.saturating_sub(self.at(local).earliest);
        local.wall.saturating_add(left)
    }

    /// A coarse stamp must not widen what finer ones have shown, as long as the two agree.
    fn narrowed(&self, fresh: ServiceTime, received: Reading) -> ServiceTime {
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

    fn reading(wall: i64, monotonic: i64) -> Reading {
        Reading { wall, monotonic }
    }

    fn learned(wall: i64, service: i64) -> ServiceClock {
        let mut clock = ServiceClock::default();
        clock.learn(reading(wall, 1_000), reading(wall + 40, 1_040), service, 1);
        clock
    }

    #[test]
    fn without_an_answer_the_wall_clock_is_believed() {
        let now = ServiceClock::default().at(reading(5_000, 7));
        assert_eq!(now, ServiceTime { earliest: 5_000, latest: 5_000 });
    }

    #[test]
    fn a_clock_six_hours_wrong_in_either_direction_changes_nothing() {
        for wrong in [-6 * HOUR, 0, 6 * HOUR] {
            let service = 1_700_000_000_000;
            let clock = learned(service + wrong, service);
            let later = clock.at(reading(service + wrong + 40 + 500, 1_540));
            assert_eq!(later, ServiceTime { earliest: service + 500, latest: service + 540 });
        }
    }

    #[test]
    fn a_wall_clock_set_back_is_ignored() {
        let clock = learned(1_000_000, 2_000_000);
        let now = clock.at(reading(1_000_000 - HOUR, 2_040));
        assert_eq!(now, ServiceTime { earliest: 2_001_000, latest: 2_001_040 });
    }

    #[test]
    fn a_wall_clock_that_ran_ahead_is_a_sleep_or_a_change_and_widens_the_interval() {
        let clock = learned(1_000_000, 2_000_000);
        let now = clock.at(reading(1_000_040 + HOUR, 1_050));
        assert_eq!(now, ServiceTime { earliest: 2_000_010, latest: 2_000_040 + HOUR });
    }

    #[test]
    fn an_answer_after_the_jump_settles_it() {
        let mut clock = learned(1_000_000, 2_000_000);
        clock.learn(reading(1_000_040 + HOUR, 1_050), reading(1_000_050 + HOUR, 1_060), 2_000_020, 1);
        let now = clock.at(reading(1_000_050 + HOUR, 1_060));
        assert_eq!(now, ServiceTime { earliest: 2_000_020, latest: 2_000_030 });
    }

    #[test]
    fn a_coarse_stamp_does_not_blur_a_fine_one_and_a_contradicting_one_wins() {
        let mut clock = learned(1_000_000, 2_000_500);
        clock.learn(reading(1_000_040, 1_040), reading(1_000_045, 1_045), 2_000_000, 1_000);
        let now = clock.at(reading(1_000_045, 1_045));
        assert_eq!(now, ServiceTime { earliest: 2_000_505, latest: 2_000_545 });
        clock.learn(reading(1_000_045, 1_045), reading(1_000_050, 1_050), 9_000_000, 1_000);
        assert_eq!(clock.at(reading(1_000_050, 1_050)).earliest, 9_000_000);
    }

    #[test]
    fn moments_of_the_service_are_shown_on_the_local_wall_clock() {
        let clock = learned(1_000_000, 2_000_000);
        assert_eq!(clock.to_wall(2_060_000, reading(1_000_040, 1_040)), 1_060_040);
        assert_eq!(clock.to_wall(2_060_000, reading(1_000_040 + HOUR, 1_040)), 1_060_040 + HOUR);
    }

    #[test]
    fn absurd_values_saturate() {
        let mut clock = ServiceClock::default();
        clock.learn(reading(i64::MIN, i64::MIN), reading(i64::MAX, i64::MAX), i64::MAX, i64::MAX);
        assert_eq!(clock.at(reading(i64::MAX, i64::MAX)).latest, i64::MAX);
        assert!(clock.to_wall(i64::MIN, reading(i64::MIN, i64::MAX)) < 0);
    }
}
