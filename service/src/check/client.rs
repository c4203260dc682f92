//! The HTTP client for the check services' servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use approov_verify::jwk::Thumbprint;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use reqwest::header::{CONTENT_TYPE, DATE};
use reqwest::{Client, RequestBuilder};
use serde_json::{Map, Value};
use url::Url;

use crate::allowed_origins::AllowedOrigins;
use crate::session::Epoch;
use crate::time::parse_http_date;

use super::altcha::WorkPool;
use super::altcha::challenge::ChallengeKeys;
use super::clock;
use super::definition::is_id;
use super::outcome::CheckError;
use super::params::ResultParams;

/// The most that is read of a response, bytes.
const MAX_RESPONSE_BYTES: usize = 256 * 1024;

/// The pause before a connection is tried once more.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// A client that keeps its connections open between checks.
#[derive(Clone)]
pub struct CheckClient {
    client: Client,
    clock_offset: Arc<AtomicI64>,
}

/// What a check knows about the request that it is made for.
#[derive(Clone, Copy)]
pub struct CheckContext<'a> {
    /// The browser's address.
    pub client_ip: &'a str,
    /// The pages that may use the account.
    pub allowed_origins: &'a AllowedOrigins,
    /// When the check is made, by a clock that is right.
    pub now: UnixTime,
    /// For the check that is built in.
    pub built_in: Option<BuiltInContext<'a>>,
}

/// What a check that is built in knows besides.
#[derive(Clone, Copy)]
pub struct BuiltInContext<'a> {
    /// The site, among those of all accounts.
    pub site: &'a str,
    /// Who sent the result.
    pub holder: &'a Thumbprint,
    /// The store's.
    pub epoch: Epoch,
    /// Of the page; empty when it is not known.
    pub page_host: &'a str,
    /// Sign challenges.
    pub keys: &'a Arc<ChallengeKeys>,
    /// Where solutions are verified.
    pub pool: &'a WorkPool,
}

/// What only the service and a check service know of a site.
#[derive(Clone, Debug, Default)]
pub struct SiteSecrets<'a> {
    /// What the check service knows the site by; empty where it needs nothing.
    pub secret: &'a str,
    /// Each may open results that a page brings along encrypted.
    pub sealed_keys: Vec<&'a Secret>,
}

/// A check to be made.
pub(super) struct CheckRequest<'a> {
    pub(super) client: &'a CheckClient,
    /// Site key or public API key.
    pub(super) key: &'a str,
    pub(super) params: &'a ResultParams<'a>,
    pub(super) secrets: &'a SiteSecrets<'a>,
    pub(super) context: CheckContext<'a>,
}

/// A response of a check service's server.
pub(super) struct ServerResponse {
    /// HTTP status.
    pub(super) status: u16,
    /// Body.
    pub(super) body: Vec<u8>,
    /// How far this machine's clock is ahead of the server's, milliseconds; see [`clock::offset`].
    pub(super) clock_offset: i64,
}

impl ServerResponse {
    /// The body, if it is a JSON object.
    pub(super) fn object(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the status is one of success.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl CheckClient {
    /// A client whose every exchange ends within `timeout`.
    ///
    /// # Errors
    /// When the platform's TLS roots cannot be loaded.
    pub fn new(timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(3)))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("approov-web-service/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, clock_offset: Arc::default() })
    }

    /// How far this machine's clock is ahead of the server's that responded last, milliseconds; negative when it is
    /// behind, 0 when it may be right.
    pub fn clock_offset(&self) -> i64 {
        self.clock_offset.load(Ordering::Relaxed)
    }

    /// A GET request, for [`Self::send`].
    pub(super) fn get(&self, url: Url) -> RequestBuilder {
        self.client.get(url)
    }

    /// A POST request with a JSON body, for [`Self::send`].
    pub(super) fn post_json(&self, url: &Url, body: &Value) -> RequestBuilder {
        self.client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body.to_string())
    }

    /// Posts a form. `name` is the check service's, for errors.
    pub(super) async fn post_form(
        &self,
        name: &str,
        url: &Url,
        form: &[(&str, &str)],
    ) -> Result<ServerResponse, CheckError> {
        self.send(name, self.client.post(url.clone()).form(form)).await
    }

    /// Sends a request, a second time only when no connection could be made: then the server knows nothing of it yet.
    pub(super) async fn send(&self, name: &str, request: RequestBuilder) -> Result<ServerResponse, CheckError> {
        let (second, sent) = (request.try_clone(), UnixTime::now());
        let response = match (request.send().await, second) {
            (Err(error), Some(second)) if error.is_connect() && !error.is_timeout() => {
                tokio::time::sleep(RETRY_DELAY).await;
                second.send().await
            }
            (response, _) => response,
        };
        let mut response = response.map_err(|error| explain(name, &error))?;
        let status = response.status().as_u16();
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).and_then(parse_http_date);
        let clock_offset = date.map_or(0, |date| clock::offset(sent, UnixTime::now(), date));
        self.clock_offset.store(clock_offset, Ordering::Relaxed);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| explain(name, &error))? {
            if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(CheckError::Unavailable(format!("{name} gave too long a response")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(ServerResponse { status, body, clock_offset })
    }
}

/// `base` with path segments added, none of which can point elsewhere: the last of them comes from a browser.
pub(super) fn with_segments(base: &Url, segments: &[&str]) -> Result<Url, CheckError> {
    let unusable = || CheckError::Unavailable("the result's ID cannot be looked up".to_owned());
    if !segments.iter().all(|segment| is_id(segment)) {
        return Err(unusable());
    }
    let mut url = base.clone();
    url.path_segments_mut().map_err(|()| unusable())?.pop_if_empty().extend(segments);
    Ok(url)
}

/// The kind of failure, without the URL (it may hold IDs) and without the operating system's message.
fn explain(name: &str, error: &reqwest::Error) -> CheckError {
    CheckError::Unavailable(if error.is_timeout() {
        format!("{name} did not respond in time")
    } else if error.is_connect() {
        format!("{name} could not be reached")
    } else {
        format!("{name} could not be asked")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_path_segment() {
        let base = Url::parse("https://api.fpjs.io").unwrap();
        let url = |id: &str| with_segments(&base, &["visitors", id]).map(|url| url.to_string());
        assert_eq!(url("abc").unwrap(), "https://api.fpjs.io/visitors/abc");
        for bad in ["../events/x?y#z", "..", ".", ".\t.", "..\t", "\t", "\t.\n.\r", "a%2Fb", ""] {
            assert!(url(bad).is_err(), "{bad:?}");
        }
        let base = Url::parse("http://127.0.0.1:1/sim/fingerprint/").unwrap();
        assert_eq!(
            with_segments(&base, &["visitors", "v"]).unwrap().as_str(),
            "http://127.0.0.1:1/sim/fingerprint/visitors/v"
        );
    }
}
