//! The command line for the configuration: the hosted service's commands, flags and style, on a
//! TOML file. A running service picks the change up by itself.

mod args;
mod document;

pub use args::{Arg, Args, UsageError, unknown};

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use approov_verify::keyset::KeySet;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use approov_verify::{MessagePolicy, ProofPolicy, Request, TOKEN_HEADER, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use serde_json::{Map, json};
use toml_edit::{Array, Item, Table, value};

use crate::config::{Account, Check, Config, Rule};
use crate::crypto::{CryptoError, JweEntropy, KeyAlg, KeyPair, random};
use crate::provider::Provider;
use crate::token::{self, Signer, arc_text, private_pem};
use document::Document;

/// The file that is edited when nothing names one.
const DEFAULT_FILE: &str = "service.toml";

/// What the commands take.
pub const USAGE: &str = "\
approov-web-service account -add [SITE_KEY] | -list
approov-web-service api     -add DOMAIN [-allowWeb] [-jwe] [-keySetKID KID] | -list | -remove DOMAIN
approov-web-service web     -list | -setTokenLifetime SECONDS | -setRefreshTokenLifetime SECONDS
                            -allowOrigin ORIGIN | -disallowOrigin ORIGIN
approov-web-service web     -fingerprint|-hcaptcha|-recaptcha  -list | -setRequired | -setOptional | -remove KEY
    -add KEY -secret SECRET|-secretEnv VARIABLE [-embedResult]
        [-maxResultLifetime SECONDS] [-rateLimit PER_MINUTE] [-verifyURL URL]
        -fingerprint:           [-region RoW|EU|AP] [-maxElapsedTime SECONDS] [-maxBotProbability 0..1]
        -hcaptcha, -recaptcha:  [-domain DOMAIN]... [-minScore 0..1] [-includeIP]
        -recaptcha:             [-action ACTION]...
approov-web-service token   -check TOKEN | -genExample DOMAIN [-type valid|invalid] [-setDataHashInToken DATA]
approov-web-service secret  -get base64|base64url [-jwe]
approov-web-service keyset  -add RS256|ES256 [-kid KID] | -list | -getPublic KID | -remove KID
    -config FILE       the configuration (default service.toml, or $APPROOV_SERVICE_CONFIG)
    -account SITE_KEY  which account, when there are several
    -y                 do not ask
";

/// Why a command did nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The command line is right, but it cannot be done.
    Refused(String),
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Failure::Usage(error.0)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure::Refused(message)
    }
}

type Done = Result<(), Failure>;

/// Where a command reads and writes.
pub struct Console<'a> {
    /// For the answer to a question.
    pub input: &'a mut dyn BufRead,
    /// For what the command says.
    pub output: &'a mut dyn Write,
}

impl Console<'_> {
    fn say(&mut self, line: &str) -> Done {
        writeln!(self.output, "{line}").map_err(|error| Failure::Refused(error.to_string()))
    }

    /// Asks before a change, in the words of the hosted command line.
    fn confirm(&mut self, warning: &str, yes: bool) -> Done {
        if yes {
            return Ok(());
        }
        self.say(&format!("WARNING: {warning}"))?;
        let asked = write!(self.output, "ATTENTION: If you wish to continue then please type YES and return: ");
        let mut answer = String::new();
        asked
            .and_then(|()| self.output.flush())
            .and_then(|()| self.input.read_line(&mut answer))
            .map_err(|error| Failure::Refused(error.to_string()))?;
        if answer.trim() == "YES" { Ok(()) } else { Err(Failure::Refused("nothing was changed".to_owned())) }
    }
}

/// Runs a command of the configuration; `None` when there is no such command.
pub fn run(command: &str, args: Args, console: &mut Console<'_>) -> Option<Done> {
    let run = match command {
        "account" => account,
        "api" => api,
        "web" => web,
        "token" => token,
        "secret" => secret,
        "keyset" => keyset,
        _ => return None,
    };
    Some(run(args, console))
}

/// The options that every command takes.
#[derive(Default)]
struct Common {
    file: Option<PathBuf>,
    account: Option<String>,
    yes: bool,
}

impl Common {
    /// Takes `flag` if it is one of these.
    fn take(&mut self, flag: &str, args: &mut Args) -> Result<bool, UsageError> {
        match flag {
            "config" => self.file = Some(args.value(flag)?.into()),
            "account" => self.account = Some(args.value(flag)?),
            "y" => self.yes = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn document(&self) -> Result<Document, String> {
        let path = self.file.clone().or_else(|| std::env::var_os("APPROOV_SERVICE_CONFIG").map(PathBuf::from));
        Document::open(&path.unwrap_or_else(|| DEFAULT_FILE.into()))
    }

    fn read_account(&self) -> Result<Account, String> {
        let mut document = self.document()?;
        let site_key = document.account(self.account.as_deref())?.get("site_key").and_then(Item::as_str);
        let site_key = site_key.unwrap_or_default().to_owned();
        let Config { mut accounts, .. } = document.config()?;
        accounts.remove(&site_key).ok_or_else(|| format!("there is no account {site_key}"))
    }
}

/// The one thing that a command is asked to do.
struct Action(Option<(String, Option<String>)>);

impl Action {
    fn set(&mut self, flag: &str, operand: Option<String>) -> Result<(), UsageError> {
        match self.0.replace((flag.to_owned(), operand)) {
            None => Ok(()),
            Some((first, _)) => Err(UsageError(format!("-{first} and -{flag} cannot be asked at once"))),
        }
    }

    fn required(self, command: &str, choices: &str) -> Result<(String, String), UsageError> {
        match self.0 {
            Some((flag, operand)) => Ok((flag, operand.unwrap_or_default())),
            None => Err(UsageError(format!("{command} needs one of {choices}"))),
        }
    }
}

fn account(mut args: Args, console: &mut Console<'_>) -> Done {
    let (mut common, mut action, mut site_key) = (Common::default(), Action(None), None);
    while let Some(arg) = args.next_arg() {
        match &arg {
            Arg::Flag(flag) if flag == "add" || flag == "list" => action.set(flag, None)?,
            Arg::Flag(flag) if common.take(flag, &mut args)? => {}
            Arg::Word(word) if site_key.is_none() => site_key = Some(word.clone()),
            _ => return Err(unknown("account", &arg).into()),
        }
    }
    let (flag, _) = action.required("account", "-add or -list")?;
    let mut document = common.document()?;
    if flag == "list" {
        for site_key in document.config()?.accounts.keys() {
            console.say(site_key)?;
        }
        return Ok(());
    }
    let no_random = |_| Failure::Refused("there are no random numbers".to_owned());
    let site_key = match site_key {
        Some(site_key) => site_key,
        None => URL_SAFE_NO_PAD.encode(random::<18>().map_err(no_random)?),
    };
    let secret = STANDARD.encode(random::<64>().map_err(no_random)?);
    document.add_account(&site_key, &secret)?;
    document.save()?;
    console.say(&format!("added account with site key {site_key}"))
}

fn api(mut args: Args, console: &mut Console<'_>) -> Done {
    let (mut common, mut action) = (Common::default(), Action(None));
    let (mut allow_web, mut jwe, mut kid) = (false, false, None);
    while let Some(arg) = args.next_arg() {
        let Arg::Flag(flag) = &arg else { return Err(unknown("api", &arg).into()) };
        match flag.as_str() {
            "add" | "remove" => {
                let domain = args.value(flag)?;
                action.set(flag, Some(domain))?;
            }
            "list" => action.set(flag, None)?,
            "allowWeb" => allow_web = true,
            "jwe" => jwe = true,
            "keySetKID" => kid = Some(args.value(flag)?),
            "noApproovToken" => {
                return Err(Failure::Usage(
                    "-noApproovToken is for pinning in mobile apps; this service gives out web tokens only".to_owned(),
                ));
            }
            _ if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("api", &arg).into()),
        }
    }
    match action.required("api", "-add, -list or -remove")? {
        (flag, _) if flag == "list" => {
            let account = common.read_account()?;
            for domain in account.apis.keys() {
                console.say(&describe_api(&account, domain))?;
            }
            Ok(())
        }
        (flag, domain) if flag == "remove" => {
            let mut document = common.document()?;
            let apis = document::tables(document.account(common.account.as_deref())?, "api")?;
            let index =
                document::find(apis, "domain", &domain).ok_or_else(|| format!("there is no API domain {domain}"))?;
            console
                .confirm("removing the API will have an immediate impact on your apps in production.", common.yes)?;
            apis.remove(index);
            document.save()?;
            console.say(&format!("removed API domain {domain}"))
        }
        (_, domain) => {
            let mut document = common.document()?;
            let account = document.account(common.account.as_deref())?;
            if jwe && !account.contains_key("jwe_secret") && !account.contains_key("jwe_secret_env") {
                let secret = random::<32>().map_err(|error| error.to_string())?;
                account.insert("jwe_secret", value(STANDARD.encode(secret)));
            }
            let mut entry = Table::new();
            entry.insert("domain", value(domain.as_str()));
            entry.insert("allow_web", value(allow_web));
            if jwe {
                entry.insert("jwe", value(true));
            }
            if let Some(kid) = kid {
                entry.insert("keyset_kid", value(kid));
            }
            document::put(document::tables(account, "api")?, "domain", entry);
            document.config()?;
            console.confirm("adding the API will have an immediate impact on your apps in production.", common.yes)?;
            document.save()?;
            let account = common.read_account()?;
            console.say(&format!("added API domain {}", describe_api(&account, &domain)))
        }
    }
}

fn describe_api(account: &Account, domain: &str) -> String {
    let Some(api) = account.apis.get(&domain.to_ascii_lowercase()) else { return domain.to_owned() };
    let key = api.keyset_kid.as_ref().and_then(|kid| Some((kid, account.keys.get(kid)?)));
    let mut text = match key {
        None => format!("{domain} with type:account, alg:HS256"),
        Some((kid, key)) => format!("{domain} with type:keyset, alg:{}, kid:{kid}", key.alg().name()),
    };
    if api.jwe {
        text.push_str(", jwe:A256GCMKW");
    }
    text.push_str(if api.allow_web { ", web:allowed" } else { ", web:not allowed" });
    text
}

/// A time, written as seconds or with its unit.
struct Seconds(f64);

impl Seconds {
    /// Whole seconds, rounded up.
    fn whole(&self) -> i64 {
        // Checked when it was read: at least 0 and at most `u32::MAX`.
        #[allow(clippy::cast_possible_truncation)]
        let whole = self.0.ceil() as i64;
        whole
    }
}

impl std::str::FromStr for Seconds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let factor = match unit {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(()),
        };
        let number: f64 = text.strip_suffix(unit).unwrap_or(text).parse().map_err(|_| ())?;
        let seconds = number * factor;
        if seconds <= f64::from(u32::MAX) { Ok(Self(seconds)) } else { Err(()) }
    }
}

/// The properties of a site as they are being added.
#[derive(Default)]
struct NewSite {
    entries: BTreeMap<&'static str, Item>,
    domains: Vec<String>,
    actions: Vec<String>,
}

impl NewSite {
    /// Takes `flag` if it is a property of a site.
    fn take(&mut self, flag: &str, args: &mut Args) -> Result<bool, UsageError> {
        const SECONDS: &str = "a number of seconds, or a time such as 500ms, 2.5s, 10m or 1h";
        const SCORE: &str = "a number from 0 to 1";
        let (name, item) = match flag {
            "secret" => ("secret", value(args.value(flag)?)),
            "secretEnv" => ("secret_env", value(args.value(flag)?)),
            "verifyURL" => ("verify_url", value(args.value(flag)?)),
            "region" => ("region", value(args.value(flag)?)),
            "maxElapsedTime" => ("max_elapsed_time", value(args.parsed::<Seconds>(flag, SECONDS)?.0)),
            "maxBotProbability" => ("max_bot_probability", value(args.parsed::<f64>(flag, SCORE)?)),
            "minScore" => ("min_score", value(args.parsed::<f64>(flag, SCORE)?)),
            "maxResultLifetime" => ("max_result_lifetime", value(args.parsed::<Seconds>(flag, SECONDS)?.whole())),
            "rateLimit" => ("rate_limit", value(i64::from(args.parsed::<u32>(flag, "a number per minute")?))),
            "embedResult" => ("embed_result", value(true)),
            "includeIP" => ("include_ip", value(true)),
            "domain" => {
                self.domains.push(args.value(flag)?);
                return Ok(true);
            }
            "action" => {
                self.actions.push(args.value(flag)?);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.entries.insert(name, item);
        Ok(true)
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.domains.is_empty() && self.actions.is_empty()
    }

    fn table(self, provider: Provider, key: &str) -> Result<Table, UsageError> {
        if !self.entries.contains_key("secret") && !self.entries.contains_key("secret_env") {
            return Err(UsageError("-add needs -secret or -secretEnv beside it".to_owned()));
        }
        let mut table = Table::new();
        table.insert(key_name(provider), value(key));
        for (name, item) in self.entries {
            table.insert(name, item);
        }
        for (name, list) in [("domains", self.domains), ("actions", self.actions)] {
            if !list.is_empty() {
                table.insert(name, value(list.into_iter().collect::<Array>()));
            }
        }
        Ok(table)
    }
}

fn key_name(provider: Provider) -> &'static str {
    match provider {
        Provider::Fingerprint => "public_api_key",
        Provider::Hcaptcha | Provider::Recaptcha => "site_key",
    }
}

fn web(mut args: Args, console: &mut Console<'_>) -> Done {
    let (mut common, mut action) = (Common::default(), Action(None));
    let (mut provider, mut site) = (None, NewSite::default());
    while let Some(arg) = args.next_arg() {
        let Arg::Flag(flag) = &arg else { return Err(unknown("web", &arg).into()) };
        let named = Provider::ALL.into_iter().find(|provider| provider.name() == flag);
        match flag.as_str() {
            _ if named.is_some() && provider.is_some() => {
                return Err(Failure::Usage("one check service at a time".to_owned()));
            }
            _ if named.is_some() => provider = named,
            "list" | "setRequired" | "setOptional" => action.set(flag, None)?,
            "add" | "remove" | "setTokenLifetime" | "setRefreshTokenLifetime" | "allowOrigin" | "disallowOrigin" => {
                let operand = args.value(flag)?;
                action.set(flag, Some(operand))?;
            }
            _ if common.take(flag, &mut args)? || site.take(flag, &mut args)? => {}
            _ => return Err(unknown("web", &arg).into()),
        }
    }
    let (flag, operand) = action.required("web", "-list, -add, -remove, -setRequired, -setOptional, …")?;
    if flag != "add" && !site.is_empty() {
        return Err(Failure::Usage(format!("-{flag} takes no properties of a site")));
    }
    if flag == "list" {
        let account = common.read_account()?;
        return console.say(list_web(&account, provider).trim_end());
    }
    let mut document = common.document()?;
    let account = document.account(common.account.as_deref())?;
    let said = match (flag.as_str(), provider) {
        ("setTokenLifetime" | "setRefreshTokenLifetime", None) => {
            let seconds: u32 = operand
                .parse()
                .map_err(|_| Failure::Usage(format!("-{flag} must be a number of seconds, got \"{operand}\"")))?;
            let (name, words) = if flag == "setTokenLifetime" {
                ("token_lifetime", "token lifetime")
            } else {
                ("refresh_token_lifetime", "refresh token lifetime")
            };
            document::set(account, name, value(i64::from(seconds)));
            format!("{words} set to {seconds} seconds")
        }
        ("allowOrigin" | "disallowOrigin", None) => edit_origins(account, &flag, &operand)?,
        (_, None) => return Err(Failure::Usage(format!("-{flag} needs -fingerprint, -hcaptcha or -recaptcha"))),
        ("setRequired" | "setOptional", Some(provider)) => {
            let required = flag == "setRequired";
            let check = document::table(account, provider.name())?;
            check.set_implicit(false);
            document::set(check, "required", value(required));
            format!("{} is now {}", provider.name(), if required { "required" } else { "optional" })
        }
        ("add", Some(provider)) => {
            let entry = site.table(provider, &operand)?;
            let check = document::table(account, provider.name())?;
            document::put(document::tables(check, provider.site_word())?, key_name(provider), entry);
            format!("{} {} {operand} added", provider.name(), provider.site_word())
        }
        ("remove", Some(provider)) => {
            let sites = document::tables(document::table(account, provider.name())?, provider.site_word())?;
            let index = document::find(sites, key_name(provider), &operand)
                .ok_or_else(|| format!("there is no {} {} {operand}", provider.name(), provider.site_word()))?;
            sites.remove(index);
            format!("{} {} {operand} removed", provider.name(), provider.site_word())
        }
        (_, Some(_)) => return Err(Failure::Usage(format!("-{flag} is not about one check service"))),
    };
    document.config()?;
    console.confirm("changing the web configuration will have an immediate impact in production", common.yes)?;
    document.save()?;
    console.say(&said)
}

fn edit_origins(account: &mut Table, flag: &str, origin: &str) -> Result<String, Failure> {
    let item = account.entry("allowed_origins").or_insert_with(|| value(Array::new()));
    let list = item.as_array_mut().ok_or_else(|| "allowed_origins must be an array".to_owned())?;
    let at = list.iter().position(|have| have.as_str() == Some(origin));
    match (flag, at) {
        ("allowOrigin", None) => list.push(origin),
        ("allowOrigin", Some(_)) => {}
        (_, None) => return Err(Failure::Refused(format!("{origin} is not among the allowed origins"))),
        (_, Some(at)) => {
            list.remove(at);
        }
    }
    Ok(match list.len() {
        0 => "pages of any origin are allowed".to_owned(),
        count => format!("pages of {count} origin{} are allowed", if count == 1 { "" } else { "s" }),
    })
}

/// The listing of the specification's examples.
fn list_web(account: &Account, only: Option<Provider>) -> String {
    let mut out = String::new();
    if only.is_none() {
        out.push_str(&format!(
            "Site Key: {}\nToken Lifetime: {} seconds\nRefresh Token Lifetime: {} seconds\n",
            account.site_key,
            account.token_lifetime.as_secs(),
            account.refresh_token_lifetime.as_secs()
        ));
    }
    for (provider, check) in &account.checks {
        if only.is_none_or(|only| only == *provider) && !check.sites.is_empty() {
            list_check(&mut out, *provider, check);
        }
    }
    out
}

fn list_check(out: &mut String, provider: Provider, check: &Check) {
    out.push_str(&format!("{}:\n  Optional: {}\n", provider.title(), !check.required));
    for (key, site) in &check.sites {
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        match &site.rule {
            Rule::Fingerprint { max_elapsed_time, max_bot_probability } => {
                line(format!("  Subscription Key: {key}"));
                line(format!("    Region: {}", region(site.verify_url.as_str())));
                line(format!("    Max Elapsed Time: {:.2}s", max_elapsed_time.as_secs_f64()));
                line(format!("    Max Bot Probability: {max_bot_probability:.2}"));
            }
            Rule::Captcha { domains, actions, min_score, include_ip } => {
                line(format!("  Site Key: {key}"));
                for (title, list) in [("Domains", domains), ("Actions", actions)] {
                    if !list.is_empty() {
                        line(format!("    {title}:"));
                        for entry in list {
                            line(format!("      {entry}"));
                        }
                    }
                }
                line(format!("    Min Score: {min_score:.2}"));
                line(format!("    Include IP: {include_ip}"));
            }
        }
        line(format!("    Embed Result: {}", site.embed_result));
        line(format!("    Max Result Lifetime: {}s", site.max_result_lifetime.unwrap_or_default().as_secs()));
        if let Some(limit) = site.rate_limit {
            line(format!("    Rate Limit: {limit} per minute"));
        }
    }
}

fn region(url: &str) -> &str {
    match url {
        "https://api.fpjs.io/" => "RoW",
        "https://eu.api.fpjs.io/" => "EU",
        "https://ap.api.fpjs.io/" => "AP",
        other => other,
    }
}

fn token(mut args: Args, console: &mut Console<'_>) -> Done {
    let (mut common, mut action) = (Common::default(), Action(None));
    let (mut valid, mut data) = (true, None);
    while let Some(arg) = args.next_arg() {
        let Arg::Flag(flag) = &arg else { return Err(unknown("token", &arg).into()) };
        match flag.as_str() {
            "check" | "genExample" => {
                let operand = args.value(flag)?;
                action.set(flag, Some(operand))?;
            }
            "type" => {
                valid = match args.value(flag)?.as_str() {
                    "valid" => true,
                    "invalid" => false,
                    other => return Err(Failure::Usage(format!("-type must be valid or invalid, got \"{other}\""))),
                }
            }
            "setDataHashInToken" => data = Some(args.value(flag)?),
            _ if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("token", &arg).into()),
        }
    }
    let (flag, operand) = action.required("token", "-check or -genExample")?;
    let account = common.read_account()?;
    if flag == "check" {
        return match check_token(&account, &operand)? {
            Ok(claims) => console.say(&format!("valid: {claims}")),
            Err(reason) => Err(Failure::Refused(format!("invalid: {reason}"))),
        };
    }
    let example = example_token(&account, &operand, valid, data.as_deref())?;
    console.say(&example)
}

/// What a backend would say of a token: its claims, or why not.
fn check_token(account: &Account, token: &str) -> Result<Result<String, String>, String> {
    let mut verifier =
        Verifier::builder().secret(&account.secret).proof(ProofPolicy::Optional).message(MessagePolicy::Ignored);
    let mut pem = String::new();
    for key in account.keys.values() {
        pem.push_str(&key.public_pem().map_err(|error| error.to_string())?);
    }
    if !pem.is_empty() {
        verifier = verifier.keyset(KeySet::from_pem(&pem).map_err(|error| error.to_string())?);
    }
    if let Some(secret) = &account.jwe_secret {
        verifier = verifier.jwe_secret(secret);
    }
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let Ok(header) = token.parse() else { return Ok(Err("not a token".to_owned())) };
    let mut headers = axum::http::HeaderMap::new();
    headers.insert(TOKEN_HEADER, header);
    let request = Request {
        method: "GET",
        url: "https://localhost/",
        headers: &headers,
        body: approov_verify::Body::Unread,
        binding: None,
    };
    // Its store is in memory, so nothing is waited for.
    let verified = verifier.verify(&request, UnixTime::now()).now_or_never();
    Ok(match verified {
        Some(Ok(verified)) => Ok(json!(verified.claims.all).to_string()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("it could not be checked".to_owned()),
    })
}

/// A token like those of the web channel, good for an hour, for trying a backend out.
fn example_token(account: &Account, domain: &str, valid: bool, data: Option<&str>) -> Result<String, String> {
    let api =
        account.apis.get(&domain.to_ascii_lowercase()).ok_or_else(|| format!("there is no API domain {domain}"))?;
    let failed = |error: CryptoError| error.to_string();
    let signer = match api.keyset_kid.as_ref().and_then(|kid| account.keys.get(kid)) {
        Some(key) if valid => Signer::Key(key.clone()),
        Some(key) => Signer::Key(key.with_pair(key.pair().generate_similar().map_err(failed)?)),
        None if valid => Signer::hs256(&account.secret),
        None => Signer::hs256(&Secret::from_bytes(random::<64>().map_err(failed)?.to_vec())),
    };
    let now = UnixTime::now().as_secs();
    let mut claims = Map::from_iter([
        ("exp".to_owned(), json!(now + 3600)),
        ("iat".to_owned(), json!(now)),
        ("ip".to_owned(), json!("1.2.3.4")),
        ("arc".to_owned(), json!(arc_text(random().map_err(failed)?))),
        ("embed".to_owned(), json!({})),
    ]);
    if let Some(data) = data {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data.as_bytes());
        claims.insert("pay".to_owned(), STANDARD.encode(hash.as_ref()).into());
    }
    let jws = signer.sign_value(&claims).map_err(failed)?;
    match &account.jwe_secret {
        Some(secret) if api.jwe => token::encrypt(&jws, secret, JweEntropy::draw().map_err(failed)?).map_err(failed),
        _ => Ok(jws),
    }
}

fn secret(mut args: Args, console: &mut Console<'_>) -> Done {
    let (mut common, mut action, mut jwe) = (Common::default(), Action(None), false);
    while let Some(arg) = args.next_arg() {
        let Arg::Flag(flag) = &arg else { return Err(unknown("secret", &arg).into()) };
        match flag.as_str() {
            "jwe" => jwe = true,
            "get" => {
                let format = args.value(flag)?;
                action.set(flag, Some(format))?;
            }
            _ if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("secret", &arg).into()),
        }
    }
    let (_, format) = action.required("secret", "-get base64 or -get base64url")?;
    let account = common.read_account()?;
    let secret = match (&account.jwe_secret, jwe) {
        (_, false) => account.secret.as_bytes(),
        (Some(secret), true) => secret.as_bytes(),
        (None, true) => return Err(Failure::Refused("the account has no JWE secret".to_owned())),
    };
    match format.as_str() {
        "base64" => console.say(&STANDARD.encode(secret)),
        "base64url" => console.say(&URL_SAFE_NO_PAD.encode(secret)),
        other => Err(Failure::Usage(format!("-get must be base64 or base64url, got \"{other}\""))),
    }
}

fn keyset(mut args: Args, console: &mut Console<'_>) -> Done {
    let (mut common, mut action, mut kid) = (Common::default(), Action(None), None);
    while let Some(arg) = args.next_arg() {
        let Arg::Flag(flag) = &arg else { return Err(unknown("keyset", &arg).into()) };
        match flag.as_str() {
            "add" | "getPublic" | "remove" => {
                let operand = args.value(flag)?;
                action.set(flag, Some(operand))?;
            }
            "list" => action.set(flag, None)?,
            "kid" => kid = Some(args.value(flag)?),
            _ if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("keyset", &arg).into()),
        }
    }
    let (flag, operand) = action.required("keyset", "-add, -list, -getPublic or -remove")?;
    let warning = "changing the keyset will have an immediate impact in production";
    match flag.as_str() {
        "list" => {
            for (kid, key) in &common.read_account()?.keys {
                console.say(&format!("{kid} alg:{}", key.alg().name()))?;
            }
            Ok(())
        }
        "getPublic" => {
            let account = common.read_account()?;
            let key = account.keys.get(&operand).ok_or_else(|| format!("there is no key {operand}"))?;
            console.say(key.public_pem().map_err(|error| error.to_string())?.trim_end())
        }
        "remove" => {
            let mut document = common.document()?;
            let keys = document::tables(document.account(common.account.as_deref())?, "key")?;
            let index = document::find(keys, "kid", &operand).ok_or_else(|| format!("there is no key {operand}"))?;
            keys.remove(index);
            document.config()?;
            console.confirm(warning, common.yes)?;
            document.save()?;
            console.say(&format!("removed key {operand}"))
        }
        _ => {
            let alg = KeyAlg::parse(&operand)
                .ok_or_else(|| Failure::Usage(format!("-add must be RS256 or ES256, got \"{operand}\"")))?;
            let kid = match kid {
                Some(kid) => kid,
                None => URL_SAFE_NO_PAD.encode(random::<9>().map_err(|error| error.to_string())?),
            };
            let pem = KeyPair::generate(alg).and_then(|pair| private_pem(&pair)).map_err(|error| error.to_string())?;
            let mut entry = Table::new();
            entry.insert("kid", value(kid.as_str()));
            entry.insert("alg", value(alg.name()));
            entry.insert("private_key", value(pem.as_str()));
            let mut document = common.document()?;
            let keys = document::tables(document.account(common.account.as_deref())?, "key")?;
            if document::find(keys, "kid", &kid).is_some() {
                return Err(Failure::Refused(format!("there is a key {kid} already")));
            }
            keys.push(entry);
            document.config()?;
            console.confirm(warning, common.yes)?;
            document.save()?;
            console.say(&format!("added key {kid} with alg:{}", alg.name()))
        }
    }
}
