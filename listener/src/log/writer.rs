//! The thread that writes log lines, so that whoever logs never waits for whoever reads.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait to be written. One is at most a few kilobytes.
const MAX_WAITING_LINES: usize = 4096;
/// Bytes that are written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// A queue of lines and the thread that empties it, which begins with the first line.
pub(super) struct Writer {
    queue: OnceLock<Option<SyncSender<Entry>>>,
    sink: Mutex<Option<Box<dyn Write + Send>>>,
    dropped: Arc<AtomicU64>,
    /// The line that says how many were dropped.
    report: fn(u64) -> String,
}

enum Entry {
    Line(String),
    /// All lines before it are written when a reply comes.
    Flush(SyncSender<()>),
}

impl Writer {
    pub(super) fn new(sink: Box<dyn Write + Send>, report: fn(u64) -> String) -> Self {
        Self { queue: OnceLock::new(), sink: Mutex::new(Some(sink)), dropped: Arc::default(), report }
    }

    /// Has a line written soon; drops it when too many wait.
    pub(super) fn write(&self, line: String) {
        let sent = self.queue().is_some_and(|queue| queue.try_send(Entry::Line(line)).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the lines so far are written, but no longer than `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let Some(Some(queue)) = self.queue.get() else {
            return;
        };
        let (done, written) = sync_channel(1);
        let deadline = Instant::now() + timeout;
        let mut entry = Entry::Flush(done);
        // The queue may be full, and a full queue may never empty.
        while let Err(TrySendError::Full(returned)) = queue.try_send(entry) {
            if Instant::now() >= deadline {
                return;
            }
            entry = returned;
            thread::sleep(Duration::from_millis(5));
        }
        // In vain when the reader of the log is stuck: then there is nothing to wait for.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    fn queue(&self) -> Option<&SyncSender<Entry>> {
        let start = || {
            let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            let (sender, receiver) = sync_channel(MAX_WAITING_LINES);
            let (dropped, report) = (Arc::clone(&self.dropped), self.report);
            let run = move || write_all(&receiver, sink, &dropped, report);
            thread::Builder::new().name("log".to_owned()).spawn(run).ok().map(|_| sender)
        };
        self.queue.get_or_init(start).as_ref()
    }
}

/// Writes what comes, several lines at once where they have come faster than they are written.
fn write_all(queue: &Receiver<Entry>, mut sink: Box<dyn Write + Send>, dropped: &AtomicU64, report: fn(u64) -> String) {
    let (mut batch, mut waiting) = (String::new(), Vec::new());
    let mut reported = 0;
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => {
                    batch.push_str(&line);
                    batch.push('\n');
                }
                Entry::Flush(done) => waiting.push(done),
            }
            next = if batch.len() < BATCH_BYTES { queue.try_recv().ok() } else { None };
        }
        let lost = dropped.load(Ordering::Relaxed);
        if lost > reported {
            batch.push_str(&report(lost - reported));
            batch.push('\n');
            reported = lost;
        }
        // A log that cannot be written has nowhere to say so.
        let _ = sink.write_all(batch.as_bytes()).and_then(|()| sink.flush());
        batch.clear();
        for done in waiting.drain(..) {
            // Whoever waited may have given up.
            let _ = done.try_send(());
        }
    }
}
