//! A fresh result, which is used once.
//!
//! ```text
//!  claim ─ new ──────────▶ ask the check service ─ passed, failed ─▶ conclude with the outcome ──▶ the result
//!    │                                           └ unavailable ────▶ let go of it ───────────────▶ an error
//!    ├──── known ────────▶ the same outcome as before, without asking
//!    ├──── in flight ────▶ try again
//!    └──── another key's ▶ what a failed check gives, without asking
//! ```
//!
//! All of it runs in a task of its own: a client that goes away in the middle leaves no result behind that nobody concludes,
//! and can send it again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;

use crate::check::{BuiltInContext, CheckContext, CheckError, Checked, FreshResult, OwnedParams, Provider};
use crate::config::Account;
use crate::crypto::{CryptoError, random};
use crate::limits::{Payer, Permit};
use crate::session::{CheckResult, Generation, Outcome};
use crate::store::{Claim, ResultKey, ResultUse, Store as _, StoreError};
use crate::telemetry::ALARM_AFTER;

use super::checks::site_name;
use super::decoys::Appearance;
use super::keys::AccountKeys;
use super::{ActiveConfig, Service};

/// A result that is to be used, with all that its task needs.
pub(super) struct Once {
    pub(super) service: Arc<Service>,
    pub(super) active: Arc<ActiveConfig>,
    /// The account's.
    pub(super) account: String,
    pub(super) provider: Provider,
    /// The site's.
    pub(super) key: String,
    pub(super) params: OwnedParams,
    /// Of the page; empty when it is not known.
    pub(super) page_host: String,
    pub(super) client_ip: IpAddr,
    /// Who sent it, and who pays if it is not accepted.
    pub(super) holder: Thumbprint,
    pub(super) payer: Payer,
    /// Of the session that it is for.
    pub(super) generation: Generation,
    /// Of the latest failed check of its holder.
    pub(super) failed_generation: Generation,
    /// When the request came, by the service's clock.
    pub(super) now: UnixTime,
    /// Leave to have a check under way.
    pub(super) permit: Option<Permit>,
}

/// What came of it, and what the log says of that.
pub(super) struct Used {
    pub(super) provider: Provider,
    pub(super) note: &'static str,
    pub(super) outcome: Result<Outcome, Unused>,
}

/// Why nothing came of a result.
pub(super) enum Unused {
    /// The check could not be made.
    Check(CheckError),
    /// The same holder sent it, and it is being checked.
    InFlight,
    /// What must be remembered could not be.
    Store(StoreError),
    /// The account, its keys or the cryptographic module are gone.
    Lost(CryptoError),
}

impl Once {
    /// Uses the result.
    pub(super) async fn run(self) -> Used {
        let (note, outcome) = match self.use_result().await {
            Ok((note, outcome)) => (note, Ok(outcome)),
            Err(unused) => (unused.name(), Err(unused)),
        };
        // The next check may begin.
        drop(self.permit);
        Used { provider: self.provider, note, outcome }
    }

    async fn use_result(&self) -> Result<(&'static str, Outcome), Unused> {
        let account = self.active.config.accounts.get(&self.account).ok_or(CryptoError)?;
        let site = account.site(self.provider, &self.key).ok_or(CryptoError)?;
        let params = self.params.borrowed();
        let fresh = FreshResult { provider: self.provider, key: &self.key, site, params };
        let keys = self.active.keys(account)?;
        if fresh.is_for_tests() {
            let (note, result) = self.ask(account, keys, &fresh).await.map_err(Unused::Check)?;
            return Ok((note, Outcome { generation: self.generation, result }));
        }
        let used = ResultUse {
            key: ResultKey::new(&site_name(account, &fresh), &fresh.single_use()),
            holder: self.holder,
            lifetime: fresh.used_for(),
        };
        match self.service.store.claim(&used, self.now).await? {
            Claim::New => self.first_use(account, keys, &fresh, &used).await,
            Claim::InFlight => {
                self.service.metrics.used_again(self.provider.name(), "in-flight");
                Err(Unused::InFlight)
            }
            Claim::Known(sealed) => {
                self.service.metrics.used_again(self.provider.name(), "same-key");
                let known = self.active.outcome_keys().open(&sealed, &about(&used), self.now);
                match known {
                    Some(known) => Ok(self.again(account, known, &fresh)),
                    // Nobody can read any more what came of it: its session cannot be read either.
                    None => self.refuse(account, &fresh),
                }
            }
            Claim::Others => {
                self.service.metrics.used_again(self.provider.name(), "another-key");
                self.refuse(account, &fresh)
            }
        }
    }

    /// Has a result checked that nobody has used, and the outcome kept.
    async fn first_use(
        &self,
        account: &Account,
        keys: &AccountKeys,
        fresh: &FreshResult<'_>,
        used: &ResultUse,
    ) -> Result<(&'static str, Outcome), Unused> {
        let store = &self.service.store;
        let (note, result) = match self.ask(account, keys, fresh).await {
            Ok(asked) => asked,
            Err(error) => {
                store.conclude(used, None).await?;
                return Err(Unused::Check(error));
            }
        };
        let outcome = Outcome { generation: self.generation, result };
        let sealed = self.active.outcome_keys().seal(&outcome, &about(used), random()?, self.now)?;
        store.conclude(used, Some(sealed)).await?;
        Ok((note, outcome))
    }

    /// Asks the check service.
    async fn ask(
        &self,
        account: &Account,
        keys: &AccountKeys,
        fresh: &FreshResult<'_>,
    ) -> Result<(&'static str, CheckResult), CheckError> {
        let (client_ip, site) = (self.client_ip.to_string(), site_name(account, fresh));
        let context = CheckContext {
            client_ip: &client_ip,
            allowed_origins: &account.allowed_origins,
            // The true time, also when tests of clients set the service's clock wrong: it is compared with that of the
            // check services.
            now: UnixTime::now(),
            built_in: Some(BuiltInContext {
                site: &site,
                holder: &self.holder,
                epoch: self.service.store.epoch(),
                page_host: &self.page_host,
                keys: self.active.challenge_keys(),
                pool: &self.service.work,
            }),
        };
        let begun = Instant::now();
        let secrets = keys.site_secrets(fresh.provider, fresh.key, self.now);
        let outcome = fresh.check(&self.service.checks, &secrets, context).await;
        let note = result_name(&outcome);
        self.service.metrics.check(fresh.provider.name(), note, begun.elapsed());
        self.watch_configuration(&site, &outcome);
        if let Ok(Checked { score: Some(score), .. }) = &outcome {
            self.service.metrics.score(fresh.provider.name(), *score);
        }
        if let Err(CheckError::Unsolved(why)) = &outcome
            && why.is_made_up()
            && account.enforces(fresh.provider)
        {
            self.charge();
        }
        Ok((note, self.judged(account, fresh, outcome?)))
    }

    /// Says so when what is configured for a site is refused again and again, and when it is accepted once more.
    fn watch_configuration(&self, site: &str, outcome: &Result<Checked, CheckError>) {
        let (metrics, log) = (&self.service.metrics, &self.service.log);
        match outcome {
            Err(CheckError::Misconfigured(reason)) if metrics.misconfigured(site, self.provider.name()) => {
                let message = format!(
                    "{site}: {ALARM_AFTER} checks in a row were refused for what is configured here, and none passed: {reason}"
                );
                log.event("alarm", &message);
            }
            Ok(Checked { verdict: Ok(()), .. }) if metrics.configured(site) => {
                log.event("alarm", &format!("{site}: checks pass again"));
            }
            _ => {}
        }
    }

    /// A result that its holder sends again: nothing is checked, and nothing becomes newer or lasts longer by it.
    fn again(&self, account: &Account, known: Outcome, fresh: &FreshResult<'_>) -> (&'static str, Outcome) {
        let Outcome { generation, mut result } = known;
        // It may have passed only since its check was watched then.
        if result.would_fail == 1 && account.enforces(fresh.provider) {
            (result.passed, result.would_fail) = (0, 0);
        }
        // A later check of its holder that failed ends what it was good for, as it ends older refresh tokens.
        if generation <= self.failed_generation {
            result.passed = 0;
        }
        result.digest = fresh.params.digest();
        let note = if result.passed == 1 { "passed again" } else { "failed again" };
        (note, Outcome { generation, result })
    }

    /// What another key's result gives: the same as one that failed.
    fn refuse(&self, account: &Account, fresh: &FreshResult<'_>) -> Result<(&'static str, Outcome), Unused> {
        let checked = fresh.used_before().map_err(Unused::Check)?;
        let note = verdict_name(&checked);
        Ok((note, Outcome { generation: self.generation, result: self.judged(account, fresh, checked) }))
    }

    /// Whoever sent a result that was not accepted pays for it.
    fn charge(&self) {
        let counters = &self.service.limits;
        counters.charge_failure(self.payer, &self.active.config.limits, counters.now());
    }

    /// A result as the session remembers it.
    fn judged(&self, account: &Account, fresh: &FreshResult<'_>, checked: Checked) -> CheckResult {
        let is_watched = !account.enforces(fresh.provider);
        match checked.verdict {
            Err(rule) if is_watched => self.service.metrics.monitored(fresh.provider.name(), rule.name()),
            Err(_) => self.charge(),
            Ok(()) => {}
        }
        let appearance = Appearance {
            account,
            page_host: &self.page_host,
            now: UnixTime::now(),
            keys: self.active.decoy_keys(),
            last_passed: &self.service.last_passed,
        };
        let lifetime = fresh.site.max_result_lifetime.unwrap_or(account.refresh_token_lifetime);
        let mut result = appearance.result(fresh, checked, self.now.plus(lifetime));
        if is_watched && result.passed == 0 {
            (result.passed, result.would_fail) = (1, 1);
        }
        result
    }
}

/// Which result an outcome is of, and whose.
fn about(used: &ResultUse) -> Vec<u8> {
    [used.key.as_bytes().as_slice(), used.holder.as_bytes()].concat()
}

/// What became of a check, for the log and the counters.
fn result_name(outcome: &Result<Checked, CheckError>) -> &'static str {
    match outcome {
        Ok(checked) => verdict_name(checked),
        Err(error) => error.kind(),
    }
}

fn verdict_name(checked: &Checked) -> &'static str {
    match checked.verdict {
        Ok(()) => "passed",
        Err(rule) => rule.name(),
    }
}

impl Unused {
    /// The name in the log.
    fn name(&self) -> &'static str {
        match self {
            Self::Check(error) => error.kind(),
            Self::InFlight => "in-flight",
            Self::Store(_) => "store",
            Self::Lost(_) => "lost",
        }
    }
}

impl From<StoreError> for Unused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CryptoError> for Unused {
    fn from(error: CryptoError) -> Self {
        Self::Lost(error)
    }
}
