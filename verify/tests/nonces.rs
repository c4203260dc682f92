//! Server nonces, with a client that uses them as RFC 9449 section 8.2 says, and as oauth4webapi, atproto and auth0 do:
//! it sends the last nonce that came with a response, whichever, and repeats a request once for `use_dpop_nonce`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use approov_verify::keyset::KeySet;
use approov_verify::layer::ApproovLayer;
use approov_verify::replay::MemoryReplayStore;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use approov_verify::{ConfigError, NoncePolicy, PublicUrl, ServerNoncePolicy, Verified, Verifier, VerifierBuilder};
use axum::body::Body;
use axum::http::{Request, Response};
use axum::routing::post;
use axum::{Extension, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use support::{SECRET, Session, ath, token};
use tower::ServiceExt as _;
use tower_http::cors::CorsLayer;

const URL: &str = "https://api.example.com/order";
const START: i64 = 1_800_000_000;

/// A clock that tests move, in seconds.
#[derive(Clone)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START)))
    }

    fn now(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

fn secret(byte: u8) -> Secret {
    Secret::from_bytes(vec![byte; 32])
}

fn builder(policy: ServerNoncePolicy) -> VerifierBuilder {
    Verifier::builder().secret(&Secret::from_bytes(SECRET.to_vec())).server_nonces(policy)
}

fn server(builder: VerifierBuilder, clock: &Clock) -> Router {
    let clock = clock.clone();
    let layer = ApproovLayer::new(builder.build().unwrap(), [PublicUrl::parse("https://api.example.com").unwrap()])
        .clock(move || UnixTime::from_secs(clock.now()));
    let order = async |_: Extension<Verified>| "ordered";
    Router::new().route("/order", post(order)).layer(layer)
}

/// A session whose client keeps nonces as RFC 9449 says.
struct Client {
    session: Session,
    token: String,
    clock: Clock,
    nonce: Option<String>,
    sent: u32,
}

impl Client {
    fn new(clock: &Clock) -> Self {
        let session = Session::new();
        let token = token(&json!({"exp": START + 10_000_000, "embed": {}, "cnf": {"jkt": session.thumbprint()}}));
        Self { session, token, clock: clock.clone(), nonce: None, sent: 0 }
    }

    fn request(&mut self, nonce: Option<Value>) -> Request<Body> {
        self.sent += 1;
        let mut claims = json!({
            "jti": format!("jti-{}", self.sent), "htm": "POST", "htu": URL, "iat": self.clock.now(), "ath": ath(&self.token),
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce;
        }
        Request::post("/order")
            .header("authorization", format!("DPoP {}", self.token))
            .header("dpop", self.session.proof(&claims))
            .body(Body::empty())
            .unwrap()
    }

    /// Sends one request, and takes the nonce of its response.
    async fn send(&mut self, server: &Router, nonce: Option<Value>) -> Response<Body> {
        let request = self.request(nonce);
        let response = server.clone().oneshot(request).await.unwrap();
        if let Some(nonce) = response.headers().get("dpop-nonce") {
            self.nonce = Some(nonce.to_str().unwrap().to_owned());
        }
        response
    }

    /// What a `fetch` with DPoP does: status, and how often it sent.
    async fn fetch(&mut self, server: &Router) -> (u16, u32) {
        let before = self.sent;
        let sent_nonce = self.nonce.clone();
        let mut response = self.send(server, sent_nonce.clone().map(Value::from)).await;
        let wants_nonce = challenge(&response).contains(r#"error="use_dpop_nonce""#);
        if response.status() == 401 && wants_nonce && self.nonce != sent_nonce {
            let nonce = self.nonce.clone().map(Value::from);
            response = self.send(server, nonce).await;
        }
        (response.status().as_u16(), self.sent - before)
    }
}

fn challenge(response: &Response<Body>) -> String {
    response.headers().get("www-authenticate").map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_client_repeats_its_first_request_once_and_no_other_one() {
    let clock = Clock::new();
    let server = server(builder(ServerNoncePolicy::Required), &clock);
    let mut client = Client::new(&clock);
    assert_eq!(client.fetch(&server).await, (200, 2));
    // The same nonce again and again; each response has the current one, so the client moves on with the minutes.
    let mut nonces = std::collections::BTreeSet::new();
    for _ in 0..100 {
        assert_eq!(client.fetch(&server).await, (200, 1));
        nonces.insert(client.nonce.clone());
        clock.advance(7);
    }
    assert!((11..=13).contains(&nonces.len()), "{}", nonces.len());
    // After a pause its nonce is too old: one repetition, with the nonce of the refusal.
    clock.advance(180);
    assert_eq!(client.fetch(&server).await, (200, 2));
    assert_eq!(client.fetch(&server).await, (200, 1));
}

#[tokio::test]
async fn every_response_has_the_current_nonce_for_pages_to_read() {
    let clock = Clock::new();
    let server = server(builder(ServerNoncePolicy::Offered), &clock);
    let mut client = Client::new(&clock);
    let with_cors = server.clone().layer(CorsLayer::permissive());
    for app in [&server, &with_cors] {
        let good = client.send(app, None).await;
        let bad = app.clone().oneshot(Request::post("/order").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!((good.status().as_u16(), bad.status().as_u16()), (200, 401));
        for response in [good, bad] {
            assert!(response.headers().contains_key("dpop-nonce"));
            let exposed = response.headers().get_all("access-control-expose-headers").iter();
            let exposed: Vec<_> = exposed.map(|value| value.to_str().unwrap()).collect();
            assert!(exposed.iter().any(|names| names.contains("DPoP-Nonce") || *names == "*"), "{exposed:?}");
        }
    }
}

#[tokio::test]
async fn where_nonces_are_offered_a_client_may_use_its_own_but_no_stale_one() {
    let clock = Clock::new();
    let server = server(builder(ServerNoncePolicy::Offered), &clock);
    let mut client = Client::new(&clock);
    for nonce in [None, Some(json!("128 random bits")), Some(json!("128 random bits")), Some(json!({"any": "thing"}))] {
        assert_eq!(client.send(&server, nonce).await.status(), 200);
    }
    let given = client.nonce.clone().map(Value::from);
    clock.advance(59);
    assert_eq!(client.send(&server, given.clone()).await.status(), 200);
    clock.advance(180);
    let response = client.send(&server, given.clone()).await;
    assert_eq!(challenge(&response), r#"DPoP error="use_dpop_nonce", algs="ES256""#);
    assert_ne!(client.nonce.clone().map(Value::from), given);
    assert_eq!(client.fetch(&server).await, (200, 1));
}

#[tokio::test]
async fn where_nonces_are_required_nothing_else_will_do() {
    let clock = Clock::new();
    let server = server(builder(ServerNoncePolicy::Required), &clock);
    let mut client = Client::new(&clock);
    client.send(&server, None).await;
    let given = client.nonce.clone().unwrap();
    for nonce in [
        None,
        Some(Value::Null),
        Some(json!("mine")),
        Some(json!(1)),
        Some(json!([given])),
        Some(json!(given.get(1..))),
    ] {
        let response = client.send(&server, nonce).await;
        assert_eq!(response.status(), 401);
        assert_eq!(challenge(&response), r#"DPoP error="use_dpop_nonce", algs="ES256""#);
        assert_eq!(client.nonce.as_ref(), Some(&given));
    }
    assert_eq!(client.send(&server, Some(json!(given))).await.status(), 200);
}

#[tokio::test]
async fn the_clients_own_nonces_stay_unique_where_the_application_demands_it() {
    let clock = Clock::new();
    let builder = builder(ServerNoncePolicy::Offered).nonce(NoncePolicy::UniqueRequired);
    let server = server(builder, &clock);
    let mut client = Client::new(&clock);
    assert_eq!(client.send(&server, Some(json!("mine"))).await.status(), 200);
    let response = client.send(&server, Some(json!("mine"))).await;
    assert_eq!(challenge(&response), r#"DPoP error="invalid_dpop_proof", algs="ES256""#);
    assert_eq!(client.fetch(&server).await, (200, 1));
    assert_eq!(client.fetch(&server).await, (200, 1));
    assert_eq!(challenge(&client.send(&server, None).await), r#"DPoP error="use_dpop_nonce", algs="ES256""#);
}

#[tokio::test]
async fn a_proof_with_a_nonce_that_is_reusable_is_still_good_once() {
    let clock = Clock::new();
    let server = server(builder(ServerNoncePolicy::Required), &clock);
    let mut client = Client::new(&clock);
    client.send(&server, None).await;
    let nonce = client.nonce.clone().map(Value::from);
    let proof = client.request(nonce).headers()["dpop"].clone();
    let mut replayed = client.request(None);
    replayed.headers_mut().insert("dpop", proof);
    let (parts, _) = replayed.into_parts();
    for status in [200, 401] {
        let request = Request::from_parts(parts.clone(), Body::empty());
        assert_eq!(server.clone().oneshot(request).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn two_servers_whose_clocks_differ_take_each_others_nonces() {
    // At every second of a minute, so at its turn too.
    let (clock, ahead) = (Clock::new(), Clock::new());
    ahead.advance(15);
    let servers = [&clock, &ahead].map(|clock| server(builder(ServerNoncePolicy::Required), clock));
    let mut client = Client::new(&clock);
    assert_eq!(client.fetch(&servers[0]).await, (200, 2));
    for second in 0..120 {
        for server in [&servers[1], &servers[0]] {
            assert_eq!(client.fetch(server).await, (200, 1), "{second}");
        }
        clock.advance(1);
        ahead.advance(1);
    }
}

#[tokio::test]
async fn nonces_of_another_account_or_purpose_are_foreign() {
    let clock = Clock::new();
    let other = Verifier::builder().secret(&secret(1)).server_nonces(ServerNoncePolicy::Required).build().unwrap();
    let own_secret = builder(ServerNoncePolicy::Required).nonce_secret(&secret(2));
    let (by_token_secret, by_own_secret) =
        (server(builder(ServerNoncePolicy::Required), &clock), server(own_secret, &clock));
    let foreign = other.dpop_nonce(UnixTime::from_secs(START)).unwrap();
    let mut client = Client::new(&clock);
    for server in [&by_token_secret, &by_own_secret] {
        let response = client.send(server, Some(json!(foreign.to_str().unwrap()))).await;
        assert_eq!(response.status(), 401);
    }
    // Nor do the nonces of the two servers of one account with different secrets fit each other.
    client.send(&by_token_secret, None).await;
    let nonce = client.nonce.clone().map(Value::from);
    assert_eq!(client.send(&by_own_secret, nonce).await.status(), 401);
}

#[tokio::test]
async fn while_a_secret_is_changed_no_client_fails() {
    let clock = Clock::new();
    let with = |secrets: &[u8]| {
        let builder = builder(ServerNoncePolicy::Required);
        server(secrets.iter().fold(builder, |builder, byte| builder.nonce_secret(&secret(*byte))), &clock)
    };
    let mut client = Client::new(&clock);
    // Two servers behind one URL: both old; one has the new one as well; both; one makes nonces with the new one; and so on.
    for (one, other) in [
        (&[1][..], &[1][..]),
        (&[1, 2], &[1]),
        (&[1, 2], &[1, 2]),
        (&[2, 1], &[1, 2]),
        (&[2, 1], &[2, 1]),
        (&[2], &[2, 1]),
        (&[2], &[2]),
    ] {
        let servers = [with(one), with(other)];
        for turn in 0..20 {
            let (status, sent) = client.fetch(&servers[turn % 2]).await;
            // Only the very first request had no nonce, and no later one was repeated.
            let first = turn == 0 && one == [1] && other == [1];
            assert_eq!((status, sent), (200, if first { 2 } else { 1 }), "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_verifier_that_cannot_make_nonces_is_not_made() {
    let keyset = || {
        let jwk = Session::new().jwk();
        Verifier::builder().keyset(KeySet::from_jwks(&json!({"keys": [jwk]}).to_string()).unwrap())
    };
    let problem = |builder: VerifierBuilder<MemoryReplayStore>| builder.build().err();
    for policy in [ServerNoncePolicy::Offered, ServerNoncePolicy::Required] {
        assert_eq!(problem(keyset().server_nonces(policy)), Some(ConfigError::NoNonceSecret));
        assert_eq!(problem(keyset().server_nonces(policy).nonce_secret(&secret(1))), None);
        assert_eq!(problem(builder(policy)), None);
        let both = builder(policy).nonce_check(|_| true);
        assert_eq!(problem(both), Some(ConfigError::TwoKindsOfNonces));
    }
    assert_eq!(problem(keyset()), None);
    let short = Secret::from_bytes(vec![1; 31]);
    assert_eq!(problem(keyset().nonce_secret(&short)), Some(ConfigError::NonceSecretTooShort));
    assert!(keyset().build().unwrap().dpop_nonce(UnixTime::now()).is_none());
}
