//! The crate as a program for `run.sh`: `cargo run -q -p approov-verify --example conformance`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's program fails by panicking")]

#[allow(dead_code, reason = "the runner compares the verdicts")]
mod kit;

use approov_verify::keyset::KeySet;
use approov_verify::time::UnixTime;
use kit::Case;
use serde::Deserialize;

#[derive(Deserialize)]
struct Given {
    now: i64,
    secret: String,
    jwe_secret: String,
    jwks: serde_json::Value,
    case: Case,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for line in std::io::stdin().lines() {
        let Given { now, secret, jwe_secret, jwks, case } = serde_json::from_str(&line.unwrap()).unwrap();
        let now = UnixTime::from_secs(now);
        let verifier = case.config.verifier(&secret, &jwe_secret, &KeySet::from_jwks(&jwks.to_string()).unwrap());
        for request in &case.earlier {
            drop(request.check(&verifier, now).await);
        }
        match case.request.check(&verifier, now).await {
            Ok(_) => println!("ok"),
            Err(error) => println!("{}", error.code()),
        }
    }
}
