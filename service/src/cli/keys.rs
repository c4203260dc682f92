//! `account`, `secret` and `keyset`: accounts and their keys.

use approov_verify::time::UnixTime;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use toml_edit::{Table, value};

use crate::crypto::{KeyAlg, KeyPair, random};
use crate::secrets::ProcessEnvironment;
use crate::token::private_pem;

use super::{Action, Arg, Args, CliResult, CommonFlags, Console, Failure, document, unknown};

/// What the operator confirms.
const KEYSET_WARNING: &str = "changing the keyset will have an immediate impact in production";

pub(super) fn account(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action, mut site_key) = (CommonFlags::default(), Action(None), None);
    while let Some(arg) = args.next_arg() {
        match &arg {
            Arg::Flag(flag) if flag == "add" || flag == "list" => action.set(flag, None)?,
            Arg::Flag(flag) if common.take(flag, &mut args)? => {}
            Arg::Operand(text) if site_key.is_none() => site_key = Some(text.clone()),
            _ => return Err(unknown("account", &arg).into()),
        }
    }
    let (flag, _) = action.required("account", "-add or -list")?;
    if flag == "list" { list_accounts(&common, console) } else { add_account(&common, site_key, console) }
}

fn list_accounts(common: &CommonFlags, console: &mut Console<'_>) -> CliResult {
    for site_key in common.read()?.config()?.accounts.keys() {
        console.say(site_key)?;
    }
    Ok(())
}

fn add_account(common: &CommonFlags, site_key: Option<String>, console: &mut Console<'_>) -> CliResult {
    let mut edit = common.edit()?;
    let site_key = match site_key {
        Some(site_key) => site_key,
        None => URL_SAFE_NO_PAD.encode(random::<18>().map_err(|error| error.to_string())?),
    };
    let secret = STANDARD.encode(random::<64>().map_err(|error| error.to_string())?);
    edit.add_account(&site_key, &secret)?;
    edit.add_session_secret()?;
    edit.save()?;
    console.say(&format!("added account with site key {site_key}"))
}

pub(super) fn secret(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action, mut jwe) = (CommonFlags::default(), Action(None), false);
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
    let secrets = match (&account.jwe_secret, jwe) {
        (_, false) => &account.secret,
        (Some(secrets), true) => secrets,
        (None, true) => return Err(Failure::Refused("the account has no JWE secret".to_owned())),
    };
    let secret = secrets.making(UnixTime::now()).resolve(&ProcessEnvironment).map_err(|error| error.to_string())?;
    match format.as_str() {
        "base64" => console.say(&STANDARD.encode(secret.as_bytes())),
        "base64url" => console.say(&URL_SAFE_NO_PAD.encode(secret.as_bytes())),
        other => Err(Failure::Usage(format!("-get must be base64 or base64url, got \"{other}\""))),
    }
}

pub(super) fn keyset(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action, mut kid) = (CommonFlags::default(), Action(None), None);
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
    match flag.as_str() {
        "list" => {
            for (kid, key) in &common.read_account()?.keys {
                console.say(&format!("{kid} alg:{}", key.alg.name()))?;
            }
            Ok(())
        }
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

fn add_key(common: &CommonFlags, alg: &str, kid: Option<String>, console: &mut Console<'_>) -> CliResult {
    let alg =
        KeyAlg::parse(alg).ok_or_else(|| Failure::Usage(format!("-add must be RS256 or ES256, got \"{alg}\"")))?;
    let kid = match kid {
        Some(kid) => kid,
        None => URL_SAFE_NO_PAD.encode(random::<9>().map_err(|error| error.to_string())?),
    };
    let pem = KeyPair::generate(alg).and_then(|pair| private_pem(&pair)).map_err(|error| error.to_string())?;
    let mut entry = Table::new();
    entry.insert("kid", value(kid.as_str()));
    entry.insert("alg", value(alg.name()));
    entry.insert("private_key", value(pem.as_str()));
    let mut edit = common.edit()?;
    let keys = document::tables(edit.account(common.account.as_deref())?, "key")?;
    if document::find(keys, "kid", &kid).is_some() {
        return Err(Failure::Refused(format!("there is a key {kid} already")));
    }
    keys.push(entry);
    edit.confirm(console, KEYSET_WARNING, common.yes)?;
    edit.save()?;
    console.say(&format!("added key {kid} with alg:{}", alg.name()))
}
