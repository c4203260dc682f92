//! The PROXY protocol, version 2 (haproxy.org, "The PROXY protocol"): what a proxy says of a connection before it passes
//! it on.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The part of a header that has a fixed length; its last two bytes say how long the rest is.
const FIXED_BYTES: usize = 16;
/// How the fixed part begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest rest: addresses, and a few hundred bytes that proxies add.
const MAX_REST_BYTES: usize = 2048;

/// Reads the header that a connection begins with, and nothing of what follows. Gives the address that the proxy was
/// called from; `None` when it calls by itself, as to see whether the service lives.
///
/// # Errors
/// When the connection does not begin with one.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let unusable = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("PROXY protocol: {why}"));
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await.map_err(|error| unusable(&error.to_string()))?;
    if !header.starts_with(SIGNATURE) {
        return Err(unusable("the connection does not begin with a header of version 2"));
    }
    let rest = header.last_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
    if rest > MAX_REST_BYTES {
        return Err(unusable("the header is too long"));
    }
    header.resize(FIXED_BYTES + rest, 0);
    let rest = header.get_mut(FIXED_BYTES..).unwrap_or_default();
    stream.read_exact(rest).await.map_err(|error| unusable(&error.to_string()))?;
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let (header, _) = ProxyHeader::parse(&header, config).map_err(|error| unusable(&error.to_string()))?;
    Ok(header.proxied_address().map(|address| address.source))
}

#[cfg(test)]
mod tests {
    use proxy_header::{ProxiedAddress, Tlv};

    use super::*;

    fn encoded(header: &ProxyHeader<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes).unwrap();
        bytes
    }

    fn from(source: &str, destination: &str) -> Option<ProxiedAddress> {
        Some(ProxiedAddress::stream(source.parse().unwrap(), destination.parse().unwrap()))
    }

    async fn read_of(mut bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, usize) {
        let result = read(&mut bytes).await;
        (result, bytes.len())
    }

    /// The header of the specification's section 2.2: from 192.168.1.1:56324 to 192.168.1.2:443, written out.
    const WRITTEN_OUT: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\xa8\x01\x01\xc0\xa8\x01\x02\xdc\x04\x01\xbb";

    #[tokio::test]
    async fn a_header_says_who_calls_and_nothing_behind_it_is_read() {
        let v6 = ProxyHeader::with_address(from("[2001:db8::7]:4000", "[2001:db8::1]:443").unwrap());
        let tlvs = [Tlv::Authority("web.example.com".into()), Tlv::Noop(1000)];
        let with_more = ProxyHeader::with_tlvs(from("203.0.113.9:4000", "192.0.2.1:443"), tlvs);
        for (header, source) in [
            (WRITTEN_OUT.to_vec(), Some("192.168.1.1:56324")),
            (encoded(&v6), Some("[2001:db8::7]:4000")),
            (encoded(&with_more), Some("203.0.113.9:4000")),
            (encoded(&ProxyHeader::with_local()), None),
        ] {
            let (result, left) = read_of(&[&header, &b"GET / HTTP/1.1\r\n"[..]].concat()).await;
            assert_eq!(result.unwrap(), source.map(|source| source.parse().unwrap()));
            assert_eq!(left, 16);
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_at_once() {
        let mut too_long = WRITTEN_OUT.to_vec();
        too_long[14] = 0xff;
        for (bytes, left) in [
            (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 11),
            (b"PROXY TCP4 203.0.113.9 192.0.2.1 4000 443\r\n".to_vec(), 27),
            (too_long, 12),
        ] {
            let (result, unread) = read_of(&bytes).await;
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert_eq!(unread, left, "and the rest is not waited for");
        }
    }

    #[tokio::test]
    async fn a_header_that_is_cut_or_changed_is_refused_or_read_and_no_more() {
        for end in 0..WRITTEN_OUT.len() {
            assert!(read_of(&WRITTEN_OUT[..end]).await.0.is_err(), "{end} bytes");
        }
        for at in 0..16 {
            for value in 0..=u8::MAX {
                let mut bytes = WRITTEN_OUT.to_vec();
                bytes[at] = value;
                // Whatever comes of it: no panic, and no address that is not in the header.
                if let (Ok(Some(source)), _) = read_of(&bytes).await {
                    assert!(source.ip().is_ipv6() || source.to_string() == "192.168.1.1:56324", "{source}");
                }
            }
        }
    }
}
