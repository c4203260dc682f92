//! `web`: what an account gives to browsers, and its check services.

use std::collections::BTreeMap;

use toml_edit::{Array, Item, Table, value};

use crate::check::{Check, Mode, OptionKind, Provider, site_option};
use crate::config::Account;

use super::{
    Action, Arg, Args, CliResult, CommonFlags, Console, Failure, UsageError, document, secret_operand, unknown,
};

pub(super) fn web(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action) = (CommonFlags::default(), Action(None));
    let (mut provider, mut site) = (None, NewSite::default());
    while let Some(arg) = args.next_arg()? {
        let Arg::Flag(flag) = &arg else { return Err(unknown("web", &arg).into()) };
        let named = Provider::ALL.into_iter().find(|provider| provider.name() == flag);
        match flag.as_str() {
            _ if named.is_some() && provider.is_some() => {
                return Err(Failure::Usage("one check service at a time".to_owned()));
            }
            _ if named.is_some() => provider = named,
            "list" | "setRequired" | "setOptional" => action.set(flag, None)?,
            "add"
            | "remove"
            | "setMode"
            | "anyOf"
            | "setTokenLifetime"
            | "setRefreshTokenLifetime"
            | "allowOrigin"
            | "disallowOrigin" => {
                let operand = args.value(flag)?;
                action.set(flag, Some(operand))?;
            }
            _ if common.take(flag, &mut args)? || site.take(flag, &mut args, console)? => {}
            _ => return Err(unknown("web", &arg).into()),
        }
    }
    let (flag, operand) = action.required("web", "-list, -add, -remove, -setRequired, -setOptional, …")?;
    if flag != "add" && !site.is_empty() {
        return Err(Failure::Usage(format!("-{flag} takes no properties of a site")));
    }
    if flag == "list" {
        let account = common.read_account()?;
        return console.say(list(&account, provider).trim_end());
    }
    let mut edit = common.edit()?;
    let account = edit.account(common.account.as_deref())?;
    let done = match provider {
        None => edit_account(account, &flag, &operand)?,
        Some(provider) => edit_check(account, provider, &flag, &operand, site)?,
    };
    edit.confirm(console, "changing the web configuration will have an immediate impact in production", common.yes)?;
    edit.save()?;
    console.say(&done)
}

/// An edit that is about no check service. The text says what it did.
fn edit_account(account: &mut Table, flag: &str, operand: &str) -> Result<String, Failure> {
    let (key, name) = match flag {
        "setTokenLifetime" => ("token_lifetime", "token lifetime"),
        "setRefreshTokenLifetime" => ("refresh_token_lifetime", "refresh token lifetime"),
        "allowOrigin" | "disallowOrigin" => return edit_origins(account, flag, operand),
        "anyOf" => return Ok(edit_any_of(account, operand)),
        _ => {
            let names: Vec<String> = Provider::ALL.iter().map(|provider| format!("-{}", provider.name())).collect();
            let (last, others) = names.split_last().map(|(last, others)| (last.as_str(), others)).unwrap_or_default();
            return Err(Failure::Usage(format!("-{flag} needs {} or {last}", others.join(", "))));
        }
    };
    let seconds: u32 = operand
        .parse()
        .map_err(|_| Failure::Usage(format!("-{flag} must be a number of seconds, got \"{operand}\"")))?;
    document::set(account, key, value(i64::from(seconds)));
    Ok(format!("{name} set to {seconds} seconds"))
}

/// An edit of one check service. The text says what it did.
fn edit_check(
    account: &mut Table,
    provider: Provider,
    flag: &str,
    operand: &str,
    site: NewSite,
) -> Result<String, Failure> {
    let definition = provider.definition();
    let (name, noun) = (definition.name, definition.site_noun);
    match flag {
        "setRequired" | "setOptional" => {
            let required = flag == "setRequired";
            let check = document::table(account, name)?;
            check.set_implicit(false);
            document::set(check, "required", value(required));
            Ok(format!("{name} is now {}", if required { "required" } else { "optional" }))
        }
        "setMode" => {
            let check = document::table(account, name)?;
            check.set_implicit(false);
            document::set(check, "mode", value(operand));
            Ok(format!("{name} is now in mode {operand}"))
        }
        "add" => {
            let entry = site.table(provider, operand)?;
            let check = document::table(account, name)?;
            document::put(document::tables(check, noun)?, definition.key_name, entry);
            Ok(format!("{name} {noun} {operand} added"))
        }
        "remove" => {
            let sites = document::tables(document::table(account, name)?, noun)?;
            let index = document::find(sites, definition.key_name, operand)
                .ok_or_else(|| format!("there is no {name} {noun} {operand}"))?;
            sites.remove(index);
            Ok(format!("{name} {noun} {operand} removed"))
        }
        _ => Err(Failure::Usage(format!("-{flag} is not about one check service"))),
    }
}

/// The group of checks of which one must come: names with commas between them, or `none`.
fn edit_any_of(account: &mut Table, operand: &str) -> String {
    if operand == "none" {
        account.remove("any_of");
        return "no check of a group has to come".to_owned();
    }
    let names: Vec<&str> = operand.split(',').map(str::trim).collect();
    document::set(account, "any_of", value(names.iter().copied().collect::<Array>()));
    format!("one of {} has to come", names.join(", "))
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
    lists: BTreeMap<&'static str, Array>,
}

impl NewSite {
    /// Takes `flag` if it is a property of a site. Whether it is one of this check service is for the configuration to
    /// say: the check service may be named later on the command line.
    fn take(&mut self, flag: &str, args: &mut Args, console: &mut Console<'_>) -> Result<bool, UsageError> {
        const SECONDS: &str = "a number of seconds, or a time such as 500ms, 2.5s, 10m or 1h";
        const SCORE: &str = "a number from 0 to 1";
        let Some(option) = site_option(flag) else {
            return Ok(false);
        };
        let item = match option.kind {
            OptionKind::Switch => value(true),
            OptionKind::Text => value(args.value(flag)?),
            OptionKind::Secret => value(secret_operand(flag, args.value(flag)?, console.input)?.as_str()),
            OptionKind::Seconds => value(args.parsed::<Seconds>(flag, SECONDS)?.0),
            OptionKind::WholeSeconds => value(args.parsed::<Seconds>(flag, SECONDS)?.whole()),
            OptionKind::Probability => value(args.parsed::<f64>(flag, SCORE)?),
            OptionKind::Number => value(i64::from(args.parsed::<u32>(flag, "a whole number")?)),
            OptionKind::PerMinute => value(i64::from(args.parsed::<u32>(flag, "a number per minute")?)),
            OptionKind::List => {
                self.lists.entry(option.key).or_default().push(args.value(flag)?);
                return Ok(true);
            }
        };
        self.entries.insert(option.key, item);
        Ok(true)
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.lists.is_empty()
    }

    fn table(self, provider: Provider, key: &str) -> Result<Table, UsageError> {
        let has = |name: &&str| self.entries.contains_key(*name);
        if provider.definition().needs_secret() && !["secret", "secret_file", "secret_env"].iter().any(has) {
            return Err(UsageError("-add needs -secretFile, -secretEnv or -secret next to it".to_owned()));
        }
        let mut table = Table::new();
        table.insert(provider.definition().key_name, value(key));
        for (name, item) in self.entries {
            table.insert(name, item);
        }
        for (name, list) in self.lists {
            table.insert(name, value(list));
        }
        Ok(table)
    }
}

/// The listing of the specification's examples.
fn list(account: &Account, only: Option<Provider>) -> String {
    let mut out = String::new();
    if only.is_none() {
        out.push_str(&format!(
            "Site Key: {}\nToken Lifetime: {} seconds\nRefresh Token Lifetime: {} seconds\n",
            account.site_key,
            account.token_lifetime.as_secs(),
            account.refresh_token_lifetime.as_secs()
        ));
        out.push_str(&list_origins(account));
        if !account.any_of.is_empty() {
            let names: Vec<&str> = account.any_of.iter().map(|provider| provider.name()).collect();
            out.push_str(&format!("Any Of: {}\n", names.join(", ")));
        }
        if let Some(weakest) = account.weakest() {
            out.push_str(&format!("Suffices: {weakest}\n"));
        }
    }
    for (provider, check) in &account.checks {
        if only.is_none_or(|only| only == *provider) && !check.sites.is_empty() {
            list_check(&mut out, *provider, check);
        }
    }
    let warnings = match only {
        None => account.warnings(),
        Some(provider) => account.warnings_about(provider),
    };
    for warning in warnings {
        out.push_str(&format!("WARNING: {warning}\n"));
    }
    out
}

fn list_origins(account: &Account) -> String {
    if account.allowed_origins.is_empty() {
        return "Allowed Origins: any\n".to_owned();
    }
    let entries = account.allowed_origins.entries().map(|entry| format!("  {entry}\n"));
    ["Allowed Origins:\n".to_owned()].into_iter().chain(entries).collect()
}

fn list_check(out: &mut String, provider: Provider, check: &Check) {
    let definition = provider.definition();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("{}:", definition.display_name));
    line(format!("  Optional: {}", !check.required));
    if check.mode == Mode::Monitor {
        line("  Mode: monitor".to_owned());
    }
    for (key, site) in &check.sites {
        line(format!("  {}: {key}", definition.key_label));
        for text in site.kind.describe() {
            line(format!("    {text}"));
        }
        line(format!("    Embed Result: {}", site.embed_result));
        line(format!("    Max Result Lifetime: {}s", site.max_result_lifetime.unwrap_or_default().as_secs()));
        if let Some(limit) = site.rate_limit {
            line(format!("    Rate Limit: {limit} per minute"));
        }
    }
}
