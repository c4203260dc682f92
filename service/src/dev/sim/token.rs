//! Simulated results: how they end is in their text, and each is accepted once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use approov_verify::time::UnixTime;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// How long `slow` takes.
const SLOW: Duration = Duration::from_secs(3);
/// The longest `slow<ms>`.
const MAX_SLOW: Duration = Duration::from_secs(60);
/// Used tokens are forgotten all at once when there are this many: this is a simulator.
const MAX_USED_TOKENS: usize = 100_000;

/// The tokens that were used.
#[derive(Default)]
pub(super) struct Used(Mutex<HashMap<String, Option<String>>>);

impl Used {
    /// Whether this is the token's first use at this service.
    pub(super) fn first(&self, service: &str, token: &str) -> bool {
        self.first_or_repeated(service, token, None)
    }

    /// Whether this is the token's first use at this service, or comes with the idempotency key of the first.
    pub(super) fn first_or_repeated(&self, service: &str, token: &str, idempotency_key: Option<&str>) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{service}:{token}");
        if let Some(first) = used.get(&name) {
            return first.is_some() && first.as_deref() == idempotency_key;
        }
        if used.len() >= MAX_USED_TOKENS {
            used.clear();
        }
        used.insert(name, idempotency_key.map(str::to_owned));
        true
    }
}

/// What a simulated token says about itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) outcome: Outcome,
    pub(super) unique: String,
    /// Of the page.
    pub(super) host: String,
    pub(super) action: Option<String>,
    /// What a service adds: `cdata` of Turnstile, the site key of reCAPTCHA Enterprise.
    pub(super) more: Option<String>,
}

/// What the server says of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is accepted.
    Pass,
    /// It is not.
    Fail,
    /// It is, with a score that says that the visitor may be a bot.
    Low,
    /// It is, but the visitor certainly is a bot; not, at services without scores.
    Bot,
    /// It is too old.
    Expired,
    /// Nothing: the service is down.
    Error,
    /// It is accepted after this time.
    Slow(Duration),
}

impl Token {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (outcome, unique) = parts.next()?.strip_prefix("sim-")?.split_once('-')?;
        let outcome = match outcome {
            "pass" => Outcome::Pass,
            "fail" => Outcome::Fail,
            "low" => Outcome::Low,
            "bot" => Outcome::Bot,
            "expired" => Outcome::Expired,
            "error" => Outcome::Error,
            "slow" => Outcome::Slow(SLOW),
            other => Outcome::Slow(Duration::from_millis(other.strip_prefix("slow")?.parse().ok()?).min(MAX_SLOW)),
        };
        let mut text = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok()?;
            Some(text).filter(|text| !text.is_empty())
        };
        Some(Self {
            outcome,
            unique: unique.to_owned(),
            host: text().unwrap_or_else(|| "localhost".to_owned()),
            action: text(),
            more: text(),
        })
    }

    /// When it was made: scripts put the time before an `x`; tokens made by hand are made now.
    pub(super) fn made(&self) -> UnixTime {
        let time = self.unique.split_once('x').and_then(|(time, _)| time.parse().ok());
        time.map_or_else(UnixTime::now, UnixTime::from_millis)
    }

    /// Takes as long as it says.
    pub(super) async fn wait(&self) {
        if let Outcome::Slow(time) = self.outcome {
            tokio::time::sleep(time).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_how_it_ends() {
        let token = Token::parse("sim-pass-abc.bG9jYWxob3N0.bG9naW4").unwrap();
        assert_eq!((token.host.as_str(), token.action.as_deref()), ("localhost", Some("login")));
        assert_eq!(Token::parse("sim-bot-a").unwrap().outcome, Outcome::Bot);
        assert_eq!(Token::parse("sim-slow-a").unwrap().outcome, Outcome::Slow(SLOW));
        assert_eq!(Token::parse("sim-slow250-a").unwrap().outcome, Outcome::Slow(Duration::from_millis(250)));
        assert_eq!(Token::parse("sim-slow999999999-a").unwrap().outcome, Outcome::Slow(MAX_SLOW));
        for bad in ["", "pass", "sim-pass", "sim-never-a", "sim-slowly-a"] {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_says_when_and_for_what_it_was_made() {
        let token = Token::parse("sim-pass-1620127950391xabc.bG9jYWxob3N0..bG9naW4").unwrap();
        assert_eq!(token.made(), UnixTime::from_millis(1_620_127_950_391));
        assert_eq!((token.action, token.more.as_deref()), (None, Some("login")));
        let before = UnixTime::now();
        assert!(Token::parse("sim-pass-byhand").unwrap().made() >= before);
    }

    #[test]
    fn a_token_is_used_once_or_again_with_its_idempotency_key() {
        let used = Used::default();
        assert!(used.first("a", "t"));
        assert!(!used.first("a", "t"));
        assert!(used.first("b", "t"));
        assert!(used.first_or_repeated("c", "t", Some("k")));
        assert!(used.first_or_repeated("c", "t", Some("k")));
        assert!(!used.first_or_repeated("c", "t", Some("other")));
        assert!(!used.first("c", "t"));
        assert!(!used.first_or_repeated("a", "t", Some("k")));
    }
}
