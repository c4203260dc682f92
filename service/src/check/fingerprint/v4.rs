//! Server API v4: one event, looked up by its ID. Request IDs of the agent v3 are IDs, too.

use std::time::Duration;

use approov_verify::time::UnixTime;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::check::client::{CheckRequest, ServerResponse, with_segments};
use crate::check::outcome::CheckError;
use crate::check::site_table::Vendor;
use crate::time::rfc3339;

use super::DEFINITION;
use super::event::{Event, Identification, time_of};

/// How long to wait for an event that is not there yet, or not whole.
const NOT_YET_DELAY: Duration = Duration::from_millis(400);

/// An event of the interface. Signals that a plan does not have are left out, and enumerations grow.
#[derive(Deserialize)]
pub(super) struct RawEvent {
    event_id: String,
    timestamp: f64,
    identification: Option<RawIdentification>,
    incremental_identification_status: Option<String>,
    url: Option<String>,
    #[serde(default)]
    replayed: bool,
    bot: Option<String>,
}

#[derive(Deserialize)]
struct RawIdentification {
    visitor_id: String,
}

impl RawEvent {
    /// Whether signals are still to come, and those that are there mean nothing.
    fn is_partial(&self) -> bool {
        self.incremental_identification_status.as_deref() == Some("partially_completed")
    }

    pub(super) fn into_event(self, clock_offset: i64) -> Event {
        Event {
            bot_probability: self.bot_probability(),
            made: time_of(self.timestamp),
            clock_offset,
            event_id: self.event_id,
            visitor_id: self.identification.map(|identification| identification.visitor_id),
            url: self.url,
            is_replayed: self.replayed,
        }
    }

    /// A bot, good or bad, is certainly a bot.
    fn bot_probability(&self) -> Option<f64> {
        match self.bot.as_deref() {
            _ if self.is_partial() => None,
            Some("not_detected") => Some(0.0),
            Some("good" | "bad") => Some(1.0),
            _ => None,
        }
    }
}

/// How long after it was made an event may not be there yet.
const NOT_THERE_YET: Duration = Duration::from_secs(5);

/// Whether an ID, which begins with the time in milliseconds, may be of an event that is not there yet. Others are never looked up
/// twice, so that nobody's junk costs a second request.
fn is_fresh(event_id: &str, now: UnixTime) -> bool {
    let made = event_id.split('.').next().and_then(|text| text.parse::<i64>().ok());
    made.map(UnixTime::from_millis).is_some_and(|made| now.since(made).max(made.since(now)) <= NOT_THERE_YET)
}

/// What a response says of an event.
enum Found {
    /// All that is to be known.
    Whole(Event, Map<String, Value>),
    /// Some of it.
    Partial(Event, Map<String, Value>),
    /// There is no such event, or not yet.
    Nothing,
}

/// Looks an event up. `None`: there is none. What may not be there yet, or is not whole, is looked up once more.
pub(super) async fn look_up(
    vendor: &Vendor,
    identification: &Identification<'_>,
    needs_signals: bool,
    request: &CheckRequest<'_>,
) -> Result<(Option<Event>, Map<String, Value>), CheckError> {
    let url = with_segments(&vendor.url, &["events", identification.event_id])?;
    let ask = async || {
        let get = request.client.get(url.clone()).bearer_auth(request.secrets.secret);
        read(&request.client.send(DEFINITION.display_name, get).await?)
    };
    let found = match ask().await? {
        Found::Nothing if is_fresh(identification.event_id, identification.now) => wait_and(ask).await?,
        Found::Partial(..) if needs_signals => wait_and(ask).await?,
        found => found,
    };
    Ok(match found {
        Found::Whole(event, full) | Found::Partial(event, full) => (Some(event), full),
        Found::Nothing => (None, Map::new()),
    })
}

async fn wait_and<T>(ask: impl AsyncFnOnce() -> T) -> T {
    tokio::time::sleep(NOT_YET_DELAY).await;
    ask().await
}

fn read(response: &ServerResponse) -> Result<Found, CheckError> {
    let Some(full) = response.object() else {
        return Err(if response.is_success() {
            not_understood()
        } else {
            CheckError::of_status(DEFINITION.display_name, response.status)
        });
    };
    if !response.is_success() {
        return refused(response.status, &full);
    }
    let raw = RawEvent::deserialize(&Value::Object(full.clone())).map_err(|_| not_understood())?;
    let (is_partial, full) = (raw.is_partial(), in_documented_shape(&full));
    let event = raw.into_event(response.clock_offset);
    Ok(if is_partial { Found::Partial(event, full) } else { Found::Whole(event, full) })
}

fn not_understood() -> CheckError {
    CheckError::Unavailable("Fingerprint gave a response that is not understood".to_owned())
}

/// An error: about the ID, which the browser sent, or about us.
fn refused(status: u16, full: &Map<String, Value>) -> Result<Found, CheckError> {
    let code = full.get("error").and_then(|error| error.get("code")).and_then(Value::as_str).unwrap_or_default();
    match (status, code) {
        // Never existed, expired, deleted, or cannot be an ID at all.
        (404, _) | (400, "request_cannot_be_parsed") => Ok(Found::Nothing),
        (409, "state_not_ready") => Ok(Found::Nothing),
        _ => Err(CheckError::of_status_and_text(DEFINITION.display_name, status, code)),
    }
}

/// The event in the shape that the specification documents for tokens, which is that of the interface before.
pub(super) fn in_documented_shape(event: &Map<String, Value>) -> Map<String, Value> {
    let mut visit = Map::new();
    let mut put = |name: &str, value: Option<&Value>| {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            visit.insert(name.to_owned(), value.clone());
        }
    };
    let identification = event.get("identification");
    let identified = |name: &str| identification.and_then(|identification| identification.get(name));
    put("requestId", event.get("event_id"));
    for (name, member) in
        [("incognito", "incognito"), ("ip", "ip_address"), ("url", "url"), ("tag", "tags"), ("linkedId", "linked_id")]
    {
        put(name, event.get(member));
    }
    for (name, member) in [
        ("confidence", "confidence"),
        ("visitorFound", "visitor_found"),
        ("firstSeenAt", "first_seen_at"),
        ("lastSeenAt", "last_seen_at"),
    ] {
        put(name, identified(member));
    }
    put("timestamp", event.get("timestamp"));
    let time = event.get("timestamp").and_then(Value::as_f64).map(|time| rfc3339(time_of(time)).into());
    put("time", time.as_ref());
    let details = browser_details(event);
    put("browserDetails", Some(&details));
    let visitor = identified("visitor_id").cloned().unwrap_or_default();
    let mut full = Map::from_iter([("visitorId".to_owned(), visitor), ("visits".to_owned(), json!([visit]))]);
    // What the interface before did not have stays under its own name.
    let signals = event.iter().filter(|(name, _)| !DOCUMENTED.contains(&name.as_str()));
    full.extend(signals.map(|(name, value)| (name.clone(), value.clone())));
    full
}

/// Members of an event that have a place in the documented shape.
const DOCUMENTED: [&str; 10] = [
    "event_id",
    "timestamp",
    "identification",
    "incognito",
    "ip_address",
    "url",
    "tags",
    "linked_id",
    "browser_details",
    "user_agent",
];

fn browser_details(event: &Map<String, Value>) -> Value {
    let mut details = Map::new();
    let known = event.get("browser_details").and_then(Value::as_object);
    for (name, member) in [
        ("browserName", "browser_name"),
        ("browserMajorVersion", "browser_major_version"),
        ("browserFullVersion", "browser_full_version"),
        ("os", "os"),
        ("osVersion", "os_version"),
        ("device", "device"),
    ] {
        if let Some(value) = known.and_then(|known| known.get(member)) {
            details.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(agent) = event.get("user_agent") {
        details.insert("userAgent".to_owned(), agent.clone());
    }
    let probability = match event.get("bot").and_then(Value::as_str) {
        Some("not_detected") => Some(0),
        Some("good" | "bad") => Some(1),
        _ => None,
    };
    details.extend(probability.map(|probability| ("botProbability".to_owned(), probability.into())));
    details.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &Value) -> Result<Found, CheckError> {
        super::read(&ServerResponse { status, body: body.to_string().into_bytes(), clock_offset: 0 })
    }

    /// As github.com/fingerprintjs/fingerprint-pro-server-api-openapi shows one, cut down.
    fn event() -> Value {
        json!({
            "linked_id": "somelinkedId", "tags": {}, "timestamp": 1_708_102_555_327_i64, "event_id": "1708102555327.NLOjmg",
            "url": "https://www.example.com/login?hope{this{works[!", "ip_address": "61.127.217.15",
            "user_agent": "Mozilla/5.0", "incognito": false, "replayed": false, "bot": "not_detected",
            "browser_details": {"browser_name": "Chrome", "browser_major_version": "74", "os": "Windows"},
            "identification": {
                "visitor_id": "Ibk1527CUFmcnjLwIs4A9", "confidence": {"score": 0.97, "version": "1.1"},
                "visitor_found": false, "first_seen_at": 1_708_102_555_327_i64, "last_seen_at": 1_708_102_555_327_i64,
            },
            "suspect_score": 0, "a_signal_of_next_year": {"x": true},
        })
    }

    #[test]
    fn an_event_is_read_and_what_is_not_known_of_it_stays_unknown() {
        let Ok(Found::Whole(read_event, _)) = read(200, &event()) else { panic!("not whole") };
        assert_eq!(read_event.visitor_id.as_deref(), Some("Ibk1527CUFmcnjLwIs4A9"));
        assert_eq!(read_event.made.as_millis(), 1_708_102_555_327);
        assert_eq!((read_event.bot_probability, read_event.is_replayed), (Some(0.0), false));
        let bot = |bot: Value| {
            let mut event = event();
            event["bot"] = bot;
            match read(200, &event) {
                Ok(Found::Whole(event, _)) => event.bot_probability,
                _ => panic!("not whole"),
            }
        };
        assert_eq!(
            [bot(json!("good")), bot(json!("bad")), bot(json!("maybe")), bot(json!(null))],
            [Some(1.0), Some(1.0), None, None]
        );
        let mut partial = event();
        partial["incremental_identification_status"] = json!("partially_completed");
        let Ok(Found::Partial(partial, _)) = read(200, &partial) else { panic!("whole") };
        assert_eq!(partial.bot_probability, None, "its signals mean nothing");
        let edge = json!({"event_id": "e", "timestamp": 1, "source": "edge"});
        let Ok(Found::Whole(edge, _)) = read(200, &edge) else { panic!("not read") };
        assert_eq!(edge.visitor_id, None);
    }

    #[test]
    fn only_what_was_made_just_now_may_not_be_there_yet() {
        let now = UnixTime::from_millis(1_708_102_555_327);
        for (id, fresh) in [
            ("1708102555327.NLOjmg", true),
            ("1708102550328.NLOjmg", true),
            ("1708102560327.x", true),
            ("1708102550326.NLOjmg", false),
            ("1708102561000.x", false),
            ("nG226lNwQWNTTWzOzKbF", false),
            (".x", false),
        ] {
            assert_eq!(is_fresh(id, now), fresh, "{id}");
        }
    }

    #[test]
    fn only_what_is_about_the_id_is_the_visitors_fault() {
        let error = |code: &str| json!({"error": {"code": code, "message": "text"}});
        for (status, code) in [(404, "event_not_found"), (400, "request_cannot_be_parsed"), (409, "state_not_ready")] {
            assert!(matches!(read(status, &error(code)), Ok(Found::Nothing)), "{code}");
        }
        for code in [
            "secret_api_key_required",
            "secret_api_key_not_found",
            "subscription_not_active",
            "wrong_region",
            "feature_not_enabled",
        ] {
            let read = read(403, &error(code)).err();
            assert_eq!(read, Some(CheckError::Misconfigured(format!("Fingerprint responded with status 403: {code}"))));
        }
        for (status, code) in [(429, "too_many_requests"), (500, "failed"), (504, "failed"), (400, "ruleset_not_found")]
        {
            assert!(matches!(read(status, &error(code)), Err(CheckError::Unavailable(_))), "{status} {code}");
        }
        for (status, body) in [(200, json!("<html>")), (200, json!({})), (200, json!({"event_id": 3})), (502, json!(1))]
        {
            assert!(matches!(read(status, &body), Err(CheckError::Unavailable(_))), "{status} {body}");
        }
    }

    #[test]
    fn tokens_embed_the_documented_shape_and_the_signals_that_it_does_not_have() {
        let full = Value::Object(in_documented_shape(event().as_object().unwrap()));
        assert_eq!(
            full,
            json!({
                "visitorId": "Ibk1527CUFmcnjLwIs4A9",
                "visits": [{
                    "requestId": "1708102555327.NLOjmg", "timestamp": 1_708_102_555_327_i64,
                    "time": "2024-02-16T16:55:55Z", "incognito": false, "ip": "61.127.217.15", "linkedId": "somelinkedId",
                    "tag": {}, "url": "https://www.example.com/login?hope{this{works[!", "visitorFound": false,
                    "confidence": {"score": 0.97, "version": "1.1"}, "firstSeenAt": 1_708_102_555_327_i64,
                    "lastSeenAt": 1_708_102_555_327_i64,
                    "browserDetails": {
                        "browserName": "Chrome", "browserMajorVersion": "74", "os": "Windows", "userAgent": "Mozilla/5.0",
                        "botProbability": 0,
                    },
                }],
                "replayed": false, "bot": "not_detected", "suspect_score": 0, "a_signal_of_next_year": {"x": true},
            })
        );
    }
}
