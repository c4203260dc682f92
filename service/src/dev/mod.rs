//! The development mode: an account of its own, whose check services are simulated by the
//! service itself.

pub mod explain;
pub mod faults;
pub mod guard;
pub mod sim;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use approov_verify::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use url::Url;

use crate::check::altcha::challenge::Difficulty;
use crate::check::{
    CaptchaRules, Check, Provider, Site, SiteKind, Vendor, altcha, fingerprint, friendly, hcaptcha, recaptcha,
    turnstile,
};
use crate::config::{
    Account, AllowedOrigins, Api, Config, Limits, PublicUrl, Revocations, StoreAddress, TrustedProxies,
};
use crate::host::lookup_name;
use crate::secrets::{KeptSecret, SecretKind};

/// The ALTCHA site, which has no simulator: the check is built in.
pub const ALTCHA_SITE_KEY: &str = "dev-altcha-site-key";
/// The site key of the development account.
pub const SITE_KEY: &str = "dev-approov-site-key";
/// APIs that it always has.
pub const APIS: [&str; 4] = ["localhost", "127.0.0.1", "api.example.com", "shapes.approov.io"];
/// A captcha score below this fails; a bot probability above it too.
const THRESHOLD: f64 = 0.5;
/// How old an identification may be. More than a real account's two seconds: a developer stops in a debugger between the
/// identification and `fetchToken`, and a busy machine takes its time.
const MAX_ELAPSED_TIME: Duration = Duration::from_secs(60);

/// The secrets of the development mode.
#[derive(Clone, Debug)]
pub struct DevSecrets {
    /// Signs tokens; backends are told.
    pub account: Secret,
    /// The service's own.
    pub session: Secret,
}

/// The development configuration.
///
/// # Errors
/// When the simulators' address cannot be made a URL.
pub fn config(
    listen: SocketAddr,
    simulators: SocketAddr,
    apis: &[String],
    secrets: &DevSecrets,
) -> Result<Config, url::ParseError> {
    let checks = checks(simulators)?;
    let account = Account {
        site_key: SITE_KEY.to_owned(),
        secret: KeptSecret::here(SecretKind::Key, secrets.account.clone()).into(),
        jwe_secret: None,
        token_lifetime: Duration::from_secs(120),
        refresh_token_lifetime: Duration::from_secs(7200),
        allowed_origins: AllowedOrigins::default(),
        publish_jwks: false,
        issuer: None,
        secret_kid: None,
        any_of: Vec::new(),
        revocations: Revocations::default(),
        keys: BTreeMap::new(),
        apis: APIS
            .into_iter()
            .map(str::to_owned)
            .chain(apis.iter().map(|api| lookup_name(api).into_owned()))
            .map(|domain| (domain, Api { allow_web: true, jwe: false, keyset_kid: None, audience: None }))
            .collect(),
        checks,
    };
    Ok(Config {
        listen,
        operations: None,
        tls: None,
        store: StoreAddress::Memory,
        public_urls: Vec::new(),
        trusted_proxies: TrustedProxies::default(),
        proxy_protocol: false,
        // Who stops a development server does not want to wait, and simulated checks may fail as often as one likes.
        limits: Limits { drain: Duration::ZERO, failed_checks: None, ..Limits::default() },
        accounts: BTreeMap::from([(SITE_KEY.to_owned(), account)]),
        session_secret: Some(KeptSecret::here(SecretKind::Key, secrets.session.clone()).into()),
    })
}

/// Where browsers on this machine find a service that listens there, and where they find it under `more` URLs.
///
/// # Errors
/// The message names a URL that is none.
pub fn public_urls(scheme: &str, listen: SocketAddr, more: &[String]) -> Result<Vec<PublicUrl>, String> {
    let port = listen.port();
    let local = ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{scheme}://{host}:{port}"));
    let own = format!("{scheme}://{listen}");
    local.iter().chain([&own]).chain(more).map(|url| PublicUrl::parse(url)).collect()
}

/// The check services, all simulated.
fn checks(simulators: SocketAddr) -> Result<BTreeMap<Provider, Check>, url::ParseError> {
    let vendor = |secret: &str, path: &str| {
        Ok::<_, url::ParseError>(Vendor {
            secret: KeptSecret::here(SecretKind::Text, Secret::from_bytes(secret.as_bytes().to_vec())).into(),
            url: Url::parse(&format!("http://{simulators}{path}"))?,
        })
    };
    let rules =
        || CaptchaRules { domains: Vec::new(), actions: Vec::new(), min_score: Some(THRESHOLD), include_ip: false };
    let hcaptcha = hcaptcha::Site { vendor: vendor(sim::HCAPTCHA_SECRET, "/sim/hcaptcha/siteverify")?, rules: rules() };
    let recaptcha = recaptcha::Site {
        kind: recaptcha::Kind::Classic,
        vendor: vendor(sim::RECAPTCHA_SECRET, "/sim/recaptcha/siteverify")?,
        rules: rules(),
    };
    let enterprise = recaptcha::Site {
        kind: recaptcha::Kind::Enterprise { project: sim::RECAPTCHA_ENTERPRISE_PROJECT.to_owned() },
        vendor: vendor(sim::RECAPTCHA_ENTERPRISE_API_KEY, "/sim/recaptcha-enterprise/")?,
        rules: rules(),
    };
    let turnstile = turnstile::Site {
        vendor: vendor(sim::TURNSTILE_SECRET, "/sim/turnstile/v0/siteverify")?,
        rules: CaptchaRules::default(),
    };
    let friendly = friendly::Site {
        vendor: vendor(sim::FRIENDLY_API_KEY, "/sim/friendly/api/v2/captcha/siteverify")?,
        rules: CaptchaRules::default(),
    };
    let sealed_key = STANDARD.decode(sim::FINGERPRINT_SEALED_KEY).unwrap_or_default();
    let fingerprint = fingerprint::Site {
        vendor: vendor(sim::FINGERPRINT_SECRET, "/sim/fingerprint/v4/")?,
        api: fingerprint::Api::V4,
        sealed_key: Some(KeptSecret::here(SecretKind::Key32, Secret::from_bytes(sealed_key)).into()),
        max_elapsed_time: MAX_ELAPSED_TIME,
        max_bot_probability: THRESHOLD,
    };
    // Next to nothing, so that tests do not wait; and for the official widget, too.
    let altcha = altcha::Site { difficulty: Difficulty { cost: 600, zeros: 2 }, widget: true };
    let site = |kind| Site { embed_result: false, max_result_lifetime: None, rate_limit: None, kind };
    let check = |sites| Check { sites, ..Check::default() };
    let simulated = |key: &str, kind: SiteKind| {
        let keys = sim::OUTCOMES.into_iter().map(|outcome| sim::with_outcome(key, outcome));
        let site = site(kind);
        keys.chain([key.to_owned()]).map(|key| (key, site.clone())).collect::<BTreeMap<_, _>>()
    };
    let mut recaptchas = simulated(sim::RECAPTCHA_SITE_KEY, SiteKind::Recaptcha(recaptcha));
    recaptchas.append(&mut simulated(sim::RECAPTCHA_ENTERPRISE_SITE_KEY, SiteKind::Recaptcha(enterprise)));
    let fingerprints = simulated(sim::FINGERPRINT_PUBLIC_API_KEY, SiteKind::Fingerprint(fingerprint));
    Ok(BTreeMap::from([
        (Provider::Hcaptcha, check(simulated(sim::HCAPTCHA_SITE_KEY, SiteKind::Hcaptcha(hcaptcha)))),
        (Provider::Recaptcha, check(recaptchas)),
        (Provider::Turnstile, check(simulated(sim::TURNSTILE_SITE_KEY, SiteKind::Turnstile(turnstile)))),
        (Provider::Friendly, check(simulated(sim::FRIENDLY_SITE_KEY, SiteKind::Friendly(friendly)))),
        (Provider::Altcha, check(BTreeMap::from([(ALTCHA_SITE_KEY.to_owned(), site(SiteKind::Altcha(altcha)))]))),
        (Provider::Fingerprint, check(fingerprints)),
    ]))
}

/// What a developer needs to know, one line of JSON.
pub fn json_line(url: &str, operations: Option<&str>, config: &Config, secret: &Secret) -> String {
    let account = config.accounts.get(SITE_KEY);
    json!({
        "url": url,
        "operations": operations,
        "site_key": SITE_KEY,
        "secret": STANDARD.encode(secret.as_bytes()),
        "apis": account.map(|account| account.apis.keys().collect::<Vec<_>>()),
        "hcaptcha_site_key": sim::HCAPTCHA_SITE_KEY,
        "recaptcha_site_key": sim::RECAPTCHA_SITE_KEY,
        "recaptcha_enterprise_site_key": sim::RECAPTCHA_ENTERPRISE_SITE_KEY,
        "turnstile_site_key": sim::TURNSTILE_SITE_KEY,
        "friendly_site_key": sim::FRIENDLY_SITE_KEY,
        "altcha_site_key": ALTCHA_SITE_KEY,
        "fingerprint_public_api_key": sim::FINGERPRINT_PUBLIC_API_KEY,
    })
    .to_string()
}

/// The same for people.
pub fn text(url: &str, operations: Option<&str>, config: &Config, secret: &Secret) -> String {
    let Some(account) = config.accounts.get(SITE_KEY) else {
        return String::new();
    };
    let apis: Vec<&str> = account.apis.keys().map(String::as_str).collect();
    format!(
        "Approov web service for development at {url}

  approovHost                {host}
  approovSiteKey             {SITE_KEY}
  hcaptchaSiteKey            {hcaptcha}
  recaptchaSiteKey           {recaptcha}
                             {enterprise}   (Enterprise)
  turnstileSiteKey           {turnstile}
  friendlySiteKey            {friendly}
  altchaSiteKey              {altcha}   (no script needed)
  fingerprintPublicAPIKey    {fingerprint}
  APIs                       {apis}
  account secret (base64)    {secret}

  Simulated check services, for <script src> and import():
    {url}/sim/hcaptcha/1/api.js
    {url}/sim/recaptcha/api.js?render={recaptcha}
    {url}/sim/recaptcha/enterprise.js?render={enterprise}
    {url}/sim/turnstile/v0/api.js
    {url}/sim/friendly/site.js
    {url}/sim/fingerprint/v3/{fingerprint}
    {url}/sim/fingerprint/v4/{fingerprint}
  Another outcome: ?approov-sim=fail in the URL of the page or of the script, window.approovSim = {{ outcome: 'fail' }},
  or -sim-fail at the end of a site key. There are {outcomes}.

  Counters, and a description of the interface:
    {operations}/metrics
    {operations}/openapi.json
",
        operations = operations.unwrap_or_default(),
        host = url.strip_prefix("https://").unwrap_or(url),
        hcaptcha = sim::HCAPTCHA_SITE_KEY,
        recaptcha = sim::RECAPTCHA_SITE_KEY,
        enterprise = sim::RECAPTCHA_ENTERPRISE_SITE_KEY,
        turnstile = sim::TURNSTILE_SITE_KEY,
        friendly = sim::FRIENDLY_SITE_KEY,
        altcha = ALTCHA_SITE_KEY,
        outcomes = sim::OUTCOMES.join(", "),
        fingerprint = sim::FINGERPRINT_PUBLIC_API_KEY,
        apis = apis.join(", "),
        secret = STANDARD.encode(secret.as_bytes()),
    )
}
