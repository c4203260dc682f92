//! The tower layer, in front of an axum router.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use approov_verify::layer::{ApproovLayer, Refusal};
use approov_verify::replay::MemoryReplayStore;
use approov_verify::time::UnixTime;
use approov_verify::token::Channel;
use approov_verify::{MessagePolicy, ProofPolicy, PublicUrl, QueryPolicy, Verified, Verifier, VerifierBuilder};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, Response};
use axum::routing::any;
use axum::{Extension, Router};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use support::{Session, ath, base64url, pay, secret_base64, sha256, token};
use tower::ServiceExt as _;

const ORIGIN: &str = "https://api.example.com";

fn now() -> i64 {
    UnixTime::now().as_secs()
}

fn builder() -> VerifierBuilder {
    Verifier::builder().secret_base64(&secret_base64())
}

fn layer(builder: VerifierBuilder) -> ApproovLayer {
    ApproovLayer::new(builder.build().unwrap(), [PublicUrl::parse(ORIGIN).unwrap()])
}

fn app(layer: ApproovLayer) -> Router {
    let respond =
        |verified: Extension<Verified>, body: String| async move { format!("{} {body}", verified.claims.channel) };
    Router::new().route("/order", any(respond)).layer(layer)
}

/// A session and the token that it holds.
struct Client {
    session: Session,
    token: String,
}

impl Client {
    fn new() -> Self {
        Self::with(json!({}))
    }

    fn with(claims: Value) -> Self {
        let session = Session::new();
        let mut all = json!({"exp": now() + 120, "embed": {}, "cnf": {"jkt": session.thumbprint()}});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        Self { session, token: token(&all) }
    }

    fn proof(&self, url: &str, more: Value) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let jti = COUNT.fetch_add(1, Ordering::Relaxed).to_string();
        let mut claims = json!({"jti": jti, "htm": "POST", "htu": url, "iat": now(), "ath": ath(&self.token)});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.session.proof(&claims)
    }

    fn request(&self, proof: &str, body: &str) -> Request<Body> {
        Request::post("/order?x=1")
            .header("Approov-Token", &self.token)
            .header("DPoP", proof)
            .body(body.to_owned().into())
            .unwrap()
    }
}

async fn send(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.unwrap()
}

async fn body(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), 10_000).await.unwrap().to_vec()).unwrap()
}

/// The problem document of a refusal, with its status, and its challenge.
async fn refusal(response: Response<Body>) -> (u16, String, Option<String>) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    let problem: Value = serde_json::from_str(&body(response).await).unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["detail"].is_string());
    (status, problem["code"].as_str().unwrap().to_owned(), challenge)
}

#[tokio::test]
async fn a_good_request_reaches_the_handler_with_its_claims_and_body() {
    let app = app(layer(builder()));
    let client = Client::new();
    let proof = client.proof("https://api.example.com/order", json!({}));
    let response = send(&app, client.request(&proof, "two shapes")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(body(response).await, "web two shapes");
}

#[tokio::test]
async fn a_request_without_token_is_challenged_without_an_error() {
    let app = app(layer(builder()));
    let response = send(&app, Request::get("/order").body(Body::empty()).unwrap()).await;
    let expected = (401, "token_missing".to_owned(), Some(r#"DPoP algs="ES256""#.to_owned()));
    assert_eq!(refusal(response).await, expected);
}

#[tokio::test]
async fn a_bad_token_and_a_bad_proof_are_distinguished() {
    let app = app(layer(builder()));
    let mut client = Client::new();
    let proof = client.proof("https://api.example.com/other", json!({}));
    let expected = (401, "proof_url".to_owned(), Some(r#"DPoP error="invalid_dpop_proof", algs="ES256""#.to_owned()));
    assert_eq!(refusal(send(&app, client.request(&proof, "")).await).await, expected);
    client.token.push('=');
    let expected = (401, "token_malformed".to_owned(), Some(r#"DPoP error="invalid_token", algs="ES256""#.to_owned()));
    assert_eq!(refusal(send(&app, client.request(&proof, "")).await).await, expected);
}

#[tokio::test]
async fn a_replayed_proof_is_refused() {
    let app = app(layer(builder()));
    let client = Client::new();
    let proof = client.proof("https://api.example.com/order", json!({}));
    assert_eq!(send(&app, client.request(&proof, "")).await.status(), 200);
    assert_eq!(refusal(send(&app, client.request(&proof, "")).await).await.1, "proof_replayed");
}

#[tokio::test]
async fn the_body_is_compared_with_its_proof_and_still_reaches_the_handler() {
    let app = app(layer(builder()));
    let client = Client::new();
    let url = "https://api.example.com/order";
    for msgs in [base64url(&sha256(b"one")), base64url(&client.session.sign(b"one"))] {
        let proof = client.proof(url, json!({"msgs": msgs}));
        let response = send(&app, client.request(&proof, "one")).await;
        assert_eq!(body(response).await, "web one");
        let proof = client.proof(url, json!({"msgs": msgs}));
        assert_eq!(refusal(send(&app, client.request(&proof, "two")).await).await.1, "message_mismatch");
    }
}

#[tokio::test]
async fn a_covered_body_is_read_up_to_the_limit() {
    let app = app(layer(builder()).body_limit(8));
    let client = Client::new();
    let url = "https://api.example.com/order";
    let proof = |body: &str| client.proof(url, json!({"msgs": base64url(&sha256(body.as_bytes()))}));
    assert_eq!(send(&app, client.request(&proof("12345678"), "12345678")).await.status(), 200);
    let (status, code, challenge) = refusal(send(&app, client.request(&proof("123456789"), "123456789")).await).await;
    assert_eq!((status, code.as_str(), challenge), (413, "body_too_large", None));
    // A body that no proof covers is not this layer's business.
    let uncovered = client.proof(url, json!({}));
    assert_eq!(send(&app, client.request(&uncovered, "123456789")).await.status(), 200);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let app = app(layer(builder()));
    let client = Client::new();
    let proof = client.proof("https://api.example.com/order", json!({"msgs": base64url(&sha256(b""))}));
    let (parts, _) = client.request(&proof, "").into_parts();
    let broken = Body::new(BrokenBody);
    assert_eq!(refusal(send(&app, Request::from_parts(parts, broken)).await).await.1, "body_unreadable");
}

struct BrokenBody;

impl http_body::Body for BrokenBody {
    type Data = axum::body::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
    }
}

#[tokio::test]
async fn a_required_body_hash_is_required() {
    let app = app(layer(builder().message(MessagePolicy::Required)));
    let client = Client::new();
    let proof = client.proof("https://api.example.com/order", json!({}));
    assert_eq!(refusal(send(&app, client.request(&proof, "")).await).await.1, "message_missing");
}

#[tokio::test]
async fn the_url_is_the_public_one_whatever_the_host_header_says() {
    let app = app(layer(builder()));
    let client = Client::new();
    let relayed = |proof: &str| {
        let mut request = client.request(proof, "");
        request.headers_mut().insert("host", HeaderValue::from_static("evil.example"));
        request
    };
    let stolen = client.proof("https://evil.example/order", json!({}));
    assert_eq!(refusal(send(&app, relayed(&stolen)).await).await.1, "proof_url");
    let proof = client.proof("https://api.example.com/order", json!({}));
    assert_eq!(send(&app, relayed(&proof)).await.status(), 200);
}

#[tokio::test]
async fn of_several_public_urls_the_host_header_chooses() {
    let urls = ["https://a.example", "https://b.example:8443/v1"].map(|url| PublicUrl::parse(url).unwrap());
    let app = app(ApproovLayer::new(builder().build().unwrap(), urls));
    let client = Client::new();
    for (host, htu, good) in [
        ("a.example", "https://a.example/order", true),
        ("A.example:443", "https://a.example/order", true),
        ("b.example:8443", "https://b.example:8443/v1/order", true),
        ("b.example:8443", "https://b.example:8443/order", false),
        ("a.example", "https://b.example:8443/v1/order", false),
        ("a.example:80", "https://a.example/order", false),
        ("c.example", "https://a.example/order", false),
        ("a.example/", "https://a.example/order", false),
    ] {
        let mut request = client.request(&client.proof(htu, json!({})), "");
        request.headers_mut().insert("host", HeaderValue::from_static(host));
        let status = send(&app, request).await.status();
        assert_eq!(status == 200, good, "{host} {htu} {status}");
    }
}

#[tokio::test]
async fn a_target_that_can_be_read_in_two_ways_is_refused_whatever_the_proof_says() {
    let any_path = any(|| async { "reached" });
    let app = Router::new().route("/{*path}", any_path).layer(layer(builder()));
    let client = Client::new();
    for (target, htu) in [
        ("/public/../order", "https://api.example.com/order"),
        ("/public/%2e%2e/order", "https://api.example.com/order"),
        ("/public/%2e%2e/order", "https://api.example.com/public/%2e%2e/order"),
        ("/./order", "https://api.example.com/order"),
        ("//order", "https://api.example.com//order"),
        ("/order%", "https://api.example.com/order%"),
    ] {
        let mut request = client.request(&client.proof(htu, json!({})), "");
        *request.uri_mut() = target.parse().unwrap();
        let response = send(&app, request).await;
        assert_eq!(refusal(response).await.1, if htu.ends_with('%') { "proof_claim" } else { "proof_url" }, "{target}");
    }
    let mut request = client.request(&client.proof("https://api.example.com/x/~order", json!({})), "");
    *request.uri_mut() = "/x/%7Eorder?../..".parse().unwrap();
    assert_eq!(body(send(&app, request).await).await, "reached");
}

#[tokio::test]
async fn a_target_in_absolute_form_is_compared_by_its_path() {
    let app = app(layer(builder()));
    let client = Client::new();
    for (htu, status) in [("https://evil.example/order", 401), ("https://api.example.com/order", 200)] {
        let mut request = client.request(&client.proof(htu, json!({})), "");
        *request.uri_mut() = "https://evil.example/order?x=1".parse().unwrap();
        assert_eq!(send(&app, request).await.status(), status, "{htu}");
    }
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn inside_a_nest_the_proof_is_for_the_whole_path() {
    let app = Router::new().nest("/v1", Router::new().nest("/shop", app(layer(builder()))));
    let client = Client::new();
    for (htu, status) in [("https://api.example.com/order", 401), ("https://api.example.com/v1/shop/order", 200)] {
        let mut request = client.request(&client.proof(htu, json!({})), "");
        *request.uri_mut() = "/v1/shop/order?x=1".parse().unwrap();
        assert_eq!(send(&app, request).await.status(), status, "{htu}");
    }
}

#[tokio::test]
async fn a_token_is_bound_to_the_headers_that_the_layer_names() {
    let app = app(layer(builder()).bound_to_authorization().bound_to_header("x-device".parse().unwrap()));
    let client = Client::with(json!({"pay": pay(b"Bearer mydevice-1")}));
    for (authorization, device, verdict) in [
        (Some("Bearer my"), Some("device-1"), "good"),
        (Some("Bearer my"), Some("device-2"), "binding_mismatch"),
        (Some("Bearer my"), None, "binding_data_missing"),
        (None, Some("device-1"), "binding_data_missing"),
    ] {
        let proof = client.proof("https://api.example.com/order", json!({}));
        let mut request = client.request(&proof, "");
        for (name, value) in [("authorization", authorization), ("x-device", device)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
        }
        let response = send(&app, request).await;
        let code = if response.status() == 200 { "good".to_owned() } else { refusal(response).await.1 };
        assert_eq!(code, verdict);
    }
    let nothing = Request::get("/order").body(Body::empty()).unwrap();
    assert_eq!(refusal(send(&app, nothing).await).await.1, "token_missing");
    let unbound = Client::new();
    let proof = unbound.proof("https://api.example.com/order", json!({}));
    let mut request = unbound.request(&proof, "");
    request.headers_mut().insert("authorization", HeaderValue::from_static("x"));
    request.headers_mut().insert("x-device", HeaderValue::from_static("y"));
    assert_eq!(refusal(send(&app, request).await).await.1, "binding_missing");
}

#[tokio::test]
async fn a_rule_of_the_application_refuses_with_403() {
    let rule = |verified: &Verified, parts: &axum::http::request::Parts| {
        let visitor = verified.claims.embed.fingerprint.get("key").map(|result| result.visitor_id.as_str());
        let user = parts.headers.get("x-visitor").and_then(|value| value.to_str().ok());
        if visitor == user { Ok(()) } else { Err(Refusal::new("other_visitor", "this is another visitor")) }
    };
    let app = app(layer(builder()).rule(rule));
    let client = Client::with(json!({"embed": {"fp:key": {"visitorId": "v1", "visits": [{"requestId": "r"}]}}}));
    for (visitor, status) in [("v1", 200), ("v2", 403)] {
        let mut request = client.request(&client.proof("https://api.example.com/order", json!({})), "");
        request.headers_mut().insert("x-visitor", HeaderValue::from_static(visitor));
        let response = send(&app, request).await;
        assert_eq!(response.status(), status);
        if status == 403 {
            assert_eq!(refusal(response).await, (403, "other_visitor".to_owned(), None));
        }
    }
}

#[tokio::test]
async fn a_demanded_nonce_is_given_out_with_the_challenge() {
    let demanding = builder().nonce_check(|nonce| nonce == "fresh");
    let app = app(layer(demanding).nonces(|| HeaderValue::from_static("fresh")));
    let client = Client::new();
    let url = "https://api.example.com/order";
    for claims in [json!({}), json!({"nonce": "stale"})] {
        let response = send(&app, client.request(&client.proof(url, claims), "")).await;
        assert_eq!(response.headers()["dpop-nonce"], "fresh");
        assert_eq!(refusal(response).await.2.unwrap(), r#"DPoP error="use_dpop_nonce", algs="ES256""#);
    }
    let proof = client.proof(url, json!({"nonce": "fresh"}));
    assert_eq!(send(&app, client.request(&proof, "")).await.status(), 200);
}

#[tokio::test]
async fn a_nonce_of_the_application_is_good_once_and_the_next_comes_with_the_refusal() {
    let app =
        app(layer(builder().nonce_check(|nonce| nonce == "fresh")).nonces(|| HeaderValue::from_static("another")));
    let client = Client::new();
    let proof = || client.proof("https://api.example.com/order", json!({"nonce": "fresh"}));
    assert_eq!(send(&app, client.request(&proof(), "")).await.status(), 200);
    let response = send(&app, client.request(&proof(), "")).await;
    assert_eq!(response.headers()["dpop-nonce"], "another");
    let challenge = r#"DPoP error="use_dpop_nonce", algs="ES256""#.to_owned();
    assert_eq!(refusal(response).await, (401, "nonce_reused".to_owned(), Some(challenge)));
}

#[tokio::test]
async fn one_session_cannot_lock_others_out_by_filling_the_replay_memory() {
    let verifier = builder().replay_store(MemoryReplayStore::with_capacity(200)).build().unwrap();
    let app = app(ApproovLayer::new(verifier, [PublicUrl::parse(ORIGIN).unwrap()]));
    let proof = |client: &Client| client.proof("https://api.example.com/order", json!({"nonce": "chosen freely"}));
    let attacker = Client::new();
    let (mut served, mut last) = (0, None);
    for _ in 0..300 {
        let response = send(&app, attacker.request(&proof(&attacker), "")).await;
        served += u32::from(response.status() == 200);
        last = Some(response);
    }
    // Half of the memory: its nonces are not remembered as well.
    assert_eq!(served, 101);
    let last = last.unwrap();
    assert_eq!(last.headers()["retry-after"], "10");
    assert_eq!(refusal(last).await, (429, "proof_quota".to_owned(), None));
    for _ in 0..10 {
        let honest = Client::new();
        for _ in 0..3 {
            assert_eq!(send(&app, honest.request(&proof(&honest), "")).await.status(), 200);
        }
    }
    // Its proofs stay used.
    let again = attacker.proof("https://api.example.com/order", json!({}));
    assert_eq!(refusal(send(&app, attacker.request(&again, "")).await).await.1, "proof_quota");
}

#[tokio::test]
async fn a_query_is_compared_when_the_proof_covers_it_and_can_be_demanded() {
    let (lenient, strict) = (app(layer(builder())), app(layer(builder()).require_query()));
    let by_policy = app(layer(builder().query(QueryPolicy::Required)));
    let client = Client::new();
    for (query, htq, verdicts) in [
        ("?to=alice", Some("to=alice"), ["good", "good"]),
        ("?to=mallory", Some("to=alice"), ["query_mismatch", "query_mismatch"]),
        ("?to=mallory", None, ["good", "query_missing"]),
        ("", Some("to=alice"), ["query_mismatch", "query_mismatch"]),
        ("", None, ["good", "good"]),
        ("?", None, ["good", "good"]),
    ] {
        for (app, verdict) in [(&lenient, verdicts[0]), (&strict, verdicts[1]), (&by_policy, verdicts[1])] {
            let htq = htq.map_or(json!({}), |htq| json!({"htq": base64url(&sha256(htq.as_bytes()))}));
            let mut request = client.request(&client.proof("https://api.example.com/order", htq), "");
            *request.uri_mut() = format!("/order{query}").parse().unwrap();
            let response = send(app, request).await;
            let code = if response.status() == 200 { "good".to_owned() } else { refusal(response).await.1 };
            assert_eq!(code, verdict, "{query}");
        }
    }
}

#[tokio::test]
async fn the_token_may_come_as_authorization_dpop() {
    let app = app(layer(builder().proof(ProofPolicy::Optional)));
    let client = Client::new();
    let request = |scheme: &str, proof: Option<String>, with_header: bool| {
        let mut request = Request::post("/order").header("authorization", format!("{scheme} {}", client.token));
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        if with_header {
            request = request.header("approov-token", &client.token);
        }
        request.body(Body::empty()).unwrap()
    };
    let proof = || Some(client.proof("https://api.example.com/order", json!({})));
    assert_eq!(send(&app, request("DPoP", proof(), false)).await.status(), 200);
    for (request, code) in [
        (request("DPoP", None, false), "proof_missing"),
        (request("DPoP", proof(), true), "token_repeated"),
        (request("Bearer", proof(), false), "token_missing"),
        (request("Bearer", None, false), "token_missing"),
    ] {
        assert_eq!(refusal(send(&app, request).await).await.1, code);
    }
}

#[tokio::test]
async fn a_full_replay_store_closes_the_door_and_says_nothing_of_itself() {
    let verifier = builder().replay_store(MemoryReplayStore::with_capacity(0)).build().unwrap();
    let app = app(ApproovLayer::new(verifier, [PublicUrl::parse(ORIGIN).unwrap()]));
    let client = Client::new();
    let proof = client.proof("https://api.example.com/order", json!({}));
    let response = send(&app, client.request(&proof, "")).await;
    assert_eq!(refusal(response).await, (503, "replay_store".to_owned(), None));
}

#[tokio::test]
async fn the_layer_is_ready_when_its_inner_service_is() {
    #[derive(Clone)]
    struct Busy;
    impl tower::Service<Request<Body>> for Busy {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
            std::task::Poll::Pending
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::ready(Ok(Response::new(Body::empty())))
        }
    }
    let mut service = tower::Layer::layer(&layer(builder()), Busy);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(tower::Service::poll_ready(&mut service, &mut context).is_pending());
}

#[tokio::test]
async fn mobile_tokens_need_no_proof_unless_they_are_bound_to_a_key() {
    let app = app(layer(builder()));
    let mobile = token(&json!({"exp": now() + 60, "did": "device"}));
    let request = |token: &str| Request::get("/order").header("approov-token", token).body(Body::empty()).unwrap();
    assert_eq!(body(send(&app, request(&mobile)).await).await, format!("{} ", Channel::Mobile));
    let client = Client::new();
    assert_eq!(refusal(send(&app, request(&client.token)).await).await.1, "proof_missing");
}
