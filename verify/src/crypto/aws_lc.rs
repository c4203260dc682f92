//! AWS-LC.

use super::{NoRsaKey, P256_POINT_LENGTH, Provider, RSA_BITS};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use aws_lc_rs::{hkdf, hmac};

pub(super) struct AwsLc;

impl Provider for AwsLc {
    type Hmac = hmac::Key;
    type P256 = ParsedPublicKey;
    type Rsa = ParsedPublicKey;
    type Aes = LessSafeKey;

    fn sha256(data: &[u8]) -> [u8; 32] {
        bytes(&digest::digest(&digest::SHA256, data))
    }

    fn hmac(secret: &[u8]) -> Option<hmac::Key> {
        Some(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn derived_hmac(secret: &[u8], purpose: &[u8]) -> Option<hmac::Key> {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
        extracted.expand(&[purpose], hmac::HMAC_SHA256).ok().map(hmac::Key::from)
    }

    fn sign(key: &hmac::Key, message: &[u8]) -> [u8; 32] {
        bytes(&hmac::sign(key, message))
    }

    fn has_signed(key: &hmac::Key, message: &[u8], tag: &[u8]) -> bool {
        hmac::verify(key, message, tag).is_ok()
    }

    fn p256(point: &[u8; P256_POINT_LENGTH]) -> Option<ParsedPublicKey> {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()
    }

    fn p256_verifies(key: &ParsedPublicKey, message: &[u8], signature: &[u8]) -> bool {
        key.verify_sig(message, signature).is_ok()
    }

    fn p256_verifies_digest(key: &ParsedPublicKey, digest: &[u8; 32], signature: &[u8]) -> bool {
        Digest::import_less_safe(digest, &digest::SHA256)
            .and_then(|hash| key.verify_digest_sig(&hash, signature))
            .is_ok()
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<ParsedPublicKey> {
        let spki = PublicKeyComponents { n: modulus, e: exponent }.as_der().ok()?;
        Self::rsa_of_spki(spki.as_ref()).ok()
    }

    fn rsa_of_spki(der: &[u8]) -> Result<ParsedPublicKey, NoRsaKey> {
        let size = PublicEncryptingKey::from_der(der).map_err(|_| NoRsaKey::Other)?.key_size_bits();
        if !RSA_BITS.contains(&size) {
            return Err(NoRsaKey::Invalid);
        }
        ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).map_err(|_| NoRsaKey::Invalid)
    }

    fn rsa_verifies(key: &ParsedPublicKey, message: &[u8], signature: &[u8]) -> bool {
        key.verify_sig(message, signature).is_ok()
    }

    fn aes(key: &[u8; 32]) -> Option<LessSafeKey> {
        UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
    }

    fn open(key: &LessSafeKey, iv: &[u8; 12], aad: &[u8], mut text: Vec<u8>, tag: &[u8; 16]) -> Option<Vec<u8>> {
        let length = text.len();
        text.extend(tag);
        key.open_in_place(Nonce::assume_unique_for_key(*iv), Aad::from(aad), &mut text).ok()?;
        text.truncate(length);
        Some(text)
    }
}

/// The 32 bytes of a hash or tag.
fn bytes(hash: &impl AsRef<[u8]>) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hash.as_ref());
    out
}
