//! A replay store in Redis. Feature `redis`.

use crate::redis_commands::RedisCommands;
use crate::replay::{ReplayCheck, ReplayEntry, ReplayStore, StoreError};
use crate::time::UnixTime;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{FromRedisValue, RedisError, RedisFuture, RedisResult, ServerError, ServerErrorKind, Value};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    commands: Arc<RedisCommands>,
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
        Self { connection, commands: Arc::new(RedisCommands::new(prefix)) }
    }

    /// How many unexpired keys all servers together may have in Redis. Default: a million.
    #[must_use]
    pub fn capacity(self, keys: usize) -> Self {
        Self { commands: Arc::new(self.commands.with_capacity(keys)), ..self }
    }

    async fn send<T: FromRedisValue>(&self, words: &[Vec<u8>]) -> Result<T, StoreError> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut self.connection.clone()).await.map_err(unavailable)
    }
}

impl<C> fmt::Debug for RedisReplayStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisReplayStore").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl<C: ConnectionLike + Clone + Send + Sync> ReplayStore for RedisReplayStore<C> {
    async fn remember(&self, entry: ReplayEntry, now: UnixTime) -> Result<ReplayCheck, StoreError> {
        if let Some(command) = self.commands.exchange(now) {
            self.commands.exchanged(self.send(&command).await?);
        }
        let verdict = self.send(&self.commands.remember(&entry, now)?).await?;
        Ok(self.commands.verdict(verdict, &entry, now))
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
