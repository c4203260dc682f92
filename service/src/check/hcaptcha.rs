//! hCaptcha (docs.hcaptcha.com): `siteverify`, which also takes the site key.

use std::time::Duration;

use crate::error::Code;
use crate::settings::Read;

use super::check_site::CheckSite;
use super::client::CheckRequest;
use super::definition::{Definition, Param, ParamText, ProviderCodes};
use super::outcome::{CheckError, Checked};
use super::params::ResultParams;
use super::site_table::{SiteTable, VENDOR_OPTIONS, Vendor};
use super::siteverify::{self, Abilities, CaptchaRules, DOMAIN_OPTION, IP_OPTION, Question, SCORE_OPTION, Score};

const SERVER: &str = "https://api.hcaptcha.com/siteverify";

const SITE_KEY: &str = "hcaptcha-site-key";
const TOKEN: &str = "hcaptcha-token";
const KEY: &str = "hcaptcha-key";
const HOST: &str = "hcaptcha-host";

/// How long hCaptcha accepts a token (docs.hcaptcha.com, "Verify the User Response Server Side").
const TOKEN_LIFETIME: Duration = Duration::from_secs(120);

/// The published test keys and the one token of each (docs.hcaptcha.com, "Integration Testing: Test Keys").
const TEST_TOKENS: [(&str, &str); 3] = [
    ("10000000-ffff-ffff-ffff-000000000001", "10000000-aaaa-bbbb-cccc-000000000001"),
    ("20000000-ffff-ffff-ffff-000000000002", "20000000-aaaa-bbbb-cccc-000000000002"),
    ("30000000-ffff-ffff-ffff-000000000003", "30000000-aaaa-bbbb-cccc-000000000003"),
];

/// The names that belong to hCaptcha.
pub(super) static DEFINITION: Definition = Definition {
    name: "hcaptcha",
    prefix: "hcap",
    display_name: "hCaptcha",
    site_noun: "site",
    key_name: "site_key",
    key_label: "Site Key",
    params: &[
        Param::key(SITE_KEY, Code::HcapEmptySiteKey),
        Param::required(TOKEN, Code::HcapEmptyToken, ParamText::Result),
        Param::optional(KEY),
        Param::optional(HOST),
    ],
    result: TOKEN,
    test_keys: &[TEST_TOKENS[0].0, TEST_TOKENS[1].0, TEST_TOKENS[2].0],
    codes: ProviderCodes {
        config_not_found: Code::HcapConfigNotFound,
        missing_required: Code::HcapMissingRequired,
        mismatch: Code::HcapParamMismatch,
        key_not_found: Code::HcapSiteKeyNotFound,
        check: Code::HcapTokenCheck,
    },
    options: &[VENDOR_OPTIONS, &[DOMAIN_OPTION, SCORE_OPTION, IP_OPTION]],
};

const ABILITIES: Abilities =
    Abilities { display_name: DEFINITION.display_name, actions: false, scores: true, client_ip: true };

/// An hCaptcha site.
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

    fn is_test_result(&self, key: &str, result: &str) -> bool {
        TEST_TOKENS.contains(&(key, result))
    }

    fn used_before(&self, _: &ResultParams<'_>) -> Result<Checked, CheckError> {
        Ok(siteverify::used_before("already-seen-response"))
    }

    async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError> {
        let params = &request.params;
        let name = DEFINITION.display_name;
        let site_key = Some(request.key);
        let form = self.rules.form(request.secrets.secret, params.get(TOKEN), site_key, request.context.client_ip);
        let response = request.client.post_form(name, &self.vendor.url, &form).await?;
        let question = Question {
            display_name: name,
            named_host: params.find(HOST).filter(|host| !host.is_empty()),
            score: Score::OfThreat,
            has_actions: false,
        };
        siteverify::judge(&self.rules, &response, &question)
    }
}
