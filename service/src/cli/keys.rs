//! `account` and `keyset`: accounts and their keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toml_edit::{Item, Table, value};

use crate::crypto::{KeyAlg, KeyPair, random};
use crate::secrets::ProcessEnvironment;
use crate::token::private_pem;

use super::{Action, Arg, Args, CliResult, CommonFlags, Console, Failure, document, random_name, unknown};

/// What cannot be hidden from who has a public key.
const PUBLIC_KEY_NOTE: &str = "NOTE: a public key also tells the tokens of failed checks apart, for anybody who has it; \
                               where visitors must not be able to, encrypt the API's tokens (api -add … -jwe)";

/// What the operator confirms.
const KEYSET_WARNING: &str = "changing the keyset will have an immediate impact in production";

pub(super) fn account(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action, mut site_key) = (CommonFlags::default(), Action(None), None);
    while let Some(arg) = args.next_arg()? {
        match &arg {
            Arg::Flag(flag) if flag == "add" => {
                action.set(flag, None)?;
                site_key = site_key.or(args.attached_value());
            }
            Arg::Flag(flag) if flag == "list" => action.set(flag, None)?,
            Arg::Flag(flag) if flag == "remove" => {
                let key = args.value(flag)?;
                action.set(flag, Some(key))?;
            }
            Arg::Flag(flag) if common.take(flag, &mut args)? => {}
            Arg::Operand(text) if site_key.is_none() => site_key = Some(text.clone()),
            Arg::Flag(flag) if action.is("add") => {
                let key = format!("if it is a site key: account -add -- -{flag}");
                return Err(Failure::Usage(format!("account has no option -{flag}; {key}")));
            }
            _ => return Err(unknown("account", &arg).into()),
        }
    }
    let (flag, operand) = action.required("account", "-add, -list or -remove")?;
    if flag != "add" && site_key.is_some() {
        return Err(Failure::Usage(format!("-{flag} takes no further site key")));
    }
    match flag.as_str() {
        "list" => list_accounts(&common, console),
        "remove" => remove_account(&common, &operand, console),
        _ => add_account(&common, site_key, console),
    }
}

fn list_accounts(common: &CommonFlags, console: &mut Console<'_>) -> CliResult {
    for site_key in common.read()?.config()?.accounts.keys() {
        console.say(site_key)?;
    }
    Ok(())
}

fn remove_account(common: &CommonFlags, site_key: &str, console: &mut Console<'_>) -> CliResult {
    let mut edit = common.edit()?;
    edit.remove_account(site_key)?;
    let warning = "removing the account will have an immediate impact in production: its pages get no tokens, and its sessions end.";
    edit.confirm(console, warning, common.yes)?;
    edit.save()?;
    console.say(&format!("removed account with site key {site_key}"))
}

fn add_account(common: &CommonFlags, site_key: Option<String>, console: &mut Console<'_>) -> CliResult {
    let mut edit = common.edit()?;
    let site_key = match site_key {
        Some(site_key) => site_key,
        None => random_name::<18>()?,
    };
    let secret = STANDARD.encode(random::<64>().map_err(|error| error.to_string())?);
    edit.add_account(&site_key, &secret)?;
    edit.add_session_secret()?;
    edit.save()?;
    console.say(&format!("added account with site key {site_key}"))
}

pub(super) fn keyset(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action, mut kid) = (CommonFlags::default(), Action(None), None);
    while let Some(arg) = args.next_arg()? {
        let Arg::Flag(flag) = &arg else { return Err(unknown("keyset", &arg).into()) };
        match flag.as_str() {
            "add" | "getPublic" | "remove" | "rotate" | "activate" => {
                let operand = args.value(flag)?;
                action.set(flag, Some(operand))?;
            }
            "list" => action.set(flag, None)?,
            "kid" => kid = Some(args.value(flag)?),
            _ if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("keyset", &arg).into()),
        }
    }
    let (flag, operand) = action.required("keyset", "-add, -list, -getPublic, -rotate, -activate or -remove")?;
    match flag.as_str() {
        "list" => list_keys(&common, console),
        "rotate" => rotate_key(&common, &operand, kid, console),
        "activate" => activate_key(&common, &operand, console),
        "getPublic" => {
            let account = common.read_account()?;
            let key = account.keys.get(&operand).ok_or_else(|| format!("there is no key {operand}"))?;
            let key = key.resolve(&ProcessEnvironment).map_err(|error| error.to_string())?;
            console.say(key.public_pem().map_err(|error| error.to_string())?.trim_end())
        }
        "remove" => remove_key(&common, &operand, console),
        _ => add_key(&common, &operand, kid, console),
    }
}

fn remove_key(common: &CommonFlags, kid: &str, console: &mut Console<'_>) -> CliResult {
    let mut edit = common.edit()?;
    let keys = document::tables(edit.account(common.account.as_deref())?, "key")?;
    let index = document::find(keys, "kid", kid).ok_or_else(|| format!("there is no key {kid}"))?;
    keys.remove(index);
    edit.confirm(console, KEYSET_WARNING, common.yes)?;
    edit.save()?;
    console.say(&format!("removed key {kid}"))
}

fn list_keys(common: &CommonFlags, console: &mut Console<'_>) -> CliResult {
    let keys = common.read_account()?.keys;
    for (kid, key) in &keys {
        let staged = key.replaces.as_ref().map(|old| format!(", staged to replace {old}")).unwrap_or_default();
        console.say(&format!("{kid} alg:{}{staged}", key.alg.name()))?;
    }
    if keys.is_empty() { Ok(()) } else { console.say(PUBLIC_KEY_NOTE) }
}

/// Adds a key of the same kind, which signs nothing yet.
fn rotate_key(common: &CommonFlags, old: &str, kid: Option<String>, console: &mut Console<'_>) -> CliResult {
    let account = common.read_account()?;
    let key = account.keys.get(old).ok_or_else(|| format!("there is no key {old}"))?;
    if let Some((staged, _)) = account.keys.iter().find(|(_, key)| key.replaces.as_deref() == Some(old)) {
        return Err(Failure::Refused(format!("key {staged} is staged already to replace {old}")));
    }
    let pair = key.resolve(&ProcessEnvironment).map_err(|error| error.to_string())?;
    let pair = pair.pair().generate_similar().map_err(|error| error.to_string())?;
    let kid = new_kid(kid)?;
    let mut entry = key_entry(&kid, &pair)?;
    entry.insert("replaces", value(old));
    let mut edit = common.edit()?;
    insert_key(edit.account(common.account.as_deref())?, &kid, entry)?;
    edit.save()?;
    console.say(&format!(
        "key {kid} is staged: it is published and signs nothing yet. Give it to every backend of {old} next to the old one \
         (`keyset -getPublic {kid}`), unless they fetch the keys, then `keyset -activate {kid}`"
    ))
}

/// Lets a staged key sign what the old one did.
fn activate_key(common: &CommonFlags, kid: &str, console: &mut Console<'_>) -> CliResult {
    let mut edit = common.edit()?;
    let account = edit.account(common.account.as_deref())?;
    let keys = document::tables(account, "key")?;
    let key = document::find(keys, "kid", kid).and_then(|index| keys.get_mut(index));
    let key = key.ok_or_else(|| format!("there is no key {kid}"))?;
    let old = key.remove("replaces").and_then(|old| old.as_str().map(str::to_owned));
    let old = old.ok_or_else(|| format!("key {kid} is not staged: `keyset -rotate` stages one"))?;
    let mut changed = Vec::new();
    for api in document::tables(account, "api")?.iter_mut() {
        if api.get("keyset_kid").and_then(Item::as_str) == Some(&old) {
            document::set(api, "keyset_kid", value(kid));
            changed.extend(api.get("domain").and_then(Item::as_str).map(str::to_owned));
        }
    }
    let warning = format!("backends that do not have key {kid} will refuse every token from now on.");
    edit.confirm(console, &warning, common.yes)?;
    edit.save()?;
    let apis = if changed.is_empty() { "no API".to_owned() } else { changed.join(", ") };
    console
        .say(&format!("key {kid} signs for {apis}. Once the last tokens of {old} have ended, `keyset -remove {old}`"))
}

fn new_kid(kid: Option<String>) -> Result<String, String> {
    match kid {
        Some(kid) => Ok(kid),
        None => random_name::<9>(),
    }
}

fn key_entry(kid: &str, pair: &KeyPair) -> Result<Table, String> {
    let pem = private_pem(pair).map_err(|error| error.to_string())?;
    let mut entry = Table::new();
    entry.insert("kid", value(kid));
    entry.insert("alg", value(pair.alg().name()));
    entry.insert("private_key", value(pem.as_str()));
    Ok(entry)
}

fn insert_key(account: &mut Table, kid: &str, entry: Table) -> Result<(), String> {
    let keys = document::tables(account, "key")?;
    if document::find(keys, "kid", kid).is_some() {
        return Err(format!("there is a key {kid} already"));
    }
    keys.push(entry);
    Ok(())
}

fn add_key(common: &CommonFlags, alg: &str, kid: Option<String>, console: &mut Console<'_>) -> CliResult {
    let alg =
        KeyAlg::parse(alg).ok_or_else(|| Failure::Usage(format!("-add must be RS256 or ES256, got \"{alg}\"")))?;
    let kid = new_kid(kid)?;
    let pair = KeyPair::generate(alg).map_err(|error| error.to_string())?;
    let mut edit = common.edit()?;
    insert_key(edit.account(common.account.as_deref())?, &kid, key_entry(&kid, &pair)?)?;
    edit.confirm(console, KEYSET_WARNING, common.yes)?;
    edit.save()?;
    console.say(&format!("added key {kid} with alg:{}", alg.name()))?;
    console.say(PUBLIC_KEY_NOTE)
}
