//! A running gate, and what gateways ask it.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod session;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

static DIRECTORIES: AtomicU64 = AtomicU64::new(0);

/// A directory that goes with the test.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("approov-gate-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with the test.
pub(crate) struct Gate {
    child: Child,
    _output: BufReader<ChildStdout>,
    log: PathBuf,
    pub(crate) directory: Directory,
    pub(crate) url: String,
    pub(crate) operations: Option<String>,
    client: Client,
}

pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_approov-gate"))
}

/// A configuration with the test's secret, `top` above the tables and `rest` below them.
pub(crate) fn configuration(top: &str, rest: &str) -> String {
    let public = if top.contains("public_urls") { "" } else { "public_urls = [\"https://api.shop.co\"]\n" };
    format!("listen = \"127.0.0.1:0\"\n{public}{top}\n[verify]\nsecret = \"{}\"\n{rest}\n", session::SECRET)
}

impl Gate {
    pub(crate) fn start(configuration: &str) -> Self {
        Self::start_with("--log-json", configuration)
    }

    /// One that has no log line for a request.
    pub(crate) fn start_quietly(configuration: &str) -> Self {
        Self::start_with("--quiet", configuration)
    }

    fn start_with(log_format: &str, configuration: &str) -> Self {
        let directory = Directory::new();
        let config = directory.file("gate.toml", configuration);
        let log = directory.file("log", "");
        let mut child = program()
            .args(["--json", log_format, "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            panic!("{line} {}", std::fs::read_to_string(&log).unwrap());
        };
        let text = |name: &str| said[name].as_str().map(str::to_owned);
        let (url, operations) = (text("url").unwrap(), text("operations"));
        Self { child, _output: output, log, directory, url, operations, client: Client::new() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The log so far, once it has this.
    pub(crate) fn logged(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap();
            if log.contains(text) {
                return log;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "no {text} in\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of the process, and gives its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A question as nginx, Caddy and Traefik ask it.
    pub(crate) fn question(&self, method: &str, target: &str) -> RequestBuilder {
        let request = self.client.get(format!("{}/forward-auth", self.url));
        request.header("X-Forwarded-Method", method).header("X-Forwarded-Uri", target)
    }

    /// A question as Envoy asks it.
    pub(crate) fn ext_authz(&self, method: &str, target: &str) -> RequestBuilder {
        let method = method.parse().unwrap();
        self.client.request(method, format!("{}/ext-authz{target}", self.url)).header("Host", "api.shop.co")
    }

    pub(crate) async fn get(&self, url: &str) -> (u16, String) {
        let response = self.client.get(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A verdict as a gateway sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Said {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn brief(&self) -> (u16, &str) {
        (self.status, &self.code)
    }
}

pub(crate) async fn said(request: RequestBuilder) -> Said {
    let response: Response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let body = response.text().await.unwrap();
    let code = match serde_json::from_str::<Value>(&body) {
        Ok(problem) => problem["code"].as_str().unwrap().to_owned(),
        Err(_) => body,
    };
    Said { status, code, headers }
}
