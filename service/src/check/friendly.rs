//! Friendly Captcha v2 (developer.friendlycaptcha.com): its own `siteverify`, in JSON.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use toml::Spanned;
use url::Url;

use crate::error::Code;
use crate::settings::Read;
use crate::time::parse_rfc3339;

use super::brief::Brief;
use super::check_site::CheckSite;
use super::client::{CheckRequest, ServerResponse};
use super::definition::{Definition, OptionKind, Param, ParamText, ProviderCodes, SiteOption};
use super::outcome::{CheckError, Checked, FailedRule};
use super::params::ResultParams;
use super::site_table::{SiteTable, VENDOR_OPTIONS, Vendor};
use super::siteverify::{self, Abilities, Action, CaptchaRules, DOMAIN_OPTION, Solved};

/// Where results are checked. The first is the default; `EU` keeps them in the European Union.
const REGIONS: [(&str, &str); 2] = [
    ("global", "https://global.frcapi.com/api/v2/captcha/siteverify"),
    ("EU", "https://eu.frcapi.com/api/v2/captcha/siteverify"),
];

const SITE_KEY: &str = "friendly-site-key";
const RESPONSE: &str = "friendly-response";

/// Friendly Captcha says when a response is too old (`response_timeout`), not how old that is. Its use is remembered for
/// longer than anybody waits.
const RESPONSE_LIFETIME: Duration = Duration::from_secs(1200);

/// The names that belong to Friendly Captcha.
pub(super) static DEFINITION: Definition = Definition {
    name: "friendly",
    prefix: "friendly",
    display_name: "Friendly Captcha",
    site_noun: "site",
    key_name: "site_key",
    key_label: "Site Key",
    params: &[
        Param::key(SITE_KEY, Code::FriendlyEmptySiteKey),
        Param::required(RESPONSE, Code::FriendlyEmptyResponse, ParamText::Result),
    ],
    result: RESPONSE,
    test_keys: &[],
    codes: ProviderCodes {
        config_not_found: Code::FriendlyConfigNotFound,
        missing_required: Code::FriendlyMissingRequired,
        mismatch: Code::FriendlyParamMismatch,
        key_not_found: Code::FriendlySiteKeyNotFound,
        check: Code::FriendlyResponseCheck,
    },
    options: &[VENDOR_OPTIONS, &[SiteOption::new("region", "region", OptionKind::Text), DOMAIN_OPTION]],
};

const ABILITIES: Abilities =
    Abilities { display_name: DEFINITION.display_name, actions: false, scores: false, client_ip: false };

/// A Friendly Captcha site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where results are checked, and the API key for it.
    pub vendor: Vendor,
    /// What a result must meet.
    pub rules: CaptchaRules,
}

#[derive(Deserialize)]
struct RawRegion {
    region: Option<Spanned<String>>,
}

impl CheckSite for Site {
    fn read(mut table: SiteTable<'_>) -> Read<Self> {
        let RawRegion { region } = table.take(&["region"])?;
        let server = table.source.one_of("region", region.as_ref(), &REGIONS)?;
        Ok(Self { vendor: table.vendor(server)?, rules: CaptchaRules::read(table, ABILITIES)? })
    }

    fn captcha(&self) -> Option<(&Vendor, &CaptchaRules)> {
        Some((&self.vendor, &self.rules))
    }

    fn describe(&self) -> Vec<String> {
        let server = self.vendor.url.as_str();
        let region = REGIONS.iter().find(|(_, known)| *known == server).map_or(server, |(name, _)| *name);
        [format!("Region: {region}")].into_iter().chain(self.rules.describe(ABILITIES)).collect()
    }

    fn result_lifetime(&self) -> Duration {
        RESPONSE_LIFETIME
    }

    fn is_test_result(&self, _: &str, _: &str) -> bool {
        false
    }

    fn used_before(&self, _: &ResultParams<'_>) -> Result<Checked, CheckError> {
        let error = json!({"error_code": "response_duplicate", "detail": ""});
        Ok(siteverify::used_before_with([("success".to_owned(), false.into()), ("error".to_owned(), error)]))
    }

    async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError> {
        let body = json!({"response": request.params.get(RESPONSE), "sitekey": request.key});
        let post = request.client.post_json(&self.vendor.url, &body).header("X-API-Key", request.secrets.secret);
        let response = request.client.send(DEFINITION.display_name, post).await?;
        self.judge(&response)
    }
}

/// What the response says of a result that is accepted; what is not needed here stays in the full response.
#[derive(Deserialize)]
struct Data {
    challenge: Challenge,
}

#[derive(Deserialize)]
struct Challenge {
    timestamp: Option<String>,
    origin: Option<String>,
}

impl Site {
    fn judge(&self, response: &ServerResponse) -> Result<Checked, CheckError> {
        let name = DEFINITION.display_name;
        let full = response.object().unwrap_or_default();
        match full.get("success").and_then(Value::as_bool) {
            Some(true) if response.is_success() => {}
            Some(false) => return refused(response, full),
            _ if response.is_success() => {
                return Err(CheckError::Unavailable(format!("{name} gave a response that is not understood")));
            }
            _ => return Err(CheckError::of_status(name, response.status)),
        }
        let data = full.get("data").and_then(|data| Data::deserialize(data).ok());
        let Some(Data { challenge }) = data else {
            return Err(CheckError::Unavailable(format!("{name} accepts and does not say what")));
        };
        let hostname = challenge.origin.as_deref().and_then(host_of);
        let solved = Solved { hostname: hostname.as_deref(), named_host: None, action: Action::Unknown, score: None };
        let verdict = self.rules.apply(&solved);
        let brief = Brief::Captcha { solved: challenge.timestamp.as_deref().and_then(parse_rfc3339), hostname };
        Ok(Checked { score: None, verdict, brief, full })
    }
}

/// A response that says that the result is not accepted, or that ours is no request that it can judge.
fn refused(response: &ServerResponse, full: Map<String, Value>) -> Result<Checked, CheckError> {
    let code = full.get("error").and_then(|error| error.get("error_code")).and_then(Value::as_str).unwrap_or_default();
    match (response.status, code) {
        (200, "response_invalid" | "response_timeout" | "response_duplicate") => Ok(Checked {
            score: None,
            verdict: Err(FailedRule::NotAccepted),
            brief: Brief::Captcha { solved: None, hostname: None },
            full,
        }),
        (_, "auth_required" | "auth_invalid" | "sitekey_invalid") => {
            Err(CheckError::Misconfigured(format!("{}: {code}", DEFINITION.display_name)))
        }
        (status, code) => Err(CheckError::of_status_and_text(DEFINITION.display_name, status, code)),
    }
}

/// The host of a page, from its origin or the host itself.
fn host_of(origin: &str) -> Option<String> {
    match Url::parse(origin).ok().and_then(|url| url.host_str().map(str::to_owned)) {
        Some(host) => Some(host),
        None => Url::parse(&format!("https://{origin}")).ok()?.host_str().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use approov_verify::secret::Secret;

    use super::*;
    use crate::secrets::{KeptSecret, SecretKind};

    fn judge(domains: &[&str], status: u16, body: &Value) -> Result<Checked, CheckError> {
        let site = Site {
            vendor: Vendor {
                secret: KeptSecret::here(SecretKind::Text, Secret::from_bytes(b"shh".to_vec())).into(),
                url: Url::parse(REGIONS[0].1).unwrap(),
            },
            rules: CaptchaRules {
                domains: domains.iter().map(ToString::to_string).collect(),
                ..CaptchaRules::default()
            },
        };
        site.judge(&ServerResponse { status, body: body.to_string().into_bytes(), clock_offset: 0 })
    }

    fn accepted(origin: &Value) -> Value {
        json!({"success": true, "data": {
            "event_id": "ev", "challenge": {"timestamp": "2026-01-01T00:00:00Z", "origin": origin}, "risk_intelligence": null
        }})
    }

    fn refused(code: &str) -> Value {
        json!({"success": false, "error": {"error_code": code, "detail": "text"}})
    }

    #[test]
    fn an_accepted_response_says_when_and_where() {
        let checked = judge(&["example.com"], 200, &accepted(&json!("https://example.com:8443"))).unwrap();
        assert_eq!(checked.verdict, Ok(()));
        let Brief::Captcha { solved, hostname } = checked.brief else { panic!("another brief") };
        assert_eq!((solved.unwrap().as_secs(), hostname.as_deref()), (1_767_225_600, Some("example.com")));
        for other in [json!("https://evil.example"), json!(null), json!("")] {
            assert_eq!(judge(&["example.com"], 200, &accepted(&other)).unwrap().verdict, Err(FailedRule::Host));
        }
        assert_eq!(judge(&["example.com"], 200, &accepted(&json!("example.com"))).unwrap().verdict, Ok(()));
        assert_eq!(judge(&[], 200, &accepted(&json!(null))).unwrap().verdict, Ok(()));
    }

    #[test]
    fn only_what_is_about_the_response_is_the_visitors_fault() {
        for code in ["response_invalid", "response_timeout", "response_duplicate"] {
            assert_eq!(judge(&[], 200, &refused(code)).unwrap().verdict, Err(FailedRule::NotAccepted), "{code}");
        }
        for (status, code) in [(401, "auth_required"), (401, "auth_invalid"), (400, "sitekey_invalid"), (403, "1010")] {
            let error = judge(&[], status, &refused(code)).unwrap_err();
            assert!(matches!(error, CheckError::Misconfigured(_)), "{code}: {error:?}");
        }
        for (status, code) in
            [(400, "response_missing"), (400, "bad_request"), (500, "internal_server_error"), (200, "new_code")]
        {
            let error = judge(&[], status, &refused(code)).unwrap_err();
            assert!(matches!(error, CheckError::Unavailable(_)), "{code}: {error:?}");
        }
    }

    #[test]
    fn nothing_passes_that_is_not_a_whole_acceptance() {
        for (status, body) in [
            (200, json!({})),
            (200, json!({"success": true})),
            (200, json!({"success": "true", "data": {"challenge": {}}})),
            (200, json!("<html>")),
            (500, accepted(&json!("https://example.com"))),
            (429, accepted(&json!("https://example.com"))),
            (401, json!("unauthorized")),
        ] {
            assert!(judge(&[], status, &body).is_err(), "{status} {body}");
        }
    }
}
