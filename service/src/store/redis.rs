//! The store in Redis.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use approov_verify::jwk::Thumbprint;
use approov_verify::time::UnixTime;
use aws_lc_rs::digest;
use redis::aio::MultiplexedConnection;

use crate::crypto::random;
use crate::session::{Epoch, Generation, NONCE_LIFETIME};

use super::{Claim, Known, ProofUse, ReplayCheck, ResultKey, ResultUse, Settled, Store, StoreError};

/// How long a Redis server has for one response.
const REDIS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a failed connection is not tried again, so that a server that cannot be reached costs no waiting.
const RECONNECT_DELAY: Duration = Duration::from_millis(200);
/// The version is that of the other keys: what is remembered under names of before is not found, so its nonces must not count.
const EPOCH_KEY: &str = "approov:epoch:2";
/// How long added proofs are counted, minutes: as long as they live, and the minute that has begun.
const LOAD_MINUTES: i64 = 11;
/// The only member of the sorted set at [`failed_key`]; its score is the generation.
const FAILED_MEMBER: &str = "generation";

/// Remembers a proof. KEYS: the proofs of its holder, a sorted set by expiry by the clock of Redis; the holder's failed checks.
/// ARGV: the proof, its lifetime in milliseconds, the holder's quota or 0, the member of the failed checks. Returns 0 for a
/// replayed proof, 1 for a new one, 2 beyond the quota; and the generation of the latest failed check.
const REMEMBER: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
local failed = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[4]) or '0')
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {0, failed} end
local quota = tonumber(ARGV[3])
if quota > 0 and redis.call('ZCARD', KEYS[1]) >= quota then return {2, failed} end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
if redis.call('PTTL', KEYS[1]) <= tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2] + 1) end
return {1, failed}
";

/// Concludes a result. KEYS: its mark, which is its holder's thumbprint and then the outcome. ARGV: the holder, the outcome;
/// an empty one removes the mark. A mark that is concluded, gone or another's is left alone.
const CONCLUDE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'KEEPTTL')
return 1
";

/// A store in a Redis server. Its epoch is made of the server's run id, read on every new connection,
/// and a random value in the data set, read with every proof.
pub struct RedisStore {
    client: redis::Client,
    epoch: AtomicU64,
    /// From half of so many live proofs on, keys are held to their quota.
    capacity: u64,
    /// How many there were when they were last counted.
    live_proofs: AtomicU64,
    /// Whether the server does not say what it is asked about itself.
    is_secretive: AtomicBool,
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
    /// A store at `url`, of which half is full at half of `capacity` live proofs. Nothing is connected yet.
    ///
    /// # Errors
    /// When the URL is not one of Redis.
    pub fn new(url: &str, capacity: usize) -> Result<Self, StoreError> {
        let client = redis::Client::open(url).map_err(|e| StoreError(kind(&e)))?;
        Ok(Self {
            client,
            epoch: AtomicU64::new(0),
            capacity: u64::try_from(capacity).unwrap_or(u64::MAX),
            live_proofs: AtomicU64::new(0),
            is_secretive: AtomicBool::new(false),
            slot: tokio::sync::Mutex::default(),
        })
    }

    fn is_half_full(&self) -> bool {
        self.live_proofs.load(Ordering::Relaxed) >= self.capacity.div_ceil(2)
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
                Err(error)
            }
            Err(_) => {
                slot.failed = Some(Instant::now());
                Err(StoreError("no connection in time".to_owned()))
            }
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, String), StoreError> {
        let mut redis =
            self.client.get_multiplexed_async_connection().await.map_err(|error| StoreError(kind(&error)))?;
        let server = info(&mut redis, "server").await?;
        let memory = info(&mut redis, "memory").await?;
        self.is_secretive.store(server.is_none() || memory.is_none(), Ordering::Relaxed);
        if let Some(policy) = memory.as_deref().and_then(eviction) {
            return Err(StoreError(format!(
                "Redis forgets keys too early (maxmemory-policy {policy}): set it to noeviction"
            )));
        }
        let run_id = match &server {
            None => String::new(),
            Some(text) => value(text, "run_id").ok_or_else(|| StoreError("INFO has no run_id".to_owned()))?.to_owned(),
        };
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

/// A section of what Redis says about itself; `None` when its access control forbids to ask.
async fn info(redis: &mut MultiplexedConnection, section: &str) -> Result<Option<String>, StoreError> {
    match redis::cmd("INFO").arg(section).query_async(redis).await {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.code() == Some("NOPERM") => Ok(None),
        Err(error) => Err(StoreError(kind(&error))),
    }
}

/// A value in a section.
fn value<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The policy by which a server forgets keys before they expire, if it does.
fn eviction(memory: &str) -> Option<&str> {
    let policy = value(memory, "maxmemory_policy").filter(|policy| *policy != "noeviction")?;
    (value(memory, "maxmemory") != Some("0")).then_some(policy)
}

/// The kind of a Redis error: its text can hold the address and a password.
fn kind(error: &redis::RedisError) -> String {
    format!("{:?}", error.kind())
}

/// Reads the epoch of the data set; a set without one gets a new one, never seen before.
fn add_epoch(pipeline: &mut redis::Pipeline) -> Result<(), StoreError> {
    let random = u64::from_be_bytes(random().map_err(|_| StoreError("no random numbers".to_owned()))?);
    pipeline.cmd("SET").arg(EPOCH_KEY).arg(random).arg("NX").ignore();
    pipeline.cmd("GET").arg(EPOCH_KEY);
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Where the proofs of a minute are counted, in the slot of the epoch.
fn load_key(minute: i64) -> String {
    format!("approov:{{{EPOCH_KEY}}}:load:{minute}")
}

/// Where the live proofs of a key are. The braces keep all that is about one key in one slot of a Redis Cluster.
fn proofs_key(holder: &Thumbprint) -> String {
    format!("approov:{{{holder}}}:proofs")
}

/// Where the mark of a result is.
fn result_key(key: &ResultKey) -> String {
    format!("approov:result:{{{key}}}")
}

/// Where the failed checks of a key are.
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
        let ProofUse { proof, holder, nonce, quota } = used;
        let lifetime = nonce.at.plus(NONCE_LIFETIME).since(now) + Duration::from_secs(60);
        let quota = quota.filter(|_| self.is_half_full()).unwrap_or(0);
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(REMEMBER).arg(2).arg(proofs_key(&holder)).arg(failed_key(&holder));
        pipeline.arg(proof.as_bytes()).arg(millis(lifetime)).arg(quota).arg(FAILED_MEMBER);
        // The epoch after the proof: if the data set is lost in between, the proof does not count.
        add_epoch(&mut pipeline)?;
        let minute = now.as_secs() / 60;
        pipeline.cmd("INCR").arg(load_key(minute)).ignore();
        pipeline.cmd("EXPIRE").arg(load_key(minute)).arg(LOAD_MINUTES * 60).ignore();
        pipeline.cmd("MGET");
        for ago in 0..LOAD_MINUTES {
            pipeline.arg(load_key(minute - ago));
        }
        type Response = ((u8, Generation), String, Vec<Option<u64>>);
        let (((verdict, failed), stored, counts), run_id): (Response, _) = self.run(&pipeline).await?;
        self.live_proofs.store(counts.into_iter().flatten().fold(0, u64::saturating_add), Ordering::Relaxed);
        let epoch = combined_epoch(&run_id, &stored);
        self.epoch.store(epoch, Ordering::Relaxed);
        let replay = match (nonce.epoch == epoch, verdict) {
            (false, _) => ReplayCheck::StaleEpoch,
            (true, 0) => ReplayCheck::Replayed,
            (true, 1) => ReplayCheck::New,
            (true, _) => ReplayCheck::OverQuota,
        };
        Ok(Known { replay, failed_generation: failed })
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
            pipeline.cmd("PEXPIRE").arg(&key).arg(millis(checks.until.since(now))).ignore();
        }
        let ((), _) = self.run(&pipeline).await?;
        Ok(())
    }

    async fn claim(&self, result: &ResultUse, _: UnixTime) -> Result<Claim, StoreError> {
        let key = result_key(&result.key);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("SET").arg(&key).arg(result.holder.as_bytes()).arg("NX").arg("PX").arg(millis(result.lifetime));
        pipeline.cmd("GET").arg(&key);
        let ((first, mark), _): ((Option<String>, Vec<u8>), _) = self.run(&pipeline).await?;
        Ok(match (first, mark.strip_prefix(result.holder.as_bytes())) {
            (Some(_), _) => Claim::New,
            (None, None) => Claim::Others,
            (None, Some([])) => Claim::InFlight,
            (None, Some(outcome)) => Claim::Known(outcome.to_vec()),
        })
    }

    async fn conclude(&self, result: &ResultUse, outcome: Option<Vec<u8>>) -> Result<(), StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(CONCLUDE).arg(1).arg(result_key(&result.key));
        pipeline.arg(result.holder.as_bytes()).arg(outcome.unwrap_or_default()).ignore();
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

    fn warning(&self) -> Option<&'static str> {
        self.is_secretive.load(Ordering::Relaxed).then_some(
            "the user in the store's URL may not use INFO: an old snapshot that Redis comes back with, and a \
             maxmemory-policy other than noeviction, go unnoticed, and replays may pass. Allow INFO",
        )
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let mut pipeline = redis::pipe();
        add_epoch(&mut pipeline)?;
        let ((stored,), run_id): ((String,), _) = self.run(&pipeline).await?;
        self.epoch.store(combined_epoch(&run_id, &stored), Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_forgets_is_known_by_what_it_says() {
        let memory = |maxmemory: &str, policy: &str| {
            format!("# Memory\r\nmaxmemory:{maxmemory}\r\nmaxmemory_human:1M\r\nmaxmemory_policy:{policy}\r\n")
        };
        assert_eq!(eviction(&memory("1000000", "allkeys-lru")), Some("allkeys-lru"));
        assert_eq!(eviction(&memory("1000000", "volatile-ttl")), Some("volatile-ttl"));
        assert_eq!(eviction(&memory("1000000", "noeviction")), None);
        assert_eq!(eviction(&memory("0", "allkeys-lru")), None, "it has no bound");
        assert_eq!(eviction("# Memory"), None, "another server of the protocol");
    }

    #[test]
    fn all_keys_of_one_operation_are_in_one_slot_of_a_cluster_and_begin_alike() {
        let holder = Thumbprint::from_bytes([7; 32]);
        let tag = |key: &str| {
            assert!(key.starts_with("approov:"), "{key}");
            let tagged = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag.to_owned());
            tagged.unwrap_or_else(|| key.to_owned())
        };
        assert_eq!(tag(&proofs_key(&holder)), tag(&failed_key(&holder)));
        assert_eq!(tag(&load_key(1)), tag(&load_key(2)));
        assert_eq!(tag(&load_key(1)), tag(EPOCH_KEY));
    }
}
