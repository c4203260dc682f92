//! The challenges of ALTCHA sites, for browsers that ask for one.

use altcha::Payload;
use approov_verify::dpop::UnverifiedProof;
use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::check::altcha::challenge::{Difficulty, Purpose, Terms, Unsolved, challenge_id};
use crate::check::{Provider, SiteKind};
use crate::config::Account;
use crate::crypto::CryptoError;
use crate::error::{Code, Refusal};
use crate::limits::Payer;
use crate::session::Epoch;
use crate::store::{Claim, ResultKey, ResultUse, Store as _};

use super::checks::name_of_site;
use super::{Attest, unavailable};

/// The claim of a nonce request that asks for a challenge, and its members.
const CLAIM: &str = "aprv";
const SITE_KEY: &str = "site-key";
const ALTCHA_SITE_KEY: &str = "altcha-site-key";

/// The pressure from which on solutions cost more, and the most that they cost then.
const EASY_UNTIL: f32 = 0.5;
const MOST_UNDER_LOAD: f32 = 4.0;

impl Attest<'_> {
    /// The challenge that a nonce request asks for, as JSON; `None` when it asks for none that it may have.
    pub(super) fn requested_challenge(&self, proof: &UnverifiedProof<'_>) -> Option<String> {
        let asked = proof.claim(CLAIM)?;
        let text = |name: &str| asked.get(name).and_then(Value::as_str);
        let account = self.active.config.accounts.get(text(SITE_KEY)?)?;
        if !account.allowed_origins.allows(self.incoming.origin) {
            return None;
        }
        let challenge = self.challenge(account, text(ALTCHA_SITE_KEY)?, Some(proof.thumbprint())).ok()?;
        Some(format!("{{\"altcha\":{challenge}}}"))
    }

    /// The challenge for the official widget, which any key may use, as JSON; `None` when the site has none.
    pub fn widget_challenge(&self, account: &Account, key: &str) -> Option<String> {
        let SiteKind::Altcha(site) = &account.site(Provider::Altcha, key)?.kind else { return None };
        let may = site.widget && account.allowed_origins.allows(self.incoming.origin);
        if may { self.challenge(account, key, None).ok() } else { None }
    }

    /// A fresh challenge of a site, as JSON.
    pub(super) fn challenge(
        &self,
        account: &Account,
        key: &str,
        holder: Option<&Thumbprint>,
    ) -> Result<String, CryptoError> {
        let site = account.site(Provider::Altcha, key).ok_or(CryptoError)?;
        let SiteKind::Altcha(altcha) = &site.kind else { return Err(CryptoError) };
        let name = name_of_site(account, Provider::Altcha, key);
        // The true time: it is not the service's clock that solutions are compared with.
        let terms = Terms {
            purpose: Purpose::Check,
            site: &name,
            holder,
            epoch: self.service.store.epoch(),
            now: UnixTime::now(),
        };
        let difficulty = altcha.difficulty.times(load_factor(self.service.pressure.value()));
        let challenge = self.active.challenge_keys().issue(terms, difficulty)?;
        serde_json::to_string(&json!(challenge)).map_err(|_| CryptoError)
    }

    /// What a client over its share has to solve for a new session: before a signature is verified, and before anything is
    /// remembered or anybody else is asked. `None` when what it brought may be a solution.
    pub(super) fn owed_work(&self, owed: &Owed<'_>) -> Option<Result<Refusal, CryptoError>> {
        let checked = owed.payload.map(|payload| {
            self.active.challenge_keys().check(payload, owed.terms(self.service.store.epoch()), owed.least())
        });
        match checked {
            Some(Ok(_)) => None,
            _ => Some(self.work_challenge(owed)),
        }
    }

    /// Whether a client has worked for its new session, with something that it has not used before.
    pub(super) async fn paid_work(&mut self, owed: &Owed<'_>, payer: Payer) -> Result<(), Refusal> {
        let Some(payload) = owed.payload else { return Err(no_challenge()) };
        let terms = owed.terms(self.service.store.epoch());
        let pool = &self.service.work;
        let verified = pool.verify(self.active.challenge_keys(), payload.clone(), terms, owed.least()).await;
        let mut why = match verified {
            None => return Err(no_challenge()),
            Some(Ok(_)) => None,
            Some(Err(why)) => Some(why),
        };
        if why.is_none() {
            let used = ResultUse {
                key: ResultKey::new(&owed.site, challenge_id(payload)),
                holder: owed.holder,
                lifetime: Purpose::Work.lifetime(),
            };
            match self.service.store.claim(&used, self.incoming.now).await {
                Ok(Claim::New) => {
                    // There is nothing to remember but that it was used.
                    let concluded = self.service.store.conclude(&used, Some(b"work".to_vec())).await;
                    concluded.map_err(|error| self.store_unavailable(&error))?;
                }
                Ok(_) => why = Some(Unsolved::Used),
                Err(error) => return Err(self.store_unavailable(&error)),
            }
        }
        match why {
            None => Ok(()),
            Some(why) => {
                // A wrong one has cost a try, which is as much as it would cost to bring a right one.
                if why == Unsolved::Wrong {
                    let counters = &self.service.limits;
                    counters.charge_failure(payer, &self.active.config.limits, counters.now());
                }
                self.notes.detail = Some(format!("work: {}", why.name()));
                Err(self.work_challenge(owed).unwrap_or_else(|_| no_challenge()))
            }
        }
    }

    fn work_challenge(&self, owed: &Owed<'_>) -> Result<Refusal, CryptoError> {
        let terms = owed.terms(self.service.store.epoch());
        let challenge = self.active.challenge_keys().issue(terms, owed.difficulty)?;
        Ok(work_required(&serde_json::to_string(&json!(challenge)).map_err(|_| CryptoError)?))
    }
}

/// The work that a client owes for a new session.
pub(super) struct Owed<'a> {
    site: String,
    holder: Thumbprint,
    difficulty: Difficulty,
    /// What it brought for that.
    payload: Option<&'a Payload>,
    now: UnixTime,
}

/// The work for a new session of who has had its share once, and the most for who has had it many times.
const LEAST_WORK: Difficulty = Difficulty { cost: 600, zeros: 2 };
const MOST_WORK: u32 = 4800;

impl<'a> Owed<'a> {
    /// For a client that has had so many times its share.
    pub(super) fn new(account: &Account, holder: Thumbprint, times: u32, payload: Option<&'a Payload>) -> Self {
        let cost = LEAST_WORK.cost.saturating_mul(times).min(MOST_WORK);
        Self {
            site: format!("{}:work", account.site_key),
            holder,
            difficulty: Difficulty { cost, ..LEAST_WORK },
            payload,
            now: UnixTime::now(),
        }
    }

    /// A quarter is enough: what is owed grows while somebody works.
    fn least(&self) -> Difficulty {
        Difficulty { cost: (self.difficulty.cost / 4).max(1), ..self.difficulty }
    }

    fn terms(&self, epoch: Epoch) -> Terms<'_> {
        Terms { purpose: Purpose::Work, site: &self.site, holder: Some(&self.holder), epoch, now: self.now }
    }
}

/// The refusal that brings a challenge.
pub(super) fn work_required(challenge: &str) -> Refusal {
    let mut refusal = Refusal::new(Code::WorkRequired, URL_SAFE_NO_PAD.encode(challenge));
    refusal.retry_after = Some(1);
    refusal
}

fn no_challenge() -> Refusal {
    unavailable("there is no challenge", None)
}

/// How much more a solution costs under this pressure.
fn load_factor(pressure: f32) -> f32 {
    let over = (pressure - EASY_UNTIL) / (1.0 - EASY_UNTIL);
    1.0 + over.clamp(0.0, 1.0) * (MOST_UNDER_LOAD - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_cost_more_under_load_and_four_times_as_much_at_most() {
        for (pressure, factor) in [(0.0, 1.0), (0.5, 1.0), (0.75, 2.5), (1.0, 4.0), (9.0, 4.0)] {
            assert!((load_factor(pressure) - factor).abs() < 0.001, "{pressure}");
        }
    }
}
