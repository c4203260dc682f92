//! The keys of a configuration in force.
//!
//! What backends have too (an account's secrets) makes tokens and nothing else. Everything that only the service may make or
//! open (nonces, refresh tokens, the random parts of decoys) follows from its session secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use serde_json::json;

use crate::check::altcha::challenge::ChallengeKeys;
use crate::check::{Provider, SiteSecrets};
use crate::config::{Account, Api, Config};
use crate::crypto::{CryptoError, random};
use crate::secrets::{Outside, SecretList, Timeline};
use crate::session::{NonceKeys, OutcomeKeys, RefreshKeys};
use crate::settings::Read;
use crate::token::{Signer, SigningKey};

use super::decoys::DecoyKeys;

/// The keys of a configuration.
pub(super) struct Keys {
    pub(super) nonce: NonceKeys,
    pub(super) decoy: DecoyKeys,
    pub(super) outcome: OutcomeKeys,
    pub(super) challenge: Arc<ChallengeKeys>,
    accounts: BTreeMap<String, AccountKeys>,
}

/// Keys of one account.
pub struct AccountKeys {
    /// Seals its sessions.
    pub refresh: RefreshKeys,
    trusted: Signers,
    decoy: Signers,
    jwe: Option<Timeline<Secret>>,
    /// What backends verify with, as a JWK Set.
    public: Arc<[u8]>,
    /// By what check services know its sites.
    sites: BTreeMap<Provider, BTreeMap<String, SiteKeys>>,
}

struct SiteKeys {
    secret: Option<Timeline<Secret>>,
    sealed: Option<Timeline<Secret>>,
}

struct Signers {
    account: Timeline<Signer>,
    by_kid: BTreeMap<String, Signer>,
}

impl Keys {
    /// Reads the secrets wherever they are, and derives the keys.
    pub(super) fn new(config: &Config, outside: &dyn Outside) -> Read<Self> {
        let session_secret = resolve(config.session_secret()?, outside)?;
        let accounts = config.accounts.iter().map(|(site_key, account)| {
            AccountKeys::new(account, &session_secret, outside).map(|keys| (site_key.clone(), keys))
        });
        Ok(Self {
            nonce: NonceKeys::derive(&session_secret)?,
            decoy: DecoyKeys::derive(&session_secret)?,
            outcome: OutcomeKeys::derive(&session_secret)?,
            challenge: Arc::new(ChallengeKeys::derive(&session_secret)?),
            accounts: accounts.collect::<Read<_>>()?,
        })
    }

    /// The public keys of an account, as a JWK Set.
    pub(super) fn public(&self, site_key: &str) -> Option<Arc<[u8]>> {
        self.accounts.get(site_key).map(|keys| Arc::clone(&keys.public))
    }

    pub(super) fn account(&self, account: &Account) -> Result<&AccountKeys, CryptoError> {
        self.accounts.get(&account.site_key).ok_or(CryptoError)
    }
}

impl AccountKeys {
    fn new(account: &Account, session_secret: &Timeline<Secret>, outside: &dyn Outside) -> Read<Self> {
        let secret = resolve(&account.secret, outside)?;
        let keys = account.keys.iter().map(|(kid, key)| Ok((kid.clone(), key.resolve(outside)?)));
        let keys = keys.collect::<Read<BTreeMap<_, _>>>()?;
        let decoys =
            keys.iter().map(|(kid, key)| Ok((kid.clone(), Signer::Key(key.with_pair(key.pair().generate_similar()?)))));
        let kid = account.secret_kid.as_deref();
        let decoy = Signers {
            account: Signer::hs256(&Secret::from_bytes(random::<64>()?.to_vec()), kid).into(),
            by_kid: decoys.collect::<Result<_, CryptoError>>()?,
        };
        let public = keys.values().map(SigningKey::public_jwk).collect::<Result<Vec<_>, CryptoError>>()?;
        let trusted = Signers {
            account: secret.try_map(|secret| Ok::<_, CryptoError>(Signer::hs256(secret, kid)))?,
            by_kid: keys.into_iter().map(|(kid, key)| (kid, Signer::Key(key))).collect(),
        };
        let sites = account.checks.iter().map(|(provider, check)| {
            let resolve = |list: Option<&SecretList>| list.map(|list| resolve(list, outside)).transpose();
            let sites = check.sites.iter().map(|(key, site)| {
                let (secret, sealed) = (resolve(site.kind.secret())?, resolve(site.kind.sealed_key())?);
                Ok((key.clone(), SiteKeys { secret, sealed }))
            });
            Ok((*provider, sites.collect::<Read<_>>()?))
        });
        Ok(Self {
            refresh: RefreshKeys::derive(session_secret, &account.site_key)?,
            trusted,
            decoy,
            public: json!({ "keys": public }).to_string().into_bytes().into(),
            jwe: account.jwe_secret.as_ref().map(|secret| resolve(secret, outside)).transpose()?,
            sites: sites.collect::<Read<_>>()?,
        })
    }

    /// Who signs tokens of this API: the key that its backend trusts when the checks `passed`,
    /// otherwise one of the same kind that nobody knows.
    ///
    /// # Errors
    /// When the API names a key that the account does not have.
    pub fn signer(&self, api: &Api, passed: bool, now: UnixTime) -> Result<&Signer, CryptoError> {
        let signers = if passed { &self.trusted } else { &self.decoy };
        match &api.keyset_kid {
            None => Ok(signers.account.making(now)),
            Some(kid) => signers.by_kid.get(kid).ok_or(CryptoError),
        }
    }

    /// What tokens are encrypted with.
    ///
    /// # Errors
    /// When the account has nothing for it.
    pub fn jwe(&self, now: UnixTime) -> Result<&Secret, CryptoError> {
        self.jwe.as_ref().map(|secrets| secrets.making(now)).ok_or(CryptoError)
    }

    /// What only we and a check service know of a site.
    pub fn site_secrets(&self, provider: Provider, key: &str, now: UnixTime) -> SiteSecrets<'_> {
        let Some(keys) = self.sites.get(&provider).and_then(|sites| sites.get(key)) else {
            return SiteSecrets::default();
        };
        let secret = keys.secret.as_ref().map(|secrets| secrets.making(now).as_bytes()).unwrap_or_default();
        SiteSecrets {
            // They are read as text.
            secret: std::str::from_utf8(secret).unwrap_or_default(),
            sealed_keys: keys.sealed.iter().flat_map(|keys| keys.opening(now)).collect(),
        }
    }
}

fn resolve(list: &SecretList, outside: &dyn Outside) -> Read<Timeline<Secret>> {
    list.try_map(|kept| kept.resolve(outside))
}
