//! ALTCHA, the built-in check: challenges with the nonce, solutions that are used once, challenges for the official widget.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use altcha::{Challenge, Payload, SolveChallengeOptions, solve_challenge};
use approov_web_service::attest::Service;
use approov_web_service::check::altcha as altcha_check;
use approov_web_service::check::altcha::challenge::Difficulty;
use approov_web_service::check::{Provider, SiteKind};
use approov_web_service::dev;
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use support::*;

async fn service_with(change: impl FnOnce(&mut altcha_check::Site)) -> Arc<Service> {
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        let site = account.checks.get_mut(&Provider::Altcha).unwrap().sites.get_mut(dev::ALTCHA_SITE_KEY).unwrap();
        let SiteKind::Altcha(site) = &mut site.kind else { panic!("another provider's site") };
        change(site);
    });
    service(config.await).await
}

async fn service_of_one() -> Arc<Service> {
    service_with(|site| site.difficulty = Difficulty { cost: 50, zeros: 1 }).await
}

/// Asks for a nonce and the challenge of a site.
async fn ask(browser: &mut Browser, service: &Arc<Service>, asked: Value) -> Response {
    browser.nonce.clear();
    browser.ask_nonce_with(service, |claims| claims["aprv"] = asked).await
}

async fn challenge(browser: &mut Browser, service: &Arc<Service>) -> Challenge {
    let asked = json!({"site-key": dev::SITE_KEY, "altcha-site-key": dev::ALTCHA_SITE_KEY});
    let response = ask(browser, service, asked).await;
    assert_eq!((response.status.as_u16(), response.header("content-type")), (200, "application/json"));
    assert!(!response.header("dpop-nonce").is_empty());
    serde_json::from_value(response.json()["altcha"].clone()).unwrap()
}

fn payload(challenge: Challenge) -> String {
    let solution = solve_challenge(SolveChallengeOptions::new(&challenge)).unwrap().unwrap();
    STANDARD.encode(json!(Payload { challenge, solution }).to_string())
}

fn with_altcha(payload: &str) -> Vec<(&str, &str)> {
    vec![
        ("approov-site-key", dev::SITE_KEY),
        ("api", "api.example.com"),
        ("altcha-site-key", dev::ALTCHA_SITE_KEY),
        ("altcha-payload", payload),
    ]
}

#[tokio::test]
async fn a_challenge_comes_with_the_nonce_and_its_solution_gives_a_token() {
    let service = service_of_one().await;
    let mut browser = Browser::default();
    let challenge = challenge(&mut browser, &service).await;
    let data = challenge.parameters.data.clone().unwrap();
    assert_eq!(
        (data["use"].as_str(), data["site"].as_str()),
        (Some("check"), Some("dev-approov-site-key:altcha:dev-altcha-site-key"))
    );
    let granted = browser.attest(&service, &with_altcha(&payload(challenge))).await;
    assert_eq!(granted.status, 200, "{}", granted.body);
    let token = granted.json()["tokens"]["api.example.com"].as_str().unwrap().to_owned();
    assert!(is_trusted(&token));
    let embedded = &decode(&token).1["embed"]["altcha:dev-altcha-site-key"];
    assert_eq!(names(embedded).into_keys().collect::<Vec<_>>(), ["challenge_ts", "hostname"]);
    assert_eq!(embedded["hostname"], "app.example");
    assert!(granted.json()["expiries"]["altcha:dev-altcha-site-key"].is_number());
    assert_eq!(browser.attest(&service, &REFRESH).await.status, 200);
}

#[tokio::test]
async fn who_does_not_ask_or_may_not_have_one_gets_a_nonce_alone() {
    let service = service(
        dev_config(|config| {
            let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
            account.allowed_origins =
                approov_web_service::config::AllowedOrigins::parse(["https://other.example"]).unwrap();
        })
        .await,
    )
    .await;
    let open = service_of_one().await;
    let mut browser = Browser::default();
    for (service, asked) in [
        (&open, json!(null)),
        (&open, json!("x")),
        (&open, json!({})),
        (&open, json!({"site-key": dev::SITE_KEY})),
        (&open, json!({"site-key": "nobody", "altcha-site-key": dev::ALTCHA_SITE_KEY})),
        (&open, json!({"site-key": dev::SITE_KEY, "altcha-site-key": "other"})),
        (&open, json!({"site-key": dev::SITE_KEY, "altcha-site-key": 1})),
        (&service, json!({"site-key": dev::SITE_KEY, "altcha-site-key": dev::ALTCHA_SITE_KEY})),
    ] {
        let response = ask(&mut browser, service, asked.clone()).await;
        assert_eq!((response.status.as_u16(), response.body.as_str()), (204, ""), "{asked}");
        assert!(!browser.nonce.is_empty());
    }
}

/// The challenge that a refusal brings.
fn another(response: &Response) -> Challenge {
    assert_eq!((response.status.as_u16(), response.header("retry-after")), (429, "1"), "{}", response.body);
    let detail = response.json()["aprv-work-required"].as_str().unwrap().to_owned();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(detail).unwrap()).unwrap()
}

#[tokio::test]
async fn a_solution_that_does_not_count_brings_another_challenge_and_no_decoy() {
    let service = service_of_one().await;
    let mut browser = Browser::default();
    let solved = payload(challenge(&mut browser, &service).await);
    let mut other = Browser::default();
    challenge(&mut other, &service).await;
    // Another key's.
    let next = another(&other.attest(&service, &with_altcha(&solved)).await);
    assert_eq!(other.attest(&service, &with_altcha(&payload(next))).await.status, 200);
    // Its own key's, which is not used up by that.
    assert_eq!(browser.attest(&service, &with_altcha(&solved)).await.status, 200);
    // A wrong solution, and one of another service.
    let mut wrong = challenge(&mut browser, &service).await;
    wrong.parameters.salt = "00".to_owned();
    browser.refresh_token = None;
    another(&browser.attest(&service, &with_altcha(&payload(wrong))).await);
    let mut of_other = challenge(&mut browser, &service_of_one().await).await;
    of_other.signature = Some("00".to_owned());
    challenge(&mut browser, &service).await;
    another(&browser.attest(&service, &with_altcha(&payload(of_other))).await);
    let metrics = service.metrics.render(service.now());
    assert!(metrics.contains("approov_checks_total{service=\"altcha\",result=\"unknown\"}"), "{metrics}");
}

#[tokio::test]
async fn a_challenge_is_solved_once_however_its_payload_is_written() {
    let service = service_of_one().await;
    let mut browser = Browser::default();
    let challenge = challenge(&mut browser, &service).await;
    let solution = solve_challenge(SolveChallengeOptions::new(&challenge)).unwrap().unwrap();
    let write = |more: Value| {
        let mut payload = json!(Payload { challenge: challenge.clone(), solution: solution.clone() });
        payload["solution"]["time"] = more.clone();
        payload["more"] = more;
        STANDARD.encode(payload.to_string())
    };
    let first = browser.attest(&service, &with_altcha(&write(json!(1)))).await;
    assert_eq!(first.status, 200, "{}", first.body);
    // The same key may send it again, for a response that was lost: the same outcome, no longer than before.
    browser.refresh_token = None;
    let again = browser.attest(&service, &with_altcha(&write(json!(2)))).await;
    let expiry = |response: &Response| response.json()["expiries"]["altcha:dev-altcha-site-key"].clone();
    assert_eq!((again.status.as_u16(), expiry(&again)), (200, expiry(&first)));
    let metrics = service.metrics.render(service.now());
    assert!(metrics.contains("approov_checks_total{service=\"altcha\",result=\"passed\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn what_is_no_payload_is_an_illegal_parameter() {
    let service = service_of_one().await;
    let mut browser = Browser::default();
    let solved = challenge(&mut browser, &service).await;
    let mut text = json!(Payload {
        solution: solve_challenge(SolveChallengeOptions::new(&solved)).unwrap().unwrap(),
        challenge: solved
    });
    text["solution"]["counter"] = "7".into();
    for bad in [STANDARD.encode(text.to_string()), STANDARD.encode("{}"), "not-base64!".to_owned(), "A".repeat(8193)] {
        let response = browser.attest(&service, &with_altcha(&bad)).await;
        assert_eq!(response.status, 400);
        assert_eq!(response.json()["rqst-illegal-params"], "altcha-payload");
    }
}

#[tokio::test]
async fn the_official_widget_gets_challenges_of_sites_that_are_for_it() {
    let get = async |service: &Arc<Service>, query: &str| {
        let request = Request::get(format!("/altcha{query}"))
            .header("host", HOST)
            .header("origin", ORIGIN)
            .body(Body::empty())
            .unwrap();
        send_from(service, request, IP).await
    };
    let service = service_of_one().await;
    let query = format!("?site-key={}", dev::ALTCHA_SITE_KEY);
    let response = get(&service, &query).await;
    assert_eq!((response.status.as_u16(), response.header("content-type")), (200, "application/json"));
    assert_eq!(response.header("cache-control"), "no-store");
    assert_eq!(response.header("access-control-allow-origin"), ORIGIN);
    let challenge: Challenge = serde_json::from_str(&response.body).unwrap();
    let solved = payload(challenge);
    let mut first = Browser::new(&service).await;
    assert_eq!(first.attest(&service, &with_altcha(&solved)).await.status, 200);
    // Whoever comes second.
    let mut second = Browser::new(&service).await;
    another(&second.attest(&service, &with_altcha(&solved)).await);
    for (query, code) in [("", "altcha-empty-site-key"), ("?site-key=x", "altcha-site-key-not-found")] {
        assert_eq!(get(&service, query).await.codes(), [code], "{query}");
    }
    let closed = service_with(|site| site.widget = false).await;
    assert_eq!(get(&closed, &query).await.codes(), ["altcha-site-key-not-found"]);
    let mut browser = Browser::new(&closed).await;
    another(&browser.attest(&closed, &with_altcha(&solved)).await);
}
