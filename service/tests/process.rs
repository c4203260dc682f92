//! The service as a process: TLS, HTTP/2, reload, faults, the end, and clients that misbehave.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use approov_verify::time::UnixTime;
use approov_web_service::dev::faults::{self, Faults};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::middleware::from_fn_with_state;
use futures_util::future::join;
use support::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("approov-process-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Replaces the file as editors do, in one step: a half-written one is nobody's configuration.
    fn replace(&self, text: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn tls_and_http_2_serve_the_whole_protocol() {
    let mut process = Process::start(&["--dev", "--dev-tls"]);
    assert!(process.url.starts_with("https://"));
    let line = process.wait_for_log(|line| line["event"] == "certificate");
    let path = line["message"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
    let certificate = reqwest::Certificate::from_pem(&fs::read(&path).unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap();
    let mut browser = Browser::default();
    let url = process.url.clone();
    let response = client.get(format!("{url}/healthz")).send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
    let response = browser.attest_at(&client, &url, &with_hcaptcha("sim-pass-tls")).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.body);
    let response = browser.attest_at(&client, &url, &REFRESH).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.body);
}

#[tokio::test]
async fn the_announcement_and_the_log_hold_what_tests_need_and_nothing_secret() {
    let mut process = Process::start(&["--dev", "--secret", SECRET, "--api", "my.example"]);
    for (name, value) in [
        ("secret", SECRET),
        ("site_key", "dev-approov-site-key"),
        ("hcaptcha_site_key", "10000000-ffff-ffff-ffff-000000000001"),
        ("fingerprint_public_api_key", "dev-fingerprint-public-api-key"),
    ] {
        assert_eq!(process.announced[name], value);
    }
    assert!(process.announced["apis"].as_array().unwrap().contains(&"my.example".into()));
    let (client, url) = (client(), process.url.clone());
    let mut browser = Browser::default();
    browser.ask_nonce_at(&client, &url).await.unwrap();
    let response = browser.attest_at(&client, &url, &with_hcaptcha("sim-pass-log")).await.unwrap();
    let token = response.token();
    assert!(is_trusted(&token), "the secret given is the secret used");
    let line = process.wait_for_log(|line| line["outcome"] == "token");
    assert_eq!((&line["method"], &line["path"], &line["status"]), (&"POST".into(), &"/attest".into(), &200.into()));
    assert_eq!(line["checks"], serde_json::json!(["hcaptcha: passed"]));
    assert_eq!(line["arc"], decode(&token).1["arc"]);
    assert_eq!(line["id"], response.header("x-request-id"));
    process.wait_for_log(|line| line["outcome"] == "nonce");
    let log = process.logged().await.join("\n");
    let refresh_token = browser.refresh_token.clone().unwrap();
    for secret in [SECRET, &token, &refresh_token, "sim-pass-log", &browser.nonce] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
    let metrics = client.get(format!("{}/metrics", process.operations)).send().await.unwrap().text().await.unwrap();
    for line in [
        "approov_requests_total{outcome=\"token\",status=\"200\"} 1",
        "approov_checks_total{service=\"hcaptcha\",result=\"passed\"} 1",
        "approov_active_sessions 1",
    ] {
        assert!(metrics.lines().any(|have| have == line), "{line} in\n{metrics}");
    }
    assert_eq!(client.get(format!("{url}/readyz")).send().await.unwrap().status(), 200);
    assert_eq!(client.get(format!("{url}/nothing")).send().await.unwrap().status(), 404);
}

fn account(lifetime: u32) -> String {
    format!(
        "{FILE_HEAD}[[account]]\nsite_key = \"k\"\nsecret = \"{SECRET}\"\ntoken_lifetime = {lifetime}\n\
         [[account.api]]\ndomain = \"a.example\"\nallow_web = true\n\
         [[account.hcaptcha.site]]\nsite_key = \"h\"\nsecret = \"s\"\n"
    )
}

#[tokio::test]
async fn a_changed_file_is_in_force_soon_and_a_broken_one_is_refused() {
    let file = File::new("reload", &account(60));
    let mut process = Process::start(&["--config", file.path()]);
    let (client, url) = (client(), process.url.clone());
    // The API is known or not: enough to see which file is in force.
    let codes = async || {
        let mut browser = Browser::of_public();
        browser.ask_nonce_at(&client, &url).await.unwrap();
        let params = [("approov-site-key", "k"), ("api", "b.example"), ("refresh-token", "x")];
        browser.attest_at(&client, &url, &params).await.unwrap().codes()
    };
    assert_eq!(codes().await, ["aprv-api-not-found"]);
    file.replace(&account(60).replace("a.example", "b.example"));
    process.wait_for_log(|line| line["event"] == "reloaded");
    assert_eq!(codes().await, ["aprv-invalid-refresh-token"]);
    file.replace(&account(60).replace("60", "0"));
    let line = process.wait_for_log(|line| line["event"] == "reload");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("line 6, column 18") && message.contains("stays in force"), "{message}");
    assert_eq!(codes().await, ["aprv-invalid-refresh-token"]);
    process.signal("-HUP");
    let operations = process.operations.clone();
    let metrics = async || client.get(format!("{operations}/metrics")).send().await.unwrap().text().await.unwrap();
    until("SIGHUP reads the file again", async || {
        metrics().await.contains("approov_config_reloads_total{result=\"refused\"} 2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_drops_no_request() {
    let file = File::new("busy", &account(60));
    let mut process = Process::start(&["--config", file.path()]);
    let (client, url) = (client(), process.url.clone());
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let (done, mut rounds) = tokio::sync::watch::channel(0);
    let busy = tokio::spawn(async move {
        while !*stopped.borrow_and_update() {
            let mut browser = Browser::of_public();
            assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
            let params = [("approov-site-key", "k"), ("api", "a.example"), ("refresh-token", "x")];
            let response = browser.attest_at(&client, &url, &params).await.unwrap();
            assert_eq!(response.codes(), ["aprv-invalid-refresh-token"], "nonces and requests survive");
            done.send_modify(|rounds| *rounds += 1);
        }
    });
    for (count, lifetime) in [(1, 61), (2, 62)] {
        let before = *rounds.borrow();
        file.replace(&account(lifetime));
        tokio::task::block_in_place(|| process.wait_for_logs(count, |line| line["event"] == "reloaded"));
        // One that began before the reload, and one after it; an error of the other task ends its channel.
        rounds.wait_for(|rounds| *rounds >= before + 2).await.unwrap();
    }
    stop.send(true).unwrap();
    busy.await.unwrap();
}

/// A file with an account whose only check service is at this URL.
fn account_with_check(verify_url: &str) -> String {
    account(60).replace("secret = \"s\"\n", &format!("secret = \"s\"\nverify_url = \"{verify_url}\"\n"))
}

/// Parameters of a first request to that account.
const WITH_CHECK: [(&str, &str); 4] =
    [("approov-site-key", "k"), ("api", "a.example"), ("hcaptcha-site-key", "h"), ("hcaptcha-token", "token-of-h")];

/// What such a check service responds.
const PASSED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{\"success\":true}";

/// Whether this is a whole message: its head, and a body as long as the head says.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let declared = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= declared.map_or(0, |length| length.parse().unwrap())
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !is_whole(&text) {
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "the request ended early: {text}");
        text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    text
}

#[tokio::test]
async fn the_end_lets_running_requests_finish() {
    let check = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = File::new("end", &account_with_check(&format!("http://{}/", check.local_addr().unwrap())));
    let mut process = Process::start(&["--config", file.path()]);
    let (client, url) = (client(), process.url.clone());
    let mut browser = Browser::of_public();
    browser.ask_nonce_at(&client, &url).await.unwrap();
    let request = browser.attest_at(&client, &url, &WITH_CHECK);
    let end = async {
        let (mut stream, _) = check.accept().await.unwrap();
        read_request(&mut stream).await;
        // The request is running, and it runs on while the service stops.
        process.signal("-TERM");
        process.wait_for_log(|line| line["event"] == "stopping");
        stream.write_all(PASSED.as_bytes()).await.unwrap();
    };
    let (response, ()) = within("the request ends", join(request, end)).await;
    assert_eq!(response.unwrap().status, 200);
    assert_eq!(process.wait().await, Some(0));
    assert!(client.get(format!("{url}/healthz")).send().await.is_err());
}

#[tokio::test]
async fn a_check_whose_connection_fails_is_made_once_more() {
    let check = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let roots = File::new("roots", &made.cert.pem());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let file = File::new("once-more", &account_with_check(&format!("https://{}/", check.local_addr().unwrap())));
    let process = Process::start_with(&["--config", file.path()], &[("SSL_CERT_FILE", roots.path())]);
    let (client, url) = (client(), process.url.clone());
    let mut browser = Browser::of_public();
    browser.ask_nonce_at(&client, &url).await.unwrap();
    let request = browser.attest_at(&client, &url, &WITH_CHECK);
    let service = async {
        // Closed before anything was asked.
        drop(check.accept().await.unwrap());
        let (stream, _) = check.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let asked = read_request(&mut stream).await;
        stream.write_all(PASSED.as_bytes()).await.unwrap();
        asked
    };
    let (response, asked) = within("the check is made", join(request, service)).await;
    assert!(is_trusted(&response.unwrap().token()));
    assert!(asked.ends_with("\r\n\r\nsecret=s&response=token-of-h&sitekey=h"), "{asked}");
}

/// The faults in front of a handler that responds at once, and how long a request took by the paused clock.
async fn through(faults: &Arc<Faults>) -> (u16, Duration) {
    let handler = axum::routing::get(|| async { axum::http::StatusCode::NO_CONTENT });
    let router = Router::new().route("/attest", handler).layer(from_fn_with_state(Arc::clone(faults), faults::inject));
    let begun = tokio::time::Instant::now();
    let response = router.oneshot(Request::get("/attest").body(Body::empty()).unwrap()).await.unwrap();
    (response.status().as_u16(), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn latency_and_delay_add_up() {
    let latency = Duration::from_millis(150);
    let fault = |text| faults::parse(text).unwrap();
    let faults = |text| Arc::new(Faults::new(latency, fault(text), Arc::default()));
    assert_eq!(through(&faults("none")).await, (204, latency));
    assert_eq!(through(&faults("delay:300")).await, (204, Duration::from_millis(450)));
    assert_eq!(through(&faults("5xx:502")).await, (502, latency));
}

#[tokio::test]
async fn the_service_says_that_it_is_not_ready_before_it_stops() {
    // Long enough for a slow machine; the second signal cuts it short.
    let file = File::new("drain", &format!("{}[limits]\ndrain_seconds = 600\n", account(60)));
    let mut process = Process::start(&["--config", file.path()]);
    let (client, url) = (client(), process.url.clone());
    wait_for_readiness(&client, &url, 200).await;
    process.signal("-TERM");
    wait_for_readiness(&client, &url, 503).await;
    process.wait_for_log(|line| line["event"] == "draining");
    // It still serves, also on new connections.
    let newcomer = self::client();
    let mut browser = Browser::of_public();
    assert_eq!(browser.ask_nonce_at(&newcomer, &url).await.unwrap().status, 204);
    assert_eq!(newcomer.get(format!("{url}/healthz")).send().await.unwrap().status(), 200);
    process.signal("-TERM");
    assert_eq!(process.wait().await, Some(0));
}

#[tokio::test]
async fn an_interrupt_does_not_drain() {
    let file = File::new("interrupt", &format!("{}[limits]\ndrain_seconds = 600\n", account(60)));
    let mut process = Process::start(&["--config", file.path()]);
    process.signal("-INT");
    assert_eq!(process.wait().await, Some(0));
}

#[tokio::test]
async fn faults_happen_as_asked() {
    let process = Process::start(&["--dev", "--latency", "1"]);
    let (client, url) = (client(), process.url.clone());
    let fault = async |mode: &str| {
        let response = client.put(format!("{url}/sim/fault?mode={mode}")).send().await.unwrap();
        assert_eq!(response.status(), 204, "{mode}");
    };
    let mut browser = Browser::default();
    assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
    fault("drop&count=1").await;
    assert!(browser.ask_nonce_at(&client, &url).await.is_err());
    assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
    fault("5xx:502").await;
    let response = browser.ask_nonce_at(&client, &url).await.unwrap();
    assert_eq!((response.status.as_u16(), response.header("content-type")), (502, "text/html"));
    fault("delay:300").await;
    assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
    fault("lose&count=1").await;
    let proof = browser.proof("POST", &format!("{url}/attest"), |_| {});
    let lost = browser.attest_at_with(&client, &url, &with_hcaptcha("sim-pass-lost"), proof.clone()).await;
    assert!(lost.is_err());
    let again = browser.attest_at_with(&client, &url, &with_hcaptcha("sim-pass-lost"), proof).await.unwrap();
    assert_eq!(again.codes(), ["aprv-invalid-dpop-token"], "the lost request was carried out");
    fault("clock:-21600").await;
    browser.ask_nonce_at(&client, &url).await.unwrap();
    let six_hours_ago = || UnixTime::now().as_secs() - 21_600;
    let before = six_hours_ago();
    let response = browser.attest_at(&client, &url, &with_hcaptcha("sim-pass-clock")).await.unwrap();
    let meanwhile = before..=six_hours_ago();
    let (_, claims) = decode(&response.token());
    assert!(meanwhile.contains(&claims["iat"].as_i64().unwrap()), "{meanwhile:?}: {claims}");
    let date = httpdate::parse_http_date(response.header("date")).unwrap();
    let date = i64::try_from(date.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    assert!(meanwhile.contains(&date), "{meanwhile:?}: {date}");
    let bad = client.put(format!("{url}/sim/fault?mode=explode")).send().await.unwrap();
    assert_eq!(bad.status(), 400);
}

#[test]
fn faults_and_simulators_belong_to_development() {
    let file = File::new("nodev", &account(60));
    for args in [["--latency", "1"], ["--fault", "drop"], ["--api", "x"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_approov-web-service"))
            .args(["serve", "--config", file.path()])
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("belongs to --dev"));
    }
    let process = Process::start(&["--config", file.path()]);
    for path in ["/sim/hcaptcha/1/api.js", "/sim/fault"] {
        assert_eq!(
            raw(&process.url, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).0,
            "404"
        );
    }
}

#[test]
fn a_service_that_cannot_start_says_why() {
    let file = File::new("bad", "listen = 7\n");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_approov-web-service"))
        .args(["serve", "--config", file.path()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1, column 10"), "{output:?}");
}

fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(url.split("//").nth(1).unwrap()).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

/// Writes bytes, reads until the service closes the connection; gives the status and everything.
fn raw(url: &str, bytes: &str) -> (String, String) {
    let mut stream = connect(url);
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut response = String::new();
    // A connection that is reset is closed too; one that stays open is not.
    if let Err(error) = stream.read_to_string(&mut response) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{response}");
    }
    (response.split(' ').nth(1).unwrap_or_default().to_owned(), response)
}

#[test]
fn clients_that_misbehave_are_cut_off() {
    let process = Process::start(&["--dev"]);
    let huge_head = format!("GET /attest HTTP/1.1\r\nhost: localhost\r\nx-big: {}\r\n\r\n", "a".repeat(100_000));
    assert_eq!(raw(&process.url, &huge_head).0, "431");
    let huge_body =
        "POST /attest HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\nconnection: close\r\n\r\n";
    let (status, response) = raw(&process.url, huge_body);
    assert!(status == "413" && response.contains("rqst-body-too-large"), "{response}");
    let chunked = format!(
        "POST /attest HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n11170\r\n{}\r\n0\r\n\r\n",
        "a".repeat(70_000)
    );
    assert_eq!(raw(&process.url, &chunked).0, "413");
    assert_eq!(raw(&process.url, "BOGUS\r\n\r\n").0, "400");
    assert_eq!(raw(&process.url, "GET /attest HTTP/1.1\r\nconnection: close\r\n\r\n").0, "400", "no Host at all");
    assert_eq!(raw(&process.url, "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").0, "200");
}

#[test]
fn the_configured_time_outs_are_in_force() {
    let limits = "[limits]\nhead_seconds = 0.2\nbody_seconds = 0.2\n";
    let file = File::new("time-outs", &format!("{}{limits}", account(60)));
    let process = Process::start(&["--config", file.path()]);
    assert_eq!(raw(&process.url, "GET /attest HTTP/1.1\r\nhost:").1, "", "a head that never ends");
    let slow_body = "POST /attest HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\nab";
    let (status, response) = raw(&process.url, slow_body);
    assert!(status == "400" && response.contains("the body did not come in time"), "{response}");
}

#[test]
fn what_is_for_operators_is_not_for_the_public() {
    let process = Process::start(&["--dev"]);
    let get = |url: &str, path: &str, host: &str| {
        raw(url, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
    };
    for path in ["/metrics", "/openapi.json"] {
        assert_eq!(get(&process.url, path, "localhost").0, "404", "{path}");
        assert_eq!(get(&process.operations, path, "localhost").0, "200", "{path}");
        assert_eq!(get(&process.operations, path, "rebound.example").0, "421", "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        for url in [&process.url, &process.operations] {
            assert_eq!(get(url, path, "localhost").0, "200", "{path}");
        }
    }
    assert_eq!(get(&process.operations, "/attest", "localhost").0, "404");
    let (_, metrics) = get(&process.operations, "/metrics", "127.0.0.1");
    for name in
        ["approov_connections_open", "approov_pressure{resource=\"processor\"}", "approov_log_lines_dropped_total"]
    {
        assert!(metrics.contains(name), "{name} in\n{metrics}");
    }
}

#[tokio::test]
async fn request_ids_do_not_count() {
    let process = Process::start(&["--dev"]);
    let client = client();
    let mut ids = Vec::new();
    for _ in 0..30 {
        let response = client.get(format!("{}/healthz", process.url)).send().await.unwrap();
        ids.push(response.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    let alike =
        ids.iter().zip(ids.iter().skip(1)).filter(|(one, next)| one.as_bytes()[..4] == next.as_bytes()[..4]).count();
    assert_eq!(alike, 0, "{ids:?}");
}

#[test]
fn nobody_waits_for_a_log_that_nobody_reads() {
    use std::io::BufRead as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_approov-web-service"))
        .args(["serve", "--dev", "--json", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let announced: serde_json::Value = serde_json::from_str(&line).unwrap();
    let url = announced["url"].as_str().unwrap();
    let mut stream = connect(url);
    // Far more than a pipe holds, which is 64 KiB.
    let request = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(250));
    let mut buffer = [0; 1024];
    for n in 0..2000 {
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        while !is_whole(&response) {
            let length = stream.read(&mut buffer).unwrap_or_else(|error| panic!("request {n}: {error}"));
            assert!(length > 0, "request {n}: the connection ended");
            response.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        assert!(response.starts_with("HTTP/1.1 404 "), "request {n}: {response}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The way of docs/SERVICE.md, with simulated check services and a certificate made here.
#[tokio::test]
async fn an_account_made_by_the_command_line_alone_serves_over_https() {
    let simulators = simulators().await;
    let directory = std::env::temp_dir().join(format!("approov-https-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("service.toml");
    let command = |line: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_approov-web-service"))
            .args(line.split_whitespace())
            .env("APPROOV_SERVICE_CONFIG", &file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let added = command("account -add");
    let site_key = added.trim().rsplit(' ').next().unwrap().to_owned();
    command("api -add api.example.com -allowWeb -y");
    command(&format!(
        "web -hcaptcha -add {} -secret {} -verifyURL http://{simulators}/sim/hcaptcha/siteverify -y",
        approov_web_service::dev::sim::HCAPTCHA_SITE_KEY,
        approov_web_service::dev::sim::HCAPTCHA_SECRET
    ));
    let certificate = || rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let install = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        fs::write(directory.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    };
    let trusting = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
    };
    let first = certificate();
    install(&first);
    let text = fs::read_to_string(&file).unwrap();
    let place = directory.display();
    let text = format!("tls_cert = \"{place}/cert.pem\"\ntls_key = \"{place}/key.pem\"\n{text}");
    fs::write(&file, text).unwrap();

    let process = Process::start(&["--config", file.to_str().unwrap()]);
    let url = process.url.clone();
    let client = trusting(&first);
    let mut browser = Browser::default();
    assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
    let mut params = with_hcaptcha("sim-pass-https");
    params[0].1 = &site_key;
    let token = browser.attest_at(&client, &url, &params).await.unwrap().token();
    assert!(command(&format!("token -check {token}")).starts_with("valid: "));

    // A renewed certificate is seen without anybody's help.
    let second = certificate();
    install(&second);
    until("the renewed certificate is used", async || {
        trusting(&second).get(format!("{url}/healthz")).send().await.is_ok()
    })
    .await;
    fs::remove_dir_all(directory).unwrap();
}
