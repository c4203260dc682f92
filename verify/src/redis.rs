//! A replay store in Redis. Feature `redis`.

use crate::replay::{ReplayCheck, ReplayKey, ReplayStore, StoreError};
use crate::time::UnixTime;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use std::fmt;
use std::time::Duration;

/// A store that all servers behind one URL share. It needs Redis 2.6.12 or later, or another server of its protocol.
///
/// While Redis is unavailable each request is refused with [`StoreError::Unavailable`]; the connection is restored
/// automatically.
#[derive(Clone)]
pub struct RedisReplayStore {
    connection: ConnectionManager,
    prefix: String,
}

impl RedisReplayStore {
    /// Connects to a server such as `redis://127.0.0.1:6379`. Keys begin with `prefix`, and go by themselves when
    /// they expire. `timeout` bounds connecting and each response.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the URL is malformed or the server does not respond.
    pub async fn connect(url: &str, prefix: impl Into<String>, timeout: Duration) -> Result<Self, StoreError> {
        let client = redis::Client::open(url).map_err(unavailable)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let connection = ConnectionManager::new_with_config(client, config).await.map_err(unavailable)?;
        Ok(Self { connection, prefix: prefix.into() })
    }
}

impl fmt::Debug for RedisReplayStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisReplayStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl ReplayStore for RedisReplayStore {
    async fn remember(&self, key: ReplayKey, until: UnixTime, now: UnixTime) -> Result<ReplayCheck, StoreError> {
        // One millisecond more, because `until` itself is included.
        let lifetime = until.as_millis().saturating_sub(now.as_millis()).saturating_add(1).max(1);
        let mut connection = self.connection.clone();
        let set: Option<String> = redis::cmd("SET")
            .arg(format!("{}{key}", self.prefix))
            .arg(1)
            .arg("NX")
            .arg("PX")
            .arg(lifetime)
            .query_async(&mut connection)
            .await
            .map_err(unavailable)?;
        Ok(if set.is_some() { ReplayCheck::New } else { ReplayCheck::Replayed })
    }
}

fn unavailable(cause: redis::RedisError) -> StoreError {
    StoreError::Unavailable(cause.to_string())
}
