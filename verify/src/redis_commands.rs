//! What a replay store says to Redis, and what the responses mean, without a connection: for stores over the connections of
//! other languages, which then share their keys with the servers that use `RedisReplayStore` (feature `redis`).

use crate::replay::{ReplayCheck, ReplayEntry, StoreError, quota};
use crate::time::UnixTime;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// A command: its words.
pub type Command = Vec<Vec<u8>>;

/// The commands of a store that remembers a bounded number of keys, with a quota for each holder: first
/// [`RedisCommands::exchange`], if it is due, then [`RedisCommands::remember`].
pub struct RedisCommands {
    prefix: String,
    capacity: usize,
    load: Mutex<Load>,
}

/// What is known of how much all servers hold.
#[derive(Clone, Default)]
struct Load {
    /// At the last exchange.
    held: u64,
    /// Added since, by when it expires, in steps from now.
    added: BTreeMap<i64, u64>,
    exchanged_at: Option<UnixTime>,
}

impl fmt::Debug for RedisCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCommands")
            .field("prefix", &self.prefix)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl RedisCommands {
    /// Commands for keys that begin with `prefix`, of a store for a million.
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), capacity: 1_000_000, load: Mutex::default() }
    }

    /// The same for another number of keys.
    #[must_use]
    pub fn with_capacity(&self, keys: usize) -> Self {
        Self { prefix: self.prefix.clone(), capacity: keys, load: Mutex::new(self.load().clone()) }
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The command by which servers tell each other how much they hold, once a second. Its response is an integer, for
    /// [`RedisCommands::exchanged`].
    #[must_use]
    pub fn exchange(&self, now: UnixTime) -> Option<Command> {
        let mut load = self.load();
        let recent = |at: UnixTime| at <= now && now < at.plus(LOAD_INTERVAL);
        if load.exchanged_at.is_some_and(recent) {
            return None;
        }
        load.exchanged_at = Some(now);
        let mut words =
            vec!["EVAL".to_owned(), EXCHANGE_LOAD.to_owned(), "1".to_owned(), format!("{}{{load}}", self.prefix)];
        for (steps, count) in std::mem::take(&mut load.added) {
            words.extend([steps.to_string(), count.to_string()]);
        }
        Some(words.into_iter().map(String::into_bytes).collect())
    }

    /// Takes the response to [`RedisCommands::exchange`].
    pub fn exchanged(&self, held: u64) {
        self.load().held = held;
    }

    /// The command that remembers a key. Its response is an integer, for [`RedisCommands::verdict`].
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn remember(&self, entry: &ReplayEntry, now: UnixTime) -> Result<Command, StoreError> {
        let held = {
            let load = self.load();
            let sum = load.added.values().fold(load.held, |sum, count| sum.saturating_add(*count));
            usize::try_from(sum).unwrap_or(usize::MAX)
        };
        if held >= self.capacity {
            return Err(StoreError::Full);
        }
        Ok(vec![
            b"EVAL".to_vec(),
            REMEMBER.as_bytes().to_vec(),
            b"1".to_vec(),
            format!("{}{{{}}}", self.prefix, entry.holder).into_bytes(),
            entry.key.as_bytes().to_vec(),
            lifetime(entry, now).to_string().into_bytes(),
            quota(self.capacity, held).to_string().into_bytes(),
        ])
    }

    /// What the response to [`RedisCommands::remember`] means.
    #[must_use]
    pub fn verdict(&self, response: i64, entry: &ReplayEntry, now: UnixTime) -> ReplayCheck {
        match response {
            0 => ReplayCheck::Replayed,
            1 => {
                *self.load().added.entry(lifetime(entry, now).div_euclid(LOAD_STEP_MILLIS)).or_default() += 1;
                ReplayCheck::New
            }
            _ => ReplayCheck::OverQuota,
        }
    }
}

fn lifetime(entry: &ReplayEntry, now: UnixTime) -> i64 {
    entry.until.as_millis().saturating_sub(now.as_millis()).max(0)
}
