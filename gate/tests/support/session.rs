//! A session: a key, a token bound to it, and proofs. Nothing of it is the verifier's code.

#![allow(dead_code, reason = "each test uses a part of it")]

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

pub(crate) const SECRET: &str =
    "dHSXAat7/8LkThtjjLFTRMxcPQBNfyl2kknDxu+MmK3m+wF+NUXLVOP5NYaif3Bm8pBscfEf7/3edGzeL5wCYw==";

pub(crate) struct Session {
    key: EcdsaKeyPair,
    jwk: Value,
    token: String,
}

static PROOFS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

pub(crate) fn hash(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, data))
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Session {
    pub(crate) fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        let jwk = json!({"crv": "P-256", "kty": "EC", "x": x, "y": y});
        let mut session = Self { key, jwk, token: String::new() };
        session.token = session.token_with(&[]);
        session
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A token that this key signs: it is an account's here.
    pub(crate) fn issue(&self, claims: &Value) -> String {
        let input = format!("{}.{}", encoded(&json!({"typ": "JWT", "alg": "ES256", "kid": "es-1"})), encoded(claims));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The public key as an uncompressed point.
    pub(crate) fn point(&self) -> Vec<u8> {
        self.key.public_key().as_ref().to_vec()
    }

    /// The public key as a keyset has it.
    pub(crate) fn jwks(&self) -> Value {
        let mut key = self.jwk.clone();
        (key["kid"], key["alg"], key["use"]) = ("es-1".into(), "ES256".into(), "sig".into());
        json!({"keys": [key]})
    }

    /// The public key as SubjectPublicKeyInfo, PEM (RFC 5480).
    pub(crate) fn pem(&self) -> String {
        let algorithm = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let text = STANDARD.encode([&algorithm[..], self.key.public_key().as_ref()].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &text[..64], &text[64..])
    }

    pub(crate) fn thumbprint(&self) -> String {
        hash(format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, self.jwk["x"], self.jwk["y"]).as_bytes())
    }

    /// A web token with other claims.
    pub(crate) fn token_with(&self, claims: &[(&str, Value)]) -> String {
        let mut all = json!({
            "exp": now() + 300, "ip": "192.0.2.1", "embed": {"hcap:site": {}}, "cnf": {"jkt": self.thumbprint()},
        });
        for (name, value) in claims {
            all[name] = value.clone();
        }
        token_of(&all)
    }

    pub(crate) fn proof_claims(&self, method: &str, url: &str) -> Map<String, Value> {
        let jti = format!("jti-{}", PROOFS.fetch_add(1, Ordering::Relaxed));
        let (htu, query) = url.split_once('?').unwrap_or((url, ""));
        let mut claims =
            json!({"jti": jti, "htm": method, "htu": htu, "iat": now(), "ath": hash(self.token.as_bytes())});
        if !query.is_empty() {
            claims["htq"] = hash(query.as_bytes()).into();
        }
        claims.as_object().unwrap().clone()
    }

    pub(crate) fn sign(&self, claims: &Map<String, Value>) -> String {
        let header = encoded(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk}));
        let input = format!("{header}.{}", encoded(&Value::Object(claims.clone())));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(crate) fn proof(&self, method: &str, url: &str) -> String {
        self.sign(&self.proof_claims(method, url))
    }

    pub(crate) fn proof_of_body(&self, method: &str, url: &str, body: &[u8]) -> String {
        let mut claims = self.proof_claims(method, url);
        claims.insert("msgs".to_owned(), hash(body).into());
        self.sign(&claims)
    }
}

/// A token with these claims and no others.
pub(crate) fn token_of(claims: &Value) -> String {
    let input = format!("{}.{}", encoded(&json!({"typ": "JWT", "alg": "HS256"})), encoded(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET).unwrap());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, input.as_bytes())))
}
