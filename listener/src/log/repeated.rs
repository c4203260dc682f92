//! Events that a client can cause as often as it likes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Log, millis};

/// The time between two lines about the same thing.
const INTERVAL: Duration = Duration::from_secs(1);

/// An event of which one line a second is enough; the line says how many there were since the one before.
#[derive(Debug)]
pub struct Repeated {
    name: &'static str,
    start: Instant,
    /// When the next line may come, milliseconds from `start`.
    next: AtomicU64,
    unsaid: AtomicU64,
}

impl Repeated {
    /// An event of this name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, start: Instant::now(), next: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// It happened. `message` is made only when a line is written.
    pub fn event(&self, log: &Log, message: impl FnOnce() -> String) {
        self.event_at(millis(self.start.elapsed()), log, message);
    }

    fn event_at(&self, now: u64, log: &Log, message: impl FnOnce() -> String) {
        let next = self.next.load(Ordering::Relaxed);
        let due = now >= next
            && self.next.compare_exchange(next, now + millis(INTERVAL), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !due {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match self.unsaid.swap(0, Ordering::Relaxed) {
            0 => log.event(self.name, &message()),
            unsaid => log.event(self.name, &format!("{} (and {unsaid} more since the line before)", message())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::super::LogFormat;
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_line_a_second_tells_of_all() {
        let lines = Lines::default();
        let log = Log::to(LogFormat::Text, lines.clone());
        let event = Repeated::new("accept");
        for at in [0, 1, 999, 1000, 1001, 5000] {
            event.event_at(at, &log, || format!("at {at}"));
        }
        log.flush(Duration::from_secs(60));
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let messages: Vec<&str> = text.lines().map(|line| line.split_once("accept: ").unwrap().1).collect();
        assert_eq!(
            messages,
            ["at 0", "at 1000 (and 2 more since the line before)", "at 5000 (and 1 more since the line before)"]
        );
    }
}
