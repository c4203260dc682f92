//! The table of a site in the configuration file while it is read.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use crate::secrets::{SecretKind, SecretList};
use crate::settings::{ConfigError, Read, Source, SpannedTable};

use super::definition::{OptionKind, SiteOption};

/// The server of a check service, and what it knows the site by.
#[derive(Clone, Debug)]
pub struct Vendor {
    /// The secret that the server wants.
    pub secret: SecretList,
    /// Where it is.
    pub url: Url,
}

/// The properties of a [`Vendor`] on the command line.
pub const VENDOR_OPTIONS: &[SiteOption] = &[
    SiteOption::new("secret", "secret", OptionKind::Secret),
    SiteOption::new("secretFile", "secret_file", OptionKind::Text),
    SiteOption::new("secretEnv", "secret_env", OptionKind::Text),
    SiteOption::new("verifyURL", "verify_url", OptionKind::Text),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVendor {
    verify_url: Option<Spanned<String>>,
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
    pub(super) fn new(source: &'a Source<'a>, key_name: &str, mut table: SpannedTable<'a>) -> Read<Self> {
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
        let raw: RawVendor = self.take(&["verify_url"])?;
        let Some(secret) = self.source.take_secrets(&mut self.table, "secret", SecretKind::Text)? else {
            let key = self.key.get_ref();
            return self.source.error(&self.key, format!("\"{key}\" needs secret, secret_file or secret_env"));
        };
        let url = match &raw.verify_url {
            Some(text) => self.source.server_url(text)?,
            None => {
                Url::parse(default_url).map_err(|error| ConfigError { position: None, message: error.to_string() })?
            }
        };
        Ok(Vendor { secret, url })
    }

    /// Reads a secret of the site that it need not have.
    pub(super) fn secret(&mut self, name: &str, kind: SecretKind) -> Read<Option<SecretList>> {
        self.source.take_secrets(&mut self.table, name, kind)
    }

    /// Reads all keys that are left.
    pub(super) fn rest<T: DeserializeOwned>(self) -> Read<T> {
        self.source.deserialize(self.table)
    }
}
