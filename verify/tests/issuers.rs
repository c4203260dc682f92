//! Who may have made a token, for whom, bound to what; and what is let pass while a policy is only watched.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use approov_verify::layer::{ApproovLayer, WouldFail};
use approov_verify::time::UnixTime;
use approov_verify::{Body, ConfigError, ProofPolicy, PublicUrl, Request, Verified, Verifier, VerifierBuilder};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::body::Body as AxumBody;
use axum::routing::post;
use axum::{Extension, Router};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use support::{Session, ath, base64url, pay, secret_base64, token};
use tower::ServiceExt as _;

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> UnixTime {
    UnixTime::from_secs(NOW + seconds)
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
}

async fn verdict_at(verifier: &Verifier, fields: &[(&str, &str)], now: UnixTime) -> Result<Verified, &'static str> {
    let headers = headers(fields);
    let url = "https://api.example.com/order";
    let request = Request { method: "POST", url, headers: &headers, body: Body::Bytes(b"two"), binding: None };
    verifier.verify(&request, now).await.map_err(|error| error.code())
}

async fn verdict(builder: VerifierBuilder, fields: &[(&str, &str)]) -> Result<Verified, &'static str> {
    verdict_at(&builder.build().unwrap(), fields, at(0)).await
}

fn by_secret() -> VerifierBuilder {
    Verifier::builder().secret_base64(&secret_base64())
}

#[tokio::test]
async fn issuer_and_audience_are_compared_when_they_are_configured() {
    for (claims, issuer, audience) in [
        (json!({}), Err("token_issuer"), Err("token_audience")),
        (json!({"iss": "https://a/site", "aud": "api"}), Ok(()), Ok(())),
        (json!({"iss": "https://a/other", "aud": "api2"}), Err("token_issuer"), Err("token_audience")),
        (json!({"iss": "https://a/site", "aud": ["x", "api"]}), Ok(()), Ok(())),
        (json!({"iss": ["https://a/site"], "aud": ["x", "API"]}), Err("token_issuer"), Err("token_audience")),
        (json!({"iss": 1, "aud": {"api": 1}}), Err("token_issuer"), Err("token_audience")),
    ] {
        let mut all = claims.clone();
        all["exp"] = json!(NOW + 60);
        let token = token(&all);
        let fields = [("Approov-Token", token.as_str())];
        assert!(verdict(by_secret(), &fields).await.is_ok(), "{claims}");
        assert_eq!(verdict(by_secret().issuer("https://a/site"), &fields).await.map(drop), issuer, "{claims}");
        assert_eq!(verdict(by_secret().audience("api"), &fields).await.map(drop), audience, "{claims}");
    }
}

#[tokio::test]
async fn a_debug_token_is_refused_unless_allowed_and_named_among_the_results() {
    let embed = json!({"debug:ci": {}, "turnstile:k": {"hostname": "a"}, "friendly:k": {}, "altcha:k": {}});
    let token = token(&json!({"exp": NOW + 60, "embed": embed}));
    let fields = [("Approov-Token", token.as_str())];
    assert_eq!(verdict(by_secret(), &fields).await, Err("token_debug"));
    let embed = verdict(by_secret().allow_debug_tokens(), &fields).await.unwrap().claims.embed;
    assert!(embed.debug.contains("ci"));
    assert_eq!(embed.turnstile.get("k").unwrap().hostname.as_deref(), Some("a"));
    assert_eq!((embed.friendly_captcha.len(), embed.altcha.len()), (1, 1));
}

#[tokio::test]
async fn a_token_that_must_be_bound_to_a_header_is_refused_without_that_header() {
    let bound = token(&json!({"exp": NOW + 60, "pay": pay(b"Bearer alice")}));
    let loose = token(&json!({"exp": NOW + 60}));
    let builder = || by_secret().bound_to_header(http::header::AUTHORIZATION);
    for (token, authorization, expected) in [
        (&bound, &["Bearer alice"][..], Ok(())),
        (&bound, &[], Err("binding_data_missing")),
        (&bound, &["Bearer bob"], Err("binding_mismatch")),
        (&bound, &["Bearer alice", "Bearer alice"], Err("binding_data_missing")),
        (&loose, &["Bearer alice"], Err("binding_missing")),
    ] {
        let verifier = builder().build().unwrap();
        let mut headers = headers(&[("Approov-Token", token)]);
        for value in authorization {
            headers.append("authorization", HeaderValue::from_static(value));
        }
        let url = "https://api.example.com/order";
        let request = Request { method: "GET", url, headers: &headers, body: Body::Unread, binding: None };
        let verdict = verifier.verify(&request, at(0)).await.map(drop).map_err(|error| error.code());
        assert_eq!(verdict, expected, "{authorization:?}");
    }
}

/// An issuer with keys that change.
#[derive(Clone, Default)]
struct Issuer {
    published: Arc<Mutex<Option<String>>>,
    requests: Arc<AtomicUsize>,
}

impl Issuer {
    fn publish(&self, keys: &[&Key]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        *self.published.lock().unwrap() = Some(json!({"keys": keys}).to_string());
    }

    fn verifier(&self) -> Verifier {
        let issuer = self.clone();
        let builder = Verifier::builder().jwks("https://service.example/site/jwks.json", move |url| {
            assert_eq!(url, "https://service.example/site/jwks.json");
            issuer.requests.fetch_add(1, Ordering::Relaxed);
            let text = issuer.published.lock().unwrap().clone();
            async move {
                // Others come by while this waits.
                tokio::task::yield_now().await;
                text.ok_or_else(|| "unavailable".to_owned())
            }
        });
        builder.build().unwrap()
    }
}

struct Key {
    kid: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(kid: &'static str) -> Self {
        Self { kid, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref().split_at(1).1.split_at(32);
        json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "alg": "ES256", "x": base64url(x), "y": base64url(y)})
    }

    fn token(&self) -> String {
        let part = |value: Value| base64url(value.to_string().as_bytes());
        let header = json!({"alg": "ES256", "kid": self.kid, "jku": "https://evil.example/jwks.json"});
        let input = format!("{}.{}", part(header), part(json!({"exp": NOW + 1_000_000})));
        format!("{input}.{}", base64url(self.pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap().as_ref()))
    }
}

#[tokio::test]
async fn keys_at_a_url_are_fetched_once_and_again_for_an_unknown_kid_at_most_once_a_minute() {
    let (issuer, old, new) = (Issuer::default(), Key::new("old"), Key::new("new"));
    issuer.publish(&[&old]);
    let verifier = issuer.verifier();
    let check = async |key: &Key, second| {
        let verdict = verdict_at(&verifier, &[("Approov-Token", &key.token())], at(second)).await.map(drop);
        (verdict, issuer.requests.load(Ordering::Relaxed))
    };
    assert_eq!(check(&old, 0).await, (Ok(()), 1));
    assert_eq!(check(&old, 1).await, (Ok(()), 1));
    assert_eq!(check(&new, 1).await, (Err("token_unknown_key"), 1));
    issuer.publish(&[&old, &new]);
    assert_eq!(check(&new, 60).await, (Ok(()), 2));
    // A flood of made up names costs one request a minute.
    for _ in 0..20 {
        assert_eq!(check(&Key::new("made up"), 61).await, (Err("token_unknown_key"), 2));
    }
    assert_eq!(check(&Key::new("made up"), 120).await, (Err("token_unknown_key"), 3));
    // A retired key is refused when the keys are fetched for their age.
    issuer.publish(&[&new]);
    assert_eq!(check(&old, 419).await, (Ok(()), 3));
    assert_eq!(check(&old, 420).await, (Err("token_unknown_key"), 4));
}

#[tokio::test]
async fn without_its_issuer_a_verifier_goes_on_for_a_day_and_then_says_that_it_is_its_own_fault() {
    let (issuer, key) = (Issuer::default(), Key::new("a"));
    let verifier = issuer.verifier();
    let token = key.token();
    let fields = [("Approov-Token", token.as_str())];
    assert_eq!(verdict_at(&verifier, &fields, at(0)).await, Err("keys_unavailable"));
    issuer.publish(&[&key]);
    assert_eq!(verdict_at(&verifier, &fields, at(9)).await, Err("keys_unavailable"));
    assert!(verdict_at(&verifier, &fields, at(10)).await.is_ok());
    *issuer.published.lock().unwrap() = None;
    assert!(verdict_at(&verifier, &fields, at(86_400)).await.is_ok());
    assert_eq!(verdict_at(&verifier, &fields, at(86_500)).await, Err("keys_unavailable"));
    let headers = headers(&fields);
    let url = "https://api.example.com/order";
    let request = Request { method: "POST", url, headers: &headers, body: Body::Unread, binding: None };
    let error = verifier.verify(&request, at(86_501)).await.unwrap_err();
    assert_eq!((error.status(), error.challenge()), (503, None));
}

#[tokio::test]
async fn requests_that_come_while_the_first_keys_are_fetched_wait_for_them() {
    let (issuer, key) = (Issuer::default(), Key::new("a"));
    issuer.publish(&[&key]);
    let verifier = Arc::new(issuer.verifier());
    let token = key.token();
    let checks = (0..10).map(|_| {
        let (verifier, token) = (Arc::clone(&verifier), token.clone());
        tokio::spawn(async move { verdict_at(&verifier, &[("Approov-Token", &token)], at(0)).await.map(drop) })
    });
    for check in checks.collect::<Vec<_>>() {
        assert_eq!(check.await.unwrap(), Ok(()));
    }
    assert_eq!(issuer.requests.load(Ordering::Relaxed), 1);
}

#[test]
fn keys_are_not_taken_from_a_url_that_anybody_on_the_way_could_change() {
    let built = Verifier::builder().remote_keys("http://service.example/jwks.json").build();
    assert_eq!(built.unwrap_err(), ConfigError::JwksUrl);
}

fn proof(session: &Session, token: &str, htm: &str, jti: &str) -> String {
    let htu = "https://api.example.com/order";
    session.proof(&json!({"jti": jti, "htm": htm, "htu": htu, "iat": NOW, "ath": ath(token)}))
}

#[tokio::test]
async fn while_proofs_are_monitored_a_bad_one_passes_and_is_reported_and_a_bad_token_does_not_pass() {
    let session = Session::new();
    let bound = token(&json!({"exp": NOW + 60, "cnf": {"jkt": session.thumbprint()}}));
    let verifier = by_secret().proof(ProofPolicy::Required).monitor_proofs().build().unwrap();
    let good = proof(&session, &bound, "POST", "1");
    let other = proof(&session, &bound, "GET", "2");
    for (proof, would_fail) in [
        (Some(&good), None),
        (Some(&good), Some("proof_replayed")),
        (Some(&other), Some("proof_method")),
        (None, Some("proof_missing")),
    ] {
        let mut fields = vec![("Approov-Token", bound.as_str())];
        fields.extend(proof.map(|proof| ("DPoP", proof.as_str())));
        let verified = verdict_at(&verifier, &fields, at(0)).await.unwrap();
        assert_eq!(verified.would_fail.map(|error| error.code()), would_fail);
    }
    assert_eq!(verdict_at(&verifier, &[("DPoP", &good)], at(0)).await, Err("token_missing"));
    assert_eq!(verdict_at(&verifier, &[("Approov-Token", &bound)], at(600)).await, Err("token_expired"));
}

#[tokio::test]
async fn a_layer_that_monitors_lets_everything_pass_and_says_why_it_would_not_have() {
    let reported: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let seen = Arc::clone(&reported);
    let verifier = by_secret().build().unwrap();
    let layer = ApproovLayer::new(verifier, [PublicUrl::parse("https://api.example.com").unwrap()])
        .clock(|| at(0))
        .monitor(move |error, _| seen.lock().unwrap().push(error.code()));
    let handler = async |good: Option<Extension<Verified>>, bad: Option<Extension<WouldFail>>, body: String| {
        format!("{} {} {body}", good.is_some(), bad.map_or("-", |Extension(WouldFail(error))| error.code()))
    };
    let app = Router::new().route("/order", post(handler)).layer(layer);
    let session = Session::new();
    let bound = token(&json!({"exp": NOW + 60, "cnf": {"jkt": session.thumbprint()}}));
    let claims = json!({
        "jti": "1", "htm": "POST", "htu": "https://api.example.com/order", "iat": NOW, "ath": ath(&bound),
        "msgs": base64url(&support::sha256(b"three")),
    });
    for (fields, expected) in [
        (vec![], "false token_missing two"),
        (vec![("Approov-Token", bound.clone()), ("DPoP", session.proof(&claims))], "false message_mismatch two"),
        (vec![("Approov-Token", bound.clone()), ("DPoP", proof(&session, &bound, "POST", "2"))], "true - two"),
    ] {
        let mut request = http::Request::post("/order");
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let response = app.clone().oneshot(request.body(AxumBody::from("two")).unwrap()).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }
    assert_eq!(*reported.lock().unwrap(), ["token_missing", "message_mismatch"]);
}
