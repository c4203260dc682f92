//! The flow of an attest request: parameters and proof, session, checks, tokens.

mod challenge;
mod checks;
mod decoys;
mod form;
mod grant;
mod keys;
mod last_passed;
mod once;
mod plan;
mod proof;
mod readiness;
mod request;
mod service;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;

use crate::check::Provider;
use crate::crypto::RequestEntropy;
use crate::error::{Code, Problems, Refusal};
use crate::limits::{Limit, Limited, Payer};
use crate::session::Generation;
use crate::store::{ProofUse, ReplayCheck, Store as _, StoreError};
use crate::telemetry::RequestNotes;

pub use form::Form;
pub use grant::Granted;
pub use keys::AccountKeys;
pub use readiness::{NotReady, Readiness};
pub use request::AttestRequest;
pub use service::{ActiveConfig, Service};

use challenge::Owed;
use checks::Sender;
use plan::Plan;

/// The `Retry-After` when the store is unavailable, seconds.
const STORE_RETRY: u64 = 1;

/// The `Retry-After` of a key with too many live proofs. All of them have ended after
/// [`NONCE_LIFETIME`](crate::session::NONCE_LIFETIME); some have much earlier.
const LIVE_PROOFS_RETRY: Duration = Duration::from_secs(60);

/// What a request brought, apart from its parameters.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// HTTP method.
    pub method: &'a str,
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
    service: &'a Arc<Service>,
    active: &'a Arc<ActiveConfig>,
    incoming: Incoming<'a>,
    /// Watched checks that could not be made.
    not_made: Vec<Provider>,
    /// What the log says about it, beyond what the client learns.
    pub notes: RequestNotes,
}

impl<'a> Attest<'a> {
    /// A request that came while `active` was in force.
    pub fn new(service: &'a Arc<Service>, active: &'a Arc<ActiveConfig>, incoming: Incoming<'a>) -> Self {
        Self { service, active, incoming, not_made: Vec::new(), notes: RequestNotes::default() }
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
        let mut plan = Plan::new(self.active, &request, proof.thumbprint(), &self.incoming)?;
        // Up to here nothing has cost more than a few microseconds. Limits come before signatures, signatures before
        // stores and check services.
        let (payer, owed) = self.admit(&plan, &request, proof.thumbprint())?;
        let proof = self.verified(proof)?;
        if let Some(owed) = owed {
            // Boxed: this is rare.
            Box::pin(self.paid_work(&owed, payer)).await?;
            let counters = &self.service.limits;
            counters.note_newcomer(counters.client(self.incoming.client_ip), counters.now());
        }
        let permits = self.permits(&plan, request.account, payer).await?;

        // Up to here nothing has changed anywhere. From here the proof is used up.
        let quota = self.active.config.limits.live_proofs;
        let used = ProofUse { proof: proof.replay_key(), holder: *proof.thumbprint(), nonce, quota };
        plan.after_failed_check(self.use_proof(used).await?);
        let checked = !plan.to_check.is_empty();
        for provider in request.account.watched_missing(|provider| plan.has_result_of(provider)) {
            self.notes.checks.push(format!("{}: missing (monitored)", provider.name()));
            self.service.metrics.monitored(provider.name(), "missing");
        }
        let session = if checked {
            // Boxed: checks are rare next to refreshes, and would make every request's future as large as theirs.
            let sender = Sender { holder: *proof.thumbprint(), payer };
            Box::pin(self.checked_session(plan, request.account, sender, permits)).await?
        } else {
            plan.session(Vec::new())
        };
        self.notes.session = Some(session.id.to_string());
        let granted = self.grant(&request, &session, &thumbprint, checked).map_err(|error| {
            self.notes.detail = Some(error.to_string());
            unavailable("tokens could not be made", None)
        })?;
        self.service.metrics.session(short_id(proof.thumbprint()), self.incoming.now);
        Ok(granted)
    }

    /// Notes in the store that a proof was used. Gives the generation of its holder's latest failed check.
    async fn use_proof(&mut self, used: ProofUse) -> Result<Generation, Refusal> {
        let known = match self.service.store.remember(used, self.incoming.now).await {
            Ok(known) => known,
            Err(error) => return Err(self.store_unavailable(&error)),
        };
        match known.replay {
            ReplayCheck::New => Ok(known.failed_generation),
            ReplayCheck::Replayed => Err(Refusal::new(Code::InvalidDpopToken, "the proof was used before")),
            ReplayCheck::OverQuota => {
                let whose = "this session".to_owned();
                Err(self.limited(&Limited { limit: Limit::LiveProofs, retry_after: LIVE_PROOFS_RETRY, whose }))
            }
            ReplayCheck::StaleEpoch => Err(Refusal::new(Code::InvalidNonce, "")),
        }
    }

    /// Whether the client may be served now, by what it or its session has had lately; and the work that it owes first.
    fn admit<'r>(
        &mut self,
        plan: &Plan<'_>,
        request: &'r AttestRequest<'_>,
        holder: &Thumbprint,
    ) -> Result<(Payer, Option<Owed<'r>>), Refusal> {
        let (service, limits) = (self.service, &self.active.config.limits);
        let counters = &service.limits;
        let (client, now) = (counters.client(self.incoming.client_ip), counters.now());
        let mut owed = None;
        let payer = if plan.is_new_session {
            if let Err(excess) = counters.admit_newcomer(client, service.pressure.value(), limits, now) {
                let work = Owed::new(request.account, *holder, excess.times, request.work.as_ref());
                if let Some(refusal) = self.owed_work(&work) {
                    service.metrics.limited(Limit::Share);
                    self.notes.detail = Some(format!("limit {} of {}", Limit::Share.name(), excess.whose));
                    return Err(refusal.unwrap_or_else(|_| unavailable("there is no challenge", None)));
                }
                owed = Some(work);
            }
            Payer::Client(client)
        } else {
            counters.use_session(holder, limits, now).map_err(|limited| self.limited(&limited))?;
            Payer::Session(*holder)
        };
        if !plan.to_check.is_empty() {
            counters.may_call(payer, limits, now).map_err(|limited| self.limited(&limited))?;
        }
        Ok((payer, owed))
    }

    /// The refusal of a client that is over a limit.
    fn limited(&mut self, limited: &Limited) -> Refusal {
        self.service.metrics.limited(limited.limit);
        self.notes.detail = Some(format!("limit {} of {}", limited.limit.name(), limited.whose));
        limited.refusal()
    }

    fn store_unavailable(&mut self, error: &StoreError) -> Refusal {
        self.service.metrics.store_error();
        // The next look in the background may find it well again.
        self.service.readiness.lacks_store(true);
        self.notes.detail = Some(error.to_string());
        unavailable("the shared store is unavailable", Some(STORE_RETRY))
    }
}

/// A number that belongs to a session, for counting.
fn short_id(thumbprint: &Thumbprint) -> u64 {
    thumbprint.as_bytes().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

fn unavailable(why: &str, retry_after: Option<u64>) -> Refusal {
    let mut refusal = Refusal::new(Code::Unavailable, why);
    refusal.retry_after = retry_after;
    refusal
}
