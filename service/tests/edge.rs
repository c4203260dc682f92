//! The edge of the service: who calls, by which name, from which page.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use axum::body::Body;
use axum::http::Request;
use support::*;

async fn metrics(process: &Process) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("{}/metrics", process.operations)).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_forwarding_header_of_a_stranger_is_counted_and_said_once() {
    let mut process = Process::start(&["--dev"]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (name, value) in [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9"), ("x-other", "1")] {
        client.get(format!("{}/healthz", process.url)).header(name, value).send().await.unwrap();
    }
    let line = process.wait_for_log(|line| line["event"] == "forwarding");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("127.0.0.1") && message.contains("trusted_proxies"), "{message}");
    process.wait_for_logs(3, |line| line["path"] == "/healthz");
    let said = process.logged().await.iter().filter(|line| line.contains("\"forwarding\"")).count();
    assert_eq!(said, 1);
    let expected = "approov_forwarding_faults_total{reason=\"untrusted\"} 2";
    let metrics = metrics(&process).await;
    assert!(metrics.lines().any(|line| line == expected), "{metrics}");
}

/// A directory of its own that is removed after the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("approov-edge-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A configuration with one account and a certificate for these names; none: without TLS.
    fn file(&self, top: &str, names: &[&str]) -> (PathBuf, reqwest::Client) {
        let mut client = reqwest::Client::builder().no_proxy();
        let mut text = top.to_owned();
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let (cert, key) = (self.0.join("cert.pem"), self.0.join("key.pem"));
            fs::write(&cert, made.cert.pem()).unwrap();
            fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            text.push_str(&format!("tls_cert = \"{}\"\ntls_key = \"{}\"\n", cert.display(), key.display()));
            client = client.tls_certs_only([reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()]);
        }
        text.push_str(&format!(
            "session_secret = \"{SESSION_SECRET}\"\n[[account]]\nsite_key = \"k\"\nsecret = \"{SECRET}\"\n\
             [[account.api]]\ndomain = \"a.example\"\nallow_web = true\n\
             [[account.hcaptcha.site]]\nsite_key = \"h\"\nsecret = \"s\"\n"
        ));
        let file = self.0.join("service.toml");
        fs::write(&file, text).unwrap();
        (file, client.build().unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `serve` with arguments that it does not take; gives what it says.
fn refusal_of(args: &[&str]) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_approov-web-service"))
        .arg("serve")
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It ends, or it says where it serves.
    let mut said = String::new();
    child.stdout.take().unwrap().take(1).read_to_string(&mut said).unwrap();
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(said.is_empty() && !output.status.success(), "{args:?}: it serves");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_proof_is_about_one_of_the_public_urls_whatever_host_is_named() {
    let urls = ["https://web.example", "https://shop.example/approov"].map(public_url).to_vec();
    let service = service(dev_config(|config| config.public_urls = urls).await).await;
    for (host, htu, status) in [
        ("web.example", "https://web.example/attest", 204),
        ("internal:8080", "https://web.example/attest", 204),
        ("evil.example/..", "https://shop.example/approov/attest", 204),
        ("evil.example", "https://evil.example/attest", 401),
        ("evil.example", "http://evil.example/attest", 401),
        ("web.example", "http://web.example/attest", 401),
        ("shop.example", "https://shop.example/attest", 401),
    ] {
        let mut browser = Browser::default();
        let proof = browser.proof("GET", htu, |_| {});
        let request = Request::get("/attest").header("host", host).header("dpop", proof);
        let response = send(&service, request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status, status, "{host} {htu}");
    }
}

#[test]
fn a_request_names_exactly_one_host() {
    let place = Place::new("host");
    let (file, _) = place.file(&format!("public_urls = [\"{PUBLIC}\"]\n"), &[]);
    let process = Process::start(&["--config", file.to_str().unwrap()]);
    let status = |head: &str| {
        let mut stream = TcpStream::connect(process.url.trim_start_matches("http://")).unwrap();
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response.split(' ').nth(1).unwrap().to_owned()
    };
    for path in ["/healthz", "/attest"] {
        assert_eq!(status(&format!("GET {path} HTTP/1.1\r\n")), "400", "{path}: none");
        assert_eq!(status(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nhost: a\r\n")), "400", "{path}: two");
        assert_eq!(status(&format!("GET http://a{path} HTTP/1.1\r\n")), "400", "{path}: in the target only");
    }
    assert_eq!(status("GET /healthz HTTP/1.1\r\nhost: a\r\n"), "200");
    // Balancers that look whether it lives.
    assert_eq!(status("GET /healthz HTTP/1.0\r\n"), "200");
}

#[test]
fn a_service_that_does_not_know_where_browsers_find_it_does_not_start() {
    let place = Place::new("unknown");
    let (file, _) = place.file("", &[]);
    let said = refusal_of(&["--json", "--listen", "127.0.0.1:0", "--config", file.to_str().unwrap()]);
    assert!(said.contains("public_urls = [\"https://web.example.com\"]"), "{said}");
    let (file, _) = place.file("", &["*.example.com"]);
    let said = refusal_of(&["--json", "--listen", "127.0.0.1:0", "--config", file.to_str().unwrap()]);
    assert!(said.contains("public_urls = [\"https://web.example.com\"]"), "{said}");
}

#[tokio::test]
async fn without_public_urls_the_names_of_the_certificate_count() {
    let place = Place::new("names");
    let (file, client) = place.file("", &["localhost", "127.0.0.1", "web.example", "*.example.org"]);
    let process = Process::start(&["--config", file.to_str().unwrap()]);
    let port = process.url.rsplit(':').next().unwrap();
    for (public, status) in [
        (format!("https://127.0.0.1:{port}"), 204),
        (format!("https://localhost:{port}"), 204),
        (format!("https://web.example:{port}"), 204),
        ("https://web.example".to_owned(), 204),
        ("https://web.example:1".to_owned(), 401),
        ("http://web.example".to_owned(), 401),
        ("https://a.example.org".to_owned(), 401),
        ("https://evil.example".to_owned(), 401),
    ] {
        let mut browser = Browser::default();
        let proof = browser.proof("GET", &format!("{public}/attest"), |_| {});
        let request = client.get(format!("{}/attest", process.url)).header("dpop", proof);
        assert_eq!(request.send().await.unwrap().status(), status, "{public}");
    }
}

#[test]
fn the_development_mode_is_for_this_machine_unless_allowed_otherwise() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.7:0"] {
        let said = refusal_of(&["--dev", "--json", "--listen", address]);
        assert!(said.contains("--dev-public"), "{address}: {said}");
    }
    let said = refusal_of(&["--dev", "--json", "--listen", "127.0.0.1:0", "--operations", "0.0.0.0:0"]);
    assert!(said.contains("--dev-public"), "{said}");
    let process = Process::start(&["--dev", "--listen", "0.0.0.0:0", "--dev-public"]);
    assert!(process.url.starts_with("http://0.0.0.0:"));
    for flag in [vec!["--dev-public"], vec!["--public-url", "http://x"]] {
        let said = refusal_of(&[&["--config", "x"], flag.as_slice()].concat());
        assert!(said.contains("belongs to --dev"), "{said}");
    }
}

#[tokio::test]
async fn the_development_mode_does_not_respond_to_names_of_others() {
    let process = Process::start(&["--dev", "--public-url", "http://dev.example.com:8087"]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |method: reqwest::Method, path: &str, headers: &[(&'static str, &str)]| {
        let mut request = client.request(method, format!("{}{path}", process.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    };
    use reqwest::Method;
    // A page at a name that leads here.
    let rebound = ("host", "rebind.evil.example");
    assert_eq!(status(Method::PUT, "/sim/fault?mode=none", &[rebound]).await, 403);
    assert_eq!(status(Method::GET, "/attest", &[rebound]).await, 403);
    assert_eq!(status(Method::GET, "/healthz", &[rebound]).await, 403);
    // A page of another site.
    let stranger = ("origin", "https://evil.example");
    assert_eq!(status(Method::PUT, "/sim/fault?mode=none", &[stranger]).await, 403);
    for headers in [vec![], vec![("origin", "http://localhost:3000")], vec![("host", "dev.example.com:8087")]] {
        assert_eq!(status(Method::PUT, "/sim/fault?mode=none", &headers).await, 204, "{headers:?}");
    }
    // Its own URL and those that it was given.
    for base in [process.url.as_str(), "http://dev.example.com:8087"] {
        let mut browser = Browser::default();
        let proof = browser.proof("GET", &format!("{base}/attest"), |_| {});
        assert_eq!(status(Method::GET, "/attest", &[("dpop", &proof)]).await, 204, "{base}");
    }
    let mut browser = Browser::default();
    let proof = browser.proof("GET", "http://other.example.com:8087/attest", |_| {});
    assert_eq!(status(Method::GET, "/attest", &[("dpop", &proof)]).await, 401);
}

#[tokio::test]
async fn the_development_certificate_is_written_where_nobody_could_prepare_a_link() {
    let place = Place::new("certificate");
    let victim = place.0.join("victim");
    fs::write(&victim, "mine").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let guessed = std::env::temp_dir().join(format!("approov-web-service-{port}.pem"));
    std::os::unix::fs::symlink(&victim, &guessed).unwrap();
    let mut process = Process::start(&["--dev", "--dev-tls", "--listen", &format!("127.0.0.1:{port}")]);
    let line = process.wait_for_log(|line| line["event"] == "certificate");
    fs::remove_file(&guessed).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    let path = PathBuf::from(line["message"].as_str().unwrap().rsplit(' ').next().unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    process.signal("-TERM");
    process.wait().await;
    assert!(!path.parent().unwrap().exists(), "and it is tidied up");
}

#[tokio::test]
async fn what_a_check_service_says_is_in_the_log_and_nowhere_else() {
    let mut process = Process::start(&["--dev"]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut browser = Browser::default();
    browser.ask_nonce_at(&client, &process.url).await.unwrap();
    let refused = browser.attest_at(&client, &process.url, &with_hcaptcha("sim-error-log")).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.body.as_str()), (502, r#"{"hcap-token-check":"unavailable"}"#));
    let line = process.wait_for_log(|line| line["status"] == 502);
    assert_eq!(line["detail"], "hCaptcha responded with status 500");
    assert_eq!(line["checks"], serde_json::json!(["hcaptcha: unavailable"]));
}

#[test]
fn a_proxy_that_passes_connections_on_says_whose_they_are() {
    let place = Place::new("proxy");
    let top = format!("public_urls = [\"{PUBLIC}\"]\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n");
    let (file, _) = place.file(&top, &[]);
    let mut process = Process::start(&["--config", file.to_str().unwrap()]);
    let exchange = |first: &[u8], path: &str| {
        let mut stream = TcpStream::connect(process.url.trim_start_matches("http://")).unwrap();
        stream.write_all(first).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 198.51.100.1\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        // A connection that was closed before it was read is reset.
        let _ = stream.read_to_string(&mut String::new());
    };
    // From 203.0.113.9:4711 to 192.0.2.1:443.
    exchange(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x01\x12\x67\x01\xbb", "/through");
    exchange(b"", "/past");
    let line = process.wait_for_log(|line| line["path"] == "/through");
    assert_eq!(line["ip"], "203.0.113.9", "what the client says itself does not count");
    let line = process.wait_for_log(|line| line["event"] == "handshake");
    assert!(line["message"].as_str().unwrap().contains("PROXY protocol"), "{line}");
}
