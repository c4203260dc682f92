//! Checks that are only watched, groups of checks of which one must come, and alarms about what is configured.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use approov_web_service::attest::Service;
use approov_web_service::check::{Mode, Provider, SiteKind};
use approov_web_service::config::Account;
use approov_web_service::dev::{self, sim};
use serde_json::{Value, json};
use support::*;

/// A service whose account has hCaptcha and reCAPTCHA, and what a test changes.
async fn service_with(change: impl FnOnce(&mut Account)) -> Arc<Service> {
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        account.checks.retain(|provider, _| matches!(provider, Provider::Hcaptcha | Provider::Recaptcha));
        change(account);
    });
    service(config.await).await
}

fn watch(account: &mut Account, provider: Provider) {
    account.checks.get_mut(&provider).unwrap().mode = Mode::Monitor;
}

fn both<'a>(hcaptcha: &'a str, recaptcha: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut params = with_hcaptcha(hcaptcha);
    params.extend(&with_recaptcha(recaptcha)[2..]);
    params
}

/// Whether a response's token is one that backends accept, and what it says of watched checks.
fn token(response: &Response) -> (bool, Value) {
    assert_eq!(response.status, 200, "{}", response.body);
    let token = response.json()["tokens"]["api.example.com"].as_str().unwrap().to_owned();
    (is_trusted(&token), decode(&token).1["monitor"].clone())
}

fn counted(service: &Service, sample: &str) -> bool {
    service.metrics.render(service.now()).lines().any(|line| line == sample)
}

const HCAP: &str = "hcap:10000000-ffff-ffff-ffff-000000000001";

#[tokio::test]
async fn what_a_watched_check_would_refuse_passes_and_is_recorded() {
    let service = service_with(|account| watch(account, Provider::Hcaptcha)).await;
    let mut browser = Browser::new(&service).await;
    let failed = browser.attest(&service, &both("sim-fail-m1", "sim-pass-m1")).await;
    assert_eq!(token(&failed), (true, json!([HCAP])));
    // The session remembers.
    assert_eq!(token(&browser.attest(&service, &REFRESH).await), (true, json!([HCAP])));
    assert!(counted(&service, "approov_monitored_total{service=\"hcaptcha\",result=\"not-accepted\"} 1"));
    let passed = Browser::new(&service).await.attest(&service, &both("sim-pass-m2", "sim-pass-m2")).await;
    assert_eq!(token(&passed), (true, Value::Null));
    // The other check is no less than it was.
    let refused = Browser::new(&service).await.attest(&service, &both("sim-pass-m3", "sim-fail-m3")).await;
    assert!(!token(&refused).0);
}

#[tokio::test]
async fn a_watched_check_locks_nobody_out_and_lets_nobody_in() {
    let service = service_with(|account| {
        watch(account, Provider::Hcaptcha);
        account.checks.get_mut(&Provider::Hcaptcha).unwrap().required = true;
    })
    .await;
    // Missing, although it is required; unavailable.
    let missing = Browser::new(&service).await.attest(&service, &with_recaptcha("sim-pass-w1")).await;
    assert_eq!(token(&missing), (true, json!(["hcap"])));
    let unavailable = Browser::new(&service).await.attest(&service, &both("sim-error-w2", "sim-pass-w2")).await;
    assert_eq!(token(&unavailable), (true, json!(["hcap"])));
    assert!(counted(&service, "approov_monitored_total{service=\"hcaptcha\",result=\"missing\"} 1"));
    assert!(counted(&service, "approov_monitored_total{service=\"hcaptcha\",result=\"unavailable\"} 1"));
    // Its result alone is no check that somebody has passed, whatever it is.
    for result in ["sim-pass-w3", "sim-fail-w4"] {
        let alone = Browser::new(&service).await.attest(&service, &with_hcaptcha(result)).await;
        assert_eq!(alone.codes(), ["aprv-no-web-protect-params"]);
    }
    // As often as one likes.
    for n in 0..30 {
        let failed = format!("sim-fail-w5-{n}");
        let response = Browser::new(&service).await.attest(&service, &both(&failed, &format!("sim-pass-w5-{n}"))).await;
        assert!(token(&response).0, "{n}");
    }
}

#[tokio::test]
async fn with_watched_checks_alone_whoever_asks_gets_tokens() {
    let service = service_with(|account| {
        watch(account, Provider::Hcaptcha);
        watch(account, Provider::Recaptcha);
    })
    .await;
    let mut browser = Browser::new(&service).await;
    assert_eq!(token(&browser.attest(&service, &REFRESH).await), (true, Value::Null));
    assert_eq!(token(&browser.attest(&service, &REFRESH).await), (true, Value::Null));
    let failed = Browser::new(&service).await.attest(&service, &with_hcaptcha("sim-fail-a")).await;
    assert_eq!(token(&failed), (true, json!([HCAP])));
}

#[tokio::test]
async fn what_passed_since_it_was_watched_passes_no_longer_once_it_is_enforced() {
    let service = service_with(|account| watch(account, Provider::Hcaptcha)).await;
    let mut browser = Browser::new(&service).await;
    assert!(token(&browser.attest(&service, &both("sim-fail-e1", "sim-pass-e1")).await).0);
    let mut without = Browser::new(&service).await;
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        account.checks.retain(|provider, _| matches!(provider, Provider::Hcaptcha | Provider::Recaptcha));
    });
    service.reload(config.await).unwrap();
    // The session, and the same results sent again.
    assert_eq!(token(&browser.attest(&service, &REFRESH).await), (false, Value::Null));
    browser.refresh_token = None;
    assert_eq!(token(&browser.attest(&service, &both("sim-fail-e1", "sim-pass-e1")).await), (false, Value::Null));
    assert_eq!(without.attest(&service, &REFRESH).await.codes(), ["aprv-no-web-protect-params"]);
}

#[tokio::test]
async fn a_session_without_results_ends_with_the_checks_that_were_watched() {
    let service = service_with(|account| {
        watch(account, Provider::Hcaptcha);
        watch(account, Provider::Recaptcha);
    })
    .await;
    let mut browser = Browser::new(&service).await;
    assert!(token(&browser.attest(&service, &REFRESH).await).0);
    let config = dev_config(|config| config.accounts.get_mut(dev::SITE_KEY).unwrap().checks.clear());
    service.reload(config.await).unwrap();
    assert_ne!(browser.attest(&service, &REFRESH).await.status, 200);
}

#[tokio::test]
async fn a_watched_check_has_no_limit_that_stops_anybody() {
    let service = service_with(|account| {
        watch(account, Provider::Hcaptcha);
        let check = account.checks.get_mut(&Provider::Hcaptcha).unwrap();
        check.sites.values_mut().for_each(|site| site.rate_limit = Some(1));
    })
    .await;
    for n in 0..3 {
        let params = (format!("sim-pass-l{n}"), format!("sim-pass-l{n}"));
        assert!(token(&Browser::new(&service).await.attest(&service, &both(&params.0, &params.1)).await).0);
    }
    // Nor does it cost the site more than that (a minute may have ended in between).
    let limited = |times: u32| {
        counted(&service, &format!("approov_monitored_total{{service=\"hcaptcha\",result=\"limited\"}} {times}"))
    };
    assert!(limited(2) || limited(1));
}

#[tokio::test]
async fn one_of_a_group_must_come_and_all_that_come_must_pass() {
    let service = service(
        dev_config(|config| {
            let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
            account.any_of = vec![Provider::Hcaptcha, Provider::Recaptcha];
        })
        .await,
    )
    .await;
    for params in [with_hcaptcha("sim-pass-g1"), with_recaptcha("sim-pass-g2"), both("sim-pass-g3", "sim-pass-g3")] {
        let mut browser = Browser::new(&service).await;
        assert!(token(&browser.attest(&service, &params).await).0);
        assert!(token(&browser.attest(&service, &REFRESH).await).0);
    }
    assert!(!token(&Browser::new(&service).await.attest(&service, &both("sim-pass-g4", "sim-fail-g4")).await).0);
    let other = Browser::new(&service).await.attest(&service, &with_fingerprint("1.sim-pass-g5")).await;
    assert_eq!(other.codes(), ["hcap-missing-required-params", "recap-missing-required-params"]);
    assert_eq!(other.json()["hcap-missing-required-params"], "one of: hcaptcha, recaptcha");
}

#[tokio::test]
async fn five_checks_in_a_row_that_are_refused_for_the_configuration_are_an_alarm_until_one_passes() {
    let config = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        let site = account.checks.get_mut(&Provider::Hcaptcha).unwrap().sites.get_mut(sim::HCAPTCHA_SITE_KEY).unwrap();
        let SiteKind::Hcaptcha(site) = &mut site.kind else { panic!("another provider's site") };
        site.vendor.secret = approov_web_service::secrets::KeptSecret::here(
            approov_web_service::secrets::SecretKind::Text,
            approov_verify::secret::Secret::from_bytes(b"wrong".to_vec()),
        )
        .into();
    });
    let service = service(config.await).await;
    let alarm = |sites: u32| counted(&service, &format!("approov_check_misconfigured{{service=\"hcaptcha\"}} {sites}"));
    for n in 0..5 {
        assert!(!alarm(1), "{n}");
        let response = Browser::new(&service).await.attest(&service, &with_hcaptcha(&format!("sim-pass-c{n}"))).await;
        assert_eq!(response.json()["hcap-token-check"], "misconfigured");
    }
    assert!(alarm(1));
    let without = dev_config(|config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        account.checks.remove(&Provider::Hcaptcha);
    });
    service.reload(without.await).unwrap();
    assert!(!alarm(1), "the site is gone");
    service.reload(dev_config(|_| {}).await).unwrap();
    let passed = Browser::new(&service).await.attest(&service, &with_hcaptcha("sim-pass-again")).await;
    assert!(token(&passed).0);
    assert!(!alarm(1));
}

#[tokio::test]
async fn scores_are_counted_in_one_direction() {
    let service = service_with(|_| {}).await;
    for (params, service_name) in
        [(with_hcaptcha("sim-pass-s"), "hcaptcha"), (with_recaptcha("sim-pass-s.YXBwLmV4YW1wbGU.bG9naW4"), "recaptcha")]
    {
        Browser::new(&service).await.attest(&service, &params).await;
        let bucket = |bound: &str, count: u32| {
            format!("approov_check_score_bucket{{service=\"{service_name}\",le=\"{bound}\"}} {count}")
        };
        assert!(counted(&service, &bucket("0.5", 0)) && counted(&service, &bucket("1", 1)), "{service_name}");
    }
}
