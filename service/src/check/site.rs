//! The sites of an account at a check service, and the results that browsers bring of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeValue;

use crate::settings::{Read, Source};

use super::client::{CheckClient, CheckContext, CheckRequest, SiteSecrets};
use super::definition::{OptionKind, SiteOption};
use super::outcome::{CheckError, Checked};
use super::params::ResultParams;
use super::provider::{Provider, SiteKind};
use super::site_table::SiteTable;

/// One check service of an account.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// Whether every session needs a result of it.
    pub required: bool,
    /// What comes of results that do not meet its rules.
    pub mode: Mode,
    /// Its sites or subscriptions, by public key.
    pub sites: BTreeMap<String, Site>,
}

/// What comes of results that do not meet the rules of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Tokens that no backend accepts.
    #[default]
    Enforce,
    /// It is recorded, and they pass. What is missing or could not be checked passes, too.
    Monitor,
}

/// The names of the modes.
const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];

impl Mode {
    /// The name in the configuration file and on the command line.
    pub fn name(self) -> &'static str {
        MODES.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| *name)
    }
}

/// A site (hCaptcha, reCAPTCHA) or subscription (Fingerprint).
#[derive(Clone, Debug)]
pub struct Site {
    /// Whether full results go into encrypted tokens.
    pub embed_result: bool,
    /// Lifetime of a result; `None`: as long as the refresh token.
    pub max_result_lifetime: Option<Duration>,
    /// Checks per minute; `None`: no limit.
    pub rate_limit: Option<u64>,
    /// What is special about its check service.
    pub kind: SiteKind,
}

/// The least time for which it is remembered that a result was used: also for those who send it again because they got no
/// response.
const MIN_USED_FOR: Duration = Duration::from_secs(600);

/// A check result as the browser sent it.
#[derive(Clone)]
pub struct FreshResult<'a> {
    /// Which service's.
    pub provider: Provider,
    /// Site key or public API key.
    pub key: &'a str,
    /// The site that has this key.
    pub site: &'a Site,
    /// The request's parameters about it.
    pub params: ResultParams<'a>,
}

impl fmt::Debug for FreshResult<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FreshResult({}:{})", self.provider.prefix(), self.key)
    }
}

impl FreshResult<'_> {
    /// What names the result, which may be used once.
    pub fn single_use(&self) -> Cow<'_, str> {
        self.site.kind.single_use(&self.params)
    }

    /// Whether the check service publishes it for tests: everybody may use it, as often as they like.
    pub fn is_for_tests(&self) -> bool {
        self.site.kind.is_test_result(self.key, self.params.result())
    }

    /// How long it has to be remembered that the result was used.
    pub fn used_for(&self) -> Duration {
        self.site.kind.result_lifetime().max(MIN_USED_FOR)
    }

    /// What comes of it when another key has used it.
    ///
    /// # Errors
    /// When that is nothing that a check service is asked for.
    pub fn used_before(&self) -> Result<Checked, CheckError> {
        self.site.kind.used_before(&self.params)
    }

    /// Has the result checked. The secrets are the site's, as they are now.
    ///
    /// # Errors
    /// When the check could not be made; the text is fit for clients.
    pub async fn check(
        &self,
        client: &CheckClient,
        secrets: &SiteSecrets<'_>,
        context: CheckContext<'_>,
    ) -> Result<Checked, CheckError> {
        let request = CheckRequest { client, key: self.key, params: &self.params, secrets, context };
        self.site.kind.check(&request).await
    }
}

/// The properties that every site has, on the command line.
pub const COMMON_OPTIONS: &[SiteOption] = &[
    SiteOption::new("embedResult", "embed_result", OptionKind::Switch),
    SiteOption::new("maxResultLifetime", "max_result_lifetime", OptionKind::WholeSeconds),
    SiteOption::new("rateLimit", "rate_limit", OptionKind::PerMinute),
];

/// The property of a site that a command line option sets.
pub fn site_option(flag: &str) -> Option<&'static SiteOption> {
    let special = Provider::ALL.into_iter().flat_map(|provider| provider.definition().options);
    special.copied().chain([COMMON_OPTIONS]).flatten().find(|option| option.flag == flag)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheck {
    #[serde(default)]
    required: bool,
    mode: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCommon {
    #[serde(default)]
    embed_result: bool,
    #[serde(default)]
    max_result_lifetime: u32,
    #[serde(default)]
    rate_limit: u64,
}

impl Check {
    /// Reads an account's table of a check service.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn read(provider: Provider, source: &Source<'_>, value: Spanned<DeValue<'_>>) -> Read<Self> {
        let definition = provider.definition();
        let mut table = source.as_table(definition.name, value)?;
        let entries = source.take_tables(&mut table, definition.site_noun)?;
        let RawCheck { required, mode } = source.deserialize(table)?;
        let mode = source.one_of("mode", mode.as_ref(), &MODES)?;
        let mut sites = BTreeMap::new();
        for entry in entries {
            let table = SiteTable::new(source, definition.key_name, entry)?;
            let at = table.key.clone();
            if sites.insert(at.get_ref().clone(), Site::read(provider, table)?).is_some() {
                return source.error(&at, format!("the account has this {} twice", definition.key_name));
            }
        }
        Ok(Self { required, mode, sites })
    }
}

impl Site {
    fn read(provider: Provider, mut table: SiteTable<'_>) -> Read<Self> {
        let RawCommon { embed_result, max_result_lifetime, rate_limit } =
            table.take(&["embed_result", "max_result_lifetime", "rate_limit"])?;
        Ok(Self {
            embed_result,
            max_result_lifetime: (max_result_lifetime > 0).then(|| Duration::from_secs(max_result_lifetime.into())),
            rate_limit: (rate_limit > 0).then_some(rate_limit),
            kind: provider.read_site(table)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether everybody may use a result of the site with this key, and for how long its use is remembered.
    fn once(provider: Provider, table: &str, key: &str, rest: &str, result: &str) -> (bool, Duration) {
        let text = format!(
            "[[account]]\nsite_key = \"k\"\nsecret = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n\
             [[account.{table}]]\n{} = \"{key}\"\nsecret = \"s\"\n{rest}",
            provider.definition().key_name
        );
        let config = crate::config::Config::parse(&text).unwrap();
        let site = config.accounts["k"].site(provider, key).unwrap();
        let name = provider.definition().result;
        let params = ResultParams::read(provider.definition(), |param| (param == name).then_some(result));
        let fresh = FreshResult { provider, key, site, params };
        assert_eq!(fresh.single_use(), result);
        (fresh.is_for_tests(), fresh.used_for())
    }

    #[test]
    fn everybody_may_use_what_check_services_publish_for_tests_and_nothing_else() {
        let hcaptcha = |key, token| once(Provider::Hcaptcha, "hcaptcha.site", key, "", token).0;
        let test_key = "10000000-ffff-ffff-ffff-000000000001";
        assert!(hcaptcha(test_key, "10000000-aaaa-bbbb-cccc-000000000001"));
        assert!(!hcaptcha(test_key, "20000000-aaaa-bbbb-cccc-000000000002"));
        assert!(!hcaptcha(test_key, "P1_another-token"));
        assert!(!hcaptcha("another-key", "10000000-aaaa-bbbb-cccc-000000000001"));
        let recaptcha = |key, rest| once(Provider::Recaptcha, "recaptcha.site", key, rest, "03A-any-token").0;
        let test_key = "6LeIxAcTAAAAAJcZVRqyHh71UMIEGNQ_MXjiZKhI";
        assert!(recaptcha(test_key, ""));
        assert!(!recaptcha(test_key, "verify_url = \"http://127.0.0.1/sim\""));
        assert!(!recaptcha("another-key", ""));
    }

    #[test]
    fn the_use_of_a_result_is_remembered_as_long_as_it_is_accepted_and_ten_minutes_at_least() {
        let fingerprint =
            |rest| once(Provider::Fingerprint, "fingerprint.subscription", "f", rest, "1620127950391.abc").1;
        assert_eq!(fingerprint(""), Duration::from_secs(600));
        assert_eq!(fingerprint("max_elapsed_time = 3600"), Duration::from_secs(3605));
        let recaptcha = once(Provider::Recaptcha, "recaptcha.site", "r", "", "03A-any-token").1;
        assert_eq!(recaptcha, Duration::from_secs(600));
    }

    #[test]
    fn an_option_means_the_same_for_every_check_service() {
        for provider in Provider::ALL {
            for option in provider.definition().options.iter().copied().flatten() {
                assert_eq!(site_option(option.flag), Some(option), "{}: -{}", provider.name(), option.flag);
            }
        }
    }
}
