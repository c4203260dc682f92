//! The RustCrypto crates.

use super::{NoRsaKey, P256_POINT_LENGTH, Provider, RSA_BITS};
use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use rsa::BoxedUint;
use rsa::pkcs1v15;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use sha2::{Digest as _, Sha256};

pub(super) struct RustCrypto;

impl Provider for RustCrypto {
    type Hmac = Hmac<Sha256>;
    type P256 = VerifyingKey;
    type Rsa = pkcs1v15::VerifyingKey<Sha256>;
    type Aes = Aes256Gcm;

    fn sha256(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    fn hmac(secret: &[u8]) -> Option<Hmac<Sha256>> {
        Hmac::new_from_slice(secret).ok()
    }

    fn derived_hmac(secret: &[u8], purpose: &[u8]) -> Option<Hmac<Sha256>> {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(None, secret).expand(purpose, &mut key).ok()?;
        Self::hmac(&key)
    }

    fn sign(key: &Hmac<Sha256>, message: &[u8]) -> [u8; 32] {
        key.clone().chain_update(message).finalize().into_bytes().into()
    }

    fn has_signed(key: &Hmac<Sha256>, message: &[u8], tag: &[u8]) -> bool {
        key.clone().chain_update(message).verify_slice(tag).is_ok()
    }

    fn p256(point: &[u8; P256_POINT_LENGTH]) -> Option<VerifyingKey> {
        VerifyingKey::from_sec1_bytes(point).ok()
    }

    fn p256_verifies(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
    }

    fn p256_verifies_digest(key: &VerifyingKey, digest: &[u8; 32], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self::Rsa> {
        let number = |bytes: &[u8]| BoxedUint::from_be_slice_vartime(bytes);
        let key = rsa::PublicKey::new_with_size_limits(number(modulus), number(exponent), RSA_BITS).ok()?;
        Some(pkcs1v15::VerifyingKey::new(key))
    }

    fn rsa_of_spki(der: &[u8]) -> Result<Self::Rsa, NoRsaKey> {
        let key = rsa::PublicKey::from_public_key_der(der).map_err(|_| NoRsaKey::Other)?;
        let size = usize::try_from(key.n().bit_width_vartime()).map_err(|_| NoRsaKey::Invalid)?;
        if RSA_BITS.contains(&size) { Ok(pkcs1v15::VerifyingKey::new(key)) } else { Err(NoRsaKey::Invalid) }
    }

    fn rsa_verifies(key: &Self::Rsa, message: &[u8], signature: &[u8]) -> bool {
        pkcs1v15::Signature::try_from(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
    }

    fn aes(key: &[u8; 32]) -> Option<Aes256Gcm> {
        Some(Aes256Gcm::new(key.into()))
    }

    fn open(key: &Aes256Gcm, iv: &[u8; 12], aad: &[u8], mut text: Vec<u8>, tag: &[u8; 16]) -> Option<Vec<u8>> {
        key.decrypt_inout_detached(iv.into(), aad, text.as_mut_slice().into(), tag.into()).ok()?;
        Some(text)
    }
}
