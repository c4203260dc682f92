//! The accept loop: who gets a connection, and how all of them end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connection::{self, Activity, Clock, WatchedSocket};
use crate::limits::{Limits, SHUTDOWN_GRACE};
use crate::log::{Log, Repeated};
use crate::metrics::Metrics;
use crate::service::HttpService;
use crate::shutdown::stopped;

/// The pause after a failed accept: most likely file descriptors have run out, and others must close first.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A listener, and what it needs to serve.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// The TLS identity in force; `None`: plain HTTP.
    pub identity: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// Its bounds.
    pub limits: Limits,
    /// Where it says what went wrong.
    pub log: Log,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

impl Listener {
    /// Serves `service` until `stop` turns true, then lets running requests finish.
    ///
    /// # Errors
    /// When the listener itself fails for good.
    pub async fn serve<S: HttpService>(self, service: S, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        let failed_accepts = Repeated::new("accept");
        let failed_handshakes = Arc::new(Repeated::new("handshake"));
        let clock = Clock::start();
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let mut connections = JoinSet::new();
        loop {
            // A full listener leaves new connections in the kernel's queue.
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot.map_err(io::Error::other)?,
                () = stopped(&mut stop) => break,
            };
            let (stream, peer) = tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        failed_accepts.event(&self.log, || error.to_string());
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                        continue;
                    }
                },
                () = stopped(&mut stop) => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            self.metrics.accepted();
            // Small responses must not wait for acknowledgements.
            if let Err(error) = stream.set_nodelay(true) {
                failed_accepts.event(&self.log, || error.to_string());
                continue;
            }
            let acceptor = self.identity.as_ref().map(|config| TlsAcceptor::from(Arc::clone(&config.borrow())));
            let (service, stop, log) = (service.clone(), stop.clone(), self.log.clone());
            let failed_handshakes = Arc::clone(&failed_handshakes);
            let log_failed_handshake =
                move |why: &str| failed_handshakes.event(&log, || format!("{}: {why}", peer.ip()));
            let metrics = Arc::clone(&self.metrics);
            let timeouts = self.limits.timeouts;
            connections.spawn(async move {
                let activity = Arc::new(Activity::new(clock));
                let stream = WatchedSocket::new(stream, Arc::clone(&activity));
                let ending = match acceptor {
                    None => connection::serve(stream, peer, &activity, timeouts, service, stop).await,
                    Some(acceptor) => match tokio::time::timeout(timeouts.head, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            activity.restart();
                            connection::serve(stream, peer, &activity, timeouts, service, stop).await
                        }
                        Ok(Err(error)) => {
                            metrics.failed_handshake();
                            log_failed_handshake(&error.to_string());
                            None
                        }
                        Err(_) => {
                            metrics.failed_handshake();
                            log_failed_handshake("no handshake in time");
                            None
                        }
                    },
                };
                metrics.closed(ending);
                drop(slot);
            });
        }
        drop(self.socket);
        let finish = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_GRACE, finish).await.is_err() {
            self.log.event("stopping", "some connections did not finish and were closed");
        }
        Ok(())
    }
}
