//! The replay store in Redis, against a real server (Debian's package redis-server).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use approov_verify::jwk::Thumbprint;
use approov_verify::redis::RedisReplayStore;
use approov_verify::replay::{ReplayKey, ReplayStore, StoreError, Use};
use approov_verify::time::UnixTime;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// After this long, what has not happened counts as a hang, on however busy a machine.
const HANG: Duration = Duration::from_secs(120);

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

async fn connect(server: &Server) -> RedisReplayStore {
    until("redis-server responds", async || RedisReplayStore::connect(&server.url(), "test:", HANG).await.ok()).await
}

fn key(value: &str) -> ReplayKey {
    ReplayKey::new("jti", &Thumbprint::from_bytes([1; 32]), value.as_bytes())
}

#[tokio::test]
async fn two_servers_that_share_redis_tell_the_second_use() {
    let server = Server::start(free_port());
    let (one, other) = (connect(&server).await, connect(&server).await);
    let now = UnixTime::now();
    let until = now.plus(Duration::from_secs(3600));
    assert_eq!(one.remember(key("a"), until, now).await, Ok(Use::First));
    assert_eq!(other.remember(key("a"), until, now).await, Ok(Use::Again));
    assert_eq!(other.remember(key("b"), until, now).await, Ok(Use::First));
    let remember = |store: &RedisReplayStore| {
        let store = store.clone();
        async move { store.remember(key("c"), until, now).await.unwrap() }
    };
    let at_once = tokio::join!(remember(&one), remember(&other), remember(&one), remember(&other));
    let firsts = [at_once.0, at_once.1, at_once.2, at_once.3].into_iter().filter(|found| *found == Use::First).count();
    assert_eq!(firsts, 1);
}

#[tokio::test]
async fn a_key_is_forgotten_when_it_expires() {
    let server = Server::start(free_port());
    let store = connect(&server).await;
    let now = UnixTime::now();
    let (later, soon) = (now.plus(Duration::from_secs(3600)), now.plus(Duration::from_millis(200)));
    assert_eq!(store.remember(key("later"), later, now).await, Ok(Use::First));
    assert_eq!(store.remember(key("soon"), soon, now).await, Ok(Use::First));
    until("the key expires", async || {
        (store.remember(key("soon"), later, now).await.unwrap() == Use::First).then_some(())
    })
    .await;
    assert_eq!(store.remember(key("soon"), later, now).await, Ok(Use::Again));
    assert_eq!(store.remember(key("later"), later, now).await, Ok(Use::Again));
}

#[tokio::test]
async fn nothing_is_accepted_while_redis_is_unavailable_and_the_store_comes_back_by_itself() {
    let server = Server::start(free_port());
    let port = server.port;
    let store = connect(&server).await;
    let now = UnixTime::now();
    let expiry = now.plus(Duration::from_secs(3600));
    assert_eq!(store.remember(key("a"), expiry, now).await, Ok(Use::First));
    drop(server);
    assert!(matches!(store.remember(key("b"), expiry, now).await, Err(StoreError::Unavailable(_))));
    let _server = Server::start(port);
    let found = until("the store comes back", async || store.remember(key("c"), expiry, now).await.ok()).await;
    assert_eq!(found, Use::First);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_reported() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    assert!(matches!(RedisReplayStore::connect(&url, "", HANG).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(RedisReplayStore::connect("nonsense", "", HANG).await, Err(StoreError::Unavailable(_))));
}
