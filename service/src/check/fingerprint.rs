//! Fingerprint (Server API v3): the visit is looked up, and the bot result where the visit does not have it.

use std::time::Duration;

use approov_verify::time::UnixTime;
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;
use url::Url;

use crate::allowed_origins::AllowedOrigins;
use crate::error::Code;
use crate::secrets::SecretList;
use crate::settings::Read;

use super::brief::Brief;
use super::check_site::CheckSite;
use super::client::{CheckRequest, ServerResponse, with_segments};
use super::definition::{Definition, OptionKind, Param, ParamText, ProviderCodes, SiteOption};
use super::outcome::{CheckError, Checked, FailedRule};
use super::params::ResultParams;
use super::site_table::{SiteTable, VENDOR_OPTIONS, Vendor};

/// The regions of subscriptions, and their servers. The first is the default.
const REGIONS: [(&str, &str); 3] =
    [("RoW", "https://api.fpjs.io"), ("EU", "https://eu.api.fpjs.io"), ("AP", "https://ap.api.fpjs.io")];

/// How far ahead of ours Fingerprint's clock may be.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

const PUBLIC_API_KEY: &str = "fingerprintjs-token";
const VISITOR_ID: &str = "fingerprintjs-visitor-id";
const REQUEST_ID: &str = "fingerprintjs-request-id";

/// The names that belong to Fingerprint.
pub(super) static DEFINITION: Definition = Definition {
    name: "fingerprint",
    prefix: "fp",
    display_name: "Fingerprint",
    site_noun: "subscription",
    key_name: "public_api_key",
    key_label: "Subscription Key",
    params: &[
        Param::key(PUBLIC_API_KEY, Code::FpEmptyBrowserToken),
        Param::required(VISITOR_ID, Code::FpEmptyVisitorId, ParamText::Id),
        Param::required(REQUEST_ID, Code::FpEmptyRequestId, ParamText::Id),
    ],
    result: REQUEST_ID,
    codes: ProviderCodes {
        config_not_found: Code::FpConfigNotFound,
        missing_required: Code::FpMissingRequired,
        mismatch: Code::FpParamMismatch,
        key_not_found: Code::FpBrowserTokenNotFound,
        check: Code::FpTokenCheck,
    },
    options: &[
        VENDOR_OPTIONS,
        &[
            SiteOption::new("region", "region", OptionKind::Text),
            SiteOption::new("maxElapsedTime", "max_elapsed_time", OptionKind::Seconds),
            SiteOption::new("maxBotProbability", "max_bot_probability", OptionKind::Probability),
        ],
    ],
};

/// A Fingerprint subscription.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where visits are looked up, and the secret for it.
    pub vendor: Vendor,
    /// Longest time between the identification and the token request.
    pub max_elapsed_time: Duration,
    /// Highest bot probability.
    pub max_bot_probability: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    max_elapsed_time: Option<Spanned<f64>>,
    max_bot_probability: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
struct RawRegion {
    region: Option<Spanned<String>>,
}

impl CheckSite for Site {
    fn read(mut table: SiteTable<'_>) -> Read<Self> {
        let source = table.source;
        let RawRegion { region } = table.take(&["region"])?;
        let name = region.as_ref().map_or("RoW", |region| region.get_ref().as_str());
        let server = REGIONS.iter().find(|(known, _)| *known == name).map(|(_, server)| *server);
        let server = match (server, &region) {
            (None, Some(at)) => return source.error(at, format!("region must be RoW, EU or AP, got \"{name}\"")),
            (server, _) => server.unwrap_or_default(),
        };
        let vendor = table.vendor(server)?;
        let raw: RawRules = table.rest()?;
        Ok(Self {
            vendor,
            max_elapsed_time: match &raw.max_elapsed_time {
                Some(value) => source.duration(value)?,
                None => Duration::from_secs(2),
            },
            max_bot_probability: source.probability(raw.max_bot_probability.as_ref(), 1.0)?,
        })
    }

    fn secret(&self) -> Option<&SecretList> {
        Some(&self.vendor.secret)
    }

    fn domains(&self) -> &[String] {
        &[]
    }

    fn describe(&self) -> Vec<String> {
        vec![
            format!("Region: {}", region(&self.vendor.url)),
            format!("Max Elapsed Time: {:.2}s", self.max_elapsed_time.as_secs_f64()),
            format!("Max Bot Probability: {:.2}", self.max_bot_probability),
        ]
    }

    fn warnings(&self, _: &AllowedOrigins) -> Vec<String> {
        let any_bot = self.max_bot_probability >= 1.0;
        any_bot.then(|| "accepts any bot probability (max_bot_probability is 1)".to_owned()).into_iter().collect()
    }

    fn result_lifetime(&self) -> Duration {
        self.max_elapsed_time.saturating_add(CLOCK_SKEW)
    }

    fn is_test_result(&self, _: &str, _: &str) -> bool {
        false
    }

    fn used_before(&self, params: &ResultParams<'_>) -> Checked {
        let (visitor_id, request_id) = (params.get(VISITOR_ID).to_owned(), params.get(REQUEST_ID).to_owned());
        Checked { verdict: Err(FailedRule::Used), brief: Brief::Visit { visitor_id, request_id }, full: Map::new() }
    }

    async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError> {
        let identification = Identification {
            visitor_id: request.params.get(VISITOR_ID),
            request_id: request.params.get(REQUEST_ID),
            allowed_origins: request.context.allowed_origins,
            now: request.context.now,
        };
        let get = |segments: &[&str]| {
            let url = with_segments(&self.vendor.url, segments)?;
            Ok(request.client.get(url).header("Auth-API-Key", request.secret))
        };
        let send = |request_builder| request.client.send(DEFINITION.display_name, request_builder);
        let visitor =
            get(&["visitors", identification.visitor_id])?.query(&[("request_id", identification.request_id)]);
        let visitor = send(visitor).await?;
        let event = if self.needs_bot_result(&visitor) {
            Some(send(get(&["events", identification.request_id])?).await?)
        } else {
            None
        };
        self.judge(&identification, &visitor, event.as_ref())
    }
}

/// The region of a server; a server of no region is named itself.
fn region(url: &Url) -> &str {
    let text = url.as_str();
    let server = text.trim_end_matches('/');
    REGIONS.iter().find(|(_, known)| *known == server).map_or(text, |(name, _)| *name)
}

/// What the browser says about its identification.
struct Identification<'a> {
    visitor_id: &'a str,
    request_id: &'a str,
    /// The pages that may have asked for it.
    allowed_origins: &'a AllowedOrigins,
    /// When it is looked up.
    now: UnixTime,
}

/// A visitor in the response to `GET /visitors/{id}`; what is not needed here stays in the full response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Visitor {
    visitor_id: String,
    #[serde(default)]
    visits: Vec<Visit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Visit {
    request_id: String,
    timestamp: f64,
    /// The page.
    url: Option<String>,
    browser_details: Option<BrowserDetails>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BrowserDetails {
    bot_probability: Option<f64>,
}

impl Visit {
    fn bot_probability(&self) -> Option<f64> {
        self.browser_details.as_ref().and_then(|details| details.bot_probability)
    }

    fn origin(&self) -> Option<String> {
        Some(Url::parse(self.url.as_ref()?).ok()?.origin().ascii_serialization())
    }

    fn made(&self) -> UnixTime {
        // Milliseconds, exact in a double for the next 285,000 years; out of range saturates to "too old" or "ahead".
        #[allow(clippy::cast_possible_truncation)]
        UnixTime::from_millis(self.timestamp.clamp(0.0, 9e15) as i64)
    }
}

impl Site {
    /// Whether the bot result must be requested separately: a limit is set, and the visit does not have it.
    fn needs_bot_result(&self, visitor: &ServerResponse) -> bool {
        self.max_bot_probability < 1.0
            && visitor.is_success()
            && serde_json::from_slice::<Visitor>(&visitor.body)
                .is_ok_and(|visitor| visitor.visits.iter().any(|visit| visit.bot_probability().is_none()))
    }

    /// Judges Fingerprint's response about a visitor, and the one about the event where it was requested.
    fn judge(
        &self,
        identification: &Identification<'_>,
        visitor: &ServerResponse,
        event: Option<&ServerResponse>,
    ) -> Result<Checked, CheckError> {
        let brief = Brief::Visit {
            visitor_id: identification.visitor_id.to_owned(),
            request_id: identification.request_id.to_owned(),
        };
        if visitor.status == 404 {
            return Ok(Checked { verdict: Err(FailedRule::Visitor), brief, full: Map::new() });
        }
        if !visitor.is_success() {
            return Err(error_of(visitor));
        }
        let Ok(known) = serde_json::from_slice::<Visitor>(&visitor.body) else {
            return Err(CheckError::Unavailable("Fingerprint gave a response that is not understood".to_owned()));
        };
        // The visit's time is by Fingerprint's clock; so is now.
        let now = UnixTime::from_millis(identification.now.as_millis().saturating_sub(visitor.clock_offset));
        let verdict = self.apply_rules(&Identification { now, ..*identification }, &known, event)?;
        Ok(Checked { verdict, brief, full: visitor.object().unwrap_or_default() })
    }

    fn apply_rules(
        &self,
        identification: &Identification<'_>,
        known: &Visitor,
        event: Option<&ServerResponse>,
    ) -> Result<Result<(), FailedRule>, CheckError> {
        let visit = known.visits.iter().find(|visit| visit.request_id == identification.request_id);
        let Some(visit) = visit.filter(|_| known.visitor_id == identification.visitor_id) else {
            return Ok(Err(FailedRule::Visitor));
        };
        let (now, made) = (identification.now, visit.made());
        if now.since(made) > self.max_elapsed_time || made.since(now) > CLOCK_SKEW {
            return Ok(Err(FailedRule::Age));
        }
        if !identification.allowed_origins.allows(visit.origin().as_deref()) {
            return Ok(Err(FailedRule::Origin));
        }
        if self.max_bot_probability < 1.0 {
            let probability = match (visit.bot_probability(), event) {
                (Some(probability), _) => probability,
                (None, Some(event)) => bot_probability(event)?,
                (None, None) => {
                    return Err(CheckError::Unavailable("Fingerprint reported nothing about bots".to_owned()));
                }
            };
            if probability > self.max_bot_probability {
                return Ok(Err(FailedRule::Bot));
            }
        }
        Ok(Ok(()))
    }
}

/// `products.botd.data.bot.result`: a bot, good or bad, is certainly a bot.
fn bot_probability(event: &ServerResponse) -> Result<f64, CheckError> {
    if !event.is_success() {
        return Err(error_of(event));
    }
    let value: Value = serde_json::from_slice(&event.body).unwrap_or_default();
    match value.pointer("/products/botd/data/bot/result").and_then(Value::as_str) {
        Some("notDetected") => Ok(0.0),
        Some("good" | "bad") => Ok(1.0),
        _ => Err(CheckError::Unavailable("Fingerprint's bot detection gave no result".to_owned())),
    }
}

fn error_of(response: &ServerResponse) -> CheckError {
    let object = response.object();
    let text = object.as_ref().and_then(|object| object.get("error")).and_then(Value::as_str);
    CheckError::of_status_and_text(DEFINITION.display_name, response.status, text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use approov_verify::secret::Secret;
    use serde_json::json;

    use super::*;
    use crate::secrets::{KeptSecret, SecretKind};

    const NOW: UnixTime = UnixTime::from_millis(1_620_127_951_000);

    fn site(max_bot_probability: f64) -> Site {
        Site {
            vendor: Vendor {
                secret: KeptSecret::here(SecretKind::Text, Secret::from_bytes(b"shh".to_vec())).into(),
                url: Url::parse("https://check.example/").unwrap(),
            },
            max_elapsed_time: Duration::from_secs(2),
            max_bot_probability,
        }
    }

    fn fingerprint(
        visitor: Value,
        status: u16,
        event: Option<Value>,
        max_bot_probability: f64,
    ) -> Result<Result<(), FailedRule>, CheckError> {
        fingerprint_for(&[], visitor, status, event, max_bot_probability)
    }

    fn fingerprint_for(
        allowed_origins: &[&str],
        visitor: Value,
        status: u16,
        event: Option<Value>,
        max_bot_probability: f64,
    ) -> Result<Result<(), FailedRule>, CheckError> {
        let site = site(max_bot_probability);
        let visitor = ServerResponse { status, body: visitor.to_string().into_bytes(), clock_offset: 0 };
        let event =
            event.map(|event| ServerResponse { status: 200, body: event.to_string().into_bytes(), clock_offset: 0 });
        assert_eq!(site.needs_bot_result(&visitor), event.is_some(), "requested exactly when needed");
        let allowed_origins = &AllowedOrigins::parse(allowed_origins.iter().copied()).unwrap();
        let identification = Identification { visitor_id: "V", request_id: "R", allowed_origins, now: NOW };
        site.judge(&identification, &visitor, event.as_ref()).map(|checked| {
            assert_eq!(checked.brief, Brief::Visit { visitor_id: "V".to_owned(), request_id: "R".to_owned() });
            checked.verdict
        })
    }

    fn visit(timestamp: i64) -> Value {
        json!({"visitorId": "V", "visits": [{"requestId": "R", "timestamp": timestamp, "browserDetails": {"botProbability": 0.3}}]})
    }

    #[test]
    fn a_fingerprint_response_is_judged_by_every_rule() {
        let now = NOW.as_millis();
        assert_eq!(fingerprint(visit(now - 2000), 200, None, 1.0), Ok(Ok(())));
        assert_eq!(fingerprint(visit(now - 2001), 200, None, 1.0), Ok(Err(FailedRule::Age)));
        assert_eq!(fingerprint(visit(now + 5001), 200, None, 1.0), Ok(Err(FailedRule::Age)));
        assert_eq!(fingerprint(visit(now), 200, None, 0.3), Ok(Ok(())));
        assert_eq!(fingerprint(visit(now), 200, None, 0.29), Ok(Err(FailedRule::Bot)));
        let mut other = visit(now);
        other["visitorId"] = json!("W");
        assert_eq!(fingerprint(other, 200, None, 1.0), Ok(Err(FailedRule::Visitor)));
        assert_eq!(fingerprint(json!({"visitorId": "V", "visits": []}), 200, None, 1.0), Ok(Err(FailedRule::Visitor)));
        assert_eq!(fingerprint(json!({"error": "visitor not found"}), 404, None, 1.0), Ok(Err(FailedRule::Visitor)));
        assert_eq!(
            fingerprint(json!({"error": "secret key is wrong"}), 403, None, 1.0),
            Err(CheckError::Misconfigured("Fingerprint responded with status 403: secret key is wrong".to_owned()))
        );
        for status in [429, 500, 503] {
            let away = fingerprint(visit(now), status, None, 1.0).unwrap_err();
            assert_eq!(away, CheckError::Unavailable(format!("Fingerprint responded with status {status}")));
        }
        assert!(fingerprint(json!({"visits": 3}), 200, None, 1.0).is_err());
    }

    #[test]
    fn a_wrong_clock_of_this_machine_does_not_make_identifications_old() {
        let site = site(1.0);
        let origins = AllowedOrigins::default();
        let identification = Identification { visitor_id: "V", request_id: "R", allowed_origins: &origins, now: NOW };
        for (clock_offset, age, verdict) in [
            (45_000, 46_000, Ok(())),
            (45_000, 47_001, Err(FailedRule::Age)),
            (-45_000, -44_000, Ok(())),
            (0, 45_000, Err(FailedRule::Age)),
        ] {
            let body = visit(NOW.as_millis() - age).to_string().into_bytes();
            let visitor = ServerResponse { status: 200, body, clock_offset };
            assert_eq!(site.judge(&identification, &visitor, None).unwrap().verdict, verdict, "{clock_offset} {age}");
        }
    }

    #[test]
    fn an_identification_counts_only_if_a_page_of_the_account_asked_for_it() {
        let allowed = ["https://app.example.com", "*.example.org"];
        let on = |url: Value| {
            let mut visitor = visit(NOW.as_millis());
            visitor["visits"][0]["url"] = url;
            fingerprint_for(&allowed, visitor, 200, None, 1.0)
        };
        for url in ["https://app.example.com/login?next=/", "https://APP.example.com:443/", "https://a.b.example.org/"]
        {
            assert_eq!(on(json!(url)), Ok(Ok(())), "{url}");
        }
        for url in
            ["https://evil.example/", "http://app.example.com/", "https://example.org/", "about:blank", "nonsense", ""]
        {
            assert_eq!(on(json!(url)), Ok(Err(FailedRule::Origin)), "{url}");
        }
        assert_eq!(on(json!(null)), Ok(Err(FailedRule::Origin)), "unknown is not allowed");
    }

    #[test]
    fn bots_are_asked_for_when_the_visit_does_not_tell() {
        let mut silent = visit(NOW.as_millis());
        silent["visits"][0]["browserDetails"] = json!({});
        let event = |result: &str| Some(json!({"products": {"botd": {"data": {"bot": {"result": result}}}}}));
        assert_eq!(fingerprint(silent.clone(), 200, event("notDetected"), 0.5), Ok(Ok(())));
        assert_eq!(fingerprint(silent.clone(), 200, event("bad"), 0.5), Ok(Err(FailedRule::Bot)));
        assert_eq!(fingerprint(silent.clone(), 200, event("good"), 0.5), Ok(Err(FailedRule::Bot)));
        assert!(fingerprint(silent, 200, event("?"), 0.5).is_err());
    }
}
