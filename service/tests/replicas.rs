//! Two replicas that share a real Redis server.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use approov_verify::jwk::Thumbprint;
use approov_verify::replay::ReplayKey;
use approov_verify::time::UnixTime;
use approov_web_service::dev::{self, sim};
use approov_web_service::session::NonceStamp;
use approov_web_service::store::{ProofUse, RedisStore, Settled, Store as _};
use support::*;

/// A Redis server of its own; every start is on the same port and with an empty data set, unless it
/// is made to keep a snapshot.
struct Redis {
    child: Option<Child>,
    port: u16,
    directory: PathBuf,
}

impl Redis {
    /// `None` when there is no redis-server here; CI must have one.
    async fn new(name: &str) -> Option<Self> {
        let found = Command::new("redis-server").arg("--version").output().is_ok();
        if !found {
            assert!(std::env::var_os("CI").is_none(), "CI must have redis-server on its PATH");
            println!("skipped: redis-server is not on the PATH (Debian: apt-get install redis-server)");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("approov-redis-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut redis = Self { child: None, port, directory };
        redis.start().await;
        Some(redis)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    async fn start(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&self.directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        until("redis-server listens", async || TcpStream::connect(address).is_ok()).await;
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn command(&self, words: &[&str]) {
        let client = redis::Client::open(self.url()).unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.exec(&mut client.get_connection().unwrap()).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Two processes with the same file.
struct Replicas {
    config: PathBuf,
    one: Process,
    two: Process,
}

/// Checks per minute. The service's limit is the whole minute's, so it is one that any machine reaches.
const RATE_LIMIT: u32 = 4;

impl Replicas {
    async fn start(name: &str, redis: &str) -> Self {
        let sims = simulators().await;
        let config = std::env::temp_dir().join(format!("approov-replicas-{}-{name}.toml", std::process::id()));
        let text = format!(
            "store = \"{redis}\"\n{FILE_HEAD}\
             [[account]]\nsite_key = \"{}\"\nsecret = \"{SECRET}\"\n\
             [[account.api]]\ndomain = \"api.example.com\"\nallow_web = true\n\
             [[account.hcaptcha.site]]\nsite_key = \"{}\"\nsecret = \"{}\"\nrate_limit = {RATE_LIMIT}\n\
             verify_url = \"http://{sims}/sim/hcaptcha/siteverify\"\n",
            dev::SITE_KEY,
            sim::HCAPTCHA_SITE_KEY,
            sim::HCAPTCHA_SECRET,
        );
        std::fs::write(&config, text).unwrap();
        let path = config.to_str().unwrap();
        let (one, two) = (Process::start(&["--config", path]), Process::start(&["--config", path]));
        Self { config, one, two }
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.config);
    }
}

struct Caller {
    client: reqwest::Client,
    browser: Browser,
}

impl Caller {
    fn new() -> Self {
        Self { client: reqwest::Client::builder().no_proxy().build().unwrap(), browser: Browser::default() }
    }

    async fn nonce(&mut self, replica: &Process) {
        let proof = self.browser.proof("GET", &format!("{PUBLIC}/attest"), |_| {});
        let request = self.client.get(format!("{}/attest", replica.url)).header("dpop", proof);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 204);
        response.headers()["dpop-nonce"].to_str().unwrap().clone_into(&mut self.browser.nonce);
    }

    fn proof(&mut self) -> String {
        self.browser.proof("POST", &format!("{PUBLIC}/attest"), |_| {})
    }

    async fn attest(&mut self, replica: &Process, params: &[(&str, &str)]) -> Response {
        let proof = self.proof();
        self.attest_with(replica, params, proof).await
    }

    async fn attest_with(&mut self, replica: &Process, params: &[(&str, &str)], proof: String) -> Response {
        self.browser.attest_at_with(&self.client, &replica.url, params, proof).await.unwrap()
    }

    /// A refresh with this proof, again and again while the store is unavailable: a connection that died is noticed by the first
    /// request, and a failed one is not tried again at once.
    async fn attest_when_served(&mut self, replica: &Process, proof: &str) -> Response {
        let mut response = None;
        until("the replica has its store again", async || {
            let now = self.attest_with(replica, &REFRESH, proof.to_owned()).await;
            response.insert(now).status != 503
        })
        .await;
        response.unwrap()
    }

    /// A refresh as the SDK does it: once more with the fresh nonce when the service wants it.
    async fn refresh(&mut self, replica: &Process) -> Response {
        let response = self.attest(replica, &REFRESH).await;
        if response.status == 401 && response.codes() == ["aprv-invalid-nonce"] {
            return self.attest(replica, &REFRESH).await;
        }
        response
    }
}

#[tokio::test]
async fn any_replica_serves_any_request_and_a_replay_nowhere() {
    let Some(redis) = Redis::new("any").await else { return };
    let replicas = Replicas::start("any", &redis.url()).await;
    let mut caller = Caller::new();
    caller.nonce(&replicas.one).await;
    let proof = caller.proof();
    let response = caller.attest_with(&replicas.two, &with_hcaptcha("sim-pass-any"), proof.clone()).await;
    assert!(is_trusted(&response.token()));
    let again = caller.proof();
    let response = caller.attest_with(&replicas.one, &REFRESH, again.clone()).await;
    assert!(is_trusted(&response.token()));
    for replica in [&replicas.one, &replicas.two] {
        for proof in [&proof, &again] {
            let response = caller.attest_with(replica, &REFRESH, proof.clone()).await;
            assert_eq!((response.status.as_u16(), response.codes()), (401, vec!["aprv-invalid-dpop-token".to_owned()]));
        }
    }
}

#[tokio::test]
async fn a_failed_check_at_one_replica_ends_what_older_refresh_tokens_give_at_the_other() {
    let Some(redis) = Redis::new("failed").await else { return };
    let replicas = Replicas::start("failed", &redis.url()).await;
    let mut caller = Caller::new();
    caller.nonce(&replicas.one).await;
    assert!(is_trusted(&caller.attest(&replicas.one, &with_hcaptcha("sim-pass-failed")).await.token()));
    let older = caller.browser.refresh_token.clone();
    assert!(is_trusted(&caller.refresh(&replicas.two).await.token()));
    assert!(!is_trusted(&caller.attest(&replicas.one, &with_hcaptcha("sim-fail-failed")).await.token()));
    for replica in [&replicas.one, &replicas.two] {
        caller.browser.refresh_token = older.clone();
        assert!(!is_trusted(&caller.refresh(replica).await.token()));
    }
    assert!(is_trusted(&caller.attest(&replicas.two, &with_hcaptcha("sim-pass-again")).await.token()));
    assert!(is_trusted(&caller.refresh(&replicas.one).await.token()));
}

#[tokio::test]
async fn what_redis_knows_of_failed_checks_never_becomes_less() {
    let Some(redis) = Redis::new("generation").await else { return };
    let store = RedisStore::new(&redis.url(), 1000).unwrap();
    let holder = Thumbprint::from_bytes([7; 32]);
    let now = UnixTime::now();
    let until = UnixTime::from_millis(now.as_millis() + 60_000);
    let known = async |n: u8| {
        let nonce = NonceStamp { at: now, epoch: store.epoch() };
        let proof = ReplayKey::new("jti", &holder, &[n]);
        store.remember(ProofUse { proof, holder, nonce, quota: None }, now).await.unwrap().failed_generation
    };
    assert_eq!(known(1).await, 0);
    // A slow check that began earlier ends later.
    for (generation, passed, expected) in [(1, false, 1), (3, true, 1), (4, false, 4), (2, false, 4)] {
        store.settle(Settled { holder, generation, passed, until }, now).await.unwrap();
        assert_eq!(known(10 + u8::from(passed) + u8::try_from(generation).unwrap()).await, expected);
    }
    let other = Thumbprint::from_bytes([8; 32]);
    let used = ProofUse {
        proof: ReplayKey::new("jti", &other, b"1"),
        holder: other,
        nonce: NonceStamp { at: now, epoch: store.epoch() },
        quota: None,
    };
    assert_eq!(store.remember(used, now).await.unwrap().failed_generation, 0);
}

#[tokio::test]
async fn a_rate_limit_counts_over_all_replicas() {
    let Some(redis) = Redis::new("rate").await else { return };
    let replicas = Replicas::start("rate", &redis.url()).await;
    // Minute by the service's clock → how many were let through.
    let mut passed = BTreeMap::<u64, u32>::new();
    let mut callers = (0..).map(|n| (n, if n % 2 == 0 { &replicas.one } else { &replicas.two }));
    loop {
        let (n, replica) = callers.next().unwrap();
        let mut caller = Caller::new();
        caller.nonce(replica).await;
        let response = caller.attest(replica, &with_hcaptcha(&format!("sim-pass-rate{n}"))).await;
        if response.status == 429 {
            break;
        }
        assert!(is_trusted(&response.token()));
        *passed.entry(response.json()["server-time"].as_u64().unwrap() / 60_000).or_default() += 1;
        // Both replicas take turns: with a count each, twice as many would pass in a minute. On a slow machine minutes end meanwhile.
        assert!(passed.values().all(|count| *count <= RATE_LIMIT), "{passed:?}");
        assert!(n < 100, "no minute in which {RATE_LIMIT} passed: {passed:?}");
    }
    assert_eq!(passed.last_key_value().map(|(_, count)| *count), Some(RATE_LIMIT), "{passed:?}");
}

#[tokio::test]
async fn without_redis_requests_are_refused_and_with_it_again_served() {
    let Some(mut redis) = Redis::new("unavailable").await else { return };
    let replicas = Replicas::start("unavailable", &redis.url()).await;
    let mut caller = Caller::new();
    caller.nonce(&replicas.one).await;
    let first = caller.proof();
    let response = caller.attest_with(&replicas.one, &with_hcaptcha("sim-pass-unavailable"), first.clone()).await;
    assert_eq!(response.status, 200);
    let used = caller.proof();
    assert_eq!(caller.attest_with(&replicas.two, &REFRESH, used.clone()).await.status, 200);

    redis.stop();
    let unused = caller.proof();
    for replica in [&replicas.one, &replicas.two] {
        for proof in [&first, &used, &unused] {
            let response = caller.attest_with(replica, &REFRESH, proof.clone()).await;
            assert_eq!((response.status.as_u16(), response.codes()), (503, vec!["aprv-unavailable".to_owned()]));
            assert_eq!(response.header("retry-after"), "1");
        }
        wait_for_readiness(&caller.client, &replica.url, 503).await;
    }

    // It comes back empty: what it forgot must not pass. The session lives on with a fresh nonce.
    redis.start().await;
    for replica in [&replicas.one, &replicas.two] {
        for proof in [&first, &used, &unused] {
            let response = caller.attest_when_served(replica, proof).await;
            assert_eq!((response.status.as_u16(), response.codes()), (401, vec!["aprv-invalid-nonce".to_owned()]));
        }
        assert!(is_trusted(&caller.refresh(replica).await.token()));
        wait_for_readiness(&caller.client, &replica.url, 200).await;
    }
}

#[tokio::test]
async fn a_flushed_redis_lets_no_replay_pass() {
    let Some(redis) = Redis::new("flush").await else { return };
    let replicas = Replicas::start("flush", &redis.url()).await;
    let mut caller = Caller::new();
    caller.nonce(&replicas.one).await;
    caller.attest(&replicas.one, &with_hcaptcha("sim-pass-flush")).await;
    let used = caller.proof();
    assert_eq!(caller.attest_with(&replicas.one, &REFRESH, used.clone()).await.status, 200);
    redis.command(&["FLUSHALL"]);
    for replica in [&replicas.one, &replicas.two] {
        assert_eq!(caller.attest_with(replica, &REFRESH, used.clone()).await.codes(), ["aprv-invalid-nonce"]);
    }
    assert_eq!(caller.refresh(&replicas.two).await.status, 200);
}

#[tokio::test]
async fn a_redis_restored_from_an_old_snapshot_lets_no_replay_pass() {
    let Some(mut redis) = Redis::new("snapshot").await else { return };
    let replicas = Replicas::start("snapshot", &redis.url()).await;
    let mut caller = Caller::new();
    caller.nonce(&replicas.one).await;
    caller.attest(&replicas.one, &with_hcaptcha("sim-pass-snapshot")).await;
    redis.command(&["SAVE"]);
    let used = caller.proof();
    assert_eq!(caller.attest_with(&replicas.one, &REFRESH, used.clone()).await.status, 200);
    // The server that comes back has the data set of before that request, epoch included.
    redis.stop();
    redis.start().await;
    for replica in [&replicas.one, &replicas.two] {
        assert_eq!(caller.attest_when_served(replica, &used).await.codes(), ["aprv-invalid-nonce"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_redis_that_never_responds_costs_two_seconds_at_most() {
    // The kernel accepts connections, and nobody reads from them.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = RedisStore::new(&format!("redis://{}/", silent.local_addr().unwrap()), 1000).unwrap();
    for _ in 0..3 {
        let begun = tokio::time::Instant::now();
        assert!(store.ready().await.is_err());
        assert!(begun.elapsed() <= Duration::from_secs(2), "{:?} by the paused clock", begun.elapsed());
    }
}
