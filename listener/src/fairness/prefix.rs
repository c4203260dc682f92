//! Prefixes of addresses, and their cells.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Cells of a table.
pub(super) const CELLS: usize = 1 << 16;

/// The key under which prefixes are hashed: SipHash with a random key.
#[derive(Clone, Debug, Default)]
pub struct Prefixes(RandomState);

/// The cells of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Of its narrow prefix.
    pub narrow: u16,
    /// Of its wide prefix.
    pub wide: u16,
}

impl Prefixes {
    /// The cells of an address.
    #[must_use]
    pub fn cells(&self, ip: IpAddr) -> Cells {
        Cells { narrow: self.cell(&Prefix::narrow(ip)), wide: self.cell(&Prefix::wide(ip)) }
    }

    /// The cell of anything else that is counted, such as a key's thumbprint.
    #[must_use]
    pub fn cell(&self, what: &(impl std::hash::Hash + ?Sized)) -> u16 {
        // The low 16 bits, which are as random as any.
        u16::try_from(self.0.hash_one(what) & 0xffff).unwrap_or(0)
    }
}

/// A prefix, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// What one client may have to itself: an IPv4 address, or an IPv6 subnet.
    #[must_use]
    pub fn narrow(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self { address: ip.into(), bits: 32 },
            IpAddr::V6(ip) => Self::v6(ip, 64),
        }
    }

    /// What one network may have to itself.
    #[must_use]
    pub fn wide(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self { address: Ipv4Addr::from_bits(ip.to_bits() & (!0 << 8)).into(), bits: 24 },
            IpAddr::V6(ip) => Self::v6(ip, 48),
        }
    }

    fn v6(ip: Ipv6Addr, bits: u8) -> Self {
        Self { address: Ipv6Addr::from_bits(ip.to_bits() & (!0 << (128 - u32::from(bits)))).into(), bits }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(ip: &str) -> (String, String) {
        let ip = ip.parse().unwrap();
        (Prefix::narrow(ip).to_string(), Prefix::wide(ip).to_string())
    }

    #[test]
    fn addresses_are_counted_by_client_and_by_network() {
        for (ip, narrow, wide) in [
            ("192.0.2.77", "192.0.2.77/32", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.77/32", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"),
            ("::1", "::/64", "::/48"),
        ] {
            assert_eq!(prefixes(ip), (narrow.to_owned(), wide.to_owned()));
        }
    }

    #[test]
    fn one_prefix_has_one_cell_and_another_process_has_others() {
        let (one, other) = (Prefixes::default(), Prefixes::default());
        let cells = |keys: &Prefixes, ip: &str| keys.cells(ip.parse().unwrap());
        assert_eq!(cells(&one, "2001:db8:1:2::3"), cells(&one, "2001:db8:1:2:ffff::"));
        assert_eq!(cells(&one, "192.0.2.1").wide, cells(&one, "192.0.2.2").wide);
        let ips: Vec<String> = (0..20).map(|n| format!("192.0.{n}.1")).collect();
        assert!(ips.iter().any(|ip| cells(&one, ip) != cells(&other, ip)));
    }
}
