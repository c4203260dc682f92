//! Sessions that an operator ends before their time.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use approov_verify::dpop::Proof;
use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;
use approov_web_service::attest::Service;
use approov_web_service::config::{Config, Revoked};
use approov_web_service::dev;
use support::*;

/// The key of a browser.
fn identity(browser: &mut Browser) -> Thumbprint {
    *Proof::parse(&browser.proof("GET", URL, |_| {})).unwrap().thumbprint()
}

fn later(service: &Service, seconds: i64) -> UnixTime {
    UnixTime::from_millis(service.now().as_millis() + seconds * 1000)
}

fn change(service: &Service, config: &Config, change: impl FnOnce(&mut approov_web_service::config::Revocations)) {
    let mut config = config.clone();
    change(&mut config.accounts.get_mut(dev::SITE_KEY).unwrap().revocations);
    service.reload(config).unwrap();
}

async fn begun(service: &Arc<Service>, token: &str) -> Browser {
    let mut browser = Browser::new(service).await;
    assert!(is_trusted(&browser.attest(service, &with_hcaptcha(token)).await.token()));
    browser
}

async fn refused(service: &Arc<Service>, browser: &mut Browser, params: &[(&str, &str)]) {
    let before = browser.refresh_token.clone();
    let response = browser.attest(service, params).await;
    assert_eq!((response.status.as_u16(), response.codes()), (401, vec!["aprv-invalid-refresh-token".to_owned()]));
    browser.refresh_token = before;
}

#[tokio::test]
async fn a_revoked_key_is_refused_until_its_sessions_would_have_ended() {
    let config = dev_config(|_| {}).await;
    let service = service(config.clone()).await;
    let mut ended = begun(&service, "sim-pass-key1").await;
    let mut other = begun(&service, "sim-pass-key2").await;
    let key = identity(&mut ended);
    let until = later(&service, 600);
    change(&service, &config, |revocations| revocations.listed.extend([(Revoked::Key(key), until)]));
    refused(&service, &mut ended, &REFRESH).await;
    // Nor does it get another session.
    ended.refresh_token = None;
    refused(&service, &mut ended, &with_hcaptcha("sim-pass-key3")).await;
    assert!(is_trusted(&other.attest(&service, &REFRESH).await.token()));
    service.clock_offset.store(601_000, Ordering::Relaxed);
    ended.ask_nonce(&service).await;
    assert!(is_trusted(&ended.attest(&service, &with_hcaptcha("sim-pass-key3")).await.token()), "nothing was used up");
}

#[tokio::test]
async fn a_session_is_revoked_by_the_id_that_the_log_has() {
    let mut place = Process::start_with_file("session-id", &|sims| {
        format!(
            "{FILE_HEAD}[[account]]\nsite_key = \"{}\"\nsecret = \"{SECRET}\"\n\
             [[account.api]]\ndomain = \"api.example.com\"\nallow_web = true\n\
             [[account.hcaptcha.site]]\nsite_key = \"{}\"\nsecret = \"{}\"\n\
             verify_url = \"http://{sims}/sim/hcaptcha/siteverify\"\n",
            dev::SITE_KEY,
            dev::sim::HCAPTCHA_SITE_KEY,
            dev::sim::HCAPTCHA_SECRET,
        )
    })
    .await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = place.process.url.clone();
    let mut sessions = Vec::new();
    for token in ["sim-pass-one", "sim-pass-two"] {
        let mut browser = Browser::of_public();
        browser.ask_nonce_at(&client, &url).await.unwrap();
        let response = browser.attest_at(&client, &url, &with_hcaptcha(token)).await.unwrap();
        let arc = decode(&response.token()).1["arc"].clone();
        let line = place.process.wait_for_log(|line| line["arc"] == arc);
        sessions.push((browser, line["session"].as_str().unwrap().to_owned()));
    }
    assert_ne!(sessions[0].1, sessions[1].1);
    place.command(&format!("session -revoke {} -y", sessions[0].1));
    place.process.wait_for_log(|line| line["event"] == "reloaded");
    let codes = async |browser: &mut Browser| {
        let response = browser.attest_at(&client, &url, &REFRESH).await.unwrap();
        (response.status.as_u16(), response.body.contains("the session was revoked"))
    };
    assert_eq!(codes(&mut sessions[0].0).await, (401, true));
    assert_eq!(codes(&mut sessions[1].0).await, (200, false));
    let listed = place.command("session -list");
    assert!(listed.starts_with(&format!("session {} until ", sessions[0].1)), "{listed}");
    // Everybody, at once.
    place.command("session -revokeAll -y");
    place.process.wait_for_logs(2, |line| line["event"] == "reloaded");
    assert_eq!(codes(&mut sessions[1].0).await, (401, true));
    assert!(place.command("session -list").starts_with("every session that began before "));
}

#[tokio::test]
async fn sessions_that_began_before_are_over_and_later_ones_are_not() {
    let config = dev_config(|_| {}).await;
    let service = service(config.clone()).await;
    let mut early = begun(&service, "sim-pass-early").await;
    service.clock_offset.store(2000, Ordering::Relaxed);
    let time = later(&service, -1);
    let mut late = begun(&service, "sim-pass-late").await;
    change(&service, &config, |revocations| revocations.not_before = Some(time));
    refused(&service, &mut early, &REFRESH).await;
    // A fresh result does not make an old session a new one; without it the visitor begins again.
    refused(&service, &mut early, &with_hcaptcha("sim-pass-fresh")).await;
    assert!(is_trusted(&late.attest(&service, &REFRESH).await.token()));
    early.refresh_token = None;
    assert!(is_trusted(&early.attest(&service, &with_hcaptcha("sim-pass-fresh")).await.token()));
}

#[tokio::test]
async fn revocations_outlive_the_store() {
    let config = dev_config(|_| {}).await;
    let first = service(config.clone()).await;
    let mut browser = begun(&first, "sim-pass-store").await;
    let key = identity(&mut browser);
    let mut config = config;
    let until = later(&first, 600);
    let revocations = &mut config.accounts.get_mut(dev::SITE_KEY).unwrap().revocations;
    revocations.listed.insert(Revoked::Key(key), until);
    let restarted = service(config).await;
    browser.ask_nonce(&restarted).await;
    refused(&restarted, &mut browser, &REFRESH).await;
}
