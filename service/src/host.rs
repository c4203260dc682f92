//! Hosts by name: the one form that DNS and browsers have for each, and those that are this machine itself.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{Request, header};

/// The longest host name, bytes.
const MAX_NAME_BYTES: usize = 253;

/// A host name as DNS and browsers write it: in lower case, and in ASCII (IDNA) whatever its script. `None`: it is none.
pub fn ascii_name(text: &str) -> Option<String> {
    let name = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        match url::Host::parse(text).ok()? {
            url::Host::Domain(name) => name,
            _ => return None,
        }
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    ((1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)).then_some(name)
}

/// The same for a name that is looked up among such names: one that is none is as it was, and found nowhere.
pub fn lookup_name(text: &str) -> Cow<'_, str> {
    match text {
        _ if text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_uppercase()) => Cow::Borrowed(text),
        _ => ascii_name(text).map_or(Cow::Borrowed(text), Cow::Owned),
    }
}

/// The host that a request names, without its port.
pub fn host_of<B>(request: &Request<B>) -> Option<String> {
    let named = || Authority::try_from(request.headers().get(header::HOST)?.as_bytes()).ok();
    let authority = request.uri().authority().cloned().or_else(named)?;
    Some(authority.host().to_owned())
}

/// Whether a host, as it stands in a URL, leads to this machine whatever a name server says.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        // RFC 6761 section 6.3.
        Err(_) => {
            let host = host.to_ascii_lowercase();
            host == "localhost" || host.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_form_whatever_its_script() {
        for (text, name) in [
            ("API.Example.com", "api.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("_dmarc.example", "_dmarc.example"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(ascii_name(text).as_deref(), Some(name), "{text}");
            assert_eq!(lookup_name(text), name);
        }
        for bad in ["", "https://x", "a b", "ü b", "a/ü", "ü:1", &"x".repeat(254)] {
            assert_eq!(ascii_name(bad), None, "{bad}");
        }
        assert_eq!(lookup_name("A b"), "A b");
    }

    #[test]
    fn a_request_names_its_host_with_or_without_a_port() {
        let host = |text: &str| host_of(&Request::builder().header("host", text).body(()).unwrap());
        for (text, name) in [
            ("localhost", "localhost"),
            ("LOCALHOST:8088", "LOCALHOST"),
            ("127.0.0.1:8088", "127.0.0.1"),
            ("[::1]:8088", "[::1]"),
            ("evil.example:8088", "evil.example"),
        ] {
            assert_eq!(host(text).as_deref(), Some(name));
        }
        for bad in ["", "localhost/..", "a b", "[::1"] {
            assert_eq!(host(bad), None, "{bad}");
        }
        let named_twice = Request::get("http://evil.example/").header("host", "localhost").body(()).unwrap();
        assert_eq!(host_of(&named_twice).as_deref(), Some("evil.example"));
    }

    #[test]
    fn loopback_is_an_address_or_localhost() {
        for yes in
            ["localhost", "LOCALHOST", "app.localhost", "127.0.0.1", "127.1.2.3", "[::1]", "::1", "[::ffff:127.0.0.1]"]
        {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["", "localhost.evil.example", "evil-localhost", "10.0.0.1", "0.0.0.0", "[::2]", "example.com"] {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
