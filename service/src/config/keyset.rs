//! The signing keys of an account, as the file has them.

use approov_verify::secret::Secret;

use crate::crypto::KeyAlg;
use crate::secrets::{KeptSecret, Outside};
use crate::settings::Read;
use crate::token::SigningKey;

/// A signing key whose private half is in the file or in a place that only the running service reads.
#[derive(Clone, Debug)]
pub struct KeptKey {
    /// Its name in the keyset.
    pub kid: String,
    /// Its algorithm.
    pub alg: KeyAlg,
    /// The key that it is to take over from. Until then it is published and signs nothing.
    pub replaces: Option<String>,
    private_key: KeptSecret,
}

impl KeptKey {
    /// A key of the file. One that the file holds itself is read at once, so that its faults are known at once.
    ///
    /// # Errors
    /// When it is no such key.
    pub(super) fn new(kid: String, alg: KeyAlg, private_key: KeptSecret) -> Read<Self> {
        let key = Self { kid, alg, replaces: None, private_key };
        if let Some(pem) = key.private_key.held_here() {
            key.read(pem)?;
        }
        Ok(key)
    }

    /// The key, wherever its private half is.
    ///
    /// # Errors
    /// When its place cannot be read, or holds no such key.
    pub fn resolve(&self, outside: &dyn Outside) -> Read<SigningKey> {
        self.read(&self.private_key.resolve(outside)?)
    }

    /// Where the private half is, as the file has it.
    pub(super) fn private_key(&self) -> &KeptSecret {
        &self.private_key
    }

    fn read(&self, pem: &Secret) -> Read<SigningKey> {
        let pem = std::str::from_utf8(pem.as_bytes()).unwrap_or_default();
        SigningKey::from_pem(self.alg, &self.kid, pem).map_err(|message| match self.private_key.place() {
            None => self.private_key.error(message),
            Some(place) => self.private_key.error(format!("{place}: {message}")),
        })
    }
}
