//! What a client can see of a check that failed: nothing. Responses to results that pass and to results that do not are
//! compared in every member, format, length and status.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use approov_verify::Verifier;
use approov_web_service::attest::Service;
use approov_web_service::check::{Provider, SiteKind};
use approov_web_service::config::{Api, Config};
use approov_web_service::dev::{self, sim};
use approov_web_service::secrets::{KeptSecret, SecretKind};
use axum::body::Body;
use axum::http::Request;
use axum::routing::post;
use serde_json::{Value, json};
use support::*;

/// A page whose host is below the domain that captcha services name.
const PAGE: &str = "https://www.shop.example";
/// `shop.example`, as tokens of the simulators name hosts.
const NAMED: &str = "c2hvcC5leGFtcGxl";

/// How a text looks, apart from what it says.
fn format(text: &str) -> String {
    let shape = |c: char| match c {
        '0'..='9' => '0',
        'a'..='z' | 'A'..='Z' | '_' => 'a',
        other => other,
    };
    text.chars().map(shape).collect()
}

/// All that can be seen of a JSON value: members, and how each of them looks.
fn look(value: &Value, path: &str, seen: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                look(value, &format!("{path}/{name}"), seen);
            }
        }
        Value::Array(entries) => {
            for (index, value) in entries.iter().enumerate() {
                look(value, &format!("{path}/{index}"), seen);
            }
        }
        Value::String(text) if path.starts_with("/tokens/") && path.matches('/').count() == 2 => {
            look_at_token(text, path, seen);
        }
        // Random, or the browser's own words, so that only the length says something.
        Value::String(text)
            if ["/refresh-token", "/jkt", "/arc", "/requestId"].iter().any(|name| path.ends_with(name)) =>
        {
            seen.insert(path.to_owned(), format!("{} characters", text.len()));
        }
        Value::String(text) if path.ends_with("/hostname") => {
            seen.insert(path.to_owned(), text.clone());
        }
        Value::String(text) => {
            seen.insert(path.to_owned(), format(text));
        }
        other => {
            seen.insert(path.to_owned(), format(&other.to_string()));
        }
    }
}

fn look_at_token(token: &str, path: &str, seen: &mut BTreeMap<String, String>) {
    let parts: Vec<&str> = token.split('.').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    seen.insert(path.to_owned(), format!("{lengths:?}"));
    if parts.len() == 3 {
        let (header, claims) = decode(token);
        look(&header, &format!("{path}/header"), seen);
        look(&claims, &format!("{path}/claims"), seen);
    }
}

/// All that can be seen of a response.
fn appearance(response: &Response) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::from([
        ("status".to_owned(), response.status.to_string()),
        ("length".to_owned(), response.body.len().to_string()),
    ]);
    for (name, value) in &response.headers {
        let value = value.to_str().unwrap();
        let unequal = matches!(name.as_str(), "dpop-nonce" | "x-request-id");
        let shown = if unequal { format!("{} characters", value.len()) } else { format(value) };
        seen.insert(format!("header {name}"), shown);
    }
    look(&response.json(), "", &mut seen);
    seen
}

fn difference(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let names = one.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>();
    names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| format!("{name}: {:?} and {:?}", one.get(name), other.get(name)))
        .collect()
}

/// Sends a result, with or without the page's `Origin`.
async fn attest(service: &Arc<Service>, origin: Option<&str>, params: &[(&str, &str)]) -> Response {
    let mut browser = Browser::new(service).await;
    let proof = browser.proof("POST", URL, |_| {});
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
    let mut request = Request::post("/attest").header("host", HOST).header("dpop", proof);
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    send(service, request.body(Body::from(form)).unwrap()).await
}

/// An account with an API for each kind of token, whose sites embed whole results.
async fn config() -> Config {
    dev_config(|config| {
        // One client brings a thousand that fail.
        config.limits.failed_checks = None;
        let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
        account.jwe_secret = Some(KeptSecret::here(SecretKind::Key32, secret()).into());
        account
            .apis
            .insert("jwe.example".to_owned(), Api { allow_web: true, jwe: true, keyset_kid: None, audience: None });
        for site in account.checks.values_mut().flat_map(|check| check.sites.values_mut()) {
            site.embed_result = true;
        }
    })
    .await
}

fn with_api<'a>(mut params: Vec<(&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    params.push(("api", "jwe.example"));
    params
}

#[tokio::test]
async fn a_thousand_failed_checks_look_like_a_thousand_that_passed() {
    let service = service(config().await).await;
    let mut compared = 0;
    for n in 0..1000 {
        // Of each site, one result has passed before: a site of which none ever did has nothing to look like.
        let origin = (n % 4 != 3).then_some(PAGE);
        let kind = ["fail", "low", "expired", "junk", "replayed"][n % 5];
        let (pass, fail) = match n % 3 {
            2 => (
                format!("sim-pass-fp{n:04}"),
                match kind {
                    "junk" => format!("1620127950391.{n:04}"),
                    "replayed" => format!("sim-pass-fp{n:04}"),
                    kind => format!("sim-{kind}-f{n:04}"),
                },
            ),
            _ => (
                format!("sim-pass-{n:04}.{NAMED}"),
                match kind {
                    "junk" => format!("not a result {n:04}").replace(' ', "-"),
                    "replayed" => format!("sim-pass-{n:04}.{NAMED}"),
                    kind => format!("sim-{kind}-{n:04}.{NAMED}"),
                },
            ),
        };
        // Identifiers of one length, since both are said again as the browser said them.
        let width = pass.len().max(fail.len());
        let params = |token: &str| -> Vec<(String, String)> {
            let padded = format!("{token:x<width$}");
            let token = if n % 3 == 2 { padded.as_str() } else { token };
            let params = match n % 3 {
                0 => with_hcaptcha(token),
                1 => with_recaptcha(token),
                _ => with_fingerprint(token),
            };
            with_api(params).into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let send = async |token: &str| {
            let params = params(token);
            let params: Vec<(&str, &str)> =
                params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            attest(&service, origin, &params).await
        };
        let passed = send(&pass).await;
        let failed = send(&fail).await;
        assert_eq!(passed.status, 200, "{}", passed.body);
        assert!(is_trusted(passed.json()["tokens"]["api.example.com"].as_str().unwrap()), "{pass}");
        assert!(!is_trusted(failed.json()["tokens"]["api.example.com"].as_str().unwrap()), "{fail}");
        let difference = difference(&appearance(&passed), &appearance(&failed));
        assert!(difference.is_empty(), "pair {n}, {pass} and {fail}, {origin:?}:\n{}", difference.join("\n"));
        compared += 1;
    }
    println!("{compared} pairs look the same");
}

/// A captcha service whose responses are long, or say nothing.
async fn vendor(respond: impl Fn(&str) -> Value + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = axum::Router::new().route(
        "/",
        post(move |body: String| {
            let respond = respond.clone();
            async move { respond(&body).to_string() }
        }),
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// The configuration with hCaptcha and reCAPTCHA at `url`.
async fn config_at(url: &str) -> Config {
    let mut config = config().await;
    let account = config.accounts.get_mut(dev::SITE_KEY).unwrap();
    for check in account.checks.values_mut() {
        for site in check.sites.values_mut() {
            match &mut site.kind {
                SiteKind::Hcaptcha(site) => site.vendor.url = url.parse().unwrap(),
                SiteKind::Recaptcha(site) => site.vendor.url = url.parse().unwrap(),
                _ => {}
            }
        }
    }
    config
}

#[tokio::test]
async fn vendors_times_are_printed_by_us_and_a_host_that_is_not_named_is_the_last_that_was() {
    let url = vendor(|body| {
        if body.contains("response=passes") {
            json!({"success": true, "challenge_ts": "2026-01-01T00:00:00.123456Z", "hostname": "shop.example"})
        } else {
            json!({"success": false, "error-codes": ["invalid-input-response"]})
        }
    })
    .await;
    let service = service(config_at(&url).await).await;
    let embed = async |token: &str, origin: Option<&str>| {
        let response = attest(&service, origin, &with_hcaptcha(token)).await;
        let (_, claims) = decode(&response.token());
        claims["embed"][format!("hcap:{}", sim::HCAPTCHA_SITE_KEY)].clone()
    };
    // Nothing has passed yet: the page's own host, and some time before now.
    let early = embed("fails-000", Some(PAGE)).await;
    assert_eq!(early["hostname"], "www.shop.example");
    let time = approov_web_service::time::parse_rfc3339(early["challenge_ts"].as_str().unwrap()).unwrap();
    let ago = approov_verify::time::UnixTime::now().since(time).as_secs();
    assert!((1..=40).contains(&ago), "{ago} s ago");
    assert_eq!(early["challenge_ts"].as_str().unwrap().len(), "2026-01-01T00:00:00Z".len());
    assert_eq!(
        embed("passes-001", Some(PAGE)).await,
        json!({"challenge_ts": "2026-01-01T00:00:00Z", "hostname": "shop.example"})
    );
    assert_eq!(embed("fails-002", Some(PAGE)).await["hostname"], "shop.example");
    assert_eq!(embed("fails-003", None).await["hostname"], "shop.example");
    assert_eq!(embed("fails-004", Some("https://other.example")).await["hostname"], "other.example");
}

#[tokio::test]
async fn an_encrypted_token_is_never_longer_than_servers_take() {
    // Two results of 4 kB and more, as in public reports of headers that are refused.
    let url = vendor(|body| {
        let length = if body.contains("long") { 7_900 } else { 3_700 };
        json!({"success": true, "challenge_ts": "2026-01-01T00:00:00Z", "hostname": "shop.example", "tag": "x".repeat(length)})
    })
    .await;
    let service = service(config_at(&url).await).await;
    let verifier = Verifier::builder().secret(&secret()).jwe_secret(&secret()).build().unwrap();
    let mut lengths = Vec::new();
    for (hcaptcha, recaptcha, whole) in
        [("token-short", None, 1), ("token-long1", None, 0), ("token-short2", Some("token-short3"), 1)]
    {
        let mut params = with_api(with_hcaptcha(hcaptcha));
        let other = recaptcha.map(with_recaptcha).unwrap_or_default();
        params.extend(other.into_iter().skip(2));
        let response = attest(&service, Some(PAGE), &params).await.json();
        let token = response["tokens"]["jwe.example"].as_str().unwrap();
        assert!(token.len() <= 8_000, "{} bytes", token.len());
        lengths.push(token.len());
        let claims = verifier.verify_token(token, approov_verify::time::UnixTime::now()).unwrap();
        let embed = claims.all["embed"].as_object().unwrap();
        assert_eq!(embed.len(), 1 + usize::from(recaptcha.is_some()));
        assert_eq!(embed.values().filter(|result| result.get("tag").is_some()).count(), whole);
        assert!(embed.values().all(|result| result["hostname"] == "shop.example"));
    }
    println!("{lengths:?} bytes");
}

#[tokio::test]
async fn a_site_that_does_not_embed_whole_results_has_no_padding_to_pay_for() {
    let service = dev_service().await;
    let mut browser = Browser::new(&service).await;
    let response = browser.attest(&service, &with_hcaptcha("sim-pass-small")).await;
    let refresh_token = response.json()["refresh-token"].as_str().unwrap().len();
    // Head, nonce, one step, tag; in base64url.
    assert_eq!(refresh_token, (5 + 12 + 512 + 16usize).div_ceil(3) * 4 - 1);
    assert!(service.active().config.accounts[dev::SITE_KEY].checks.contains_key(&Provider::Hcaptcha));
}
