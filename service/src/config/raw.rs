//! The file as it is written, before any meaning is checked. Every struct refuses unknown names.
//!
//! Accounts, and in them the check services, are read apart: each check service reads its own part.

use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use super::revocations::RawRevoked;

use super::limits;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) tls_cert: Option<Spanned<String>>,
    pub(super) tls_key: Option<Spanned<String>>,
    pub(super) store: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) public_urls: Vec<Spanned<String>>,
    pub(super) public_url: Option<Spanned<String>>,
    pub(super) proxy_protocol: Option<Spanned<bool>>,
    /// Until version 0.1; told apart from an unknown name to say what took its place.
    pub(super) nonce_secret: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) limits: limits::Raw,
    #[serde(default)]
    pub(super) operations: Operations,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Operations {
    pub(super) listen: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    pub(super) site_key: Spanned<String>,
    pub(super) token_lifetime: Option<Spanned<u32>>,
    pub(super) refresh_token_lifetime: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) allowed_origins: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) publish_jwks: bool,
    pub(super) issuer: Option<Spanned<String>>,
    pub(super) secret_kid: Option<Spanned<String>>,
    pub(super) any_of: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) not_before: Option<Spanned<Datetime>>,
    #[serde(default)]
    pub(super) revoked: Vec<Spanned<RawRevoked>>,
    #[serde(default)]
    pub(super) api: Vec<Api>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) kid: Spanned<String>,
    pub(super) alg: Spanned<String>,
    pub(super) replaces: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Api {
    pub(super) domain: Spanned<String>,
    #[serde(default)]
    pub(super) allow_web: bool,
    #[serde(default)]
    pub(super) jwe: Option<Spanned<bool>>,
    pub(super) keyset_kid: Option<Spanned<String>>,
    pub(super) audience: Option<Spanned<String>>,
}
