//! The protocol over the router: nonce, attest, refresh, proofs, checks, cross-origin headers.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use approov_verify::time::UnixTime;
use approov_web_service::check::{Provider, SiteKind};
use approov_web_service::config::{AllowedOrigins, TrustedProxies};
use approov_web_service::dev::{self, sim};
use approov_web_service::secrets::{KeptSecret, SecretKind};
use approov_web_service::store::seconds_to_next_minute;
use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use support::*;

#[tokio::test]
async fn each_check_service_yields_a_token_bound_to_the_key() {
    let service = dev_service().await;
    let cases = [
        (with_hcaptcha("sim-pass-h1.YXBwLmV4YW1wbGU"), format!("hcap:{}", sim::HCAPTCHA_SITE_KEY)),
        (with_hcaptcha("10000000-aaaa-bbbb-cccc-000000000001"), format!("hcap:{}", sim::HCAPTCHA_SITE_KEY)),
        (with_recaptcha("sim-pass-r1.YXBwLmV4YW1wbGU.bG9naW4"), format!("recap:{}", sim::RECAPTCHA_SITE_KEY)),
        (with_fingerprint("sim-pass-f1"), format!("fp:{}", sim::FINGERPRINT_PUBLIC_API_KEY)),
    ];
    for (params, embed_key) in cases {
        let mut browser = Browser::new(&service).await;
        let response = browser.attest(&service, &params).await;
        let token = response.token();
        assert!(is_trusted(&token));
        let (header, claims) = decode(&token);
        assert_eq!(header, json!({"typ": "JWT", "alg": "HS256"}));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 120);
        assert_eq!(claims["ip"], "192.0.2.7");
        assert_eq!(claims["arc"].as_str().unwrap().len(), 10);
        let proof = browser.proof("GET", URL, |_| {});
        let thumbprint = approov_verify::dpop::Proof::parse(&proof).unwrap().thumbprint().to_string();
        assert_eq!(claims["cnf"], json!({"jkt": thumbprint}));
        let embed = claims["embed"].as_object().unwrap();
        assert_eq!(embed.keys().collect::<Vec<_>>(), [&embed_key]);
        let body = response.json();
        assert_eq!(body["token-lifetime"], 120);
        let server_time = body["server-time"].as_u64().unwrap();
        assert_eq!(body["expiries"], json!({"session": server_time + 7_200_000, embed_key: server_time + 7_200_000}));
        assert_eq!(response.header("cache-control"), "no-store");
        assert_eq!(response.header("x-content-type-options"), "nosniff");
        assert_eq!(response.header("access-control-allow-origin"), ORIGIN);
        assert_eq!(response.header("access-control-expose-headers"), "DPoP-Nonce, Date, Retry-After");
        assert!(!response.header("date").is_empty() && !response.header("dpop-nonce").is_empty());
    }
}

#[tokio::test]
async fn default_embeds_are_the_documented_ones() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let mut params = with_hcaptcha("sim-pass-all.YXBwLmV4YW1wbGU");
    params.extend(&with_recaptcha("sim-pass-all.YXBwLmV4YW1wbGU")[2..]);
    params.extend(&with_fingerprint("sim-pass-all")[2..]);
    let token = browser.attest(&service, &params).await.token();
    assert!(is_trusted(&token));
    let (_, claims) = decode(&token);
    let embed = &claims["embed"];
    for key in [format!("hcap:{}", sim::HCAPTCHA_SITE_KEY), format!("recap:{}", sim::RECAPTCHA_SITE_KEY)] {
        assert_eq!(embed[&key]["hostname"], "app.example");
        assert_eq!(
            names(&embed[&key]),
            BTreeMap::from([("challenge_ts".into(), "string"), ("hostname".into(), "string")])
        );
    }
    assert_eq!(
        embed[format!("fp:{}", sim::FINGERPRINT_PUBLIC_API_KEY)],
        json!({"visitorId": "visitor", "visits": [{"requestId": "sim-pass-all"}]})
    );
}

#[tokio::test]
async fn a_failed_check_yields_a_token_that_only_its_signature_tells_apart() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let good = browser.attest(&service, &with_hcaptcha("sim-pass-x.YXBwLmV4YW1wbGU")).await;
    for params in [
        with_hcaptcha("sim-fail-x"),
        with_hcaptcha("sim-low-x"),
        with_hcaptcha("sim-expired-x"),
        with_hcaptcha("sim-pass-x.YXBwLmV4YW1wbGU"),
        with_hcaptcha("not-a-token"),
        with_recaptcha("sim-fail-x"),
        with_recaptcha("sim-low-x"),
        with_fingerprint("sim-fail-x"),
        with_fingerprint("sim-low-x"),
        with_fingerprint("sim-expired-x"),
        with_fingerprint("1620127950391.unknown"),
    ] {
        let mut browser = Browser::new(&service).await;
        let response = browser.attest(&service, &params).await;
        let token = response.token();
        assert!(!is_trusted(&token), "{params:?}");
        let ((header, claims), (good_header, good_claims)) = (decode(&token), decode(&good.token()));
        assert_eq!(header, good_header);
        assert_eq!(names(&claims), names(&good_claims));
        assert_eq!(names(&response.json()), names(&good.json()));
        // The session stays a failed one.
        assert!(!is_trusted(&browser.attest(&service, &REFRESH).await.token()));
    }
}

#[tokio::test]
async fn an_identification_made_for_another_site_fails() {
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        account.allowed_origins = AllowedOrigins::parse([ORIGIN]).unwrap();
    });
    let service = service(config.await).await;
    // The simulator takes the page's host from the token: app.example, evil.example.
    for (request_id, passes) in [("sim-pass-u.YXBwLmV4YW1wbGU", true), ("sim-pass-u.ZXZpbC5leGFtcGxl", false)] {
        let mut browser = Browser::new(&service).await;
        let token = browser.attest(&service, &with_fingerprint(request_id)).await.token();
        assert_eq!(is_trusted(&token), passes, "{request_id}");
    }
}

#[tokio::test]
async fn one_failed_check_of_several_spoils_the_token() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let mut params = with_hcaptcha("sim-pass-m");
    params.extend(&with_recaptcha("sim-fail-m")[2..]);
    assert!(!is_trusted(&browser.attest(&service, &params).await.token()));
}

#[tokio::test]
async fn a_check_that_cannot_be_made_is_reported_without_a_token() {
    let service = dev_service().await;
    for (params, code) in [
        (with_hcaptcha("sim-error-e"), "hcap-token-check"),
        (with_recaptcha("sim-error-e"), "recap-token-check"),
        (with_fingerprint("sim-error-e"), "fp-tok-check"),
    ] {
        let mut browser = Browser::new(&service).await;
        let response = browser.attest(&service, &params).await;
        assert_eq!(response.status, 502);
        // What a check service says is for the log.
        assert_eq!(response.json(), json!({code: "unavailable"}));
    }
    let dead = dev_config(|config| {
        let sites = config.accounts.get_mut(dev::SITE_KEY).unwrap().checks.get_mut(&Provider::Hcaptcha).unwrap();
        for site in sites.sites.values_mut() {
            let SiteKind::Hcaptcha(hcaptcha) = &mut site.kind else { panic!("another provider's site") };
            hcaptcha.vendor.url = "http://127.0.0.1:9/siteverify?secret=hidden".parse().unwrap();
        }
    });
    let service = support::service(dead.await).await;
    let mut browser = Browser::new(&service).await;
    let response = browser.attest(&service, &with_hcaptcha("sim-pass-e")).await;
    assert_eq!(response.json(), json!({"hcap-token-check": "unavailable"}));
}

/// The simulators, each of whose responses waits until `together` requests are there.
async fn simulators_that_meet(together: usize) -> SocketAddr {
    let barrier = Arc::new(tokio::sync::Barrier::new(together));
    let meet = axum::middleware::from_fn(move |request: Request<Body>, next: axum::middleware::Next| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            next.run(request).await
        }
    });
    serve_on_free_port(sim::router().layer(meet)).await
}

#[tokio::test]
async fn checks_run_at_the_same_time() {
    let simulators = simulators_that_meet(3).await;
    let service = service(dev_config_with(simulators, |_| {})).await;
    let mut params = with_hcaptcha("sim-pass-c");
    params.extend(&with_recaptcha("sim-pass-c")[2..]);
    let identified = format!("sim-pass-{}xc", UnixTime::now().as_millis());
    params.extend(&with_fingerprint(&identified)[2..]);
    let mut browser = Browser::new(&service).await;
    assert!(is_trusted(&browser.attest(&service, &params).await.token()));
}

#[tokio::test]
async fn a_check_ends_within_its_time() {
    // Nobody meets the one request: the response never comes.
    let simulators = simulators_that_meet(2).await;
    let config = dev_config_with(simulators, |config| config.limits.check = Duration::from_millis(500));
    let service = service(config).await;
    let mut browser = Browser::new(&service).await;
    let response = browser.attest(&service, &with_hcaptcha("sim-pass-c")).await;
    assert_eq!(response.json(), json!({"hcap-token-check": "unavailable"}));
}

#[tokio::test]
async fn a_session_refreshes_without_another_check() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let params = with_hcaptcha("sim-pass-once");
    let first = browser.attest(&service, &params).await;
    let expiries = first.json()["expiries"].clone();
    // It is the session's already: had the simulator been asked again, which accepts a token once, these would fail.
    let again = browser.attest(&service, &params).await;
    assert!(is_trusted(&again.token()));
    let refreshed = browser.attest(&service, &REFRESH).await;
    assert!(is_trusted(&refreshed.token()));
    assert_eq!(refreshed.json()["expiries"], expiries, "the session does not grow");
    let (_, claims) = decode(&refreshed.token());
    assert!(claims["embed"].as_object().unwrap().contains_key(&format!("hcap:{}", sim::HCAPTCHA_SITE_KEY)));
}

#[tokio::test]
async fn a_different_result_is_checked_and_replaces_the_one_before() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    assert!(is_trusted(&browser.attest(&service, &with_hcaptcha("sim-pass-1")).await.token()));
    assert!(!is_trusted(&browser.attest(&service, &with_hcaptcha("sim-fail-2")).await.token()));
    assert!(!is_trusted(&browser.attest(&service, &REFRESH).await.token()));
    assert!(is_trusted(&browser.attest(&service, &with_hcaptcha("sim-pass-3")).await.token()));
    // Another service's result joins.
    let response = browser.attest(&service, &with_recaptcha("sim-pass-4")).await;
    let (_, claims) = decode(&response.token());
    assert_eq!(claims["embed"].as_object().unwrap().len(), 2);
    assert_eq!(response.json()["expiries"].as_object().unwrap().len(), 3);
}

#[tokio::test]
async fn a_failed_check_ends_what_older_refresh_tokens_give_without_a_word() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let good = browser.attest(&service, &with_hcaptcha("sim-pass-old")).await;
    assert!(is_trusted(&good.token()));
    let older = browser.refresh_token.clone();
    // Whether the client brings its refresh token along or hides that it has one.
    for (n, hidden) in [(1, false), (2, true)] {
        browser.refresh_token = older.clone().filter(|_| !hidden);
        assert!(!is_trusted(&browser.attest(&service, &with_hcaptcha(&format!("sim-fail-{n}"))).await.token()));
        let newest = browser.refresh_token.clone();
        browser.refresh_token = older.clone();
        for _ in 0..3 {
            let response = browser.attest(&service, &REFRESH).await;
            assert_eq!(response.status, 200, "{}", response.body);
            assert_eq!(names(&response.json()), names(&good.json()));
            assert!(!is_trusted(&response.token()), "an older refresh token still opens doors");
        }
        // A result of another check service does not bring the old one back.
        browser.refresh_token = older.clone();
        let mixed = browser.attest(&service, &with_recaptcha(&format!("sim-pass-mix{n}"))).await;
        assert!(!is_trusted(&mixed.token()));
        browser.refresh_token = newest;
        assert!(!is_trusted(&browser.attest(&service, &REFRESH).await.token()));
    }
    // Fresh results that pass make it good again.
    assert!(is_trusted(&browser.attest(&service, &with_hcaptcha("sim-pass-new")).await.token()));
    assert!(is_trusted(&browser.attest(&service, &REFRESH).await.token()));
}

#[tokio::test]
async fn a_refresh_token_serves_its_own_session_only() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    browser.attest(&service, &with_hcaptcha("sim-pass-own")).await;
    let mut thief = Browser::new(&service).await;
    thief.refresh_token = browser.refresh_token.clone();
    let response = thief.attest(&service, &REFRESH).await;
    assert_eq!((response.status.as_u16(), response.codes()), (401, vec!["aprv-invalid-refresh-token".to_owned()]));
    for bad in ["", "AQ", "nonsense"] {
        thief.refresh_token = Some(bad.to_owned());
        let response = thief.attest(&service, &REFRESH).await;
        assert_eq!(response.codes(), ["aprv-invalid-refresh-token"], "{bad}");
    }
}

#[tokio::test]
async fn a_session_ends_with_the_life_of_its_result() {
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        for site in account.checks.get_mut(&Provider::Hcaptcha).unwrap().sites.values_mut() {
            site.max_result_lifetime = Some(Duration::from_secs(300));
        }
    });
    let service = service(config.await).await;
    let mut browser = Browser::new(&service).await;
    let response = browser.attest(&service, &with_hcaptcha("sim-pass-short")).await;
    let body = response.json();
    assert_eq!(body["expiries"]["session"].as_u64().unwrap() - body["server-time"].as_u64().unwrap(), 300_000);
    service.clock_offset.store(300_000, Ordering::Relaxed);
    let session = browser.refresh_token.clone();
    assert_eq!(browser.attest(&service, &REFRESH).await.codes(), ["aprv-invalid-refresh-token"]);
    assert_eq!(
        browser.attest(&service, &with_hcaptcha("sim-pass-short")).await.codes(),
        ["aprv-invalid-refresh-token"],
        "the same result does not get a second life"
    );
    browser.refresh_token = session;
    assert!(is_trusted(&browser.attest(&service, &with_hcaptcha("sim-pass-next")).await.token()));
}

#[tokio::test]
async fn several_apis_get_their_tokens_in_one_request() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let mut params = with_hcaptcha("sim-pass-apis");
    params.push(("api", "Shapes.approov.io"));
    let response = browser.attest(&service, &params).await;
    let body = response.json();
    let tokens = body["tokens"].as_object().unwrap();
    assert_eq!(tokens.keys().collect::<Vec<_>>(), ["Shapes.approov.io", "api.example.com"], "named as requested");
    assert!(tokens.values().all(|token| is_trusted(token.as_str().unwrap())));
}

#[tokio::test]
async fn an_api_may_be_named_in_any_script() {
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        let api = account.apis["localhost"].clone();
        account.apis.insert("xn--bcher-kva.example".to_owned(), api);
    });
    let service = service(config.await).await;
    for (n, name) in ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"].into_iter().enumerate() {
        let mut browser = Browser::new(&service).await;
        let token = format!("sim-pass-idn{n}");
        let mut params = with_hcaptcha(&token);
        params[1].1 = name;
        let response = browser.attest(&service, &params).await;
        assert_eq!(response.json()["tokens"].as_object().unwrap().keys().collect::<Vec<_>>(), [name]);
    }
}

#[tokio::test]
async fn the_payload_hash_becomes_the_pay_claim() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let mut params = with_hcaptcha("sim-pass-pay");
    params.push(("payload", "71tnS3rSq2lanEWrKz4MoexiOMtv7w0fspfM8BAQKNU"));
    let (_, claims) = decode(&browser.attest(&service, &params).await.token());
    assert_eq!(claims["pay"], "71tnS3rSq2lanEWrKz4MoexiOMtv7w0fspfM8BAQKNU=");
}

#[tokio::test]
async fn a_replayed_proof_is_refused() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let proof = browser.proof("POST", URL, |_| {});
    let response = browser.attest_with(&service, &with_hcaptcha("sim-pass-replay"), proof.clone()).await;
    assert_eq!(response.status, 200);
    let response = browser.attest_with(&service, &REFRESH, proof).await;
    assert_eq!((response.status.as_u16(), response.codes()), (401, vec!["aprv-invalid-dpop-token".to_owned()]));
    assert!(response.header("www-authenticate").starts_with("DPoP error="));
}

#[tokio::test]
async fn a_proof_that_does_not_fit_is_refused_and_uses_nothing_up() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let other = Browser::new(&service).await;
    let nonce = browser.nonce.clone();
    let jwk = browser.jwk();
    let proofs = [
        ("wrong method", browser.proof("GET", URL, |_| {})),
        ("wrong url", browser.proof("POST", "http://web.example:8087/other", |_| {})),
        ("wrong host", browser.proof("POST", "http://evil.example/attest", |_| {})),
        ("wrong scheme", browser.proof("POST", "https://web.example:8087/attest", |_| {})),
        ("no jti", browser.proof("POST", URL, |claims| drop(claims.as_object_mut().unwrap().remove("jti")))),
        ("another's key", {
            let claims = json!({"jti": "x", "htm": "POST", "htu": URL, "iat": 1, "nonce": nonce});
            other.sign(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}), &claims)
        }),
        ("unsigned", {
            let proof = browser.proof("POST", URL, |_| {});
            format!("{}.", proof.rsplit_once('.').unwrap().0)
        }),
        ("not a proof", "x".to_owned()),
        ("empty", String::new()),
    ];
    let params = with_hcaptcha("sim-pass-unused");
    for (what, proof) in proofs {
        let response = browser.attest_with(&service, &params, proof).await;
        assert_eq!(response.status, 401, "{what}");
        assert_eq!(response.codes(), ["aprv-invalid-dpop-token"], "{what}");
        assert!(!response.header("dpop-nonce").is_empty(), "{what}");
    }
    for nonce in [json!(null), json!(""), json!("wrong"), json!(7), json!({"a": 1})] {
        let proof = browser.proof("POST", URL, |claims| claims["nonce"] = nonce.clone());
        let response = browser.attest_with(&service, &params, proof).await;
        assert_eq!(
            (response.status.as_u16(), response.codes()),
            (401, vec!["aprv-invalid-nonce".to_owned()]),
            "{nonce}"
        );
        assert!(response.header("www-authenticate").contains("use_dpop_nonce"));
    }
    assert!(is_trusted(&browser.attest(&service, &params).await.token()), "the result was not consumed");
}

#[tokio::test]
async fn two_proofs_are_none() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let (one, two) = (browser.proof("GET", URL, |_| {}), browser.proof("GET", URL, |_| {}));
    let request = Request::get("/attest").header("host", HOST).header("dpop", one).header("dpop", two);
    let response = send(&service, request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.codes(), ["aprv-invalid-dpop-token"]);
}

#[tokio::test]
async fn a_wrong_clock_in_the_browser_does_not_matter() {
    let service = dev_service().await;
    for iat in [0, 1_000_000_000, 4_000_000_000_u64] {
        let mut browser = Browser::new(&service).await;
        let proof = browser.proof("POST", URL, |claims| claims["iat"] = iat.into());
        let token = format!("sim-pass-clock{iat}");
        assert_eq!(browser.attest_with(&service, &with_hcaptcha(&token), proof).await.status, 200, "{iat}");
    }
}

#[tokio::test]
async fn a_nonce_request_needs_a_sound_proof_and_gives_a_nonce_either_way() {
    let service = dev_service().await;
    let mut browser = Browser::default();
    let response = browser.ask_nonce(&service).await;
    assert_eq!((response.status.as_u16(), response.body.as_str()), (204, ""));
    let request = Request::get("/attest").header("host", HOST).body(Body::empty()).unwrap();
    let response = send(&service, request).await;
    assert_eq!((response.status.as_u16(), response.codes()), (401, vec!["aprv-invalid-dpop-token".to_owned()]));
    assert!(!response.header("dpop-nonce").is_empty());
}

#[tokio::test]
async fn one_preflight_covers_all() {
    let service = dev_service().await;
    let request = Request::options("/attest")
        .header("host", HOST)
        .header("origin", ORIGIN)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,dpop");
    let response = send(&service, request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", ORIGIN),
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-allow-headers", "dpop, content-type"),
        ("access-control-max-age", "7200"),
        ("vary", "Access-Control-Request-Headers"),
        ("dpop-nonce", ""),
        ("access-control-allow-credentials", ""),
    ] {
        assert_eq!(response.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn a_page_learns_that_its_origin_is_not_allowed() {
    const STRANGER: &str = "https://evil.example";
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        let mut second = account.clone();
        account.allowed_origins = AllowedOrigins::parse(["*.example.com"]).unwrap();
        second.site_key = "second".into();
        second.allowed_origins = AllowedOrigins::parse([ORIGIN]).unwrap();
        config.accounts.insert("second".into(), second);
    });
    let service = service(config.await).await;
    for origin in ["https://a.b.example.com", ORIGIN, STRANGER, "null"] {
        let request = Request::options("/attest").header("host", HOST).header("origin", origin);
        let preflight = send(&service, request.body(Body::empty()).unwrap()).await;
        assert_eq!(preflight.status, 204, "{origin}");
        assert_eq!(preflight.header("access-control-allow-origin"), origin);
    }
    // Any other way than by the request itself, a browser reports a network error to the page.
    let mut browser = Browser::new(&service).await;
    let proof = browser.proof("POST", URL, |_| {});
    let request = Request::post("/attest").header("host", HOST).header("origin", STRANGER).header("dpop", proof);
    let form =
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(with_hcaptcha("sim-pass-stranger")).finish();
    let refused = send(&service, request.body(Body::from(form)).unwrap()).await;
    assert_eq!((refused.status.as_u16(), refused.json()), (403, json!({"aprv-origin-not-allowed": STRANGER})));
    assert_eq!(refused.header("access-control-allow-origin"), STRANGER);
    // ORIGIN is the second account's, and not the first one's.
    let response = browser.attest(&service, &with_hcaptcha("sim-pass-origin")).await;
    assert_eq!((response.status.as_u16(), response.json()), (403, json!({"aprv-origin-not-allowed": ORIGIN})));
    assert_eq!(response.header("access-control-allow-origin"), ORIGIN);
    let mut params = with_hcaptcha("sim-pass-origin");
    params[0].1 = "second";
    assert!(is_trusted(&browser.attest(&service, &params).await.token()));
}

#[tokio::test]
async fn a_rate_limit_is_kept_per_site() {
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        for site in account.checks.get_mut(&Provider::Hcaptcha).unwrap().sites.values_mut() {
            site.rate_limit = Some(2);
        }
    });
    let service = service(config.await).await;
    // The service's clock is set back to the begin of a minute before each visit: no minute ends in the middle.
    let now = UnixTime::now();
    let start = now.plus(Duration::from_secs(seconds_to_next_minute(now))).as_millis();
    let mut responses = Vec::new();
    for n in 0..5 {
        service.clock_offset.store(start - UnixTime::now().as_millis(), Ordering::Relaxed);
        let mut browser = Browser::new(&service).await;
        let token = format!("sim-pass-rate{n}");
        responses.push(browser.attest(&service, &with_hcaptcha(&token)).await);
        // Refreshes need no check and are not limited.
        if browser.refresh_token.is_some() {
            assert_eq!(browser.attest(&service, &REFRESH).await.status, 200);
        }
    }
    let limited: Vec<_> = responses.iter().filter(|response| response.status == 429).collect();
    assert_eq!(limited.len(), 3);
    for response in limited {
        assert_eq!(response.codes(), ["aprv-rate-limit"]);
        assert!((1..=60).contains(&response.header("retry-after").parse::<u64>().unwrap()));
    }
    let mut browser = Browser::new(&service).await;
    assert_eq!(browser.attest(&service, &with_recaptcha("sim-pass-rate")).await.status, 200);
}

#[tokio::test]
async fn a_session_survives_a_restart_and_a_reload() {
    let config = dev_config(|_| {}).await;
    let service = support::service(config.clone()).await;
    let mut browser = Browser::new(&service).await;
    browser.attest(&service, &with_hcaptcha("sim-pass-restart")).await;
    service.reload(config.clone()).unwrap();
    assert_eq!(browser.attest(&service, &REFRESH).await.status, 200, "nonces survive a reload");
    let restarted = support::service(config).await;
    let response = browser.attest(&restarted, &REFRESH).await;
    assert_eq!(response.codes(), ["aprv-invalid-nonce"], "a new process cannot know what the old one saw");
    assert_eq!(browser.attest(&restarted, &REFRESH).await.status, 200);
}

#[tokio::test]
async fn the_proxy_in_front_is_believed_only_as_configured() {
    let networks =
        |networks: &[&str]| TrustedProxies::Networks(networks.iter().map(|network| network.parse().unwrap()).collect());
    for (proxies, forwarded, ip) in [
        (networks(&[]), "198.51.100.1", "192.0.2.7"),
        (networks(&["10.0.0.0/8"]), "198.51.100.1", "192.0.2.7"),
        (networks(&["192.0.2.0/24"]), "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        (networks(&["192.0.2.0/24", "10.0.0.0/8"]), "203.0.113.9, 198.51.100.1, 10.3.2.1", "198.51.100.1"),
        (networks(&["192.0.2.0/24"]), "\u{e9}, 198.51.100.1", "198.51.100.1"),
        (networks(&["192.0.2.0/24"]), "[2001:db8::1]", "2001:db8::1"),
        (TrustedProxies::Count(2), "203.0.113.9, 198.51.100.1", "203.0.113.9"),
        (TrustedProxies::Count(3), "203.0.113.9, 198.51.100.1", "192.0.2.7"),
    ] {
        let config = dev_config(|config| {
            config.trusted_proxies = proxies.clone();
            config.public_urls = ["https://other.example", "https://public.example/web"].map(public_url).to_vec();
        });
        let service = service(config.await).await;
        let mut browser = Browser::default();
        let public = "https://public.example/web/attest";
        let proof = browser.proof("GET", public, |_| {});
        let request = Request::get("/attest").header("host", "internal:1").header("dpop", proof);
        let response = send(&service, request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status, 204, "the proof is about the public URL");
        browser.keep_nonce(&response);
        let proof = browser.proof("POST", public, |_| {});
        let body = format!(
            "approov-site-key={}&api=localhost&hcaptcha-site-key={}&hcaptcha-token=sim-pass-p",
            dev::SITE_KEY,
            sim::HCAPTCHA_SITE_KEY
        );
        let request = Request::post("/attest")
            .header("host", "internal:1")
            .header("dpop", proof)
            .header("x-forwarded-for", forwarded.as_bytes());
        let response = send(&service, request.body(Body::from(body)).unwrap()).await;
        let (_, claims) = decode(&response.token());
        assert_eq!(claims["ip"], ip, "{proxies:?} {forwarded}");
    }
}

#[tokio::test]
async fn whole_results_travel_in_encrypted_tokens_only() {
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        account.jwe_secret = Some(KeptSecret::here(SecretKind::Key32, secret()).into());
        account.apis.get_mut("localhost").unwrap().jwe = true;
        for site in account.checks.values_mut().flat_map(|check| check.sites.values_mut()) {
            site.embed_result = true;
        }
    });
    let service = service(config.await).await;
    let verifier = approov_verify::Verifier::builder()
        .secret(&secret())
        .jwe_secret(&secret())
        .proof(approov_verify::ProofPolicy::Optional)
        .build()
        .unwrap();
    let mut browser = Browser::new(&service).await;
    let mut params = with_hcaptcha("sim-pass-whole");
    params.extend(&with_fingerprint("sim-pass-whole")[2..]);
    params.push(("api", "localhost"));
    let first = browser.attest(&service, &params).await.json();
    let mut refresh = REFRESH.to_vec();
    refresh.push(("api", "localhost"));
    let refreshed = browser.attest(&service, &refresh).await.json();
    for response in [first, refreshed] {
        for (api, whole) in [("localhost", true), ("api.example.com", false)] {
            let mut headers = axum::http::HeaderMap::new();
            headers.insert(approov_verify::TOKEN_HEADER, response["tokens"][api].as_str().unwrap().parse().unwrap());
            let request = approov_verify::Request {
                method: "GET",
                url: "https://localhost/",
                headers: &headers,
                body: approov_verify::Body::Unread,
                binding: None,
            };
            let claims = verifier.verify(&request, approov_verify::time::UnixTime::now()).await.unwrap().claims;
            let hcaptcha = &claims.embed.hcaptcha[sim::HCAPTCHA_SITE_KEY];
            assert_eq!(hcaptcha.full.contains_key("success"), whole, "{api}");
            let fingerprint = &claims.embed.fingerprint[sim::FINGERPRINT_PUBLIC_API_KEY];
            assert_eq!(fingerprint.full["visits"][0].get("browserDetails").is_some(), whole, "{api}");
            assert_eq!(fingerprint.visitor_id, "visitor");
        }
    }
}

#[tokio::test]
async fn tokens_name_their_issuer_and_audience_where_the_configuration_does() {
    let config = dev_config(|config| {
        let account = config.accounts.values_mut().next().unwrap();
        account.issuer = Some("https://web.example.com/site".to_owned());
        account.apis.get_mut("api.example.com").unwrap().audience = Some("api.example.com".to_owned());
    })
    .await;
    let service = service(config).await;
    let mut browser = Browser::new(&service).await;
    for token in ["sim-pass-iss-1.YXBwLmV4YW1wbGU", "sim-fail-iss-2"] {
        let response = browser.attest(&service, &with_hcaptcha(token)).await;
        let (_, claims) = decode(&response.token());
        assert_eq!(
            (&claims["iss"], &claims["aud"]),
            (&json!("https://web.example.com/site"), &json!("api.example.com"))
        );
    }
    // Of an account that names none, tokens have none.
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let (_, claims) = decode(&browser.attest(&service, &with_hcaptcha("sim-pass-iss-3.YXBwLmV4YW1wbGU")).await.token());
    assert!(claims.get("iss").is_none() && claims.get("aud").is_none(), "{claims}");
}
