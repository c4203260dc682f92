//! Makes tokens and proofs for tests, as the service and the web SDK make them.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The account's secret in these tests, 64 bytes.
pub(crate) const SECRET: [u8; 64] = [0x5a; 64];

pub(crate) fn secret_base64() -> String {
    STANDARD.encode(SECRET)
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn sha256(data: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, data).as_ref().to_vec()
}

/// A browser session: a key and what can be made with it.
pub(crate) struct Session {
    pair: EcdsaKeyPair,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "x": base64url(&point[1..33]), "y": base64url(&point[33..])})
    }

    pub(crate) fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        base64url(&sha256(text.as_bytes()))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub(crate) fn proof(&self, claims: &Value) -> String {
        let input = signing_input(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()}), claims);
        format!("{input}.{}", base64url(&self.sign(input.as_bytes())))
    }
}

/// A token of the account.
pub(crate) fn token(claims: &Value) -> String {
    let input = signing_input(&json!({"typ": "JWT", "alg": "HS256"}), claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), input.as_bytes());
    format!("{input}.{}", base64url(tag.as_ref()))
}

pub(crate) fn ath(token: &str) -> String {
    base64url(&sha256(token.as_bytes()))
}

/// `pay` for some data.
pub(crate) fn pay(data: &[u8]) -> String {
    STANDARD.encode(sha256(data))
}

fn signing_input(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()))
}
