//! `api`: the protected APIs of an account.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toml_edit::{Table, value};

use crate::config::Account;
use crate::crypto::random;
use crate::host::lookup_name;

use super::{Action, Arg, Args, CliResult, CommonFlags, Console, Failure, document, unknown};

/// The properties of an API as it is being added.
#[derive(Default)]
struct NewApi {
    allow_web: bool,
    jwe: bool,
    kid: Option<String>,
}

pub(super) fn api(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action) = (CommonFlags::default(), Action(None));
    let mut new = NewApi::default();
    while let Some(arg) = args.next_arg()? {
        let Arg::Flag(flag) = &arg else { return Err(unknown("api", &arg).into()) };
        match flag.as_str() {
            "add" | "remove" => {
                let domain = args.value(flag)?;
                action.set(flag, Some(domain))?;
            }
            "list" => action.set(flag, None)?,
            "allowWeb" => new.allow_web = true,
            "jwe" => new.jwe = true,
            "keySetKID" => new.kid = Some(args.value(flag)?),
            "noApproovToken" => {
                return Err(Failure::Usage(
                    "-noApproovToken is for pinning in mobile apps; this service gives out web tokens only".to_owned(),
                ));
            }
            _ if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("api", &arg).into()),
        }
    }
    let (flag, domain) = action.required("api", "-add, -list or -remove")?;
    match flag.as_str() {
        "list" => list(&common, console),
        "remove" => remove(&common, &domain, console),
        _ => add(&common, &domain, new, console),
    }
}

fn list(common: &CommonFlags, console: &mut Console<'_>) -> CliResult {
    let account = common.read_account()?;
    for domain in account.apis.keys() {
        console.say(&describe(&account, domain))?;
    }
    Ok(())
}

fn remove(common: &CommonFlags, domain: &str, console: &mut Console<'_>) -> CliResult {
    let mut edit = common.edit()?;
    let apis = document::tables(edit.account(common.account.as_deref())?, "api")?;
    let index = document::find(apis, "domain", domain).ok_or_else(|| format!("there is no API domain {domain}"))?;
    apis.remove(index);
    edit.confirm(console, "removing the API will have an immediate impact on your apps in production.", common.yes)?;
    edit.save()?;
    console.say(&format!("removed API domain {domain}"))
}

fn add(common: &CommonFlags, domain: &str, new: NewApi, console: &mut Console<'_>) -> CliResult {
    let mut edit = common.edit()?;
    let account = edit.account(common.account.as_deref())?;
    if new.jwe && !document::has_secret(account, "jwe_secret") {
        let secret = random::<32>().map_err(|error| error.to_string())?;
        account.insert("jwe_secret", value(STANDARD.encode(secret)));
    }
    let mut entry = Table::new();
    entry.insert("domain", value(domain));
    entry.insert("allow_web", value(new.allow_web));
    if new.jwe {
        entry.insert("jwe", value(true));
    }
    if let Some(kid) = new.kid {
        entry.insert("keyset_kid", value(kid));
    }
    document::put(document::tables(account, "api")?, "domain", entry);
    edit.confirm(console, "adding the API will have an immediate impact on your apps in production.", common.yes)?;
    edit.save()?;
    let account = common.read_account()?;
    console.say(&format!("added API domain {}", describe(&account, domain)))
}

fn describe(account: &Account, domain: &str) -> String {
    let Some(api) = account.apis.get(&*lookup_name(domain)) else { return domain.to_owned() };
    let key = api.keyset_kid.as_ref().and_then(|kid| Some((kid, account.keys.get(kid)?)));
    let mut text = match key {
        None => format!("{domain} with type:account, alg:HS256"),
        Some((kid, key)) => format!("{domain} with type:keyset, alg:{}, kid:{kid}", key.alg.name()),
    };
    if api.jwe {
        text.push_str(", jwe:A256GCMKW");
    }
    text.push_str(if api.allow_web { ", web:allowed" } else { ", web:not allowed" });
    text
}
