//! The accept loop: who gets a connection, and how all of them end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::connection::{self, Activity, Clock, Ending, WatchedSocket};
use crate::limits::{Limits, SHUTDOWN_GRACE, Timeouts};
use crate::log::{Log, Repeated};
use crate::metrics::Metrics;
use crate::places::{Place, Places};
use crate::pressure::{Pressure, Resource, SCARCE};
use crate::proxy_protocol;
use crate::service::HttpService;
use crate::shutdown::{Phase, stopped};

/// The pause after a failed accept: most likely file descriptors have run out, and others must close first.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Whether an address is a proxy's that is trusted with something.
pub type IsTrusted = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// A listener, and what it needs to serve.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// The TLS identity in force; `None`: plain HTTP.
    pub identity: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// Its bounds.
    pub limits: Limits,
    /// Who may hold as many connections as there are.
    pub is_trusted: IsTrusted,
    /// Whose connections begin with a PROXY protocol header (version 2): it says whom each was opened for.
    pub speaks_proxy_protocol: IsTrusted,
    /// How close the process is to its bounds.
    pub pressure: Arc<Pressure>,
    /// Where it says what went wrong.
    pub log: Log,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

/// What all connections of a listener share.
struct Shared {
    door: Door,
    speaks_proxy_protocol: IsTrusted,
    clock: Clock,
    timeouts: Timeouts,
    log: Log,
    metrics: Arc<Metrics>,
    failed_handshakes: Repeated,
}

impl Listener {
    /// Serves `service` until `stop` says so, then lets running requests finish.
    ///
    /// # Errors
    /// When the listener itself fails for good.
    pub async fn serve<S: HttpService>(self, service: S, mut stop: watch::Receiver<Phase>) -> io::Result<()> {
        let shared = Arc::new(Shared {
            door: Door::new(&self),
            speaks_proxy_protocol: Arc::clone(&self.speaks_proxy_protocol),
            clock: Clock::start(),
            timeouts: self.limits.timeouts,
            log: self.log.clone(),
            metrics: Arc::clone(&self.metrics),
            failed_handshakes: Repeated::new("handshake"),
        });
        let failed_accepts = Repeated::new("accept");
        let door = &shared.door;
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let (stream, peer) = tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        self.metrics.failed_accept();
                        failed_accepts.event(&self.log, || error.to_string());
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                        continue;
                    }
                },
                () = stopped(&mut stop) => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {
                    door.note_pressure();
                    continue;
                }
            };
            let Some(stream) = door.let_in(stream, peer) else { continue };
            // A full listener leaves further connections in the kernel's queue, until one of those that were asked to
            // make way has, or another has ended.
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot.map_err(io::Error::other)?,
                () = stopped(&mut stop) => break,
            };
            let activity = Arc::new(Activity::new(shared.clock));
            let place = door.take(peer, &activity);
            let acceptor = self.identity.as_ref().map(|config| TlsAcceptor::from(Arc::clone(&config.borrow())));
            let (service, stop, shared) = (service.clone(), stop.clone(), Arc::clone(&shared));
            connections.spawn(async move {
                let ending = match shared.client(stream, peer, &activity, &place).await {
                    Some((stream, peer)) => shared.connection(stream, peer, &activity, acceptor, service, stop).await,
                    None => None,
                };
                shared.metrics.closed(ending);
                free(slot, place);
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

/// The place first: whoever gets the slot looks at the places.
fn free(slot: OwnedSemaphorePermit, place: Place) {
    drop(place);
    drop(slot);
}

impl Shared {
    /// The connection, and whom it was opened for: the peer, or whom a proxy names. `None` when that client may not
    /// have another, or the proxy does not say.
    async fn client(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        activity: &Activity,
        place: &Place,
    ) -> Option<(TcpStream, SocketAddr)> {
        if !(self.speaks_proxy_protocol)(peer.ip().to_canonical()) {
            return Some((stream, peer));
        }
        let failure = match tokio::time::timeout(self.timeouts.head, proxy_protocol::read(&mut stream)).await {
            Ok(Ok(None)) => return Some((stream, peer)),
            Ok(Ok(Some(client))) => {
                if !self.door.admit(client.ip()) {
                    let _ = stream.set_zero_linger();
                    return None;
                }
                if !self.door.is_trusted(client.ip()) {
                    place.belongs_to(client.ip());
                }
                activity.restart();
                return Some((stream, client));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no PROXY protocol header in time".to_owned(),
        };
        self.note_failure(peer, &failure);
        None
    }

    fn note_failure(&self, peer: SocketAddr, failure: &str) {
        self.metrics.failed_handshake();
        self.failed_handshakes.event(&self.log, || format!("{}: {failure}", peer.ip()));
    }

    async fn connection<S: HttpService>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        activity: &Arc<Activity>,
        acceptor: Option<TlsAcceptor>,
        service: S,
        stop: watch::Receiver<Phase>,
    ) -> Option<Ending> {
        let stream = WatchedSocket::new(stream, Arc::clone(activity));
        let Some(acceptor) = acceptor else {
            return connection::serve(stream, peer, activity, self.timeouts, service, stop).await;
        };
        let failure = match tokio::time::timeout(self.timeouts.head, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                activity.restart();
                return connection::serve(stream, peer, activity, self.timeouts, service, stop).await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no handshake in time".to_owned(),
        };
        self.note_failure(peer, &failure);
        None
    }
}

/// Decides who comes in.
struct Door {
    begun: Instant,
    places: Arc<Places>,
    slots: usize,
    is_trusted: IsTrusted,
    pressure: Arc<Pressure>,
    refused: Repeated,
    log: Log,
    metrics: Arc<Metrics>,
}

impl Door {
    fn new(listener: &Listener) -> Self {
        let Limits { connections, handshakes, .. } = listener.limits;
        Self {
            begun: Instant::now(),
            places: Places::new(connections, handshakes),
            slots: connections,
            is_trusted: Arc::clone(&listener.is_trusted),
            pressure: Arc::clone(&listener.pressure),
            refused: Repeated::new("limit"),
            log: listener.log.clone(),
            metrics: Arc::clone(&listener.metrics),
        }
    }

    fn is_trusted(&self, ip: IpAddr) -> bool {
        (self.is_trusted)(ip.to_canonical())
    }

    /// The connection, if it may come in. One that may not is closed at once, before it costs a handshake.
    fn let_in(&self, stream: TcpStream, peer: SocketAddr) -> Option<TcpStream> {
        if !self.admit(peer.ip()) {
            // A reset leaves nothing behind in the kernel. Where it fails, the connection closes in good order.
            let _ = stream.set_zero_linger();
            return None;
        }
        self.places.make_way();
        // Small responses must not wait for acknowledgements; only a connection that is gone refuses.
        stream.set_nodelay(true).ok().map(|()| stream)
    }

    /// Whether an address may have one more connection.
    fn admit(&self, ip: IpAddr) -> bool {
        if self.is_trusted(ip) {
            return true;
        }
        let scarce = self.pressure.value() >= SCARCE;
        match self.places.admit(ip, scarce, self.begun.elapsed()) {
            Ok(()) => true,
            Err(refusal) => {
                self.metrics.refused(&refusal);
                self.refused.event(&self.log, || refusal.message());
                false
            }
        }
    }

    fn take(&self, peer: SocketAddr, activity: &Arc<Activity>) -> Place {
        let ip = peer.ip();
        self.metrics.accepted();
        let counted = (!self.is_trusted(ip)).then_some(ip);
        let place = self.places.take(counted, Arc::clone(activity));
        self.note_pressure();
        place
    }

    fn note_pressure(&self) {
        self.pressure.set_part(Resource::Connections, self.places.taken(), self.slots);
    }
}
