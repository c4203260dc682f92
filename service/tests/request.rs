//! `request` and `token -proof`: a backend tried from a terminal. The backend is the verifier's own layer in a real server.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use approov_verify::layer::ApproovLayer;
use approov_verify::{
    MessagePolicy, ProofPolicy, PublicUrl, QueryPolicy, ServerNoncePolicy, Verifier, VerifierBuilder,
};
use approov_web_service::cli::{self, Args, Console, Failure};
use axum::Router;
use axum::http::header::AUTHORIZATION;
use axum::routing::any;

const API: &str = "api.example.com";

/// A configuration with one API, and a backend that has its secret.
struct Place {
    directory: PathBuf,
    backend: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new(name: &str, rules: impl FnOnce(VerifierBuilder) -> VerifierBuilder, bound: bool) -> Self {
        let directory = std::env::temp_dir().join(format!("approov-request-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut place = Self { directory, backend: SocketAddr::from(([127, 0, 0, 1], 0)), _runtime: runtime };
        place.ok(&["account", "-add", "k"]);
        place.ok(&["api", "-add", API, "-allowWeb", "-y"]);
        let verifier = rules(Verifier::builder().secret_base64(place.secret().trim())).build().unwrap();
        let socket = place._runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        place.backend = socket.local_addr().unwrap();
        let mut layer = ApproovLayer::new(verifier, [PublicUrl::parse(&place.url("")).unwrap()]);
        if bound {
            layer = layer.bound_to_authorization();
        }
        let echo = any(async |body: String| format!("got {body}"));
        let app = Router::new().fallback_service(echo).layer(layer);
        place._runtime.spawn(async move { axum::serve(socket, app).await });
        place
    }

    fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.backend)
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn run_with(&self, words: &[&str], typed: &[u8]) -> Result<String, Failure> {
        let (command, rest) = words.split_first().unwrap();
        let mut output = Vec::new();
        let mut input = typed;
        let mut console = Console { input: &mut input, output: &mut output };
        let file = self.file("service.toml");
        let rest = rest.iter().copied().chain(["-config", &file]).map(str::to_owned);
        let done = cli::run(command, Args::new(rest), &mut console).unwrap();
        let output = String::from_utf8(output).unwrap();
        done.map(|()| output)
    }

    fn run(&self, words: &[&str]) -> Result<String, Failure> {
        self.run_with(words, b"")
    }

    fn ok(&self, words: &[&str]) -> String {
        self.run(words).unwrap_or_else(|failure| panic!("{words:?}: {failure:?}"))
    }

    fn secret(&self) -> String {
        self.ok(&["secret", "-get", "base64"])
    }

    fn refused(&self, words: &[&str]) -> String {
        match self.run(words) {
            Err(Failure::Refused(message)) => message,
            other => panic!("{words:?}: {other:?}"),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn strict(builder: VerifierBuilder) -> VerifierBuilder {
    builder.proof(ProofPolicy::Required).query(QueryPolicy::Required)
}

#[test]
fn a_request_passes_with_token_and_proof_and_not_without() {
    let place = Place::new("passes", |builder| strict(builder).message(MessagePolicy::Required), false);
    let url = place.url("/shapes?big=1");
    fs::write(place.file("body"), "circle").unwrap();
    for data in ["circle", &format!("@{}", place.file("body"))] {
        let shown = place.ok(&["request", "POST", &url, "-api", API, "-data", data]);
        assert!(shown.starts_with("HTTP/1.1 200 OK\n") && shown.contains("\n\ngot circle\n"), "{shown}");
    }
    let piped = place.run_with(&["request", "post", &url, "-api", API, "-data", "-"], b"circle").unwrap();
    assert!(piped.contains("got circle"), "{piped}");
    // The secret alone does, for whoever has no configuration, such as beside `serve --dev`.
    let secret = place.secret();
    let shown = place.run_with(&["request", "POST", &url, "-secret", "-", "-data", "x"], secret.as_bytes()).unwrap();
    assert!(shown.contains("got x"), "{shown}");
    for (more, meaning) in [
        (&["-type", "invalid", "-data", "x"][..], "does not accept the token"),
        (&["-noProof", "-data", "x"], "does not accept the proof"),
        // The backend wants the body's hash.
        (&[], "does not accept the proof"),
    ] {
        let words: Vec<&str> = ["request", "POST", &url, "-api", API].into_iter().chain(more.iter().copied()).collect();
        let refused = place.refused(&words);
        assert!(refused.starts_with("status 401 Unauthorized: ") && refused.contains(meaning), "{more:?} {refused}");
    }
}

#[test]
fn a_backend_that_asks_for_its_nonce_gets_it() {
    let nonces = |builder: VerifierBuilder| strict(builder).server_nonces(ServerNoncePolicy::Required);
    let place = Place::new("nonce", nonces, false);
    let shown = place.ok(&["request", "GET", &place.url("/shapes"), "-api", API]);
    assert!(shown.contains("200 OK") && shown.contains("(sent twice: the backend asked for its nonce)"), "{shown}");
}

#[test]
fn a_token_is_bound_to_headers() {
    let place = Place::new("bound", strict, true);
    let url = place.url("/shapes");
    let words = ["request", "GET", &url, "-api", API, "-header", "Authorization: Bearer me", "-bind"];
    let with = |name: &'static str| [&words[..], &[name]].concat();
    assert!(place.ok(&with(AUTHORIZATION.as_str())).contains("200 OK"));
    let unbound = place.refused(&words[..7]);
    assert!(unbound.contains("bound to something else"), "{unbound}");
    assert!(matches!(place.run(&with("x-user")), Err(Failure::Usage(message)) if message.contains("-bind x-user")));
}

#[test]
fn what_cannot_be_sent_is_told_by_name() {
    let place = Place::new("wrong", strict, false);
    let url = place.url("/shapes");
    for (words, part) in [
        (&["request"][..], "METHOD and URL"),
        (&["request", "GET"], "METHOD and URL"),
        (&["request", "G T", &url], "METHOD must be"),
        (&["request", "GET", "api.example.com/shapes"], "URL must be"),
        (&["request", "GET", "ftp://api.example.com"], "URL must be"),
        (&["request", "GET", &url, &url], "request does not take"),
        (&["request", "GET", &url, "-heder", "a: b"], "request has no option -heder"),
        (&["request", "GET", &url, "-header", "nonsense"], "-header must be"),
        (&["request", "GET", &url, "-header", "DPoP: x"], "dpop is what this command makes"),
        (&["request", "GET", &url, "-type", "good"], "-type must be"),
        (&["request", "GET", &url, "-secret", "short"], "-secret: "),
        (&["token", "-genExample", API, "-proof", "GET", "shapes"], "URL must be"),
        (&["token", "-check", "x", "-proof", "GET", &url], "-check takes neither"),
    ] {
        let told = place.run(words);
        assert!(matches!(&told, Err(Failure::Usage(message)) if message.contains(part)), "{words:?} {told:?}");
    }
    for (words, part) in [
        (&["request", "GET", &url][..], "there is no API domain 127.0.0.1: -api names one"),
        (&["request", "GET", &url, "-api", API, "-data", "@/nowhere"], "-data @/nowhere: "),
        (&["request", "GET", &url, "-api", API, "-caCert", "/nowhere"], "-caCert: /nowhere: "),
        (&["request", "GET", "http://127.0.0.1:1/", "-api", API], "http://127.0.0.1:1: no response: "),
    ] {
        let refused = place.refused(words);
        assert!(refused.contains(part), "{words:?} {refused}");
    }
}

/// The lines are headers as curl reads them from a file or a pipe: `curl -H @-`.
#[test]
fn an_example_with_a_proof_passes_once_and_a_program_that_knows_nothing_of_us_can_send_it() {
    let place = Place::new("curl", strict, false);
    let url = place.url("/shapes?big=1");
    let lines = place.ok(&["token", "-genExample", API, "-proof", "GET", &url]);
    fs::write(place.file("headers"), &lines).unwrap();
    let curl = || {
        let headers = format!("@{}", place.file("headers"));
        let sent =
            Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &headers, &url]).output();
        String::from_utf8(sent.unwrap_or_else(|error| panic!("curl: {error}")).stdout).unwrap()
    };
    assert_eq!((lines.lines().count(), curl(), curl()), (2, "200".to_owned(), "401".to_owned()));
}

#[test]
fn a_secret_can_have_a_key_id_and_be_text() {
    let place = Place::new("gateways", strict, false);
    let token = |place: &Place| place.ok(&["token", "-genExample", API]);
    let header = |token: &str| {
        let part = token.split('.').next().unwrap();
        let text = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, part).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    assert_eq!(header(&token(&place)), serde_json::json!({"typ": "JWT", "alg": "HS256"}));
    assert!(matches!(place.run_with(&["secret", "-setKeyID", "approov"], b"no\n"), Err(Failure::Refused(_))));
    assert!(!fs::read_to_string(place.file("service.toml")).unwrap().contains("secret_kid"));
    place.ok(&["secret", "-setKeyID", "approov", "-y"]);
    assert_eq!(header(&token(&place))["kid"], "approov");
    let signed = token(&place);
    assert!(place.ok(&["token", "-check", &signed]).starts_with("valid: "));
    // The backend needs nothing new for it.
    assert!(place.ok(&["request", "GET", &place.url("/a"), "-api", API]).contains("200 OK"));
    place.ok(&["secret", "-setKeyID", "none", "-y"]);
    assert!(header(&token(&place)).get("kid").is_none());

    let before = place.secret();
    assert!(place.refused(&["secret", "-get", "text"]).contains("-forcePrintable"));
    assert!(matches!(place.run_with(&["secret", "-change"], b"no\n"), Err(Failure::Refused(_))));
    assert_eq!(place.secret(), before);
    place.ok(&["secret", "-change", "-forcePrintable", "-y"]);
    let text = place.ok(&["secret", "-get", "text"]);
    assert!(text.trim_end().len() == 64 && text.trim_end().bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
    use base64::Engine as _;
    assert_eq!(place.secret().trim(), base64::engine::general_purpose::STANDARD.encode(text.trim_end()));
    assert_eq!(place.ok(&["secret", "-plain", "-get", "base64"]), place.secret());
    assert!(place.refused(&["token", "-check", &signed]).contains("signature"));
    place.ok(&["secret", "-change", "-y"]);
    assert_ne!(place.ok(&["secret", "-get", "base64"]).len(), before.len() - 1);
    for (words, part) in [
        (&["secret", "-change", "-jwe"][..], "-change is for the account's secret"),
        (&["secret", "-get", "base64", "-forcePrintable"], "takes no -forcePrintable"),
        (&["secret", "-change", "-plain"], "takes no -plain"),
        (&["secret", "-get", "hex"], "-get must be"),
        (&["secret", "-change", "-setKeyID", "x"], "at once"),
    ] {
        let told = place.run(words);
        assert!(matches!(&told, Err(Failure::Usage(message)) if message.contains(part)), "{words:?} {told:?}");
    }
    assert!(place.refused(&["secret", "-setKeyID", "", "-y"]).contains("secret_kid must have"));
}
