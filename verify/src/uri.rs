//! URLs compared by normalisation.

use std::fmt;
use std::net::Ipv6Addr;

/// An `http` or `https` URL without query and fragment, normalised by syntax and scheme
/// (RFC 3986 sections 6.2.2 and 6.2.3), as RFC 9449 section 4.3 compares `htu` with the request.
///
/// Two URLs are the same when their `HttpUri`s are equal: letter case of scheme and host, a default port,
/// an empty path, dot segments, and the percent-encoding of unreserved characters make no difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpUri {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl HttpUri {
    /// Reads and normalises an absolute URL. A query and a fragment are dropped.
    ///
    /// # Errors
    /// [`InvalidUri`] for a relative reference, another scheme, user information, an empty or non-ASCII host
    /// (browsers send the ASCII form), a port beyond 65535, white space, control characters, backslashes,
    /// non-ASCII characters or broken percent-encoding in the path.
    pub fn parse(text: &str) -> Result<Self, InvalidUri> {
        Self::read(text, DotSegments::Resolved)
    }

    /// Reads the URL of a request as it was received.
    ///
    /// Clients resolve dot segments, percent-encoded ones too, before they send a request (RFC 3986 section 5.2, URL
    /// Standard). A URL that still has them is meant to be read in two ways by two parts of a server, so it is refused.
    ///
    /// # Errors
    /// [`InvalidUri`] for what [`HttpUri::parse`] refuses, and for a URL with a segment `.` or `..`, however encoded.
    pub fn of_request(text: &str) -> Result<Self, InvalidUri> {
        Self::read(text, DotSegments::Refused)
    }

    fn read(text: &str, dot_segments: DotSegments) -> Result<Self, InvalidUri> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidUri)?;
        let scheme = [Scheme::Http, Scheme::Https]
            .into_iter()
            .find(|known| scheme.eq_ignore_ascii_case(known.name()))
            .ok_or(InvalidUri)?;
        let (rest, _) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, path),
            None => (rest, ""),
        };
        let (host, port) = normalise_authority(authority, scheme)?;
        Ok(Self { scheme, host, port, path: normalise_path(path, dot_segments)? })
    }

    /// Scheme, host and port, as a browser writes an origin: no default port, no slash at the end.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.port == self.scheme.default_port() {
            format!("{}://{}", self.scheme.name(), self.host)
        } else {
            format!("{}://{}:{}", self.scheme.name(), self.host, self.port)
        }
    }

    /// This URL at another authority (`host` or `host:port`, as in a `Host` header).
    pub(crate) fn with_authority(&self, authority: &str) -> Result<Self, InvalidUri> {
        let (host, port) = normalise_authority(authority, self.scheme)?;
        Ok(Self { host, port, ..self.clone() })
    }

    /// The normalised path. It begins with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for HttpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

fn normalise_authority(authority: &str, scheme: Scheme) -> Result<(String, u16), InvalidUri> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']').ok_or(InvalidUri)?;
            let address: Ipv6Addr = address.parse().map_err(|_| InvalidUri)?;
            (format!("[{address}]"), port)
        }
        None => {
            let (host, port) = authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon));
            let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&c);
            if host.is_empty() || !host.bytes().all(allowed) {
                return Err(InvalidUri);
            }
            (host.to_ascii_lowercase(), port)
        }
    };
    let port = match port {
        "" | ":" => scheme.default_port(),
        _ => {
            let digits = port.strip_prefix(':').ok_or(InvalidUri)?;
            if !digits.bytes().all(|c| c.is_ascii_digit()) {
                return Err(InvalidUri);
            }
            digits.parse().map_err(|_| InvalidUri)?
        }
    };
    Ok((host, port))
}

/// The query of a URL, without its question mark; empty when there is none.
pub(crate) fn query_of(url: &str) -> &str {
    let (url, _) = url.split_once('#').unwrap_or((url, ""));
    url.split_once('?').map_or("", |(_, query)| query)
}

/// What is done about the segments `.` and `..` of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DotSegments {
    Resolved,
    Refused,
}

/// Normalises a path given without its first slash.
fn normalise_path(path: &str, dot_segments: DotSegments) -> Result<String, InvalidUri> {
    if path.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'~' | b'/')) {
        // Nearly every path: nothing in it has another form.
        return Ok(["/", path].concat());
    }
    let mut kept: Vec<String> = Vec::new();
    let mut ends_with_dot_segment = true;
    for segment in path.split('/') {
        let segment = normalise_segment(segment)?;
        ends_with_dot_segment = matches!(segment.as_str(), "." | "..");
        if ends_with_dot_segment && dot_segments == DotSegments::Refused {
            return Err(InvalidUri);
        }
        match segment.as_str() {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut normal: String = kept.iter().flat_map(|segment| ["/", segment]).collect();
    if ends_with_dot_segment {
        normal.push('/');
    }
    Ok(normal)
}

fn normalise_segment(segment: &str) -> Result<String, InvalidUri> {
    let mut normal = String::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = bytes.next().and_then(hex_value).ok_or(InvalidUri)?;
                let low = bytes.next().and_then(hex_value).ok_or(InvalidUri)?;
                let encoded = high * 16 + low;
                if encoded.is_ascii_alphanumeric() || b"-._~".contains(&encoded) {
                    normal.push(char::from(encoded));
                } else {
                    normal.push_str(&format!("%{encoded:02X}"));
                }
            }
            b'\\' => return Err(InvalidUri),
            0x21..=0x7e => normal.push(char::from(byte)),
            _ => return Err(InvalidUri),
        }
    }
    Ok(normal)
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A text that is not a usable `http` or `https` URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUri;

impl fmt::Display for InvalidUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an absolute http or https URL")
    }
}

impl std::error::Error for InvalidUri {}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        HttpUri::parse(text).map_or_else(|_| "refused".to_owned(), |uri| uri.to_string())
    }

    #[test]
    fn equal_urls_have_one_normal_form() {
        for (given, expected) in [
            ("https://server.example.com/token", "https://server.example.com/token"),
            ("HTTPS://Server.EXAMPLE.com:443/token?x=1#y", "https://server.example.com/token"),
            ("http://localhost:8087", "http://localhost:8087/"),
            ("http://localhost:080?a=/b", "http://localhost/"),
            ("https://a.example:/", "https://a.example/"),
            ("https://a.example#?/", "https://a.example/"),
            ("https://a.example:80/", "https://a.example:80/"),
            ("http://[::1]:8080/x", "http://[::1]:8080/x"),
            ("http://[0:0:0:0:0:0:0:1]/x", "http://[::1]/x"),
            // RFC 3986 section 6.2.2: example://a/b/c/%7Bfoo%7D and eXAMPLE://a/./b/../b/%63/%7bfoo%7d are equivalent.
            ("https://a/b/c/%7Bfoo%7D", "https://a/b/c/%7Bfoo%7D"),
            ("https://a/./b/../b/%63/%7bfoo%7d", "https://a/b/c/%7Bfoo%7D"),
            // RFC 3986 section 5.2.4.
            ("https://a/a/b/c/./../../g", "https://a/a/g"),
            ("https://a/..", "https://a/"),
            ("https://a/b/..", "https://a/"),
            ("https://a/b/c/..", "https://a/b/"),
            ("https://a/b/.", "https://a/b/"),
            ("https://a/b/%2E%2e/c", "https://a/c"),
            ("https://a//b//", "https://a//b//"),
            ("https://a/b%2fc", "https://a/b%2Fc"),
            ("https://a/~[x]|y", "https://a/~[x]|y"),
            ("https://xn--bcher-kva.example/%C3%A9", "https://xn--bcher-kva.example/%C3%A9"),
        ] {
            assert_eq!(normal(given), expected, "{given}");
            assert_eq!(normal(expected), expected, "{expected} is not a fixed point");
        }
    }

    #[test]
    fn different_urls_stay_different() {
        for (one, other) in [
            ("https://a/x", "http://a/x"),
            ("https://a/x", "https://a/X"),
            ("https://a/x", "https://a/x/"),
            ("https://a/x", "https://a:8443/x"),
            ("https://a/x", "https://a./x"),
            ("https://a/b/c", "https://a/b%2Fc"),
            ("https://a/b", "https://a//b"),
        ] {
            assert_ne!(HttpUri::parse(one).unwrap(), HttpUri::parse(other).unwrap());
        }
    }

    #[test]
    fn unusable_urls_are_refused() {
        for text in [
            "",
            "/path",
            "example.com/x",
            "//example.com/x",
            "ftp://a/",
            "https:/a",
            "https://",
            "https:///x",
            "https://user@a/",
            "https://u:p@a/",
            "https://a:65536/",
            "https://a:+80/",
            "https://a:8a/",
            "https://a:80:80/",
            "https://[::1/",
            "https://[::g]/",
            "https://[::1]x/",
            "https://a b/",
            "https://bücher.example/",
            "https://a/é",
            "https://a/%",
            "https://a/%4",
            "https://a/%zz",
            "https://a/b c",
            "https://a/b\\c",
            "https://a/\u{7f}",
            " https://a/",
            "https://a%2fb/",
            "https://a\\b/",
        ] {
            assert_eq!(normal(text), "refused", "{text}");
        }
    }

    #[test]
    fn a_request_has_no_dot_segments_and_a_proof_may_have() {
        for path in
            ["/.", "/..", "/x/./y", "/x/../y", "/x/..", "/%2e", "/%2E%2e/x", "/.%2e/x", "/x/%2e./y", "/x//.", "/./"]
        {
            let url = format!("https://a{path}");
            assert!(HttpUri::parse(&url).is_ok(), "{url}");
            assert_eq!(HttpUri::of_request(&url), Err(InvalidUri), "{url}");
        }
        // Names with dots, and dots elsewhere than in the path, are nothing special.
        for url in [
            "https://a/x.y",
            "https://a/...",
            "https://a/.x/y.",
            "https://a/x?/../y",
            "https://a/%2e%2e%2e",
            "https://a/x#/..",
        ] {
            assert_eq!(HttpUri::of_request(url), HttpUri::parse(url), "{url}");
            assert!(HttpUri::of_request(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn the_query_is_what_follows_the_question_mark() {
        for (url, query) in [
            ("https://a/x", ""),
            ("https://a/x?", ""),
            ("https://a/x?y=1&z", "y=1&z"),
            ("https://a/x?y?z#w", "y?z"),
            ("https://a/x#y?z", ""),
            ("", ""),
        ] {
            assert_eq!(query_of(url), query, "{url}");
        }
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        assert_eq!(HttpUri::parse("https://A.example:443/x").unwrap().origin(), "https://a.example");
        assert_eq!(HttpUri::parse("http://127.0.0.1:8087/x").unwrap().origin(), "http://127.0.0.1:8087");
        assert_eq!(HttpUri::parse("http://a/x/./y").unwrap().path(), "/x/y");
    }
}
