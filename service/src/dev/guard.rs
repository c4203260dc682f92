//! Who may talk to the development mode: it trusts everybody who reaches it, so pages of other sites must not.
//!
//! A page can reach a service on its visitor's machine by a name of its own that leads there (DNS rebinding); then the
//! `Host` header has that name. And it can send requests to another origin; then `Origin` has the page's.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::config::PublicUrl;
use crate::host::{host_of, is_loopback};

use super::faults::FAULT_PATH;

/// The hosts that the development mode answers to.
pub struct Guard(BTreeSet<String>);

impl Guard {
    /// Loopback names and addresses, and the hosts of `urls`.
    pub fn new(urls: &[PublicUrl]) -> Self {
        Self(urls.iter().map(|url| url.host().to_ascii_lowercase()).collect())
    }

    fn knows(&self, host: &str) -> bool {
        is_loopback(host) || self.0.contains(&host.to_ascii_lowercase())
    }

    /// Why a request is not served.
    fn fault(&self, request: &Request) -> Option<String> {
        let host = host_of(request);
        let is_named = host.is_some() || request.headers().contains_key(header::HOST);
        if is_named && !host.as_ref().is_some_and(|host| self.knows(host)) {
            let host = host.unwrap_or_default();
            return Some(format!(
                "the development mode does not answer to \"{host}\": if it should, start it with --public-url and the \
                 whole URL\n"
            ));
        }
        let steers = request.uri().path() == FAULT_PATH && *request.method() != Method::GET;
        let origin = request.headers().get(header::ORIGIN).filter(|_| steers);
        let known = origin.is_none_or(|origin| origin_host(origin).is_some_and(|host| self.knows(&host)));
        (!known).then(|| "pages of other sites have no business here\n".to_owned())
    }
}

fn origin_host(origin: &HeaderValue) -> Option<String> {
    url::Url::parse(origin.to_str().ok()?).ok()?.host_str().map(str::to_owned)
}

/// The layer that lets no strangers in.
pub async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.fault(&request) {
        None => next.run(request).await,
        Some(fault) => (StatusCode::FORBIDDEN, fault).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn is_served(method: Method, path: &str, host: &str, origin: Option<&str>) -> bool {
        let guard = Guard::new(&[PublicUrl::parse("http://dev.example.com:8087").unwrap()]);
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        guard.fault(&request.body(Body::empty()).unwrap()).is_none()
    }

    #[test]
    fn names_that_lead_here_from_elsewhere_are_strangers() {
        for host in [
            "localhost:8087",
            "LOCALHOST",
            "app.localhost:1",
            "127.0.0.1:8087",
            "127.1.2.3",
            "[::1]:8087",
            "dev.example.com:9",
        ] {
            assert!(is_served(Method::PUT, "/sim/fault", host, None), "{host}");
        }
        for host in [
            "rebind.evil.example:8087",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]",
            "evil-localhost",
            "example.com",
            "localhost/",
            "a b",
        ] {
            for path in ["/sim/fault", "/attest", "/healthz"] {
                assert!(!is_served(Method::PUT, path, host, None), "{host}");
            }
        }
    }

    #[test]
    fn pages_of_other_sites_do_not_steer_it_but_may_ask_for_tokens() {
        for (origin, steers) in [
            ("http://localhost:3000", true),
            ("http://127.0.0.1:3000", true),
            ("https://dev.example.com", true),
            ("https://evil.example", false),
            ("null", false),
        ] {
            assert_eq!(is_served(Method::PUT, "/sim/fault", "localhost", Some(origin)), steers, "{origin}");
            assert!(is_served(Method::POST, "/attest", "localhost", Some(origin)), "{origin}");
            assert!(is_served(Method::GET, "/sim/hcaptcha/1/api.js", "localhost", Some(origin)), "{origin}");
        }
    }
}
