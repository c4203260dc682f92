//! The process: from a configuration file to its end.

use crate::app::{Active, App, Operations, State};
use crate::config::{Config, Process, StoreConfig, TlsFiles};
use crate::gate::{Gate, Store};
use approov_listener::limits::{Limits, raise_open_files};
use approov_listener::log::{Log, LogFormat};
use approov_listener::shutdown::Signals;
use approov_listener::{Listener, tls};
use rustls::ServerConfig;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long the end of the process waits for the last log lines to be written.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The connections of the operations listener: a few scrapers, and a person.
const OPERATIONS_CONNECTIONS: usize = 64;

/// What the process was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Where to listen, in place of what the file says.
    pub listen: Option<SocketAddr>,
    /// Say the address as one line of JSON.
    pub json: bool,
    /// How log lines look.
    pub log: LogFormat,
}

/// Reads the file.
///
/// # Errors
/// What is wrong with it, with its name.
pub fn load(path: &Path) -> Result<Config, String> {
    let at = |error: String| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
    Config::parse(&text, &Process).map_err(at)
}

/// Runs the gate until a signal ends it.
///
/// # Errors
/// Why it could not start, or why its listener ended.
pub async fn run(options: &Options) -> Result<(), String> {
    let log = Log::new(options.log);
    let done = serve(options, &log).await;
    log.flush(LOG_FLUSH_TIMEOUT);
    done
}

async fn serve(options: &Options, log: &Log) -> Result<(), String> {
    let mut config = load(&options.config)?;
    config.listen = options.listen.unwrap_or(config.listen);
    let socket = bind(config.listen).await?;
    let operations = match config.operations {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let address = socket.local_addr().map_err(|error| error.to_string())?;
    let identity = config.tls.as_ref().map(identity).transpose()?.map(watch::Sender::new);
    let scheme = if identity.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    let operations_url = match &operations {
        Some(socket) => Some(format!("http://{}", socket.local_addr().map_err(|error| error.to_string())?)),
        None => None,
    };

    let store = Store::open(&config.store).await?;
    let (store_config, drain) = (config.store.clone(), Arc::new(Mutex::new(config.drain)));
    let active = Active { gate: Gate::new(config.rules, &store)?, trusted_peers: config.trusted_peers };
    let state = Arc::new(State::new(active, log.clone()));

    let signals = Signals::take().map_err(|error| error.to_string())?;
    let hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
    let draining = Arc::clone(&drain);
    let phases = signals.follow(move || *draining.lock().unwrap_or_else(PoisonError::into_inner), log.clone());
    if options.json {
        announce(&serde_json::json!({ "url": url, "operations": operations_url }).to_string());
    }
    log.event("listening", &url);
    if let Some(url) = &operations_url {
        log.event("operations", &format!("metrics at {url}/metrics"));
    }
    let reload = Reload { path: options.config.clone(), store, store_config, drain, identity: identity.clone() };
    let reloading = tokio::spawn(reload.follow(hangup, Arc::clone(&state)));
    if let Some(socket) = operations {
        let listener = listener(socket, None, &state, OPERATIONS_CONNECTIONS);
        let (service, phases) = (Operations::new(Arc::clone(&state), phases.clone()), phases.clone());
        tokio::spawn(async move { listener.serve(service, phases).await });
    }
    let connections = match raise_open_files() {
        Ok(possible) => possible.unwrap_or(usize::MAX).min(Limits::default().connections),
        Err(error) => {
            log.event("limits", &format!("the number of open files cannot be raised: {error}"));
            Limits::default().connections
        }
    };
    let identity = identity.map(|identity| identity.subscribe());
    let app = App::new(Arc::clone(&state), phases.clone());
    let done = listener(socket, identity, &state, connections).serve(app, phases).await;
    reloading.abort();
    done.map_err(|error| error.to_string())
}

/// Says where the gate is, to whoever started it. That nobody reads it is no fault.
fn announce(line: &str) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}

fn identity(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    tls::from_files(&files.cert, &files.key)
}

fn listener(
    socket: TcpListener,
    identity: Option<watch::Receiver<Arc<ServerConfig>>>,
    state: &Arc<State>,
    connections: usize,
) -> Listener {
    let trusting = Arc::clone(state);
    Listener {
        socket,
        identity,
        limits: Limits { connections, ..Limits::default() },
        is_trusted: Arc::new(move |peer| trusting.trusts(peer)),
        speaks_proxy_protocol: Arc::new(|_| false),
        pressure: Arc::default(),
        log: state.log.clone(),
        metrics: Arc::clone(&state.listener),
    }
}

/// Reads the configuration again when SIGHUP says so.
struct Reload {
    path: PathBuf,
    store: Store,
    store_config: StoreConfig,
    drain: Arc<Mutex<Duration>>,
    identity: Option<watch::Sender<Arc<ServerConfig>>>,
}

impl Reload {
    async fn follow(self, mut hangup: tokio::signal::unix::Signal, state: Arc<State>) {
        while hangup.recv().await.is_some() {
            match self.once(&state) {
                Ok(()) => state.log.event("reloaded", &self.path.display().to_string()),
                Err(error) => {
                    state.log.event("reload", &format!("{error}; the configuration before it stays in force"));
                }
            }
        }
    }

    /// Everything is read before anything is put in force.
    fn once(&self, state: &State) -> Result<(), String> {
        let config = load(&self.path)?;
        if config.store != self.store_config || config.tls.is_some() != self.identity.is_some() {
            return Err("store and the presence of tls change with a restart only".to_owned());
        }
        let renewed = config.tls.as_ref().map(identity).transpose()?;
        let active = Active { gate: Gate::new(config.rules, &self.store)?, trusted_peers: config.trusted_peers };
        state.activate(active);
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner) = config.drain;
        if let (Some(renewed), Some(identity)) = (renewed, &self.identity) {
            identity.send_replace(renewed);
        }
        Ok(())
    }
}
