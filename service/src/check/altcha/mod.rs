//! ALTCHA, the built-in check: a proof of work, made and verified here. See [`challenge`].

pub mod challenge;
mod pool;

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Map;
use toml::Spanned;

use crate::allowed_origins::AllowedOrigins;
use crate::error::Code;
use crate::settings::Read;

use super::brief::Brief;
use super::check_site::CheckSite;
use super::client::CheckRequest;
use super::definition::{Definition, OptionKind, Param, ParamText, ProviderCodes, SiteOption};
use super::outcome::{CheckError, Checked};
use super::params::ResultParams;
use super::site_table::SiteTable;

pub use pool::WorkPool;

use challenge::{Difficulty, MAX_COST, Purpose, Terms, Unsolved, challenge_id, is_bound, read_payload};

const SITE_KEY: &str = "altcha-site-key";
const PAYLOAD: &str = "altcha-payload";

/// What a cheap phone does in about a second, on average.
const DEFAULT: Difficulty = Difficulty { cost: 600, zeros: 3 };
/// More makes sixteen times as many tries each, beyond what anybody waits for.
const MAX_ZEROS: u8 = 5;

/// The names that belong to ALTCHA.
pub(super) static DEFINITION: Definition = Definition {
    name: "altcha",
    prefix: "altcha",
    display_name: "ALTCHA",
    site_noun: "site",
    key_name: "site_key",
    key_label: "Site Key",
    params: &[
        Param::key(SITE_KEY, Code::AltchaEmptySiteKey),
        Param::required(PAYLOAD, Code::AltchaEmptyPayload, ParamText::AltchaPayload),
    ],
    result: PAYLOAD,
    test_keys: &[],
    codes: ProviderCodes {
        config_not_found: Code::AltchaConfigNotFound,
        missing_required: Code::AltchaMissingRequired,
        mismatch: Code::AltchaParamMismatch,
        key_not_found: Code::AltchaSiteKeyNotFound,
        // Nobody else is asked.
        check: Code::Unavailable,
    },
    options: &[&[
        SiteOption::new("cost", "cost", OptionKind::Number),
        SiteOption::new("zeros", "zeros", OptionKind::Number),
        SiteOption::new("widget", "widget", OptionKind::Switch),
    ]],
};

/// An ALTCHA site.
#[derive(Clone, Debug)]
pub struct Site {
    /// What a solution costs.
    pub difficulty: Difficulty,
    /// Whether the official widget may have challenges, too: they are bound to no key.
    pub widget: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    cost: Option<Spanned<u32>>,
    zeros: Option<Spanned<u8>>,
    #[serde(default)]
    widget: bool,
}

impl CheckSite for Site {
    fn read(table: SiteTable<'_>) -> Read<Self> {
        let source = table.source;
        let Raw { cost, zeros, widget } = table.rest()?;
        // Under load it is up to four times as much.
        if let Some(at) = cost.as_ref().filter(|cost| !(1..=MAX_COST / 4).contains(cost.get_ref())) {
            return source.error(at, format!("cost must be from 1 to {}", MAX_COST / 4));
        }
        if let Some(at) = zeros.as_ref().filter(|zeros| !(1..=MAX_ZEROS).contains(zeros.get_ref())) {
            return source.error(at, format!("zeros must be from 1 to {MAX_ZEROS}"));
        }
        let difficulty = Difficulty {
            cost: cost.map_or(DEFAULT.cost, Spanned::into_inner),
            zeros: zeros.map_or(DEFAULT.zeros, Spanned::into_inner),
        };
        Ok(Self { difficulty, widget })
    }

    fn describe(&self) -> Vec<String> {
        let Difficulty { cost, zeros } = self.difficulty;
        vec![format!("Cost: {cost}"), format!("Zeros: {zeros}"), format!("Widget: {}", self.widget)]
    }

    fn warnings(&self, _: &AllowedOrigins) -> Vec<String> {
        let mut warnings = vec!["proves work, not a person: a script that pays for it passes".to_owned()];
        if self.difficulty.zeros < 2 {
            warnings.push("asks for next to no work (zeros is 1)".to_owned());
        }
        warnings
    }

    fn result_lifetime(&self) -> Duration {
        Purpose::Check.lifetime()
    }

    fn is_test_result(&self, _: &str, _: &str) -> bool {
        false
    }

    fn single_use<'a>(&self, params: &ResultParams<'a>) -> Cow<'a, str> {
        // However a payload is written, its challenge is solved once.
        let text = params.get(PAYLOAD);
        read_payload(text).map_or(Cow::Borrowed(text), |payload| Cow::Owned(challenge_id(&payload).to_owned()))
    }

    fn used_before(&self, _: &ResultParams<'_>) -> Result<Checked, CheckError> {
        Err(CheckError::Unsolved(Unsolved::Used))
    }

    async fn check(&self, request: &CheckRequest<'_>) -> Result<Checked, CheckError> {
        let unsolved = |why| Err(CheckError::Unsolved(why));
        let Some(context) = &request.context.built_in else {
            return Err(CheckError::Unavailable("ALTCHA has nothing to verify with".to_owned()));
        };
        let Some(payload) = read_payload(request.params.get(PAYLOAD)) else { return unsolved(Unsolved::Unknown) };
        if !is_bound(&payload) && !self.widget {
            return unsolved(Unsolved::Unknown);
        }
        let cost = payload.challenge.parameters.cost;
        let now = request.context.now;
        let terms = Terms {
            purpose: Purpose::Check,
            site: context.site,
            holder: Some(context.holder),
            epoch: context.epoch,
            now,
        };
        match context.pool.verify(context.keys, payload, terms, self.difficulty).await {
            None => Err(CheckError::Unavailable("no thread verified the solution".to_owned())),
            Some(Err(why)) => unsolved(why),
            Some(Ok(solved)) => {
                let hostname = Some(context.page_host.to_owned()).filter(|host| !host.is_empty());
                let full = [("verified".to_owned(), true.into()), ("cost".to_owned(), cost.into())];
                Ok(Checked {
                    score: None,
                    verdict: Ok(()),
                    brief: Brief::Captcha { solved: Some(solved.issued), hostname },
                    full: Map::from_iter(full),
                })
            }
        }
    }
}
