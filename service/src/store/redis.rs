//! The store in Redis.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;
use aws_lc_rs::digest;
use redis::aio::MultiplexedConnection;

use crate::crypto::random;
use crate::session::{Epoch, Generation, NONCE_LIFETIME};

use super::{Known, ProofUse, ReplayCheck, Settled, Store, StoreError};

/// How long a Redis server has for one response.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a failed connection is not tried again, so that a server that cannot be reached costs no waiting.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);
const EPOCH_KEY: &str = "approov:epoch";
/// The only member of the sorted set at [`failed_key`]; its score is the generation.
const FAILED_MEMBER: &str = "generation";

/// A store in a Redis server. Its epoch is made of the server's run id, read on every new connection,
/// and a random value in the data set, read with every proof.
pub struct RedisStore {
    client: redis::Client,
    epoch: AtomicU64,
    slot: tokio::sync::Mutex<ConnectionSlot>,
}

#[derive(Default)]
struct ConnectionSlot {
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
        Ok(Self { client, epoch: AtomicU64::new(0), slot: tokio::sync::Mutex::default() })
    }

    async fn connection(&self) -> Result<Connection, StoreError> {
        let mut slot = self.slot.lock().await;
        if let Some(open) = &slot.open {
            return Ok(open.clone());
        }
        if slot.failed.is_some_and(|at| at.elapsed() < RECONNECT_DELAY) {
            return Err(StoreError("no connection".to_owned()));
        }
        match tokio::time::timeout(REDIS_TIMEOUT, self.connect()).await {
            Ok(Ok((redis, run_id))) => {
                slot.generation += 1;
                let open = Connection { redis, run_id, generation: slot.generation };
                slot.open = Some(open.clone());
                slot.failed = None;
                Ok(open)
            }
            Ok(Err(error)) => {
                slot.failed = Some(Instant::now());
                Err(StoreError(kind(&error)))
            }
            Err(_) => {
                slot.failed = Some(Instant::now());
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
        let response = tokio::time::timeout(REDIS_TIMEOUT, pipeline.query_async(&mut connection.redis)).await;
        let failure = match response {
            Ok(Ok(value)) => return Ok((value, connection.run_id)),
            Ok(Err(error)) => kind(&error),
            Err(_) => "no response in time".to_owned(),
        };
        let mut slot = self.slot.lock().await;
        if slot.generation == connection.generation {
            slot.open = None;
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

/// Where the failed checks of a key are. The braces keep all that is about one key in one slot of a Redis Cluster.
fn failed_key(holder: &Thumbprint) -> String {
    format!("approov:{{{holder}}}:failed")
}

fn combined_epoch(run_id: &str, stored: &str) -> Epoch {
    let hash = digest::digest(&digest::SHA256, format!("{run_id}\n{stored}").as_bytes());
    hash.as_ref().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Store for RedisStore {
    fn epoch(&self) -> Epoch {
        self.epoch.load(Ordering::Relaxed)
    }

    async fn remember(&self, used: ProofUse, now: UnixTime) -> Result<Known, StoreError> {
        let ProofUse { proof, holder, nonce } = used;
        let lifetime = nonce.at.plus(NONCE_LIFETIME).since(now) + Duration::from_secs(60);
        let mut pipeline = epoch_pipeline()?;
        pipeline
            .cmd("SET")
            .arg(format!("approov:proof:{proof}"))
            .arg(1)
            .arg("NX")
            .arg("PX")
            .arg(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
        pipeline.cmd("ZSCORE").arg(failed_key(&holder)).arg(FAILED_MEMBER);
        type Response = (String, Option<String>, Option<Generation>);
        let ((stored, first, failed), run_id): (Response, _) = self.run(&pipeline).await?;
        let epoch = combined_epoch(&run_id, &stored);
        self.epoch.store(epoch, Ordering::Relaxed);
        let replay = match (nonce.epoch == epoch, first) {
            (false, _) => ReplayCheck::StaleEpoch,
            (true, Some(_)) => ReplayCheck::New,
            (true, None) => ReplayCheck::Replayed,
        };
        Ok(Known { replay, failed_generation: failed.unwrap_or_default() })
    }

    async fn settle(&self, checks: Settled, now: UnixTime) -> Result<(), StoreError> {
        let key = failed_key(&checks.holder);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        if checks.passed {
            pipeline.cmd("ZSCORE").arg(&key).arg(FAILED_MEMBER).ignore();
        } else {
            // A sorted set of one member, because that is what keeps the greater of two numbers in one command.
            pipeline.cmd("ZADD").arg(&key).arg("GT").arg(checks.generation).arg(FAILED_MEMBER).ignore();
            let lifetime = checks.until.since(now).as_millis();
            pipeline.cmd("PEXPIRE").arg(&key).arg(u64::try_from(lifetime).unwrap_or(u64::MAX).max(1)).ignore();
        }
        let ((), _) = self.run(&pipeline).await?;
        Ok(())
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
        self.epoch.store(combined_epoch(&run_id, &stored), Ordering::Relaxed);
        Ok(())
    }
}
