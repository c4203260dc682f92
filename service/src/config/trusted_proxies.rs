//! Which peers are believed when they say on whose behalf a request comes.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use crate::settings::{Read, Source};

/// The proxies in front of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedProxies {
    /// Those with an address in one of these networks.
    Networks(Vec<IpNet>),
    /// So many, whoever they are. Whoever reaches the service past them can choose its address.
    Count(usize),
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self::Networks(Vec::new())
    }
}

impl TrustedProxies {
    /// Whether a peer is known to be one of them.
    pub fn contains(&self, peer: IpAddr) -> bool {
        match self {
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&peer.to_canonical())),
            Self::Count(_) => false,
        }
    }

    /// Whether a peer may be one of them: by a count alone, everybody may.
    pub fn may_be(&self, peer: IpAddr) -> bool {
        self.contains(peer) || matches!(self, Self::Count(_))
    }

    pub(super) fn read(source: &Source<'_>, value: Option<Spanned<DeValue<'_>>>) -> Read<Self> {
        const EXPECTED: &str =
            "trusted_proxies must be a list of addresses and networks such as [\"10.0.0.0/8\", \"2001:db8::1\"]";
        let Some(value) = value else {
            return Ok(Self::default());
        };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(entries) => {
                let mut networks = Vec::new();
                for entry in entries {
                    let Some(network) = entry.get_ref().as_str().and_then(network) else {
                        return source.error(&entry, EXPECTED);
                    };
                    networks.push(network);
                }
                Ok(Self::Networks(networks))
            }
            DeValue::Integer(number) => match usize::from_str_radix(number.as_str(), number.radix()) {
                Ok(0) => Ok(Self::default()),
                Ok(count) => Ok(Self::Count(count)),
                Err(_) => source.error(&Spanned::new(span, ()), EXPECTED),
            },
            _ => source.error(&Spanned::new(span, ()), EXPECTED),
        }
    }
}

/// An address is a network of one.
fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>().map(|address| address.to_canonical().into()).ok().or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn proxies(value: &str) -> Result<TrustedProxies, String> {
        Config::parse(&format!("trusted_proxies = {value}\n"))
            .map(|config| config.trusted_proxies)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_peer_in_a_network_is_trusted_whatever_the_socket_calls_it() {
        let proxies = proxies("[\"10.0.0.0/8\", \"192.0.2.1\", \"2001:db8::/32\"]").unwrap();
        for yes in ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "2001:db8::5"] {
            assert!(proxies.contains(yes.parse().unwrap()), "{yes}");
        }
        for no in ["11.0.0.1", "192.0.2.2", "::1", "::ffff:11.0.0.1"] {
            assert!(!proxies.contains(no.parse().unwrap()), "{no}");
        }
    }

    #[test]
    fn a_count_is_still_read() {
        assert_eq!(proxies("2").unwrap(), TrustedProxies::Count(2));
        assert_eq!(proxies("0").unwrap(), TrustedProxies::default());
        assert_eq!(Config::parse("").unwrap().trusted_proxies, TrustedProxies::default());
    }

    #[test]
    fn what_is_not_a_network_is_named_with_its_position() {
        for (bad, position) in [
            ("[\"10.0.0.0/8\", \"proxy.example\"]", "line 1, column 34: "),
            ("\"10.0.0.0/8\"", "line 1, column 19: "),
            ("-1", "line 1, column 19: "),
            ("[\"10.0.0.0/33\"]", "line 1, column 20: "),
            ("[3]", "line 1, column 20: "),
        ] {
            let error = proxies(bad).unwrap_err();
            assert!(error.starts_with(position) && error.contains("trusted_proxies must be"), "{bad}: {error}");
        }
    }
}
