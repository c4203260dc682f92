//! What a check service's file does: reads its sites, and has results checked.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::allowed_origins::AllowedOrigins;
use crate::secrets::SecretList;
use crate::settings::Read;

use super::client::CheckRequest;
use super::outcome::{CheckError, Checked};
use super::params::ResultParams;
use super::site_table::{SiteTable, Vendor};
use super::siteverify::CaptchaRules;

/// What a check service's file says about its sites.
pub(super) trait CheckSite: Clone + fmt::Debug + Sized {
    /// Reads the keys of a site that not every check service has.
    fn read(table: SiteTable<'_>) -> Read<Self>;

    /// A captcha's server and rules, which say most of what follows.
    fn captcha(&self) -> Option<(&Vendor, &CaptchaRules)> {
        None
    }

    /// What the check service knows a site by, where it needs that.
    fn secret(&self) -> Option<&SecretList> {
        self.captcha().map(|(vendor, _)| &vendor.secret)
    }

    /// What opens results that a page brings along encrypted, where a site has that.
    fn sealed_key(&self) -> Option<&SecretList> {
        None
    }

    /// The domains that results must be of, where the check service names one; empty: any.
    fn domains(&self) -> &[String] {
        self.captcha().map_or(&[], |(_, rules)| &rules.domains)
    }

    /// Lines of `web -list` about a site.
    fn describe(&self) -> Vec<String>;

    /// What its author may not have meant, or can never work for pages of `origins`.
    fn warnings(&self, origins: &AllowedOrigins) -> Vec<String> {
        self.captcha().map(|(_, rules)| rules.warnings(origins)).unwrap_or_default()
    }

    /// How long after it was made a result is accepted.
    fn result_lifetime(&self) -> Duration;

    /// Whether a result of the site with this key is one of those that the check service publishes for tests, which
    /// everybody may use.
    fn is_test_result(&self, key: &str, result: &str) -> bool;

    /// What names a result of which each is used once.
    fn single_use<'a>(&self, params: &ResultParams<'a>) -> Cow<'a, str> {
        Cow::Borrowed(params.result())
    }

    /// What comes of a result that another key has used: the same as of one that the check service says was used.
    ///
    /// # Errors
    /// When that is nothing that a check service is asked for.
    fn used_before(&self, params: &ResultParams<'_>) -> Result<Checked, CheckError>;

    /// Has a result checked.
    async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError>;
}
