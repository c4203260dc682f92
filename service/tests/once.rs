//! A check result is used once: by whoever sends it first.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use approov_web_service::attest::Service;
use approov_web_service::check::Provider;
use approov_web_service::dev::{self, sim};
use axum::body::Body;
use axum::http::Request;
use axum::middleware::{Next, from_fn};
use futures_util::future::join_all;
use support::*;
use tokio::sync::Semaphore;

/// The simulated check services, which count what they are asked, and respond one by one if they are told to.
struct Vendors {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    responses: Arc<Semaphore>,
}

impl Vendors {
    async fn start(responses: usize) -> Self {
        let (asked, responses) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(responses)));
        let (count, wait) = (Arc::clone(&asked), Arc::clone(&responses));
        let counted = from_fn(move |request: Request<Body>, next: Next| {
            let (count, wait) = (Arc::clone(&count), Arc::clone(&wait));
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                wait.acquire().await.unwrap().forget();
                next.run(request).await
            }
        });
        Self { address: serve_on_free_port(sim::router().layer(counted)).await, asked, responses }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// So many responses that none waits.
const ANY: usize = 1_000_000;

async fn service_at(vendors: &Vendors) -> Arc<Service> {
    service(dev_config_with(vendors.address, |_| {})).await
}

fn used_again(service: &Service, provider: &str, by: &str) -> bool {
    let sample = format!("approov_results_used_again_total{{service=\"{provider}\",by=\"{by}\"}} ");
    service.metrics.render(service.now()).lines().any(|line| line.starts_with(&sample))
}

/// What the log calls each check service, and a result of it.
fn results(name: &str) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let own = |params: Vec<(&'static str, &str)>| {
        params.into_iter().map(|(name, value)| (name, value.to_owned())).collect::<Vec<_>>()
    };
    // What tests leave to the function is known for as long as the program.
    let token: &'static str = Box::leak(format!("sim-{name}").into_boxed_str());
    vec![
        ("hcaptcha", own(with_hcaptcha(token))),
        ("recaptcha", own(with_recaptcha(token))),
        ("fingerprint", own(with_fingerprint(token))),
    ]
}

fn borrowed<'a>(params: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    params.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[tokio::test]
async fn the_same_key_gets_the_same_outcome_without_a_call_and_another_key_a_decoy() {
    for outcome in ["pass", "fail", "low"] {
        for (provider, params) in results(&format!("{outcome}-once")) {
            let vendors = Vendors::start(ANY).await;
            let service = service_at(&vendors).await;
            let params = borrowed(&params);
            let mut first = Browser::new(&service).await;
            let passed = is_trusted(&first.attest(&service, &params).await.token());
            assert_eq!(passed, outcome == "pass", "{provider}");
            let asked = vendors.asked();
            assert!(asked > 0);
            let embedded = decode(&first.attest(&service, &REFRESH).await.token()).1["embed"].clone();
            // The response was lost: the page knows nothing of a session.
            first.refresh_token = None;
            let again = first.attest(&service, &params).await;
            assert_eq!(is_trusted(&again.token()), passed, "{provider} {outcome}");
            assert_eq!(decode(&again.token()).1["embed"], embedded, "{provider} {outcome}");
            assert_eq!(is_trusted(&first.attest(&service, &REFRESH).await.token()), passed);
            let mut other = Browser::new(&service).await;
            assert!(!is_trusted(&other.attest(&service, &params).await.token()), "{provider} {outcome}");
            assert!(!is_trusted(&other.attest(&service, &REFRESH).await.token()));
            assert_eq!(vendors.asked(), asked, "{provider} {outcome}: not asked again");
            assert!(used_again(&service, provider, "same-key") && used_again(&service, provider, "another-key"));
        }
    }
}

#[tokio::test]
async fn what_comes_along_makes_no_other_result_of_it() {
    let vendors = Vendors::start(ANY).await;
    let service = service_at(&vendors).await;
    let mut first = Browser::new(&service).await;
    assert!(is_trusted(&first.attest(&service, &with_hcaptcha("sim-pass-along")).await.token()));
    assert!(is_trusted(&first.attest(&service, &with_fingerprint("sim-pass-along")).await.token()));
    let asked = vendors.asked();
    let mut with_host = with_hcaptcha("sim-pass-along");
    with_host.push(("hcaptcha-host", "localhost"));
    let mut other_visitor = with_fingerprint("sim-pass-along");
    other_visitor[3].1 = "other-visitor";
    for params in [with_host, other_visitor] {
        let mut other = Browser::new(&service).await;
        assert!(!is_trusted(&other.attest(&service, &params).await.token()), "{params:?}");
    }
    assert_eq!(vendors.asked(), asked);
}

#[tokio::test]
async fn a_result_in_flight_is_tried_again_by_its_key_and_lost_to_others() {
    let vendors = Vendors::start(0).await;
    let service = service_at(&vendors).await;
    let mut first = Browser::new(&service).await;
    let params = with_hcaptcha("sim-pass-flight");
    // The client goes away while its result is being checked.
    let proof = first.proof("POST", URL, |_| {});
    let mut request = Box::pin(first.attest_with(&service, &params, proof));
    until("the check service is asked", async || {
        let pending = tokio::time::timeout(std::time::Duration::from_millis(20), &mut request).await;
        assert!(pending.is_err());
        vendors.asked() == 1
    })
    .await;
    drop(request);
    let response = first.attest(&service, &params).await;
    assert_eq!((response.status.as_u16(), response.codes()), (503, vec!["aprv-unavailable".to_owned()]));
    assert_eq!(response.header("retry-after"), "1");
    assert!(used_again(&service, "hcaptcha", "in-flight"));
    let mut other = Browser::new(&service).await;
    assert!(!is_trusted(&other.attest(&service, &params).await.token()));
    vendors.responses.add_permits(1);
    let mut response = first.attest(&service, &params).await;
    until("the check has ended", async || {
        if response.status == 503 {
            response = first.attest(&service, &params).await;
        }
        response.status == 200
    })
    .await;
    assert!(is_trusted(&response.token()));
    assert_eq!(vendors.asked(), 1);
}

/// Sends a result from several keys, several times each, all at once. Gives how often it passed, by key.
async fn race(service: &Arc<Service>, params: &[(&str, &str)], keys: usize, each: usize) -> Vec<usize> {
    let senders = (0..keys).map(|_| async move {
        let mut browser = Browser::new(service).await;
        let proofs: Vec<_> = (0..each).map(|_| browser.proof("POST", URL, |_| {})).collect();
        let (browser, requests) = (tokio::sync::Mutex::new(browser), proofs.into_iter());
        let responses = requests.map(|proof| {
            let browser = &browser;
            async move {
                // Only to read its parts; the requests run at the same time.
                let request = attest_request(params, &proof);
                let response = send_from(service, request, browser.lock().await.ip).await;
                assert!(matches!(response.status.as_u16(), 200 | 503), "{}", response.body);
                response.status == 200 && is_trusted(&response.token())
            }
        });
        join_all(responses).await.into_iter().filter(|passed| *passed).count()
    });
    join_all(senders).await
}

fn attest_request(params: &[(&str, &str)], proof: &str) -> Request<Body> {
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
    let request = Request::post("/attest").header("host", HOST).header("origin", ORIGIN).header("dpop", proof);
    request.header("content-type", "application/x-www-form-urlencoded").body(Body::from(form)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_at_once_one_is_checked_and_one_key_passes() {
    for (provider, params) in results("pass-race") {
        let vendors = Vendors::start(ANY).await;
        let service = service_at(&vendors).await;
        let passed = race(&service, &borrowed(&params), 10, 5).await;
        assert_eq!(vendors.asked(), 1, "{provider}");
        assert_eq!(passed.iter().filter(|passed| **passed > 0).count(), 1, "{provider}: {passed:?}");
    }
}

#[tokio::test]
async fn a_check_that_could_not_be_made_uses_nothing_up() {
    let vendors = Vendors::start(ANY).await;
    let service = service_at(&vendors).await;
    let mut browser = Browser::new(&service).await;
    // Fingerprint may be asked as often as one likes; the simulated captchas accept a token once, even if they fail then.
    for asked in 1..=2 {
        assert_eq!(browser.attest(&service, &with_fingerprint("sim-error-once")).await.status, 502);
        assert_eq!(vendors.asked(), asked, "it may be tried again");
    }
    // One of two is unavailable: what passed is not asked for again.
    let mut params = with_hcaptcha("sim-pass-once");
    params.extend(&with_recaptcha("sim-error-once")[2..]);
    assert_eq!(browser.attest(&service, &params).await.json()["recap-token-check"], "unavailable");
    assert_eq!(vendors.asked(), 4);
    params[5].1 = "sim-pass-once";
    assert!(is_trusted(&browser.attest(&service, &params).await.token()));
    assert_eq!(vendors.asked(), 5);
}

#[tokio::test]
async fn everybody_may_use_a_published_test_token() {
    let vendors = Vendors::start(ANY).await;
    let service = service_at(&vendors).await;
    for _ in 0..3 {
        let mut browser = Browser::new(&service).await;
        let response = browser.attest(&service, &with_hcaptcha("10000000-aaaa-bbbb-cccc-000000000001")).await;
        assert!(is_trusted(&response.token()));
    }
    assert_eq!(vendors.asked(), 3);
}

#[tokio::test]
async fn a_result_sent_again_undoes_no_failed_check_and_lasts_no_longer() {
    let vendors = Vendors::start(ANY).await;
    let config = dev_config_with(vendors.address, |config| {
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        for site in account.checks.get_mut(&Provider::Hcaptcha).unwrap().sites.values_mut() {
            site.max_result_lifetime = Some(std::time::Duration::from_secs(300));
        }
    });
    let service = service(config).await;
    let mut browser = Browser::new(&service).await;
    let first = browser.attest(&service, &with_hcaptcha("sim-pass-first")).await.json()["expiries"].clone();
    service.clock_offset.store(60_000, Ordering::Relaxed);
    browser.refresh_token = None;
    let again = browser.attest(&service, &with_hcaptcha("sim-pass-first")).await;
    assert!(is_trusted(&again.token()));
    let site = format!("hcap:{}", sim::HCAPTCHA_SITE_KEY);
    assert_eq!(again.json()["expiries"][&site], first[&site]);
    // A re-check that fails ends what the result was good for.
    assert!(!is_trusted(&browser.attest(&service, &with_hcaptcha("sim-fail-second")).await.token()));
    browser.refresh_token = None;
    assert!(!is_trusted(&browser.attest(&service, &with_hcaptcha("sim-pass-first")).await.token()));
    assert!(is_trusted(&browser.attest(&service, &with_hcaptcha("sim-pass-third")).await.token()));
}

#[tokio::test]
async fn a_replay_costs_whoever_sends_it_what_a_failed_check_costs() {
    let vendors = Vendors::start(ANY).await;
    let service = service(dev_config_with(vendors.address, |config| config.limits.failed_checks = Some(5))).await;
    let mut first = Browser::new_at(&service, [198, 51, 100, 1].into()).await;
    assert!(is_trusted(&first.attest(&service, &with_hcaptcha("sim-pass-stolen")).await.token()));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let mut thief = Browser::new(&service).await;
        statuses.push(thief.attest(&service, &with_hcaptcha("sim-pass-stolen")).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
    assert_eq!(vendors.asked(), 1);
}
