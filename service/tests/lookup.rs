//! How the check services' servers are asked: fields, connections, retries, time.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use approov_verify::time::UnixTime;
use approov_web_service::check::{
    CheckClient, CheckContext, CheckError, Checked, FreshResult, Provider, ResultParams, Site, SiteSecrets,
};
use approov_web_service::config::{AllowedOrigins, Config};
use approov_web_service::time::http_date;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const PASSED: &str = r#"{"success":true,"challenge_ts":"2026-01-01T00:00:00Z","hostname":"a.example","score":0.9}"#;

fn site(provider: Provider, url: &str, more: &str) -> Site {
    let (kind, key) = match provider {
        Provider::Fingerprint => ("fingerprint.subscription", "public_api_key"),
        Provider::Hcaptcha => ("hcaptcha.site", "site_key"),
        Provider::Recaptcha => ("recaptcha.site", "site_key"),
        Provider::Turnstile => ("turnstile.site", "site_key"),
        Provider::Friendly => ("friendly.site", "site_key"),
        Provider::Altcha => ("altcha.site", "site_key"),
    };
    let text = format!(
        "[[account]]\nsite_key = \"a\"\nsecret = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n\
         [[account.{kind}]]\n{key} = \"key\"\nsecret = \"sh&h\"\nverify_url = \"{url}\"\n{more}"
    );
    Config::parse(&text).unwrap().accounts["a"].checks[&provider].sites["key"].clone()
}

/// The parameters of a result, of whichever check service.
fn params(provider: Provider) -> ResultParams<'static> {
    ResultParams::read(provider.definition(), |name| match name {
        "fingerprintjs-visitor-id" => Some("v_1"),
        "fingerprintjs-request-id" => Some("r.1"),
        "hcaptcha-token" | "recaptcha-token" | "turnstile-token" | "friendly-response" => Some("tok&en"),
        _ => None,
    })
}

async fn check(client: &CheckClient, provider: Provider, site: &Site) -> Result<Checked, CheckError> {
    check_with(client, provider, site, params(provider)).await
}

async fn check_with(
    client: &CheckClient,
    provider: Provider,
    site: &Site,
    params: ResultParams<'_>,
) -> Result<Checked, CheckError> {
    let result = FreshResult { provider, key: "key", site, params };
    let context = CheckContext {
        client_ip: "192.0.2.7",
        allowed_origins: &AllowedOrigins::default(),
        now: UnixTime::now(),
        built_in: None,
    };
    let secrets = SiteSecrets { secret: "sh&h", sealed_keys: Vec::new() };
    result.check(client, &secrets, context).await
}

/// A server that responds to each request with `response` and keeps what it was asked; it counts connections.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    asked: tokio::sync::mpsc::UnboundedReceiver<String>,
}

async fn server(response: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, response) = (Arc::new(AtomicUsize::new(0)), Arc::new(response));
    let (sender, asked) = tokio::sync::mpsc::unbounded_channel();
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (response, sender) = (Arc::clone(&response), sender.clone());
            tokio::spawn(async move {
                let mut text = String::new();
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let declared = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() < declared.map_or(0, |length| length.parse().unwrap()) {
                        continue;
                    }
                    let Some(response) = response(&text) else { return };
                    sender.send(std::mem::take(&mut text)).unwrap();
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            });
        }
    });
    Server { address, connections, asked }
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A client with time enough, however busy the machine is.
fn lookup() -> CheckClient {
    CheckClient::new(Duration::from_secs(120)).unwrap()
}

#[tokio::test]
async fn captchas_are_asked_with_the_documented_fields_over_one_connection() {
    let mut server = server(|_| Some(http("200 OK", PASSED))).await;
    let lookup = lookup();
    let url = format!("http://{}/siteverify", server.address);
    for (provider, more, body) in [
        (Provider::Hcaptcha, "include_ip = true", "secret=sh%26h&response=tok%26en&sitekey=key&remoteip=192.0.2.7"),
        (Provider::Recaptcha, "include_ip = true", "secret=sh%26h&response=tok%26en&remoteip=192.0.2.7"),
        (Provider::Recaptcha, "", "secret=sh%26h&response=tok%26en"),
    ] {
        let checked = check(&lookup, provider, &site(provider, &url, more)).await.unwrap();
        assert_eq!(checked.verdict, Ok(()));
        let asked = server.asked.recv().await.unwrap();
        assert!(asked.starts_with("POST /siteverify HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("content-type: application/x-www-form-urlencoded\r\n"), "{asked}");
        assert!(asked.ends_with(&format!("\r\n\r\n{body}")), "{asked}");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_older_fingerprint_interface_is_asked_for_the_visit_and_for_bots_only_when_needed() {
    let made = UnixTime::now().as_millis();
    let mut server = server(move |asked| {
        Some(http(
            "200 OK",
            &if asked.starts_with("GET /v3/events/") {
                r#"{"products":{"botd":{"data":{"bot":{"result":"bad"}}}}}"#.to_owned()
            } else {
                format!(r#"{{"visitorId":"v_1","visits":[{{"requestId":"r.1","timestamp":{made}}}]}}"#)
            },
        ))
    })
    .await;
    let url = format!("http://{}/v3", server.address);
    // However long this takes, the identification is not too old.
    let easy = site(Provider::Fingerprint, &url, "api = \"v3\"\nmax_elapsed_time = 3600");
    assert_eq!(check(&lookup(), Provider::Fingerprint, &easy).await.unwrap().verdict, Ok(()));
    let asked = server.asked.recv().await.unwrap();
    assert!(asked.starts_with("GET /v3/visitors/v_1?request_id=r.1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("auth-api-key: sh&h\r\n"), "{asked}");
    let strict = site(Provider::Fingerprint, &url, "api = \"v3\"\nmax_elapsed_time = 3600\nmax_bot_probability = 0.5");
    assert!(check(&lookup(), Provider::Fingerprint, &strict).await.unwrap().verdict.is_err());
    server.asked.recv().await.unwrap();
    let asked = server.asked.recv().await.unwrap();
    assert!(asked.starts_with("GET /v3/events/r.1 HTTP/1.1\r\n"), "{asked}");
}

#[tokio::test]
async fn fingerprint_is_asked_for_the_event_and_once_more_while_it_may_come() {
    let made = UnixTime::now().as_millis();
    let fresh: &str = Box::leak(format!("{made}.abc").into_boxed_str());
    let event = move |id: &str, status: &str, bot: &str| {
        format!(
            r#"{{"event_id":"{id}","timestamp":{made},"identification":{{"visitor_id":"v_1"}},"incremental_identification_status":"{status}","bot":"{bot}"}}"#
        )
    };
    let not_there = http("404 Not Found", r#"{"error":{"code":"event_not_found","message":"event id not found"}}"#);
    for (id, first, asked_times, passes) in [
        (fresh, not_there.clone(), 2, true),
        // It was not made just now.
        ("r.1", not_there, 1, false),
        ("r.1", http("200 OK", &event("r.1", "partially_completed", "bad")), 2, true),
        ("r.1", http("200 OK", &event("r.1", "completed", "not_detected")), 1, true),
    ] {
        let whole = http("200 OK", &event(id, "completed", "not_detected"));
        let count = AtomicUsize::new(0);
        let mut server = server(move |_| {
            Some(if count.fetch_add(1, Ordering::SeqCst) == 0 { first.clone() } else { whole.clone() })
        })
        .await;
        let url = format!("http://{}/v4", server.address);
        let site = site(Provider::Fingerprint, &url, "max_elapsed_time = 3600\nmax_bot_probability = 0.5");
        let params = ResultParams::read(Provider::Fingerprint.definition(), |name| match name {
            "fingerprintjs-visitor-id" => Some("v_1"),
            "fingerprintjs-request-id" => Some(id),
            _ => None,
        });
        let checked = check_with(&lookup(), Provider::Fingerprint, &site, params).await.unwrap();
        assert_eq!(checked.verdict.is_ok(), passes, "{id}");
        for _ in 0..asked_times {
            let asked = server.asked.recv().await.unwrap();
            assert!(asked.starts_with(&format!("GET /v4/events/{id} HTTP/1.1\r\n")), "{asked}");
            assert!(asked.contains("authorization: Bearer sh&h\r\n"), "{asked}");
        }
        assert!(server.asked.try_recv().is_err());
    }
}

#[tokio::test]
async fn turnstile_is_asked_again_with_the_same_key_where_no_verdict_came() {
    let count = AtomicUsize::new(0);
    let mut server = server(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        Some(if first {
            http("200 OK", r#"{"success":false,"error-codes":["internal-error"]}"#)
        } else {
            http("200 OK", r#"{"success":true,"challenge_ts":"2026-01-01T00:00:00Z","hostname":"a.example","action":"","cdata":""}"#)
        })
    })
    .await;
    let site = site(Provider::Turnstile, &format!("http://{}/siteverify", server.address), "include_ip = true");
    assert_eq!(check(&lookup(), Provider::Turnstile, &site).await.unwrap().verdict, Ok(()));
    let (first, second) = (server.asked.recv().await.unwrap(), server.asked.recv().await.unwrap());
    let body = |asked: &str| asked.split_once("\r\n\r\n").unwrap().1.to_owned();
    let start = "secret=sh%26h&response=tok%26en&remoteip=192.0.2.7&idempotency_key=";
    assert!(body(&first).starts_with(start), "{first}");
    assert_eq!(body(&first), body(&second));
    assert!(server.asked.try_recv().is_err());
}

#[tokio::test]
async fn friendly_captcha_and_recaptcha_enterprise_are_asked_in_json() {
    let friendly = r#"{"success":true,"data":{"event_id":"e","challenge":{"timestamp":"2026-01-01T00:00:00Z","origin":"https://a.example"}}}"#;
    let mut server = server(|_| Some(http("200 OK", friendly))).await;
    let url = format!("http://{}/api/v2/captcha/siteverify", server.address);
    assert_eq!(
        check(&lookup(), Provider::Friendly, &site(Provider::Friendly, &url, "")).await.unwrap().verdict,
        Ok(())
    );
    let asked = server.asked.recv().await.unwrap();
    assert!(asked.starts_with("POST /api/v2/captcha/siteverify HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("content-type: application/json\r\n") && asked.contains("x-api-key: sh&h\r\n"), "{asked}");
    assert!(asked.ends_with(r#"{"response":"tok&en","sitekey":"key"}"#), "{asked}");

    let enterprise = r#"{"tokenProperties":{"valid":true,"hostname":"a.example","action":"login","createTime":"2026-01-01T00:00:00Z"},"riskAnalysis":{"score":0.9}}"#;
    let mut server = self::server(|_| Some(http("200 OK", enterprise))).await;
    let rest = "kind = \"enterprise\"\nproject = \"my-project\"\nactions = [\"login\"]\ninclude_ip = true";
    let site = site(Provider::Recaptcha, &format!("http://{}/", server.address), rest);
    assert_eq!(check(&lookup(), Provider::Recaptcha, &site).await.unwrap().verdict, Ok(()));
    let asked = server.asked.recv().await.unwrap();
    assert!(asked.starts_with("POST /v1/projects/my-project/assessments HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("x-goog-api-key: sh&h\r\n"), "{asked}");
    let body = r#"{"event":{"expectedAction":"login","siteKey":"key","token":"tok&en","userIpAddress":"192.0.2.7"}}"#;
    assert!(asked.ends_with(body), "{asked}");
}

/// Each check service against a server that responds as it does: what passes, what fails, and whose fault it is when neither
/// comes of it. The responses are those that the vendors document.
#[tokio::test]
async fn every_check_service_has_four_outcomes() {
    let siteverify = |body: &str| http("200 OK", body);
    let refused = |code: &str| siteverify(&format!(r#"{{"success":false,"error-codes":["{code}"]}}"#));
    let now = UnixTime::now().as_millis();
    let event = |visitor: &str| {
        let identification = format!(r#""identification":{{"visitor_id":"{visitor}","visitor_found":true}}"#);
        http(
            "200 OK",
            &format!(r#"{{"event_id":"r.1","timestamp":{now},"url":"https://a.example/",{identification}}}"#),
        )
    };
    let assessment = |valid: bool, reason: &str| {
        let properties = format!(
            r#""tokenProperties":{{"valid":{valid},"invalidReason":"{reason}","hostname":"a.example","action":"login","createTime":"2026-01-01T00:00:00Z"}}"#
        );
        http(
            "200 OK",
            &format!(
                r#"{{"name":"projects/1/assessments/2",{properties},"riskAnalysis":{{"score":0.9,"reasons":[]}}}}"#
            ),
        )
    };
    let google = |status: &str, code: u16, name: &str| {
        http(status, &format!(r#"{{"error":{{"code":{code},"message":"m","status":"{name}"}}}}"#))
    };
    let friendly = r#"{"success":true,"data":{"event_id":"e","challenge":{"timestamp":"2026-01-01T00:00:00Z","origin":"https://a.example"},"risk_intelligence":null}}"#;
    let frc = |status: &str, code: &str| {
        http(status, &format!(r#"{{"success":false,"error":{{"error_code":"{code}","detail":"d"}}}}"#))
    };
    let fp = |status: &str, code: &str| http(status, &format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#));
    let outage = http("503 Service Unavailable", "<html>busy</html>");
    let turnstile = r#"{"success":true,"challenge_ts":"2026-01-01T00:00:00.000Z","hostname":"a.example","error-codes":[],"action":"login","cdata":""}"#;
    let enterprise = "kind = \"enterprise\"\nproject = \"p\"";
    let table: [(Provider, &str, [Vec<String>; 4]); 6] = [
        (
            Provider::Hcaptcha,
            "",
            [
                vec![siteverify(PASSED)],
                vec![
                    refused("already-seen-response"),
                    refused("expired-input-response"),
                    refused("invalid-input-response"),
                ],
                vec![outage.clone(), http("429 Too Many Requests", ""), refused("bad-request"), siteverify("<html>")],
                vec![
                    refused("invalid-input-secret"),
                    refused("sitekey-secret-mismatch"),
                    refused("not-using-dummy-passcode"),
                ],
            ],
        ),
        (
            Provider::Recaptcha,
            "",
            [
                vec![siteverify(PASSED)],
                vec![refused("timeout-or-duplicate"), refused("invalid-input-response")],
                vec![
                    outage.clone(),
                    http("302 Found\r\nlocation: http://127.0.0.1:9/", ""),
                    siteverify(r#"{"success":tr"#),
                ],
                vec![
                    refused("invalid-input-secret"),
                    siteverify(
                        r#"{"success":true,"score":0.9,"hostname":"a.example","error-codes":["Over free quota."]}"#,
                    ),
                ],
            ],
        ),
        (
            Provider::Recaptcha,
            enterprise,
            [
                vec![assessment(true, "INVALID_REASON_UNSPECIFIED")],
                vec![assessment(false, "DUPE"), assessment(false, "EXPIRED"), assessment(false, "KEY_MISMATCH")],
                vec![outage.clone(), google("500 Internal Server Error", 500, "INTERNAL"), http("200 OK", "{}")],
                vec![
                    google("403 Forbidden", 403, "PERMISSION_DENIED"),
                    google("429 Too Many Requests", 429, "RESOURCE_EXHAUSTED"),
                    google("404 Not Found", 404, "NOT_FOUND"),
                ],
            ],
        ),
        (
            Provider::Turnstile,
            "",
            [
                vec![siteverify(turnstile)],
                vec![refused("timeout-or-duplicate"), refused("invalid-input-response")],
                vec![outage.clone(), refused("internal-error")],
                vec![refused("invalid-input-secret"), http("403 Forbidden", "<html>")],
            ],
        ),
        (
            Provider::Friendly,
            "",
            [
                vec![http("200 OK", friendly)],
                vec![
                    frc("200 OK", "response_invalid"),
                    frc("200 OK", "response_timeout"),
                    frc("200 OK", "response_duplicate"),
                ],
                vec![outage.clone(), frc("500 Internal Server Error", "internal_server_error"), http("200 OK", "[]")],
                vec![frc("401 Unauthorized", "auth_invalid"), frc("400 Bad Request", "sitekey_invalid")],
            ],
        ),
        (
            Provider::Fingerprint,
            "max_elapsed_time = 3600",
            [
                vec![event("v_1")],
                vec![event("another"), fp("404 Not Found", "event_not_found")],
                vec![outage, fp("429 Too Many Requests", "too_many_requests"), http("200 OK", r#"{"event_id":1}"#)],
                vec![fp("403 Forbidden", "secret_api_key_not_found"), fp("403 Forbidden", "wrong_region")],
            ],
        ),
    ];
    for (provider, rest, outcomes) in table {
        for (outcome, responses) in ["passed", "failed", "unavailable", "misconfigured"].into_iter().zip(outcomes) {
            for response in responses {
                let sent = response.clone();
                let server = server(move |_| Some(sent.clone())).await;
                let site = site(provider, &format!("http://{}/", server.address), rest);
                let got = match check(&lookup(), provider, &site).await {
                    Ok(Checked { verdict: Ok(()), .. }) => "passed",
                    Ok(_) => "failed",
                    Err(error) => error.kind(),
                };
                assert_eq!(got, outcome, "{} {rest}: {response}", provider.name());
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_fails_is_tried_once_more_and_no_more() {
    // Over TLS, a connection that is closed before the handshake has asked nothing yet, and can be counted.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let closed =
        check(&lookup(), Provider::Hcaptcha, &site(Provider::Hcaptcha, &format!("https://{address}/"), "")).await;
    assert_eq!(closed.unwrap_err().reason(), "hCaptcha could not be reached");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refused_connection_is_an_error() {
    // A port that was free a moment ago: nobody listens.
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = site(Provider::Hcaptcha, &format!("http://{}/", place.local_addr().unwrap()), "");
    drop(place);
    let refused = check(&lookup(), Provider::Hcaptcha, &site).await;
    assert_eq!(refused.unwrap_err().reason(), "hCaptcha could not be reached");
}

#[tokio::test]
async fn a_response_is_never_requested_again() {
    for (response, error) in [
        (Some("500 Internal Server Error"), "hCaptcha responded with status 500"),
        (Some("429 Too Many Requests"), "hCaptcha responded with status 429"),
        (Some("302 Found\r\nlocation: http://127.0.0.1:9/"), "hCaptcha responded with status 302"),
        // The server closed after the request: whether the result is used up is not known.
        (None, "hCaptcha could not be asked"),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let server = server(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            response.map(|response| http(response, "{}"))
        })
        .await;
        let site = site(Provider::Hcaptcha, &format!("http://{}/", server.address), "");
        assert_eq!(check(&lookup(), Provider::Hcaptcha, &site).await.unwrap_err().reason(), error);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{error}");
    }
}

#[tokio::test]
async fn long_and_late_responses_are_errors() {
    let long = server(|_| Some(http("200 OK", &" ".repeat(300_000)))).await;
    let site_of = |server: &Server| site(Provider::Recaptcha, &format!("http://{}/", server.address), "");
    let error = check(&lookup(), Provider::Recaptcha, &site_of(&long)).await.unwrap_err();
    assert_eq!(error.reason(), "reCAPTCHA gave too long a response");
    let late = server(|_| Some("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".to_owned())).await;
    // The rest of the response never comes.
    let lookup = CheckClient::new(Duration::from_millis(300)).unwrap();
    let error = check(&lookup, Provider::Recaptcha, &site_of(&late)).await.unwrap_err();
    assert_eq!(error.reason(), "reCAPTCHA did not respond in time");
}

#[tokio::test]
async fn a_service_whose_clock_is_wrong_takes_the_time_from_the_check_service() {
    // As if ours were an hour ahead.
    let server = server(|_| {
        let theirs = UnixTime::now().as_millis() - 3_600_000;
        let date = http_date(UnixTime::from_millis(theirs));
        let body = format!(r#"{{"event_id":"r.1","timestamp":{theirs},"identification":{{"visitor_id":"v_1"}}}}"#);
        let head = format!("200 OK\r\ndate: {date}");
        Some(http(&head, &body))
    })
    .await;
    let site = site(Provider::Fingerprint, &format!("http://{}/", server.address), "");
    let client = lookup();
    assert_eq!(client.clock_offset(), 0);
    assert_eq!(check(&client, Provider::Fingerprint, &site).await.unwrap().verdict, Ok(()));
    // It may be less, by as long as the check took.
    assert!((1_800_000..=3_600_000).contains(&client.clock_offset()), "{}", client.clock_offset());
}
