//! What a connection is busy with, since when, and which time-out that breaks.
//!
//! The parts of a connection note what they see in atomics; one timer per connection looks at them, so that a request
//! costs no timer of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::{MAX_CONCURRENT_STREAMS, Timeouts};

/// Milliseconds since the listener began.
pub(crate) type Millis = u64;

/// The clock that all connections of a listener share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        // Zero means "none" in what is stored, so the clock begins later.
        let now = Instant::now();
        Self(now.checked_sub(Duration::from_millis(1)).unwrap_or(now))
    }

    pub(crate) fn now(self) -> Millis {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn at(self, time: Millis) -> Instant {
        self.0 + Duration::from_millis(time)
    }
}

/// Why a connection was ended from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A head did not come in time.
    Head,
    /// Nothing could be written.
    Write,
    /// A response could not be sent, although other things could.
    Stream,
    /// No request in a long time.
    Idle,
    /// It has been open for as long as a connection may.
    Age,
    /// Its place was needed.
    Evicted,
}

impl Ending {
    pub(crate) const ALL: [Self; 6] = [Self::Head, Self::Write, Self::Stream, Self::Idle, Self::Age, Self::Evicted];

    /// The name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Write => "write",
            Self::Stream => "stream",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Evicted => "evicted",
        }
    }

    /// Whether the other end is told before the connection closes: it has done nothing wrong, and may be about to send
    /// another request.
    pub(crate) const fn is_gentle(self) -> bool {
        matches!(self, Self::Idle | Self::Age | Self::Evicted)
    }
}

/// The value of a slot whose exchange has no response yet. Smaller ones are times.
const IN_SERVICE: u64 = u64::MAX;
const FREE: u64 = 0;

/// What a connection is busy with.
pub(crate) struct Activity {
    clock: Clock,
    opened: AtomicU64,
    begun: AtomicBool,
    /// Since when an unfinished head is there; zero: none is.
    head: AtomicU64,
    /// Since when nothing could be written; zero: nothing waits.
    blocked: AtomicU64,
    /// Since when no exchange is open; right while none is.
    idle: AtomicU64,
    open: AtomicUsize,
    /// One for each request that is being served: [`FREE`], [`IN_SERVICE`], or when its response last got on.
    exchanges: [AtomicU64; MAX_CONCURRENT_STREAMS as usize],
    evicted: Notify,
}

impl Activity {
    pub(crate) fn new(clock: Clock) -> Self {
        let now = clock.now();
        Self {
            clock,
            opened: AtomicU64::new(now),
            begun: AtomicBool::new(false),
            head: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            idle: AtomicU64::new(now),
            open: AtomicUsize::new(0),
            exchanges: [const { AtomicU64::new(FREE) }; MAX_CONCURRENT_STREAMS as usize],
            evicted: Notify::new(),
        }
    }

    /// The handshake is done: time is counted from here.
    pub(crate) fn restart(&self) {
        let now = self.clock.now();
        self.opened.store(now, Ordering::Relaxed);
        self.idle.store(now, Ordering::Relaxed);
    }

    /// A head is there in part, or is no more.
    pub(super) fn set_head(&self, incomplete: bool) {
        if !incomplete {
            self.head.store(0, Ordering::Relaxed);
        } else if self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(self.clock.now(), Ordering::Relaxed);
        }
    }

    /// Something could be written, or not.
    pub(super) fn set_blocked(&self, blocked: bool) {
        if !blocked {
            self.blocked.store(0, Ordering::Relaxed);
        } else if self.blocked.load(Ordering::Relaxed) == 0 {
            self.blocked.store(self.clock.now(), Ordering::Relaxed);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Since when the connection has nothing to do; `None` while it has. One that has never sent a request counts
    /// from its beginning.
    pub(crate) fn idle_since(&self) -> Option<Millis> {
        self.is_idle().then(|| self.idle.load(Ordering::Relaxed))
    }

    /// When the connection began.
    pub(crate) fn opened(&self) -> Millis {
        self.opened.load(Ordering::Relaxed)
    }

    /// A request whose head has come.
    pub(crate) fn begin_exchange(self: &Arc<Self>) -> Exchange {
        self.begun.store(true, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        let take =
            |slot: &AtomicU64| slot.compare_exchange(FREE, IN_SERVICE, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Exchange { slot: self.exchanges.iter().position(take), activity: Arc::clone(self) }
    }

    /// Asks the connection to make way.
    pub(crate) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Ends when a time-out breaks, or somebody needs the connection's place.
    pub(super) async fn ending(&self, timeouts: &Timeouts) -> Ending {
        loop {
            match self.check(self.clock.now(), timeouts) {
                Err(ending) => return ending,
                Ok(next) => tokio::select! {
                    () = tokio::time::sleep_until(self.clock.at(next)) => {}
                    () = self.evicted.notified() => return Ending::Evicted,
                },
            }
        }
    }

    /// The time-out that is broken at `now`, or when to look again.
    fn check(&self, now: Millis, timeouts: &Timeouts) -> Result<Millis, Ending> {
        // What begins after this look breaks its time-out no earlier than this.
        let mut next = now.saturating_add(millis(timeouts.head.min(timeouts.write)));
        let mut within = |since: Millis, timeout: Duration, ending: Ending| {
            let end = since.saturating_add(millis(timeout));
            next = next.min(end);
            if now >= end { Err(ending) } else { Ok(()) }
        };
        let head = match (self.begun.load(Ordering::Relaxed), self.head.load(Ordering::Relaxed)) {
            (false, _) => self.opened(),
            (true, head) => head,
        };
        if head != 0 {
            within(head, timeouts.head, Ending::Head)?;
        }
        match self.blocked.load(Ordering::Relaxed) {
            0 => {}
            since => within(since, timeouts.write, Ending::Write)?,
        }
        for exchange in &self.exchanges {
            match exchange.load(Ordering::Relaxed) {
                FREE | IN_SERVICE => {}
                since => within(since, timeouts.write, Ending::Stream)?,
            }
        }
        if let Some(since) = self.idle_since() {
            within(since, timeouts.idle, Ending::Idle)?;
        }
        if let Some(age) = timeouts.age {
            within(self.opened(), age, Ending::Age)?;
        }
        Ok(next)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A request and its response, from the request's head to the response's last byte.
pub(crate) struct Exchange {
    activity: Arc<Activity>,
    /// `None`: more exchanges are open than have a slot, for a moment after many were cancelled.
    slot: Option<usize>,
}

impl Exchange {
    /// Its response gets on: it was made, or a part of it could be handed over.
    pub(super) fn progress(&self) {
        self.set(self.activity.clock.now());
    }

    fn set(&self, value: u64) {
        if let Some(slot) = self.slot.and_then(|slot| self.activity.exchanges.get(slot)) {
            slot.store(value, Ordering::Relaxed);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.set(FREE);
        self.activity.idle.store(self.activity.clock.now(), Ordering::Relaxed);
        self.activity.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        head: Duration::from_secs(10),
        body: Duration::from_secs(10),
        write: Duration::from_secs(20),
        idle: Duration::from_secs(150),
        age: None,
    };

    fn activity() -> Arc<Activity> {
        Arc::new(Activity::new(Clock::start()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_busy_has_no_end_and_what_waits_for_the_client_has() {
        let activity = activity();
        let exchange = activity.begin_exchange();
        let served = activity.clock.now();
        assert!(activity.check(served + 1_000_000, &TIMEOUTS).is_ok(), "the service takes the time it takes");
        exchange.progress();
        assert!(activity.check(served + 19_999, &TIMEOUTS).is_ok());
        assert_eq!(activity.check(served + 20_000, &TIMEOUTS), Err(Ending::Stream));
        tokio::time::advance(Duration::from_secs(15)).await;
        exchange.progress();
        assert!(activity.check(served + 34_999, &TIMEOUTS).is_ok(), "counted from the last progress");
        drop(exchange);
        assert!(activity.check(served + 15_000 + 149_999, &TIMEOUTS).is_ok());
        assert_eq!(activity.check(served + 15_000 + 150_000, &TIMEOUTS), Err(Ending::Idle));
        let age = Timeouts { age: Some(Duration::from_secs(100)), ..TIMEOUTS };
        assert_eq!(activity.check(activity.opened() + 100_000, &age), Err(Ending::Age));
    }

    #[test]
    fn more_exchanges_than_slots_are_counted_all_the_same() {
        let activity = activity();
        let exchanges: Vec<Exchange> = (0..100).map(|_| activity.begin_exchange()).collect();
        assert_eq!(activity.idle_since(), None);
        exchanges.iter().for_each(Exchange::progress);
        drop(exchanges);
        assert!(activity.idle_since().is_some());
        assert!(activity.exchanges.iter().all(|slot| slot.load(Ordering::Relaxed) == FREE));
    }

    #[test]
    fn the_next_look_is_no_later_than_anything_that_may_break() {
        let activity = activity();
        let now = activity.clock.now();
        assert_eq!(activity.check(now, &TIMEOUTS), Ok(activity.opened() + 10_000));
        drop(activity.begin_exchange());
        assert_eq!(activity.check(now, &TIMEOUTS), Ok(now + 10_000));
        activity.set_head(true);
        let head = activity.head.load(Ordering::Relaxed);
        assert_eq!(activity.check(head + 9_000, &TIMEOUTS), Ok(head + 10_000));
        assert_eq!(activity.check(head + 10_000, &TIMEOUTS), Err(Ending::Head));
        activity.set_head(false);
        assert!(activity.check(head + 10_000, &TIMEOUTS).is_ok());
    }
}
