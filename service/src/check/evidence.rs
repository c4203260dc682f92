//! Check results as browsers send them.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::provider::Provider;

/// A check result as the browser sent it.
#[derive(Clone, PartialEq, Eq)]
pub struct FreshResult {
    /// Which service's.
    pub provider: Provider,
    /// Site key or public API key.
    pub site: String,
    /// What the service's server is asked about.
    pub evidence: Evidence,
    /// Digest of the parameters, to know the same result when it comes again.
    pub digest: String,
}

/// What a check service's server is asked about.
#[derive(Clone, PartialEq, Eq)]
pub enum Evidence {
    /// hCaptcha and reCAPTCHA.
    Captcha {
        /// The response token.
        token: String,
        /// The host that the page says must have solved it.
        host: Option<String>,
    },
    /// Fingerprint.
    Fingerprint {
        /// Who.
        visitor_id: String,
        /// Which identification.
        request_id: String,
    },
}

impl std::fmt::Debug for FreshResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FreshResult({}:{})", self.provider.prefix(), self.site)
    }
}

/// 128 bits that tell one result from another: SHA-256 over the values with their lengths.
pub fn digest_of(values: &[Option<&str>]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for value in values {
        let value = value.unwrap_or_default();
        context.update(&value.len().to_be_bytes());
        context.update(value.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(context.finish().as_ref().iter().take(16).copied().collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn results_differ_in_their_digest_when_any_value_differs() {
        let pairs = [
            digest_of(&[Some("ab"), Some("c")]),
            digest_of(&[Some("a"), Some("bc")]),
            digest_of(&[Some("a"), Some("bc"), Some("")]),
        ];
        assert_eq!(pairs.iter().collect::<BTreeSet<_>>().len(), 3);
    }
}
