//! What gateways ask, over HTTP, and what they are told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod support;

use serde_json::{Value, json};
use support::session::{Session, hash};
use support::{Gate, configuration, said};

const URL: &str = "https://api.shop.co/shapes?big=1";
const TARGET: &str = "/shapes?big=1";

fn with_proof(request: reqwest::RequestBuilder, session: &Session, proof: String) -> reqwest::RequestBuilder {
    request.header("Approov-Token", session.token()).header("DPoP", proof)
}

#[tokio::test]
async fn a_good_request_passes_and_the_backend_is_told_whose_it_is() {
    let (gate, session) = (Gate::start(&configuration("", "")), Session::new());
    for request in [gate.question("POST", TARGET), gate.ext_authz("POST", TARGET)] {
        let said = said(with_proof(request, &session, session.proof("POST", URL))).await;
        assert_eq!(said.brief(), (200, ""), "{said:?}");
        let header = |name: &str| said.header(name).unwrap().to_owned();
        assert_eq!(
            [
                header("approov-verified"),
                header("approov-channel"),
                header("approov-key"),
                header("approov-would-fail")
            ],
            ["proof".to_owned(), "web".to_owned(), session.thumbprint(), "none".to_owned()]
        );
        let claims =
            base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, header("approov-claims"));
        let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
        assert_eq!((&claims["ip"], &claims["cnf"]["jkt"]), (&json!("192.0.2.1"), &json!(session.thumbprint())));
        assert_eq!(header("cache-control"), "no-store");
    }
    let log = gate.logged("\"outcome\":\"ok\"");
    assert!(log.contains("\"method\":\"POST\",\"path\":\"/shapes\",\"status\":200") && !log.contains("big=1"), "{log}");
}

#[tokio::test]
async fn every_verdict_that_lets_pass_has_all_headers_so_that_none_of_a_client_survives() {
    let rest = "[[policies]]\npaths = [\"/health\"]\naccess = \"open\"";
    let (gate, session) = (Gate::start(&configuration("", rest)), Session::new());
    let preflight = gate
        .question("OPTIONS", "/shapes")
        .header("Origin", "https://www.shop.co")
        .header("Access-Control-Request-Method", "POST");
    for request in [
        gate.question("GET", "/health"),
        preflight,
        with_proof(gate.question("GET", TARGET), &session, session.proof("GET", URL)),
    ] {
        // What a client sends under these names never comes back.
        let request =
            request.header("Approov-Verified", "proof").header("Approov-Claims", "e30").header("Approov-Key", "k");
        let said = said(request).await;
        assert_eq!(said.status, 200, "{said:?}");
        for name in ["verified", "channel", "key", "claims", "message", "would-fail", "policy"] {
            let value = said.header(&format!("approov-{name}")).unwrap();
            assert!(!value.is_empty() && value != "e30" && value != "k", "{name} {said:?}");
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_a_challenge() {
    let (gate, session, other) = (Gate::start(&configuration("", "")), Session::new(), Session::new());
    let proven = |method: &str, target: &str, proof: String| with_proof(gate.question(method, target), &session, proof);
    let expired = session.token_with(&[("exp", json!(support::session::now() - 60))]);
    let mut of_expired = session.proof_claims("GET", URL);
    of_expired.insert("ath".to_owned(), hash(expired.as_bytes()).into());
    let replayed = session.proof("GET", URL);
    assert_eq!(said(proven("GET", TARGET, replayed.clone())).await.status, 200);
    for (request, code, challenge) in [
        (gate.question("GET", TARGET), "token_missing", None),
        (proven("GET", TARGET, replayed), "proof_replayed", Some("invalid_dpop_proof")),
        // A proof for GET must not let a POST pass, whatever method the gateway asks with.
        (proven("POST", TARGET, session.proof("GET", URL)), "proof_method", Some("invalid_dpop_proof")),
        (proven("GET", "/other", session.proof("GET", URL)), "proof_url", Some("invalid_dpop_proof")),
        (proven("GET", "/shapes?big=2", session.proof("GET", URL)), "query_mismatch", Some("invalid_dpop_proof")),
        (
            proven("GET", TARGET, session.proof("GET", "https://evil.example/shapes?big=1")),
            "proof_url",
            Some("invalid_dpop_proof"),
        ),
        (proven("GET", TARGET, other.proof("GET", URL)), "proof_token_hash", Some("invalid_dpop_proof")),
        (
            gate.question("GET", TARGET).header("Approov-Token", session.token()),
            "proof_missing",
            Some("invalid_dpop_proof"),
        ),
        (
            gate.question("GET", TARGET).header("Approov-Token", &expired).header("DPoP", session.sign(&of_expired)),
            "token_expired",
            Some("invalid_token"),
        ),
        (
            proven("GET", TARGET, session.proof("GET", URL)).header("Approov-Token", session.token()),
            "token_repeated",
            Some("invalid_token"),
        ),
    ] {
        let said = said(request).await;
        assert_eq!((said.status, said.header("approov-verified")), (401, None), "{said:?}");
        let named = said.header("www-authenticate").unwrap();
        match challenge {
            None => assert_eq!(named, "DPoP algs=\"ES256\"", "{said:?}"),
            Some(error) => assert!(named.starts_with(&format!("DPoP error=\"{error}\"")), "{code} {said:?}"),
        }
        assert_eq!(said.code, code, "{said:?}");
    }
}

#[tokio::test]
async fn a_gateway_that_does_not_replace_what_its_client_says_is_not_answered() {
    let (gate, session) = (Gate::start(&configuration("", "")), Session::new());
    for (name, value) in [("X-Forwarded-Uri", "/public"), ("X-Forwarded-Method", "GET"), ("X-Forwarded-Host", "b")] {
        let request = with_proof(gate.question("GET", TARGET), &session, session.proof("GET", URL));
        let request = request.header("X-Forwarded-Host", "a").header(name, value);
        let said = said(request).await;
        assert_eq!(said.brief(), (500, "incomplete_question"), "{name} {said:?}");
    }
    let log = gate.logged("x-forwarded-host");
    assert!(log.contains("the gateway must replace its client's"), "{log}");
    // What the client calls itself does not matter where there is one public URL.
    let request = with_proof(gate.question("GET", TARGET), &session, session.proof("GET", URL));
    assert_eq!(
        said(request.header("X-Forwarded-Host", "evil.example").header("X-Forwarded-Proto", "http")).await.status,
        200
    );
    // Envoy's questions are the request itself, whatever these headers say.
    let request = gate.ext_authz("GET", TARGET).header("X-Forwarded-Method", "POST").header("X-Forwarded-Uri", "/x");
    assert_eq!(said(with_proof(request, &session, session.proof("GET", URL))).await.status, 200);
}

#[tokio::test]
async fn of_several_public_urls_the_host_selects_one_and_a_proof_is_for_that() {
    let top = "public_urls = [\"https://api.shop.co\", \"https://api.shop.uk/v1\"]\n";
    let (gate, session) = (Gate::start(&configuration(top, "")), Session::new());
    for (host, url, status) in [
        ("api.shop.co", "https://api.shop.co/shapes", 200),
        ("API.shop.co:443", "https://api.shop.co/shapes", 200),
        ("api.shop.uk", "https://api.shop.uk/v1/shapes", 200),
        ("api.shop.uk", "https://api.shop.co/shapes", 401),
        ("api.shop.uk", "https://api.shop.uk/shapes", 401),
        ("evil.example", "https://evil.example/shapes", 401),
    ] {
        let question = gate.question("GET", "/shapes").header("X-Forwarded-Host", host);
        let said = said(with_proof(question, &session, session.proof("GET", url))).await;
        assert_eq!(said.status, status, "{host} {url} {said:?}");
    }
    assert_eq!(
        said(with_proof(gate.question("GET", "/shapes"), &session, session.proof("GET", URL))).await.status,
        401
    );
}

#[tokio::test]
async fn policies_are_by_path_and_method_and_a_path_that_can_be_read_in_two_ways_has_none() {
    let rest = "[[policies]]\nname = \"public\"\npaths = [\"/public/*\", \"/health\"]\nmethods = [\"GET\"]\naccess = \"open\"\n\
                [[policies]]\nname = \"tokens\"\npaths = [\"/tokens/*\"]\n[policies.verify]\nproof = \"optional\"";
    let (gate, session) = (Gate::start(&configuration("", rest)), Session::new());
    for (method, target, expected) in [
        ("GET", "/public/a", (200, "")),
        ("GET", "/%70ublic/a?x=/../", (200, "")),
        ("GET", "/health", (200, "")),
        ("POST", "/public/a", (401, "token_missing")),
        ("GET", "/private", (401, "token_missing")),
        ("GET", "/public", (401, "token_missing")),
        ("GET", "/public/../private", (403, "path_ambiguous")),
        ("GET", "/public/%2e%2e/private", (403, "path_ambiguous")),
        ("GET", "/public/..%2fprivate", (403, "path_ambiguous")),
        ("GET", "/public/..%252fprivate", (403, "path_ambiguous")),
        ("GET", "/public/..;/private", (403, "path_ambiguous")),
        ("GET", "/public/..\\private", (403, "path_ambiguous")),
        ("GET", "/public//a", (403, "path_ambiguous")),
        ("GET", "//public/a", (403, "path_ambiguous")),
        ("GET", "https://api.shop.co/public/a", (403, "path_ambiguous")),
        ("GET", "public/a", (403, "path_ambiguous")),
        ("GET", "*", (403, "path_ambiguous")),
    ] {
        let said = said(gate.question(method, target)).await;
        assert_eq!(said.brief(), expected, "{method} {target} {said:?}");
        if said.status == 200 {
            assert_eq!(
                (said.header("approov-verified"), said.header("approov-policy")),
                (Some("none"), Some("public"))
            );
        }
    }
    let with_token = |target: &str| gate.question("GET", target).header("Approov-Token", session.token());
    let tokens = said(with_token("/tokens/a")).await;
    assert_eq!((tokens.status, tokens.header("approov-verified")), (200, Some("token")), "{tokens:?}");
    assert_eq!(said(with_token("/other")).await.brief(), (401, "proof_missing"));
}

#[tokio::test]
async fn preflights_pass_and_nothing_passes_as_one() {
    let gate = Gate::start(&configuration("", ""));
    let preflight = |method: &str| {
        gate.question(method, "/shapes")
            .header("Origin", "https://www.shop.co")
            .header("Access-Control-Request-Method", "PUT")
    };
    let passed = said(preflight("OPTIONS")).await;
    assert_eq!((passed.status, passed.header("approov-verified")), (200, Some("none")), "{passed:?}");
    for (request, what) in [
        (preflight("POST"), "another method"),
        (gate.question("OPTIONS", "/shapes").header("Origin", "https://www.shop.co"), "no method is asked for"),
        (gate.question("OPTIONS", "/shapes").header("Access-Control-Request-Method", "PUT"), "no origin"),
        (preflight("OPTIONS").header("Approov-Token", "a.b.c"), "a token"),
        (preflight("OPTIONS").body("data"), "a body"),
    ] {
        assert_eq!(said(request).await.status, 401, "{what}");
    }
    let strict = Gate::start(&configuration("preflights = \"check\"", ""));
    let request =
        strict.question("OPTIONS", "/").header("Origin", "https://a").header("Access-Control-Request-Method", "PUT");
    assert_eq!(said(request).await.brief(), (401, "token_missing"));
}

#[tokio::test]
async fn pages_may_read_refusals_where_cors_names_them() {
    let rest = "server_nonces = \"required\"\n[cors]\norigins = [\"https://www.shop.co\"]";
    let (gate, session) = (Gate::start(&configuration("", rest)), Session::new());
    let mut said_to = Vec::new();
    for origin in ["https://www.shop.co", "https://evil.example"] {
        let request = with_proof(gate.question("GET", TARGET), &session, session.proof("GET", URL));
        said_to.push(said(request.header("Origin", origin)).await);
    }
    let (ours, other) = (&said_to[0], &said_to[1]);
    assert_eq!(ours.brief(), (401, "proof_nonce_missing"));
    assert_eq!(ours.header("access-control-allow-origin"), Some("https://www.shop.co"));
    assert_eq!(ours.header("access-control-expose-headers"), Some("DPoP-Nonce, WWW-Authenticate"));
    assert_eq!(other.header("access-control-allow-origin"), None);
    assert_eq!(ours.header("vary"), Some("Origin"));
    // With the nonce that came it passes, and again until it changes.
    let nonce = ours.header("dpop-nonce").unwrap();
    for _ in 0..2 {
        let mut claims = session.proof_claims("GET", URL);
        claims.insert("nonce".to_owned(), nonce.into());
        let passed = said(with_proof(gate.question("GET", TARGET), &session, session.sign(&claims))).await;
        assert_eq!(passed.status, 200, "{passed:?}");
        assert!(passed.header("dpop-nonce").is_some() && passed.header("access-control-allow-origin").is_none());
    }
}

#[tokio::test]
async fn bodies_are_compared_where_the_gateway_sends_them() {
    let (gate, session) =
        (Gate::start(&configuration("bodies = \"forwarded\"\nbody_limit = 64\n", "")), Session::new());
    let proof = |body: &str| session.proof_of_body("POST", URL, body.as_bytes());
    for (signed, sent, expected) in [
        ("amount=1", "amount=1", (200, "")),
        ("amount=1", "amount=9", (401, "message_mismatch")),
        ("amount=1", "", (401, "message_mismatch")),
        ("", "", (200, "")),
        ("", "amount=9", (401, "message_mismatch")),
    ] {
        for request in [gate.question("POST", TARGET), gate.ext_authz("POST", TARGET)] {
            let said = said(with_proof(request, &session, proof(signed)).body(sent)).await;
            assert_eq!(said.brief(), expected, "{signed:?} {sent:?} {said:?}");
        }
    }
    let long = "x".repeat(65);
    let request = with_proof(gate.question("POST", TARGET), &session, proof(&long)).body(long.clone());
    assert_eq!(said(request).await.brief(), (413, "body_too_large"));
    let cut = with_proof(gate.ext_authz("POST", TARGET), &session, proof("a")).body("a");
    assert_eq!(said(cut.header("x-envoy-auth-partial-body", "true")).await.brief(), (413, "body_too_large"));
}

#[tokio::test]
async fn without_bodies_the_backend_is_given_the_hash_to_compare() {
    let (gate, session) = (Gate::start(&configuration("", "")), Session::new());
    let proof = session.proof_of_body("POST", URL, b"amount=1");
    let passed = said(with_proof(gate.question("POST", TARGET), &session, proof)).await;
    assert_eq!(
        (passed.status, passed.header("approov-message")),
        (200, Some(hash(b"amount=1").as_str())),
        "{passed:?}"
    );
}

#[tokio::test]
async fn monitoring_lets_everything_pass_and_says_what_would_fail() {
    let rest = "[[policies]]\npaths = [\"/strict/*\"]\nmonitor = false";
    let gate = Gate::start(&configuration("monitor = true\noperations = \"127.0.0.1:0\"\n", rest));
    let passed = said(gate.question("GET", "/shapes")).await;
    let header = |name: &str| passed.header(name);
    assert_eq!(
        (passed.status, header("approov-verified"), header("approov-would-fail")),
        (200, Some("none"), Some("token_missing")),
        "{passed:?}"
    );
    assert_eq!(said(gate.question("GET", "/strict/a")).await.brief(), (401, "token_missing"));
    let (status, metrics) = gate.get(&format!("{}/metrics", gate.operations.clone().unwrap())).await;
    assert_eq!(status, 200);
    for line in [
        "approov_gate_verdicts_total{policy=\"default\",verdict=\"monitored\"} 1",
        "approov_gate_verdicts_total{policy=\"policy-1\",verdict=\"token_missing\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn only_trusted_peers_may_ask() {
    let (gate, session) = (Gate::start(&configuration("trusted_peers = [\"192.0.2.0/24\"]\n", "")), Session::new());
    let request = with_proof(gate.question("GET", TARGET), &session, session.proof("GET", URL));
    assert_eq!(said(request.header("X-Forwarded-For", "192.0.2.1")).await.brief(), (403, "untrusted_peer"));
    assert_eq!(gate.get(&format!("{}/healthz", gate.url)).await.0, 200);
    gate.logged("127.0.0.1 is not among trusted_peers");
}

#[tokio::test]
async fn what_is_no_question_is_not_found() {
    let gate = Gate::start(&configuration("", ""));
    for path in ["/", "/metrics", "/forward-auth/x", "/ext-authzx", "/favicon.ico"] {
        assert_eq!(gate.get(&format!("{}{path}", gate.url)).await.0, 404, "{path}");
    }
    let incomplete = said(reqwest::Client::new().get(format!("{}/forward-auth", gate.url))).await;
    assert_eq!(incomplete.brief(), (500, "incomplete_question"));
    gate.logged("the gateway does not send x-forwarded-method");
}
