//! Signals that end the process, and the way there.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::log::Log;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    #[default]
    Running,
    /// It serves, and says that it is not ready, so that balancers send new clients elsewhere.
    Draining,
    /// It takes no new connections; running requests finish.
    Stopping,
}

/// The signals that end a process. From here on they do not end it by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes these signals.
    ///
    /// # Errors
    /// When they cannot be taken.
    pub fn take() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Follows the signals, those since [`Signals::take`] included.
    ///
    /// SIGTERM, which supervisors send, drains for the time that `drain` gives, then stops. SIGINT, which people send,
    /// stops. A second signal ends the draining; one after that ends the process, with exit code 130.
    pub fn follow(mut self, drain: impl Fn() -> Duration + Send + 'static, log: Log) -> watch::Receiver<Phase> {
        let (phase, phases) = watch::channel(Phase::Running);
        tokio::spawn(async move {
            let first = self.next().await;
            let drain = if first == SignalKind::terminate() { drain() } else { Duration::ZERO };
            if !drain.is_zero() {
                log.event("draining", &format!("not ready for new clients; stopping in {} s", drain.as_secs_f64()));
                phase.send_replace(Phase::Draining);
                // A signal cuts the time short.
                let _ = tokio::time::timeout(drain, self.next()).await;
            }
            log.event("stopping", "no new connections; running requests finish");
            phase.send_replace(Phase::Stopping);
            self.next().await;
            log.flush(Duration::from_millis(100));
            std::process::exit(130);
        });
        phases
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

/// Ends when a process is about to stop.
pub(crate) async fn stopped(phases: &mut watch::Receiver<Phase>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = phases.wait_for(|phase| *phase == Phase::Stopping).await;
}
