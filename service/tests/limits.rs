//! What one client can take: in one process, without a listener. Floods over connections are in `attacks`.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use altcha::{Challenge, Payload, SolveChallengeOptions, solve_challenge};
use approov_listener::fairness::Prefixes;
use approov_listener::pressure::Resource;
use approov_web_service::attest::Service;
use approov_web_service::config::Limits;
use approov_web_service::dev::{self, sim};
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde_json::json;
use support::*;

/// An address of another network than all others.
fn elsewhere(n: u8) -> IpAddr {
    IpAddr::from([198, 51, n, 1])
}

/// The service with the limits of a real one.
async fn limited_service(change: impl FnOnce(&mut Limits)) -> Arc<Service> {
    service(
        dev_config(|config| {
            config.limits = Limits::default();
            change(&mut config.limits);
        })
        .await,
    )
    .await
}

fn counted(service: &Service, sample: &str) -> u64 {
    let text = service.metrics.render(service.now());
    let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

fn limited(service: &Service, limit: &str) -> u64 {
    counted(service, &format!("approov_limited_total{{limit=\"{limit}\"}}"))
}

/// Every check that was made, of whatever outcome.
fn checks(service: &Service) -> u64 {
    let text = service.metrics.render(service.now());
    let counts = text.lines().filter(|line| line.starts_with("approov_checks_total{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn junk_results_stop_costing_calls_and_cost_nobody_else_anything() {
    let service = limited_service(|_| {}).await;
    let attackers = (0..200).map(|n| {
        let service = Arc::clone(&service);
        async move {
            let mut browser = Browser::new(&service).await;
            browser.attest(&service, &with_hcaptcha(&format!("junk-{n:04}"))).await
        }
    });
    let responses = join_all(attackers).await;
    let refused: Vec<_> = responses.iter().filter(|response| response.status == 429).collect();
    // Those that were under way together may exceed the limit; one client has half of what a site may have.
    assert!(checks(&service) <= 20 + 32, "{} calls", checks(&service));
    assert!(refused.len() >= 148, "{} of 200 were refused", refused.len());
    for response in refused {
        assert_eq!(response.codes(), ["aprv-rate-limit"]);
        assert!((1..=600).contains(&response.header("retry-after").parse::<u32>().unwrap()));
    }
    assert!(limited(&service, "failed-checks") >= 148);
    let mut honest = Browser::new_at(&service, elsewhere(1)).await;
    assert!(is_trusted(&honest.attest(&service, &with_hcaptcha("sim-pass-honest")).await.token()));
}

#[tokio::test]
async fn checks_that_pass_cost_nothing() {
    let service = limited_service(|_| {}).await;
    for n in 0..100 {
        let mut browser = Browser::new(&service).await;
        let response = browser.attest(&service, &with_hcaptcha(&format!("sim-pass-{n}"))).await;
        assert!(is_trusted(&response.token()));
    }
}

#[tokio::test]
async fn a_session_is_not_held_for_what_its_neighbours_did() {
    let service = limited_service(|_| {}).await;
    let mut early = Browser::new(&service).await;
    early.attest(&service, &with_hcaptcha("sim-pass-early")).await.token();
    for n in 0..21 {
        let mut browser = Browser::new(&service).await;
        browser.attest(&service, &with_hcaptcha(&format!("junk-{n:04}"))).await;
    }
    let mut late = Browser::new(&service).await;
    assert_eq!(late.attest(&service, &with_hcaptcha("sim-pass-late")).await.status, 429);
    assert!(is_trusted(&early.attest(&service, &REFRESH).await.token()));
    assert!(is_trusted(&early.attest(&service, &with_hcaptcha("sim-pass-again")).await.token()), "nor for a new check");
    // It is held for what it did itself.
    let mut failed = 0;
    while early.attest(&service, &with_hcaptcha(&format!("more-junk-{failed}"))).await.status != 429 {
        failed += 1;
        assert!(failed < 50, "no end");
    }
    assert!(failed >= 20, "{failed}");
}

#[tokio::test]
async fn one_session_has_its_own_rate() {
    let service = limited_service(|_| {}).await;
    let mut greedy = Browser::new(&service).await;
    greedy.attest(&service, &with_hcaptcha("sim-pass-greedy")).await.token();
    let (begun, mut served) = (Instant::now(), 0);
    let refusal = loop {
        let response = greedy.attest(&service, &REFRESH).await;
        if response.status != 200 {
            break response;
        }
        served += 1;
        assert!(served < 1000, "no end");
    };
    // One more for each second that all of this took.
    assert!((120..=121 + begun.elapsed().as_secs()).contains(&served), "{served}");
    assert_eq!((refusal.status.as_u16(), refusal.codes()), (429, vec!["aprv-rate-limit".to_owned()]));
    assert!(refusal.header("retry-after").parse::<u32>().unwrap() >= 1);
    let mut other = Browser::new(&service).await;
    other.attest(&service, &with_hcaptcha("sim-pass-other")).await.token();
    assert_eq!(other.attest(&service, &REFRESH).await.status, 200);
}

#[tokio::test]
async fn one_session_cannot_fill_the_store_of_used_proofs() {
    let service = limited_service(|limits| {
        limits.refreshes = None;
        limits.replay_entries = 60;
        limits.live_proofs = Some(20);
    })
    .await;
    let mut greedy = Browser::new(&service).await;
    let mut other = Browser::new(&service).await;
    greedy.attest(&service, &with_hcaptcha("sim-pass-greedy")).await.token();
    let mut served = 1;
    let refusal = loop {
        let response = greedy.attest(&service, &REFRESH).await;
        if response.status != 200 {
            break response;
        }
        served += 1;
        assert!(served < 1000, "no end");
    };
    assert_eq!(served, 30, "without a quota while half of the store is free");
    assert_eq!((refusal.status.as_u16(), refusal.codes()), (429, vec!["aprv-rate-limit".to_owned()]));
    assert_eq!(refusal.header("retry-after"), "60");
    assert_eq!(limited(&service, "live-proofs"), 1);
    // The other's nonce is still good, and it is served.
    assert!(is_trusted(&other.attest(&service, &with_hcaptcha("sim-pass-other")).await.token()));
    for _ in 1..20 {
        assert_eq!(other.attest(&service, &REFRESH).await.status, 200);
    }
}

#[tokio::test]
async fn newcomers_share_what_there_is_when_there_is_little() {
    let service = limited_service(|limits| limits.least_share = Some(5)).await;
    let newcomer = async |ip: IpAddr, n: u32| {
        let mut browser = Browser::new_at(&service, ip).await;
        browser.attest(&service, &with_hcaptcha(&format!("sim-pass-{ip}-{n}"))).await.status.as_u16()
    };
    for n in 0..200 {
        assert_eq!(newcomer(IP, n).await, 200, "two hundred behind one address, as long as there is room");
    }
    service.pressure.set(Resource::Processor, 1.0);
    for n in 0..40 {
        assert_eq!(newcomer(elsewhere(n), 0).await, 200, "others have had nothing yet");
        newcomer(IP, 1000 + u32::from(n)).await;
    }
    assert!(limited(&service, "share") >= 1, "the one who has had most is asked for work");
    service.pressure.set(Resource::Processor, 0.2);
    assert_eq!(newcomer(IP, 999).await, 200);
}

/// The challenge that a refusal brings: its cost, and the solution as the form has it. `None`: the request was served.
fn work_for(response: &Response) -> Option<(u32, String)> {
    if response.status == 200 {
        return None;
    }
    assert_eq!((response.status.as_u16(), response.header("retry-after")), (429, "1"), "{}", response.body);
    assert_eq!(response.codes(), ["aprv-work-required"]);
    let detail = URL_SAFE_NO_PAD.decode(response.json()["aprv-work-required"].as_str().unwrap()).unwrap();
    let challenge: Challenge = serde_json::from_slice(&detail).unwrap();
    assert_eq!(challenge.parameters.data.as_ref().unwrap()["use"], "work");
    let cost = challenge.parameters.cost;
    let solution = solve_challenge(SolveChallengeOptions::new(&challenge)).unwrap().unwrap();
    Some((cost, STANDARD.encode(json!(Payload { challenge, solution }).to_string())))
}

/// A service that runs short, and clients of many other networks, who are served in each window of time: shares are of what was
/// served in ten seconds.
struct Short {
    service: Arc<Service>,
    window: u64,
    names: u32,
}

impl Short {
    async fn new() -> Self {
        let service = limited_service(|limits| limits.least_share = Some(2)).await;
        service.pressure.set(Resource::Processor, 1.0);
        Self { service, window: u64::MAX, names: 0 }
    }

    fn now(&self) -> u64 {
        self.service.limits.now().as_secs() / 10
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("sim-pass-short-{}", self.names)
    }

    /// Others have had their share by now.
    async fn others(&mut self) {
        while self.window != self.now() {
            self.window = self.now();
            for n in 0..20 {
                let result = self.name();
                let mut browser = Browser::new_at(&self.service, elsewhere(n)).await;
                assert_eq!(browser.attest(&self.service, &with_hcaptcha(&result)).await.status, 200, "for nothing");
            }
        }
    }
}

#[tokio::test]
async fn who_works_gets_a_session_beyond_the_share_and_each_solution_is_good_for_one() {
    let mut short = Short::new().await;
    let mut costs = Vec::new();
    for round in 0.. {
        if costs.len() >= 5 {
            break;
        }
        assert!(round < 500, "{costs:?}");
        short.others().await;
        let (service, result) = (Arc::clone(&short.service), short.name());
        let mut browser = Browser::new(&service).await;
        let mut form = with_hcaptcha(&result);
        // Who is within its share, or came when shares had just begun anew, is served.
        let Some((cost, work)) = work_for(&browser.attest(&service, &form).await) else { continue };
        form.push(("work", &work));
        // Another key has not solved it.
        let stolen = work_for(&Browser::new(&service).await.attest(&service, &form).await);
        assert!(stolen.is_some() || short.now() != short.window);
        // The result was not used up by the refusals.
        assert!(is_trusted(&browser.attest(&service, &form).await.token()));
        // For a further session it is used.
        browser.refresh_token = None;
        let again = work_for(&browser.attest(&service, &form).await);
        assert!(again.is_some() || short.now() != short.window);
        costs.push(cost);
    }
    assert!(costs.iter().all(|cost| (600..=4800).contains(cost)), "{costs:?}");
    // What is no payload is no parameter.
    let mut browser = Browser::new(&short.service).await;
    let mut form = with_hcaptcha("sim-pass-no-payload");
    form.push(("work", "nonsense"));
    assert_eq!(browser.attest(&short.service, &form).await.json()["rqst-illegal-params"], "work");
}

#[tokio::test]
async fn wrong_solutions_are_paid_for_like_results_that_are_not_accepted() {
    let mut short = Short::new().await;
    for round in 0.. {
        assert!(round < 500, "nobody is refused");
        short.others().await;
        let (service, result) = (Arc::clone(&short.service), short.name());
        let mut browser = Browser::new(&service).await;
        let Some((_, work)) = work_for(&browser.attest(&service, &with_hcaptcha(&result)).await) else { continue };
        let mut payload: serde_json::Value = serde_json::from_slice(&STANDARD.decode(work).unwrap()).unwrap();
        payload["solution"]["derivedKey"] = "00".into();
        let wrong = STANDARD.encode(payload.to_string());
        let mut form = with_hcaptcha(&result);
        form.push(("work", &wrong));
        let response = browser.attest(&service, &form).await;
        assert!(response.status == 429 || short.now() != short.window, "{}", response.body);
        if response.codes() == ["aprv-rate-limit"] {
            break;
        }
    }
    assert!(limited(&short.service, "failed-checks") >= 1);
}

#[tokio::test]
async fn an_existing_session_is_served_however_short_the_service_runs() {
    let service = limited_service(|limits| limits.least_share = Some(1)).await;
    let mut early = Browser::new(&service).await;
    early.attest(&service, &with_hcaptcha("sim-pass-early")).await.token();
    let mut other = Browser::new_at(&service, elsewhere(1)).await;
    other.attest(&service, &with_hcaptcha("sim-pass-other")).await.token();
    service.pressure.set(Resource::Processor, 5.0);
    let mut late = Browser::new(&service).await;
    assert_eq!(late.attest(&service, &with_hcaptcha("sim-pass-late")).await.status, 429);
    assert_eq!(early.attest(&service, &REFRESH).await.status, 200);
}

#[tokio::test]
async fn who_waits_too_long_for_a_check_loses_nothing() {
    let service = limited_service(|limits| limits.checks_in_flight = Some(2)).await;
    let site = format!("{}:hcap:{}", dev::SITE_KEY, sim::HCAPTCHA_SITE_KEY);
    let mut under_way = Vec::new();
    for n in 0..2 {
        let cells = Prefixes::default().cells(elsewhere(n));
        under_way.push(service.limits.gates.enter(&site, cells, 2).await.unwrap());
    }
    let mut waiting = Browser::new(&service).await;
    let proof = waiting.proof("POST", URL, |_| {});
    let params = with_hcaptcha("sim-pass-waiting");
    let response = waiting.attest_with(&service, &params, proof.clone()).await;
    assert_eq!((response.status.as_u16(), response.codes()), (503, vec!["aprv-unavailable".to_owned()]));
    assert_eq!(response.header("retry-after"), "1");
    drop(under_way);
    // Neither the proof nor the result was used up.
    assert!(is_trusted(&waiting.attest_with(&service, &params, proof).await.token()));
}

/// A proof whose signature is not its key's.
fn forged(proof: &str) -> String {
    let (signed, _) = proof.rsplit_once('.').unwrap();
    let other = Browser::default().proof("POST", URL, |_| {});
    format!("{signed}.{}", other.rsplit('.').next().unwrap())
}

#[tokio::test]
async fn what_is_wrong_anyway_is_refused_before_a_signature_is_verified() {
    let service = limited_service(|_| {}).await;
    let mut browser = Browser::new(&service).await;
    let good = with_hcaptcha("sim-pass-cheap");
    let codes = async |browser: &mut Browser, params: &[(&str, &str)], proof: String| {
        browser.attest_with(&service, params, proof).await.codes()
    };
    // The nonce, the claims, the parameters: each is reported although the signature is wrong, too.
    let proof = forged(&browser.proof("POST", URL, |claims| claims["nonce"] = "other".into()));
    assert_eq!(codes(&mut browser, &good, proof).await, ["aprv-invalid-nonce"]);
    let proof = forged(&browser.proof("POST", URL, |claims| claims["htm"] = "GET".into()));
    let response = browser.attest_with(&service, &good, proof).await;
    assert!(response.body.contains("another method"), "{}", response.body);
    let proof = forged(&browser.proof("POST", URL, |_| {}));
    assert_eq!(codes(&mut browser, &good[..2], proof).await, ["aprv-no-web-protect-params"]);
    // The session, too; its token belongs to the key that the proof names.
    browser.refresh_token = Some("AQIDBA".to_owned());
    let proof = forged(&browser.proof("POST", URL, |_| {}));
    assert_eq!(codes(&mut browser, &REFRESH, proof).await, ["aprv-invalid-refresh-token"]);
    browser.refresh_token = None;
    // And with nothing else wrong, the signature is, before anything is remembered or anybody called.
    let proof = browser.proof("POST", URL, |_| {});
    let response = browser.attest_with(&service, &good, forged(&proof)).await;
    assert!(response.body.contains("signature"), "{}", response.body);
    assert_eq!(checks(&service), 0);
    assert!(is_trusted(&browser.attest_with(&service, &good, proof).await.token()), "the proof was not used up");
}

#[tokio::test]
async fn a_nonce_costs_no_signature_when_the_service_runs_short() {
    let service = limited_service(|limits| limits.least_share = Some(1)).await;
    let nonce_request = async |ip: IpAddr, is_forged: bool| {
        let proof = Browser::default().proof("GET", URL, |_| {});
        let proof = if is_forged { forged(&proof) } else { proof };
        let request = Request::get("/attest").header("host", HOST).header("dpop", proof).body(Body::empty()).unwrap();
        send_from(&service, request, ip).await.status.as_u16()
    };
    assert_eq!(nonce_request(elsewhere(1), false).await, 204);
    assert_eq!(nonce_request(IP, true).await, 401, "there is time to say what is wrong");
    service.pressure.set(Resource::Processor, 0.6);
    assert_eq!(nonce_request(IP, true).await, 204, "but a nonce is had without a signature, too");
    assert_eq!(nonce_request(elsewhere(2), true).await, 401, "whoever has had nothing learns what is wrong");
}

#[tokio::test]
async fn a_form_of_a_thousand_parameters_is_refused_at_once() {
    let service = limited_service(|_| {}).await;
    let request = Request::post("/attest").header("host", HOST).body(Body::from("a&".repeat(1000))).unwrap();
    let response = send(&service, request).await;
    assert_eq!(response.status, 400);
    assert!(response.json()["rqst-illegal-params"].as_str().unwrap().contains("64"), "{}", response.body);
}
