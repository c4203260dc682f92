//! The sites of an account at a check service, as the configuration file has them.

use std::collections::BTreeMap;
use std::time::Duration;

use approov_verify::secret::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use crate::settings::{ConfigError, Read, Source, SpannedTable};

use super::provider::{OptionKind, Provider, SiteKind, SiteOption};

/// One check service of an account.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// Whether every session needs a result of it.
    pub required: bool,
    /// Its sites or subscriptions, by public key.
    pub sites: BTreeMap<String, Site>,
}

/// A site (hCaptcha, reCAPTCHA) or subscription (Fingerprint).
#[derive(Clone, Debug)]
pub struct Site {
    /// Whether full results go into encrypted tokens.
    pub embed_result: bool,
    /// Life of a result; `None`: as long as the refresh token.
    pub max_result_lifetime: Option<Duration>,
    /// Checks per minute; `None`: no limit.
    pub rate_limit: Option<u64>,
    /// What is special about its check service.
    pub kind: SiteKind,
}

/// The server of a check service, and what it knows the site by.
#[derive(Clone, Debug)]
pub struct Vendor {
    /// The secret that the server wants.
    pub secret: Secret,
    /// Where it is.
    pub url: Url,
}

impl Vendor {
    /// The secret as text; check services give out no other.
    pub(super) fn secret_text(&self) -> &str {
        std::str::from_utf8(self.secret.as_bytes()).unwrap_or_default()
    }
}

/// The properties that every site has, on the command line.
pub const COMMON_OPTIONS: &[SiteOption] = &[
    SiteOption::new("embedResult", "embed_result", OptionKind::Switch),
    SiteOption::new("maxResultLifetime", "max_result_lifetime", OptionKind::WholeSeconds),
    SiteOption::new("rateLimit", "rate_limit", OptionKind::PerMinute),
];

/// The properties of a [`Vendor`] on the command line.
pub const VENDOR_OPTIONS: &[SiteOption] = &[
    SiteOption::new("secret", "secret", OptionKind::Text),
    SiteOption::new("secretEnv", "secret_env", OptionKind::Text),
    SiteOption::new("verifyURL", "verify_url", OptionKind::Text),
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVendor {
    secret: Option<Spanned<String>>,
    secret_env: Option<Spanned<String>>,
    verify_url: Option<Spanned<String>>,
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
        let RawCheck { required } = source.deserialize(table)?;
        let mut sites = BTreeMap::new();
        for entry in entries {
            let table = SiteTable::new(source, definition.key_name, entry)?;
            let at = table.key.clone();
            if sites.insert(at.get_ref().clone(), Site::read(provider, table)?).is_some() {
                return source.error(&at, format!("the account has this {} twice", definition.key_name));
            }
        }
        Ok(Self { required, sites })
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

/// The table of a site while it is read: each reader takes its keys out, the last refuses what is left.
pub(super) struct SiteTable<'a> {
    /// The file.
    pub(super) source: &'a Source<'a>,
    /// The site's public key.
    pub(super) key: Spanned<String>,
    table: SpannedTable<'a>,
}

impl<'a> SiteTable<'a> {
    fn new(source: &'a Source<'a>, key_name: &str, mut table: SpannedTable<'a>) -> Read<Self> {
        let Some(value) = table.get_mut().remove(key_name) else {
            return source.error(&table, format!("missing field `{key_name}`"));
        };
        let span = value.span();
        let DeValue::String(key) = value.into_inner() else {
            return source.error(&Spanned::new(span, ()), format!("{key_name} must be a text"));
        };
        let key = Spanned::new(span, key.into_owned());
        source.key_text(&key, key_name)?;
        Ok(Self { source, key, table })
    }

    /// Reads the keys with these names.
    pub(super) fn take<T: DeserializeOwned>(&mut self, names: &[&str]) -> Read<T> {
        let taken: DeTable<'a> = names.iter().filter_map(|name| self.table.get_mut().remove_entry(*name)).collect();
        self.source.deserialize(Spanned::new(self.table.span(), taken))
    }

    /// Reads the keys of a site whose results are sent to a server, which is `default_url` unless the file says so.
    pub(super) fn vendor(&mut self, default_url: &str) -> Read<Vendor> {
        let raw: RawVendor = self.take(&["secret", "secret_env", "verify_url"])?;
        let secret = match self.source.secret_text(&raw.secret, &raw.secret_env, &self.key)? {
            Some(secret) if !secret.get_ref().is_empty() => Secret::from_bytes(secret.into_inner().into_bytes()),
            _ => return self.source.error(&self.key, format!("\"{}\" needs secret or secret_env", self.key.get_ref())),
        };
        let url = match &raw.verify_url {
            Some(text) => self.source.http_url(text)?,
            None => {
                Url::parse(default_url).map_err(|error| ConfigError { position: None, message: error.to_string() })?
            }
        };
        Ok(Vendor { secret, url })
    }

    /// Reads all keys that are left.
    pub(super) fn rest<T: DeserializeOwned>(self) -> Read<T> {
        self.source.deserialize(self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_means_the_same_for_every_check_service() {
        for provider in Provider::ALL {
            for option in provider.definition().options.iter().copied().flatten() {
                assert_eq!(site_option(option.flag), Some(option), "{}: -{}", provider.name(), option.flag);
            }
        }
    }
}
