//! The account's public keys at a URL (RFC 7517 section 5), as the service publishes them.
//!
//! Nothing here fetches anything: [`RemoteKeySet`] knows when the keys have to be fetched and what of a response counts.
//! A [`Verifier`](crate::Verifier) drives it with a function that the application gives (feature `jwks`), such as
//! `http_fetcher` (feature `jwks-http`).

use crate::jws::Algorithm;
use crate::keyset::{KeySet, KeySetError};
use crate::time::UnixTime;
use crate::uri::HttpUri;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After which time keys are fetched again: a key that was retired is refused that soon.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How long keys are used when no newer ones can be had.
const LAST_GOOD: Duration = Duration::from_secs(24 * 3600);
/// The least time between two fetches, whatever `kid`s tokens have.
const PAUSE: Duration = Duration::from_secs(60);
/// The same while there are no keys at all.
const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(10);

/// The longest response that is read, in bytes.
pub const MAX_JWKS_LENGTH: usize = 65_536;

/// Public keys that are fetched from one URL and from no other: what a token's header says (`jku`) is not looked at.
pub struct RemoteKeySet {
    url: String,
    algorithms: Option<Vec<Algorithm>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, UnixTime)>,
    attempted: Option<UnixTime>,
    problem: Option<JwksError>,
}

/// Why keys could not be had from a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwksError {
    /// The URL is not https (or http to this machine).
    Url,
    /// The response did not come, or was not good: the fetcher's message, for logs.
    Fetch(String),
    /// The response is longer than [`MAX_JWKS_LENGTH`].
    TooLong,
    /// The response is not a usable keyset.
    KeySet(KeySetError),
}

impl fmt::Display for JwksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("a JWKS URL must be https, or http to this machine, without user information"),
            Self::Fetch(cause) => write!(f, "the keyset could not be fetched: {cause}"),
            Self::TooLong => write!(f, "the fetched keyset is longer than {MAX_JWKS_LENGTH} bytes"),
            Self::KeySet(cause) => write!(f, "the fetched keyset: {cause}"),
        }
    }
}

impl std::error::Error for JwksError {}

impl fmt::Debug for RemoteKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeySet").field("url", &self.url).finish_non_exhaustive()
    }
}

impl RemoteKeySet {
    /// Keys at this URL, none of them fetched yet.
    ///
    /// # Errors
    /// [`JwksError::Url`]: over plain http, anybody on the way could say which keys are good.
    pub fn new(url: &str) -> Result<Self, JwksError> {
        let origin = HttpUri::parse(url).map_err(|_| JwksError::Url)?.origin();
        let host = origin.strip_prefix("http://").map(|authority| match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
            None => authority.split_once(':').map_or(authority, |(host, _)| host),
        });
        match host {
            None | Some("localhost" | "127.0.0.1" | "::1") => {}
            Some(_) => return Err(JwksError::Url),
        }
        Ok(Self { url: url.to_owned(), algorithms: None, state: Mutex::default() })
    }

    /// Takes keys of these algorithms only.
    pub(crate) fn restrict(&mut self, algorithms: &[Algorithm]) {
        self.algorithms = Some(algorithms.to_vec());
    }

    /// Where the keys are.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the keys have to be fetched now. `key_missing`: a token was signed by a key that is not among them.
    #[must_use]
    pub fn is_due(&self, key_missing: bool, now: UnixTime) -> bool {
        let state = self.state();
        let over = |since: UnixTime, period| since > now || since.plus(period) <= now;
        match (&state.keys, state.attempted) {
            (_, None) => true,
            (Some((_, fetched)), Some(attempted)) => over(attempted, PAUSE) && (key_missing || over(*fetched, MAX_AGE)),
            (None, Some(attempted)) => over(attempted, PAUSE_WITHOUT_KEYS),
        }
    }

    /// Takes a response, or notes why there is none. The keys of before stay when this one is no good.
    ///
    /// # Errors
    /// Why no keys were taken, for logs.
    pub fn take(&self, response: Result<&str, String>, now: UnixTime) -> Result<(), JwksError> {
        let read = response.map_err(JwksError::Fetch).and_then(|text| {
            if text.len() > MAX_JWKS_LENGTH {
                return Err(JwksError::TooLong);
            }
            KeySet::from_jwks(text).map_err(JwksError::KeySet)
        });
        let mut state = self.state();
        state.attempted = Some(now);
        state.problem = read.as_ref().err().cloned();
        let mut keys = read?;
        if let Some(allowed) = &self.algorithms {
            keys.retain(|key| allowed.contains(&key.algorithm()));
        }
        state.keys = Some((Arc::new(keys), now));
        Ok(())
    }

    /// Why the last response was no good. `None` when it was, or when there was none yet.
    #[must_use]
    pub fn last_problem(&self) -> Option<JwksError> {
        self.state().problem.clone()
    }

    /// Whether there are keys that may be used.
    #[cfg(feature = "jwks")]
    pub(crate) fn has_any(&self, now: UnixTime) -> bool {
        self.current(now).is_some()
    }

    /// The keys, unless they are older than a day.
    pub(crate) fn current(&self, now: UnixTime) -> Option<Arc<KeySet>> {
        let state = self.state();
        let (keys, fetched) = state.keys.as_ref()?;
        (now < fetched.plus(LAST_GOOD)).then(|| Arc::clone(keys))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "jwks")]
pub(crate) use fetching::Fetcher;
#[cfg(feature = "jwks-http")]
pub use http::http_fetcher;

#[cfg(feature = "jwks")]
mod fetching {
    use super::RemoteKeySet;
    use crate::time::UnixTime;
    use futures_util::lock::Mutex;
    use std::future::Future;
    use std::pin::Pin;

    type Fetch = dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync;

    /// What fetches keys, one request at a time.
    pub(crate) struct Fetcher {
        fetch: Box<Fetch>,
        one_at_a_time: Mutex<()>,
    }

    impl Fetcher {
        pub(crate) fn new<F>(fetch: impl Fn(String) -> F + Send + Sync + 'static) -> Self
        where
            F: Future<Output = Result<String, String>> + Send + 'static,
        {
            Self { fetch: Box::new(move |url| Box::pin(fetch(url))), one_at_a_time: Mutex::new(()) }
        }

        /// Fetches the keys if they are due. Who needs a key that is missing waits for a fetch that is under way; others
        /// go on with the keys that are there.
        pub(crate) async fn refresh(&self, keys: &RemoteKeySet, key_missing: bool, now: UnixTime) {
            if !keys.is_due(key_missing, now) {
                return;
            }
            let _guard = if key_missing {
                self.one_at_a_time.lock().await
            } else {
                match self.one_at_a_time.try_lock() {
                    Some(guard) => guard,
                    None => return,
                }
            };
            if keys.is_due(key_missing, now) {
                let response = (self.fetch)(keys.url().to_owned()).await;
                // What went wrong is kept for `last_problem`.
                let _ = keys.take(response.as_deref().map_err(Clone::clone), now);
            }
        }
    }
}

#[cfg(feature = "jwks-http")]
mod http {
    use super::MAX_JWKS_LENGTH;
    use std::future::Future;
    use std::pin::Pin;
    use std::time::Duration;

    type Response = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

    /// Fetches over HTTP: https unless the URL itself is http, no redirects, 5 seconds at most.
    ///
    /// # Errors
    /// When no TLS configuration can be made.
    pub fn http_fetcher() -> Result<impl Fn(String) -> Response + Send + Sync + 'static, String> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(move |url: String| -> Response {
            let client = client.clone();
            Box::pin(async move {
                let mut response = client.get(url).send().await.map_err(|error| error.to_string())?;
                if response.status() != reqwest::StatusCode::OK {
                    return Err(format!("status {}", response.status()));
                }
                let mut text = Vec::new();
                while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
                    text.extend_from_slice(&chunk);
                    if text.len() > MAX_JWKS_LENGTH {
                        return Err(format!("more than {MAX_JWKS_LENGTH} bytes"));
                    }
                }
                String::from_utf8(text).map_err(|error| error.to_string())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}]}"#;

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_secs(1_000_000 + seconds)
    }

    fn keys() -> RemoteKeySet {
        RemoteKeySet::new("https://service.example/site/.well-known/jwks.json").unwrap()
    }

    #[test]
    fn keys_are_fetched_at_first_when_they_are_old_and_for_an_unknown_kid_once_a_minute() {
        let keys = keys();
        assert!(keys.is_due(false, at(0)));
        keys.take(Ok(KEYS), at(0)).unwrap();
        for (missing, second, due) in [
            (false, 299, false),
            (false, 300, true),
            (true, 0, false),
            (true, 59, false),
            (true, 60, true),
            // The clock was set back.
            (true, -1, true),
        ] {
            assert_eq!(keys.is_due(missing, at(second)), due, "{missing} {second}");
        }
        // A fetch that failed counts, too.
        keys.take(Err("down".to_owned()), at(300)).unwrap_err();
        assert!(!keys.is_due(true, at(359)) && !keys.is_due(false, at(359)) && keys.is_due(false, at(360)));
    }

    #[test]
    fn the_last_good_keys_are_used_for_a_day() {
        let keys = keys();
        assert!(keys.current(at(0)).is_none());
        assert_eq!(keys.take(Err("down".to_owned()), at(0)), Err(JwksError::Fetch("down".to_owned())));
        assert!(!keys.is_due(true, at(9)) && keys.is_due(false, at(10)));
        keys.take(Ok(KEYS), at(10)).unwrap();
        assert_eq!(keys.last_problem(), None);
        for bad in ["", "{}", r#"{"keys":[]}"#, &" ".repeat(MAX_JWKS_LENGTH + 1)] {
            assert!(keys.take(Ok(bad), at(1000)).is_err());
            assert!(keys.last_problem().is_some());
        }
        assert!(keys.current(at(10 + 86_399)).is_some());
        assert!(keys.current(at(10 + 86_400)).is_none());
    }

    #[test]
    fn keys_of_other_algorithms_than_allowed_are_not_taken() {
        let mut keys = keys();
        keys.restrict(&[Algorithm::Rs256]);
        keys.take(Ok(KEYS), at(0)).unwrap();
        assert!(keys.current(at(0)).unwrap().is_empty());
    }

    #[test]
    fn the_url_is_https_or_leads_to_this_machine() {
        for url in ["https://a/jwks", "http://127.0.0.1:8080/jwks", "http://localhost/x", "http://[::1]:1/x"] {
            assert!(RemoteKeySet::new(url).is_ok(), "{url}");
        }
        for url in ["http://a/jwks", "http://127.0.0.1.evil.example/", "file:///etc/keys", "https://u@a/", "jwks.json"]
        {
            assert_eq!(RemoteKeySet::new(url).unwrap_err(), JwksError::Url, "{url}");
        }
    }
}
