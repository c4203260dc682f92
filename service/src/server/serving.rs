//! The listener of a running service, and what runs next to it until a signal ends the process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use approov_listener::Listener;
use approov_listener::limits::{Limits, raise_open_files};
use approov_listener::pressure::Resource;
use approov_listener::service::HttpService;
use approov_listener::shutdown::{Phase, Signals};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::attest::{NotReady, Service};
use crate::config::DEFAULT_OPERATIONS;
use crate::http;
use crate::telemetry::Log;

/// How often the store is looked at for `/readyz`.
const READINESS_INTERVAL: Duration = Duration::from_secs(1);

/// How often the calls that are under way are counted.
const CALLS_INTERVAL: Duration = Duration::from_millis(50);

/// The TLS identity in force, which can be replaced.
pub(super) type Identity = watch::Sender<Arc<ServerConfig>>;

/// The connections of the operations listener: a few scrapers, and a person.
const OPERATIONS_CONNECTIONS: usize = 64;

/// The sockets of a service.
pub(super) struct Sockets {
    public: TcpListener,
    operations: Option<TcpListener>,
}

impl Sockets {
    /// Listens where the configuration says. The default address of the operations listener may be taken: by another
    /// replica on the same machine, most likely.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub(super) async fn bind(public: SocketAddr, operations: Option<SocketAddr>, log: &Log) -> Result<Self, String> {
        let public = bind(public).await?;
        let operations = match operations {
            Some(address) => Some(bind(address).await?),
            None => bind(DEFAULT_OPERATIONS)
                .await
                .inspect_err(|error| log.event("operations", &format!("no metrics: {error}; set operations.listen")))
                .ok(),
        };
        Ok(Self { public, operations })
    }

    /// The public address.
    pub(super) fn address(&self) -> Result<SocketAddr, String> {
        self.public.local_addr().map_err(|error| error.to_string())
    }

    /// The URL for operators.
    pub(super) fn operations_url(&self) -> Option<String> {
        let address = self.operations.as_ref()?.local_addr().ok()?;
        Some(format!("http://{address}"))
    }
}

/// A listening socket.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Serves `app` until a signal ends the process.
///
/// # Errors
/// When the listener fails for good.
pub(super) async fn run_until_signal(
    sockets: Sockets,
    signals: Signals,
    identity: Option<Identity>,
    service: Arc<Service>,
    app: impl HttpService,
) -> Result<(), String> {
    let draining = Arc::clone(&service);
    let drain = move || draining.active().config.limits.drain;
    let phases = signals.follow(drain, service.log.clone());
    tokio::spawn(Arc::clone(&service.pressure).measure());
    tokio::spawn(follow_calls(Arc::clone(&service)));
    tokio::spawn(follow_readiness(Arc::clone(&service), phases.clone()));
    if let Some(socket) = sockets.operations {
        tokio::spawn(serve_operators(socket, Arc::clone(&service), phases.clone()));
    }
    let identity = identity.map(|identity| identity.subscribe());
    listener(sockets.public, identity, &service).serve(app, phases).await.map_err(|error| error.to_string())
}

/// Serves metrics and the description of the interface.
async fn serve_operators(socket: TcpListener, service: Arc<Service>, phases: watch::Receiver<Phase>) {
    let log = service.log.clone();
    let is_loopback = socket.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let listener = Listener {
        socket,
        identity: None,
        limits: Limits { connections: OPERATIONS_CONNECTIONS, ..Limits::default() },
        is_trusted: Arc::new(|_| false),
        speaks_proxy_protocol: Arc::new(|_| false),
        // What happens here neither counts nor presses.
        pressure: Arc::default(),
        metrics: Arc::default(),
        log: log.clone(),
    };
    if let Err(error) = listener.serve(http::operations(service, is_loopback), phases).await {
        log.event("operations", &error.to_string());
    }
}

/// A listener within the service's limits, which reports where the service does.
pub fn listener(
    socket: TcpListener,
    identity: Option<watch::Receiver<Arc<ServerConfig>>>,
    service: &Arc<Service>,
) -> Listener {
    let (trusting, listening) = (Arc::clone(service), Arc::clone(service));
    Listener {
        socket,
        identity,
        limits: limits(service),
        // Connections of proxies carry many clients.
        is_trusted: Arc::new(move |peer| trusting.active().config.trusted_proxies.may_be(peer)),
        speaks_proxy_protocol: Arc::new(move |peer| {
            let config = &listening.active().config;
            config.proxy_protocol && config.trusted_proxies.contains(peer)
        }),
        pressure: Arc::clone(&service.pressure),
        log: service.log.clone(),
        metrics: Arc::clone(&service.metrics.listener),
    }
}

/// The configured limits, as far as this process may open as many files.
fn limits(service: &Service) -> Limits {
    let configured = service.active().config.limits.listener;
    let possible = match raise_open_files() {
        Ok(possible) => possible,
        Err(error) => {
            service.log.event("limits", &format!("the number of open files cannot be raised: {error}"));
            None
        }
    };
    let connections = possible.map_or(configured.connections, |possible| possible.min(configured.connections));
    if connections < configured.connections {
        let why = "more would leave this process without open files (RLIMIT_NOFILE): raise its hard limit, or lower";
        service.log.event("limits", &format!("at most {connections} connections; {why} limits.connections"));
    }
    Limits { connections, ..configured }
}

/// Keeps the pressure of the calls to check services up to date.
async fn follow_calls(service: Arc<Service>) {
    loop {
        if let Some(limit) = service.active().config.limits.checks_in_flight {
            service.pressure.set_part(Resource::Calls, service.limits.gates.busiest(), limit);
        }
        tokio::time::sleep(CALLS_INTERVAL).await;
    }
}

/// Keeps what `/readyz` says up to date.
async fn follow_readiness(service: Arc<Service>, mut phases: watch::Receiver<Phase>) {
    let mut was_ready = service.readiness.get().is_ok();
    loop {
        match service.refresh_readiness().await {
            Ok(()) if !was_ready => service.log.event("store", "the store responds again"),
            Err(error) if was_ready => service.log.event("store", &error.to_string()),
            _ => {}
        }
        was_ready = service.readiness.get() != Err(NotReady::Store);
        let leaving = tokio::time::timeout(READINESS_INTERVAL, phases.wait_for(|phase| *phase != Phase::Running));
        if leaving.await.is_ok() {
            return service.readiness.drain();
        }
    }
}
