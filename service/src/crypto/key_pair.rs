//! Key pairs for signatures: made, read, used. Signing draws its own random numbers: the module takes no others.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use zeroize::Zeroizing;

use super::CryptoError;

/// An asymmetric signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlg {
    /// RSASSA-PKCS1-v1_5 over SHA-256.
    Rs256,
    /// ECDSA on P-256 over SHA-256.
    Es256,
}

impl KeyAlg {
    /// Reads the JOSE name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(KeyAlg::Rs256),
            "ES256" => Some(KeyAlg::Es256),
            _ => None,
        }
    }

    /// The JOSE name.
    pub fn name(self) -> &'static str {
        match self {
            KeyAlg::Rs256 => "RS256",
            KeyAlg::Es256 => "ES256",
        }
    }
}

/// What a public key consists of, numbers in big-endian order.
pub enum PublicParts<'a> {
    /// The coordinates of a point.
    P256 {
        /// 32 bytes.
        x: &'a [u8],
        /// 32 bytes.
        y: &'a [u8],
    },
    /// Modulus and exponent, without leading zeros.
    Rsa {
        /// The modulus.
        n: &'a [u8],
        /// The exponent.
        e: &'a [u8],
    },
}

/// A private key with its public half.
pub struct KeyPair(Pair);

enum Pair {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

impl KeyPair {
    /// Makes a key pair; RSA with 2048 bits.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn generate(alg: KeyAlg) -> Result<Self, CryptoError> {
        match alg {
            KeyAlg::Es256 => Self::generate_es256(),
            KeyAlg::Rs256 => Self::generate_rs256(rsa::KeySize::Rsa2048),
        }
    }

    /// Makes another key pair of this one's kind and size.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn generate_similar(&self) -> Result<Self, CryptoError> {
        match &self.0 {
            Pair::Es256(_) => Self::generate_es256(),
            Pair::Rs256(pair) => Self::generate_rs256(match pair.public_modulus_len() {
                0..=256 => rsa::KeySize::Rsa2048,
                257..=384 => rsa::KeySize::Rsa3072,
                _ => rsa::KeySize::Rsa4096,
            }),
        }
    }

    fn generate_es256() -> Result<Self, CryptoError> {
        Ok(Self(Pair::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?)))
    }

    fn generate_rs256(size: rsa::KeySize) -> Result<Self, CryptoError> {
        Ok(Self(Pair::Rs256(RsaKeyPair::generate(size)?)))
    }

    /// Reads a PKCS#8 private key.
    ///
    /// # Errors
    /// The message says what kind of key was expected.
    pub fn from_pkcs8(alg: KeyAlg, der: &[u8]) -> Result<Self, &'static str> {
        match alg {
            KeyAlg::Es256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
                .map(|pair| Self(Pair::Es256(pair)))
                .map_err(|_| "private_key must be a P-256 key for ES256"),
            KeyAlg::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| "private_key must be an RSA key for RS256")?;
                if pair.public_modulus_len() < 256 {
                    return Err("an RSA key must have at least 2048 bits (RFC 7518 section 3.3)");
                }
                Ok(Self(Pair::Rs256(pair)))
            }
        }
    }

    /// The algorithm.
    pub fn alg(&self) -> KeyAlg {
        match &self.0 {
            Pair::Es256(_) => KeyAlg::Es256,
            Pair::Rs256(_) => KeyAlg::Rs256,
        }
    }

    /// The length of its signatures, bytes.
    pub fn signature_length(&self) -> usize {
        match &self.0 {
            Pair::Es256(_) => 64,
            Pair::Rs256(pair) => pair.public_modulus_len(),
        }
    }

    /// The private key as PKCS#8.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        Ok(Zeroizing::new(match &self.0 {
            Pair::Es256(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
            Pair::Rs256(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair)?.as_ref().to_vec(),
        }))
    }

    /// What the public key consists of.
    ///
    /// # Errors
    /// When it is not encoded as expected.
    pub fn public_parts(&self) -> Result<PublicParts<'_>, CryptoError> {
        match &self.0 {
            // An uncompressed point (SEC 1 section 2.3.3): 4, x, y.
            Pair::Es256(pair) => match pair.public_key().as_ref().split_first() {
                Some((4, point)) if point.len() == 64 => {
                    let (x, y) = point.split_at(32);
                    Ok(PublicParts::P256 { x, y })
                }
                _ => Err(CryptoError),
            },
            Pair::Rs256(pair) => {
                let key = pair.public_key();
                Ok(PublicParts::Rsa {
                    n: key.modulus().big_endian_without_leading_zero(),
                    e: key.exponent().big_endian_without_leading_zero(),
                })
            }
        }
    }

    /// The public key as SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn public_der(&self) -> Result<Vec<u8>, CryptoError> {
        Ok(match &self.0 {
            Pair::Es256(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())?.as_ref().to_vec(),
            Pair::Rs256(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())?.as_ref().to_vec(),
        })
    }

    /// Signs a message.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let rng = SystemRandom::new();
        match &self.0 {
            Pair::Es256(pair) => Ok(pair.sign(&rng, message)?.as_ref().to_vec()),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}
