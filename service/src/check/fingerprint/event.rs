//! What is known of an identification, whichever way it became known, and the rules for it.

use approov_verify::time::UnixTime;
use url::Url;

use crate::allowed_origins::AllowedOrigins;
use crate::check::outcome::{CheckError, FailedRule};

use super::{CLOCK_SKEW, Site};

/// What the browser says about its identification.
pub(super) struct Identification<'a> {
    /// `None`: the agent did not tell it.
    pub(super) visitor_id: Option<&'a str>,
    pub(super) event_id: &'a str,
    /// The pages that may have asked for it.
    pub(super) allowed_origins: &'a AllowedOrigins,
    /// When the request came.
    pub(super) now: UnixTime,
}

/// An identification, as Fingerprint knows it.
pub(super) struct Event {
    pub(super) event_id: String,
    /// `None`: nobody was identified.
    pub(super) visitor_id: Option<String>,
    /// By Fingerprint's clock.
    pub(super) made: UnixTime,
    /// How far this machine's clock is ahead of Fingerprint's, milliseconds.
    pub(super) clock_offset: i64,
    /// The page.
    pub(super) url: Option<String>,
    /// Whether what the agent sent had been sent before.
    pub(super) is_replayed: bool,
    /// `None`: nothing is known of that.
    pub(super) bot_probability: Option<f64>,
}

impl Event {
    fn origin(&self) -> Option<String> {
        Some(Url::parse(self.url.as_ref()?).ok()?.origin().ascii_serialization())
    }
}

/// A time in milliseconds as JSON has it: out of range saturates to "too old" or "ahead".
pub(super) fn time_of(milliseconds: f64) -> UnixTime {
    // Exact in a double for the next 285,000 years.
    #[allow(clippy::cast_possible_truncation)]
    UnixTime::from_millis(milliseconds.clamp(0.0, 9e15) as i64)
}

impl Site {
    /// Applies the rules.
    pub(super) fn judge(
        &self,
        identification: &Identification<'_>,
        event: &Event,
    ) -> Result<Result<(), FailedRule>, CheckError> {
        // Both IDs are what tokens say and what may be used once.
        let is_its = event.event_id == identification.event_id
            && event.visitor_id.is_some()
            && identification.visitor_id.is_none_or(|named| event.visitor_id.as_deref() == Some(named));
        if !is_its {
            return Ok(Err(FailedRule::Visitor));
        }
        if event.is_replayed {
            return Ok(Err(FailedRule::Replayed));
        }
        let now = UnixTime::from_millis(identification.now.as_millis().saturating_sub(event.clock_offset));
        if now.since(event.made) > self.max_elapsed_time || event.made.since(now) > CLOCK_SKEW {
            return Ok(Err(FailedRule::Age));
        }
        if !identification.allowed_origins.allows(event.origin().as_deref()) {
            return Ok(Err(FailedRule::Origin));
        }
        if self.needs_bot_result() {
            let Some(probability) = event.bot_probability else {
                return Err(CheckError::Unavailable("Fingerprint reported nothing about bots".to_owned()));
            };
            if probability > self.max_bot_probability {
                return Ok(Err(FailedRule::Bot));
            }
        }
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use approov_verify::secret::Secret;

    use super::*;
    use crate::check::Vendor;
    use crate::check::fingerprint::Api;
    use crate::secrets::{KeptSecret, SecretKind};

    const NOW: UnixTime = UnixTime::from_millis(1_620_127_951_000);

    fn event() -> Event {
        Event {
            event_id: "R".to_owned(),
            visitor_id: Some("V".to_owned()),
            made: NOW,
            clock_offset: 0,
            url: Some("https://app.example.com/login?next=/".to_owned()),
            is_replayed: false,
            bot_probability: Some(0.3),
        }
    }

    fn judge_for(
        origins: &[&str],
        max_bot_probability: f64,
        event: &Event,
    ) -> Result<Result<(), FailedRule>, CheckError> {
        let site = Site {
            vendor: Vendor {
                secret: KeptSecret::here(SecretKind::Text, Secret::from_bytes(b"shh".to_vec())).into(),
                url: Url::parse("https://check.example/").unwrap(),
            },
            api: Api::V4,
            sealed_key: None,
            max_elapsed_time: Duration::from_secs(2),
            max_bot_probability,
        };
        let allowed_origins = &AllowedOrigins::parse(origins.iter().copied()).unwrap();
        site.judge(&Identification { visitor_id: Some("V"), event_id: "R", allowed_origins, now: NOW }, event)
    }

    fn judge(event: &Event) -> Result<(), FailedRule> {
        judge_for(&[], 1.0, event).unwrap()
    }

    #[test]
    fn an_identification_is_judged_by_every_rule() {
        let made = |ago: i64| UnixTime::from_millis(NOW.as_millis() - ago);
        assert_eq!(judge(&event()), Ok(()));
        assert_eq!(judge(&Event { made: made(2000), ..event() }), Ok(()));
        assert_eq!(judge(&Event { made: made(2001), ..event() }), Err(FailedRule::Age));
        assert_eq!(judge(&Event { made: made(-5001), ..event() }), Err(FailedRule::Age));
        assert_eq!(judge(&Event { event_id: "S".to_owned(), ..event() }), Err(FailedRule::Visitor));
        for visitor_id in [None, Some("W".to_owned())] {
            assert_eq!(judge(&Event { visitor_id, ..event() }), Err(FailedRule::Visitor));
        }
        assert_eq!(judge(&Event { is_replayed: true, ..event() }), Err(FailedRule::Replayed));
        assert_eq!(judge_for(&[], 0.3, &event()), Ok(Ok(())));
        assert_eq!(judge_for(&[], 0.29, &event()), Ok(Err(FailedRule::Bot)));
        assert!(judge_for(&[], 0.29, &Event { bot_probability: None, ..event() }).is_err());
        assert_eq!(judge_for(&[], 1.0, &Event { bot_probability: None, ..event() }), Ok(Ok(())));
    }

    #[test]
    fn a_wrong_clock_of_this_machine_does_not_make_identifications_old() {
        for (clock_offset, age, verdict) in [
            (45_000, 46_000, Ok(())),
            (45_000, 47_001, Err(FailedRule::Age)),
            (-45_000, -44_000, Ok(())),
            (0, 45_000, Err(FailedRule::Age)),
        ] {
            let made = UnixTime::from_millis(NOW.as_millis() - age);
            assert_eq!(judge(&Event { made, clock_offset, ..event() }), verdict, "{clock_offset} {age}");
        }
    }

    #[test]
    fn an_identification_counts_only_if_a_page_of_the_account_asked_for_it() {
        let on = |url: Option<&str>| {
            let event = Event { url: url.map(str::to_owned), ..event() };
            judge_for(&["https://app.example.com", "*.example.org"], 1.0, &event).unwrap()
        };
        for url in ["https://app.example.com/login?next=/", "https://APP.example.com:443/", "https://a.b.example.org/"]
        {
            assert_eq!(on(Some(url)), Ok(()), "{url}");
        }
        for url in
            ["https://evil.example/", "http://app.example.com/", "https://example.org/", "about:blank", "nonsense", ""]
        {
            assert_eq!(on(Some(url)), Err(FailedRule::Origin), "{url}");
        }
        assert_eq!(on(None), Err(FailedRule::Origin), "unknown is not allowed");
    }
}
