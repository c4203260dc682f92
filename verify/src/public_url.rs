//! Where clients find a server.

use crate::uri::{HttpUri, InvalidUri};

/// Where clients find this server: an origin such as `https://api.example.com`, with a path when a proxy in front
/// takes that path off.
///
/// It is configured and never read from a request: whoever could choose it could replay a proof that was made
/// for another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    base: HttpUri,
}

impl PublicUrl {
    /// Reads the URL. A slash at its end makes no difference; a query and a fragment are dropped.
    ///
    /// # Errors
    /// [`InvalidUri`] when the text is not an absolute http or https URL.
    pub fn parse(text: &str) -> Result<Self, InvalidUri> {
        Ok(Self { base: HttpUri::parse(text)? })
    }

    /// The URL of a request as its client sees it, query included, from the request target that the server received
    /// (RFC 9112 section 3.2.1): what belongs into [`Request::url`](crate::Request::url).
    ///
    /// Never join the two as text: with `m/` for a target, `https://api.example.co` becomes another server's URL.
    ///
    /// # Errors
    /// [`InvalidUri`] for a target that does not begin with one slash (what begins with two is the reference to another
    /// server, to whoever resolves it as RFC 3986 section 5.2 says), that is not printable ASCII, or that
    /// [`HttpUri::of_request`] refuses. No proof is for such a target.
    pub fn request_url(&self, target: &str) -> Result<String, InvalidUri> {
        let printable = target.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#');
        if !printable || !target.starts_with('/') || target.starts_with("//") {
            return Err(InvalidUri);
        }
        let origin = self.base.origin();
        let url = [origin.as_str(), self.base.path().trim_end_matches('/'), target].concat();
        // The joined text is read again, so that no target, whatever is in it, leads to another server.
        if HttpUri::of_request(&url)?.origin() == origin { Ok(url) } else { Err(InvalidUri) }
    }

    /// The one of these URLs that a request with this `Host` was meant for. A server with one URL is meant by every request.
    #[must_use]
    pub fn of_request<'a>(urls: &'a [Self], host: Option<&str>) -> Option<&'a Self> {
        match urls {
            [only] => Some(only),
            several => host.and_then(|host| several.iter().find(|url| url.has_authority(host))),
        }
    }

    /// Whether a request with this `Host` was meant for this URL.
    fn has_authority(&self, authority: &str) -> bool {
        self.base.with_authority(authority).is_ok_and(|requested| requested.origin() == self.base.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(base: &str, target: &str) -> Result<String, InvalidUri> {
        PublicUrl::parse(base)?.request_url(target)
    }

    #[test]
    fn a_target_is_joined_to_the_public_url_with_its_query() {
        for (base, target, expected) in [
            ("https://api.shop.co", "/shapes", "https://api.shop.co/shapes"),
            ("https://api.shop.co/", "/shapes?to=%2f..&x", "https://api.shop.co/shapes?to=%2f..&x"),
            ("https://API.shop.co:443/v1/", "/", "https://api.shop.co/v1/"),
            ("http://localhost:8080/v1", "/a//b", "http://localhost:8080/v1/a//b"),
            ("https://[::1]:8443", "/:@!$&'()*+,;=~", "https://[::1]:8443/:@!$&'()*+,;=~"),
        ] {
            assert_eq!(joined(base, target).as_deref(), Ok(expected), "{base} {target}");
        }
    }

    #[test]
    fn a_target_that_can_be_read_in_two_ways_is_refused() {
        for target in [
            "",
            "*",
            "m/shapes",
            ".evil.example/shapes",
            ":8443/shapes",
            "@evil.example/shapes",
            "//shapes",
            "//evil.example/x",
            "https://api.shop.co/shapes",
            "m://shapes",
            "shapes",
            "?x",
            "#/shapes",
            "/shapes#x",
            "\\shapes",
            "/\\evil.example",
            "/a/../shapes",
            "/a/%2e%2E/shapes",
            "/.",
            "/a b",
            "/a\t",
            "/%",
            "/%zz",
            "/\u{e9}",
            "api.shop.co:443",
        ] {
            assert_eq!(joined("https://api.shop.co", target), Err(InvalidUri), "{target}");
        }
    }
}
