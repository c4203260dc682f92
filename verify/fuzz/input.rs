//! What the fuzz target does with an input, and `tests/corpus.rs` with each input of the corpus.
//!
//! An input is text: method, URL, token, proof and body, each on a line; the body is the rest. A token or a proof
//! that begins with `{` stands for its claims and gets a good header and signature here, so that the fuzzer gets
//! past the signatures; in it `$jkt` stands for the thumbprint of the proof's key, `$ath` for the hash of the token,
//! `$msgs` for the hash of the body.

use approov_verify::replay::MemoryReplayStore;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use approov_verify::uri::HttpUri;
use approov_verify::{Body, Error, Request, Verified, Verifier};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const SECRET: [u8; 32] = [7; 32];
const NOW: i64 = 1_800_000_000;
/// The proof's key: a test key, with nothing to protect.
const JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"p9jcyKMVWzb9aWV0WEBwu170b_dTZDvdWi1G7PcTI_c","y":"rUbT9VKUwbzT04SkFotWbhNnNQfq9EADfDmP7y2ACHs"}"#;
const PRIVATE: &str = "GFwYjEgNdgOhQKIC-vtAP0CLjNtuiMyU4TU5GPicalA";

/// Checks a request and the promises that hold for all requests. The verdict is for the corpus test.
pub fn check(text: &str) -> Option<Result<Verified, Error>> {
    let mut lines = text.splitn(5, '\n');
    let (method, url, token, proof) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let body = lines.next().unwrap_or_default().as_bytes();
    let token = token_from(token);
    let proof = proof_from(proof, &token, body);

    let mut headers = HeaderMap::new();
    headers.insert("approov-token", HeaderValue::from_str(&token).ok()?);
    if !proof.is_empty() {
        headers.insert("dpop", HeaderValue::from_str(&proof).ok()?);
    }
    let request = Request { method, url, headers: &headers, body: Body::Bytes(body), binding: None };
    let verifier = Verifier::builder()
        .secret(&Secret::from_bytes(SECRET.to_vec()))
        .replay_store(MemoryReplayStore::with_capacity(16))
        .build()
        .expect("the configuration is good");
    let now = UnixTime::from_secs(NOW);

    let verdict = ready(verifier.verify(&request, now));
    if let Ok(verified) = &verdict {
        let expiry = verified.claims.all["exp"].as_f64().expect("an accepted token has exp");
        assert!(expiry > (NOW - 6) as f64, "an expired token was accepted");
        assert_eq!(verified.proof.is_some(), !proof.is_empty(), "a proof was not looked at");
        assert!(verified.proof.is_some() || verified.claims.cnf.is_none(), "a bound token was accepted without proof");
        if let Some(claims) = &verified.proof {
            assert_eq!(claims.htm, method);
            let urls = (HttpUri::parse(&claims.htu), HttpUri::of_request(url));
            assert!(urls.0.is_ok() && urls.0 == urls.1, "a proof for another URL was accepted");
            let query = url.split('#').next().and_then(|url| url.split_once('?')).map_or("", |(_, query)| query);
            let covered = claims.htq.as_ref().is_none_or(|htq| *htq == sha256(query.as_bytes()));
            assert!(covered, "a proof for another query was accepted");
            assert!((claims.iat - NOW as f64).abs() < 61.0, "a stale proof was accepted");
            let again = ready(verifier.verify(&request, now)).expect_err("a replay was accepted");
            assert!(matches!(again, Error::Replayed), "{again}");
        }
    } else if !proof.is_empty() {
        let again = ready(verifier.verify(&request, now));
        assert!(again.is_err(), "a request was refused, then accepted");
    }
    Some(verdict)
}

fn token_from(line: &str) -> String {
    if !line.starts_with('{') {
        return line.to_owned();
    }
    let thumbprint = sha256(thumbprint_input().as_bytes());
    let input = signing_input(r#"{"typ":"JWT","alg":"HS256"}"#, &line.replace("$jkt", &thumbprint));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn proof_from(line: &str, token: &str, body: &[u8]) -> String {
    if !line.starts_with('{') {
        return line.to_owned();
    }
    let claims = line.replace("$ath", &sha256(token.as_bytes())).replace("$msgs", &sha256(body));
    let input = signing_input(&format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{JWK}}}"#), &claims);
    let jwk: serde_json::Value = serde_json::from_str(JWK).expect("the key is JSON");
    let [x, y] =
        ["x", "y"].map(|name| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap_or_default()).unwrap_or_default());
    let private = URL_SAFE_NO_PAD.decode(PRIVATE).expect("the key is base64url");
    let public = [vec![4], x, y].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &private, &public);
    let signature = pair.expect("the key is good").sign(&SystemRandom::new(), input.as_bytes()).expect("signing works");
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// RFC 7638 section 3.2: the members in their order.
fn thumbprint_input() -> String {
    let jwk: serde_json::Value = serde_json::from_str(JWK).expect("the key is JSON");
    format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"])
}

fn signing_input(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

fn sha256(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, data))
}

/// The result of a future that never waits, as with the memory store.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the memory store waits"),
    }
}
