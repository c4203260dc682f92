//! Cloudflare Turnstile (developers.cloudflare.com/turnstile): `siteverify`, with a key that makes a repeated request safe.

use std::time::Duration;

use crate::crypto::random;
use crate::error::Code;
use crate::settings::Read;

use super::check_site::CheckSite;
use super::client::CheckRequest;
use super::definition::{Definition, Param, ParamText, ProviderCodes};
use super::outcome::{CheckError, Checked};
use super::params::ResultParams;
use super::site_table::{SiteTable, VENDOR_OPTIONS, Vendor};
use super::siteverify::{self, ACTION_OPTION, Abilities, CaptchaRules, DOMAIN_OPTION, IP_OPTION, Question, Score};

const SERVER: &str = "https://challenges.cloudflare.com/turnstile/v0/siteverify";

const SITE_KEY: &str = "turnstile-site-key";
const TOKEN: &str = "turnstile-token";

/// How long Cloudflare accepts a token, and the longest one ("Server-side validation").
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);
const MAX_TOKEN_BYTES: usize = 2048;

/// The token of every published test key ("Test your implementation").
const TEST_TOKEN: &str = "XXXX.DUMMY.TOKEN.XXXX";

/// The published test keys: whatever comes passes, fails, or asks for a click.
const TEST_KEYS: [&str; 5] = [
    "1x00000000000000000000AA",
    "2x00000000000000000000AB",
    "1x00000000000000000000BB",
    "2x00000000000000000000BB",
    "3x00000000000000000000FF",
];

/// The names that belong to Turnstile.
pub(super) static DEFINITION: Definition = Definition {
    name: "turnstile",
    prefix: "turnstile",
    display_name: "Turnstile",
    site_noun: "site",
    key_name: "site_key",
    key_label: "Site Key",
    params: &[
        Param::key(SITE_KEY, Code::TurnstileEmptySiteKey),
        Param::required(TOKEN, Code::TurnstileEmptyToken, ParamText::ResultOf(MAX_TOKEN_BYTES)),
    ],
    result: TOKEN,
    test_keys: &TEST_KEYS,
    codes: ProviderCodes {
        config_not_found: Code::TurnstileConfigNotFound,
        missing_required: Code::TurnstileMissingRequired,
        mismatch: Code::TurnstileParamMismatch,
        key_not_found: Code::TurnstileSiteKeyNotFound,
        check: Code::TurnstileTokenCheck,
    },
    options: &[VENDOR_OPTIONS, &[DOMAIN_OPTION, ACTION_OPTION, IP_OPTION]],
};

const ABILITIES: Abilities =
    Abilities { display_name: DEFINITION.display_name, actions: true, scores: false, client_ip: true };

/// A Turnstile widget.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where results are checked, and the secret for it.
    pub vendor: Vendor,
    /// What a result must meet.
    pub rules: CaptchaRules,
}

impl CheckSite for Site {
    fn read(mut table: SiteTable<'_>) -> Read<Self> {
        Ok(Self { vendor: table.vendor(SERVER)?, rules: CaptchaRules::read(table, ABILITIES)? })
    }

    fn captcha(&self) -> Option<(&Vendor, &CaptchaRules)> {
        Some((&self.vendor, &self.rules))
    }

    fn describe(&self) -> Vec<String> {
        self.rules.describe(ABILITIES)
    }

    fn result_lifetime(&self) -> Duration {
        TOKEN_LIFETIME
    }

    fn is_test_result(&self, _: &str, result: &str) -> bool {
        // Real secrets refuse it.
        result == TEST_TOKEN
    }

    fn used_before(&self, _: &ResultParams<'_>) -> Result<Checked, CheckError> {
        Ok(siteverify::used_before("timeout-or-duplicate"))
    }

    async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError> {
        let idempotency_key = uuid(random().map_err(|_| CheckError::Unavailable("no random numbers".to_owned()))?);
        let mut form =
            self.rules.form(request.secrets.secret, request.params.get(TOKEN), None, request.context.client_ip);
        form.push(("idempotency_key", &idempotency_key));
        // With the same key the token counts as used once, so that a request may be repeated whose response was lost.
        match self.ask(request, &form).await {
            Err(CheckError::Unavailable(_)) => self.ask(request, &form).await,
            other => other,
        }
    }
}

impl Site {
    async fn ask(&self, request: &CheckRequest<'_>, form: &[(&str, &str)]) -> Result<Checked, CheckError> {
        let name = DEFINITION.display_name;
        let response = request.client.post_form(name, &self.vendor.url, form).await?;
        let question = Question { display_name: name, named_host: None, score: Score::OfHuman, has_actions: true };
        siteverify::judge(&self.rules, &response, &question)
    }
}

/// A UUID of random bits (RFC 9562, version 4).
fn uuid(random: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(random);
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or_default());
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_its_version_and_variant() {
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
