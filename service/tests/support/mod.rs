//! A browser session without a browser, and a service without a process: keys, proofs, requests.
// Each test binary uses its part; a helper of a test may fail as a test fails.
#![allow(dead_code, missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use approov_listener::service::Peer;
use approov_verify::secret::Secret;
use approov_web_service::attest::Service;
use approov_web_service::check::CheckClient;
use approov_web_service::config::{Config, PublicUrl};
use approov_web_service::dev::{self, DevSecrets, sim};
use approov_web_service::http::App;
use approov_web_service::store::{AnyStore, Store as _};
use approov_web_service::telemetry::{Log, LogFormat};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub const HOST: &str = "web.example:8087";
pub const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
pub const URL: &str = "http://web.example:8087/attest";
pub const ORIGIN: &str = "https://app.example";
/// Where browsers find a service whose file begins with [`FILE_HEAD`].
pub const PUBLIC: &str = "https://web.example";
/// What no file of a service is without.
pub const FILE_HEAD: &str = "public_urls = [\"https://web.example\"]\n\
                             session_secret = \"ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\"\n";
pub const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The service's own.
pub const SESSION_SECRET: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

pub fn public_url(text: &str) -> PublicUrl {
    PublicUrl::parse(text).unwrap()
}

pub fn secret() -> Secret {
    Secret::from_base64(SECRET).unwrap()
}

/// After this long, what has not happened counts as a hang, on however busy a machine.
pub const HANG: Duration = Duration::from_secs(120);

/// Waits for something, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Waits until something holds that no event announces, by asking again and again.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, asking).await;
}

/// The simulators on a free port.
pub async fn simulators() -> SocketAddr {
    serve_on_free_port(sim::router()).await
}

pub async fn serve_on_free_port(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// The development configuration, changed as a test needs it. Requests and checks have time enough, however busy the machine is.
pub async fn dev_config(change: impl FnOnce(&mut Config)) -> Config {
    dev_config_with(simulators().await, change)
}

/// The same with these simulators.
pub fn dev_config_with(simulators: SocketAddr, change: impl FnOnce(&mut Config)) -> Config {
    let listen = "127.0.0.1:8087".parse().unwrap();
    let secrets = DevSecrets { account: secret(), session: Secret::from_base64(SESSION_SECRET).unwrap() };
    let mut config = dev::config(listen, simulators, &[], &secrets).unwrap();
    config.public_urls = vec![public_url(&format!("http://{HOST}"))];
    config.limits.request = HANG;
    config.limits.check = HANG;
    change(&mut config);
    config
}

pub async fn service(config: Config) -> Arc<Service> {
    let store = AnyStore::open(&config.store, config.limits.replay_entries).unwrap();
    let _ = store.ready().await;
    let lookup = CheckClient::new(config.limits.check).unwrap();
    Arc::new(Service::new(config, store, lookup, Log::new(LogFormat::Quiet)).unwrap())
}

pub async fn dev_service() -> Arc<Service> {
    service(dev_config(|_| {}).await).await
}

pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub fn codes(&self) -> Vec<String> {
        self.json().as_object().unwrap().keys().cloned().collect()
    }

    /// The only token of a success.
    pub fn token(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        let body = self.json();
        let tokens = body["tokens"].as_object().unwrap();
        assert_eq!(tokens.len(), 1);
        tokens.values().next().unwrap().as_str().unwrap().to_owned()
    }
}

pub async fn send(service: &Arc<Service>, request: Request<Body>) -> Response {
    send_from(service, request, IP).await
}

pub async fn send_from(service: &Arc<Service>, mut request: Request<Body>, ip: IpAddr) -> Response {
    let app = App::new(Arc::clone(service), Router::new());
    request.extensions_mut().insert(Peer((ip, 1234).into()));
    let response = app.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

/// One browser session: a key, the latest nonce, the refresh token.
pub struct Browser {
    key: EcdsaKeyPair,
    pub nonce: String,
    pub refresh_token: Option<String>,
    /// Where its requests come from.
    pub ip: IpAddr,
    /// Where the service is for browsers, when that is not where it is called: what proofs are about.
    pub public: Option<&'static str>,
    jti: u64,
}

impl Default for Browser {
    fn default() -> Self {
        Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            nonce: String::new(),
            refresh_token: None,
            ip: IP,
            public: None,
            jti: 0,
        }
    }
}

impl Browser {
    /// A session with a service that is found at [`PUBLIC`].
    pub fn of_public() -> Self {
        Self { public: Some(PUBLIC), ..Self::default() }
    }

    /// A session that has asked for its first nonce.
    pub async fn new(service: &Arc<Service>) -> Self {
        Self::new_at(service, IP).await
    }

    /// The same from another address.
    pub async fn new_at(service: &Arc<Service>, ip: IpAddr) -> Self {
        let mut browser = Self { ip, ..Self::default() };
        let response = browser.ask_nonce(service).await;
        assert_eq!(response.status, 204, "{}", response.body);
        browser
    }

    pub fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
            "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        })
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let input =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// A proof; `change` edits its claims.
    pub fn proof(&mut self, method: &str, url: &str, change: impl FnOnce(&mut Value)) -> String {
        self.jti += 1;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "jti": format!("jti-{}", self.jti), "htm": method, "htu": url, "iat": now, "nonce": self.nonce,
        });
        if self.nonce.is_empty() {
            claims.as_object_mut().unwrap().remove("nonce");
        }
        change(&mut claims);
        self.sign(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()}), &claims)
    }

    pub async fn ask_nonce(&mut self, service: &Arc<Service>) -> Response {
        self.ask_nonce_with(service, |_| {}).await
    }

    /// The same; `change` edits the proof's claims.
    pub async fn ask_nonce_with(&mut self, service: &Arc<Service>, change: impl FnOnce(&mut Value)) -> Response {
        let proof = self.proof("GET", URL, change);
        let request = Request::get("/attest")
            .header("host", HOST)
            .header("origin", ORIGIN)
            .header("dpop", proof)
            .body(Body::empty())
            .unwrap();
        let response = send_from(service, request, self.ip).await;
        self.keep_nonce(&response);
        response
    }

    pub fn keep_nonce(&mut self, response: &Response) {
        let nonce = response.header("dpop-nonce");
        if !nonce.is_empty() {
            nonce.clone_into(&mut self.nonce);
        }
    }

    /// An attest request with these parameters, a sound proof, and the refresh token if there is one.
    pub async fn attest(&mut self, service: &Arc<Service>, params: &[(&str, &str)]) -> Response {
        let proof = self.proof("POST", URL, |_| {});
        self.attest_with(service, params, proof).await
    }

    pub async fn attest_with(&mut self, service: &Arc<Service>, params: &[(&str, &str)], proof: String) -> Response {
        let refresh_token = self.refresh_token.iter().map(|token| ("refresh-token", token.as_str()));
        let pairs = params.iter().copied().chain(refresh_token);
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let request = Request::post("/attest")
            .header("host", HOST)
            .header("origin", ORIGIN)
            .header("dpop", proof)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        let response = send_from(service, request, self.ip).await;
        self.keep_nonce(&response);
        if response.status == 200 {
            self.refresh_token = Some(response.json()["refresh-token"].as_str().unwrap().to_owned());
        }
        response
    }
}

/// Parameters of a first request with an hCaptcha result.
pub fn with_hcaptcha(token: &str) -> Vec<(&str, &str)> {
    vec![
        ("approov-site-key", dev::SITE_KEY),
        ("api", "api.example.com"),
        ("hcaptcha-site-key", sim::HCAPTCHA_SITE_KEY),
        ("hcaptcha-token", token),
    ]
}

pub fn with_recaptcha(token: &str) -> Vec<(&str, &str)> {
    vec![
        ("approov-site-key", dev::SITE_KEY),
        ("api", "api.example.com"),
        ("recaptcha-site-key", sim::RECAPTCHA_SITE_KEY),
        ("recaptcha-token", token),
    ]
}

pub fn with_fingerprint(request_id: &str) -> Vec<(&str, &str)> {
    vec![
        ("approov-site-key", dev::SITE_KEY),
        ("api", "api.example.com"),
        ("fingerprintjs-token", sim::FINGERPRINT_PUBLIC_API_KEY),
        ("fingerprintjs-visitor-id", "visitor"),
        ("fingerprintjs-request-id", request_id),
    ]
}

/// Parameters of a refresh.
pub const REFRESH: [(&str, &str); 2] = [("approov-site-key", dev::SITE_KEY), ("api", "api.example.com")];

/// Header and claims of a JWS, unverified.
pub fn decode(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut json = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (json(), json())
}

/// Whether a token is signed with the account's secret.
pub fn is_trusted(token: &str) -> bool {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret().as_bytes());
    hmac::verify(&key, message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).is_ok()
}

pub fn names(value: &Value) -> BTreeMap<String, &'static str> {
    value
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| {
            let kind = match value {
                Value::String(_) => "string",
                Value::Number(_) => "number",
                Value::Object(_) => "object",
                _ => "other",
            };
            (name.clone(), kind)
        })
        .collect()
}

const BINARY: &str = env!("CARGO_BIN_EXE_approov-web-service");

/// A process of the service that ends with the test.
pub struct Process {
    pub child: std::process::Child,
    pub url: String,
    /// Where metrics are.
    pub operations: String,
    pub announced: Value,
    log: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts the binary and waits for its first line.
    pub fn start(args: &[&str]) -> Self {
        Self::launch(args, &[], "")
    }

    /// The same, with so many files that it may open.
    pub fn start_with_files(files: u32, args: &[&str]) -> Self {
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &files.to_string(), BINARY]);
        Self::launch_by(limited, args, &[], "")
    }

    /// The same, with these variables in its environment.
    pub fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::launch(args, env, "")
    }

    /// The same, with this text as its standard input.
    pub fn start_with_input(args: &[&str], input: &str) -> Self {
        Self::launch(args, &[], input)
    }

    fn launch(args: &[&str], env: &[(&str, &str)], input: &str) -> Self {
        Self::launch_by(std::process::Command::new(BINARY), args, env, input)
    }

    fn launch_by(mut command: std::process::Command, args: &[&str], env: &[(&str, &str)], input: &str) -> Self {
        use std::io::{BufRead as _, BufReader, Write as _};
        use std::process::Stdio;
        let mut child = command
            .args(["serve", "--json", "--log-json", "--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0"])
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let (sender, log) = std::sync::mpsc::channel();
        let errors = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // Without a line the process has ended, and its log with it.
        let announced: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the service did not start: {:?}", log.iter().collect::<Vec<_>>()));
        let url = announced["url"].as_str().unwrap().to_owned();
        let operations = announced["operations"].as_str().unwrap_or_default().to_owned();
        Self { child, url, operations, announced, log, seen: Vec::new() }
    }

    /// Waits for a log line that `matches`; all lines so far count.
    pub fn wait_for_log(&mut self, matches: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_logs(1, matches).remove(0)
    }

    /// Waits for the first `count` log lines that match; all lines so far count.
    pub fn wait_for_logs(&mut self, count: usize, matches: impl Fn(&Value) -> bool) -> Vec<Value> {
        let read = |line: &String| serde_json::from_str(line).ok().filter(&matches);
        let mut found: Vec<Value> = self.seen.iter().filter_map(read).take(count).collect();
        while found.len() < count {
            let Ok(line) = self.log.recv_timeout(HANG) else {
                panic!("no {count} such lines in the log:\n{}", self.seen.join("\n"));
            };
            found.extend(read(&line));
            self.seen.push(line);
        }
        found
    }

    /// Every log line of the requests that were responded to so far. A line is written before its response goes out, so once the line of one more
    /// request is there, all are.
    pub async fn logged(&mut self) -> Vec<String> {
        let path = format!("/logged-{}", self.seen.len());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("{}{path}", self.url)).send().await.unwrap();
        self.wait_for_log(|line| line["path"] == path.as_str());
        self.seen.clone()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for the end; gives the exit code.
    pub async fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        until("the service ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.and_then(|status| status.code())
    }
}

/// A process with a configuration file in a directory of its own.
pub struct Hosted {
    pub process: Process,
    directory: std::path::PathBuf,
}

impl Process {
    /// Starts with a file, whose text may name the simulators.
    pub async fn start_with_file(name: &str, text: &dyn Fn(SocketAddr) -> String) -> Hosted {
        Self::start_with_file_by(name, text, Self::start).await
    }

    /// The same, started by a function of its own.
    pub async fn start_with_file_by(
        name: &str,
        text: &dyn Fn(SocketAddr) -> String,
        start: impl Fn(&[&str]) -> Self,
    ) -> Hosted {
        let directory = std::env::temp_dir().join(format!("approov-hosted-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("service.toml");
        std::fs::write(&file, text(simulators().await)).unwrap();
        Hosted { process: start(&["--config", file.to_str().unwrap()]), directory }
    }
}

impl Hosted {
    /// Runs a command on its file.
    pub fn command(&self, line: &str) -> String {
        let output = std::process::Command::new(BINARY)
            .args(line.split_whitespace())
            .current_dir(&self.directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `/readyz` has this status.
pub async fn wait_for_readiness(client: &reqwest::Client, url: &str, status: u16) {
    until(&format!("/readyz says {status}"), async || {
        client.get(format!("{url}/readyz")).send().await.unwrap().status() == status
    })
    .await;
}

/// The same session over a connection.
impl Browser {
    async fn over(&mut self, request: reqwest::RequestBuilder) -> Result<Response, reqwest::Error> {
        let response = request.header("origin", ORIGIN).send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let response = Response { status, headers, body: response.text().await? };
        self.keep_nonce(&response);
        Ok(response)
    }

    pub async fn ask_nonce_at(&mut self, client: &reqwest::Client, base: &str) -> Result<Response, reqwest::Error> {
        let proof = self.proof("GET", &format!("{}/attest", self.public.unwrap_or(base)), |_| {});
        self.over(client.get(format!("{base}/attest")).header("dpop", proof)).await
    }

    pub async fn attest_at(
        &mut self,
        client: &reqwest::Client,
        base: &str,
        params: &[(&str, &str)],
    ) -> Result<Response, reqwest::Error> {
        let proof = self.proof("POST", &format!("{}/attest", self.public.unwrap_or(base)), |_| {});
        self.attest_at_with(client, base, params, proof).await
    }

    pub async fn attest_at_with(
        &mut self,
        client: &reqwest::Client,
        base: &str,
        params: &[(&str, &str)],
        proof: String,
    ) -> Result<Response, reqwest::Error> {
        let mut form = params.to_vec();
        let refresh = self.refresh_token.clone();
        if let Some(token) = &refresh {
            form.push(("refresh-token", token));
        }
        let response = self.over(client.post(format!("{base}/attest")).header("dpop", proof).form(&form)).await?;
        if response.status == 200 {
            self.refresh_token = Some(response.json()["refresh-token"].as_str().unwrap().to_owned());
        }
        Ok(response)
    }
}
