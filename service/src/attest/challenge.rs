//! The challenges of ALTCHA sites, for browsers that ask for one.

use approov_verify::dpop::UnverifiedProof;
use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;
use serde_json::{Value, json};

use crate::check::altcha::challenge::Terms;
use crate::check::{Provider, SiteKind};
use crate::config::Account;
use crate::crypto::CryptoError;
use crate::store::Store as _;

use super::Attest;
use super::checks::name_of_site;

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
        let terms = Terms { site: &name, holder, epoch: self.service.store.epoch(), now: UnixTime::now() };
        let difficulty = altcha.difficulty.times(load_factor(self.service.pressure.value()));
        let challenge = self.active.challenge_keys().issue(terms, difficulty)?;
        serde_json::to_string(&json!(challenge)).map_err(|_| CryptoError)
    }
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
