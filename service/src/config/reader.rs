//! Turns the raw file into checked values.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;

use crate::check::{Check, Mode, Provider};
use crate::crypto::KeyAlg;
use crate::host::ascii_name;
use crate::secrets::SecretKind;
use crate::settings::{ConfigError, Read, Source, SpannedTable};

use super::{
    Account, AllowedOrigins, Api, Config, DEFAULT_LISTEN, KeptKey, MIGRATE, PublicUrl, Revocations, StoreAddress,
    TlsFiles, TrustedProxies, raw,
};

/// Reads the whole file.
pub(super) fn config(source: &Source<'_>) -> Read<Config> {
    let mut table = source.table()?;
    let account_tables = source.take_tables(&mut table, "account")?;
    let session_secret = source.take_secrets(&mut table, "session_secret", SecretKind::Key)?;
    let trusted_proxies = TrustedProxies::read(source, table.get_mut().remove("trusted_proxies"))?;
    let raw: raw::Config = source.deserialize(table)?;
    if let Some(at) = &raw.nonce_secret {
        return source
            .error(at, format!("nonce_secret is gone: session_secret took its place; {MIGRATE} changes the file"));
    }
    let config = Config {
        listen: raw.listen.as_ref().map(|text| listen(source, text)).transpose()?.unwrap_or(DEFAULT_LISTEN),
        operations: raw.operations.listen.as_ref().map(|text| listen(source, text)).transpose()?,
        tls: tls(source, raw.tls_cert, raw.tls_key)?,
        store: store(source, raw.store.as_ref())?,
        public_urls: PublicUrl::read(source, &raw.public_urls, raw.public_url.as_ref())?,
        proxy_protocol: proxy_protocol(source, raw.proxy_protocol.as_ref(), &trusted_proxies)?,
        trusted_proxies,
        session_secret,
        accounts: accounts(source, account_tables)?,
        limits: raw.limits.read(source)?,
    };
    Ok(config)
}

fn proxy_protocol(source: &Source<'_>, raw: Option<&Spanned<bool>>, proxies: &TrustedProxies) -> Read<bool> {
    match (raw, proxies) {
        (Some(on), TrustedProxies::Networks(networks)) if *on.get_ref() && !networks.is_empty() => Ok(true),
        (Some(on), _) if *on.get_ref() => source
            .error(on, "proxy_protocol needs trusted_proxies, a list of the networks whose connections begin with it"),
        _ => Ok(false),
    }
}

fn listen(source: &Source<'_>, text: &Spanned<String>) -> Read<SocketAddr> {
    text.get_ref().parse().or_else(|_| {
        let got = text.get_ref();
        source.error(text, format!("listen must be an IP address and port such as 0.0.0.0:443, got \"{got}\""))
    })
}

fn tls(source: &Source<'_>, cert: Option<Spanned<String>>, key: Option<Spanned<String>>) -> Read<Option<TlsFiles>> {
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert: cert.into_inner().into(), key: key.into_inner().into() })),
        (Some(one), None) => source.error(&one, "tls_cert needs tls_key next to it"),
        (None, Some(one)) => source.error(&one, "tls_key needs tls_cert next to it"),
    }
}

fn store(source: &Source<'_>, raw: Option<&Spanned<String>>) -> Read<StoreAddress> {
    let Some(text) = raw else {
        return Ok(StoreAddress::Memory);
    };
    match text.get_ref().as_str() {
        "memory" => Ok(StoreAddress::Memory),
        url if ["redis://", "rediss://", "redis+unix://"].iter().any(|scheme| url.starts_with(scheme)) => {
            Ok(StoreAddress::Redis(url.to_owned()))
        }
        _ => {
            source.error(text, "store must be \"memory\", \"redis://host:port/db\" or \"rediss://host:port/db\" (TLS)")
        }
    }
}

fn accounts(source: &Source<'_>, tables: Vec<SpannedTable<'_>>) -> Read<BTreeMap<String, Account>> {
    let mut accounts = BTreeMap::new();
    for table in tables {
        let (at, account) = account(source, table)?;
        if accounts.insert(account.site_key.clone(), account).is_some() {
            return source.error(&at, format!("two accounts have the site key \"{}\"", at.get_ref()));
        }
    }
    Ok(accounts)
}

fn account(source: &Source<'_>, mut table: SpannedTable<'_>) -> Read<(Spanned<String>, Account)> {
    let mut check_tables = Vec::new();
    for provider in Provider::ALL {
        check_tables.extend(table.get_mut().remove(provider.name()).map(|value| (provider, value)));
    }
    let secret = source.take_secrets(&mut table, "secret", SecretKind::Key)?;
    let jwe_secret = source.take_secrets(&mut table, "jwe_secret", SecretKind::Key32)?;
    let keys = keys(source, source.take_tables(&mut table, "key")?)?;
    let raw: raw::Account = source.deserialize(table)?;
    let site_key = source.key_text(&raw.site_key, "site_key")?;
    let Some(secret) = secret else {
        return source.error(&raw.site_key, "the account needs secret, secret_file or secret_env");
    };
    let checks: BTreeMap<Provider, Check> = check_tables
        .into_iter()
        .map(|(provider, value)| Ok((provider, Check::read(provider, source, value)?)))
        .collect::<Read<_>>()?;
    let account = Account {
        site_key,
        any_of: any_of(source, raw.any_of.as_ref(), &checks)?,
        secret,
        token_lifetime: lifetime(source, raw.token_lifetime.as_ref(), 120)?,
        refresh_token_lifetime: lifetime(source, raw.refresh_token_lifetime.as_ref(), 7200)?,
        allowed_origins: allowed_origins(source, &raw.allowed_origins)?,
        publish_jwks: raw.publish_jwks,
        secret_kid: claim_text(source, raw.secret_kid.as_ref(), "secret_kid")?,
        issuer: claim_text(source, raw.issuer.as_ref(), "issuer")?,
        revocations: Revocations::read(source, raw.not_before.as_ref(), &raw.revoked)?,
        apis: apis(source, &raw.api, &keys, jwe_secret.is_some())?,
        keys,
        jwe_secret,
        checks,
    };
    Ok((raw.site_key, account))
}

/// The check services of which one result must come.
fn any_of(
    source: &Source<'_>,
    raw: Option<&Spanned<Vec<Spanned<String>>>>,
    checks: &BTreeMap<Provider, Check>,
) -> Read<Vec<Provider>> {
    let Some(list) = raw else { return Ok(Vec::new()) };
    let mut any_of = Vec::new();
    for name in list.get_ref() {
        let provider = Provider::ALL.into_iter().find(|provider| provider.name() == name.get_ref());
        let Some((provider, check)) = provider.and_then(|provider| Some((provider, checks.get(&provider)?))) else {
            return source.error(name, format!("the account has no check service \"{}\"", name.get_ref()));
        };
        if check.sites.is_empty() {
            return source.error(name, format!("the account has no site of {}", name.get_ref()));
        }
        if check.required {
            return source.error(name, format!("{} is required: it must come anyway", name.get_ref()));
        }
        if check.mode == Mode::Monitor {
            return source.error(name, format!("{} is only monitored: nobody needs it", name.get_ref()));
        }
        if any_of.contains(&provider) {
            return source.error(name, format!("{} is named twice", name.get_ref()));
        }
        any_of.push(provider);
    }
    if any_of.len() < 2 {
        return source.error(list, "any_of needs two check services; one alone is required = true in its own table");
    }
    Ok(any_of)
}

fn allowed_origins(source: &Source<'_>, raw: &[Spanned<String>]) -> Read<AllowedOrigins> {
    for entry in raw {
        if let Err(message) = AllowedOrigins::parse([entry.get_ref().as_str()]) {
            return source.error(entry, message);
        }
    }
    AllowedOrigins::parse(raw.iter().map(|entry| entry.get_ref().as_str()))
        .map_err(|message| ConfigError { position: None, message })
}

fn keys(source: &Source<'_>, tables: Vec<SpannedTable<'_>>) -> Read<BTreeMap<String, KeptKey>> {
    let mut keys = BTreeMap::new();
    for mut table in tables {
        let private_keys = source.take_secrets(&mut table, "private_key", SecretKind::Pem)?;
        let raw: raw::Key = source.deserialize(table)?;
        let kid = source.key_text(&raw.kid, "kid")?;
        let Some(alg) = KeyAlg::parse(raw.alg.get_ref()) else {
            return source.error(&raw.alg, format!("alg must be RS256 or ES256, got \"{}\"", raw.alg.get_ref()));
        };
        let Some(private_keys) = private_keys else {
            return source.error(&raw.kid, "the key needs private_key, private_key_file or private_key_env");
        };
        let Some(private_key) = private_keys.into_only() else {
            return source.error(&raw.kid, "a kid names one private_key; the next key has a kid of its own");
        };
        let mut key = KeptKey::new(kid.clone(), alg, private_key)?;
        key.replaces = raw.replaces.as_ref().map(|kid| source.key_text(kid, "replaces")).transpose()?;
        if keys.insert(kid, key).is_some() {
            return source.error(&raw.kid, "two keys of the account have this kid");
        }
    }
    Ok(keys)
}

fn apis(
    source: &Source<'_>,
    raw: &[raw::Api],
    keys: &BTreeMap<String, KeptKey>,
    has_jwe_secret: bool,
) -> Read<BTreeMap<String, Api>> {
    let mut apis = BTreeMap::new();
    for api in raw {
        let domain = domain(source, &api.domain)?;
        if let Some(kid) = &api.keyset_kid
            && !keys.contains_key(kid.get_ref())
        {
            return source.error(kid, format!("the account has no key with kid \"{}\"", kid.get_ref()));
        }
        let jwe = match &api.jwe {
            Some(jwe) if *jwe.get_ref() && !has_jwe_secret => {
                return source.error(jwe, "jwe = true needs the account's jwe_secret");
            }
            Some(jwe) => *jwe.get_ref(),
            None => false,
        };
        let keyset_kid = api.keyset_kid.as_ref().map(|kid| kid.get_ref().clone());
        let audience = claim_text(source, api.audience.as_ref(), "audience")?;
        if apis.insert(domain, Api { allow_web: api.allow_web, jwe, keyset_kid, audience }).is_some() {
            return source.error(&api.domain, "the account has this API twice");
        }
    }
    Ok(apis)
}

/// The longest `iss`, `aud` and `kid`, bytes: they are in every token.
const MAX_CLAIM: usize = 256;

fn claim_text(source: &Source<'_>, text: Option<&Spanned<String>>, name: &str) -> Read<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    if text.get_ref().is_empty() || text.get_ref().len() > MAX_CLAIM {
        return source.error(text, format!("{name} must have 1 to {MAX_CLAIM} bytes"));
    }
    Ok(Some(text.get_ref().clone()))
}

fn domain(source: &Source<'_>, text: &Spanned<String>) -> Read<String> {
    match ascii_name(text.get_ref()) {
        Some(domain) => Ok(domain),
        None => {
            let got = text.get_ref();
            source.error(text, format!("domain must be a host name such as api.example.com, got \"{got}\""))
        }
    }
}

fn lifetime(source: &Source<'_>, value: Option<&Spanned<u32>>, default: u32) -> Read<Duration> {
    match value {
        None => Ok(Duration::from_secs(default.into())),
        Some(value) if *value.get_ref() > 0 => Ok(Duration::from_secs((*value.get_ref()).into())),
        Some(value) => source.error(value, "a lifetime must be at least one second"),
    }
}
