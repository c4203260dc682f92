//! Every simulated check service, from the browser's result to the token, and the outcomes that a site key can choose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod support;

use approov_web_service::dev::{self, sim};
use serde_json::{Value, json};
use support::*;

/// The parameters with the site key and the result, and the simulated site.
const CAPTCHAS: [([&str; 2], &str); 5] = [
    (["hcaptcha-site-key", "hcaptcha-token"], sim::HCAPTCHA_SITE_KEY),
    (["recaptcha-site-key", "recaptcha-token"], sim::RECAPTCHA_SITE_KEY),
    (["recaptcha-site-key", "recaptcha-token"], sim::RECAPTCHA_ENTERPRISE_SITE_KEY),
    (["turnstile-site-key", "turnstile-token"], sim::TURNSTILE_SITE_KEY),
    (["friendly-site-key", "friendly-response"], sim::FRIENDLY_SITE_KEY),
];

/// A result as a check service's script gives it: the parameters of a request.
fn result<'a>(key: (&'a str, &'a str), more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut params = vec![("approov-site-key", dev::SITE_KEY), ("api", "api.example.com"), key];
    params.extend(more);
    params
}

async fn is_passed(params: &[(&str, &str)]) -> bool {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    is_trusted(&browser.attest(&service, params).await.token())
}

#[tokio::test]
async fn every_simulated_service_passes_and_fails() {
    for (names, key) in CAPTCHAS {
        for (outcome, passes) in [("pass", true), ("fail", false)] {
            // The site of this outcome, too.
            for key in [key.to_owned(), sim::with_outcome(key, outcome)] {
                let token = format!("sim-{outcome}-made-by-hand");
                let params = result((names[0], &key), &[(names[1], &token)]);
                assert_eq!(is_passed(&params).await, passes, "{key} {token}");
            }
        }
    }
}

#[tokio::test]
async fn bots_fail_wherever_somebody_says_so() {
    for (names, key) in CAPTCHAS {
        assert!(!is_passed(&result((names[0], key), &[(names[1], "sim-bot-made-by-hand")])).await, "{key}");
    }
    assert!(!is_passed(&with_fingerprint("sim-bot-f1")).await);
}

/// What the agent v4 of the simulators gives a page.
async fn identify(address: std::net::SocketAddr, outcome: &str) -> Value {
    let url = format!("http://{address}/sim/fingerprint/v4/{}", sim::FINGERPRINT_PUBLIC_API_KEY);
    let body = json!({"outcome": outcome, "visitor": "simVisitor", "url": format!("{ORIGIN}/login")});
    let response = reqwest::Client::new().post(url).body(body.to_string()).send().await.unwrap();
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_sealed_result_needs_no_server() {
    let address = simulators().await;
    // Nobody listens there.
    let service = service(dev_config_with("127.0.0.1:9".parse().unwrap(), |_| {})).await;
    for (outcome, passed) in [("pass", true), ("low", false), ("bot", false), ("expired", false)] {
        let made = identify(address, outcome).await;
        let params = result(
            ("fingerprintjs-token", sim::FINGERPRINT_PUBLIC_API_KEY),
            &[
                ("fingerprintjs-request-id", made["event_id"].as_str().unwrap()),
                ("fingerprintjs-sealed-result", made["sealed_result"].as_str().unwrap()),
            ],
        );
        let mut browser = Browser::new(&service).await;
        let token = browser.attest(&service, &params).await.token();
        assert_eq!(is_trusted(&token), passed, "{outcome}");
    }
}

#[tokio::test]
async fn what_the_agent_v4_made_is_looked_up_by_the_server_api_v4() {
    use approov_web_service::check::{Provider, SiteKind, fingerprint};
    let address = simulators().await;
    let service = service(dev_config_with(address, |config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        for site in account.checks.get_mut(&Provider::Fingerprint).unwrap().sites.values_mut() {
            let SiteKind::Fingerprint(site) = &mut site.kind else { panic!("another check") };
            site.api = fingerprint::Api::V4;
            site.vendor.url = format!("http://{address}/sim/fingerprint/v4/").parse().unwrap();
            site.sealed_key = None;
        }
    }))
    .await;
    for (outcome, passed) in [("pass", true), ("fail", false), ("low", false), ("bot", false), ("expired", false)] {
        let made = identify(address, outcome).await;
        let id = made["event_id"].as_str().unwrap();
        let params = result(
            ("fingerprintjs-token", sim::FINGERPRINT_PUBLIC_API_KEY),
            &[("fingerprintjs-request-id", id), ("fingerprintjs-visitor-id", "simVisitor")],
        );
        let mut browser = Browser::new(&service).await;
        assert_eq!(is_trusted(&browser.attest(&service, &params).await.token()), passed, "{outcome}");
    }
    let mut browser = Browser::new(&service).await;
    assert!(is_trusted(&browser.attest(&service, &with_fingerprint("sim-pass-of-agent-v3")).await.token()));
}
