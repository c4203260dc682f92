//! Hosts that are this machine itself.

use std::net::IpAddr;

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
