//! The checks of an attest request.

use std::sync::Arc;

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;
use futures_util::future::join_all;

use crate::check::{CheckError, FreshResult, Provider};
use crate::config::Account;
use crate::error::{Code, Problems, Refusal};
use crate::limits::{Payer, Permit};
use crate::session::{Outcome, Session};
use crate::store::{Settled, Store as _, seconds_to_next_minute};

use super::challenge::work_required;
use super::once::{Once, Unused, Used};
use super::plan::Plan;
use super::{Attest, unavailable};

impl Attest<'_> {
    /// Has the fresh results of a plan checked, and the outcome remembered.
    pub(super) async fn checked_session(
        &mut self,
        plan: Plan<'_>,
        account: &Account,
        sender: Sender,
        permits: Vec<Permit>,
    ) -> Result<Session, Refusal> {
        let (now, holder) = (self.incoming.now, sender.holder);
        self.limit_rates(&plan, account).await?;
        let fresh = self.run_checks(&plan, account, sender, permits).await?;
        let passed = fresh.iter().all(|outcome| outcome.result.passed == 1);
        let session = plan.session(fresh);
        // Older refresh tokens that the holder may have, of whichever session, end by then.
        let until = now.plus(account.refresh_token_lifetime).max(UnixTime::from_millis(session.expires));
        let settled = Settled { holder, generation: session.generation, passed, until };
        match self.service.store.settle(settled, now).await {
            Ok(()) => Ok(session),
            Err(error) => Err(self.store_unavailable(&error)),
        }
    }

    /// Leave to have the checks of a plan under way, one for each.
    pub(super) async fn permits(
        &mut self,
        plan: &Plan<'_>,
        account: &Account,
        payer: Payer,
    ) -> Result<Vec<Permit>, Refusal> {
        let (counters, limits) = (&self.service.limits, &self.active.config.limits);
        let client = counters.client(self.incoming.client_ip);
        let mut permits = Vec::new();
        for fresh in &plan.to_check {
            match counters.enter_gate(&site_name(account, fresh), client, limits).await {
                Ok(permit) => permits.extend(permit),
                // A watched check stops nobody, and costs the site no more than others do.
                Err(_) if !account.enforces(fresh.provider) => self.skip(fresh.provider),
                Err(limited) => return Err(self.limited(&limited)),
            }
        }
        // Others of the same client may have failed meanwhile.
        if !permits.is_empty()
            && let Err(limited) = counters.may_call(payer, limits, counters.now())
        {
            return Err(self.limited(&limited));
        }
        Ok(permits)
    }

    /// Leaves out a watched check, of which there are too many for now.
    fn skip(&mut self, provider: Provider) {
        self.notes.checks.push(format!("{}: limited (monitored)", provider.name()));
        self.service.metrics.monitored(provider.name(), "limited");
        self.not_made.push(provider);
    }

    async fn limit_rates(&mut self, plan: &Plan<'_>, account: &Account) -> Result<(), Refusal> {
        for fresh in &plan.to_check {
            let Some(limit) = fresh.site.rate_limit else {
                continue;
            };
            match self.service.store.count(&site_name(account, fresh), limit, self.incoming.now).await {
                Ok(true) => {}
                Ok(false) if !account.enforces(fresh.provider) => self.skip(fresh.provider),
                Ok(false) => {
                    let mut refusal =
                        Refusal::new(Code::RateLimit, format!("{}: {limit} per minute", fresh.provider.prefix()));
                    refusal.retry_after = Some(seconds_to_next_minute(self.incoming.now));
                    return Err(refusal);
                }
                Err(error) => return Err(self.store_unavailable(&error)),
            }
        }
        Ok(())
    }

    /// Each result runs to its end, whatever becomes of the request.
    async fn run_checks(
        &mut self,
        plan: &Plan<'_>,
        account: &Account,
        sender: Sender,
        permits: Vec<Permit>,
    ) -> Result<Vec<Outcome>, Refusal> {
        let permits = permits.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let tasks: Vec<_> = plan
            .to_check
            .iter()
            .filter(|fresh| !self.not_made.contains(&fresh.provider))
            .zip(permits)
            .map(|(fresh, permit)| tokio::spawn(self.once(plan, account, fresh, sender, permit).run()))
            .collect();
        let (mut problems, mut reasons) = (Problems::default(), Vec::new());
        let (mut outcomes, mut refusal) = (Vec::new(), None);
        for task in join_all(tasks).await {
            let Ok(Used { provider, note, outcome }) = task else {
                return Err(unavailable("a check ended early", Some(IN_FLIGHT_RETRY)));
            };
            let is_watched = !account.enforces(provider) && !note.starts_with("passed");
            let watched = if is_watched { " (monitored)" } else { "" };
            self.notes.checks.push(format!("{}: {note}{watched}", provider.name()));
            match outcome {
                Ok(outcome) => outcomes.push(outcome),
                Err(Unused::Check(error)) if is_watched => {
                    self.service.metrics.monitored(provider.name(), error.kind());
                    self.not_made.push(provider);
                }
                Err(Unused::Check(CheckError::Unsolved(_))) => {
                    let again = plan.to_check.iter().find(|fresh| fresh.provider == provider);
                    refusal = refusal.or(again.map(|fresh| self.work_required(account, fresh, sender.holder)));
                }
                Err(Unused::Check(error)) => {
                    problems.add(provider.definition().codes.check, error.kind());
                    reasons.push(error.reason().to_owned());
                }
                Err(Unused::InFlight) => {
                    refusal = refusal.or(Some(unavailable("the result is being checked", Some(IN_FLIGHT_RETRY))));
                }
                Err(Unused::Store(error)) => refusal = Some(self.store_unavailable(&error)),
                Err(Unused::Lost(error)) => {
                    reasons.push(error.to_string());
                    refusal = refusal.or(Some(unavailable("the account has no keys", None)));
                }
            }
        }
        self.compare_clocks();
        if !reasons.is_empty() {
            self.notes.detail = Some(reasons.join("; "));
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        problems.into_result()?;
        Ok(outcomes)
    }

    /// Another challenge, which is the one thing that a client learns of a solution that does not count.
    fn work_required(&self, account: &Account, fresh: &FreshResult<'_>, holder: Thumbprint) -> Refusal {
        match self.challenge(account, fresh.key, Some(&holder)) {
            Ok(challenge) => work_required(&challenge),
            Err(_) => unavailable("there is no challenge", None),
        }
    }

    fn once(
        &self,
        plan: &Plan<'_>,
        account: &Account,
        fresh: &FreshResult<'_>,
        sender: Sender,
        permit: Option<Permit>,
    ) -> Once {
        let page_url = self.incoming.origin.and_then(|origin| url::Url::parse(origin).ok());
        let page_host = page_url.as_ref().and_then(url::Url::host_str).filter(|host| host.len() <= MAX_HOST_LENGTH);
        Once {
            service: Arc::clone(self.service),
            active: Arc::clone(self.active),
            account: account.site_key.clone(),
            provider: fresh.provider,
            key: fresh.key.to_owned(),
            params: fresh.params.to_owned(),
            page_host: page_host.unwrap_or_default().to_owned(),
            client_ip: self.incoming.client_ip,
            holder: sender.holder,
            payer: sender.payer,
            generation: plan.next_generation(),
            failed_generation: plan.failed_generation,
            now: self.incoming.now,
            permit,
        }
    }

    /// Says that this machine's clock is wrong, if it is: others will refuse what it dates.
    fn compare_clocks(&self) {
        let offset = self.service.checks.clock_offset();
        self.service.metrics.clock_offset(offset);
        if offset.unsigned_abs() > MAX_CLOCK_OFFSET_MS && self.active.said.first("clock") {
            let (seconds, side) = (offset.unsigned_abs() / 1000, if offset > 0 { "ahead of" } else { "behind" });
            let message = format!(
                "this machine's clock is at least {seconds} s {side} the check services': backends will take tokens and \
                 proofs for old, or for made in the future. This is said once; approov_clock_offset_seconds follows"
            );
            self.service.log.event("clock", &message);
        }
    }
}

/// The name of a site among those of all accounts.
pub(super) fn site_name(account: &Account, fresh: &FreshResult<'_>) -> String {
    name_of_site(account, fresh.provider, fresh.key)
}

/// The same of a site of which there is no result.
pub(super) fn name_of_site(account: &Account, provider: Provider, key: &str) -> String {
    format!("{}:{}:{key}", account.site_key, provider.prefix())
}

/// The names of all sites of an account.
pub(super) fn names_of_sites(account: &Account) -> impl Iterator<Item = String> {
    account
        .checks
        .iter()
        .flat_map(move |(provider, check)| check.sites.keys().map(move |key| name_of_site(account, *provider, key)))
}

/// Who sends results.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) holder: Thumbprint,
    /// For those that are not accepted.
    pub(super) payer: Payer,
}

/// When a result can be sent again that is being checked, seconds.
const IN_FLIGHT_RETRY: u64 = 1;

/// The longest host name (RFC 1035 section 2.3.4). What is longer is of no page.
const MAX_HOST_LENGTH: usize = 253;

/// How far this machine's clock may be from those of the check services before the log says so.
const MAX_CLOCK_OFFSET_MS: u64 = 5_000;
