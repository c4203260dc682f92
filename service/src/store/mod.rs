//! The state that replicas share: which proofs were used, and how many checks a site made this minute.
//!
//! A store has an epoch, a number that changes whenever it may have forgotten something (the process
//! restarted, Redis restarted or was flushed). Nonces carry the epoch they were issued in, and only
//! proofs with a nonce of the present epoch are accepted: what the store has forgotten cannot be
//! replayed. Sessions survive, at the price of one more round trip for a fresh nonce.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use approov_verify::replay::ReplayKey;
use approov_verify::time::UnixTime;
use aws_lc_rs::digest;
use redis::aio::MultiplexedConnection;

use crate::config::StoreAddress;
use crate::crypto::random;
use crate::session::{Epoch, NONCE_LIFETIME, NonceStamp};

/// What the store knows of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayCheck {
    /// It is new, and remembered from now on.
    New,
    /// It was used before.
    Replayed,
    /// The store cannot tell: its nonce is from an epoch that the store no longer remembers.
    StaleEpoch,
}

/// Why a store did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store is unavailable: {}", self.0)
    }
}

impl std::error::Error for StoreError {}

/// What the service needs of a store.
pub trait Store: Send + Sync {
    /// The present epoch, as far as it is known without asking.
    fn epoch(&self) -> Epoch;

    /// Whether this proof was used before; remembers it for the nonce's life. One atomic step.
    ///
    /// # Errors
    /// When the store is unavailable. The caller must refuse.
    fn remember(
        &self,
        key: ReplayKey,
        nonce: NonceStamp,
        now: UnixTime,
    ) -> impl Future<Output = Result<ReplayCheck, StoreError>> + Send;

    /// Counts one use of `name` in the current minute. `Ok(true)`: within `limit`.
    ///
    /// # Errors
    /// When the store is unavailable. The caller must refuse.
    fn count(&self, name: &str, limit: u64, now: UnixTime) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Whether the store answers.
    ///
    /// # Errors
    /// When it does not.
    fn ready(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Seconds until the next minute begins: when a rate limit lets requests through again.
pub fn seconds_to_next_minute(now: UnixTime) -> u64 {
    60 - now.as_secs().rem_euclid(60).unsigned_abs()
}

/// The configured store.
pub enum AnyStore {
    /// In this process.
    Memory(MemoryStore),
    /// In Redis.
    Redis(RedisStore),
}

impl AnyStore {
    /// Opens the configured store.
    ///
    /// # Errors
    /// When its address cannot be used. A server that cannot be reached is not an error: it may come back.
    pub fn open(address: &StoreAddress, replay_entries: usize) -> Result<Self, StoreError> {
        match address {
            StoreAddress::Memory => {
                let random = random().map_err(|_| StoreError("no random numbers".to_owned()))?;
                Ok(AnyStore::Memory(MemoryStore::new(replay_entries, u64::from_be_bytes(random))))
            }
            StoreAddress::Redis(url) => RedisStore::new(url).map(AnyStore::Redis),
        }
    }
}

impl Store for AnyStore {
    fn epoch(&self) -> Epoch {
        match self {
            AnyStore::Memory(store) => store.epoch(),
            AnyStore::Redis(store) => store.epoch(),
        }
    }

    async fn remember(&self, key: ReplayKey, nonce: NonceStamp, now: UnixTime) -> Result<ReplayCheck, StoreError> {
        match self {
            AnyStore::Memory(store) => store.remember(key, nonce, now).await,
            // On the heap, so that requests make no room for it when there is no Redis.
            AnyStore::Redis(store) => Box::pin(store.remember(key, nonce, now)).await,
        }
    }

    async fn count(&self, name: &str, limit: u64, now: UnixTime) -> Result<bool, StoreError> {
        match self {
            AnyStore::Memory(store) => store.count(name, limit, now).await,
            AnyStore::Redis(store) => store.count(name, limit, now).await,
        }
    }

    async fn ready(&self) -> Result<(), StoreError> {
        match self {
            AnyStore::Memory(store) => store.ready().await,
            AnyStore::Redis(store) => store.ready().await,
        }
    }
}

/// A store in this process's memory, with a bound.
///
/// Proofs lie in slots by the second their nonce was issued in; whole slots are dropped when their
/// nonces have expired. When the bound is reached before that, the oldest slots go too, and nonces as
/// old as theirs are no longer accepted.
pub struct MemoryStore {
    epoch: Epoch,
    capacity: usize,
    proofs: Mutex<Proofs>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Proofs {
    /// Second of issue → first 16 bytes of the replay keys (SHA-256 values: 128 bits do not collide).
    slots: BTreeMap<i64, HashSet<u128>>,
    len: usize,
    /// Nonces issued in this second or before are not accepted.
    forgotten_to: Option<i64>,
}

#[derive(Default)]
struct Counts {
    minute: i64,
    by_name: HashMap<String, u64>,
}

impl MemoryStore {
    /// An empty store for `capacity` proofs; `random` becomes its epoch.
    pub fn new(capacity: usize, random: u64) -> Self {
        Self { epoch: random, capacity, proofs: Mutex::default(), counts: Mutex::default() }
    }

    fn remember_now(&self, key: ReplayKey, nonce: NonceStamp, now: UnixTime) -> ReplayCheck {
        if nonce.epoch != self.epoch {
            return ReplayCheck::StaleEpoch;
        }
        let second = nonce.at.as_secs();
        let short = key.as_bytes().iter().take(16).fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        // One second more than the life: a slot holds nonces up to its last millisecond.
        let expired = now.minus(NONCE_LIFETIME + Duration::from_secs(1)).as_secs();
        while let Some(slot) = proofs.slots.first_entry()
            && *slot.key() < expired
        {
            let gone = slot.remove().len();
            proofs.len -= gone;
        }
        if proofs.forgotten_to.is_some_and(|to| second <= to) {
            return ReplayCheck::StaleEpoch;
        }
        if !proofs.slots.entry(second).or_default().insert(short) {
            return ReplayCheck::Replayed;
        }
        proofs.len += 1;
        while proofs.len > self.capacity
            && let Some((oldest, keys)) = proofs.slots.pop_first()
        {
            proofs.len -= keys.len();
            proofs.forgotten_to = Some(oldest);
            if oldest == second {
                return ReplayCheck::StaleEpoch;
            }
        }
        ReplayCheck::New
    }
}

impl Store for MemoryStore {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    async fn remember(&self, key: ReplayKey, nonce: NonceStamp, now: UnixTime) -> Result<ReplayCheck, StoreError> {
        Ok(self.remember_now(key, nonce, now))
    }

    async fn count(&self, name: &str, limit: u64, now: UnixTime) -> Result<bool, StoreError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.as_secs() / 60;
        if counts.minute != minute {
            counts.minute = minute;
            counts.by_name.clear();
        }
        let count = counts.by_name.entry(name.to_owned()).or_default();
        *count = count.saturating_add(1);
        Ok(*count <= limit)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// How long a Redis server has for one answer.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a failed connection is not tried again, so that a server that cannot be reached costs no waiting.
const REDIS_PAUSE: Duration = Duration::from_millis(200);
const EPOCH_KEY: &str = "approov:epoch";

/// A store in a Redis server. Its epoch is made of the server's run id, read on every new connection,
/// and a random value in the data set, read with every proof.
pub struct RedisStore {
    client: redis::Client,
    epoch: AtomicU64,
    link: tokio::sync::Mutex<Link>,
}

#[derive(Default)]
struct Link {
    open: Option<Connection>,
    failed: Option<Instant>,
    generation: u64,
}

#[derive(Clone)]
struct Connection {
    redis: MultiplexedConnection,
    run_id: String,
    generation: u64,
}

impl RedisStore {
    /// A store at `url`. Nothing is connected yet.
    ///
    /// # Errors
    /// When the URL is not one of Redis.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        let client = redis::Client::open(url).map_err(|e| StoreError(kind(&e)))?;
        Ok(Self { client, epoch: AtomicU64::new(0), link: tokio::sync::Mutex::default() })
    }

    async fn connection(&self) -> Result<Connection, StoreError> {
        let mut link = self.link.lock().await;
        if let Some(open) = &link.open {
            return Ok(open.clone());
        }
        if link.failed.is_some_and(|at| at.elapsed() < REDIS_PAUSE) {
            return Err(StoreError("no connection".to_owned()));
        }
        match tokio::time::timeout(REDIS_TIMEOUT, self.connect()).await {
            Ok(Ok((redis, run_id))) => {
                link.generation += 1;
                let open = Connection { redis, run_id, generation: link.generation };
                link.open = Some(open.clone());
                link.failed = None;
                Ok(open)
            }
            Ok(Err(error)) => {
                link.failed = Some(Instant::now());
                Err(StoreError(kind(&error)))
            }
            Err(_) => {
                link.failed = Some(Instant::now());
                Err(StoreError("no connection in time".to_owned()))
            }
        }
    }

    async fn connect(&self) -> redis::RedisResult<(MultiplexedConnection, String)> {
        let mut redis = self.client.get_multiplexed_async_connection().await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut redis).await?;
        let run_id = info
            .lines()
            .find_map(|line| line.strip_prefix("run_id:"))
            .map(|id| id.trim().to_owned())
            .ok_or_else(|| redis::RedisError::from((redis::ErrorKind::Client, "INFO has no run_id")))?;
        Ok((redis, run_id))
    }

    /// Runs a pipeline; any failure closes the connection, so that the next request opens a new one
    /// and learns whether it is still the same server.
    async fn run<T: redis::FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<(T, String), StoreError> {
        let mut connection = self.connection().await?;
        let answer = tokio::time::timeout(REDIS_TIMEOUT, pipeline.query_async(&mut connection.redis)).await;
        let failure = match answer {
            Ok(Ok(value)) => return Ok((value, connection.run_id)),
            Ok(Err(error)) => kind(&error),
            Err(_) => "no answer in time".to_owned(),
        };
        let mut link = self.link.lock().await;
        if link.generation == connection.generation {
            link.open = None;
        }
        Err(StoreError(failure))
    }
}

/// The kind of a Redis error: its text can hold the address and a password.
fn kind(error: &redis::RedisError) -> String {
    format!("{:?}", error.kind())
}

/// Reads the epoch of the data set; a set without one gets a new one, never seen before.
fn epoch_pipeline() -> Result<redis::Pipeline, StoreError> {
    let random = u64::from_be_bytes(random().map_err(|_| StoreError("no random numbers".to_owned()))?);
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    pipeline.cmd("SET").arg(EPOCH_KEY).arg(random).arg("NX").ignore();
    pipeline.cmd("GET").arg(EPOCH_KEY);
    Ok(pipeline)
}

fn mix(run_id: &str, stored: &str) -> Epoch {
    let hash = digest::digest(&digest::SHA256, format!("{run_id}\n{stored}").as_bytes());
    hash.as_ref().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Store for RedisStore {
    fn epoch(&self) -> Epoch {
        self.epoch.load(Ordering::Relaxed)
    }

    async fn remember(&self, key: ReplayKey, nonce: NonceStamp, now: UnixTime) -> Result<ReplayCheck, StoreError> {
        let life = nonce.at.plus(NONCE_LIFETIME).since(now) + Duration::from_secs(60);
        let mut pipeline = epoch_pipeline()?;
        pipeline
            .cmd("SET")
            .arg(format!("approov:proof:{key}"))
            .arg(1)
            .arg("NX")
            .arg("PX")
            .arg(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
        let ((stored, first), run_id): ((String, Option<String>), _) = self.run(&pipeline).await?;
        let epoch = mix(&run_id, &stored);
        self.epoch.store(epoch, Ordering::Relaxed);
        Ok(match (nonce.epoch == epoch, first) {
            (false, _) => ReplayCheck::StaleEpoch,
            (true, Some(_)) => ReplayCheck::New,
            (true, None) => ReplayCheck::Replayed,
        })
    }

    async fn count(&self, name: &str, limit: u64, now: UnixTime) -> Result<bool, StoreError> {
        let name = format!("approov:rate:{}:{name}", now.as_secs() / 60);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("INCR").arg(&name);
        pipeline.cmd("EXPIRE").arg(&name).arg(120).ignore();
        let ((count,), _): ((u64,), _) = self.run(&pipeline).await?;
        Ok(count <= limit)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let pipeline = epoch_pipeline()?;
        let ((stored,), run_id): ((String,), _) = self.run(&pipeline).await?;
        self.epoch.store(mix(&run_id, &stored), Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approov_verify::jwk::Thumbprint;

    const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);

    fn key(n: u64) -> ReplayKey {
        ReplayKey::new("jti", &Thumbprint::from_bytes([1; 32]), &n.to_be_bytes())
    }

    fn issued(seconds_ago: u64) -> NonceStamp {
        NonceStamp { at: NOW.minus(Duration::from_secs(seconds_ago)), epoch: 7 }
    }

    #[test]
    fn a_proof_is_new_once() {
        let store = MemoryStore::new(10, 7);
        assert_eq!(store.remember_now(key(1), issued(0), NOW), ReplayCheck::New);
        assert_eq!(store.remember_now(key(1), issued(0), NOW), ReplayCheck::Replayed);
        assert_eq!(store.remember_now(key(2), issued(0), NOW), ReplayCheck::New);
        let late = NOW.plus(NONCE_LIFETIME);
        assert_eq!(store.remember_now(key(1), issued(0), late), ReplayCheck::Replayed);
    }

    #[test]
    fn a_nonce_of_another_epoch_is_not_judged() {
        let store = MemoryStore::new(10, 7);
        let nonce = NonceStamp { epoch: 8, ..issued(0) };
        assert_eq!(store.remember_now(key(1), nonce, NOW), ReplayCheck::StaleEpoch);
    }

    #[test]
    fn a_full_store_forgets_the_oldest_and_never_accepts_them_again() {
        let store = MemoryStore::new(3, 7);
        for n in 0..3 {
            assert_eq!(store.remember_now(key(n), issued(100 - n), NOW), ReplayCheck::New);
        }
        assert_eq!(store.remember_now(key(3), issued(1), NOW), ReplayCheck::New);
        assert_eq!(
            store.remember_now(key(0), issued(100), NOW),
            ReplayCheck::StaleEpoch,
            "the forgotten one is not accepted"
        );
        assert_eq!(store.remember_now(key(9), issued(200), NOW), ReplayCheck::StaleEpoch, "nor anything older");
        assert_eq!(store.remember_now(key(1), issued(99), NOW), ReplayCheck::Replayed, "the others are remembered");
        assert_eq!(store.proofs.lock().unwrap().len, 3);
    }

    #[test]
    fn memory_stays_bounded_over_time() {
        let store = MemoryStore::new(100_000, 7);
        for second in 0..2000 {
            let now = NOW.plus(Duration::from_secs(second));
            for n in 0..10 {
                store.remember_now(key(second * 10 + n), NonceStamp { at: now, epoch: 7 }, now);
            }
        }
        let proofs = store.proofs.lock().unwrap();
        assert!(proofs.len <= 10 * (NONCE_LIFETIME.as_secs() as usize + 3), "{}", proofs.len);
        assert_eq!(proofs.len, proofs.slots.values().map(HashSet::len).sum::<usize>());
    }

    #[tokio::test]
    async fn a_rate_is_counted_by_the_minute() {
        let store = MemoryStore::new(10, 7);
        let next = NOW.plus(Duration::from_secs(seconds_to_next_minute(NOW)));
        assert_eq!(store.count("a", 2, NOW).await, Ok(true));
        assert_eq!(store.count("a", 2, NOW).await, Ok(true));
        assert_eq!(store.count("a", 2, NOW).await, Ok(false));
        assert_eq!(store.count("b", 2, NOW).await, Ok(true));
        assert_eq!(store.count("a", 2, next).await, Ok(true));
    }
}
