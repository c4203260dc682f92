//! What tokens of failed checks say, so that nothing but their signature tells them from the others.

use std::time::Duration;

use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Map, Value};

use crate::check::{Checked, Fallback, FreshResult};
use crate::config::Account;
use crate::crypto::{CryptoError, derive_key};
use crate::secrets::Timeline;
use crate::session::CheckResult;

use super::checks::site_name;
use super::last_passed::{Carried, LastPassed};

/// Between solving a captcha and the request with its result, seconds: what a page takes.
const SOLVED_AGO: std::ops::RangeInclusive<u64> = 1..=20;
const VISITOR_ID_LENGTH: usize = 20;
/// The longest full result that a session carries, bytes of JSON. A longer one fits no token
/// ([`super::grant::MAX_TOKEN_BYTES`]); tokens then embed the brief form.
const MAX_CARRIED_BYTES: usize = 4 * 1024;

/// The keys from which the random parts of decoys follow: the same result looks the same at every replica.
pub(super) struct DecoyKeys(Timeline<hmac::Key>);

impl DecoyKeys {
    /// Derives the keys from the service's session secret.
    pub(super) fn derive(session_secret: &Timeline<Secret>) -> Result<Self, CryptoError> {
        let derive = |secret: &Secret| {
            let bytes = derive_key(secret, &[b"approov-web-service decoy v1"])?;
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &*bytes))
        };
        session_secret.try_map(derive).map(Self)
    }

    /// How long ago a result is said to have been solved, of which the check service does not say it.
    fn solved_ago(&self, digest: &str, now: UnixTime) -> Duration {
        let tag = hmac::sign(self.0.making(now), digest.as_bytes());
        let random = u64::from(tag.as_ref().first().copied().unwrap_or_default());
        let (first, last) = (SOLVED_AGO.start(), SOLVED_AGO.end());
        Duration::from_secs(first + random % (last - first + 1))
    }

    /// Whose an identification is said to be that names nobody and failed: letters and digits, as many as Fingerprint's are.
    fn visitor_id(&self, digest: &str, now: UnixTime) -> String {
        let tag = hmac::sign(self.0.making(now), format!("visitor {digest}").as_bytes());
        let text = STANDARD_NO_PAD.encode(tag);
        text.chars().filter(char::is_ascii_alphanumeric).take(VISITOR_ID_LENGTH).collect()
    }
}

/// How the results of a request look, whatever came of their checks.
pub(super) struct Appearance<'a> {
    pub(super) account: &'a Account,
    /// Host of the page, from its `Origin`; empty when there was none.
    pub(super) page_host: &'a str,
    /// By a clock that is right.
    pub(super) now: UnixTime,
    pub(super) keys: &'a DecoyKeys,
    pub(super) last_passed: &'a LastPassed,
}

impl Appearance<'_> {
    /// A result as the session remembers it.
    pub(super) fn result(&self, fresh: &FreshResult<'_>, checked: Checked, expires: UnixTime) -> CheckResult {
        let site = site_name(self.account, fresh);
        let digest = fresh.params.digest();
        let passed = checked.verdict.is_ok();
        let named = checked.brief.hostname().map(str::to_owned);
        let brief = checked.brief.embed(|| Fallback {
            solved: self.now.minus(self.keys.solved_ago(&digest, self.now)),
            visitor_id: self.keys.visitor_id(&digest, self.now),
            hostname: self
                .last_passed
                .hostname(&site, self.page_host)
                .unwrap_or_else(|| likely_host(fresh.site.kind.domains(), self.page_host)),
        });
        let (full, padding, carried) = if fresh.site.embed_result {
            let last = self.last_passed.carried(&site).filter(|_| !passed);
            carry(checked.full, &brief, last)
        } else {
            (None, 0, None)
        };
        if passed {
            self.last_passed.remember(&site, self.page_host, named.as_deref(), carried);
        }
        CheckResult {
            provider: fresh.provider,
            site: fresh.key.to_owned(),
            digest,
            expires: expires.as_millis(),
            passed: u8::from(passed),
            would_fail: 0,
            brief,
            full,
            padding,
        }
    }
}

/// The full result that a session carries, the white space that makes it as long as the `last` one that passed, and how it
/// is carried.
fn carry(
    full: Map<String, Value>,
    brief: &Map<String, Value>,
    last: Option<Carried>,
) -> (Option<Map<String, Value>>, u16, Option<Carried>) {
    // A check service may have nothing to say of a result that it does not know.
    let full = if full.is_empty() { brief.clone() } else { full };
    let length = serde_json::to_string(&full).map_or(usize::MAX, |text| text.len());
    if length > MAX_CARRIED_BYTES || last == Some(Carried::Not) {
        return (None, 0, Some(Carried::Not));
    }
    let padding = match last {
        Some(Carried::Whole(last)) => last.saturating_sub(length),
        Some(Carried::Not) | None => 0,
    };
    (Some(full), u16::try_from(padding).unwrap_or(u16::MAX), Some(Carried::Whole(length)))
}

/// The host that a captcha service would name for a page: they register domains and leave subdomains out.
fn likely_host(domains: &[String], page_host: &str) -> String {
    let fits = |domain: &&String| {
        page_host.strip_suffix(domain.as_str()).is_some_and(|labels| labels.is_empty() || labels.ends_with('.'))
    };
    let fitting = domains.iter().filter(fits).max_by_key(|domain| domain.len());
    match (fitting, domains.first(), page_host) {
        (Some(domain), _, _) | (None, Some(domain), "") => domain.clone(),
        (None, None, "") => "localhost".to_owned(),
        (None, _, host) => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decoy_says_the_same_time_for_the_same_result_and_no_time_out_of_range() {
        let keys = |byte| DecoyKeys::derive(&Secret::from_bytes(vec![byte; 32]).into()).unwrap();
        let now = UnixTime::from_secs(1_700_000_000);
        let ago = |byte, n: u32| keys(byte).solved_ago(&n.to_string(), now).as_secs();
        let all: std::collections::BTreeSet<u64> = (0..500).map(|n| ago(1, n)).collect();
        assert_eq!(all, SOLVED_AGO.collect());
        assert_eq!(ago(1, 7), ago(1, 7));
        assert!((0..50).any(|n| ago(1, n) != ago(2, n)), "nobody else can tell");
    }

    #[test]
    fn a_host_that_nobody_named_is_the_domain_that_fits_the_page() {
        let own = |domains: &[&str]| domains.iter().map(ToString::to_string).collect::<Vec<_>>();
        let domains = own(&["example.com", "shop.example.com", "other.example"]);
        for (page, host) in [
            ("www.shop.example.com", "shop.example.com"),
            ("www.example.com", "example.com"),
            ("example.com", "example.com"),
            ("badexample.com", "badexample.com"),
            ("", "example.com"),
        ] {
            assert_eq!(likely_host(&domains, page), host, "{page}");
        }
        assert_eq!(likely_host(&[], "www.example.com"), "www.example.com");
        assert_eq!(likely_host(&[], ""), "localhost");
    }

    #[test]
    fn a_failed_result_is_carried_as_the_last_that_passed() {
        let object = |length: usize| Map::from_iter([("t".to_owned(), Value::from("x".repeat(length)))]);
        let length = |object: &Map<String, Value>| serde_json::to_string(object).unwrap().len();
        let brief = json!({"visitorId": "v"}).as_object().unwrap().clone();
        let long = object(900);
        let (_, padding, carried) = carry(long.clone(), &brief, None);
        assert_eq!((padding, carried), (0, Some(Carried::Whole(length(&long)))));
        for failed in [object(10), Map::new()] {
            let (full, padding, _) = carry(failed, &brief, carried);
            assert_eq!(length(&full.unwrap()) + usize::from(padding), length(&long));
        }
        // One that is too long is not carried, and then no other is.
        let (full, _, carried) = carry(object(MAX_CARRIED_BYTES), &brief, None);
        assert_eq!((full, carried), (None, Some(Carried::Not)));
        assert_eq!(carry(object(10), &brief, carried), (None, 0, Some(Carried::Not)));
    }
}
