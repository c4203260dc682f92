//! Each secret rotated while browsers refresh all the time: no request is refused, no session ends, and a backend that has the
//! old and the new secret accepts every token.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use approov_verify::Verifier;
use approov_verify::keyset::KeySet;
use approov_verify::secret::Secret;
use approov_web_service::attest::Service;
use approov_web_service::cli::{self, Args, Console};
use approov_web_service::config::Config;
use approov_web_service::dev::{self, sim};
use axum::body::Body;
use axum::http::Request;
use serde_json::Value;
use support::*;
use tokio::sync::watch;
use tokio::task::JoinSet;

const BROWSERS: usize = 4;
const APIS: [&str; 3] = ["hs.example", "jwe.example", "es.example"];

/// A configuration file made by the command line, and the service that has it.
struct Deployment {
    directory: PathBuf,
    service: Arc<Service>,
}

impl Deployment {
    async fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("approov-rotation-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("service.toml");
        let sims = simulators().await;
        for line in [
            format!("account -add {}", dev::SITE_KEY),
            "keyset -add ES256 -kid old".to_owned(),
            "api -add hs.example -allowWeb".to_owned(),
            "api -add jwe.example -allowWeb -jwe".to_owned(),
            "api -add es.example -allowWeb -keySetKID old".to_owned(),
            format!(
                "web -hcaptcha -add {} -secret {} -verifyURL http://{sims}/sim/hcaptcha/siteverify",
                sim::HCAPTCHA_SITE_KEY,
                sim::HCAPTCHA_SECRET
            ),
        ] {
            command(&file, &line);
        }
        let text = fs::read_to_string(&file).unwrap().replace("[[account]]\n", "[[account]]\npublish_jwks = true\n");
        // Its browsers refresh as fast as they can.
        let limits = "limits = { refreshes_per_minute = 0 }";
        let text = format!("public_urls = [\"http://{HOST}\"]\n{limits}\n{text}");
        fs::write(&file, &text).unwrap();
        Self { service: service(Config::parse(&text).unwrap()).await, directory }
    }

    /// Runs a command, and the service reads the file again.
    fn run(&self, line: &str) -> String {
        let said = command(&self.directory.join("service.toml"), line);
        let text = fs::read_to_string(self.directory.join("service.toml")).unwrap();
        self.service.reload(Config::parse(&text).unwrap()).unwrap();
        said
    }

    fn secret(&self, options: &str) -> Secret {
        Secret::from_base64(&self.run(&format!("secret -get base64 {options}"))).unwrap()
    }

    async fn published(&self) -> String {
        let path = format!("/{}/.well-known/jwks.json", dev::SITE_KEY);
        let response = send(&self.service, Request::get(path).header("host", HOST).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status, 200);
        response.body
    }

    /// A backend with these secrets and the keys that the service publishes.
    async fn backend(&self, secrets: &[&Secret], jwe_secrets: &[&Secret]) -> Verifier {
        let mut builder = Verifier::builder().keyset(KeySet::from_jwks(&self.published().await).unwrap());
        for secret in secrets {
            builder = builder.secret(secret);
        }
        for secret in jwe_secrets {
            builder = builder.jwe_secret(secret);
        }
        builder.build().unwrap()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn command(file: &std::path::Path, line: &str) -> String {
    let words = line.split_whitespace().map(str::to_owned).chain(["-config".into(), file.display().to_string()]);
    let mut words = words.chain(["-y".to_owned()]);
    let name = words.next().unwrap();
    let mut output = Vec::new();
    let mut console = Console { input: &mut std::io::empty(), output: &mut output };
    cli::run(&name, Args::new(words), &mut console).unwrap().unwrap_or_else(|failure| panic!("{line}: {failure:?}"));
    String::from_utf8(output).unwrap()
}

/// Browsers that refresh all the time, and check each token as a backend would.
struct Load {
    backend: Arc<Mutex<Arc<Verifier>>>,
    rounds: Vec<watch::Receiver<u64>>,
    stop: watch::Sender<bool>,
    browsers: JoinSet<u64>,
}

impl Load {
    async fn start(deployment: &Deployment, backend: Verifier) -> Self {
        let backend = Arc::new(Mutex::new(Arc::new(backend)));
        let (stop, stopped) = watch::channel(false);
        let (mut browsers, mut rounds) = (JoinSet::new(), Vec::new());
        for n in 0..BROWSERS {
            let (round, receiver) = watch::channel(0);
            rounds.push(receiver);
            let (service, backend, stopped) = (Arc::clone(&deployment.service), Arc::clone(&backend), stopped.clone());
            browsers.spawn(async move {
                let mut browser = Browser::new(&service).await;
                let mut params = vec![("approov-site-key", dev::SITE_KEY)];
                params.extend(APIS.map(|api| ("api", api)));
                let token = format!("sim-pass-rotation{n}");
                let result = [("hcaptcha-site-key", sim::HCAPTCHA_SITE_KEY), ("hcaptcha-token", token.as_str())];
                let mut made = 0;
                while !*stopped.borrow() {
                    let fresh = result.iter().copied().filter(|_| made == 0);
                    let params: Vec<_> = params.iter().copied().chain(fresh).collect();
                    let response = browser.attest(&service, &params).await;
                    assert_eq!(response.status, 200, "round {made}: {}", response.body);
                    let verifier = Arc::clone(&backend.lock().unwrap());
                    for (api, token) in response.json()["tokens"].as_object().unwrap() {
                        let checked = verifier.verify_token(token.as_str().unwrap(), service.now());
                        assert!(checked.is_ok(), "round {made}, {api}: {checked:?}");
                    }
                    made += 1;
                    round.send_replace(made);
                    tokio::task::yield_now().await;
                }
                made
            });
        }
        let mut load = Self { backend, rounds, stop, browsers };
        load.proceed().await;
        load
    }

    /// Waits until each browser has made two more rounds: whatever was under way has ended then.
    async fn proceed(&mut self) {
        for rounds in &mut self.rounds {
            let enough = *rounds.borrow() + 2;
            if rounds.wait_for(|made| *made >= enough).await.is_err() {
                break;
            }
        }
        if let Some(ended) = self.browsers.try_join_next() {
            panic!("a browser ended: {ended:?}");
        }
    }

    fn backend(&self, verifier: Verifier) {
        *self.backend.lock().unwrap() = Arc::new(verifier);
    }

    async fn stop(mut self) -> u64 {
        self.stop.send_replace(true);
        let mut made = 0;
        while let Some(ended) = self.browsers.join_next().await {
            made += ended.unwrap();
        }
        made
    }
}

#[tokio::test]
async fn the_secrets_that_backends_have_are_rotated_under_load() {
    let deployment = Deployment::new("tokens").await;
    let old = deployment.secret("");
    let old_jwe = deployment.secret("-jwe");
    let mut load = Load::start(&deployment, deployment.backend(&[&old], &[&old_jwe]).await).await;

    deployment.run("secret -rotate");
    load.proceed().await;
    let staged = deployment.secret("-staged");
    assert_ne!(staged.as_bytes(), old.as_bytes());
    load.backend(deployment.backend(&[&old, &staged], &[&old_jwe]).await);
    load.proceed().await;
    deployment.run("secret -activate");
    load.proceed().await;
    assert_eq!(deployment.secret("").as_bytes(), staged.as_bytes());
    load.backend(deployment.backend(&[&staged], &[&old_jwe]).await);
    deployment.run("secret -retire");
    load.proceed().await;

    deployment.run("secret -rotate -jwe");
    load.proceed().await;
    let staged_jwe = deployment.secret("-jwe -staged");
    load.backend(deployment.backend(&[&staged], &[&old_jwe, &staged_jwe]).await);
    deployment.run("secret -activate -jwe");
    load.proceed().await;
    load.backend(deployment.backend(&[&staged], &[&staged_jwe]).await);
    deployment.run("secret -retire -jwe");
    load.proceed().await;
    println!("{} refreshes, none refused", load.stop().await);
}

#[tokio::test]
async fn a_key_of_the_keyset_is_rotated_under_load() {
    let deployment = Deployment::new("keyset").await;
    let (secret, jwe) = (deployment.secret(""), deployment.secret("-jwe"));
    let mut load = Load::start(&deployment, deployment.backend(&[&secret], &[&jwe]).await).await;
    deployment.run("keyset -rotate old -kid new");
    load.proceed().await;
    let kids = |text: &str| -> Vec<String> {
        let set: Value = serde_json::from_str(text).unwrap();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kids(&deployment.published().await), ["new", "old"], "a staged key is published at once");
    load.backend(deployment.backend(&[&secret], &[&jwe]).await);
    load.proceed().await;
    deployment.run("keyset -activate new");
    load.proceed().await;
    deployment.run("keyset -remove old");
    assert_eq!(kids(&deployment.published().await), ["new"]);
    load.backend(deployment.backend(&[&secret], &[&jwe]).await);
    load.proceed().await;
    println!("{} refreshes, none refused", load.stop().await);
}

#[tokio::test]
async fn the_session_secret_is_rotated_under_load_and_ends_no_session() {
    let deployment = Deployment::new("session").await;
    let (secret, jwe) = (deployment.secret(""), deployment.secret("-jwe"));
    let mut load = Load::start(&deployment, deployment.backend(&[&secret], &[&jwe]).await).await;
    let mut idle = Browser::new(&deployment.service).await;
    let mut params = with_hcaptcha("sim-pass-idle");
    params[1].1 = "hs.example";
    assert_eq!(idle.attest(&deployment.service, &params).await.status, 200);
    let key_id = |browser: &Browser| browser.refresh_token.as_deref().unwrap().chars().take(6).collect::<String>();
    let old = key_id(&idle);

    deployment.run("secret -rotate -session");
    load.proceed().await;
    let refresh = [("approov-site-key", dev::SITE_KEY), ("api", "hs.example")];
    assert_eq!(idle.attest(&deployment.service, &refresh).await.status, 200);
    assert_eq!(key_id(&idle), old, "the next one takes over in five minutes");
    // Six minutes later.
    deployment.service.clock_offset.store(360_000, Ordering::Relaxed);
    load.proceed().await;
    // A session that slept through it opens, and is sealed again.
    assert_eq!(idle.attest(&deployment.service, &refresh).await.status, 200);
    assert_ne!(key_id(&idle), old);
    load.proceed().await;
    // As soon as all sessions are sealed again, the old one can go.
    let text = fs::read_to_string(deployment.directory.join("service.toml")).unwrap();
    assert!(text.contains("until = "), "{text}");
    deployment.run("secret -activate -session");
    deployment.run("secret -retire -session");
    load.proceed().await;
    assert_eq!(idle.attest(&deployment.service, &refresh).await.status, 200);
    println!("{} refreshes, none refused", load.stop().await);
}

#[tokio::test]
async fn a_check_services_secret_changes_at_its_time() {
    let deployment = Deployment::new("site").await;
    let file = deployment.directory.join("service.toml");
    let before = format!("secret = \"{}\"", sim::HCAPTCHA_SECRET);
    let in_an_hour = approov_verify::time::UnixTime::from_millis(deployment.service.now().as_millis() + 3_600_000);
    let list = format!(
        "secret = [{{ value = \"{}\" }}, {{ value = \"next\", from = {} }}]",
        sim::HCAPTCHA_SECRET,
        approov_web_service::time::rfc3339(in_an_hour)
    );
    fs::write(&file, fs::read_to_string(&file).unwrap().replace(&before, &list)).unwrap();
    deployment.run("account -list");
    let check = async |token: &str| {
        let mut params = with_hcaptcha(token);
        params[1].1 = "hs.example";
        let mut browser = Browser::new(&deployment.service).await;
        browser.attest(&deployment.service, &params).await.status
    };
    assert_eq!(check("sim-pass-before").await, 200);
    deployment.service.clock_offset.store(3_700_000, Ordering::Relaxed);
    assert_eq!(check("sim-pass-after").await, 502, "the simulator knows the first one only");
}
