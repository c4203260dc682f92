//! The `siteverify` interface, which captcha services have in common: its request, its response, the rules for it.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use toml::Spanned;
use url::Host;

use crate::allowed_origins::AllowedOrigins;
use crate::host::lookup_name;
use crate::settings::Read;
use crate::time::parse_rfc3339;

use super::brief::Brief;
use super::client::ServerResponse;
use super::definition::{OptionKind, SiteOption};
use super::outcome::{CheckError, Checked, FailedRule, sanitized};
use super::site_table::SiteTable;

/// What a result must meet to pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaptchaRules {
    /// Host names that may have solved it; empty: any.
    pub domains: Vec<String>,
    /// Actions that the page may have named; empty: any.
    pub actions: Vec<String>,
    /// Least score, of 0.0 (a bot) to 1.0 (a person); `None`: the captcha service gives none.
    pub min_score: Option<f64>,
    /// Whether the client's address is sent along.
    pub include_ip: bool,
}

/// Which rules a captcha service can be held to.
#[derive(Clone, Copy)]
pub(super) struct Abilities {
    /// Its name, for errors.
    pub(super) display_name: &'static str,
    pub(super) actions: bool,
    pub(super) scores: bool,
    pub(super) client_ip: bool,
}

/// The rules on the command line.
pub(super) const DOMAIN_OPTION: SiteOption = SiteOption::new("domain", "domains", OptionKind::List);
pub(super) const ACTION_OPTION: SiteOption = SiteOption::new("action", "actions", OptionKind::List);
pub(super) const SCORE_OPTION: SiteOption = SiteOption::new("minScore", "min_score", OptionKind::Probability);
pub(super) const IP_OPTION: SiteOption = SiteOption::new("includeIP", "include_ip", OptionKind::Switch);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    #[serde(default)]
    domains: Vec<String>,
    actions: Option<Spanned<Vec<String>>>,
    min_score: Option<Spanned<f64>>,
    include_ip: Option<Spanned<bool>>,
}

impl CaptchaRules {
    /// Reads the rules of a site.
    pub(super) fn read(table: SiteTable<'_>, abilities: Abilities) -> Read<Self> {
        let source = table.source;
        let raw: RawRules = table.rest()?;
        let name = abilities.display_name;
        if let Some(at) = raw.actions.as_ref().filter(|actions| !abilities.actions && !actions.get_ref().is_empty()) {
            return source.error(at, format!("{name} knows no actions"));
        }
        if let Some(at) = raw.min_score.as_ref().filter(|_| !abilities.scores) {
            return source.error(at, format!("{name} gives no scores"));
        }
        if let Some(at) = raw.include_ip.as_ref().filter(|include| !abilities.client_ip && *include.get_ref()) {
            return source.error(at, format!("{name} takes no address"));
        }
        let min_score = source.probability(raw.min_score.as_ref(), 0.0)?;
        Ok(Self {
            domains: raw.domains.iter().map(|domain| lookup_name(domain).into_owned()).collect(),
            actions: raw.actions.map(Spanned::into_inner).unwrap_or_default(),
            min_score: abilities.scores.then_some(min_score),
            include_ip: raw.include_ip.is_some_and(Spanned::into_inner),
        })
    }

    /// Lines of `web -list` about them.
    pub(super) fn describe(&self, abilities: Abilities) -> Vec<String> {
        let mut lines = Vec::new();
        for (title, list) in [("Domains", &self.domains), ("Actions", &self.actions)] {
            if !list.is_empty() {
                lines.push(format!("{title}:"));
                lines.extend(list.iter().map(|entry| format!("  {entry}")));
            }
        }
        lines.extend(self.min_score.map(|score| format!("Min Score: {score:.2}")));
        if abilities.client_ip {
            lines.push(format!("Include IP: {}", self.include_ip));
        }
        lines
    }

    /// What their author may not have meant, or can never work for pages of `origins`.
    pub(super) fn warnings(&self, origins: &AllowedOrigins) -> Vec<String> {
        let mut warnings = Vec::new();
        for domain in self.domains.iter().filter(|domain| !is_host_name(domain)) {
            warnings.push(format!(
                "has the domain \"{domain}\", which is never the host of a result: expected is a host name"
            ));
        }
        if self.domains.is_empty() {
            warnings.push("accepts results of any domain (domains is empty)".to_owned());
        } else if !self.domains.iter().any(|domain| origins.may_be_on(domain)) {
            warnings.push("fails every result: no page of allowed_origins is on one of its domains".to_owned());
        }
        if self.min_score.is_some_and(|score| score <= 0.0) {
            warnings.push("accepts any score (min_score is 0)".to_owned());
        }
        warnings
    }

    /// The fields of the request. `site_key` is for those that refuse results of another site of the same secret;
    /// `client_ip` is sent if the rules say so.
    pub(super) fn form<'a>(
        &self,
        secret: &'a str,
        token: &'a str,
        site_key: Option<&'a str>,
        client_ip: &'a str,
    ) -> Vec<(&'static str, &'a str)> {
        let mut form = vec![("secret", secret), ("response", token)];
        form.extend(site_key.map(|key| ("sitekey", key)));
        if self.include_ip {
            form.push(("remoteip", client_ip));
        }
        form
    }

    /// Applies the rules to what a captcha service says of a result that it accepts.
    pub(super) fn apply(&self, solved: &Solved<'_>) -> Result<(), FailedRule> {
        let hostname = solved.hostname.map(lookup_name);
        if !self.domains.is_empty()
            && hostname.as_ref().is_none_or(|host| !self.domains.iter().any(|domain| domain == host))
        {
            return Err(FailedRule::Host);
        }
        if solved.named_host.is_some_and(|named| hostname.as_deref() != Some(&*lookup_name(named))) {
            return Err(FailedRule::Host);
        }
        let allows = |action: &str| self.actions.is_empty() || self.actions.iter().any(|known| known == action);
        match solved.action {
            Action::Named(action) if !allows(action) => return Err(FailedRule::Action),
            Action::Named(_) | Action::Unknown => {}
        }
        match (self.min_score, solved.score) {
            (Some(least), Some(score)) if score.human() < least => Err(FailedRule::Score),
            _ => Ok(()),
        }
    }
}

/// What a captcha service says of a result that it accepts.
pub(super) struct Solved<'a> {
    pub(super) hostname: Option<&'a str>,
    /// The host that the page says must have solved it.
    pub(super) named_host: Option<&'a str>,
    pub(super) action: Action<'a>,
    pub(super) score: Option<Score>,
}

/// The action that a page named when it had a result made.
#[derive(Clone, Copy)]
pub(super) enum Action<'a> {
    /// Empty: it named none.
    Named(&'a str),
    /// This kind of result has none (reCAPTCHA v2, hCaptcha).
    Unknown,
}

/// A score as a captcha service gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Score {
    /// 1.0 is a person (reCAPTCHA).
    OfHuman(f64),
    /// 1.0 is a threat (hCaptcha).
    OfThreat(f64),
}

impl Score {
    /// From 0.0, certainly a bot, to 1.0, certainly a person.
    pub(super) fn human(self) -> f64 {
        match self {
            Self::OfHuman(score) => score,
            Self::OfThreat(score) => 1.0 - score,
        }
    }
}

fn is_host_name(text: &str) -> bool {
    matches!(Host::parse(text), Ok(Host::Domain(domain)) if domain == text) || text.parse::<IpAddr>().is_ok()
}

/// What a response is judged by, apart from the rules.
pub(super) struct Question<'a> {
    /// The name of the captcha service, for errors.
    pub(super) display_name: &'static str,
    /// The host that the page says must have solved it.
    pub(super) named_host: Option<&'a str>,
    /// What its scores are of.
    pub(super) score: fn(f64) -> Score,
    /// Whether every result has an action, which is empty where the page named none.
    pub(super) has_actions: bool,
}

/// What comes of a result that was used before, without asking for it. `code` is what the captcha service says then.
pub(super) fn used_before(code: &str) -> Checked {
    used_before_with([("success".to_owned(), false.into()), ("error-codes".to_owned(), json!([code]))])
}

/// The same, where a response looks otherwise.
pub(super) fn used_before_with<const N: usize>(full: [(String, Value); N]) -> Checked {
    Checked {
        score: None,
        verdict: Err(FailedRule::Used),
        brief: Brief::Captcha { solved: None, hostname: None },
        full: Map::from_iter(full),
    }
}

/// Judges the response to a `siteverify` request.
///
/// # Errors
/// When the response is an error of the captcha service or of our request.
pub(super) fn judge(
    rules: &CaptchaRules,
    response: &ServerResponse,
    question: &Question<'_>,
) -> Result<Checked, CheckError> {
    let name = question.display_name;
    if has_no_verdict(response.status) {
        return Err(CheckError::of_status(name, response.status));
    }
    let full = response.object();
    let Some(full) = full.filter(|full| full.get("success").is_some_and(Value::is_boolean)) else {
        return Err(if response.is_success() {
            CheckError::Unavailable(format!("{name} gave a response that is not understood"))
        } else {
            CheckError::of_status(name, response.status)
        });
    };
    let success = full.get("success") == Some(&Value::Bool(true));
    let codes: Vec<&str> =
        full.get("error-codes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if success && !response.is_success() {
        return Err(CheckError::of_status(name, response.status));
    }
    if success && let Some(code) = codes.first() {
        // reCAPTCHA says so of everybody once its quota is used up.
        return Err(CheckError::Misconfigured(format!("{name} accepts, but: {}", sanitized(code))));
    }
    if let Some(ours) = codes.iter().find(|code| !is_about_the_result(code)) {
        let reason = format!("{name}: {}", sanitized(ours));
        return Err(if is_about_what_is_configured(ours) {
            CheckError::Misconfigured(reason)
        } else {
            CheckError::Unavailable(reason)
        });
    }
    let hostname = full.get("hostname").and_then(Value::as_str);
    let action = full.get("action").and_then(Value::as_str);
    let solved = Solved {
        hostname,
        named_host: question.named_host,
        action: match action {
            None if !question.has_actions => Action::Unknown,
            action => Action::Named(action.unwrap_or_default()),
        },
        score: full.get("score").and_then(Value::as_f64).map(question.score),
    };
    let verdict = if success { rules.apply(&solved) } else { Err(FailedRule::NotAccepted) };
    let brief = Brief::Captcha {
        solved: full.get("challenge_ts").and_then(Value::as_str).and_then(parse_rfc3339),
        hostname: hostname.map(str::to_owned),
    };
    Ok(Checked { score: solved.score.map(Score::human), verdict, brief, full })
}

/// Whether a status says that there is no verdict, whatever the body says: a gateway, or a service in trouble.
fn has_no_verdict(status: u16) -> bool {
    matches!(status, 401 | 403 | 408 | 429) || status >= 500
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
    )
}

/// Whether it is about what is configured for the site.
fn is_about_what_is_configured(code: &str) -> bool {
    matches!(
        code,
        "missing-input-secret" | "invalid-input-secret" | "sitekey-secret-mismatch" | "not-using-dummy-passcode"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(domains: &[&str], actions: &[&str], min_score: f64) -> CaptchaRules {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        CaptchaRules { domains: own(domains), actions: own(actions), min_score: Some(min_score), include_ip: true }
    }

    fn question(named_host: Option<&str>) -> Question<'_> {
        Question { display_name: "hCaptcha", named_host, score: Score::OfHuman, has_actions: false }
    }

    fn judge(
        rules: &CaptchaRules,
        named_host: Option<&str>,
        status: u16,
        body: Value,
    ) -> Result<Result<(), FailedRule>, CheckError> {
        let response = ServerResponse { status, body: body.to_string().into_bytes(), clock_offset: 0 };
        super::judge(rules, &response, &question(named_host)).map(|checked| checked.verdict)
    }

    #[test]
    fn a_captcha_response_is_judged_by_every_rule() {
        let any = rules(&[], &[], 0.0);
        let strict = rules(&["example.com"], &["login"], 0.5);
        let good = json!({"success": true, "hostname": "Example.com", "score": 0.5, "action": "login"});
        assert_eq!(judge(&strict, None, 200, good.clone()), Ok(Ok(())));
        let with = |name: &str, value: Value| {
            let mut response = good.clone();
            response[name] = value;
            response
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
    fn scores_are_normalised_to_one_direction() {
        let judge = |score: fn(f64) -> Score, given: f64| {
            let body = json!({"success": true, "hostname": "a.example", "score": given});
            let response = ServerResponse { status: 200, body: body.to_string().into_bytes(), clock_offset: 0 };
            super::judge(&rules(&[], &[], 0.7), &response, &Question { score, ..question(None) }).unwrap().verdict
        };
        assert_eq!(judge(Score::OfHuman, 0.9), Ok(()));
        assert_eq!(judge(Score::OfHuman, 0.1), Err(FailedRule::Score));
        assert_eq!(judge(Score::OfThreat, 0.9), Err(FailedRule::Score));
        assert_eq!(judge(Score::OfThreat, 0.1), Ok(()));
    }

    #[test]
    fn where_every_result_has_an_action_none_is_not_one_of_those_allowed() {
        let strict = rules(&[], &["login"], 0.0);
        let judge = |body: Value| {
            let response = ServerResponse { status: 200, body: body.to_string().into_bytes(), clock_offset: 0 };
            super::judge(&strict, &response, &Question { has_actions: true, ..question(None) }).unwrap().verdict
        };
        assert_eq!(judge(json!({"success": true, "action": "login"})), Ok(()));
        for other in [json!({"success": true}), json!({"success": true, "action": ""})] {
            assert_eq!(judge(other), Err(FailedRule::Action));
        }
    }

    #[test]
    fn a_bad_result_fails_and_a_bad_secret_is_an_error() {
        let any = rules(&[], &[], 0.0);
        let refused = |code: &str| judge(&any, None, 200, json!({"success": false, "error-codes": [code]}));
        for code in
            ["invalid-input-response", "expired-input-response", "already-seen-response", "timeout-or-duplicate"]
        {
            assert_eq!(refused(code), Ok(Err(FailedRule::NotAccepted)), "{code}");
        }
        let unavailable = |reason: &str| Err(CheckError::Unavailable(reason.to_owned()));
        let misconfigured = |reason: &str| Err(CheckError::Misconfigured(reason.to_owned()));
        for code in
            ["invalid-input-secret", "missing-input-secret", "sitekey-secret-mismatch", "not-using-dummy-passcode"]
        {
            assert_eq!(refused(code), misconfigured(&format!("hCaptcha: {code}")), "{code}");
        }
        assert_eq!(refused("bad-request"), unavailable("hCaptcha: bad-request"));
        assert_eq!(judge(&any, None, 200, json!({"success": false})), Ok(Err(FailedRule::NotAccepted)));
        assert_eq!(
            judge(&any, None, 200, json!({"success": "true"})),
            unavailable("hCaptcha gave a response that is not understood")
        );
        assert_eq!(
            refused("<script>alert('x')</script> https://10.0.0.1/?secret=shh"),
            unavailable("hCaptcha: scriptalertxscript https10.0.0.1secretshh")
        );
    }

    #[test]
    fn a_captcha_service_in_trouble_gives_no_verdict_whatever_its_body_says() {
        let any = rules(&[], &[], 0.0);
        for status in [408, 429, 500, 502, 503] {
            let expected = Err(CheckError::Unavailable(format!("hCaptcha responded with status {status}")));
            for body in [json!("sorry"), json!({"success": false}), json!({"success": true, "hostname": "a.example"})] {
                assert_eq!(judge(&any, None, status, body.clone()), expected, "{status} {body}");
            }
        }
        let forbidden = judge(&any, None, 403, json!({"success": false}));
        assert_eq!(forbidden, Err(CheckError::Misconfigured("hCaptcha responded with status 403".to_owned())));
        // Some say with the status, too, that the result is not accepted; none says so that it is.
        let codes = json!({"success": false, "error-codes": ["invalid-input-response"]});
        assert_eq!(judge(&any, None, 400, codes), Ok(Err(FailedRule::NotAccepted)));
        assert!(judge(&any, None, 400, json!({"success": true})).is_err());
    }

    #[test]
    fn a_result_that_is_accepted_only_since_the_quota_is_used_up_is_not_accepted() {
        let body = json!({"success": true, "score": 0.9, "error-codes": ["Over free quota."]});
        let expected = CheckError::Misconfigured("hCaptcha accepts, but: Over free quota.".to_owned());
        assert_eq!(judge(&rules(&[], &[], 0.0), None, 200, body), Err(expected));
    }

    #[test]
    fn times_of_any_form_and_hosts_are_read_where_there_are_some() {
        let brief = |body: Value| {
            let response = ServerResponse { status: 200, body: body.to_string().into_bytes(), clock_offset: 0 };
            super::judge(&rules(&[], &[], 0.0), &response, &question(None)).unwrap().brief
        };
        for (time, seconds) in [
            ("2026-01-01T00:00:00Z", Some(1_767_225_600)),
            ("2026-01-01T00:00:00.123456Z", Some(1_767_225_600)),
            ("2026-01-01T01:00:00+01:00", Some(1_767_225_600)),
            ("yesterday", None),
        ] {
            let Brief::Captcha { solved, hostname } =
                brief(json!({"success": true, "challenge_ts": time, "hostname": "a.example"}))
            else {
                panic!("another brief");
            };
            assert_eq!(
                (solved.map(|time| time.as_secs()), hostname.as_deref()),
                (seconds, Some("a.example")),
                "{time}"
            );
        }
        let nothing = brief(json!({"success": false, "error-codes": ["invalid-input-response"]}));
        assert_eq!(nothing, Brief::Captcha { solved: None, hostname: None });
    }

    #[test]
    fn the_captcha_form_has_the_documented_fields() {
        let with_ip = rules(&[], &[], 0.0);
        assert_eq!(
            with_ip.form("shh", "t", Some("key"), "1.2.3.4"),
            [("secret", "shh"), ("response", "t"), ("sitekey", "key"), ("remoteip", "1.2.3.4")]
        );
        let without = CaptchaRules { include_ip: false, ..with_ip };
        assert_eq!(without.form("shh", "t", None, "1.2.3.4"), [("secret", "shh"), ("response", "t")]);
    }
}
