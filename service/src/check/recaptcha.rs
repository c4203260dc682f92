//! Google reCAPTCHA, v2 and v3 (developers.google.com/recaptcha/docs/verify): `siteverify`.

use std::time::Duration;

use crate::allowed_origins::AllowedOrigins;
use crate::error::Code;
use crate::secrets::SecretList;
use crate::settings::Read;

use super::check_site::CheckSite;
use super::client::CheckRequest;
use super::definition::{Definition, OptionKind, Param, ParamText, ProviderCodes, SiteOption};
use super::outcome::{CheckError, Checked};
use super::params::ResultParams;
use super::site_table::{SiteTable, VENDOR_OPTIONS, Vendor};
use super::siteverify::{self, CaptchaRules, Question};

const SERVER: &str = "https://www.google.com/recaptcha/api/siteverify";

const SITE_KEY: &str = "recaptcha-site-key";
const TOKEN: &str = "recaptcha-token";

/// How long Google accepts a token (developers.google.com/recaptcha/docs/verify).
const TOKEN_LIFETIME: Duration = Duration::from_secs(120);

/// The published test key, of which Google accepts whatever comes (developers.google.com/recaptcha/docs/faq).
const TEST_KEY: &str = "6LeIxAcTAAAAAJcZVRqyHh71UMIEGNQ_MXjiZKhI";

/// The names that belong to reCAPTCHA.
pub(super) static DEFINITION: Definition = Definition {
    name: "recaptcha",
    prefix: "recap",
    display_name: "reCAPTCHA",
    site_noun: "site",
    key_name: "site_key",
    key_label: "Site Key",
    params: &[
        Param::key(SITE_KEY, Code::RecapEmptySiteKey),
        Param::required(TOKEN, Code::RecapEmptyToken, ParamText::Result),
    ],
    result: TOKEN,
    codes: ProviderCodes {
        config_not_found: Code::RecapConfigNotFound,
        missing_required: Code::RecapMissingRequired,
        mismatch: Code::RecapParamMismatch,
        key_not_found: Code::RecapSiteKeyNotFound,
        check: Code::RecapTokenCheck,
    },
    options: &[VENDOR_OPTIONS, siteverify::OPTIONS, &[SiteOption::new("action", "actions", OptionKind::List)]],
};

/// A reCAPTCHA site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where results are checked, and the secret for it.
    pub vendor: Vendor,
    /// What a result must meet.
    pub rules: CaptchaRules,
}

impl CheckSite for Site {
    fn read(mut table: SiteTable<'_>) -> Read<Self> {
        Ok(Self { vendor: table.vendor(SERVER)?, rules: CaptchaRules::read(table)? })
    }

    fn secret(&self) -> Option<&SecretList> {
        Some(&self.vendor.secret)
    }

    fn domains(&self) -> &[String] {
        &self.rules.domains
    }

    fn describe(&self) -> Vec<String> {
        self.rules.describe()
    }

    fn warnings(&self, origins: &AllowedOrigins) -> Vec<String> {
        self.rules.warnings(origins)
    }

    fn result_lifetime(&self) -> Duration {
        TOKEN_LIFETIME
    }

    fn is_test_result(&self, key: &str, _: &str) -> bool {
        // Any other server that knows the key is a simulator, whose tokens are like those of a real site.
        key == TEST_KEY && self.vendor.url.as_str() == SERVER
    }

    fn used_before(&self, _: &ResultParams<'_>) -> Checked {
        siteverify::used_before()
    }

    async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError> {
        let name = DEFINITION.display_name;
        let form = self.rules.form(request.secret, request.params.get(TOKEN), None, request.context.client_ip);
        let response = request.client.post_form(name, &self.vendor.url, &form).await?;
        let question = Question { display_name: name, named_host: None };
        siteverify::judge(&self.rules, &response, &question)
    }
}
