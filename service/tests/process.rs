//! The service as a process: TLS, HTTP/2, reload, faults, the end, and clients that misbehave.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::*;

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
    let log = process.logged().join("\n");
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
        "session_secret = \"{SESSION_SECRET}\"\n[[account]]\nsite_key = \"k\"\nsecret = \"{SECRET}\"\ntoken_lifetime = {lifetime}\n\
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
        let mut browser = Browser::default();
        browser.ask_nonce_at(&client, &url).await.unwrap();
        let params = [("approov-site-key", "k"), ("api", "b.example"), ("refresh-token", "x")];
        browser.attest_at(&client, &url, &params).await.unwrap().codes()
    };
    assert_eq!(codes().await, ["aprv-api-not-found"]);
    fs::write(&file.0, account(60).replace("a.example", "b.example")).unwrap();
    process.wait_for_log(|line| line["event"] == "reloaded");
    assert_eq!(codes().await, ["aprv-invalid-refresh-token"]);
    fs::write(&file.0, account(60).replace("60", "0")).unwrap();
    let line = process.wait_for_log(|line| line["event"] == "reload");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("line 5, column 18") && message.contains("stays in force"), "{message}");
    assert_eq!(codes().await, ["aprv-invalid-refresh-token"]);
    process.signal("-HUP");
    let operations = process.operations.clone();
    let metrics = async || client.get(format!("{operations}/metrics")).send().await.unwrap().text().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !metrics().await.contains("approov_config_reloads_total{result=\"refused\"} 2") {
        assert!(Instant::now() < deadline, "SIGHUP reads the file again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_reload_drops_no_request() {
    let file = File::new("busy", &account(60));
    let mut process = Process::start(&["--config", file.path()]);
    let (client, url) = (client(), process.url.clone());
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let busy = tokio::spawn(async move {
        let mut count = 0;
        while !*stopped.borrow_and_update() {
            let mut browser = Browser::default();
            assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
            let params = [("approov-site-key", "k"), ("api", "a.example"), ("refresh-token", "x")];
            let response = browser.attest_at(&client, &url, &params).await.unwrap();
            assert_eq!(response.codes(), ["aprv-invalid-refresh-token"], "nonces and requests survive");
            count += 1;
        }
        count
    });
    for lifetime in [61, 62] {
        fs::write(&file.0, account(lifetime)).unwrap();
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    process.wait_for_log(|line| line["event"] == "reloaded");
    stop.send(true).unwrap();
    assert!(busy.await.unwrap() > 5);
}

#[tokio::test]
async fn the_end_lets_running_requests_finish() {
    let mut process = Process::start(&["--dev"]);
    let (client, url) = (client(), process.url.clone());
    let mut browser = Browser::default();
    browser.ask_nonce_at(&client, &url).await.unwrap();
    let params = with_hcaptcha("sim-slow700-end");
    let request = browser.attest_at(&client, &url, &params);
    let end = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        process.signal("-TERM");
    };
    let (response, ()) = tokio::join!(request, end);
    assert_eq!(response.unwrap().status, 200);
    assert_eq!(process.wait(), Some(0));
    assert!(client.get(format!("{url}/healthz")).send().await.is_err());
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
    let mut browser = Browser::default();
    assert_eq!(browser.ask_nonce_at(&newcomer, &url).await.unwrap().status, 204);
    assert_eq!(newcomer.get(format!("{url}/healthz")).send().await.unwrap().status(), 200);
    process.signal("-TERM");
    assert_eq!(process.wait(), Some(0));
}

#[tokio::test]
async fn an_interrupt_does_not_drain() {
    let file = File::new("interrupt", &format!("{}[limits]\ndrain_seconds = 600\n", account(60)));
    let mut process = Process::start(&["--config", file.path()]);
    process.signal("-INT");
    assert_eq!(process.wait(), Some(0));
}

#[tokio::test]
async fn faults_happen_as_asked() {
    let process = Process::start(&["--dev", "--latency", "150"]);
    let (client, url) = (client(), process.url.clone());
    let fault = async |mode: &str| {
        let response = client.put(format!("{url}/sim/fault?mode={mode}")).send().await.unwrap();
        assert_eq!(response.status(), 204, "{mode}");
    };
    let mut browser = Browser::default();
    let begun = Instant::now();
    assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
    assert!(begun.elapsed() >= Duration::from_millis(150));
    fault("drop&count=1").await;
    assert!(browser.ask_nonce_at(&client, &url).await.is_err());
    assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
    fault("5xx:502").await;
    let response = browser.ask_nonce_at(&client, &url).await.unwrap();
    assert_eq!((response.status.as_u16(), response.header("content-type")), (502, "text/html"));
    fault("delay:300").await;
    let begun = Instant::now();
    assert_eq!(browser.ask_nonce_at(&client, &url).await.unwrap().status, 204);
    assert!(begun.elapsed() >= Duration::from_millis(450));
    fault("lose&count=1").await;
    let proof = browser.proof("POST", &format!("{url}/attest"), |_| {});
    let lost = browser.attest_at_with(&client, &url, &with_hcaptcha("sim-pass-lost"), proof.clone()).await;
    assert!(lost.is_err());
    let again = browser.attest_at_with(&client, &url, &with_hcaptcha("sim-pass-lost"), proof).await.unwrap();
    assert_eq!(again.codes(), ["aprv-invalid-dpop-token"], "the lost request was carried out");
    fault("clock:-21600").await;
    browser.ask_nonce_at(&client, &url).await.unwrap();
    let response = browser.attest_at(&client, &url, &with_hcaptcha("sim-pass-clock")).await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (_, claims) = decode(&response.token());
    assert!((21_590..21_610).contains(&(now - claims["iat"].as_u64().unwrap())));
    let date = httpdate::parse_http_date(response.header("date")).unwrap();
    assert!((21_590..21_610).contains(&date.elapsed().unwrap().as_secs()));
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
        assert_eq!(raw(&process.url, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).0, "404");
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

/// Writes bytes, reads to the end; gives the status and everything.
fn raw(url: &str, bytes: &str) -> (String, String) {
    let address = url.split("//").nth(1).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut response = String::new();
    let _ = stream.read_to_string(&mut response);
    (response.split(' ').nth(1).unwrap_or_default().to_owned(), response)
}

#[test]
fn clients_that_misbehave_are_cut_off() {
    let process = Process::start(&["--dev"]);
    let huge_head = format!("GET /attest HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n", "a".repeat(100_000));
    assert_eq!(raw(&process.url, &huge_head).0, "431");
    let huge_body = "POST /attest HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\nconnection: close\r\n\r\n";
    let (status, response) = raw(&process.url, huge_body);
    assert!(status == "413" && response.contains("rqst-body-too-large"), "{response}");
    let chunked = format!(
        "POST /attest HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n11170\r\n{}\r\n0\r\n\r\n",
        "a".repeat(70_000)
    );
    assert_eq!(raw(&process.url, &chunked).0, "413");
    assert_eq!(raw(&process.url, "BOGUS\r\n\r\n").0, "400");
    assert_eq!(raw(&process.url, "GET /attest HTTP/1.1\r\nconnection: close\r\n\r\n").0, "401", "no Host at all");
    assert_eq!(raw(&process.url, "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").0, "200");
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
        assert_eq!(get(&process.url, path, "x").0, "404", "{path}");
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
    let mut stream = TcpStream::connect(url.split("//").nth(1).unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Far more than a pipe holds, which is 64 KiB.
    let request = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(250));
    let mut response = [0; 1024];
    for n in 0..2000 {
        stream.write_all(request.as_bytes()).unwrap();
        let length = stream.read(&mut response).unwrap_or_else(|error| panic!("request {n}: {error}"));
        assert!(response[..length].starts_with(b"HTTP/1.1 404 "), "request {n}");
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
    let deadline = Instant::now() + Duration::from_secs(30);
    while trusting(&second).get(format!("{url}/healthz")).send().await.is_err() {
        assert!(Instant::now() < deadline, "the renewed certificate is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fs::remove_dir_all(directory).unwrap();
}
