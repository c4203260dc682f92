//! The checks of an attest request.

use std::time::Instant;

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;
use futures_util::future::join_all;
use serde_json::{Map, Value};

use crate::check::{CheckContext, CheckError, Checked, FreshResult};
use crate::config::Account;
use crate::error::{Code, Problems, Refusal};
use crate::limits::{Payer, Permit};
use crate::session::{CheckResult, Session};
use crate::store::{Settled, Store as _, seconds_to_next_minute};

use super::plan::Plan;
use super::{Attest, unavailable};

impl Attest<'_> {
    /// Has the fresh results of a plan checked, and the outcome remembered.
    pub(super) async fn checked_session(
        &mut self,
        plan: Plan<'_>,
        account: &Account,
        holder: Thumbprint,
        payer: Payer,
        permits: Vec<Permit>,
    ) -> Result<Session, Refusal> {
        let now = self.incoming.now;
        let fresh = self.check(&plan, account, payer).await?;
        drop(permits);
        let passed = fresh.iter().all(|result| result.passed == 1);
        let session = plan.session(fresh);
        // Older refresh tokens that the holder may have, of whichever session, end by then.
        let until = now.plus(account.refresh_token_lifetime).max(UnixTime::from_millis(session.expires));
        let settled = Settled { holder, generation: session.generation, passed, until };
        match self.service.store.settle(settled, now).await {
            Ok(()) => Ok(session),
            Err(error) => Err(self.store_unavailable(&error)),
        }
    }

    /// Has the results of a plan checked, within the rate limits of their sites.
    async fn check(&mut self, plan: &Plan<'_>, account: &Account, payer: Payer) -> Result<Vec<CheckResult>, Refusal> {
        self.limit_rates(plan, account).await?;
        self.run_checks(plan, account, payer).await
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

    async fn limit_rates(&mut self, plan: &Plan<'_>, account: &Account) -> Result<(), Refusal> {
        for fresh in &plan.to_check {
            let Some(limit) = fresh.site.rate_limit else {
                continue;
            };
            match self.service.store.count(&site_name(account, fresh), limit, self.incoming.now).await {
                Ok(true) => {}
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

    async fn run_checks(
        &mut self,
        plan: &Plan<'_>,
        account: &Account,
        payer: Payer,
    ) -> Result<Vec<CheckResult>, Refusal> {
        let page_host = self.incoming.origin.and_then(|origin| url::Url::parse(origin).ok());
        let client_ip = self.incoming.client_ip.to_string();
        let context = CheckContext {
            client_ip: &client_ip,
            page_host: page_host.as_ref().and_then(url::Url::host_str).unwrap_or_default(),
            allowed_origins: &account.allowed_origins,
            // The true time, also when tests of clients set the service's clock wrong: it is compared with that of
            // the check services.
            now: UnixTime::now(),
        };
        let keys = self.active.keys(account).map_err(|error| {
            self.notes.detail = Some(error.to_string());
            unavailable("the account has no keys", None)
        })?;
        let (service, now) = (self.service, self.incoming.now);
        let checks = plan.to_check.iter().map(|fresh| async move {
            let begun = Instant::now();
            let secret = keys.site_secret(fresh.provider, fresh.key, now);
            let outcome = fresh.check(&service.checks, secret, context).await;
            let result = result_name(&outcome);
            service.metrics.check(fresh.provider.name(), result, begun.elapsed());
            (fresh, result, outcome)
        });
        let mut problems = Problems::default();
        let (mut results, mut reasons) = (Vec::new(), Vec::new());
        for (fresh, result, outcome) in join_all(checks).await {
            self.notes.checks.push(format!("{}: {result}", fresh.provider.name()));
            match outcome {
                Err(error) => {
                    problems.add(fresh.provider.definition().codes.check, error.kind());
                    reasons.push(error.reason().to_owned());
                }
                Ok(checked) => {
                    if checked.verdict.is_err() {
                        let counters = &self.service.limits;
                        counters.charge_failure(payer, &self.active.config.limits, counters.now());
                    }
                    let lifetime = fresh.site.max_result_lifetime.unwrap_or(account.refresh_token_lifetime);
                    results.push(check_result(fresh, checked, self.incoming.now.plus(lifetime)));
                }
            }
        }
        self.compare_clocks();
        if !reasons.is_empty() {
            self.notes.detail = Some(reasons.join("; "));
        }
        problems.into_result()?;
        Ok(results)
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
fn site_name(account: &Account, fresh: &FreshResult<'_>) -> String {
    format!("{}:{}:{}", account.site_key, fresh.provider.prefix(), fresh.key)
}

/// How far this machine's clock may be from those of the check services before the log says so.
const MAX_CLOCK_OFFSET_MS: u64 = 5_000;

/// What became of a check, for the log and the counters.
fn result_name(outcome: &Result<Checked, CheckError>) -> &'static str {
    match outcome {
        Ok(Checked { verdict: Ok(()), .. }) => "passed",
        Ok(Checked { verdict: Err(rule), .. }) => rule.name(),
        Err(error) => error.kind(),
    }
}

/// A result as the session remembers it.
fn check_result(fresh: &FreshResult<'_>, checked: Checked, expiry: UnixTime) -> CheckResult {
    CheckResult {
        provider: fresh.provider,
        site: fresh.key.to_owned(),
        digest: fresh.params.digest(),
        expires: expiry.as_millis(),
        passed: u8::from(checked.verdict.is_ok()),
        brief: checked.brief,
        full: fresh.site.embed_result.then_some(checked.full).filter(fits_session),
    }
}

/// The longest full result that a session carries, bytes of JSON. A longer one would make the refresh token too long
/// to come back; tokens then embed the brief form.
const MAX_CARRIED_RESULT_BYTES: usize = 8 * 1024;

fn fits_session(full: &Map<String, Value>) -> bool {
    serde_json::to_string(full).is_ok_and(|text| text.len() <= MAX_CARRIED_RESULT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_too_long_for_the_refresh_token_is_not_carried_whole() {
        let result = |length: usize| Map::from_iter([("tag".to_owned(), Value::from("x".repeat(length)))]);
        assert!(fits_session(&result(8000)));
        assert!(!fits_session(&result(8200)));
    }
}
