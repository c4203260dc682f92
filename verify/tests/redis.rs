//! The replay store in Redis, against a real server (Debian's package redis-server).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use approov_verify::jwk::Thumbprint;
use approov_verify::redis::RedisReplayStore;
use approov_verify::replay::{ReplayCheck, ReplayKey, ReplayStore, StoreError};
use approov_verify::time::UnixTime;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::sleep;

const TIMEOUT: Duration = Duration::from_millis(500);

/// A server of this test's own; it ends with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(port: u16) -> Self {
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server (Debian: apt-get install redis-server): {error}"));
        Self { process, port }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn connect(server: &Server) -> RedisReplayStore {
    for _ in 0..100 {
        if let Ok(store) = RedisReplayStore::connect(&server.url(), "test:", TIMEOUT).await {
            return store;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("redis-server does not respond");
}

fn key(value: &str) -> ReplayKey {
    ReplayKey::new("jti", &Thumbprint::from_bytes([1; 32]), value.as_bytes())
}

#[tokio::test]
async fn two_servers_that_share_redis_tell_the_second_use() {
    let server = Server::start(free_port());
    let (one, other) = (connect(&server).await, connect(&server).await);
    let now = UnixTime::now();
    let until = now.plus(Duration::from_secs(60));
    assert_eq!(one.remember(key("a"), until, now).await, Ok(ReplayCheck::New));
    assert_eq!(other.remember(key("a"), until, now).await, Ok(ReplayCheck::Replayed));
    assert_eq!(other.remember(key("b"), until, now).await, Ok(ReplayCheck::New));
    let remember = |store: &RedisReplayStore| {
        let store = store.clone();
        async move { store.remember(key("c"), until, now).await.unwrap() }
    };
    let at_once = tokio::join!(remember(&one), remember(&other), remember(&one), remember(&other));
    let firsts =
        [at_once.0, at_once.1, at_once.2, at_once.3].into_iter().filter(|found| *found == ReplayCheck::New).count();
    assert_eq!(firsts, 1);
}

#[tokio::test]
async fn a_key_is_forgotten_when_it_expires() {
    let server = Server::start(free_port());
    let store = connect(&server).await;
    let now = UnixTime::now();
    assert_eq!(store.remember(key("a"), now.plus(Duration::from_millis(200)), now).await, Ok(ReplayCheck::New));
    assert_eq!(store.remember(key("a"), now.plus(Duration::from_millis(200)), now).await, Ok(ReplayCheck::Replayed));
    sleep(Duration::from_millis(300)).await;
    assert_eq!(store.remember(key("a"), now.plus(Duration::from_secs(1)), now).await, Ok(ReplayCheck::New));
}

#[tokio::test]
async fn nothing_is_accepted_while_redis_is_away_and_the_store_comes_back_by_itself() {
    let server = Server::start(free_port());
    let port = server.port;
    let store = connect(&server).await;
    let now = UnixTime::now();
    let until = now.plus(Duration::from_secs(60));
    assert_eq!(store.remember(key("a"), until, now).await, Ok(ReplayCheck::New));
    drop(server);
    assert!(matches!(store.remember(key("b"), until, now).await, Err(StoreError::Unavailable(_))));
    let _server = Server::start(port);
    for _ in 0..100 {
        if store.remember(key("c"), until, now).await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("the store did not come back");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    assert!(matches!(RedisReplayStore::connect(&url, "", TIMEOUT).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(RedisReplayStore::connect("nonsense", "", TIMEOUT).await, Err(StoreError::Unavailable(_))));
}
