//! The running service: the configuration in force with the keys derived from it, and what outlives
//! a reload (store, HTTP client, counters, log).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use approov_listener::log::RequestIds;
use approov_listener::pressure::Pressure;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;

use super::Readiness;
use crate::check::CheckClient;
use crate::config::{Account, Api, Config};
use crate::crypto::{CryptoError, random};
use crate::session::{NonceKey, NonceStamp, RefreshKey};
use crate::store::AnyStore;
use crate::telemetry::{Log, Metrics, Said};
use crate::token::Signer;

/// Everything that a request needs.
pub struct Service {
    active: RwLock<Arc<ActiveConfig>>,
    /// Replays and rates.
    pub store: AnyStore,
    /// The client for the check services.
    pub checks: CheckClient,
    /// Counters.
    pub metrics: Metrics,
    /// Log lines.
    pub log: Log,
    /// How close the process is to its bounds.
    pub pressure: Arc<Pressure>,
    /// What balancers are told.
    pub readiness: Readiness,
    /// The ids of requests.
    pub request_ids: RequestIds,
    /// How far the service's clock is off, milliseconds: not zero in tests of clients only.
    pub clock_offset: Arc<AtomicI64>,
    /// Whether requests come over TLS: decides the scheme of the URL that proofs are about.
    pub over_tls: bool,
}

/// A configuration in force.
pub struct ActiveConfig {
    /// The configuration.
    pub config: Config,
    keys: BTreeMap<String, AccountKeys>,
    nonce: NonceKey,
    /// The nonce key before the last reload: nonces that browsers hold stay good.
    previous_nonce: Option<NonceKey>,
    /// What the log says once while it is in force.
    pub said: Said,
}

/// Keys of one account.
pub struct AccountKeys {
    /// Seals its sessions.
    pub refresh: RefreshKey,
    trusted: Signers,
    decoy: Signers,
}

struct Signers {
    account: Signer,
    by_kid: BTreeMap<String, Signer>,
}

impl Service {
    /// A service with a first configuration.
    ///
    /// # Errors
    /// When keys cannot be derived.
    pub fn new(
        config: Config,
        store: AnyStore,
        checks: CheckClient,
        log: Log,
        over_tls: bool,
    ) -> Result<Self, CryptoError> {
        let active = ActiveConfig::new(config, None)?;
        Ok(Self {
            active: RwLock::new(Arc::new(active)),
            store,
            checks,
            metrics: Metrics::default(),
            clock_offset: Arc::default(),
            request_ids: RequestIds::default(),
            log,
            pressure: Arc::default(),
            readiness: Readiness::default(),
            over_tls,
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
    /// When keys cannot be derived; the old configuration then stays.
    pub fn reload(&self, config: Config) -> Result<(), CryptoError> {
        let before = self.active().nonce.clone();
        let active = Arc::new(ActiveConfig::new(config, Some(before))?);
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = active;
        Ok(())
    }
}

impl ActiveConfig {
    fn new(config: Config, previous_nonce: Option<NonceKey>) -> Result<Self, CryptoError> {
        let keys = config
            .accounts
            .iter()
            .map(|(site_key, account)| Ok((site_key.clone(), AccountKeys::new(account)?)))
            .collect::<Result<BTreeMap<_, _>, CryptoError>>()?;
        // Nonces are requested before the account is known, so their key is the service's: configured,
        // or that of the first account, so that replicas with the same file agree.
        let nonce = match (&config.nonce_secret, config.accounts.values().next()) {
            (Some(secret), _) => NonceKey::derive(secret)?,
            (None, Some(account)) => NonceKey::derive(&account.secret)?,
            (None, None) => NonceKey::derive(&Secret::from_bytes(random::<32>()?.to_vec()))?,
        };
        Ok(Self { config, keys, nonce, previous_nonce, said: Said::default() })
    }

    /// The keys of an account of this configuration.
    ///
    /// # Errors
    /// When the account is not of this configuration.
    pub fn keys(&self, account: &Account) -> Result<&AccountKeys, CryptoError> {
        self.keys.get(&account.site_key).ok_or(CryptoError)
    }

    /// A fresh nonce.
    pub fn issue_nonce(&self, now: UnixTime, epoch: u64, random: [u8; 8]) -> String {
        self.nonce.issue(NonceStamp { at: now, epoch }, random)
    }

    /// When a nonce was issued, if it is the service's and good at `now`.
    pub fn check_nonce(&self, nonce: &str, now: UnixTime) -> Option<NonceStamp> {
        self.nonce.check(nonce, now).or_else(|| self.previous_nonce.as_ref().and_then(|key| key.check(nonce, now)))
    }

    /// Whether any account serves pages of this origin. The preflight request names no account, so
    /// this decides about cross-origin headers; the account's own list decides about the request.
    pub fn any_account_allows(&self, origin: &str) -> bool {
        self.config.accounts.is_empty()
            || self.config.accounts.values().any(|account| account.allowed_origins.allows(Some(origin)))
    }
}

impl AccountKeys {
    fn new(account: &Account) -> Result<Self, CryptoError> {
        let trusted = Signers {
            account: Signer::hs256(&account.secret),
            by_kid: account.keys.iter().map(|(kid, key)| (kid.clone(), Signer::Key(key.clone()))).collect(),
        };
        let decoy = Signers {
            account: Signer::hs256(&Secret::from_bytes(random::<64>()?.to_vec())),
            by_kid: account
                .keys
                .iter()
                .map(|(kid, key)| Ok((kid.clone(), Signer::Key(key.with_pair(key.pair().generate_similar()?)))))
                .collect::<Result<_, CryptoError>>()?,
        };
        Ok(Self { refresh: RefreshKey::derive(&account.secret)?, trusted, decoy })
    }

    /// Who signs tokens of this API: the key that its backend trusts when the checks `passed`,
    /// otherwise one of the same kind that nobody knows.
    ///
    /// # Errors
    /// When the API names a key that the account does not have.
    pub fn signer(&self, api: &Api, passed: bool) -> Result<&Signer, CryptoError> {
        let signers = if passed { &self.trusted } else { &self.decoy };
        match &api.keyset_kid {
            None => Ok(&signers.account),
            Some(kid) => signers.by_kid.get(kid).ok_or(CryptoError),
        }
    }
}
