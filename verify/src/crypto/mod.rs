//! The cryptography, by one of two libraries. Nothing outside this room knows which.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
#[cfg(all(feature = "rustcrypto", any(test, not(feature = "aws-lc-rs"))))]
mod rust_crypto;

#[cfg(feature = "aws-lc-rs")]
use aws_lc::AwsLc as Chosen;
#[cfg(all(feature = "rustcrypto", not(feature = "aws-lc-rs")))]
use rust_crypto::RustCrypto as Chosen;

#[cfg(not(any(feature = "aws-lc-rs", feature = "rustcrypto")))]
compile_error!("approov-verify needs one of its features `aws-lc-rs` (the default) and `rustcrypto`");

/// What a library must do.
trait Provider {
    /// A key for HMAC with SHA-256.
    type Hmac: Clone;
    /// A public key for ECDSA with P-256 and SHA-256.
    type P256: Clone;
    /// A public key for RSASSA-PKCS1-v1_5 with SHA-256.
    type Rsa: Clone;
    /// A key for AES-256 in GCM.
    type Aes;

    fn sha256(data: &[u8]) -> [u8; 32];
    /// A key of any length. `None` when the library refuses.
    fn hmac(secret: &[u8]) -> Option<Self::Hmac>;
    /// A key by HKDF with SHA-256, without salt (RFC 5869). `None` when the library refuses.
    fn derived_hmac(secret: &[u8], purpose: &[u8]) -> Option<Self::Hmac>;
    fn sign(key: &Self::Hmac, message: &[u8]) -> [u8; 32];
    /// Whether the tag is the key's, compared in constant time.
    fn has_signed(key: &Self::Hmac, message: &[u8], tag: &[u8]) -> bool;
    /// A key from an uncompressed point (SEC 1 section 2.3.3). `None` when it is not on the curve.
    fn p256(point: &[u8; P256_POINT_LENGTH]) -> Option<Self::P256>;
    /// `signature`: 64 bytes, r then s.
    fn p256_verifies(key: &Self::P256, message: &[u8], signature: &[u8]) -> bool;
    fn p256_verifies_digest(key: &Self::P256, digest: &[u8; 32], signature: &[u8]) -> bool;
    /// A key from its modulus and its exponent, big-endian, without leading zeros. `None` unless the modulus has
    /// 2048 to 8192 bits and the library takes the exponent.
    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self::Rsa>;
    /// A key from a `SubjectPublicKeyInfo`.
    fn rsa_of_spki(der: &[u8]) -> Result<Self::Rsa, NoRsaKey>;
    fn rsa_verifies(key: &Self::Rsa, message: &[u8], signature: &[u8]) -> bool;
    fn aes(key: &[u8; 32]) -> Option<Self::Aes>;
    fn open(key: &Self::Aes, iv: &[u8; 12], aad: &[u8], ciphertext: Vec<u8>, tag: &[u8; 16]) -> Option<Vec<u8>>;
}

/// 4, then the coordinates.
pub(crate) const P256_POINT_LENGTH: usize = 1 + 2 * 32;

/// The sizes of RSA moduli that are accepted, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a `SubjectPublicKeyInfo` holds no RSA key that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRsaKey {
    /// It holds something else.
    Other,
    /// The key is not of an accepted size, or not one at all.
    Invalid,
}

pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    Chosen::sha256(data)
}

/// A key for HMAC with SHA-256.
#[derive(Clone)]
pub(crate) struct Hmac(Box<<Chosen as Provider>::Hmac>);

impl Hmac {
    /// A key of any length. `None` when the library refuses.
    pub(crate) fn new(secret: &[u8]) -> Option<Self> {
        Chosen::hmac(secret).map(|key| Self(Box::new(key)))
    }

    /// A key that is derived from a secret for one purpose (RFC 5869). `None` when the library refuses.
    pub(crate) fn derived(secret: &[u8], purpose: &[u8]) -> Option<Self> {
        Chosen::derived_hmac(secret, purpose).map(|key| Self(Box::new(key)))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 32] {
        Chosen::sign(&self.0, message)
    }

    pub(crate) fn has_signed(&self, message: &[u8], tag: &[u8]) -> bool {
        Chosen::has_signed(&self.0, message, tag)
    }
}

/// A public key for ECDSA with P-256 and SHA-256.
#[derive(Clone)]
pub(crate) struct P256(<Chosen as Provider>::P256);

impl P256 {
    pub(crate) fn new(point: &[u8; P256_POINT_LENGTH]) -> Option<Self> {
        Chosen::p256(point).map(Self)
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Chosen::p256_verifies(&self.0, message, signature)
    }

    pub(crate) fn verifies_digest(&self, digest: &[u8; 32], signature: &[u8]) -> bool {
        Chosen::p256_verifies_digest(&self.0, digest, signature)
    }
}

/// A public key for RSASSA-PKCS1-v1_5 with SHA-256.
#[derive(Clone)]
pub(crate) struct Rsa(<Chosen as Provider>::Rsa);

impl Rsa {
    pub(crate) fn new(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        Chosen::rsa(modulus, exponent).map(Self)
    }

    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, NoRsaKey> {
        Chosen::rsa_of_spki(der).map(Self)
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Chosen::rsa_verifies(&self.0, message, signature)
    }
}

/// A key for AES-256 in GCM.
pub(crate) struct Aes(<Chosen as Provider>::Aes);

impl Aes {
    pub(crate) fn new(key: &[u8; 32]) -> Option<Self> {
        Chosen::aes(key).map(Self)
    }

    /// The content, when the tag fits.
    pub(crate) fn open(&self, iv: &[u8; 12], aad: &[u8], ciphertext: Vec<u8>, tag: &[u8; 16]) -> Option<Vec<u8>> {
        Chosen::open(&self.0, iv, aad, ciphertext, tag)
    }
}

#[cfg(test)]
mod tests;
