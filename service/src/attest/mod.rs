//! The flow of an attest request: parameters and proof, session, checks, tokens.

mod grant;
mod plan;
mod proof;
mod request;
mod service;

use std::net::IpAddr;
use std::time::Instant;

use approov_verify::jwk::Thumbprint;
use approov_verify::replay::ReplayKey;
use approov_verify::time::UnixTime;
use approov_verify::uri::HttpUri;
use futures_util::future::join_all;
use serde_json::{Map, Value};

use crate::check::{CheckContext, Checked};
use crate::config::Account;
use crate::crypto::RequestEntropy;
use crate::error::{Code, Problems, Refusal};
use crate::session::{CheckResult, NonceStamp};
use crate::store::{ReplayCheck, Store as _, StoreError, seconds_to_next_minute};
use crate::telemetry::RequestNotes;

pub use grant::Granted;
pub use request::{AttestRequest, Form};
pub use service::{AccountKeys, ActiveConfig, Service};

use plan::Plan;

/// The `Retry-After` when the store is unavailable, seconds.
const STORE_RETRY: u64 = 1;

/// What a request brought, apart from its parameters.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// URL as the browser sees it.
    pub url: &'a HttpUri,
    /// Every `DPoP` header.
    pub proofs: &'a [&'a str],
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// The browser's address.
    pub client_ip: IpAddr,
    /// When it came.
    pub now: UnixTime,
    /// Its random bytes.
    pub entropy: RequestEntropy,
}

/// A request to `/attest` while it is served.
pub struct Attest<'a> {
    service: &'a Service,
    active: &'a ActiveConfig,
    incoming: Incoming<'a>,
    /// What the log says about it, beyond what the client learns.
    pub notes: RequestNotes,
}

impl<'a> Attest<'a> {
    /// A request that came while `active` was in force.
    pub fn new(service: &'a Service, active: &'a ActiveConfig, incoming: Incoming<'a>) -> Self {
        Self { service, active, incoming, notes: RequestNotes::default() }
    }

    /// Serves an attest request. `problems` are those of reading its form, which is `None` when there are any.
    ///
    /// # Errors
    /// Every reason that can be found at once.
    pub async fn grant_tokens(&mut self, form: Option<&Form<'_>>, mut problems: Problems) -> Result<Granted, Refusal> {
        let request = form.and_then(|form| {
            let request = AttestRequest::read(form, &self.active.config.accounts, self.incoming.origin);
            problems.take(request)
        });
        let proof = problems.take(self.fresh_proof());
        problems.into_result()?;
        let (Some(request), Some((proof, nonce))) = (request, proof) else {
            return Err(unavailable("the request was not understood", None));
        };
        let thumbprint = proof.thumbprint().to_string();
        let plan = Plan::new(self.active, &request, &thumbprint, self.incoming.now)?;

        // Up to here nothing has changed anywhere. From here the proof is used up.
        self.use_proof(proof.replay_key(), nonce).await?;
        let fresh = if plan.to_check.is_empty() {
            Vec::new()
        } else {
            // Boxed: checks are rare next to refreshes, and would make every request's future as large as theirs.
            Box::pin(self.check(&plan, request.account)).await?
        };
        let checked = !fresh.is_empty();
        let session = plan.session(fresh);
        let granted = self.grant(&request, &session, &thumbprint, checked).map_err(|error| {
            self.notes.detail = Some(error.to_string());
            unavailable("tokens could not be made", None)
        })?;
        self.service.metrics.session(short_id(proof.thumbprint()), self.incoming.now);
        Ok(granted)
    }

    /// Notes in the store that a proof was used.
    async fn use_proof(&mut self, key: ReplayKey, nonce: NonceStamp) -> Result<(), Refusal> {
        match self.service.store.remember(key, nonce, self.incoming.now).await {
            Ok(ReplayCheck::New) => Ok(()),
            Ok(ReplayCheck::Replayed) => Err(Refusal::new(Code::InvalidDpopToken, "the proof was used before")),
            Ok(ReplayCheck::StaleEpoch) => Err(Refusal::new(Code::InvalidNonce, "")),
            Err(error) => Err(self.store_unavailable(&error)),
        }
    }

    /// Has the results of a plan checked, within the rate limits of their sites.
    async fn check(&mut self, plan: &Plan<'_>, account: &Account) -> Result<Vec<CheckResult>, Refusal> {
        self.limit_rates(plan, account).await?;
        self.run_checks(plan, account).await
    }

    async fn limit_rates(&mut self, plan: &Plan<'_>, account: &Account) -> Result<(), Refusal> {
        for fresh in &plan.to_check {
            let Some(limit) = fresh.site.rate_limit else {
                continue;
            };
            let name = format!("{}:{}:{}", account.site_key, fresh.provider.prefix(), fresh.key);
            match self.service.store.count(&name, limit, self.incoming.now).await {
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

    async fn run_checks(&mut self, plan: &Plan<'_>, account: &Account) -> Result<Vec<CheckResult>, Refusal> {
        let page_host = self.incoming.origin.and_then(|origin| url::Url::parse(origin).ok());
        let client_ip = self.incoming.client_ip.to_string();
        let context = CheckContext {
            client_ip: &client_ip,
            page_host: page_host.as_ref().and_then(url::Url::host_str).unwrap_or_default(),
            // The true time, also when tests of clients set the service's clock wrong: it is compared with that of
            // the check services.
            now: UnixTime::now(),
        };
        let service = self.service;
        let checks = plan.to_check.iter().map(|fresh| async move {
            let begun = Instant::now();
            let outcome = fresh.check(&service.checks, context).await;
            let result = match &outcome {
                Ok(Checked { verdict: Ok(()), .. }) => "passed",
                Ok(Checked { verdict: Err(rule), .. }) => rule.name(),
                Err(_) => "error",
            };
            service.metrics.check(fresh.provider.name(), result, begun.elapsed());
            (fresh, result, outcome)
        });
        let mut problems = Problems::default();
        let mut results = Vec::new();
        for (fresh, result, outcome) in join_all(checks).await {
            self.notes.checks.push(format!("{}: {result}", fresh.provider.name()));
            match outcome {
                Err(error) => problems.add(fresh.provider.definition().codes.check, error.0),
                Ok(checked) => results.push(CheckResult {
                    provider: fresh.provider,
                    site: fresh.key.to_owned(),
                    digest: fresh.params.digest(),
                    expires: self
                        .incoming
                        .now
                        .plus(fresh.site.max_result_lifetime.unwrap_or(account.refresh_token_lifetime))
                        .as_millis(),
                    passed: u8::from(checked.verdict.is_ok()),
                    brief: checked.brief,
                    full: fresh.site.embed_result.then_some(checked.full).filter(fits_session),
                }),
            }
        }
        problems.into_result()?;
        Ok(results)
    }

    fn store_unavailable(&mut self, error: &StoreError) -> Refusal {
        self.service.metrics.store_error();
        self.notes.detail = Some(error.to_string());
        unavailable("the shared store is unavailable", Some(STORE_RETRY))
    }
}

/// A number that belongs to a session, for counting.
fn short_id(thumbprint: &Thumbprint) -> u64 {
    thumbprint.as_bytes().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// The longest full result that a session carries, bytes of JSON. A longer one would make the refresh token too long
/// to come back; tokens then embed the brief form.
const MAX_CARRIED_RESULT_BYTES: usize = 8 * 1024;

fn fits_session(full: &Map<String, Value>) -> bool {
    serde_json::to_string(full).is_ok_and(|text| text.len() <= MAX_CARRIED_RESULT_BYTES)
}

fn unavailable(why: &str, retry_after: Option<u64>) -> Refusal {
    let mut refusal = Refusal::new(Code::Unavailable, why);
    refusal.retry_after = retry_after;
    refusal
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
