//! The configuration of a running service: read at its start, and again whenever one of its files changes.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use approov_verify::time::UnixTime;
use rustls::ServerConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::attest::Service;
use crate::config::{Certificate, Config, PublicUrl, Surroundings, TlsFiles};
use crate::telemetry::Log;

use super::watch::{Change, Snapshot, Watch};

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A configuration file, and the files that it refers to.
pub(super) struct ConfigFile {
    path: PathBuf,
    watch: Watch,
    /// What has been said about it.
    warnings: Vec<String>,
}

/// Why a configuration is not in force.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// The file cannot be read.
    Unreadable(String),
    /// It is not one that this service can go on with.
    Refused(String),
}

/// Reads the configuration at the start.
///
/// # Errors
/// What is wrong with the file.
pub(super) async fn load(path: &Path) -> Result<(Config, ConfigFile), String> {
    let mut file =
        ConfigFile { path: path.to_owned(), watch: Watch::new(|path| std::fs::read(path)), warnings: Vec::new() };
    let known = file.watch.read(vec![path.to_owned()]).await;
    match file.understand(known).await {
        Ok(config) => Ok((config, file)),
        Err(Failure::Unreadable(error) | Failure::Refused(error)) => Err(error),
    }
}

impl ConfigFile {
    /// Says what about a configuration in force is worth a word and has not been said about the one before.
    pub(super) fn warn(&mut self, config: &Config, log: &Log) {
        let mode = std::fs::metadata(&self.path).map(|file| file.mode()).ok();
        // It was read a moment ago; if it is gone, its names and times are the lesser trouble.
        let certificate = certificate(config).ok().flatten();
        let around = Surroundings { now: UnixTime::now(), mode, certificate: certificate.as_ref() };
        let warnings = config.warnings(&around);
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            log.event("warning", warning);
        }
        self.warnings = warnings;
    }

    /// The configuration that the files mean, which are read as far as they are not `known`, and watched from now on.
    async fn understand(&mut self, known: Snapshot) -> Result<Config, Failure> {
        let path = &self.path;
        let (config, snapshot) = self.watch.follow(known, |known| parse(path, known)).await;
        self.watch.compare_with(snapshot);
        config
    }
}

/// Reads the configuration, and says which files it consists of.
fn parse(path: &Path, known: &Snapshot) -> (Result<Config, Failure>, Vec<PathBuf>) {
    let mut files = vec![path.to_owned()];
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = match known.get(path) {
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) => return (Err(Failure::Unreadable(at(error))), files),
        None => return (Err(Failure::Unreadable(at(&"it was not read"))), files),
    };
    let config = std::str::from_utf8(bytes)
        .map_err(|error| at(&format!("the file is not UTF-8: {error}")))
        .and_then(|text| Config::parse(text).map_err(|error| at(&error)));
    if let Ok(config) = &config {
        files.extend(config.files());
    }
    (config.map_err(Failure::Refused), files)
}

/// The TLS identity of a configuration.
///
/// # Errors
/// The message names the file and what is wrong with it.
pub(super) fn identity_from(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    approov_listener::tls::from_files(&files.cert, &files.key)
}

/// Where browsers find a service that listens on `address`.
///
/// # Errors
/// When neither the configuration nor the certificate says so.
pub(super) fn public_urls(config: &Config, address: SocketAddr) -> Result<Vec<PublicUrl>, String> {
    config.public_urls_with(certificate(config)?.as_ref(), address.port())
}

fn certificate(config: &Config) -> Result<Option<Certificate>, String> {
    let Some(TlsFiles { cert, .. }) = &config.tls else { return Ok(None) };
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", cert.display());
    let pem = std::fs::read(cert).map_err(|error| at(&error))?;
    Certificate::from_pem(&pem).map(Some).map_err(|error| at(&error))
}

/// SIGHUP, which ends the process as long as nobody has called this.
///
/// # Errors
/// When signals cannot be handled.
pub(super) fn hangup() -> Result<Signal, String> {
    signal(SignalKind::hangup()).map_err(|error| format!("SIGHUP cannot be handled: {error}"))
}

/// Puts changes in force: within [`POLL_INTERVAL`] and the time they take to settle, and on SIGHUP in any case.
pub(super) async fn follow_changes(
    mut file: ConfigFile,
    address: SocketAddr,
    mut hangup: Signal,
    service: Arc<Service>,
    renew: Option<watch::Sender<Arc<ServerConfig>>>,
) {
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let forced = tokio::select! {
            _ = ticks.tick() => false,
            _ = hangup.recv() => true,
        };
        let outcome = match file.watch.look(forced).await {
            Change::None => continue,
            Change::Settled(known) => file.understand(known).await.and_then(|config| {
                put_in_force(config, address, &service, renew.as_ref())
                    .map_err(|error| Failure::Refused(format!("{}: {error}", file.path.display())))
            }),
            Change::Unsettled => {
                Err(Failure::Unreadable(format!("{}: something keeps changing it", file.path.display())))
            }
        };
        report(&outcome, &file.path, &service);
        if outcome.is_ok() {
            file.warn(&service.active().config, &service.log);
        }
    }
}

fn report(outcome: &Result<(), Failure>, path: &Path, service: &Service) {
    let (counted, error) = match outcome {
        Ok(()) => {
            service.metrics.reload("ok");
            return service.log.event("reloaded", &path.display().to_string());
        }
        Err(Failure::Unreadable(error)) => ("unreadable", error),
        Err(Failure::Refused(error)) => ("refused", error),
    };
    service.metrics.reload(counted);
    service.log.event("reload", &format!("{error}; the configuration before it stays in force"));
}

fn put_in_force(
    mut config: Config,
    address: SocketAddr,
    service: &Service,
    renew: Option<&watch::Sender<Arc<ServerConfig>>>,
) -> Result<(), String> {
    let active = service.active();
    let before = &active.config;
    if config.store != before.store || config.tls.is_some() != before.tls.is_some() {
        return Err("store and the presence of TLS change with a restart only".to_owned());
    }
    if config.accounts.is_empty() && !before.accounts.is_empty() {
        return Err("there is no account in it: a service without accounts begins with a restart only".to_owned());
    }
    // The command line may have chosen the address, and a listener does not move.
    config.listen = before.listen;
    config.public_urls = public_urls(&config, address)?;
    let identity = config.tls.as_ref().map(identity_from).transpose()?;
    service.reload(config).map_err(|error| error.to_string())?;
    if let (Some(identity), Some(renew)) = (identity, renew) {
        renew.send_replace(identity);
    }
    Ok(())
}
