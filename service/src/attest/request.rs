//! An attest request, read from its form. Everything that is wrong is noted, so that one response
//! reports all of it.

use std::collections::{BTreeMap, BTreeSet};

use altcha::Payload;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::check::altcha::challenge;
use crate::check::{FreshResult, ParamText, Provider, ResultParams, Site};
use crate::config::{Account, Api};
use crate::error::{Code, Problems, Refusal};
use crate::host::lookup_name;
use crate::token::pay_claim;

use super::form::Form;

const API: &str = "api";
const SITE_KEY: &str = "approov-site-key";
const PAYLOAD: &str = "payload";
const REFRESH_TOKEN: &str = "refresh-token";
const WORK: &str = "work";

/// How many illegal parameters a refusal lists, and how much of each.
const MAX_LISTED: usize = 10;
const MAX_LISTED_CHARS: usize = 64;

/// An attest request, checked against the configuration.
#[derive(Debug)]
pub struct AttestRequest<'a> {
    /// Whose request it is.
    pub account: &'a Account,
    /// The APIs to give tokens for, each named as the client named it.
    pub targets: Vec<(&'a str, &'a Api)>,
    /// The `pay` claim.
    pub pay: Option<String>,
    /// The refresh token, unopened.
    pub refresh_token: Option<&'a str>,
    /// The solution of a challenge that the service asked to be solved.
    pub work: Option<Payload>,
    /// Check results that came along, at most one of each service.
    pub results: Vec<FreshResult<'a>>,
}

impl<'a> AttestRequest<'a> {
    /// Reads the request that a form means.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(
        form: &'a Form<'_>,
        accounts: &'a BTreeMap<String, Account>,
        origin: Option<&str>,
    ) -> Result<Self, Refusal> {
        let mut problems = Problems::default();
        let illegal = illegal_names(form);
        if !illegal.is_empty() {
            problems.add(Code::IllegalParams, illegal.join(", "));
        }
        let account = find_account(form, accounts, &mut problems);
        if account.is_some_and(|account| !account.allowed_origins.allows(origin)) {
            problems.add(
                Code::OriginNotAllowed,
                origin.unwrap_or("no Origin header").chars().take(256).collect::<String>(),
            );
        }
        let targets = read_targets(form, account, &mut problems);
        let pay = form.get(PAYLOAD).and_then(|payload| read_payload(payload, &mut problems));
        let refresh_token = form.get(REFRESH_TOKEN);
        let (mut results, mut mentioned) = (Vec::new(), Vec::new());
        for provider in Provider::ALL {
            let (present, result) = read_result(provider, form, account, &mut problems);
            mentioned.extend(present.then_some(provider));
            results.extend(result);
        }
        if refresh_token.is_none() {
            match account.filter(|account| account.checks.values().any(|check| !check.sites.is_empty())) {
                Some(account) => {
                    problems.take(account.missing(|provider| mentioned.contains(&provider)).into_result());
                }
                None if mentioned.is_empty() => problems.add(Code::NoWebProtectParams, ""),
                None => {}
            }
        }
        problems.into_result()?;
        // Without an account there was a problem.
        let account = account.ok_or_else(|| Refusal::new(Code::NoMatchingAccount, ""))?;
        let work = form.get(WORK).and_then(challenge::read_payload);
        Ok(Self { account, targets, pay, refresh_token, work, results })
    }
}

/// Names that no parameter has, names that came twice but may come once, and those of texts that cannot be what they
/// should.
fn illegal_names(form: &Form<'_>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut illegal = BTreeSet::new();
    let of_results = || Provider::ALL.into_iter().flat_map(|provider| provider.definition().params);
    for (name, value) in form.pairs() {
        let fits = match of_results().find(|param| param.name == name) {
            Some(param) => value.is_empty() || param.text.fits(value),
            None if name == WORK => ParamText::AltchaPayload.fits(value),
            None => matches!(name, API | SITE_KEY | PAYLOAD | REFRESH_TOKEN),
        };
        if !fits || (!seen.insert(name) && name != API) {
            illegal.insert(name.chars().take(MAX_LISTED_CHARS).collect());
        }
    }
    illegal.into_iter().take(MAX_LISTED).collect()
}

fn find_account<'a>(
    form: &Form<'_>,
    accounts: &'a BTreeMap<String, Account>,
    problems: &mut Problems,
) -> Option<&'a Account> {
    let site_key = form.get(SITE_KEY).unwrap_or_default();
    if site_key.is_empty() {
        problems.add(Code::NoSiteKey, "");
        return None;
    }
    let account = accounts.get(site_key);
    match account {
        None => problems.add(Code::NoMatchingAccount, ""),
        Some(account) if account.checks.values().all(|check| check.sites.is_empty()) => {
            problems.add(Code::NoWebProtectDef, "");
        }
        Some(_) => {}
    }
    account
}

fn read_targets<'a>(
    form: &'a Form<'_>,
    account: Option<&'a Account>,
    problems: &mut Problems,
) -> Vec<(&'a str, &'a Api)> {
    let names: Vec<&'a str> = form.all(API).collect();
    if names.is_empty() {
        problems.add(Code::ApiNoTargets, "");
    }
    let mut seen = BTreeSet::new();
    let mut targets = Vec::new();
    let (mut duplicate, mut unknown, mut closed) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        if name.is_empty() {
            problems.add(Code::ApiEmptyTarget, "");
            continue;
        }
        let domain = lookup_name(name);
        if !seen.insert(domain.clone()) {
            duplicate.push(*name);
            continue;
        }
        match account.map(|account| account.apis.get(&*domain)) {
            None => {}
            Some(None) => unknown.push(*name),
            Some(Some(api)) if !api.allow_web => closed.push(*name),
            Some(Some(api)) => targets.push((*name, api)),
        }
    }
    for (code, names) in
        [(Code::ApiDuplicateTarget, duplicate), (Code::ApiNotFound, unknown), (Code::ApiNotWebEnabled, closed)]
    {
        if !names.is_empty() {
            let listed: Vec<String> =
                names.iter().take(MAX_LISTED).map(|name| name.chars().take(MAX_LISTED_CHARS).collect()).collect();
            problems.add(code, listed.join(", "));
        }
    }
    if account.is_some_and(|account| names.len() > account.apis.len()) {
        problems.add(Code::ApiTooManyTargets, names.len().to_string());
    }
    targets
}

fn read_payload(payload: &str, problems: &mut Problems) -> Option<String> {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(payload) else {
        problems.add(Code::PayloadNotBase64Url, "");
        return None;
    };
    match <[u8; 32]>::try_from(bytes) {
        Ok(hash) => Some(pay_claim(&hash)),
        Err(bytes) => {
            problems.add(Code::PayloadInvalidSize, format!("{} bytes instead of 32", bytes.len()));
            None
        }
    }
}

/// Reads one service's parameters: whether there are any, and the result they make.
fn read_result<'a>(
    provider: Provider,
    form: &'a Form<'_>,
    account: Option<&'a Account>,
    problems: &mut Problems,
) -> (bool, Option<FreshResult<'a>>) {
    let params = ResultParams::read(provider.definition(), |name| form.get(name));
    if params.is_empty() {
        return (false, None);
    }
    let complete = check_complete(provider, &params, problems);
    let site = find_site(provider, &params, account, problems);
    let result = site.filter(|_| complete).map(|(key, site)| FreshResult { provider, key, site, params });
    (true, result)
}

/// Whether all parameters of a result came that must, none empty that must not be.
fn check_complete(provider: Provider, params: &ResultParams<'_>, problems: &mut Problems) -> bool {
    let definition = provider.definition();
    let missing: Vec<&str> = definition
        .params
        .iter()
        .filter(|param| param.required && params.find(param.name).is_none())
        .map(|param| param.name)
        .collect();
    if !missing.is_empty() {
        problems.add(definition.codes.mismatch, format!("missing: {}", missing.join(", ")));
    }
    let mut complete = missing.is_empty();
    for param in definition.params {
        if let (Some(code), Some("")) = (param.empty, params.find(param.name)) {
            problems.add(code, "");
            complete = false;
        }
    }
    complete
}

/// The site that a result names, with its key.
fn find_site<'a>(
    provider: Provider,
    params: &ResultParams<'a>,
    account: Option<&'a Account>,
    problems: &mut Problems,
) -> Option<(&'a str, &'a Site)> {
    let account = account?;
    let codes = &provider.definition().codes;
    if account.sites(provider).is_none() {
        problems.add(codes.config_not_found, "");
        return None;
    }
    let key = params.site_key().filter(|key| !key.is_empty())?;
    let site = account.site(provider, key);
    if site.is_none() {
        problems.add(codes.key_not_found, key.chars().take(MAX_LISTED_CHARS).collect::<String>());
    }
    site.map(|site| (key, site))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config() -> Config {
        let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        Config::parse(&format!(
            r#"
[[account]]
site_key = "site"
secret = "{secret}"
[[account.api]]
domain = "a.example"
allow_web = true
[[account.api]]
domain = "mobile.example"
[[account.hcaptcha.site]]
site_key = "h"
secret = "s"
[[account]]
site_key = "bare"
secret = "{secret}"
allowed_origins = ["https://a.example"]
[[account]]
site_key = "strict"
secret = "{secret}"
fingerprint = {{ required = true, subscription = [{{ public_api_key = "f", secret = "s" }}] }}
hcaptcha = {{ required = true, site = [{{ site_key = "h", secret = "s" }}] }}
recaptcha = {{ required = true, site = [{{ site_key = "r", secret = "s" }}] }}
"#
        ))
        .unwrap()
    }

    fn faults(body: &str) -> Vec<(&'static str, String)> {
        let config = config();
        let form = Form::read(None, Some("application/x-www-form-urlencoded"), body.as_bytes()).unwrap();
        match AttestRequest::read(&form, &config.accounts, None) {
            Ok(_) => Vec::new(),
            Err(refusal) => refusal.codes().map(|(code, detail)| (code.name(), detail.to_owned())).collect(),
        }
    }

    fn codes(body: &str) -> Vec<&'static str> {
        faults(body).into_iter().map(|(code, _)| code).collect()
    }

    const GOOD: &str = "approov-site-key=site&api=A.example&hcaptcha-site-key=h&hcaptcha-token=token-of-h";

    #[test]
    fn a_complete_request_has_no_faults() {
        assert_eq!(codes(GOOD), Vec::<&str>::new());
        assert_eq!(codes("approov-site-key=site&api=a.example&refresh-token=r"), Vec::<&str>::new());
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        assert_eq!(
            faults(
                "approov-site-key=site&api=&api=x.example&api=x.EXAMPLE&api=mobile.example&payload=%3D&\
                 hcaptcha-site-key=&recaptcha-token=token-of-r&fingerprintjs-token=&bogus=1&payload=2&zz"
            ),
            [
                ("rqst-illegal-params", "bogus, payload, zz"),
                ("aprv-payload-not-b64url", ""),
                ("aprv-api-empty-target", ""),
                ("aprv-api-duplicate-target", "x.EXAMPLE"),
                ("aprv-api-too-many-targets", "4"),
                ("aprv-api-not-found", "x.example"),
                ("aprv-api-not-web-enabled", "mobile.example"),
                ("fp-config-not-found", ""),
                ("fp-param-mismatch", "missing: fingerprintjs-request-id"),
                ("fp-empty-browser-tok", ""),
                ("hcap-param-mismatch", "missing: hcaptcha-token"),
                ("hcap-empty-site-key", ""),
                ("recap-config-not-found", ""),
                ("recap-param-mismatch", "missing: recaptcha-site-key"),
            ]
            .map(|(code, detail)| (code, detail.to_owned()))
        );
    }

    #[test]
    fn a_text_that_cannot_be_a_result_is_named() {
        let with = |params: &str| faults(&format!("approov-site-key=strict&api=x&{params}"));
        let named = |name: &str| ("rqst-illegal-params", name.to_owned());
        for token in ["t", "a+token+with+spaces", "%E2%82%ACuro-euro", "tab%09tab-tab"] {
            let found = with(&format!("hcaptcha-site-key=h&hcaptcha-token={token}"));
            assert!(found.contains(&named("hcaptcha-token")), "{token}: {found:?}");
        }
        let found = with("fingerprintjs-token=f&fingerprintjs-visitor-id=.%09.&fingerprintjs-request-id=a/b");
        assert!(found.contains(&named("fingerprintjs-request-id, fingerprintjs-visitor-id")), "{found:?}");
        let found = with("fingerprintjs-token=f&fingerprintjs-visitor-id=v&fingerprintjs-request-id=1.r");
        assert!(!found.iter().any(|(code, _)| *code == "rqst-illegal-params"), "{found:?}");
    }

    #[test]
    fn required_checks_are_named() {
        assert_eq!(
            codes("approov-site-key=strict&api=x"),
            [
                "aprv-no-web-protect-params",
                "aprv-api-too-many-targets",
                "aprv-api-not-found",
                "fp-missing-required-params",
                "hcap-missing-required-params",
                "recap-missing-required-params"
            ]
        );
    }

    #[test]
    fn an_origin_that_the_account_does_not_list_is_refused() {
        assert!(codes("approov-site-key=bare&api=x&refresh-token=r").contains(&"aprv-origin-not-allowed"));
    }

    #[test]
    fn the_payload_must_be_a_sha_256() {
        let with = |payload: &str| codes(&format!("{GOOD}&payload={payload}"));
        assert_eq!(with("47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"), Vec::<&str>::new());
        assert_eq!(with("47DEQpj8HBSa"), ["aprv-payload-param-invalid-size"]);
        assert_eq!(with(""), ["aprv-payload-param-invalid-size"]);
        assert_eq!(with("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="), ["aprv-payload-not-b64url"]);
    }
}
