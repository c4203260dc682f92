//! A replay store in Redis. Feature `redis`.

use crate::replay::{ReplayCheck, ReplayEntry, ReplayStore, StoreError, quota};
use crate::time::UnixTime;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{RedisError, RedisFuture, RedisResult, ServerError, ServerErrorKind, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a store exchanges with the others how much all of them hold.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// The keys of one holder are a sorted set by expiry, by the clock of Redis. KEYS: the set. ARGV: the key, its lifetime
/// in milliseconds, the holder's quota. Returns 0 for a replayed key, 1 for a new one, 2 beyond the quota.
const REMEMBER: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now))
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 2 end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
if redis.call('PTTL', KEYS[1]) <= tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2] + 1) end
return 1
";

/// How many keys all holders have, in a hash by the ten seconds in which they expire. KEYS: the hash. ARGV: by turns, in
/// how many times ten seconds keys expire, and how many were added. Returns the sum.
const EXCHANGE_LOAD: &str = r"
local present = math.floor(redis.call('TIME')[1] / 10)
for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], string.format('%.0f', present + ARGV[i]), ARGV[i + 1]) end
local held, counts = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #counts, 2 do
  if tonumber(counts[i]) < present then redis.call('HDEL', KEYS[1], counts[i]) else held = held + counts[i + 1] end
end
return held
";
const LOAD_STEP_MILLIS: i64 = 10_000;

/// A store that all servers behind one URL share. It needs Redis 5 or later, or another server of its protocol.
///
/// It holds a bounded number of keys (a million by default; one takes 50 to 150 bytes of Redis), with the
/// same quota for each holder as a [`MemoryReplayStore`](crate::replay::MemoryReplayStore); its documentation has the
/// numbers. How much all servers hold is exchanged once a second, so the bound can be exceeded by what they add in one.
/// All keys of a holder are in one slot of a cluster (hash tag `{thumbprint}`).
///
/// While Redis is unavailable each request is refused with [`StoreError::Unavailable`]; the connection is restored
/// automatically, also after the server has become a replica.
#[derive(Clone)]
pub struct RedisReplayStore<C = Reconnecting> {
    connection: C,
    prefix: Arc<str>,
    capacity: usize,
    load: Arc<Mutex<Load>>,
}

/// What is known of how much all servers hold.
#[derive(Default)]
struct Load {
    /// At the last exchange.
    held: u64,
    /// Added since, by when it expires, in steps from now.
    added: BTreeMap<i64, u64>,
    exchanged_at: Option<UnixTime>,
}

impl RedisReplayStore {
    /// Connects to a server such as `redis://127.0.0.1:6379`. Keys begin with `prefix`, and go by themselves when
    /// they expire. `timeout` bounds connecting and each response.
    ///
    /// `rediss://` needs the feature `tokio-rustls-comp` of the crate `redis` in your application. For a cluster or
    /// sentinels make the connection yourself: [`RedisReplayStore::new`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the URL is malformed or the server does not respond. [`StoreError::Evicts`] when
    /// the server is configured to forget keys before they expire.
    pub async fn connect(url: &str, prefix: impl Into<String>, timeout: Duration) -> Result<Self, StoreError> {
        let client = redis::Client::open(url).map_err(unavailable)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let manager = ConnectionManager::new_with_config(client.clone(), config.clone()).await.map_err(unavailable)?;
        let connection = Reconnecting { client, config, manager: Arc::new(Mutex::new(manager)) };
        let store = Self::new(connection, prefix);
        store.refuse_eviction().await?;
        Ok(store)
    }

    /// Redis that evicts keys when its memory is full forgets proofs before they expire, and lets replays pass. A server
    /// that does not say (`INFO` may be forbidden by its access control) is taken to be configured well.
    async fn refuse_eviction(&self) -> Result<(), StoreError> {
        let mut connection = self.connection.clone();
        let info: RedisResult<String> = redis::cmd("INFO").arg("memory").query_async(&mut connection).await;
        let info = info.unwrap_or_default();
        let value = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        match (value("maxmemory"), value("maxmemory_policy")) {
            (Some("0"), _) | (_, Some("noeviction") | None) => Ok(()),
            (_, Some(policy)) => Err(StoreError::Evicts(policy.to_owned())),
        }
    }
}

impl<C: ConnectionLike + Clone + Send + Sync> RedisReplayStore<C> {
    /// A store over a connection that clones of it share, such as redis' `ClusterConnection`. Whoever makes the
    /// connection sees to it that it is restored, that its requests end in time, and that the server's
    /// `maxmemory-policy` is `noeviction`.
    #[must_use]
    pub fn new(connection: C, prefix: impl Into<String>) -> Self {
        Self { connection, prefix: prefix.into().into(), capacity: 1_000_000, load: Arc::default() }
    }

    /// How many unexpired keys all servers together may have in Redis. Default: a million.
    #[must_use]
    pub const fn capacity(mut self, keys: usize) -> Self {
        self.capacity = keys;
        self
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many keys all servers hold, as far as this one knows.
    async fn held(&self, now: UnixTime) -> Result<usize, StoreError> {
        let due = {
            let mut load = self.load();
            let recent = |at: UnixTime| at <= now && now < at.plus(LOAD_INTERVAL);
            if load.exchanged_at.is_some_and(recent) {
                None
            } else {
                load.exchanged_at = Some(now);
                Some(std::mem::take(&mut load.added))
            }
        };
        if let Some(added) = due {
            let mut command = redis::cmd("EVAL");
            command.arg(EXCHANGE_LOAD).arg(1).arg(format!("{}{{load}}", self.prefix));
            for (steps, count) in added {
                command.arg(steps).arg(count);
            }
            let held = command.query_async(&mut self.connection.clone()).await.map_err(unavailable)?;
            self.load().held = held;
        }
        let load = self.load();
        Ok(usize::try_from(load.added.values().fold(load.held, |sum, count| sum.saturating_add(*count)))
            .unwrap_or(usize::MAX))
    }

    fn note_added(&self, lifetime: i64) {
        *self.load().added.entry(lifetime.div_euclid(LOAD_STEP_MILLIS)).or_default() += 1;
    }
}

impl<C> fmt::Debug for RedisReplayStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisReplayStore")
            .field("prefix", &self.prefix)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl<C: ConnectionLike + Clone + Send + Sync> ReplayStore for RedisReplayStore<C> {
    async fn remember(&self, entry: ReplayEntry, now: UnixTime) -> Result<ReplayCheck, StoreError> {
        let held = self.held(now).await?;
        if held >= self.capacity {
            return Err(StoreError::Full);
        }
        let lifetime = entry.until.as_millis().saturating_sub(now.as_millis()).max(0);
        let verdict: i64 = redis::cmd("EVAL")
            .arg(REMEMBER)
            .arg(1)
            .arg(format!("{}{{{}}}", self.prefix, entry.holder))
            .arg(entry.key.as_bytes())
            .arg(lifetime)
            .arg(quota(self.capacity, held))
            .query_async(&mut self.connection.clone())
            .await
            .map_err(unavailable)?;
        match verdict {
            0 => Ok(ReplayCheck::Replayed),
            1 => {
                self.note_added(lifetime);
                Ok(ReplayCheck::New)
            }
            _ => Ok(ReplayCheck::OverQuota),
        }
    }
}

fn unavailable(cause: RedisError) -> StoreError {
    StoreError::Unavailable(cause.to_string())
}

/// A connection that is replaced when it breaks, and when its server has become a replica, which takes no writes: after
/// a failover the same address leads to another server.
#[derive(Clone)]
pub struct Reconnecting {
    client: redis::Client,
    config: ConnectionManagerConfig,
    manager: Arc<Mutex<ConnectionManager>>,
}

impl Reconnecting {
    fn manager(&self) -> MutexGuard<'_, ConnectionManager> {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the server when it says that it is a replica: the next request makes another connection.
    fn leave_replica(&self, response: &Value) {
        let is_replica = |error: &ServerError| error.kind() == Some(ServerErrorKind::ReadOnly);
        if matches!(response, Value::ServerError(error) if is_replica(error))
            && let Ok(manager) = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone())
        {
            *self.manager() = manager;
        }
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting").finish_non_exhaustive()
    }
}

impl ConnectionLike for Reconnecting {
    fn req_packed_command<'a>(&'a mut self, command: &'a redis::Cmd) -> RedisFuture<'a, Value> {
        let mut manager = self.manager().clone();
        Box::pin(async move {
            let response = manager.send_packed_command(command).await?;
            self.leave_replica(&response);
            Ok(response)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let mut manager = self.manager().clone();
        Box::pin(async move {
            let responses = manager.send_packed_commands(pipeline, offset, count).await?;
            responses.iter().for_each(|response| self.leave_replica(response));
            Ok(responses)
        })
    }

    fn get_db(&self) -> i64 {
        self.manager().get_db()
    }
}
