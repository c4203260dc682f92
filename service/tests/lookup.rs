//! How the check services' servers are asked: fields, connections, retries, time.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use approov_verify::time::UnixTime;
use approov_web_service::check::{
    CheckClient, CheckContext, CheckError, Checked, FreshResult, Provider, ResultParams, Site,
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
    };
    let text = format!(
        "[[account]]\nsite_key = \"a\"\nsecret = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n\
         [[account.{kind}]]\n{key} = \"key\"\nsecret = \"sh&h\"\nverify_url = \"{url}\"\n{more}"
    );
    Config::parse(&text).unwrap().accounts["a"].checks[&provider].sites["key"].clone()
}

/// The parameters of a result, of whichever check service.
fn params(provider: Provider) -> ResultParams<'static> {
    ResultParams::read(provider.definition().params, |name| match name {
        "fingerprintjs-visitor-id" => Some("v_1"),
        "fingerprintjs-request-id" => Some("r.1"),
        "hcaptcha-token" | "recaptcha-token" => Some("tok&en"),
        _ => None,
    })
}

async fn check(client: &CheckClient, provider: Provider, site: &Site) -> Result<Checked, CheckError> {
    let result = FreshResult { provider, key: "key", site, params: params(provider) };
    let context = CheckContext {
        client_ip: "192.0.2.7",
        page_host: "a.example",
        allowed_origins: &AllowedOrigins::default(),
        now: UnixTime::now(),
    };
    result.check(client, "sh&h", context).await
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
async fn fingerprint_is_asked_for_the_visit_and_for_bots_only_when_needed() {
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
    let easy = site(Provider::Fingerprint, &url, "max_elapsed_time = 3600");
    assert_eq!(check(&lookup(), Provider::Fingerprint, &easy).await.unwrap().verdict, Ok(()));
    let asked = server.asked.recv().await.unwrap();
    assert!(asked.starts_with("GET /v3/visitors/v_1?request_id=r.1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("auth-api-key: sh&h\r\n"), "{asked}");
    let strict = site(Provider::Fingerprint, &url, "max_elapsed_time = 3600\nmax_bot_probability = 0.5");
    assert!(check(&lookup(), Provider::Fingerprint, &strict).await.unwrap().verdict.is_err());
    server.asked.recv().await.unwrap();
    let asked = server.asked.recv().await.unwrap();
    assert!(asked.starts_with("GET /v3/events/r.1 HTTP/1.1\r\n"), "{asked}");
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
        let body = format!(r#"{{"visitorId":"v_1","visits":[{{"requestId":"r.1","timestamp":{theirs}}}]}}"#);
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
