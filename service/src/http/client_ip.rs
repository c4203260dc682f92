//! The browser's address: the peer's, or what the trusted proxies in front say.

use std::net::{IpAddr, SocketAddrV4};

use axum::http::header::{self, HeaderMap, HeaderName};

use crate::config::TrustedProxies;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Why a forwarding header does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForwardingFault {
    /// It comes from a peer that is no trusted proxy.
    Untrusted,
    /// A trusted proxy wrote, or passed on, something that is no address.
    Unreadable,
}

impl ForwardingFault {
    /// The name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Unreadable => "unreadable",
        }
    }

    /// What the operator should know.
    pub(super) fn explain(self, peer: IpAddr) -> String {
        let peer = peer.to_canonical();
        match self {
            Self::Untrusted => format!(
                "{peer} says on whose behalf it calls, and is not believed: if it is a proxy of yours, name its network \
                 in trusted_proxies. This is said once; approov_forwarding_faults_total counts"
            ),
            Self::Unreadable => format!(
                "the proxy {peer} wrote something into X-Forwarded-For that is no address; the last address that can \
                 be read counts. This is said once; approov_forwarding_faults_total counts"
            ),
        }
    }
}

/// Where a request comes from, as far as that can be known.
///
/// Each proxy appends the address that it was called from, so `X-Forwarded-For` is read from its end, past trusted
/// hops: the first address that is none of theirs is the browser's. What stands before it, anybody can have written.
pub(super) fn client_ip(
    proxies: &TrustedProxies,
    peer: IpAddr,
    headers: &HeaderMap,
) -> (IpAddr, Option<ForwardingFault>) {
    let peer = peer.to_canonical();
    match proxies {
        TrustedProxies::Count(count) => {
            let ip = count.checked_sub(1).and_then(|hops| from_the_end(headers).nth(hops)).and_then(address);
            (ip.unwrap_or(peer), None)
        }
        TrustedProxies::Networks(_) if proxies.contains(peer) => {
            let mut ip = peer;
            for element in from_the_end(headers) {
                match address(element) {
                    None => return (ip, Some(ForwardingFault::Unreadable)),
                    Some(hop) => ip = hop,
                }
                if !proxies.contains(ip) {
                    break;
                }
            }
            (ip, None)
        }
        TrustedProxies::Networks(_) => {
            let forwarded = headers.contains_key(&X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED);
            (peer, forwarded.then_some(ForwardingFault::Untrusted))
        }
    }
}

/// The elements of `X-Forwarded-For`, the last first. Bytes: what a client wrote in front need not be text.
fn from_the_end(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(&X_FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// An address as proxies write it: bare, in brackets, with a port, in quotes.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let ip = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (ip, port) = bracketed.split_once(']')?;
            let is_port = |port: &str| port.parse::<u16>().is_ok();
            (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(())?;
            IpAddr::V6(ip.parse().ok()?)
        }
        None => text.parse().ok().or_else(|| Some(IpAddr::V4(*text.parse::<SocketAddrV4>().ok()?.ip())))?,
    };
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn trusted() -> TrustedProxies {
        TrustedProxies::Networks(vec!["10.0.0.0/8".parse().unwrap()])
    }

    fn seen(proxies: &TrustedProxies, peer: &str, lines: &[&[u8]]) -> (String, Option<ForwardingFault>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        let (ip, fault) = client_ip(proxies, peer.parse().unwrap(), &headers);
        (ip.to_string(), fault)
    }

    fn through_proxy(lines: &[&[u8]]) -> (String, Option<ForwardingFault>) {
        seen(&trusted(), PROXY, lines)
    }

    #[test]
    fn the_first_address_from_the_right_that_is_no_proxy_counts() {
        for (lines, ip) in [
            (vec![&b"203.0.113.9"[..]], "203.0.113.9"),
            (vec![b"198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            (vec![b"198.51.100.1, 203.0.113.9,10.0.0.7 , 10.0.0.8"], "203.0.113.9"),
            (vec![b"198.51.100.1", b"203.0.113.9", b"10.0.0.8"], "203.0.113.9"),
            // All of them are ours: a check of health from inside.
            (vec![b"10.0.0.7, 10.0.0.8"], "10.0.0.7"),
            (vec![], PROXY),
            (vec![b" , ,"], PROXY),
        ] {
            assert_eq!(through_proxy(&lines), (ip.to_owned(), None), "{lines:?}");
        }
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        for (form, ip) in [
            (&b"203.0.113.9:5555"[..], "203.0.113.9"),
            (b"2001:db8::1", "2001:db8::1"),
            (b"[2001:db8::1]", "2001:db8::1"),
            (b"[2001:db8::1]:5555", "2001:db8::1"),
            (b"\"[2001:db8::1]:5555\"", "2001:db8::1"),
            (b"\"203.0.113.9\"", "203.0.113.9"),
            (b"::ffff:203.0.113.9", "203.0.113.9"),
            (b"[::ffff:203.0.113.9]", "203.0.113.9"),
        ] {
            assert_eq!(through_proxy(&[form]), (ip.to_owned(), None), "{}", form.escape_ascii());
        }
    }

    #[test]
    fn what_a_client_wrote_in_front_does_not_matter_be_it_text_or_not() {
        for front in [&b"\xe9"[..], b"\xff\xfe, \"", b"unknown", b"_hidden", b"10.0.0.5, <script>"] {
            let line = [front, b", 203.0.113.9"].concat();
            assert_eq!(through_proxy(&[&line]), ("203.0.113.9".to_owned(), None), "{}", front.escape_ascii());
        }
    }

    #[test]
    fn an_address_that_cannot_be_read_is_a_fault_and_nothing_before_it_counts() {
        for bad in [
            &b"nonsense"[..],
            b"\xe9",
            b"[2001:db8::1",
            b"[2001:db8::1]x",
            b"[203.0.113.9]",
            b"2001:db8::1]",
            b"\"203.0.113.9",
            b"203.0.113.9:x",
        ] {
            let line = [b"198.51.100.1, ", bad, b", 10.0.0.8"].concat();
            let expected = ("10.0.0.8".to_owned(), Some(ForwardingFault::Unreadable));
            assert_eq!(through_proxy(&[&line]), expected, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_peer_that_is_no_proxy_speaks_for_itself_only() {
        let direct = seen(&trusted(), "198.51.100.1", &[b"203.0.113.9"]);
        assert_eq!(direct, ("198.51.100.1".to_owned(), Some(ForwardingFault::Untrusted)));
        let nobody = seen(&TrustedProxies::default(), PROXY, &[b"203.0.113.9"]);
        assert_eq!(nobody, (PROXY.to_owned(), Some(ForwardingFault::Untrusted)));
        assert_eq!(seen(&trusted(), "::ffff:198.51.100.1", &[]), ("198.51.100.1".to_owned(), None));
    }

    #[test]
    fn a_count_of_proxies_takes_the_address_that_the_outermost_of_them_saw() {
        for (count, line, ip) in [
            (1, &b"203.0.113.9, 198.51.100.1"[..], "198.51.100.1"),
            (2, b"203.0.113.9, 198.51.100.1", "203.0.113.9"),
            (2, b"\xe9, 203.0.113.9, 198.51.100.1", "203.0.113.9"),
            (3, b"203.0.113.9, 198.51.100.1", PROXY),
            (1, b"nonsense", PROXY),
        ] {
            let proxies = TrustedProxies::Count(count);
            assert_eq!(seen(&proxies, PROXY, &[line]), (ip.to_owned(), None), "{count} {}", line.escape_ascii());
        }
    }
}
