//! Google reCAPTCHA, v2 and v3 (developers.google.com/recaptcha/docs/verify): `siteverify`. A site of the kind `enterprise`
//! is a key of Google Cloud, whose tokens Google assesses.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::error::Code;
use crate::settings::Read;

use super::check_site::CheckSite;
use super::client::CheckRequest;
use super::definition::{Definition, OptionKind, Param, ParamText, ProviderCodes, SiteOption, is_id};
use super::outcome::{CheckError, Checked};
use super::params::ResultParams;
use super::recaptcha_enterprise as enterprise;
use super::site_table::{SiteTable, VENDOR_OPTIONS, Vendor};
use super::siteverify::{
    self, ACTION_OPTION, Abilities, CaptchaRules, DOMAIN_OPTION, IP_OPTION, Question, SCORE_OPTION, Score,
};

/// The hosts that Google answers at. The second is for servers that cannot reach the first.
const HOSTS: [(&str, &str); 2] = [
    ("google.com", "https://www.google.com/recaptcha/api/siteverify"),
    ("recaptcha.net", "https://www.recaptcha.net/recaptcha/api/siteverify"),
];

const SITE_KEY: &str = "recaptcha-site-key";
const TOKEN: &str = "recaptcha-token";

/// How long Google accepts a token (developers.google.com/recaptcha/docs/verify).
const TOKEN_LIFETIME: Duration = Duration::from_secs(120);

/// The published test key, of which Google accepts whatever comes (developers.google.com/recaptcha/docs/faq).
const TEST_KEY: &str = "6LeIxAcTAAAAAJcZVRqyHh71UMIEGNQ_MXjiZKhI";

/// The names that belong to reCAPTCHA.
pub(super) static DEFINITION: Definition = Definition {
    name: "recaptcha",
    prefix: "recap",
    display_name: "reCAPTCHA",
    site_noun: "site",
    key_name: "site_key",
    key_label: "Site Key",
    params: &[
        Param::key(SITE_KEY, Code::RecapEmptySiteKey),
        Param::required(TOKEN, Code::RecapEmptyToken, ParamText::Result),
    ],
    result: TOKEN,
    test_keys: &[TEST_KEY],
    codes: ProviderCodes {
        config_not_found: Code::RecapConfigNotFound,
        missing_required: Code::RecapMissingRequired,
        mismatch: Code::RecapParamMismatch,
        key_not_found: Code::RecapSiteKeyNotFound,
        check: Code::RecapTokenCheck,
    },
    options: &[
        VENDOR_OPTIONS,
        &[
            SiteOption::new("kind", "kind", OptionKind::Text),
            SiteOption::new("project", "project", OptionKind::Text),
            SiteOption::new("host", "host", OptionKind::Text),
            DOMAIN_OPTION,
            ACTION_OPTION,
            SCORE_OPTION,
            IP_OPTION,
        ],
    ],
};

const ABILITIES: Abilities =
    Abilities { display_name: DEFINITION.display_name, actions: true, scores: true, client_ip: true };

/// Who checks the tokens of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `siteverify`, with the site's secret.
    Classic,
    /// A project of Google Cloud, with one of its API keys.
    Enterprise {
        /// Its ID.
        project: String,
    },
}

/// A reCAPTCHA site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Who checks its tokens.
    pub kind: Kind,
    /// Where results are checked, and the secret for it.
    pub vendor: Vendor,
    /// What a result must meet.
    pub rules: CaptchaRules,
}

impl CheckSite for Site {
    fn read(mut table: SiteTable<'_>) -> Read<Self> {
        let source = table.source;
        let raw: RawKind = table.take(&["kind", "project", "host"])?;
        let is_enterprise = source.one_of("kind", raw.kind.as_ref(), &[("classic", false), ("enterprise", true)])?;
        let kind = match (is_enterprise, raw.project) {
            (false, None) => Kind::Classic,
            (true, Some(project)) if is_id(project.get_ref()) => Kind::Enterprise { project: project.into_inner() },
            (true, Some(project)) => {
                return source.error(&project, "project must be the ID of a Google Cloud project");
            }
            (true, None) => return source.error(&table.key, "a site of the kind \"enterprise\" needs its project"),
            (false, Some(project)) => {
                return source.error(&project, "project is for sites of the kind \"enterprise\"");
            }
        };
        if let Some(host) = raw.host.as_ref().filter(|_| is_enterprise) {
            return source.error(host, "host is for sites of the kind \"classic\"");
        }
        let classic = source.one_of("host", raw.host.as_ref(), &HOSTS)?;
        let server = if is_enterprise { enterprise::SERVER } else { classic };
        Ok(Self { kind, vendor: table.vendor(server)?, rules: CaptchaRules::read(table, ABILITIES)? })
    }

    fn captcha(&self) -> Option<(&Vendor, &CaptchaRules)> {
        Some((&self.vendor, &self.rules))
    }

    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Kind::Enterprise { project } = &self.kind {
            lines.extend(["Kind: enterprise".to_owned(), format!("Project: {project}")]);
        } else if let Some((host, _)) = HOSTS.iter().skip(1).find(|(_, server)| *server == self.vendor.url.as_str()) {
            lines.push(format!("Host: {host}"));
        }
        lines.extend(self.rules.describe(ABILITIES));
        lines
    }

    fn result_lifetime(&self) -> Duration {
        TOKEN_LIFETIME
    }

    fn is_test_result(&self, key: &str, _: &str) -> bool {
        // Any other server that knows the key is a simulator, whose tokens are like those of a real site.
        key == TEST_KEY && HOSTS.iter().any(|(_, server)| *server == self.vendor.url.as_str())
    }

    fn used_before(&self, _: &ResultParams<'_>) -> Result<Checked, CheckError> {
        Ok(match self.kind {
            Kind::Classic => siteverify::used_before("timeout-or-duplicate"),
            Kind::Enterprise { .. } => enterprise::used_before(),
        })
    }

    async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError> {
        let (name, token) = (DEFINITION.display_name, request.params.get(TOKEN));
        if let Kind::Enterprise { project } = &self.kind {
            return enterprise::check(&self.vendor, &self.rules, project, token, request).await;
        }
        let form = self.rules.form(request.secrets.secret, token, None, request.context.client_ip);
        let response = request.client.post_form(name, &self.vendor.url, &form).await?;
        let question = Question { display_name: name, named_host: None, score: Score::OfHuman, has_actions: false };
        siteverify::judge(&self.rules, &response, &question)
    }
}

#[derive(Deserialize)]
struct RawKind {
    kind: Option<Spanned<String>>,
    project: Option<Spanned<String>>,
    host: Option<Spanned<String>>,
}
