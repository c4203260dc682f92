//! Judges what the check services' servers answer. Pure: bytes of an answer in, verdict out.
//!
//! Three things are told apart. A check that ran and met the rules passed. A check that ran and did
//! not, failed: the client gets tokens that no backend accepts. A check that did not run (wrong
//! secret, outage, nonsense) is an error that the client is told about.

mod client;
mod evidence;

pub use client::{CheckClient, CheckContext};
pub use evidence::{Evidence, FreshResult, digest_of};

use std::time::Duration;

use approov_verify::time::UnixTime;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{Rule, Site};
use crate::provider::Provider;
use crate::time::rfc3339;

/// How far ahead of ours a check service's clock may be.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// What came of a check that ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// `Err` says which rule was not met.
    pub verdict: Result<(), FailedRule>,
    /// What tokens embed by default. A failed check has the same members, so that it looks no different.
    pub brief: Map<String, Value>,
    /// The whole answer, for encrypted tokens.
    pub full: Map<String, Value>,
}

/// Why a check failed. For the service's log and metrics; clients are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedRule {
    /// The check service does not accept the result: wrong, expired or used.
    NotAccepted,
    /// Solved on a host that is not listed, or not the one the page named.
    Host,
    /// Made for an action that is not listed.
    Action,
    /// The score is too low.
    Score,
    /// The identification is another visitor's or unknown.
    Visitor,
    /// The identification is too old.
    Age,
    /// Probably a bot.
    Bot,
}

impl FailedRule {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            FailedRule::NotAccepted => "not-accepted",
            FailedRule::Host => "host",
            FailedRule::Action => "action",
            FailedRule::Score => "score",
            FailedRule::Visitor => "visitor",
            FailedRule::Age => "age",
            FailedRule::Bot => "bot",
        }
    }
}

/// The check could not be made. The text is fit for clients: no secrets, no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckError(pub String);

/// An answer of a check service's server.
pub struct ServerAnswer<'a> {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: &'a [u8],
}

impl ServerAnswer<'_> {
    fn object(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(self.body).ok()
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Judges the answer to a captcha's `siteverify`.
///
/// # Errors
/// When the answer is an error of the service or of our asking.
pub fn judge_captcha(
    result: &FreshResult,
    site: &Site,
    answer: &ServerAnswer<'_>,
    page_host: &str,
    now: UnixTime,
) -> Result<Checked, CheckError> {
    let title = result.provider.title();
    let full = answer.object();
    let Some(full) = full.filter(|full| full.get("success").is_some_and(Value::is_boolean)) else {
        return Err(if answer.is_success() {
            CheckError(format!("{title} gave an answer that is not understood"))
        } else {
            CheckError(format!("{title} answered with status {}", answer.status))
        });
    };
    let success = full.get("success") == Some(&Value::Bool(true));
    let codes: Vec<&str> =
        full.get("error-codes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if !success && let Some(ours) = codes.iter().find(|code| !is_about_the_result(code)) {
        return Err(CheckError(format!("{title}: {}", plain(ours))));
    }
    let hostname = full.get("hostname").and_then(Value::as_str);
    let verdict = if success { captcha_rules(result, site, &full, hostname) } else { Err(FailedRule::NotAccepted) };
    let brief = Map::from_iter([
        (
            "challenge_ts".to_owned(),
            full.get("challenge_ts").and_then(Value::as_str).map_or_else(|| rfc3339(now), str::to_owned).into(),
        ),
        ("hostname".to_owned(), hostname.unwrap_or(page_host).into()),
    ]);
    Ok(Checked { verdict, brief, full })
}

/// Whether an error code of a captcha service is about the result that the browser sent. Others are
/// about our secret or our request. (Documents of hCaptcha and reCAPTCHA, "siteverify error codes".)
fn is_about_the_result(code: &str) -> bool {
    matches!(
        code,
        "missing-input-response"
            | "invalid-input-response"
            | "expired-input-response"
            | "already-seen-response"
            | "invalid-or-already-seen-response"
            | "timeout-or-duplicate"
            | "not-using-dummy-passcode"
    )
}

fn captcha_rules(
    result: &FreshResult,
    site: &Site,
    full: &Map<String, Value>,
    hostname: Option<&str>,
) -> Result<(), FailedRule> {
    let Rule::Captcha { domains, actions, min_score, .. } = &site.rule else {
        return Err(FailedRule::NotAccepted);
    };
    let hostname = hostname.map(str::to_ascii_lowercase);
    if !domains.is_empty() && hostname.as_ref().is_none_or(|host| !domains.contains(host)) {
        return Err(FailedRule::Host);
    }
    if let Evidence::Captcha { host: Some(host), .. } = &result.evidence
        && hostname.as_deref() != Some(host.to_ascii_lowercase().as_str())
    {
        return Err(FailedRule::Host);
    }
    if let Some(action) = full.get("action").and_then(Value::as_str)
        && !actions.is_empty()
        && !actions.iter().any(|known| known == action)
    {
        return Err(FailedRule::Action);
    }
    if full.get("score").and_then(Value::as_f64).is_some_and(|score| score < *min_score) {
        return Err(FailedRule::Score);
    }
    Ok(())
}

/// A visitor as `GET /visitors/{id}` tells it; what is not needed here stays in the full answer.
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
    browser_details: Option<BrowserDetails>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BrowserDetails {
    bot_probability: Option<f64>,
}

/// Whether the bot result has to be asked for separately: a limit is set, and the visit does not tell.
pub fn needs_bot_result(site: &Site, visitor: &ServerAnswer<'_>) -> bool {
    let Rule::Fingerprint { max_bot_probability, .. } = &site.rule else {
        return false;
    };
    *max_bot_probability < 1.0
        && visitor.is_success()
        && serde_json::from_slice::<Visitor>(visitor.body).is_ok_and(|visitor| {
            visitor
                .visits
                .iter()
                .any(|visit| visit.browser_details.as_ref().and_then(|details| details.bot_probability).is_none())
        })
}

/// Judges Fingerprint's answer about a visitor, and its answer about the event where it was asked for.
///
/// # Errors
/// When an answer is an error of the service or of our asking.
pub fn judge_fingerprint(
    result: &FreshResult,
    site: &Site,
    visitor: &ServerAnswer<'_>,
    event: Option<&ServerAnswer<'_>>,
    now: UnixTime,
) -> Result<Checked, CheckError> {
    let Evidence::Fingerprint { visitor_id, request_id } = &result.evidence else {
        return Err(CheckError("not a Fingerprint result".to_owned()));
    };
    let brief = Map::from_iter([
        ("visitorId".to_owned(), visitor_id.as_str().into()),
        ("visits".to_owned(), serde_json::json!([{ "requestId": request_id }])),
    ]);
    let checked = |verdict, full| Ok(Checked { verdict, brief: brief.clone(), full });
    if visitor.status == 404 {
        return checked(Err(FailedRule::Visitor), Map::new());
    }
    if !visitor.is_success() {
        return Err(fingerprint_error(visitor));
    }
    let full = visitor.object().unwrap_or_default();
    let Ok(known) = serde_json::from_slice::<Visitor>(visitor.body) else {
        return Err(CheckError("Fingerprint gave an answer that is not understood".to_owned()));
    };
    let visit = known.visits.iter().find(|visit| visit.request_id == *request_id);
    let (true, Some(visit)) = (known.visitor_id == *visitor_id, visit) else {
        return checked(Err(FailedRule::Visitor), full);
    };
    let Rule::Fingerprint { max_elapsed_time, max_bot_probability } = &site.rule else {
        return checked(Err(FailedRule::Visitor), full);
    };
    // Milliseconds, exact in a double for the next 285,000 years; out of range saturates to "too old" or "ahead".
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let made = UnixTime::from_millis(visit.timestamp.clamp(0.0, 9e15) as i64);
    if now.since(made) > *max_elapsed_time || made.since(now) > CLOCK_SKEW {
        return checked(Err(FailedRule::Age), full);
    }
    if *max_bot_probability < 1.0 {
        let told = visit.browser_details.as_ref().and_then(|details| details.bot_probability);
        let probability = match (told, event) {
            (Some(probability), _) => probability,
            (None, Some(event)) => bot_probability(event)?,
            (None, None) => {
                return Err(CheckError("Fingerprint did not tell about bots".to_owned()));
            }
        };
        if probability > *max_bot_probability {
            return checked(Err(FailedRule::Bot), full);
        }
    }
    checked(Ok(()), full)
}

/// `products.botd.data.bot.result`: a bot, good or bad, is certainly a bot.
fn bot_probability(event: &ServerAnswer<'_>) -> Result<f64, CheckError> {
    if !event.is_success() {
        return Err(fingerprint_error(event));
    }
    let value: Value = serde_json::from_slice(event.body).unwrap_or_default();
    match value.pointer("/products/botd/data/bot/result").and_then(Value::as_str) {
        Some("notDetected") => Ok(0.0),
        Some("good" | "bad") => Ok(1.0),
        _ => Err(CheckError("Fingerprint's bot detection gave no result".to_owned())),
    }
}

fn fingerprint_error(answer: &ServerAnswer<'_>) -> CheckError {
    let told = answer.object().and_then(|object| object.get("error").and_then(Value::as_str).map(plain));
    CheckError(match told {
        Some(text) if !text.is_empty() => {
            format!("Fingerprint answered with status {}: {text}", answer.status)
        }
        _ => format!("Fingerprint answered with status {}", answer.status),
    })
}

/// Text of another server, cut down to what cannot do harm in a message.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | ',')).take(120).collect()
}

/// The form that a captcha's `siteverify` is asked with.
pub fn captcha_form<'a>(result: &'a FreshResult, site: &'a Site, client_ip: &'a str) -> Vec<(&'static str, &'a str)> {
    let mut form = Vec::with_capacity(4);
    form.push(("secret", std::str::from_utf8(site.secret.as_bytes()).unwrap_or_default()));
    if let Evidence::Captcha { token, .. } = &result.evidence {
        form.push(("response", token.as_str()));
    }
    if result.provider == Provider::Hcaptcha {
        form.push(("sitekey", &result.site));
    }
    if matches!(&site.rule, Rule::Captcha { include_ip: true, .. }) {
        form.push(("remoteip", client_ip));
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;
    use approov_verify::secret::Secret;
    use serde_json::json;
    use url::Url;

    const NOW: UnixTime = UnixTime::from_millis(1_620_127_951_000);

    fn captcha(provider: Provider, host: Option<&str>) -> FreshResult {
        FreshResult {
            provider,
            site: "key".into(),
            evidence: Evidence::Captcha { token: "t".into(), host: host.map(Into::into) },
            digest: String::new(),
        }
    }

    fn site(rule: Rule) -> Site {
        Site {
            secret: Secret::from_bytes(b"shh".to_vec()),
            embed_result: false,
            max_result_lifetime: None,
            rate_limit: None,
            verify_url: Url::parse("https://check.example/siteverify").unwrap(),
            rule,
        }
    }

    fn captcha_site(domains: &[&str], actions: &[&str], min_score: f64) -> Site {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        site(Rule::Captcha { domains: own(domains), actions: own(actions), min_score, include_ip: true })
    }

    fn judge(
        site: &Site,
        host: Option<&str>,
        status: u16,
        answer: Value,
    ) -> Result<Result<(), FailedRule>, CheckError> {
        let body = answer.to_string();
        judge_captcha(
            &captcha(Provider::Hcaptcha, host),
            site,
            &ServerAnswer { status, body: body.as_bytes() },
            "page.example",
            NOW,
        )
        .map(|checked| {
            let members: Vec<_> = checked.brief.keys().cloned().collect();
            assert_eq!(members, ["challenge_ts", "hostname"], "pass or fail, the brief looks the same");
            checked.verdict
        })
    }

    #[test]
    fn a_captcha_answer_is_judged_by_every_rule() {
        let any = captcha_site(&[], &[], 0.0);
        let strict = captcha_site(&["example.com"], &["login"], 0.5);
        let good = json!({"success": true, "hostname": "Example.com", "score": 0.5, "action": "login"});
        assert_eq!(judge(&strict, None, 200, good.clone()), Ok(Ok(())));
        let with = |name: &str, value: Value| {
            let mut answer = good.clone();
            answer[name] = value;
            answer
        };
        assert_eq!(judge(&strict, None, 200, with("hostname", json!("evil.example"))), Ok(Err(FailedRule::Host)));
        assert_eq!(judge(&strict, None, 200, with("hostname", json!(null))), Ok(Err(FailedRule::Host)));
        assert_eq!(judge(&strict, None, 200, with("action", json!("pay"))), Ok(Err(FailedRule::Action)));
        assert_eq!(judge(&strict, None, 200, with("action", json!(null))), Ok(Ok(())));
        assert_eq!(judge(&strict, None, 200, with("score", json!(0.49))), Ok(Err(FailedRule::Score)));
        assert_eq!(judge(&strict, None, 200, with("score", json!(null))), Ok(Ok(())));
        assert_eq!(judge(&any, Some("EXAMPLE.com"), 200, good.clone()), Ok(Ok(())));
        assert_eq!(judge(&any, Some("other.com"), 200, good), Ok(Err(FailedRule::Host)));
    }

    #[test]
    fn a_bad_result_fails_and_a_bad_secret_is_an_error() {
        let any = captcha_site(&[], &[], 0.0);
        let refused = |code: &str| judge(&any, None, 200, json!({"success": false, "error-codes": [code]}));
        for code in
            ["invalid-input-response", "expired-input-response", "already-seen-response", "timeout-or-duplicate"]
        {
            assert_eq!(refused(code), Ok(Err(FailedRule::NotAccepted)), "{code}");
        }
        for code in ["invalid-input-secret", "missing-input-secret", "sitekey-secret-mismatch", "bad-request"] {
            assert_eq!(refused(code), Err(CheckError(format!("hCaptcha: {code}"))), "{code}");
        }
        assert_eq!(judge(&any, None, 200, json!({"success": false})), Ok(Err(FailedRule::NotAccepted)));
        assert_eq!(
            judge(&any, None, 200, json!({"success": "true"})).unwrap_err().0,
            "hCaptcha gave an answer that is not understood"
        );
        assert_eq!(judge(&any, None, 503, json!("sorry")).unwrap_err().0, "hCaptcha answered with status 503");
        assert_eq!(
            refused("<script>alert('x')</script> https://10.0.0.1/?secret=shh").unwrap_err().0,
            "hCaptcha: scriptalertxscript https10.0.0.1secretshh"
        );
    }

    #[test]
    fn the_captcha_form_has_the_documented_fields() {
        let site = captcha_site(&[], &[], 0.0);
        assert_eq!(
            captcha_form(&captcha(Provider::Hcaptcha, None), &site, "1.2.3.4"),
            [("secret", "shh"), ("response", "t"), ("sitekey", "key"), ("remoteip", "1.2.3.4")]
        );
        let site = Site {
            rule: Rule::Captcha { domains: vec![], actions: vec![], min_score: 0.0, include_ip: false },
            ..site
        };
        assert_eq!(
            captcha_form(&captcha(Provider::Recaptcha, None), &site, "1.2.3.4"),
            [("secret", "shh"), ("response", "t")]
        );
    }

    fn fingerprint(
        visitor: Value,
        status: u16,
        event: Option<Value>,
        max_bot: f64,
    ) -> Result<Result<(), FailedRule>, CheckError> {
        let result = FreshResult {
            provider: Provider::Fingerprint,
            site: "key".into(),
            evidence: Evidence::Fingerprint { visitor_id: "V".into(), request_id: "R".into() },
            digest: String::new(),
        };
        let site = site(Rule::Fingerprint { max_elapsed_time: Duration::from_secs(2), max_bot_probability: max_bot });
        let body = visitor.to_string();
        let visitor = ServerAnswer { status, body: body.as_bytes() };
        let event = event.map(|event| event.to_string());
        let event = event.as_ref().map(|event| ServerAnswer { status: 200, body: event.as_bytes() });
        assert_eq!(needs_bot_result(&site, &visitor), event.is_some(), "asked exactly when needed");
        judge_fingerprint(&result, &site, &visitor, event.as_ref(), NOW).map(|checked| {
            assert_eq!(Value::Object(checked.brief), json!({"visitorId": "V", "visits": [{"requestId": "R"}]}));
            checked.verdict
        })
    }

    fn visit(timestamp: i64) -> Value {
        json!({"visitorId": "V", "visits": [{"requestId": "R", "timestamp": timestamp, "browserDetails": {"botProbability": 0.3}}]})
    }

    #[test]
    fn a_fingerprint_answer_is_judged_by_every_rule() {
        assert_eq!(fingerprint(visit(NOW.as_millis() - 2000), 200, None, 1.0), Ok(Ok(())));
        assert_eq!(fingerprint(visit(NOW.as_millis() - 2001), 200, None, 1.0), Ok(Err(FailedRule::Age)));
        assert_eq!(fingerprint(visit(NOW.as_millis() + 5001), 200, None, 1.0), Ok(Err(FailedRule::Age)));
        assert_eq!(fingerprint(visit(NOW.as_millis()), 200, None, 0.3), Ok(Ok(())));
        assert_eq!(fingerprint(visit(NOW.as_millis()), 200, None, 0.29), Ok(Err(FailedRule::Bot)));
        let mut other = visit(NOW.as_millis());
        other["visitorId"] = json!("W");
        assert_eq!(fingerprint(other, 200, None, 1.0), Ok(Err(FailedRule::Visitor)));
        assert_eq!(fingerprint(json!({"visitorId": "V", "visits": []}), 200, None, 1.0), Ok(Err(FailedRule::Visitor)));
        assert_eq!(fingerprint(json!({"error": "visitor not found"}), 404, None, 1.0), Ok(Err(FailedRule::Visitor)));
        assert_eq!(
            fingerprint(json!({"error": "secret key is wrong"}), 403, None, 1.0).unwrap_err().0,
            "Fingerprint answered with status 403: secret key is wrong"
        );
        assert!(fingerprint(json!({"visits": 3}), 200, None, 1.0).is_err());
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
