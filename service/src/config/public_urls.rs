//! Where browsers find the service.

use std::fmt;

use approov_verify::uri::HttpUri;
use toml::Spanned;
use url::Url;

use crate::settings::{Read, Source};

use super::{Certificate, Config};

/// A URL at which browsers find the service: an origin such as `https://web.example.com`, with a path when a proxy in
/// front takes that path off. Proofs are about it.
///
/// It is configured and never read from a request: whoever could choose it could use a proof here that was made for
/// another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    url: Url,
    attest: HttpUri,
}

impl PublicUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is something else, or has parts that a proof's `htu` has not.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("a public URL must be like https://web.example.com, got \"{text}\"");
        let url = Url::parse(text).map_err(|_| bad())?;
        let bare = url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !bare || !anonymous {
            return Err(bad());
        }
        let attest = HttpUri::parse(&format!("{}/attest", url.as_str().trim_end_matches('/'))).map_err(|_| bad())?;
        Ok(Self { url, attest })
    }

    /// The URL of `/attest`.
    pub fn attest(&self) -> &HttpUri {
        &self.attest
    }

    /// The host, as browsers write it.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Whether what travels is encrypted.
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    pub(super) fn read(
        source: &Source<'_>,
        urls: &[Spanned<String>],
        url: Option<&Spanned<String>>,
    ) -> Read<Vec<Self>> {
        if let (Some(url), [_, ..]) = (url, urls) {
            return source.error(url, "give public_urls or public_url, not both");
        }
        let read = |text: &Spanned<String>| Self::parse(text.get_ref()).or_else(|message| source.error(text, message));
        urls.iter().chain(url).map(read).collect()
    }
}

impl Config {
    /// Where browsers find a service that listens on `port`: as configured, or under the names of its certificate.
    ///
    /// # Errors
    /// When neither tells; the message has the line to add.
    pub fn public_urls_with(&self, certificate: Option<&Certificate>, port: u16) -> Result<Vec<PublicUrl>, String> {
        const LINE: &str = "add the line `public_urls = [\"https://web.example.com\"]` before the first [[account]], with \
                            the URL at which browsers find this service: proofs are about it";
        if !self.public_urls.is_empty() {
            return Ok(self.public_urls.clone());
        }
        let certificate = certificate.ok_or_else(|| format!("public_urls is missing: {LINE}"))?;
        let mut urls = Vec::new();
        for host in certificate.hosts() {
            urls.push(PublicUrl::parse(&format!("https://{host}"))?);
            // A proxy or a container may bring browsers from the usual port.
            if port != 443 {
                urls.push(PublicUrl::parse(&format!("https://{host}:{port}"))?);
            }
        }
        if urls.is_empty() { Err(format!("the certificate has no whole host name: {LINE}")) } else { Ok(urls) }
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_leads_to_attest() {
        for (text, attest, host) in [
            ("https://web.example.com", "https://web.example.com/attest", "web.example.com"),
            ("https://web.example.com/", "https://web.example.com/attest", "web.example.com"),
            ("https://Web.Example.com:443/approov/", "https://web.example.com/approov/attest", "web.example.com"),
            ("http://127.0.0.1:8087", "http://127.0.0.1:8087/attest", "127.0.0.1"),
            ("http://[::1]:8087", "http://[::1]:8087/attest", "[::1]"),
            ("https://bücher.example", "https://xn--bcher-kva.example/attest", "xn--bcher-kva.example"),
        ] {
            let url = PublicUrl::parse(text).unwrap();
            assert_eq!((url.attest().to_string().as_str(), url.host()), (attest, host), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_service_is_refused() {
        for bad in [
            "",
            "web.example.com",
            "ftp://x",
            "https://",
            "https://a@b.example",
            "https://b.example/?x",
            "https://b.example/#x",
        ] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
