//! Fingerprint (docs.fingerprint.com): the identification that a page had made, looked up or opened.
//!
//! | room | concept |
//! |---|---|
//! | `event` | what is known of an identification, and the rules for it |
//! | `v4` | Server API v4 |
//! | `v3` | Server API v3, which Fingerprint ends |
//! | `sealed` | results that the page brings along, which only we can open |

mod event;
mod sealed;
mod v3;
mod v4;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Map;
use toml::Spanned;
use url::Url;

use crate::allowed_origins::AllowedOrigins;
use crate::error::Code;
use crate::secrets::{SecretKind, SecretList};
use crate::settings::Read;

use super::brief::Brief;
use super::check_site::CheckSite;
use super::client::CheckRequest;
use super::definition::{Definition, OptionKind, Param, ParamText, ProviderCodes, SiteOption};
use super::outcome::{CheckError, Checked, FailedRule};
use super::params::ResultParams;
use super::site_table::{SiteTable, VENDOR_OPTIONS, Vendor};

use event::Identification;

/// The regions of subscriptions, and the hosts of their servers. The first is the default.
const REGIONS: [(&str, &str); 3] =
    [("RoW", "https://api.fpjs.io/"), ("EU", "https://eu.api.fpjs.io/"), ("AP", "https://ap.api.fpjs.io/")];

/// How far ahead of ours Fingerprint's clock may be.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

const PUBLIC_API_KEY: &str = "fingerprintjs-token";
const VISITOR_ID: &str = "fingerprintjs-visitor-id";
const REQUEST_ID: &str = "fingerprintjs-request-id";
const SEALED_RESULT: &str = "fingerprintjs-sealed-result";

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
        // Agent v4 names no visitor in zero-trust mode.
        Param::optional_text(VISITOR_ID, Some(Code::FpEmptyVisitorId), ParamText::Id),
        Param::required(REQUEST_ID, Code::FpEmptyRequestId, ParamText::Id),
        Param::optional_text(SEALED_RESULT, None, ParamText::ResultOf(sealed::MAX_TEXT_BYTES)),
    ],
    result: REQUEST_ID,
    test_keys: &[],
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
            SiteOption::new("api", "api", OptionKind::Text),
            SiteOption::new("sealedKey", "sealed_key", OptionKind::Secret),
            SiteOption::new("sealedKeyFile", "sealed_key_file", OptionKind::Text),
            SiteOption::new("sealedKeyEnv", "sealed_key_env", OptionKind::Text),
            SiteOption::new("region", "region", OptionKind::Text),
            SiteOption::new("maxElapsedTime", "max_elapsed_time", OptionKind::Seconds),
            SiteOption::new("maxBotProbability", "max_bot_probability", OptionKind::Probability),
        ],
    ],
};

/// Which interface identifications are looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Server API v4.
    V4,
    /// Server API v3, which ends about 2027-01-07.
    V3,
}

/// A Fingerprint subscription.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where identifications are looked up, and the secret for it.
    pub vendor: Vendor,
    /// By which interface.
    pub api: Api,
    /// What opens sealed results; `None`: every identification is looked up.
    pub sealed_key: Option<SecretList>,
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
struct RawServer {
    api: Option<Spanned<String>>,
    region: Option<Spanned<String>>,
}

impl CheckSite for Site {
    fn read(mut table: SiteTable<'_>) -> Read<Self> {
        let source = table.source;
        let RawServer { api, region } = table.take(&["api", "region"])?;
        let api = source.one_of("api", api.as_ref(), &[("v4", Api::V4), ("v3", Api::V3)])?;
        let host = source.one_of("region", region.as_ref(), &REGIONS)?;
        let vendor = table.vendor(&server(host, api))?;
        let sealed_key = table.secret("sealed_key", SecretKind::Key32)?;
        let raw: RawRules = table.rest()?;
        Ok(Self {
            vendor,
            api,
            sealed_key,
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

    fn sealed_key(&self) -> Option<&SecretList> {
        self.sealed_key.as_ref()
    }

    fn describe(&self) -> Vec<String> {
        let mut lines = vec![
            format!("Region: {}", self.region()),
            format!("Max Elapsed Time: {:.2}s", self.max_elapsed_time.as_secs_f64()),
            format!("Max Bot Probability: {:.2}", self.max_bot_probability),
        ];
        lines.extend((self.api == Api::V3).then(|| "Server API: v3".to_owned()));
        lines.extend(self.sealed_key.is_some().then(|| "Sealed Results: true".to_owned()));
        lines
    }

    fn warnings(&self, _: &AllowedOrigins) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.max_bot_probability >= 1.0 {
            warnings.push("accepts any bot probability (max_bot_probability is 1)".to_owned());
        }
        if self.api == Api::V3 {
            warnings.push(
                "uses Server API v3, which Fingerprint ends about 2027-01-07: then every check is an error; set api = \"v4\""
                    .to_owned(),
            );
        }
        warnings
    }

    fn result_lifetime(&self) -> Duration {
        self.max_elapsed_time.saturating_add(CLOCK_SKEW)
    }

    fn is_test_result(&self, _: &str, _: &str) -> bool {
        false
    }

    fn used_before(&self, params: &ResultParams<'_>) -> Result<Checked, CheckError> {
        Ok(Checked { score: None, verdict: Err(FailedRule::Used), brief: brief(params, None), full: Map::new() })
    }

    async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError> {
        let identification = Identification {
            visitor_id: request.params.find(VISITOR_ID).filter(|id| !id.is_empty()),
            event_id: request.params.get(REQUEST_ID),
            allowed_origins: request.context.allowed_origins,
            now: request.context.now,
        };
        let sealed = request.params.get(SEALED_RESULT);
        let (found, full) = match sealed::open(sealed, &request.secrets.sealed_keys) {
            Some(opened) => (opened.event, opened.full),
            // Without one, or with one that our keys do not open, Fingerprint's server knows.
            None => match self.api {
                Api::V4 => v4::look_up(&self.vendor, &identification, self.needs_bot_result(), request).await?,
                Api::V3 => v3::look_up(&self.vendor, &identification, self.needs_bot_result(), request).await?,
            },
        };
        let Some(event) = found else {
            return Ok(Checked {
                score: None,
                verdict: Err(FailedRule::Visitor),
                brief: brief(request.params, None),
                full,
            });
        };
        let verdict = self.judge(&identification, &event)?;
        let score = event.bot_probability.map(|probability| 1.0 - probability);
        let visitor = verdict.is_ok().then_some(event.visitor_id).flatten();
        Ok(Checked { score, verdict, brief: brief(request.params, visitor), full })
    }
}

/// What tokens embed: as the browser named it. A visitor that it did not name is named for it.
fn brief(params: &ResultParams<'_>, known: Option<String>) -> Brief {
    let named = params.find(VISITOR_ID).filter(|id| !id.is_empty()).map(str::to_owned);
    Brief::Visit { visitor_id: named.or(known), request_id: params.get(REQUEST_ID).to_owned() }
}

fn server(host: &str, api: Api) -> String {
    match api {
        Api::V4 => format!("{host}v4/"),
        Api::V3 => host.to_owned(),
    }
}

impl Site {
    fn needs_bot_result(&self) -> bool {
        self.max_bot_probability < 1.0
    }

    /// The region of the server; a server of no region is named itself.
    fn region(&self) -> &str {
        let text = self.vendor.url.as_str();
        let is_its = |host: &str| Url::parse(&server(host, self.api)).is_ok_and(|url| url == self.vendor.url);
        REGIONS.iter().find(|(_, host)| is_its(host)).map_or(text, |(name, _)| *name)
    }
}
