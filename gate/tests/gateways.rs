//! The configurations for gateways, each with the real one: `cargo xtask test interop`.
//!
//! Everything is as in `configurations/`, but for ports. What is asked is what a client of the gateway can do, and what is looked at is
//! what it gets and what the backend behind the gateway gets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod support;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::session::{Session, hash};
use support::{Directory, Gate, configuration};

/// Where clients find the gateway, which is not where it listens: proxies are found at other names.
const PUBLIC: &str = "https://api.example.com";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nginx,
    Caddy,
    Haproxy,
    Envoy,
    /// The same, which check tokens by themselves.
    HaproxyAlone,
    EnvoyAlone,
}

impl Kind {
    const fn sends_bodies(self) -> bool {
        matches!(self, Self::Haproxy | Self::Envoy)
    }
}

/// A port that nobody has now.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What the backend got.
type Seen = Arc<Mutex<Vec<Value>>>;

/// A backend that says what it got.
async fn backend() -> (SocketAddr, Seen) {
    async fn echo(State(seen): State<Seen>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let headers: Vec<Value> =
            parts.headers.iter().map(|(name, value)| json!([name.as_str(), value.to_str().unwrap()])).collect();
        let got = json!({
            "method": parts.method.as_str(), "target": parts.uri.to_string(), "headers": headers,
            "body": String::from_utf8(body.to_vec()).unwrap(),
        });
        seen.lock().unwrap().push(got.clone());
        Response::new(Body::from(Bytes::from(got.to_string())))
    }
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (socket.local_addr().unwrap(), Seen::default());
    let app = Router::new().fallback(echo).with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(socket, app).await });
    (address, seen)
}

/// A gateway in front of a backend, and the gate that it asks.
struct Setup {
    kind: Kind,
    child: Child,
    gate: Option<Gate>,
    directory: Directory,
    address: SocketAddr,
    seen: Seen,
    client: Client,
    session: Session,
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let begun = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if begun.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn configurations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configurations")
}

impl Setup {
    async fn new(kind: Kind, verify: &str) -> Self {
        let bodies = if kind.sends_bodies() { "bodies = \"forwarded\"\n" } else { "" };
        let top = format!("public_urls = [\"{PUBLIC}\"]\n{bodies}");
        let gate = Gate::start(&configuration(&top, verify));
        let asked = gate.url.strip_prefix("http://").unwrap().parse().unwrap();
        let mut setup = Self::asking(kind, asked).await;
        setup.gate = Some(gate);
        setup
    }

    /// A gateway that asks at this address, whatever is there.
    async fn asking(kind: Kind, gate: SocketAddr) -> Self {
        Self::with_account(kind, gate, &Session::new()).await
    }

    async fn with_account(kind: Kind, gate: SocketAddr, account: &Session) -> Self {
        let (backend, seen) = backend().await;
        let (directory, address) = (Directory::new(), free());
        let place = |name: &str| {
            let text = std::fs::read_to_string(configurations().join(name)).unwrap();
            let split = |address: SocketAddr| format!("address: 127.0.0.1, port_value: {}", address.port());
            for port in ["8090", "8443", "8080"] {
                let has_none = name == "approov.lua" || name == "haproxy-jwt.cfg" && port == "8090";
                assert!(has_none || text.contains(port), "{name} has another port than {port}");
            }
            let text = text
                .replace("127.0.0.1:8090", &gate.to_string())
                .replace("address: 127.0.0.1, port_value: 8090", &split(gate))
                .replace("127.0.0.1:8443", &address.to_string())
                .replace("api.example.com:8443", &format!("api.example.com:{}", address.port()))
                .replace("address: 127.0.0.1, port_value: 8443", &split(address))
                .replace("127.0.0.1:8080", &backend.to_string())
                .replace("address: 127.0.0.1, port_value: 8080", &split(backend));
            directory.file(name, &text)
        };
        let mut command = match kind {
            Kind::Nginx => {
                let site = place("nginx.conf");
                let here = site.parent().unwrap().display().to_string();
                let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|name| format!("{name}_temp_path {here}/{name};\n"))
                    .concat();
                let main = directory.file(
                    "main.conf",
                    &format!(
                        "daemon off;\nmaster_process off;\npid {here}/nginx.pid;\nerror_log {here}/error.log info;\nevents {{}}\n\
                         http {{\naccess_log off;\n{temporary}include {};\n}}\n",
                        site.display()
                    ),
                );
                let mut command = Command::new("nginx");
                command.args(["-p", &here, "-e", &format!("{here}/error.log"), "-c"]).arg(main);
                command
            }
            Kind::Caddy => {
                let file = place("Caddyfile");
                // Its administration is not for a test.
                let text =
                    format!("{{\n\tadmin off\n\tauto_https off\n}}\n{}", std::fs::read_to_string(&file).unwrap());
                std::fs::write(&file, text).unwrap();
                let mut command = Command::new("caddy");
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
                command.env("XDG_CONFIG_HOME", directory.file("c", "").parent().unwrap());
                command.env("XDG_DATA_HOME", directory.file("d", "").parent().unwrap());
                command
            }
            Kind::Haproxy | Kind::HaproxyAlone => {
                let file = place(if kind == Kind::Haproxy { "haproxy.cfg" } else { "haproxy-jwt.cfg" });
                place("approov.lua");
                directory.file("approov.pem", &account.pem());
                let mut command = Command::new("haproxy");
                command.current_dir(file.parent().unwrap()).arg("-db").arg("-f").arg(file);
                command
            }
            Kind::Envoy | Kind::EnvoyAlone => {
                let program = std::env::var_os("ENVOY").unwrap_or_else(|| "envoy".into());
                let mut command = Command::new(program);
                command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"]);
                command.arg(place(if kind == Kind::Envoy { "envoy.yaml" } else { "envoy-jwt.yaml" }));
                command
            }
        };
        let log = std::fs::File::create(directory.file("gateway.log", "")).unwrap();
        let child = command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{kind:?}: {error}: cargo xtask test interop installs it"));
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let mut setup = Self { kind, child, gate: None, directory, address, seen, client, session: Session::new() };
        setup.wait();
        setup
    }

    fn wait(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < Duration::from_secs(60),
                "{:?} does not listen: {}",
                self.kind,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        let file =
            |name: &str| std::fs::read_to_string(self.directory.file("x", "").with_file_name(name)).unwrap_or_default();
        format!("{}{}", file("gateway.log"), file("error.log"))
    }

    fn request(&self, method: &str, target: &str) -> RequestBuilder {
        let method = method.parse().unwrap();
        self.client.request(method, format!("http://{}{target}", self.address)).header("Host", "api.example.com")
    }

    /// The response to a request that is sent as it is.
    fn raw(&self, method: &str, target: &str, proof: &str) -> String {
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let token = self.session.token();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: api.example.com\r\nApproov-Token: {token}\r\nDPoP: {proof}\r\nConnection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut response = Vec::new();
        // A gateway that cuts the connection has refused, too.
        let _ = socket.read_to_end(&mut response);
        String::from_utf8_lossy(&response).into_owned()
    }

    fn proven(&self, method: &str, target: &str, proof: String) -> RequestBuilder {
        self.request(method, target).header("Approov-Token", self.session.token()).header("DPoP", proof)
    }

    fn good(&self, method: &str, target: &str) -> RequestBuilder {
        self.proven(method, target, self.session.proof(method, &format!("{PUBLIC}{target}")))
    }
}

/// What a client got, and what the backend got of it.
#[derive(Debug)]
struct Outcome {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    backend: Option<Value>,
}

impl Outcome {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The values of a header that the backend got.
    fn got(&self, name: &str) -> Vec<&str> {
        let headers = self.backend.as_ref().map(|got| got["headers"].as_array().unwrap().iter());
        let named = headers.into_iter().flatten().filter(|header| header[0] == name);
        named.map(|header| header[1].as_str().unwrap()).collect()
    }
}

async fn send(setup: &Setup, request: RequestBuilder) -> Outcome {
    setup.seen.lock().unwrap().clear();
    let response = request.send().await.unwrap_or_else(|error| panic!("{:?}: {error:?} {}", setup.kind, setup.log()));
    let status = response.status().as_u16();
    let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let body = response.text().await.unwrap();
    let mut seen = setup.seen.lock().unwrap();
    assert!(seen.len() <= 1, "{seen:?}");
    Outcome { status, headers, body, backend: seen.pop() }
}

fn is_refused(outcome: &Outcome, status: u16, what: &str) {
    assert_eq!(outcome.status, status, "{what}: {outcome:?}");
    assert_eq!(outcome.backend, None, "{what}");
}

/// Everything that has one outcome whatever the gateway.
async fn matrix(kind: Kind) {
    let rest = "server_nonces = \"offered\"\n[cors]\norigins = [\"https://www.example.com\"]";
    let setup = Setup::new(kind, rest).await;
    let session = &setup.session;

    let passed = send(&setup, setup.good("GET", "/shapes?big=1&q=%2F")).await;
    assert_eq!(passed.status, 200, "{passed:?} {}", setup.log());
    let got = passed.backend.as_ref().unwrap();
    assert_eq!((&got["method"], &got["target"]), (&json!("GET"), &json!("/shapes?big=1&q=%2F")));
    assert_eq!(passed.got("approov-verified"), ["proof"]);
    assert_eq!(passed.got("approov-key"), [session.thumbprint()]);
    let is_nonce = |nonce: &str| nonce.len() > 20 && !nonce.contains('{');
    assert!(passed.header("dpop-nonce").is_some_and(is_nonce), "no nonce with a good response: {passed:?}");

    // What a client sends under the gate's names does not reach the backend.
    let mut forging = setup.good("GET", "/shapes");
    for name in ["Verified", "Channel", "Key", "Claims", "Message", "Would-Fail", "Policy"] {
        forging = forging.header(format!("Approov-{name}"), "forged").header(format!("approov-{name}"), "twice");
    }
    let forged = send(&setup, forging).await;
    assert_eq!(forged.status, 200, "{forged:?}");
    for name in ["verified", "channel", "key", "claims", "message", "would-fail", "policy"] {
        let values = forged.got(&format!("approov-{name}"));
        assert!(values.len() == 1 && !["forged", "twice"].contains(&values[0]), "{kind:?} {name}: {values:?}");
    }

    let body = "amount=1";
    let signed = |sent: &'static str| {
        let proof = session.proof_of_body("POST", &format!("{PUBLIC}/order"), body.as_bytes());
        setup.proven("POST", "/order", proof).body(sent)
    };
    let posted = send(&setup, signed(body)).await;
    assert_eq!((posted.status, &posted.backend.as_ref().unwrap()["body"]), (200, &json!(body)), "{posted:?}");
    assert_eq!(posted.got("approov-message"), [hash(body.as_bytes())]);
    let altered = send(&setup, signed("amount=9")).await;
    if kind.sends_bodies() {
        is_refused(&altered, 401, "an altered body");
    } else {
        // The backend can tell: it has the hash.
        assert_eq!((altered.status, altered.got("approov-message")), (200, vec![hash(body.as_bytes()).as_str()]));
    }

    let preflight = setup
        .request("OPTIONS", "/order")
        .header("Origin", "https://www.example.com")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "approov-token,dpop");
    let preflight = send(&setup, preflight).await;
    assert_eq!((preflight.status, preflight.got("approov-verified")), (200, vec!["none"]), "{preflight:?}");

    let replayed = session.proof("GET", &format!("{PUBLIC}/shapes"));
    assert_eq!(send(&setup, setup.proven("GET", "/shapes", replayed.clone())).await.status, 200);
    let get_proof = || session.proof("GET", &format!("{PUBLIC}/order"));
    let address = format!("http://{}/shapes", setup.address);
    for (request, what) in [
        (setup.request("GET", "/shapes"), "no token"),
        (
            setup.request("GET", "/shapes").header("Approov-Verified", "proof").header("Approov-Claims", "e30"),
            "forged headers",
        ),
        (setup.proven("GET", "/shapes", replayed), "a replay"),
        (setup.proven("POST", "/order", get_proof()).body(body), "a proof for GET"),
        (
            setup.proven("POST", "/order", get_proof()).header("X-Forwarded-Method", "GET").body(body),
            "a forwarded method",
        ),
        (
            setup
                .proven("POST", "/order", get_proof())
                .header("X-Original-Method", "GET")
                .header("X-HTTP-Method-Override", "GET")
                .body(body),
            "another method's names",
        ),
        (setup.proven("GET", "/other", get_proof()), "a proof for another path"),
        (
            setup
                .proven("GET", "/other", get_proof())
                .header("X-Forwarded-Uri", "/order")
                .header("X-Original-Uri", "/order")
                .header("X-Envoy-Original-Path", "/order"),
            "a forwarded path",
        ),
        (
            setup.proven("GET", "/shapes?big=2", session.proof("GET", &format!("{PUBLIC}/shapes?big=1"))),
            "a proof for another query",
        ),
        (
            setup.proven("GET", "/shapes", session.proof("GET", "https://evil.example/shapes")),
            "a proof for another host",
        ),
        (
            setup
                .proven("GET", "/shapes", session.proof("GET", "https://evil.example/shapes"))
                .header("X-Forwarded-Host", "evil.example")
                .header("X-Forwarded-Proto", "https"),
            "a forwarded host",
        ),
        (setup.proven("GET", "/shapes", session.proof("GET", &address)), "a proof for the gateway's address"),
        (setup.good("GET", "/shapes").header("Approov-Token", session.token()), "two tokens"),
        (setup.good("GET", "/shapes").header("DPoP", "a.b.c"), "two proofs"),
        (setup.request("GET", "/shapes").header("Approov-Token", session.token()), "no proof"),
        (
            setup.request("GET", "/shapes").header("Approov-Token", support::session::token_of(&json!({"exp": 1}))),
            "an old token",
        ),
        (setup.request("OPTIONS", "/shapes"), "OPTIONS that is no preflight"),
        (setup.request("GET", "/approov-gate"), "the gate's own place"),
        (
            setup
                .request("GET", "/forward-auth")
                .header("X-Forwarded-Method", "GET")
                .header("X-Forwarded-Uri", "/shapes"),
            "the gate's own path",
        ),
    ] {
        let outcome = send(&setup, request.header("Origin", "https://www.example.com")).await;
        if what == "the gate's own place" && outcome.status == 404 {
            assert_eq!(outcome.backend, None);
            continue;
        }
        is_refused(&outcome, 401, what);
        let challenge = outcome.header("www-authenticate").unwrap_or_else(|| panic!("{what}: {outcome:?}"));
        assert!(challenge.starts_with("DPoP "), "{what}: {outcome:?}");
        assert_eq!(
            outcome.header("access-control-allow-origin"),
            Some("https://www.example.com"),
            "{what}: {outcome:?}"
        );
        assert!(outcome.header("dpop-nonce").is_some_and(is_nonce), "{what}: {outcome:?}");
        assert!(outcome.header("access-control-expose-headers").unwrap().contains("DPoP-Nonce"), "{what}");
    }

    // Targets that some servers take for /shapes, as no client library would send them: none of them passes with its proof.
    for target in [
        "/x/../shapes",
        "/x/%2e%2e/shapes",
        "/./shapes",
        "//shapes",
        "/shapes/",
        "/shapes;x",
        "/shapes%3Fx",
        "/shapes%00",
        "/SHAPES",
        "/shapes?",
        "/shapes?big=1",
        "http://evil.example/shapes/x",
        "*",
    ] {
        let raw = setup.raw("GET", target, &session.proof("GET", &format!("{PUBLIC}/shapes")));
        // Without the claim `htq`, which RFC 9449 does not know, a proof is for any query.
        let passes = target.starts_with("/shapes?");
        // Where no site is for the host of the target, Caddy responds with an empty 200 of its own.
        assert!(!passes || raw.starts_with("HTTP/1.1 200"), "{target}: {raw}");
        let reached = setup.seen.lock().unwrap().len();
        assert_eq!(reached > 0, passes, "{target}: {raw}");
        setup.seen.lock().unwrap().clear();
    }
    // The authority of an absolute target is not what a proof is held against, nor does it lead anywhere else.
    let absolute = setup.raw("GET", "http://evil.example/shapes", &session.proof("GET", "http://evil.example/shapes"));
    assert!(setup.seen.lock().unwrap().is_empty(), "{absolute}");

    // The proof is for the path of the client, the backend gets its own.
    let rewritten = send(&setup, setup.good("GET", "/shop/cart?x=1")).await;
    assert_eq!(rewritten.status, 200, "{rewritten:?}");
    assert_eq!(rewritten.backend.as_ref().unwrap()["target"], "/cart?x=1");
    let inner = setup.proven("GET", "/shop/cart", session.proof("GET", &format!("{PUBLIC}/cart")));
    is_refused(&send(&setup, inner).await, 401, "a proof for the rewritten path");
    assert!(passed.body.contains("shapes"));

    // Ten at once are answered each for itself.
    let targets: Vec<String> = (0..10).map(|number| format!("/many/{number}")).collect();
    let many: Vec<_> = targets.iter().map(|target| tokio::spawn(setup.good("GET", target).send())).collect();
    for (one, target) in many.into_iter().zip(&targets) {
        let response = one.await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.text().await.unwrap().contains(target.as_str()));
    }
}

/// Where the gate gives out no nonces, none of the gateways makes one up.
async fn without_nonces(kind: Kind) {
    let setup = Setup::new(kind, "").await;
    for (request, status) in [(setup.good("GET", "/shapes"), 200), (setup.request("GET", "/shapes"), 401)] {
        let outcome = send(&setup, request).await;
        assert_eq!((outcome.status, outcome.header("dpop-nonce")), (status, None), "{outcome:?}");
        assert_eq!(outcome.header("access-control-expose-headers"), None, "{outcome:?}");
    }
}

/// Without the gate, and with one that says nothing, nothing passes.
async fn fails_closed(kind: Kind) {
    let setup = Setup::asking(kind, free()).await;
    is_refused(&send(&setup, setup.good("GET", "/shapes")).await, 503, "no gate");
    let preflight =
        setup.request("OPTIONS", "/").header("Origin", "https://a").header("Access-Control-Request-Method", "PUT");
    is_refused(&send(&setup, preflight).await, 503, "no gate for a preflight");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = Setup::asking(kind, silent.local_addr().unwrap()).await;
    is_refused(&send(&setup, setup.good("GET", "/shapes")).await, 503, "a gate that says nothing");

    // A gate that does not know the gateway, as one whose store is away, lets nothing pass either.
    let mut setup = Setup::new(kind, "").await;
    let gate = setup.gate.take().unwrap();
    gate.directory.file(
        "gate.toml",
        &configuration(&format!("public_urls = [\"{PUBLIC}\"]\ntrusted_peers = [\"192.0.2.1\"]\n"), ""),
    );
    gate.signal("HUP");
    gate.logged("\"event\":\"reloaded\"");
    is_refused(&send(&setup, setup.good("GET", "/shapes")).await, 403, "a gate that does not trust the gateway");
}

/// What a gateway finds out by itself, and what it does not.
async fn tokens_alone(kind: Kind) {
    let (account, other) = (Session::new(), Session::new());
    let jwks = account.jwks();
    let keys =
        Router::new().route("/site-key/.well-known/jwks.json", axum::routing::get(async move || axum::Json(jwks)));
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = socket.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(socket, keys).await });
    let setup = Setup::with_account(kind, service, &account).await;
    let now = support::session::now();
    let claims =
        |exp: u64| json!({"exp": exp, "ip": "192.0.2.1", "embed": {}, "cnf": {"jkt": setup.session.thumbprint()}});
    let with = |token: String| setup.request("GET", "/shapes").header("Approov-Token", token);
    // The keys are fetched when the gateway starts, or for the first token.
    let good = account.issue(&claims(now + 300));
    let begun = Instant::now();
    while send(&setup, with(good.clone())).await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", setup.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let unsigned = |header: Value| {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", encoded(&header), encoded(&claims(now + 300)))
    };
    for (request, what) in [
        (setup.request("GET", "/shapes"), "no token"),
        (with(account.issue(&claims(now - 60))), "an old token"),
        (with(other.issue(&claims(now + 300))), "another key's token"),
        (with(unsigned(json!({"typ": "JWT", "alg": "none"}))), "none"),
        (with(unsigned(json!({"typ": "JWT", "alg": "ES256", "kid": "es-1"}))), "no signature"),
        (with(support::session::token_of(&claims(now + 300))), "another algorithm"),
        (with("x".to_owned()), "no token at all"),
        (setup.request("OPTIONS", "/shapes"), "OPTIONS that is no preflight"),
    ] {
        is_refused(&send(&setup, request).await, 401, what);
    }
    let preflight =
        setup.request("OPTIONS", "/").header("Origin", "https://a").header("Access-Control-Request-Method", "PUT");
    assert_eq!(send(&setup, preflight).await.status, 200);
    // As docs/GATEWAYS.md says: whoever has stolen the token may use it.
    assert_eq!(send(&setup, with(good)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_checks_tokens_alone() {
    tokens_alone(Kind::EnvoyAlone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_checks_tokens_alone() {
    tokens_alone(Kind::HaproxyAlone).await;
}

macro_rules! gateways {
    ($($name:ident $closed:ident $kind:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            matrix(Kind::$kind).await;
            without_nonces(Kind::$kind).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $closed() {
            fails_closed(Kind::$kind).await;
        }
    )*};
}

gateways! {
    nginx_protects_a_backend nginx_fails_closed Nginx;
    caddy_protects_a_backend caddy_fails_closed Caddy;
    haproxy_protects_a_backend haproxy_fails_closed Haproxy;
    envoy_protects_a_backend envoy_fails_closed Envoy;
}
