//! What an attest request needs done.

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;

use crate::check::{FreshResult, Provider};
use crate::config::Account;
use crate::error::{Code, Refusal};
use crate::session::{CheckResult, Generation, Outcome, Session, SessionId};

use super::request::AttestRequest;
use super::{ActiveConfig, Incoming};

/// Why a session that an operator has ended is refused.
const REVOKED: &str = "the session was revoked";

/// What a request needs done: which results are known, and which have to be checked.
pub(super) struct Plan<'a> {
    session: Session,
    /// Whether the session begins with this request.
    pub(super) is_new_session: bool,
    /// Of the latest failed check of the session's key; 0: none is known.
    pub(super) failed_generation: Generation,
    /// Results that the session does not have yet.
    pub(super) to_check: Vec<FreshResult<'a>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        active: &ActiveConfig,
        request: &AttestRequest<'a>,
        key: &Thumbprint,
        incoming: &Incoming<'_>,
    ) -> Result<Self, Refusal> {
        let now = incoming.now;
        if request.account.revocations.ends_key(key, now) {
            return Err(invalid_token(REVOKED));
        }
        let thumbprint = key.to_string();
        let mut session = match request.refresh_token {
            None => Session {
                id: SessionId::from_bytes(incoming.entropy.session),
                started: now.as_millis(),
                generation: 0,
                thumbprint,
                expires: now.plus(request.account.refresh_token_lifetime).as_millis(),
                results: Vec::new(),
            },
            Some(token) => open_session(active, request.account, token, &thumbprint, now)?,
        };
        session.enforce(|provider| request.account.enforces(provider));
        let is_new_session = request.refresh_token.is_none();
        let mut plan = Self { session, is_new_session, failed_generation: 0, to_check: Vec::new() };
        plan.add_fresh(&request.results);
        plan.check_known(request.account, now)?;
        plan.check_required(request.account)?;
        Ok(plan)
    }

    /// Adds the results that the session does not have yet; each replaces the one of its check service.
    fn add_fresh(&mut self, results: &[FreshResult<'a>]) {
        for fresh in results {
            let digest = fresh.params.digest();
            let same = |known: &CheckResult| {
                known.provider == fresh.provider && known.site == fresh.key && known.digest == digest
            };
            if !self.session.results.iter().any(same) {
                self.session.results.retain(|known| known.provider != fresh.provider);
                self.to_check.push(fresh.clone());
            }
        }
    }

    /// Refuses sessions with results that are no longer good.
    fn check_known(&self, account: &Account, now: UnixTime) -> Result<(), Refusal> {
        for known in &self.session.results {
            if known.expires <= now.as_millis() {
                return Err(invalid_token("a check result has reached the end of its life"));
            }
            if account.site(known.provider, &known.site).is_none() {
                return Err(invalid_token("a check result is of a site that the account no longer has"));
            }
        }
        Ok(())
    }

    /// Refuses sessions that lack a result which the account requires.
    fn check_required(&self, account: &Account) -> Result<(), Refusal> {
        account.missing(|provider| self.has_result_of(provider)).into_result()
    }

    pub(super) fn has_result_of(&self, provider: Provider) -> bool {
        self.session.results.iter().any(|known| known.provider == provider)
            || self.to_check.iter().any(|fresh| fresh.provider == provider)
    }

    /// Takes into account that a check of the session's key failed in this generation; 0: none did.
    pub(super) fn after_failed_check(&mut self, failed_generation: Generation) {
        self.failed_generation = failed_generation;
        self.session.after_failed_check(failed_generation);
    }

    /// The generation of results that are checked now.
    pub(super) fn next_generation(&self) -> Generation {
        self.session.next_generation()
    }

    /// The session once its results are checked.
    pub(super) fn session(self, fresh: Vec<Outcome>) -> Session {
        let mut session = self.session;
        session.add(fresh);
        session
    }
}

fn open_session(
    active: &ActiveConfig,
    account: &Account,
    token: &str,
    thumbprint: &str,
    now: UnixTime,
) -> Result<Session, Refusal> {
    let keys = active.keys(account).map_err(|_| invalid_token(""))?;
    let session = keys.refresh.open(token, thumbprint, now).ok_or_else(|| invalid_token(""))?;
    if account.revocations.ends(&session, now) { Err(invalid_token(REVOKED)) } else { Ok(session) }
}

fn invalid_token(why: &str) -> Refusal {
    Refusal::new(Code::InvalidRefreshToken, why)
}
