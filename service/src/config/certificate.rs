//! What a TLS certificate says of itself: for which names, and from when to when.

use std::net::IpAddr;

use approov_verify::time::UnixTime;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

/// A certificate, as far as a configuration depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The DNS names and addresses that it is for, as they stand in a URL. `*.example.com` may be among them.
    pub names: Vec<String>,
    /// From when on it is good.
    pub not_before: UnixTime,
    /// Until when it is good.
    pub not_after: UnixTime,
}

impl Certificate {
    /// Reads the first certificate of a PEM file, which is the server's own.
    ///
    /// # Errors
    /// When there is none, or it cannot be understood.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|error| format!("it has no certificate: {error}"))?;
        let broken = |error| format!("the certificate is broken: {error}");
        let certificate = x509_cert::Certificate::from_der(&der).map_err(broken)?;
        let certificate = certificate.tbs_certificate();
        let names = certificate.get_extension::<SubjectAltName>().map_err(broken)?;
        let validity = certificate.validity();
        Ok(Self {
            names: names.into_iter().flat_map(|(_, names)| names.0).filter_map(|name| url_host(&name)).collect(),
            not_before: unix_time(validity.not_before),
            not_after: unix_time(validity.not_after),
        })
    }

    /// The names that stand for one host each.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| !name.contains('*'))
    }

    /// Whether browsers take it for `host` (RFC 6125 section 6.4.3: a star is one label).
    pub fn covers(&self, host: &str) -> bool {
        let above = host.split_once('.').map(|(_, above)| above);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(domain) => above.is_some_and(|above| above.eq_ignore_ascii_case(domain)),
            None => name.eq_ignore_ascii_case(host),
        })
    }
}

fn url_host(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            match v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()? {
                IpAddr::V4(ip) => Some(ip.to_string()),
                IpAddr::V6(ip) => Some(format!("[{ip}]")),
            }
        }
        _ => None,
    }
}

fn unix_time(time: Time) -> UnixTime {
    UnixTime::from_secs(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(names: &[&str]) -> Certificate {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::from_pem(made.pem().as_bytes()).unwrap()
    }

    #[test]
    fn names_and_times_are_read() {
        let certificate = certificate(&["Web.example.com", "*.example.org", "127.0.0.1", "::1"]);
        assert_eq!(certificate.names, ["web.example.com", "*.example.org", "127.0.0.1", "[::1]"]);
        assert_eq!(certificate.hosts().collect::<Vec<_>>(), ["web.example.com", "127.0.0.1", "[::1]"]);
        assert_eq!(certificate.not_before, UnixTime::from_secs(1_767_225_600));
        assert_eq!(certificate.not_after, UnixTime::from_secs(1_775_001_600));
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let certificate = certificate(&["example.com", "*.example.org"]);
        for yes in ["example.com", "EXAMPLE.com", "a.example.org"] {
            assert!(certificate.covers(yes), "{yes}");
        }
        for no in ["a.example.com", "example.org", "a.b.example.org", "xexample.org", ""] {
            assert!(!certificate.covers(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for bad in [&b""[..], b"\x30\x82", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"] {
            assert!(Certificate::from_pem(bad).is_err());
        }
    }
}
