//! The replay store in Redis, against a real server (Debian's package redis-server).

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use approov_verify::jwk::Thumbprint;
use approov_verify::redis::RedisReplayStore;
use approov_verify::replay::{ReplayCheck, ReplayEntry, ReplayKey, ReplayStore, StoreError};
use approov_verify::time::UnixTime;
use redis::aio::MultiplexedConnection;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// After this long, what has not happened counts as a hang, on however busy a machine.
const HANG: Duration = Duration::from_secs(120);
/// So long that nothing expires while a test runs.
const LIFETIME: Duration = Duration::from_secs(3600);

/// A server of this test's own; it ends with the test.
struct Server {
    process: Child,
    socket: PathBuf,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("approov-verify-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self::start_at(std::env::temp_dir().join(name), options)
    }

    fn start_at(socket: PathBuf, options: &[&str]) -> Self {
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server (Debian: apt-get install redis-server): {error}"));
        Self { process, socket }
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }

    /// A connection of the test's own, once the server is there.
    async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        until("redis-server responds", async || client.get_multiplexed_async_connection().await.ok()).await
    }

    async fn store(&self) -> RedisReplayStore {
        drop(self.connection().await);
        RedisReplayStore::connect(&self.url(), "test:", HANG).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Waits until something is there that no event announces, by asking again and again.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(HANG, asking).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Runs a command given in words.
async fn run<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, words: &str) -> T {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    command.arg(words.collect::<Vec<_>>()).query_async(connection).await.unwrap()
}

fn thumbprint(number: u32) -> Thumbprint {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Thumbprint::from_bytes(bytes)
}

fn entry(holder: u32, value: &str, until: UnixTime) -> ReplayEntry {
    let holder = thumbprint(holder);
    ReplayEntry { holder, key: ReplayKey::new("jti", &holder, value.as_bytes()), until }
}

/// Remembers a proof of a holder.
async fn remember(
    store: &RedisReplayStore,
    holder: u32,
    value: &str,
    now: UnixTime,
) -> Result<ReplayCheck, StoreError> {
    store.remember(entry(holder, value, now.plus(LIFETIME)), now).await
}

/// Remembers proofs of one holder until the store refuses; how many it took, and what it said then.
async fn flood(store: &RedisReplayStore, holder: u32, now: UnixTime) -> (u32, Result<ReplayCheck, StoreError>) {
    for number in 0..10_000 {
        match remember(store, holder, &number.to_string(), now).await {
            Ok(ReplayCheck::New) => {}
            refused => return (number, refused),
        }
    }
    panic!("nothing bounds what one holder may store");
}

#[tokio::test]
async fn a_proof_is_replayed_at_every_server_that_shares_redis() {
    let server = Server::start(&[]);
    let (one, other) = (server.store().await, server.store().await);
    let now = UnixTime::now();
    assert_eq!(remember(&one, 1, "a", now).await, Ok(ReplayCheck::New));
    assert_eq!(remember(&other, 1, "a", now).await, Ok(ReplayCheck::Replayed));
    assert_eq!(remember(&other, 1, "b", now).await, Ok(ReplayCheck::New));
    assert_eq!(remember(&other, 2, "a", now).await, Ok(ReplayCheck::New));
    let at_once = tokio::join!(
        remember(&one, 1, "c", now),
        remember(&other, 1, "c", now),
        remember(&one, 1, "c", now),
        remember(&other, 1, "c", now),
    );
    let verdicts = [at_once.0, at_once.1, at_once.2, at_once.3];
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Ok(ReplayCheck::New)).count(), 1);
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Ok(ReplayCheck::Replayed)).count(), 3);
}

#[tokio::test]
async fn keys_go_when_they_expire_and_not_before() {
    let server = Server::start(&[]);
    let (store, mut redis) = (server.store().await, server.connection().await);
    let now = UnixTime::now();
    let key = format!("test:{{{}}}", thumbprint(1));
    // One that is over at once, and one that is not: the set stays as long as the longest.
    assert_eq!(remember(&store, 1, "long", now).await, Ok(ReplayCheck::New));
    assert_eq!(store.remember(entry(1, "short", now), now).await, Ok(ReplayCheck::New));
    let ttl: i64 = run(&mut redis, &format!("PTTL {key}")).await;
    assert!(ttl > 1_000_000 && ttl <= 3_600_001, "{ttl}");
    until("the short one expires", async || {
        (store.remember(entry(1, "short", now), now).await == Ok(ReplayCheck::New)).then_some(())
    })
    .await;
    assert_eq!(remember(&store, 1, "long", now).await, Ok(ReplayCheck::Replayed));
    // The whole set goes by itself when nobody asks any more.
    assert_eq!(store.remember(entry(2, "short", now), now).await, Ok(ReplayCheck::New));
    let key = format!("test:{{{}}}", thumbprint(2));
    until("the set expires", async || (run::<i64>(&mut redis, &format!("EXISTS {key}")).await == 0).then_some(()))
        .await;
}

#[tokio::test]
async fn one_session_cannot_fill_redis_for_all_others() {
    let server = Server::start(&[]);
    let (one, other) = (server.store().await.capacity(2000), server.store().await.capacity(2000));
    let mut redis = server.connection().await;
    let now = UnixTime::now();
    assert_eq!(flood(&one, 1, now).await, (1001, Ok(ReplayCheck::OverQuota)));
    assert_eq!(remember(&one, 1, "0", now).await, Ok(ReplayCheck::Replayed));
    // At another server, as soon as the two have exchanged what they hold.
    let later = now.plus(Duration::from_secs(1));
    for store in [&one, &other] {
        assert_eq!(remember(store, 1, "more", later).await, Ok(ReplayCheck::OverQuota));
    }
    let stored: usize = run(&mut redis, &format!("ZCARD test:{{{}}}", thumbprint(1))).await;
    assert_eq!(stored, 1001);
    // Honest clients are served at both.
    for holder in 2..32 {
        for number in 0..10 {
            let store = if number % 2 == 0 { &one } else { &other };
            assert_eq!(remember(store, holder, &number.to_string(), later).await, Ok(ReplayCheck::New), "{holder}");
        }
    }
}

#[tokio::test]
async fn what_all_servers_hold_is_bounded() {
    let server = Server::start(&[]);
    let store = server.store().await.capacity(40);
    let now = UnixTime::now();
    let mut verdicts = Vec::new();
    for holder in 0..60 {
        verdicts.push(remember(&store, holder, "a", now).await);
    }
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Ok(ReplayCheck::New)).count(), 40);
    assert_eq!(verdicts.last(), Some(&Err(StoreError::Full)));
    // Another one learns of it with its first request.
    let fresh = server.store().await.capacity(40);
    drop(remember(&store, 99, "a", now.plus(Duration::from_secs(1))).await);
    assert_eq!(remember(&fresh, 99, "a", now).await, Err(StoreError::Full));
}

#[tokio::test]
async fn all_keys_of_a_holder_are_in_one_slot_of_a_cluster() {
    let server = Server::start(&[]);
    let (store, mut redis) = (server.store().await, server.connection().await);
    let now = UnixTime::now();
    for (value, at) in [("a", now), ("b", now.plus(Duration::from_secs(1)))] {
        assert_eq!(remember(&store, 1, value, at).await, Ok(ReplayCheck::New));
    }
    let mut keys: Vec<String> = run(&mut redis, "KEYS *").await;
    keys.sort();
    assert_eq!(keys, [format!("test:{{{}}}", thumbprint(1)), "test:{load}".to_owned()]);
}

#[tokio::test]
async fn nothing_is_accepted_while_redis_is_unavailable_and_the_store_recovers() {
    let server = Server::start(&[]);
    let socket = server.socket.clone();
    let store = server.store().await;
    let now = UnixTime::now();
    assert_eq!(remember(&store, 1, "a", now).await, Ok(ReplayCheck::New));
    drop(server);
    assert!(matches!(remember(&store, 1, "b", now).await, Err(StoreError::Unavailable(_))));
    let server = Server::start_at(socket, &[]);
    drop(server.connection().await);
    let found = until("the store recovers", async || remember(&store, 1, "c", now).await.ok()).await;
    assert_eq!(found, ReplayCheck::New);
}

#[tokio::test]
async fn after_a_failover_the_store_leaves_the_server_that_became_a_replica() {
    let server = Server::start(&[]);
    let (store, mut redis) = (server.store().await, server.connection().await);
    let now = UnixTime::now();
    let store_connections = async |redis: &mut MultiplexedConnection| {
        let clients: String = run(redis, "CLIENT LIST").await;
        let of_store = clients.lines().filter(|line| line.contains("cmd=eval"));
        of_store.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(remember(&store, 1, "a", now).await, Ok(ReplayCheck::New));
    let before = store_connections(&mut redis).await;
    assert_eq!(before.len(), 1);
    let _: () = run(&mut redis, "REPLICAOF 127.0.0.1 1").await;
    let refused = remember(&store, 1, "b", now).await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(cause)) if cause.contains("read")), "{refused:?}");
    let _: () = run(&mut redis, "REPLICAOF NO ONE").await;
    assert_eq!(remember(&store, 1, "b", now).await, Ok(ReplayCheck::New));
    assert_ne!(store_connections(&mut redis).await, before, "the old connection is still in use");
}

#[tokio::test]
async fn a_server_that_forgets_too_early_is_refused() {
    for (policy, memory, accepted) in [
        ("volatile-lru", "10mb", false),
        ("allkeys-random", "10mb", false),
        ("noeviction", "10mb", true),
        // Without a limit nothing is ever evicted.
        ("volatile-lru", "0", true),
    ] {
        let server = Server::start(&["--maxmemory-policy", policy, "--maxmemory", memory]);
        drop(server.connection().await);
        let store = RedisReplayStore::connect(&server.url(), "test:", HANG).await;
        assert_eq!(store.is_ok(), accepted, "{policy} {memory}");
        if !accepted {
            assert_eq!(store.unwrap_err(), StoreError::Evicts(policy.to_owned()));
        }
    }
}

#[tokio::test]
async fn a_user_with_the_least_rights_is_enough() {
    // No INFO, no CONFIG, and its own keys alone.
    let rules = "on >password ~test:* resetchannels -@all +eval +time +zremrangebyscore +zscore +zcard +zadd +pttl \
                 +pexpire +hincrby +hgetall +hdel +ping";
    let server = Server::start(&[]);
    let mut redis = server.connection().await;
    let _: () =
        run(&mut redis, &format!("ACL SETUSER backend {}", rules.split_whitespace().collect::<Vec<_>>().join(" ")))
            .await;
    let url = format!("{}?user=backend&pass=password", server.url());
    let store = RedisReplayStore::connect(&url, "test:", HANG).await.unwrap();
    let now = UnixTime::now();
    assert_eq!(remember(&store, 1, "a", now).await, Ok(ReplayCheck::New));
    assert_eq!(remember(&store, 1, "a", now).await, Ok(ReplayCheck::Replayed));
    let later = now.plus(Duration::from_secs(2));
    assert_eq!(remember(&store, 1, "b", later).await, Ok(ReplayCheck::New));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_reported_at_once() {
    for url in ["redis+unix:///nowhere/redis.sock", "nonsense"] {
        assert!(matches!(RedisReplayStore::connect(url, "", HANG).await, Err(StoreError::Unavailable(_))), "{url}");
    }
}
