//! reCAPTCHA Enterprise (docs.cloud.google.com/recaptcha): an assessment of a token in a project of Google Cloud.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::time::parse_rfc3339;

use super::brief::Brief;
use super::client::{CheckRequest, ServerResponse, with_segments};
use super::outcome::{CheckError, Checked, FailedRule};
use super::site_table::Vendor;
use super::siteverify::{self, Action, CaptchaRules, Score, Solved};

/// The server; the rest of the URL names the project.
pub(super) const SERVER: &str = "https://recaptchaenterprise.googleapis.com/";

const NAME: &str = "reCAPTCHA Enterprise";

/// Has a token assessed.
pub(super) async fn check(
    vendor: &Vendor,
    rules: &CaptchaRules,
    project: &str,
    token: &str,
    request: &CheckRequest<'_>,
) -> Result<Checked, CheckError> {
    let url = with_segments(&vendor.url, &["v1", "projects", project, "assessments"])?;
    let mut event = json!({"token": token, "siteKey": request.key});
    if let ([action], Some(event)) = (rules.actions.as_slice(), event.as_object_mut()) {
        event.insert("expectedAction".to_owned(), action.as_str().into());
    }
    if let (true, Some(event)) = (rules.include_ip, event.as_object_mut()) {
        event.insert("userIpAddress".to_owned(), request.context.client_ip.into());
    }
    let post =
        request.client.post_json(&url, &json!({ "event": event })).header("X-Goog-Api-Key", request.secrets.secret);
    judge(rules, &request.client.send(NAME, post).await?)
}

/// What an assessment says of a token that its page sent; what is not needed here stays in the full response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assessment {
    token_properties: TokenProperties,
    risk_analysis: Option<RiskAnalysis>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenProperties {
    valid: bool,
    #[serde(default)]
    create_time: String,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    action: String,
}

#[derive(Deserialize)]
struct RiskAnalysis {
    score: Option<f64>,
}

/// Judges an assessment. Whatever makes a token invalid, the visitor has sent it: also one of another key or site.
fn judge(rules: &CaptchaRules, response: &ServerResponse) -> Result<Checked, CheckError> {
    let full = response.object().unwrap_or_default();
    if !response.is_success() {
        return Err(error_of(response.status, &full));
    }
    let Ok(assessment) = Assessment::deserialize(&Value::Object(full.clone())) else {
        return Err(CheckError::Unavailable(format!("{NAME} gave a response that is not understood")));
    };
    let properties = assessment.token_properties;
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let hostname = text(&properties.hostname);
    if !properties.valid {
        let brief = Brief::Captcha { solved: None, hostname };
        return Ok(Checked { score: None, verdict: Err(FailedRule::NotAccepted), brief, full });
    }
    let score = assessment.risk_analysis.and_then(|analysis| analysis.score);
    if score.is_none() && rules.min_score.is_some_and(|least| least > 0.0) {
        return Err(CheckError::Unavailable(format!("{NAME} gave no score")));
    }
    let solved = Solved {
        hostname: hostname.as_deref(),
        named_host: None,
        action: Action::Named(&properties.action),
        score: score.map(Score::OfHuman),
    };
    let verdict = rules.apply(&solved);
    let brief = Brief::Captcha { solved: parse_rfc3339(&properties.create_time), hostname };
    Ok(Checked { score, verdict, brief, full })
}

/// An error of the project, its key or its quota is ours; another one is Google's.
fn error_of(status: u16, full: &Map<String, Value>) -> CheckError {
    let name = full.get("error").and_then(|error| error.get("status")).and_then(Value::as_str).unwrap_or_default();
    let error = CheckError::of_status_and_text(NAME, status, name);
    match (status, name) {
        (400 | 404, _) | (429, "RESOURCE_EXHAUSTED") => CheckError::Misconfigured(error.reason().to_owned()),
        _ => error,
    }
}

/// What comes of a token that was used before: what an assessment of it says.
pub(super) fn used_before() -> Checked {
    let properties = json!({
        "valid": false, "invalidReason": "DUPE", "createTime": "1970-01-01T00:00:00Z", "hostname": "", "action": "",
    });
    siteverify::used_before_with([("tokenProperties".to_owned(), properties)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(domains: &[&str], actions: &[&str], min_score: f64) -> CaptchaRules {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        CaptchaRules { domains: own(domains), actions: own(actions), min_score: Some(min_score), include_ip: false }
    }

    fn judge(rules: &CaptchaRules, status: u16, body: &Value) -> Result<Result<(), FailedRule>, CheckError> {
        let response = ServerResponse { status, body: body.to_string().into_bytes(), clock_offset: 0 };
        super::judge(rules, &response).map(|checked| checked.verdict)
    }

    /// As docs.cloud.google.com/recaptcha/docs/interpret-assessment-website shows one.
    fn assessment() -> Value {
        json!({
            "name": "projects/1/assessments/2",
            "event": {"token": "t", "siteKey": "k", "expectedAction": "login"},
            "riskAnalysis": {"score": 0.9, "reasons": [], "challenge": "NOCAPTCHA"},
            "tokenProperties": {
                "valid": true, "invalidReason": "INVALID_REASON_UNSPECIFIED", "hostname": "www.example.com",
                "action": "login", "createTime": "2026-01-01T00:00:00.123Z",
            },
        })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut changed = assessment();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    }

    #[test]
    fn an_assessment_is_judged_by_every_rule() {
        let strict = rules(&["www.example.com"], &["login"], 0.5);
        assert_eq!(judge(&strict, 200, &assessment()), Ok(Ok(())));
        for (pointer, value, rule) in [
            ("/tokenProperties/hostname", json!("evil.example"), FailedRule::Host),
            ("/tokenProperties/hostname", json!(""), FailedRule::Host),
            ("/tokenProperties/action", json!("pay"), FailedRule::Action),
            ("/tokenProperties/action", json!(""), FailedRule::Action),
            ("/riskAnalysis/score", json!(0.3), FailedRule::Score),
        ] {
            assert_eq!(judge(&strict, 200, &with(pointer, value.clone())), Ok(Err(rule)), "{pointer} {value}");
        }
        let without_score = with("/riskAnalysis", json!({}));
        assert!(matches!(judge(&strict, 200, &without_score), Err(CheckError::Unavailable(_))));
        assert_eq!(judge(&rules(&[], &[], 0.0), 200, &without_score), Ok(Ok(())));
    }

    #[test]
    fn whatever_makes_a_token_invalid_is_the_visitors_fault() {
        for reason in [
            "UNKNOWN_INVALID_REASON",
            "MALFORMED",
            "EXPIRED",
            "DUPE",
            "MISSING",
            "BROWSER_ERROR",
            "UNEXPECTED_ACTION",
            "KEY_MISMATCH",
            "DOMAIN_MISMATCH",
            "SITE_MISMATCH",
            "A_REASON_OF_NEXT_YEAR",
        ] {
            let properties = json!({"valid": false, "invalidReason": reason, "createTime": "1970-01-01T00:00:00Z"});
            let body = json!({"tokenProperties": properties, "riskAnalysis": {"score": 0}});
            assert_eq!(judge(&rules(&[], &[], 0.0), 200, &body), Ok(Err(FailedRule::NotAccepted)), "{reason}");
        }
    }

    #[test]
    fn projects_keys_and_quotas_are_misconfigured_and_outages_are_not() {
        let any = rules(&[], &[], 0.0);
        let error = |status: u16, name: &str| {
            judge(&any, status, &json!({"error": {"code": status, "message": "m", "status": name}})).unwrap_err()
        };
        for (status, name) in [
            (400, "INVALID_ARGUMENT"),
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "NOT_FOUND"),
            (429, "RESOURCE_EXHAUSTED"),
        ] {
            assert!(matches!(error(status, name), CheckError::Misconfigured(_)), "{name}");
        }
        for (status, name) in [(429, ""), (500, "INTERNAL"), (503, "UNAVAILABLE")] {
            assert!(matches!(error(status, name), CheckError::Unavailable(_)), "{status} {name}");
        }
        for body in [json!("<html>"), json!({}), json!({"tokenProperties": {"valid": "yes"}})] {
            assert!(matches!(judge(&any, 200, &body), Err(CheckError::Unavailable(_))), "{body}");
        }
    }
}
