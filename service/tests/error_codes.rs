//! Every error code, reached through HTTP. Prints how many of the specification's codes it covered.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use approov_listener::shutdown::Phase;
use approov_web_service::attest::Service;
use approov_web_service::config::Config;
use approov_web_service::dev::sim;
use approov_web_service::error::Code;
use approov_web_service::http::App;
use approov_web_service::store::seconds_to_next_minute;
use axum::Router;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const GOOD: &str = "approov-site-key=full&api=a.example";

/// Accounts that make every code reachable: `full` has everything, `bare` nothing, `strict` requires all,
/// `one` has a check service each that the others lack.
async fn config() -> Config {
    let sims = simulators().await;
    let sites = |required: bool, rate: u64| {
        format!(
            r#"
[account.fingerprint]
required = {required}
[[account.fingerprint.subscription]]
public_api_key = "{fp}"
secret = "{fp_secret}"
api = "v3"
verify_url = "http://{sims}/sim/fingerprint"
[account.hcaptcha]
required = {required}
[[account.hcaptcha.site]]
site_key = "{hcap}"
secret = "{hcap_secret}"
rate_limit = {rate}
verify_url = "http://{sims}/sim/hcaptcha/siteverify"
[account.recaptcha]
required = {required}
[[account.recaptcha.site]]
site_key = "{recap}"
secret = "{recap_secret}"
verify_url = "http://{sims}/sim/recaptcha/siteverify"
[account.turnstile]
required = {required}
[[account.turnstile.site]]
site_key = "{turnstile}"
secret = "s"
verify_url = "http://{sims}/nothing/is/here"
[account.altcha]
required = {required}
[[account.altcha.site]]
site_key = "{altcha}"
[account.friendly]
required = {required}
[[account.friendly.site]]
site_key = "{friendly}"
secret = "s"
verify_url = "http://{sims}/nothing/is/here"
"#,
            altcha = "altcha-key",
            turnstile = "turnstile-key",
            friendly = "friendly-key",
            fp = sim::FINGERPRINT_PUBLIC_API_KEY,
            fp_secret = sim::FINGERPRINT_SECRET,
            hcap = sim::HCAPTCHA_SITE_KEY,
            hcap_secret = sim::HCAPTCHA_SECRET,
            recap = sim::RECAPTCHA_SITE_KEY,
            recap_secret = sim::RECAPTCHA_SECRET,
        )
    };
    let account = |site_key: &str, more: &str| {
        format!(
            "[[account]]\nsite_key = \"{site_key}\"\nsecret = \"{SECRET}\"\n{more}\n\
             [[account.api]]\ndomain = \"a.example\"\nallow_web = true\n\
             [[account.api]]\ndomain = \"mobile.example\"\n"
        )
    };
    let text = [
        format!("public_urls = [\"http://{HOST}\"]\nsession_secret = \"{SESSION_SECRET}\"\n"),
        account("full", ""),
        sites(false, 0),
        account("strict", ""),
        sites(true, 0),
        account("limited", ""),
        sites(false, 1),
        account("closed", "allowed_origins = [\"https://elsewhere.example\"]"),
        sites(false, 0),
        account("bare", ""),
        account("one", ""),
        "[[account.recaptcha.site]]\nsite_key = \"r\"\nsecret = \"s\"\n".to_owned(),
        account("two", ""),
        "[[account.hcaptcha.site]]\nsite_key = \"h\"\nsecret = \"s\"\n".to_owned(),
    ]
    .concat();
    let mut config = Config::parse(&text).unwrap();
    // Time enough, however busy the machine is.
    config.limits.request = HANG;
    config.limits.check = HANG;
    config
}

/// Sends a form with a sound proof and gives the response's status and map.
async fn post(service: &Arc<Service>, form: &str) -> (u16, BTreeMap<String, String>) {
    let mut browser = Browser::new(service).await;
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let response = browser.attest(service, &pairs).await;
    (response.status.as_u16(), serde_json::from_str(&response.body).unwrap_or_default())
}

#[tokio::test]
async fn every_error_code_is_reached() {
    let service = service(config().await).await;
    let fp = format!(
        "fingerprintjs-token={}&fingerprintjs-visitor-id=v&fingerprintjs-request-id",
        sim::FINGERPRINT_PUBLIC_API_KEY
    );
    let hcap = format!("hcaptcha-site-key={}&hcaptcha-token", sim::HCAPTCHA_SITE_KEY);
    let recap = format!("recaptcha-site-key={}&recaptcha-token", sim::RECAPTCHA_SITE_KEY);
    let turnstile = "turnstile-site-key=turnstile-key&turnstile-token";
    let friendly = "friendly-site-key=friendly-key&friendly-response";
    // A payload that is one, and not ours.
    let payload = "eyJjaGFsbGVuZ2UiOnsicGFyYW1ldGVycyI6eyJhbGdvcml0aG0iOiJQQktERjIvU0hBLTI1NiIsImNvc3QiOjEwLCJleHBpcmVzQXQiOjQxMDI0\
                   NDQ4MDAsImtleUxlbmd0aCI6MzIsImtleVByZWZpeCI6IjAwIiwibm9uY2UiOiIwMCIsInNhbHQiOiIwMCJ9LCJzaWduYXR1cmUiOiIwMCJ9LCJzb2x1\
                   dGlvbiI6eyJjb3VudGVyIjoxLCJkZXJpdmVkS2V5IjoiMDAifX0%3D";
    let altcha = format!("altcha-site-key=altcha-key&altcha-payload={payload}");
    let good = format!("{GOOD}&{hcap}=sim-pass-a");
    let short = "AAAA";
    let forms: Vec<(u16, String, &[Code])> = vec![
        (400, format!("{good}&nonsense=1&also=2"), &[Code::IllegalParams]),
        (400, format!("api=a.example&{hcap}=sim-fail-x"), &[Code::NoSiteKey]),
        (400, GOOD.to_owned(), &[Code::NoWebProtectParams]),
        (400, format!("approov-site-key=nobody&api=a.example&{hcap}=sim-fail-x"), &[Code::NoMatchingAccount]),
        (
            400,
            format!("approov-site-key=bare&api=a.example&{hcap}=sim-fail-x"),
            &[Code::NoWebProtectDef, Code::HcapConfigNotFound],
        ),
        (400, format!("{good}&payload={short}"), &[Code::PayloadInvalidSize]),
        (400, format!("{good}&payload=%2B%2F"), &[Code::PayloadNotBase64Url]),
        (400, format!("approov-site-key=full&{hcap}=sim-fail-x"), &[Code::ApiNoTargets]),
        (400, format!("{good}&api="), &[Code::ApiEmptyTarget]),
        (400, format!("{good}&api=A.example"), &[Code::ApiDuplicateTarget]),
        (400, format!("{good}&api=b&api=c"), &[Code::ApiTooManyTargets, Code::ApiNotFound]),
        (400, format!("{good}&api=mobile.example"), &[Code::ApiNotWebEnabled]),
        (401, format!("{GOOD}&refresh-token=x"), &[Code::InvalidRefreshToken]),
        (400, format!("approov-site-key=one&api=a.example&{fp}=x"), &[Code::FpConfigNotFound]),
        (400, format!("approov-site-key=one&api=a.example&{hcap}=sim-fail-x"), &[Code::HcapConfigNotFound]),
        (400, format!("approov-site-key=two&api=a.example&{recap}=sim-fail-x"), &[Code::RecapConfigNotFound]),
        (
            400,
            format!("approov-site-key=strict&api=a.example&{hcap}=sim-fail-x"),
            &[
                Code::FpMissingRequired,
                Code::RecapMissingRequired,
                Code::TurnstileMissingRequired,
                Code::FriendlyMissingRequired,
                Code::AltchaMissingRequired,
            ],
        ),
        (
            400,
            format!("approov-site-key=strict&api=a.example&{fp}=x"),
            &[
                Code::HcapMissingRequired,
                Code::RecapMissingRequired,
                Code::TurnstileMissingRequired,
                Code::FriendlyMissingRequired,
                Code::AltchaMissingRequired,
            ],
        ),
        (
            400,
            format!("approov-site-key=two&api=a.example&{turnstile}=sim-fail-x&{friendly}=sim-fail-x&{altcha}"),
            &[Code::TurnstileConfigNotFound, Code::FriendlyConfigNotFound, Code::AltchaConfigNotFound],
        ),
        (400, format!("{GOOD}&turnstile-token=sim-fail-x"), &[Code::TurnstileParamMismatch]),
        (400, format!("{GOOD}&friendly-response=sim-fail-x"), &[Code::FriendlyParamMismatch]),
        (400, format!("{GOOD}&altcha-payload={payload}"), &[Code::AltchaParamMismatch]),
        (
            400,
            format!("{GOOD}&altcha-site-key=&altcha-payload="),
            &[Code::AltchaEmptySiteKey, Code::AltchaEmptyPayload],
        ),
        (400, format!("{GOOD}&altcha-site-key=x&altcha-payload={payload}"), &[Code::AltchaSiteKeyNotFound]),
        (429, format!("{GOOD}&{altcha}"), &[Code::WorkRequired]),
        (
            400,
            format!("{GOOD}&turnstile-site-key=&turnstile-token=&friendly-site-key=&friendly-response="),
            &[
                Code::TurnstileEmptySiteKey,
                Code::TurnstileEmptyToken,
                Code::FriendlyEmptySiteKey,
                Code::FriendlyEmptyResponse,
            ],
        ),
        (
            400,
            format!(
                "{GOOD}&turnstile-site-key=x&turnstile-token=sim-fail-x&friendly-site-key=x&friendly-response=sim-fail-x"
            ),
            &[Code::TurnstileSiteKeyNotFound, Code::FriendlySiteKeyNotFound],
        ),
        (
            502,
            format!("{GOOD}&{turnstile}=sim-fail-x&{friendly}=sim-fail-x"),
            &[Code::TurnstileTokenCheck, Code::FriendlyResponseCheck],
        ),
        (400, format!("{GOOD}&fingerprintjs-token=t"), &[Code::FpParamMismatch, Code::FpBrowserTokenNotFound]),
        (400, format!("{GOOD}&hcaptcha-key=t"), &[Code::HcapParamMismatch]),
        (400, format!("{GOOD}&recaptcha-token=sim-fail-x"), &[Code::RecapParamMismatch]),
        (
            400,
            format!("{GOOD}&fingerprintjs-token=&fingerprintjs-visitor-id=&fingerprintjs-request-id="),
            &[Code::FpEmptyBrowserToken, Code::FpEmptyVisitorId, Code::FpEmptyRequestId],
        ),
        (400, format!("{GOOD}&hcaptcha-site-key=&hcaptcha-token="), &[Code::HcapEmptySiteKey, Code::HcapEmptyToken]),
        (
            400,
            format!("{GOOD}&recaptcha-site-key=&recaptcha-token="),
            &[Code::RecapEmptySiteKey, Code::RecapEmptyToken],
        ),
        (
            400,
            format!("{GOOD}&fingerprintjs-token=t&fingerprintjs-visitor-id=v&fingerprintjs-request-id=r"),
            &[Code::FpBrowserTokenNotFound],
        ),
        (400, format!("{GOOD}&hcaptcha-site-key=other&hcaptcha-token=sim-fail-x"), &[Code::HcapSiteKeyNotFound]),
        (400, format!("{GOOD}&recaptcha-site-key=other&recaptcha-token=sim-fail-x"), &[Code::RecapSiteKeyNotFound]),
        (
            502,
            format!("{GOOD}&{fp}=sim-error-a&{hcap}=sim-error-a&{recap}=sim-error-a"),
            &[Code::FpTokenCheck, Code::HcapTokenCheck, Code::RecapTokenCheck],
        ),
        (403, format!("approov-site-key=closed&api=a.example&{hcap}=sim-fail-x"), &[Code::OriginNotAllowed]),
        (413, format!("{good}&payload={}", "A".repeat(70_000)), &[Code::BodyTooLarge]),
    ];
    let mut reached = BTreeSet::new();
    for (status, form, codes) in forms {
        let shown = form.chars().take(120).collect::<String>();
        let (got_status, map) = post(&service, &form).await;
        let expected: BTreeSet<&str> = codes.iter().map(|code| code.name()).collect();
        assert_eq!(map.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{shown}");
        assert_eq!(got_status, status, "{shown}");
        reached.extend(codes.iter().copied());
    }
    for (status, code) in [
        reach_rate_limit(&service).await,
        reach_proof_faults(&service, false).await,
        reach_proof_faults(&service, true).await,
        reach_over_tcp(&service, "POST /attest?api=a", "5\r\ncontent-type: application/x-www-form-urlencoded", "api=a")
            .await,
        reach_over_tcp(&service, "POST /attest", "1\r\ncontent-type: application/json", "{").await,
        reach_over_tcp(&service, "POST /attest", "100\r\ncontent-type: application/x-www-form-urlencoded", "api=a")
            .await,
        reach_unavailable().await,
    ] {
        assert_eq!(status, code.status(), "{code}");
        reached.insert(code);
    }
    let of_specification =
        |codes: &BTreeSet<Code>| codes.iter().filter(|code| !Code::EXTENSIONS.contains(code)).count();
    let all: BTreeSet<Code> = Code::ALL.iter().copied().collect();
    println!(
        "error codes reached through HTTP: {} of the specification's {}, and {} of {} extensions",
        of_specification(&reached),
        of_specification(&all),
        reached.iter().filter(|code| Code::EXTENSIONS.contains(code)).count(),
        Code::EXTENSIONS.len()
    );
    assert_eq!(reached, all, "not reached: {:?}", all.difference(&reached).collect::<Vec<_>>());
}

async fn reach_rate_limit(service: &Arc<Service>) -> (u16, Code) {
    let form = |n: u32| {
        format!(
            "approov-site-key=limited&api=a.example&hcaptcha-site-key={}&hcaptcha-token=sim-pass-limit{n}",
            sim::HCAPTCHA_SITE_KEY
        )
    };
    // A minute begins, so that none ends between the two requests.
    let to_next = i64::try_from(seconds_to_next_minute(service.now())).unwrap() * 1000;
    service.clock_offset.store(to_next, Ordering::Relaxed);
    assert_eq!(post(service, &form(0)).await.0, 200);
    let (status, map) = post(service, &form(1)).await;
    service.clock_offset.store(0, Ordering::Relaxed);
    assert!(map.contains_key("aprv-rate-limit"));
    (status, Code::RateLimit)
}

async fn reach_proof_faults(service: &Arc<Service>, nonce: bool) -> (u16, Code) {
    let mut browser = Browser::new(service).await;
    let proof = if nonce { browser.proof("POST", URL, |claims| claims["nonce"] = "x".into()) } else { "x".to_owned() };
    let params = [("approov-site-key", "full"), ("api", "a.example"), ("refresh-token", "x")];
    let response = browser.attest_with(service, &params, proof).await;
    let code = if nonce { Code::InvalidNonce } else { Code::InvalidDpopToken };
    assert_eq!(response.codes(), [code.name()]);
    (response.status.as_u16(), code)
}

/// A request as raw bytes, its writing side closed after the body: for what no client library would send.
async fn reach_over_tcp(service: &Arc<Service>, line: &str, length: &str, body: &str) -> (u16, Code) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, stop) = watch::channel(Phase::Running);
    let app = App::new(Arc::clone(service), Router::new());
    let server = tokio::spawn(approov_web_service::server::listener(listener, None, service).serve(app, stop));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    end.send(Phase::Stopping).unwrap();
    server.await.unwrap().unwrap();
    let status = response.split(' ').nth(1).unwrap().parse().unwrap();
    let code = [Code::ParamsInBodyAndPath, Code::BodyParse, Code::BodyReadFail]
        .into_iter()
        .find(|code| response.contains(code.name()))
        .unwrap_or_else(|| panic!("{response}"));
    (status, code)
}

async fn reach_unavailable() -> (u16, Code) {
    let mut config = config().await;
    config.store = approov_web_service::config::StoreAddress::Redis("redis://127.0.0.1:9/".to_owned());
    let service = service(config).await;
    let form = format!("{GOOD}&hcaptcha-site-key={}&hcaptcha-token=sim-pass-unavailable", sim::HCAPTCHA_SITE_KEY);
    let (status, map) = post(&service, &form).await;
    assert_eq!(map["aprv-unavailable"], "the shared store is unavailable");
    (status, Code::Unavailable)
}
