//! Two replicas that share a real Redis server.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use approov_verify::jwk::Thumbprint;
use approov_verify::replay::ReplayKey;
use approov_verify::time::UnixTime;
use approov_web_service::dev::{self, sim};
use approov_web_service::session::NonceStamp;
use approov_web_service::store::{Claim, ProofUse, RedisStore, ReplayCheck, ResultKey, ResultUse, Settled, Store as _};
use axum::body::Body;
use axum::http::Request;
use axum::middleware::{Next, from_fn};
use support::*;

/// A Redis server of its own; every start is on the same port and with an empty data set, unless it
/// is made to keep a snapshot.
struct Redis {
    child: Option<Child>,
    port: u16,
    directory: PathBuf,
    more: Vec<String>,
}

impl Redis {
    /// `None` when there is no redis-server here; CI must have one.
    async fn new(name: &str) -> Option<Self> {
        Self::new_with(name, |_| Vec::new()).await
    }

    /// The same with more options, which may name files in its directory.
    async fn new_with(name: &str, more: impl FnOnce(&Self) -> Vec<String>) -> Option<Self> {
        let found = Command::new("redis-server").arg("--version").output().is_ok();
        if !found {
            assert!(std::env::var_os("CI").is_none(), "CI must have redis-server on its PATH");
            println!("skipped: redis-server is not on the PATH (Debian: apt-get install redis-server)");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("approov-redis-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut redis = Self { child: None, port, directory, more: Vec::new() };
        redis.more = more(&redis);
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
            .args(&self.more)
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
        self.query::<redis::Value>(words);
    }

    fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut client.get_connection().unwrap()).unwrap()
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
        Self::start_with(name, redis, simulators().await, RATE_LIMIT)
    }

    fn start_with(name: &str, redis: &str, sims: SocketAddr, rate_limit: u32) -> Self {
        let config = std::env::temp_dir().join(format!("approov-replicas-{}-{name}.toml", std::process::id()));
        let text = format!(
            "store = \"{redis}\"\n{FILE_HEAD}[limits]\nfailed_checks = 0\n\
             [[account]]\nsite_key = \"{}\"\nsecret = \"{SECRET}\"\n\
             [[account.api]]\ndomain = \"api.example.com\"\nallow_web = true\n\
             [[account.hcaptcha.site]]\nsite_key = \"{}\"\nsecret = \"{}\"\nrate_limit = {rate_limit}\n\
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

    /// A request with these parameters, again while the service says that it is unavailable.
    async fn attest_when_available(&mut self, replica: &Process, params: &[(&str, &str)]) -> Response {
        let mut response = self.attest(replica, params).await;
        until("the service is available", async || {
            if response.status == 503 {
                response = self.attest(replica, params).await;
            }
            response.status != 503
        })
        .await;
        response
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
async fn of_fifty_at_two_replicas_one_is_checked_and_one_key_passes() {
    let Some(redis) = Redis::new("once").await else { return };
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let counted = from_fn(move |request: Request<Body>, next: Next| {
        count.fetch_add(1, Ordering::SeqCst);
        next.run(request)
    });
    let vendors = serve_on_free_port(sim::router().layer(counted)).await;
    let replicas = Replicas::start_with("once", &redis.url(), vendors, 0);
    let senders = (0..10).map(|_| async {
        let mut caller = Caller::new();
        caller.nonce(&replicas.one).await;
        let mut requests = Vec::new();
        for n in 0..5 {
            let (proof, replica) = (caller.proof(), if n % 2 == 0 { &replicas.one } else { &replicas.two });
            let (client, params) = (caller.client.clone(), with_hcaptcha("sim-pass-once"));
            let request = client.post(format!("{}/attest", replica.url)).header("origin", ORIGIN);
            requests.push(request.header("dpop", proof).form(&params).send());
        }
        let mut passed = 0;
        for response in futures_util::future::join_all(requests).await {
            let response = response.unwrap();
            let (status, headers) = (response.status(), response.headers().clone());
            let response = Response { status, headers, body: response.text().await.unwrap() };
            match response.status.as_u16() {
                200 => passed += usize::from(is_trusted(&response.token())),
                503 => assert_eq!(response.header("retry-after"), "1"),
                _ => panic!("{}", response.body),
            }
        }
        // Once it is settled, either replica says the same.
        for replica in [&replicas.one, &replicas.two] {
            let again = caller.attest_when_available(replica, &with_hcaptcha("sim-pass-once")).await;
            caller.browser.refresh_token = None;
            assert!(passed == 0 || is_trusted(&again.token()));
            passed += usize::from(is_trusted(&again.token()));
        }
        passed
    });
    let passed: Vec<usize> = futures_util::future::join_all(senders).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(passed.iter().filter(|passed| **passed > 0).count(), 1, "{passed:?}");
}

#[tokio::test]
async fn redis_keeps_what_came_of_a_result_for_its_first_holder() {
    let Some(redis) = Redis::new("claims").await else { return };
    let (one, two) = (RedisStore::new(&redis.url(), 1000).unwrap(), RedisStore::new(&redis.url(), 1000).unwrap());
    let now = UnixTime::now();
    let used = |name: &str, holder: u8| ResultUse {
        key: ResultKey::new("site", name),
        holder: Thumbprint::from_bytes([holder; 32]),
        lifetime: Duration::from_secs(600),
    };
    let (mine, yours) = (used("a", 1), used("a", 2));
    assert_eq!(one.claim(&mine, now).await, Ok(Claim::New));
    assert_eq!(two.claim(&mine, now).await, Ok(Claim::InFlight));
    assert_eq!(two.claim(&yours, now).await, Ok(Claim::Others));
    two.conclude(&yours, Some(b"forged".to_vec())).await.unwrap();
    two.conclude(&yours, None).await.unwrap();
    assert_eq!(one.claim(&mine, now).await, Ok(Claim::InFlight), "others cannot conclude it");
    let outcome: Vec<u8> = (0..=255).collect();
    one.conclude(&mine, Some(outcome.clone())).await.unwrap();
    one.conclude(&mine, None).await.unwrap();
    assert_eq!(two.claim(&mine, now).await, Ok(Claim::Known(outcome)), "the first conclusion stays");
    assert_eq!(two.claim(&yours, now).await, Ok(Claim::Others));
    let lifetime: i64 = redis.query(&["PTTL", &format!("approov:result:{{{}}}", mine.key)]);
    assert!((540_000..=600_000).contains(&lifetime), "{lifetime}");
    // Nothing came of this one.
    assert_eq!(one.claim(&used("b", 1), now).await, Ok(Claim::New));
    one.conclude(&used("b", 1), None).await.unwrap();
    assert_eq!(two.claim(&used("b", 2), now).await, Ok(Claim::New));
}

#[tokio::test]
async fn one_key_cannot_fill_redis_so_that_others_are_refused() {
    let Some(redis) = Redis::new("quota").await else { return };
    let (one, two) = (RedisStore::new(&redis.url(), 100).unwrap(), RedisStore::new(&redis.url(), 100).unwrap());
    let now = UnixTime::now();
    let remember = async |store: &RedisStore, holder: u8, n: u32| {
        let holder = Thumbprint::from_bytes([holder; 32]);
        let proof = ReplayKey::new("jti", &holder, &n.to_be_bytes());
        let nonce = NonceStamp { at: now, epoch: store.epoch() };
        store.remember(ProofUse { proof, holder, nonce, quota: Some(20) }, now).await.unwrap().replay
    };
    one.ready().await.unwrap();
    two.ready().await.unwrap();
    let mut taken = 0;
    while remember(&one, 1, taken).await == ReplayCheck::New {
        taken += 1;
        assert!(taken < 200, "no end");
    }
    assert_eq!(taken, 50, "without a quota while half of the store is free");
    assert_eq!(remember(&one, 1, 1000).await, ReplayCheck::OverQuota);
    assert_eq!(remember(&one, 1, 0).await, ReplayCheck::Replayed);
    // The other replica knows by its second proof at the latest.
    remember(&two, 2, 0).await;
    assert_eq!(remember(&two, 1, 2000).await, ReplayCheck::OverQuota);
    for n in 1..20 {
        assert_eq!(remember(&two, 2, n).await, ReplayCheck::New, "{n}");
    }
    assert_eq!(remember(&two, 2, 20).await, ReplayCheck::OverQuota);
    assert_eq!(remember(&two, 2, 0).await, ReplayCheck::Replayed);
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

#[tokio::test]
async fn a_redis_user_who_may_not_use_info_works_with_a_warning() {
    let Some(redis) = Redis::new("acl").await else { return };
    // What docs/SERVICE.md names, without INFO.
    let commands = "DEL EVAL EXPIRE GET INCR MGET MULTI EXEC PEXPIRE PTTL SET TIME ZADD ZCARD ZREMRANGEBYSCORE ZSCORE";
    let commands: Vec<String> = commands.split(' ').map(|name| format!("+{}", name.to_lowercase())).collect();
    let user = ["ACL", "SETUSER", "limited", "on", ">pw", "~approov:*", "-@all"];
    redis.command(&user.into_iter().chain(commands.iter().map(String::as_str)).collect::<Vec<_>>());
    let mut replicas = Replicas::start("acl", &format!("redis://limited:pw@127.0.0.1:{}/", redis.port)).await;
    let warned = |line: &serde_json::Value| line.to_string().contains("may not use INFO");
    replicas.one.wait_for_log(warned);
    let mut caller = Caller::new();
    caller.nonce(&replicas.one).await;
    assert!(is_trusted(&caller.attest(&replicas.one, &with_hcaptcha("sim-pass-acl")).await.token()));
    let used = caller.proof();
    assert_eq!(caller.attest_with(&replicas.two, &REFRESH, used.clone()).await.status, 200);
    assert_eq!(caller.attest_with(&replicas.one, &REFRESH, used.clone()).await.status, 401);
    assert!(!is_trusted(&caller.attest(&replicas.one, &with_hcaptcha("sim-fail-acl")).await.token()));
    redis.command(&["FLUSHALL"]);
    assert_eq!(caller.attest_with(&replicas.one, &REFRESH, used).await.codes(), ["aprv-invalid-nonce"]);
}

#[tokio::test]
async fn a_redis_that_forgets_too_early_is_refused() {
    let Some(redis) = Redis::new("evicts").await else { return };
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let store = || RedisStore::new(&redis.url(), 1000).unwrap();
    assert_eq!(store().ready().await, Ok(()), "it has no bound");
    redis.command(&["CONFIG", "SET", "maxmemory", "100mb"]);
    let error = store().ready().await.unwrap_err().to_string();
    assert!(error.contains("maxmemory-policy allkeys-lru") && error.contains("noeviction"), "{error}");
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert_eq!(store().ready().await, Ok(()));
}

#[tokio::test]
async fn redis_over_tls_is_trusted_by_its_certificate() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let redis = Redis::new_with("tls", |redis| {
        let file = |name: &str, text: String| {
            let path = redis.directory.join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let certificate = file("cert.pem", made.cert.pem());
        let key = file("key.pem", made.signing_key.serialize_pem());
        let port = redis.port.to_string();
        let options: [&str; 10] = [
            "--port",
            "0",
            "--tls-port",
            &port,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
        ];
        options.map(str::to_owned).to_vec()
    });
    let Some(redis) = redis.await else { return };
    let config = redis.directory.join("service.toml");
    std::fs::write(&config, format!("store = \"rediss://localhost:{}/\"\n{FILE_HEAD}", redis.port)).unwrap();
    let arguments = ["--config", config.to_str().unwrap()];
    let certificate = redis.directory.join("cert.pem");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let trusting = Process::start_with(&arguments, &[("SSL_CERT_FILE", certificate.to_str().unwrap())]);
    wait_for_readiness(&client, &trusting.url, 200).await;
    let other = Process::start(&arguments);
    wait_for_readiness(&client, &other.url, 503).await;
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
