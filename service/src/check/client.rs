//! Asks the check services' servers over HTTPS.

use std::time::Duration;

use approov_verify::time::UnixTime;
use reqwest::{Client, RequestBuilder};
use url::Url;

use super::{CheckError, Checked, Evidence, FreshResult, ServerAnswer};
use crate::config::Site;
use crate::provider::Provider;

/// The most that is read of an answer, bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// The pause before a connection is tried once more.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A client that keeps its connections open between checks.
#[derive(Clone)]
pub struct CheckClient {
    client: Client,
}

/// What a check knows about the request it is made for.
#[derive(Clone, Copy)]
pub struct CheckContext<'a> {
    /// The browser's address.
    pub client_ip: &'a str,
    /// Host of the page, from its `Origin`; empty when unknown.
    pub page_host: &'a str,
    /// When it is made, by a clock that is right.
    pub now: UnixTime,
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
        Ok(Self { client })
    }

    /// Has one result checked.
    ///
    /// # Errors
    /// When the check could not be made; the text is fit for clients.
    pub async fn check(
        &self,
        result: &FreshResult,
        site: &Site,
        context: CheckContext<'_>,
    ) -> Result<Checked, CheckError> {
        match (&result.evidence, result.provider) {
            (Evidence::Fingerprint { visitor_id, request_id }, _) => {
                self.check_fingerprint(result, site, visitor_id, request_id, context.now).await
            }
            (Evidence::Captcha { .. }, _) => {
                let form = super::captcha_form(result, site, context.client_ip);
                let request = self.client.post(site.verify_url.clone()).form(&form);
                let (status, body) = send(request, result.provider).await?;
                let answer = ServerAnswer { status, body: &body };
                super::judge_captcha(result, site, &answer, context.page_host, context.now)
            }
        }
    }

    async fn check_fingerprint(
        &self,
        result: &FreshResult,
        site: &Site,
        visitor_id: &str,
        request_id: &str,
        now: UnixTime,
    ) -> Result<Checked, CheckError> {
        let secret = std::str::from_utf8(site.secret.as_bytes()).unwrap_or_default();
        let get = |url: Url| self.client.get(url).header("Auth-API-Key", secret);
        let url = below(&site.verify_url, &["visitors", visitor_id])?;
        let request = get(url).query(&[("request_id", request_id)]);
        let (status, body) = send(request, result.provider).await?;
        let visitor = ServerAnswer { status, body: &body };
        if !super::needs_bot_result(site, &visitor) {
            return super::judge_fingerprint(result, site, &visitor, None, now);
        }
        let (status, event) = send(get(below(&site.verify_url, &["events", request_id])?), result.provider).await?;
        let event = ServerAnswer { status, body: &event };
        super::judge_fingerprint(result, site, &visitor, Some(&event), now)
    }
}

/// `base` with path segments added, each encoded, so that no ID from a browser can point elsewhere.
fn below(base: &Url, segments: &[&str]) -> Result<Url, CheckError> {
    let unusable = || CheckError("the result's ID cannot be looked up".to_owned());
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err(unusable());
    }
    let mut url = base.clone();
    url.path_segments_mut().map_err(|()| unusable())?.pop_if_empty().extend(segments);
    Ok(url)
}

/// Sends a request, a second time only when no connection could be made: then nothing was asked yet.
async fn send(request: RequestBuilder, provider: Provider) -> Result<(u16, Vec<u8>), CheckError> {
    let title = provider.title();
    let again = request.try_clone();
    let answer = match (request.send().await, again) {
        (Err(error), Some(again)) if error.is_connect() && !error.is_timeout() => {
            tokio::time::sleep(RETRY_PAUSE).await;
            again.send().await
        }
        (answer, _) => answer,
    };
    let mut answer = answer.map_err(|error| explain(title, &error))?;
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| explain(title, &error))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(CheckError(format!("{title} gave too long an answer")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, body))
}

/// The kind of failure, without the URL (it may hold IDs) and without the operating system's words.
fn explain(title: &str, error: &reqwest::Error) -> CheckError {
    CheckError(if error.is_timeout() {
        format!("{title} did not answer in time")
    } else if error.is_connect() {
        format!("{title} could not be reached")
    } else {
        format!("{title} could not be asked")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_path_segment() {
        let base = Url::parse("https://api.fpjs.io").unwrap();
        let url = |id: &str| below(&base, &["visitors", id]).map(|url| url.to_string());
        assert_eq!(url("abc").unwrap(), "https://api.fpjs.io/visitors/abc");
        assert_eq!(url("../events/x?y#z").unwrap(), "https://api.fpjs.io/visitors/..%2Fevents%2Fx%3Fy%23z");
        assert!(url("..").is_err());
        let base = Url::parse("http://127.0.0.1:1/sim/fingerprint/").unwrap();
        assert_eq!(below(&base, &["visitors", "v"]).unwrap().as_str(), "http://127.0.0.1:1/sim/fingerprint/visitors/v");
    }
}
