//! How close a process is to its bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{family, sample};

/// From here on, who has more than a fair share is limited first.
pub const SCARCE: f32 = 0.5;
/// From here on, who has more than a fair share is refused.
pub const EXHAUSTED: f32 = 0.8;

/// The scheduling delay that counts as 1.
const FULL_DELAY: Duration = Duration::from_millis(20);
/// How often the scheduling delay is measured.
const INTERVAL: Duration = Duration::from_millis(20);
/// Timers are right to a millisecond or two.
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// The weight of the newest measurement.
const WEIGHT: f32 = 0.25;

/// What may run short. 1 means that none is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Connections, of those that may be open.
    Connections,
    /// Processor time: how long a task waits for its turn.
    Processor,
    /// Calls to other services, of those that may be under way.
    Calls,
}

impl Resource {
    const ALL: [Self; 3] = [Self::Connections, Self::Processor, Self::Calls];

    const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Processor => "processor",
            Self::Calls => "calls",
        }
    }
}

/// How close a process is to its bounds: as close as to the one that is closest.
#[derive(Debug, Default)]
pub struct Pressure([AtomicU32; Resource::ALL.len()]);

impl Pressure {
    /// The pressure now, from 0.
    #[must_use]
    pub fn value(&self) -> f32 {
        Resource::ALL.into_iter().map(|resource| self.get(resource)).fold(0.0, f32::max)
    }

    /// Notes how much of a resource is used.
    pub fn set(&self, resource: Resource, used: f32) {
        if let Some(cell) = self.cell(resource) {
            cell.store(used.to_bits(), Ordering::Relaxed);
        }
    }

    /// Notes that so many of so many are used.
    #[allow(clippy::cast_precision_loss)]
    pub fn set_part(&self, resource: Resource, used: usize, of: usize) {
        self.set(resource, used as f32 / of.max(1) as f32);
    }

    fn get(&self, resource: Resource) -> f32 {
        self.cell(resource).map_or(0.0, |cell| f32::from_bits(cell.load(Ordering::Relaxed)))
    }

    fn cell(&self, resource: Resource) -> Option<&AtomicU32> {
        Resource::ALL.iter().zip(&self.0).find(|(one, _)| **one == resource).map(|(_, cell)| cell)
    }

    /// Measures the scheduling delay for as long as somebody else holds this.
    pub async fn measure(self: Arc<Self>) {
        while Arc::strong_count(&self) > 1 {
            let due = Instant::now() + INTERVAL;
            tokio::time::sleep_until(due).await;
            self.note_delay(due.elapsed().saturating_sub(TIMER_SLACK));
        }
    }

    fn note_delay(&self, delay: Duration) {
        let before = self.get(Resource::Processor);
        let now = delay.as_secs_f32() / FULL_DELAY.as_secs_f32();
        // One hiccup of the machine is not a flood: four times full at most.
        self.set(Resource::Processor, before + (now.min(4.0) - before) * WEIGHT);
    }

    /// Adds the pressure to `out`, in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        family(
            out,
            "approov_pressure",
            "gauge",
            "How close the process is to its bounds, by what runs short; 1: at it.",
        );
        for resource in Resource::ALL {
            sample(out, "approov_pressure", &format!("resource=\"{}\"", resource.name()), self.get(resource));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcest_counts() {
        let pressure = Pressure::default();
        assert!(pressure.value() < 0.001);
        pressure.set_part(Resource::Connections, 60, 100);
        pressure.set(Resource::Calls, 0.2);
        assert!((pressure.value() - 0.6).abs() < 0.001);
    }

    #[test]
    fn a_hiccup_is_no_pressure_and_a_lasting_delay_is() {
        let pressure = Pressure::default();
        pressure.note_delay(Duration::from_millis(30));
        assert!(pressure.value() < SCARCE);
        for _ in 0..20 {
            pressure.note_delay(Duration::from_millis(30));
        }
        assert!(pressure.value() > EXHAUSTED);
        for _ in 0..20 {
            pressure.note_delay(Duration::ZERO);
        }
        assert!(pressure.value() < SCARCE / 10.0);
    }

    #[tokio::test(start_paused = true)]
    async fn measuring_ends_with_the_process_that_it_is_for() {
        let pressure = Arc::new(Pressure::default());
        let measuring = tokio::spawn(Arc::clone(&pressure).measure());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!measuring.is_finished() && pressure.value() < SCARCE);
        drop(pressure);
        measuring.await.unwrap();
    }
}
