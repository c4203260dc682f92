//! `serve`: from arguments to a running service, and its life: signals, reloads, the end.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use approov_listener::shutdown::Signals;
use approov_verify::secret::Secret;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};

use crate::attest::Service;
use crate::check::CheckClient;
use crate::cli::{Arg, Args, UsageError, secret_operand, unknown};
use crate::config::{Config, DEFAULT_LISTEN};
use crate::crypto::random;
use crate::dev::DevSecrets;
use crate::dev::explain::explain;
use crate::dev::faults::{self, Fault, Faults};
use crate::dev::guard::{self, Guard};
use crate::secrets::{KeptSecret, Place, ProcessEnvironment, SecretKind};
use crate::store::AnyStore;
use crate::telemetry::{Log, LogFormat};
use crate::{dev, http};

use super::serving::{Identity, Sockets, bind, run_until_signal};
use super::tls::PrivateDirectory;
use super::{reload, tls};

/// How long the end of the process waits for the last log lines to be written.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What `serve` was asked for.
#[derive(Debug)]
pub struct Options {
    mode: Mode,
    listen: Listen,
    json: bool,
    log: LogFormat,
}

/// The addresses that the command line gives.
#[derive(Debug, Default)]
struct Listen {
    public: Option<SocketAddr>,
    operations: Option<SocketAddr>,
}

#[derive(Debug)]
enum Mode {
    Config(PathBuf),
    Dev(DevOptions),
}

#[derive(Debug, Default)]
struct DevOptions {
    apis: Vec<String>,
    secret: Option<Secret>,
    session_secret: Option<Secret>,
    tls: bool,
    latency: Duration,
    fault: Option<Fault>,
    public: bool,
    public_urls: Vec<String>,
}

impl Options {
    /// Reads the arguments after `serve`.
    ///
    /// # Errors
    /// Says which argument is wrong.
    pub fn parse(mut args: Args) -> Result<Self, UsageError> {
        let (mut dev, mut config, mut listen, mut json) = (false, None, Listen::default(), false);
        let (mut dev_options, mut dev_only) = (DevOptions::default(), None);
        let mut log = LogFormat::Text;
        while let Some(arg) = args.next_arg()? {
            let Arg::Flag(flag) = &arg else {
                return Err(unknown("serve", &arg));
            };
            match flag.as_str() {
                "dev" => dev = true,
                "config" => config = Some(PathBuf::from(args.value(flag)?)),
                "listen" => listen.public = Some(args.parsed(flag, "an address and port such as 127.0.0.1:8087")?),
                "operations" => {
                    listen.operations = Some(args.parsed(flag, "an address and port such as 127.0.0.1:8088")?)
                }
                "api" => dev_options.apis.push(args.value(flag)?),
                "secret" | "secret-file" => dev_options.secret = Some(read_secret(flag, args.value(flag)?)?),
                "session-secret" | "session-secret-file" => {
                    dev_options.session_secret = Some(read_secret(flag, args.value(flag)?)?);
                }
                "dev-tls" => dev_options.tls = true,
                "dev-public" => dev_options.public = true,
                "public-url" => dev_options.public_urls.push(args.value(flag)?),
                "latency" => {
                    dev_options.latency = Duration::from_millis(args.parsed(flag, "a number of milliseconds")?)
                }
                "fault" => {
                    let text = args.value(flag)?;
                    dev_options.fault = faults::parse(&text)
                        .ok_or_else(|| UsageError(format!("--fault must be {}, got \"{text}\"", faults::EXPECTED)))?;
                }
                "json" => json = true,
                "log-json" => log = LogFormat::Json,
                "quiet" => log = LogFormat::Quiet,
                _ => return Err(unknown("serve", &arg)),
            }
            if !matches!(flag.as_str(), "dev" | "config" | "listen" | "operations" | "json" | "log-json" | "quiet") {
                dev_only = Some(flag.clone());
            }
        }
        let mode = match (dev, config) {
            (true, None) => {
                let elsewhere = |address: &SocketAddr| !address.ip().is_loopback();
                if !dev_options.public && listen.public.iter().chain(&listen.operations).any(elsewhere) {
                    return Err(UsageError(
                        "--dev listens on loopback addresses only, since it gives tokens to whoever reaches it; \
                         --dev-public says that this is meant"
                            .to_owned(),
                    ));
                }
                Mode::Dev(dev_options)
            }
            (false, Some(path)) => match dev_only {
                Some(flag) => return Err(UsageError(format!("--{flag} belongs to --dev"))),
                None => Mode::Config(path),
            },
            _ => {
                return Err(UsageError("serve needs either --dev or --config FILE".to_owned()));
            }
        };
        Ok(Self { mode, listen, json, log })
    }
}

/// The secret that an option gives: itself, `-` for standard input, or a file.
fn read_secret(flag: &str, operand: String) -> Result<Secret, UsageError> {
    let secret = if flag.ends_with("-file") {
        KeptSecret::elsewhere(SecretKind::Key, Place::File(operand.into())).resolve(&ProcessEnvironment)
    } else {
        let text = secret_operand(flag, operand, &mut std::io::stdin().lock())?;
        return SecretKind::Key.read(&text).map_err(|expected| UsageError(format!("--{flag} {expected}")));
    };
    secret.map_err(|error| UsageError(format!("--{flag}: {}", error.message)))
}

/// Runs the service until a signal ends it.
///
/// # Errors
/// Why it could not start.
pub async fn run(options: Options) -> Result<(), String> {
    let log = Log::new(options.log);
    let done = match options.mode {
        Mode::Config(path) => run_config(&path, options.listen, options.json, log.clone()).await,
        Mode::Dev(dev) => run_dev(options.listen, dev, options.json, log.clone()).await,
    };
    log.flush(LOG_FLUSH_TIMEOUT);
    done
}

async fn run_config(path: &Path, listen: Listen, json: bool, log: Log) -> Result<(), String> {
    let (mut config, mut file) = reload::load(path).await?;
    if let Some(public) = listen.public {
        config.listen = public;
    }
    let operations = listen.operations.or(config.operations);
    let sockets = Sockets::bind(config.listen, operations, &log).await?;
    let address = sockets.address()?;
    let identity = config.tls.as_ref().map(reload::identity_from).transpose()?.map(Identity::new);
    let scheme = if identity.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    config.public_urls = reload::public_urls(&config, address)?;
    file.warn(&config, &log);
    config.notes().iter().for_each(|note| log.event("checks", note));
    let service = start(config, log).await.map_err(|error| format!("{}: {error}", path.display()))?;
    let operations = sockets.operations_url();
    let hangup = reload::hangup()?;
    let signals = Signals::take().map_err(|error| error.to_string())?;
    announce(json.then(|| serde_json::json!({ "url": url, "operations": operations }).to_string()));
    service.log.event("listening", &url);
    if let Some(operations) = operations {
        service.log.event("operations", &format!("metrics at {operations}/metrics"));
    }
    let watcher = tokio::spawn(reload::follow_changes(file, address, hangup, Arc::clone(&service), identity.clone()));
    let app = http::App::new(Arc::clone(&service), Router::new());
    let done = run_until_signal(sockets, signals, identity, service, app).await;
    watcher.abort();
    done
}

async fn run_dev(listen: Listen, options: DevOptions, json: bool, log: Log) -> Result<(), String> {
    let drawn = || random::<64>().map(|bytes| Secret::from_bytes(bytes.to_vec())).map_err(|error| error.to_string());
    let secrets = DevSecrets {
        account: options.secret.map_or_else(drawn, Ok)?,
        session: options.session_secret.map_or_else(drawn, Ok)?,
    };
    let with_tls = options.tls;
    // Several may run on one machine.
    let operations = listen.operations.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    let sockets = Sockets::bind(listen.public.unwrap_or(DEFAULT_LISTEN), Some(operations), &log).await?;
    let address = sockets.address()?;
    let mut directory = None;
    let identity = if with_tls {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), address.ip().to_string()];
        let (identity, pem) = tls::self_signed(names)?;
        let failed = |error: std::io::Error| format!("no place for the development certificate: {error}");
        let path =
            directory.insert(PrivateDirectory::new().map_err(failed)?).write("cert.pem", &pem).map_err(failed)?;
        log.event("certificate", &format!("made for development, in {}", path.display()));
        Some(Identity::new(identity))
    } else {
        None
    };
    // The service asks its simulators over plain loopback HTTP, on a listener of their own under TLS.
    let simulators = if with_tls {
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let listener = bind(loopback).await?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        tokio::spawn(async move { axum::serve(listener, dev::sim::router::<()>()).await });
        address
    } else if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    };
    let scheme = if with_tls { "https" } else { "http" };
    let mut config = dev::config(address, simulators, &options.apis, &secrets).map_err(|error| error.to_string())?;
    config.public_urls = dev::public_urls(scheme, address, &options.public_urls)?;
    let guard = Arc::new(Guard::new(&config.public_urls));
    let operations = sockets.operations_url();
    let url = format!("{scheme}://{address}");
    let operations = operations.as_deref();
    let (line, text) = (
        dev::json_line(&url, operations, &config, &secrets.account),
        dev::text(&url, operations, &config, &secrets.account),
    );
    let service = start(config, log).await?;
    let signals = Signals::take().map_err(|error| error.to_string())?;
    announce(Some(if json { line } else { text }));
    let faults = Arc::new(Faults::new(options.latency, options.fault, Arc::clone(&service.clock_offset)));
    let app = http::App::new(Arc::clone(&service), dev::sim::router().merge(faults::router(Arc::clone(&faults))));
    let app = Router::new().fallback_service(app.keeping_notes()).layer(from_fn(explain));
    let app = app.layer(from_fn_with_state(faults, faults::inject));
    let app = app.layer(from_fn_with_state(guard, guard::admit));
    let done = run_until_signal(sockets, signals, identity, service, app).await;
    drop(directory);
    done
}

async fn start(config: Config, log: Log) -> Result<Arc<Service>, String> {
    let store = AnyStore::open(&config.store, config.limits.replay_entries).map_err(|error| error.to_string())?;
    let lookup = CheckClient::new(config.limits.check).map_err(|error| error.to_string())?;
    let service = Service::new(config, store, lookup, log).map_err(|error| error.to_string())?;
    if let Err(error) = service.refresh_readiness().await {
        service.log.event("store", &format!("{error}; requests are refused until it is back"));
    }
    Ok(Arc::new(service))
}

/// The one thing on standard output: where the service is.
fn announce(text: Option<String>) {
    if let Some(text) = text {
        let mut out = std::io::stdout().lock();
        // Nobody listening to standard output is no reason not to serve.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
