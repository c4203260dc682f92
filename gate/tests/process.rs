//! The process: arguments, reloads, its end, and a store that several share.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::session::{SECRET, Session};
use support::{Directory, Gate, configuration, program, said};

#[test]
fn arguments_and_files_that_are_wrong_are_told() {
    let directory = Directory::new();
    let good = directory.file("good.toml", &configuration("", ""));
    let bad = directory.file("bad.toml", &configuration("bodys = \"forwarded\"\n", ""));
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    for (arguments, code, part) in [
        (&["--version"][..], 0, "approov-gate 0."),
        (&["--help"], 0, "--config FILE"),
        (&["--config", good, "--check"], 0, "good.toml: good"),
        (&["--config", bad, "--check"], 1, "bodys"),
        (&["--config", bad], 1, "bodys"),
        (&["--config", "/nowhere.toml"], 1, "/nowhere.toml"),
        (&[], 2, "--config FILE is needed"),
        (&["--config"], 2, "--config"),
        (&["--config", good, "--lisen", "1"], 2, "--lisen"),
        (&["--config", good, "--listen", "8090"], 2, "8090"),
        (&["--config", good, "--listen", "192.0.2.1:1"], 1, "cannot listen on 192.0.2.1:1"),
    ] {
        let done = program().args(arguments).output().unwrap();
        let text = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        assert_eq!(done.status.code(), Some(code), "{arguments:?} {text}");
        assert!(text.contains(part) && !text.contains(SECRET), "{arguments:?} {text}");
    }
}

#[tokio::test]
async fn sighup_reads_the_file_again_and_a_bad_one_changes_nothing() {
    let gate = Gate::start(&configuration("", ""));
    assert_eq!(said(gate.question("GET", "/health")).await.status, 401);
    gate.directory.file("gate.toml", "public_urls = 1");
    gate.signal("HUP");
    gate.logged("the configuration before it stays in force");
    assert_eq!(said(gate.question("GET", "/health")).await.status, 401);
    let open = "[[policies]]\npaths = [\"/health\"]\naccess = \"open\"";
    gate.directory.file("gate.toml", &configuration("", open));
    gate.signal("HUP");
    gate.logged("\"event\":\"reloaded\"");
    assert_eq!(said(gate.question("GET", "/health")).await.status, 200);
    gate.directory.file("gate.toml", &configuration("", "[store]\ncapacity = 5"));
    gate.signal("HUP");
    gate.logged("store and the presence of tls change with a restart only");
}

#[tokio::test]
async fn used_proofs_are_remembered_over_a_reload() {
    let (gate, session) = (Gate::start(&configuration("", "")), Session::new());
    let proof = session.proof("GET", "https://api.shop.co/a");
    let ask = || gate.question("GET", "/a").header("Approov-Token", session.token()).header("DPoP", proof.as_str());
    assert_eq!(said(ask()).await.status, 200);
    gate.signal("HUP");
    gate.logged("\"event\":\"reloaded\"");
    assert_eq!(said(ask()).await.brief(), (401, "proof_replayed"));
}

#[tokio::test]
async fn sigterm_drains_and_ends_in_good_order() {
    let mut gate = Gate::start(&configuration("drain = 1.5\n", ""));
    assert_eq!(gate.get(&format!("{}/readyz", gate.url)).await.0, 200);
    gate.signal("TERM");
    gate.logged("draining");
    assert_eq!(gate.get(&format!("{}/readyz", gate.url)).await.0, 503);
    // It still serves.
    assert_eq!(said(gate.question("GET", "/a")).await.status, 401);
    assert_eq!(gate.ended(), Some(0));
}

struct Redis(Child, SocketAddr);

impl Redis {
    fn start() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server (Debian: apt-get install redis-server): {error}"));
        let redis = Self(child, address);
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test]
async fn gates_that_share_a_store_know_each_others_proofs_and_refuse_without_it() {
    let mut redis = Redis::start();
    let store = format!("[store]\nredis = \"redis://{}\"\ntimeout_ms = 500", redis.1);
    let (one, two, session) =
        (Gate::start(&configuration("", &store)), Gate::start(&configuration("", &store)), Session::new());
    let proof = session.proof("GET", "https://api.shop.co/a");
    let ask = |gate: &Gate, proof: &str| {
        gate.question("GET", "/a").header("Approov-Token", session.token()).header("DPoP", proof)
    };
    assert_eq!(said(ask(&one, &proof)).await.status, 200);
    assert_eq!(said(ask(&two, &proof)).await.brief(), (401, "proof_replayed"));
    redis.stop();
    let refused = said(ask(&one, &session.proof("GET", "https://api.shop.co/a"))).await;
    assert_eq!(refused.brief(), (503, "replay_store"), "{refused:?}");
    // What needs no store goes on.
    assert_eq!(said(one.question("GET", "/a")).await.brief(), (401, "token_missing"));
    let directory = Directory::new();
    let config = directory.file("gate.toml", &configuration("", &store));
    let done = program().arg("--config").arg(config).output().unwrap();
    let text = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(1) && text.contains("store.redis"), "{text}");
}
