//! What an attest request needs done.

use approov_verify::time::UnixTime;

use crate::check::{FreshResult, Provider};
use crate::error::{Code, Problems, Refusal};
use crate::session::{CheckResult, Session};

use super::ActiveConfig;
use super::request::{self, AttestRequest};

/// What a request needs done: which results are known, and which have to be checked.
pub(super) struct Plan<'a> {
    session: Session,
    /// Results that no session has yet.
    pub(super) to_check: Vec<FreshResult<'a>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        active: &ActiveConfig,
        request: &AttestRequest<'a>,
        thumbprint: &str,
        now: UnixTime,
    ) -> Result<Self, Refusal> {
        let account = request.account;
        let invalid = |why: &str| Refusal::new(Code::InvalidRefreshToken, why);
        let mut session = match &request.refresh_token {
            None => Session {
                thumbprint: thumbprint.to_owned(),
                expires: now.plus(account.refresh_token_lifetime).as_millis(),
                results: Vec::new(),
            },
            Some(token) => active
                .keys(account)
                .ok()
                .and_then(|keys| keys.refresh.open(token, &account.site_key, thumbprint, now))
                .ok_or_else(|| invalid(""))?,
        };
        let mut to_check = Vec::new();
        for fresh in &request.results {
            let digest = fresh.params.digest();
            let same = |known: &CheckResult| {
                known.provider == fresh.provider && known.site == fresh.key && known.digest == digest
            };
            if !session.results.iter().any(same) {
                session.results.retain(|known| known.provider != fresh.provider);
                to_check.push(fresh.clone());
            }
        }
        for known in &session.results {
            if known.expires <= now.as_millis() {
                return Err(invalid("a check result has reached the end of its life"));
            }
            if account.site(known.provider, &known.site).is_none() {
                return Err(invalid("a check result is of a site that the account no longer has"));
            }
        }
        let mut problems = Problems::default();
        for provider in Provider::ALL {
            let has_result = session.results.iter().any(|known| known.provider == provider)
                || to_check.iter().any(|fresh| fresh.provider == provider);
            if !has_result {
                request::require(provider, Some(account), &mut problems);
            }
        }
        problems.into_result()?;
        Ok(Self { session, to_check })
    }

    /// The session once its results are checked.
    pub(super) fn session(self, fresh: Vec<CheckResult>) -> Session {
        let mut session = self.session;
        session.results.extend(fresh);
        session
    }
}
