//! Signals that end the process.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::log::Log;

/// Turns true at the first SIGTERM or SIGINT. A second one ends the process at once, with exit code 130.
///
/// # Errors
/// When signals cannot be handled.
pub fn on_signal(log: Log) -> io::Result<watch::Receiver<bool>> {
    let (end, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        log.event("stopping", "no new connections; running requests finish");
        // The accept loop may have ended by itself.
        let _ = end.send(true);
        // A second signal does not wait.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        log.flush(Duration::from_millis(100));
        std::process::exit(130);
    });
    Ok(stop)
}

/// Ends when `stop` turns true.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}
