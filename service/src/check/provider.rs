//! The check services as a table.

use std::borrow::Cow;
use std::time::Duration;

use crate::allowed_origins::AllowedOrigins;
use crate::secrets::SecretList;
use crate::settings::Read;

use super::check_site::CheckSite as _;
use super::client::CheckRequest;
use super::definition::Definition;
use super::outcome::{CheckError, Checked};
use super::params::ResultParams;
use super::site_table::SiteTable;
use super::{altcha, fingerprint, friendly, hcaptcha, recaptcha, turnstile};

macro_rules! providers {
    ($($(#[doc = $doc:literal])+ $provider:ident = $module:ident;)+) => {
        /// A check service.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Provider { $($(#[doc = $doc])+ $provider,)+ }

        /// What only the sites of one check service have.
        #[derive(Clone, Debug)]
        pub enum SiteKind { $($(#[doc = $doc])+ $provider($module::Site),)+ }

        impl Provider {
            /// All of them, those of the specification first, in its order.
            pub const ALL: [Provider; [$(stringify!($provider)),+].len()] = [$(Provider::$provider,)+];

            /// What its file says about it.
            pub fn definition(self) -> &'static Definition {
                match self { $(Provider::$provider => &$module::DEFINITION,)+ }
            }

            pub(super) fn read_site(self, table: SiteTable<'_>) -> Read<SiteKind> {
                match self { $(Provider::$provider => $module::Site::read(table).map(SiteKind::$provider),)+ }
            }
        }

        impl SiteKind {
            /// What the check service knows the site by, where it needs that.
            pub fn secret(&self) -> Option<&SecretList> {
                match self { $(SiteKind::$provider(site) => site.secret(),)+ }
            }

            /// What opens results that a page brings along encrypted, where it has that.
            pub fn sealed_key(&self) -> Option<&SecretList> {
                match self { $(SiteKind::$provider(site) => site.sealed_key(),)+ }
            }

            /// The domains that results must be of, where the check service names one; empty: any.
            pub fn domains(&self) -> &[String] {
                match self { $(SiteKind::$provider(site) => site.domains(),)+ }
            }

            /// Lines of `web -list` about the site.
            pub fn describe(&self) -> Vec<String> {
                match self { $(SiteKind::$provider(site) => site.describe(),)+ }
            }

            /// What its author may not have meant, or can never work for pages of `origins`.
            pub fn warnings(&self, origins: &AllowedOrigins) -> Vec<String> {
                match self { $(SiteKind::$provider(site) => site.warnings(origins),)+ }
            }

            pub(super) fn result_lifetime(&self) -> Duration {
                match self { $(SiteKind::$provider(site) => site.result_lifetime(),)+ }
            }

            pub(super) fn is_test_result(&self, key: &str, result: &str) -> bool {
                match self { $(SiteKind::$provider(site) => site.is_test_result(key, result),)+ }
            }

            pub(super) fn single_use<'a>(&self, params: &ResultParams<'a>) -> Cow<'a, str> {
                match self { $(SiteKind::$provider(site) => site.single_use(params),)+ }
            }

            pub(super) fn used_before(&self, params: &ResultParams<'_>) -> Result<Checked, CheckError> {
                match self { $(SiteKind::$provider(site) => site.used_before(params),)+ }
            }

            pub(super) async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError> {
                match self { $(SiteKind::$provider(site) => site.check(request).await,)+ }
            }
        }
    };
}

// A new check service is a file in this folder and a line here.
providers! {
    /// Fingerprint (browser identification).
    Fingerprint = fingerprint;
    /// hCaptcha.
    Hcaptcha = hcaptcha;
    /// Google reCAPTCHA, v2, v3 and Enterprise.
    Recaptcha = recaptcha;
    /// Cloudflare Turnstile.
    Turnstile = turnstile;
    /// Friendly Captcha, v2.
    Friendly = friendly;
    /// ALTCHA, which is built in.
    Altcha = altcha;
}

impl Provider {
    /// The name in the configuration file, on the command line, in metrics and logs.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// The prefix in `embed` and `expiries` keys, before the colon and the site key.
    pub fn prefix(self) -> &'static str {
        self.definition().prefix
    }
}
