//! One whole verification, and the signature checks that are its floor: `cargo bench -p approov-verify`.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]

#[path = "../tests/support/mod.rs"]
mod support;

use approov_verify::jwk::P256PublicKey;
use approov_verify::jws::{HmacKey, Jws, VerificationKey};
use approov_verify::replay::{MemoryReplayStore, ReplayCheck, ReplayEntry, ReplayKey, ReplayStore, StoreError};
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use approov_verify::{Body, Request, Verifier};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use serde_json::json;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use support::{SECRET, Session, ath, base64url, secret_base64, sha256, token};

/// Lets the same proof pass again and again; the memory store is measured by itself.
struct Forgetful;

impl ReplayStore for Forgetful {
    async fn remember(&self, _: ReplayEntry, _: UnixTime) -> Result<ReplayCheck, StoreError> {
        Ok(ReplayCheck::New)
    }
}

fn benchmarks(criterion: &mut Criterion) {
    const URL: &str = "https://api.example.com/shapes";
    let now = UnixTime::from_secs(1_800_000_000);
    let session = Session::new();
    let body = br#"{"shape":"circle"}"#;
    let token = token(&json!({
        "exp": now.as_secs() + 120, "ip": "192.0.2.1", "arc": "EAM2W37PSU",
        "embed": {"hcap:key": {"challenge_ts": "2027-01-15T08:00:00Z", "hostname": "app.example.com"}},
        "cnf": {"jkt": session.thumbprint()},
    }));
    let proof = session.proof(&json!({
        "jti": "f1E0yWZpTzmR3sCMY7Yk6w", "htm": "POST", "htu": URL, "iat": now.as_secs(), "ath": ath(&token),
        "msgs": base64url(&sha256(body)),
    }));
    let mut headers = HeaderMap::new();
    headers.insert("approov-token", token.parse().unwrap());
    headers.insert("dpop", proof.parse().unwrap());
    let request = Request { method: "POST", url: URL, headers: &headers, body: Body::Bytes(body), binding: None };
    let verifier = Verifier::builder().secret_base64(&secret_base64()).replay_store(Forgetful).build().unwrap();

    criterion.bench_function("whole verification: token, proof, body", |bencher| {
        bencher.iter(|| {
            let verification = pin!(verifier.verify(black_box(&request), now));
            match verification.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(verdict) => verdict.unwrap(),
                Poll::Pending => unreachable!("the store does not wait"),
            }
        });
    });

    let jwk = session.jwk();
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (signed, signature) = proof.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    criterion.bench_function("bare ES256: signature of the proof", |bencher| {
        bencher.iter(|| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, black_box(&point));
            key.verify(signed.as_bytes(), &signature).unwrap();
        });
    });
    let key = P256PublicKey::from_jwk(jwk.as_object().unwrap()).unwrap();
    criterion.bench_function("bare ES256 with a key read before", |bencher| {
        bencher.iter(|| assert!(key.verifies(black_box(signed.as_bytes()), &signature)));
    });
    let secret = HmacKey::new(&Secret::from_bytes(SECRET.to_vec())).unwrap();
    let secret = VerificationKey::Hs256(secret);
    criterion.bench_function("bare HS256: token read and verified", |bencher| {
        bencher.iter(|| Jws::parse(black_box(&token)).unwrap().verify(&secret).unwrap().len());
    });
    let store = MemoryReplayStore::default();
    let mut count: i64 = 0;
    criterion.bench_function("memory store: one key among 60,000 that expire", |bencher| {
        bencher.iter(|| {
            count += 1;
            // A thousand requests a second, remembered for a minute.
            let now = UnixTime::from_millis(count);
            let holder = *key.thumbprint();
            let key = ReplayKey::new("jti", &holder, &count.to_be_bytes());
            store.remember_now(ReplayEntry { holder, key, until: UnixTime::from_millis(count + 60_000) }, now).unwrap()
        });
    });
}

criterion_group!(group, benchmarks);
criterion_main!(group);
