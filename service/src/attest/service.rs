//! The running service: the configuration in force with the keys derived from it, and what outlives
//! a reload (store, HTTP client, counters, log).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use approov_listener::log::RequestIds;
use approov_listener::pressure::Pressure;
use approov_verify::time::UnixTime;
use approov_verify::uri::HttpUri;

use crate::check::CheckClient;
use crate::check::altcha::WorkPool;
use crate::check::altcha::challenge::ChallengeKeys;
use crate::config::{Account, Config, ConfigError};
use crate::crypto::CryptoError;
use crate::limits::ClientLimits;
use crate::secrets::{Outside, ProcessEnvironment};
use crate::session::{NonceStamp, OutcomeKeys};
use crate::store::AnyStore;
use crate::telemetry::{Log, Metrics, Said};

use super::Readiness;
use super::checks::names_of_sites;
use super::decoys::DecoyKeys;
use super::keys::{AccountKeys, Keys};
use super::last_passed::LastPassed;

/// Everything that a request needs.
pub struct Service {
    active: RwLock<Arc<ActiveConfig>>,
    /// Replays and rates.
    pub store: AnyStore,
    /// The client for the check services.
    pub checks: CheckClient,
    /// Counters.
    pub metrics: Metrics,
    pub(super) last_passed: LastPassed,
    pub(super) work: WorkPool,
    /// Log lines.
    pub log: Log,
    /// How close the process is to its bounds.
    pub pressure: Arc<Pressure>,
    /// What clients have had lately.
    pub limits: ClientLimits,
    /// What balancers are told.
    pub readiness: Readiness,
    /// The ids of requests.
    pub request_ids: RequestIds,
    /// How far the service's clock is off, milliseconds: not zero in tests of clients only.
    pub clock_offset: Arc<AtomicI64>,
}

/// A configuration in force.
pub struct ActiveConfig {
    /// The configuration.
    pub config: Config,
    /// The URLs of `/attest` as browsers see them: one of these is what a proof is about.
    pub attest_urls: Vec<HttpUri>,
    keys: Keys,
    /// What the log says once while it is in force.
    pub said: Said,
}

impl Service {
    /// A service with a first configuration.
    ///
    /// # Errors
    /// When a secret cannot be had, or keys cannot be derived.
    pub fn new(config: Config, store: AnyStore, checks: CheckClient, log: Log) -> Result<Self, ConfigError> {
        let active = ActiveConfig::new(config, &ProcessEnvironment)?;
        Ok(Self {
            active: RwLock::new(Arc::new(active)),
            store,
            checks,
            metrics: Metrics::default(),
            last_passed: LastPassed::default(),
            work: WorkPool::default(),
            clock_offset: Arc::default(),
            request_ids: RequestIds::default(),
            log,
            pressure: Arc::default(),
            limits: ClientLimits::default(),
            readiness: Readiness::default(),
        })
    }

    /// The time now, by the service's clock.
    pub fn now(&self) -> UnixTime {
        let now = UnixTime::now().as_millis();
        UnixTime::from_millis(now.saturating_add(self.clock_offset.load(Ordering::Relaxed)))
    }

    /// The configuration in force now. A request takes it once and keeps it to its end.
    pub fn active(&self) -> Arc<ActiveConfig> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another configuration in force. Requests that run finish with the one they began with.
    ///
    /// # Errors
    /// When a secret cannot be had, or keys cannot be derived; the old configuration then stays.
    pub fn reload(&self, config: Config) -> Result<(), ConfigError> {
        let active = Arc::new(ActiveConfig::new(config, &ProcessEnvironment)?);
        let accounts = &active.config.accounts;
        let sites: BTreeSet<String> = accounts.values().flat_map(names_of_sites).collect();
        self.metrics.keep_sites(|site| sites.contains(site));
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = active;
        Ok(())
    }
}

impl ActiveConfig {
    fn new(config: Config, outside: &dyn Outside) -> Result<Self, ConfigError> {
        let keys = Keys::new(&config, outside)?;
        let attest_urls = config.public_urls.iter().map(|url| url.attest().clone()).collect();
        Ok(Self { config, attest_urls, keys, said: Said::default() })
    }

    /// The keys of an account of this configuration.
    ///
    /// # Errors
    /// When the account is not of this configuration.
    pub fn keys(&self, account: &Account) -> Result<&AccountKeys, CryptoError> {
        self.keys.account(account)
    }

    pub(super) fn decoy_keys(&self) -> &DecoyKeys {
        &self.keys.decoy
    }

    pub(super) fn challenge_keys(&self) -> &Arc<ChallengeKeys> {
        &self.keys.challenge
    }

    pub(super) fn outcome_keys(&self) -> &OutcomeKeys {
        &self.keys.outcome
    }

    /// The public keys of an account as a JWK Set, if it publishes them.
    pub fn published_keys(&self, site_key: &str) -> Option<Arc<[u8]>> {
        self.config.accounts.get(site_key).filter(|account| account.publish_jwks)?;
        self.keys.public(site_key)
    }

    /// A fresh nonce.
    pub fn issue_nonce(&self, now: UnixTime, epoch: u64, random: [u8; 8]) -> String {
        self.keys.nonce.issue(NonceStamp { at: now, epoch }, random)
    }

    /// When a nonce was issued, if it is the service's and good at `now`.
    pub fn check_nonce(&self, nonce: &str, now: UnixTime) -> Option<NonceStamp> {
        self.keys.nonce.check(nonce, now)
    }
}
