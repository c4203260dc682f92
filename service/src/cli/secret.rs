//! `secret`: the secrets that backends have, and the service's own.
//!
//! ```text
//!            -rotate             -activate              -retire, or by itself
//! old: makes ──────────── makes ─────────── opens ────────────────── gone
//! new:         staged: opens ────────────── makes
//! ```

use std::time::Duration;

use approov_verify::time::UnixTime;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use toml_edit::value;

use crate::crypto::random;
use crate::secrets::ProcessEnvironment;

use super::document::{self, Edit};
use super::secret_entries::{Held, SecretEntries};
use super::{Action, Arg, Args, CliResult, CommonFlags, Console, Failure, UsageError, unknown};

/// The time between writing the next session secret and sealing with it: replicas must all have read it by then.
const SESSION_STAGING: Duration = Duration::from_secs(300);
/// How much longer an old secret opens than anything made with it lasts.
const OVERLAP: Duration = Duration::from_secs(600);
/// When a staged secret takes over by itself: the last second that a configuration can name.
const NEVER: UnixTime = UnixTime::from_secs(253_402_300_799);

/// Which secret a command is about.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Which {
    #[default]
    Account,
    Jwe,
    Session,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Which::Account => "secret",
            Which::Jwe => "jwe_secret",
            Which::Session => "session_secret",
        }
    }

    /// Another one, drawn.
    fn draw(self) -> Result<Held, String> {
        let text = match self {
            Which::Account => random::<64>().map(|bytes| STANDARD.encode(bytes)),
            Which::Jwe | Which::Session => random::<32>().map(|bytes| STANDARD.encode(bytes)),
        };
        Ok(("value", text.map_err(|error| error.to_string())?))
    }
}

/// What a command line says beyond its action.
#[derive(Default)]
struct Choices {
    common: CommonFlags,
    which: Which,
    staged: bool,
    plain: bool,
    printable: bool,
    held: Option<Held>,
}

pub(super) fn secret(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut choices, mut action) = (Choices::default(), Action(None));
    while let Some(arg) = args.next_arg()? {
        let Arg::Flag(flag) = &arg else { return Err(unknown("secret", &arg).into()) };
        match flag.as_str() {
            "jwe" | "session" if choices.which != Which::Account => {
                return Err(Failure::Usage("-jwe and -session cannot be used at once".to_owned()));
            }
            "jwe" => choices.which = Which::Jwe,
            "session" => choices.which = Which::Session,
            "staged" => choices.staged = true,
            "secretFile" => choices.held = Some(("file", args.value(flag)?)),
            "secretEnv" => choices.held = Some(("env", args.value(flag)?)),
            "get" => {
                let format = args.value(flag)?;
                action.set(flag, Some(format))?;
            }
            "setKeyID" => {
                let id = args.value(flag)?;
                action.set(flag, Some(id))?;
            }
            "rotate" | "activate" | "retire" | "change" => action.set(flag, None)?,
            "forcePrintable" => choices.printable = true,
            // Nothing but the secret is printed in any case.
            "plain" => choices.plain = true,
            _ if choices.common.take(flag, &mut args)? => {}
            _ => return Err(unknown("secret", &arg).into()),
        }
    }
    let (flag, format) = action.required("secret", "-get, -setKeyID, -change, -rotate, -activate or -retire")?;
    if choices.staged && !matches!(flag.as_str(), "get" | "retire") {
        return Err(Failure::Usage(format!("-{flag} takes no -staged")));
    }
    if choices.printable && flag != "change" {
        return Err(Failure::Usage(format!("-{flag} takes no -forcePrintable")));
    }
    if choices.plain && flag != "get" {
        return Err(Failure::Usage(format!("-{flag} takes no -plain")));
    }
    if choices.which != Which::Account && matches!(flag.as_str(), "change" | "setKeyID") {
        return Err(Failure::Usage(format!("-{flag} is for the account's secret: -rotate changes the others")));
    }
    if choices.held.is_some() && flag != "rotate" {
        return Err(Failure::Usage(format!("-{flag} takes no secret")));
    }
    match flag.as_str() {
        "get" => get(&choices, &format, console),
        "setKeyID" => set_key_id(&choices, &format, console),
        "change" => replace(&choices, console),
        "rotate" => rotate(choices, console),
        "activate" => activate(&choices, console),
        _ => retire(&choices, console),
    }
}

fn get(choices: &Choices, format: &str, console: &mut Console<'_>) -> CliResult {
    let encode = match format {
        "base64" => |bytes: &[u8]| STANDARD.encode(bytes),
        "base64url" => |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes),
        "text" => |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned(),
        other => return Err(Failure::Usage(format!("-get must be base64, base64url or text, got \"{other}\""))),
    };
    let account = choices.common.read_account()?;
    let secrets = match choices.which {
        Which::Session => {
            return Err(UsageError("-get shows no session secret: only the service needs it".into()).into());
        }
        Which::Account => Some(&account.secret),
        Which::Jwe => account.jwe_secret.as_ref(),
    };
    let secrets = secrets.ok_or_else(|| "the account has no JWE secret".to_owned())?;
    let now = UnixTime::now();
    let kept = if choices.staged {
        secrets.staged(now).ok_or_else(|| format!("no {} is staged: `-rotate` stages one", choices.which.name()))?
    } else {
        secrets.making(now)
    };
    let secret = kept.resolve(&ProcessEnvironment).map_err(|error| error.to_string())?;
    if format == "text" && !secret.as_bytes().iter().all(u8::is_ascii_graphic) {
        return Err("the secret is no printable text: `secret -change -forcePrintable` makes one that is"
            .to_owned()
            .into());
    }
    console.say(&encode(secret.as_bytes()))
}

/// Names the secret for gateways that choose a key by the token's `kid`.
fn set_key_id(choices: &Choices, id: &str, console: &mut Console<'_>) -> CliResult {
    let mut edit = choices.common.edit()?;
    let table = edit.account(choices.common.account.as_deref())?;
    match id {
        "none" => drop(table.remove("secret_kid")),
        id => document::set(table, "secret_kid", value(id)),
    }
    edit.config()?;
    let warning = "changing the key ID will have an immediate impact in production: a backend that expects another one refuses every token.";
    edit.confirm(console, warning, choices.common.yes)?;
    edit.save()?;
    console.say(&match id {
        "none" => "tokens signed with the secret have no key ID".to_owned(),
        id => format!("tokens signed with the secret have the key ID {id}"),
    })
}

/// Puts another secret in the place of all there are, at once. `-rotate` does it without refused requests.
fn replace(choices: &Choices, console: &mut Console<'_>) -> CliResult {
    let held = if choices.printable { printable()? } else { choices.which.draw()? };
    let mut edit = choices.common.edit()?;
    change(&mut edit, &choices.common, choices.which, |entries| {
        entries.replace(held);
        Ok(())
    })?;
    let warning = "changing the secret will have an immediate impact in production: backends refuse every token until they have the new one. \
                   `secret -rotate` changes it without that.";
    edit.confirm(console, warning, choices.common.yes)?;
    edit.save()?;
    console.say("the secret is changed: give it to your backends (`secret -get base64`)")
}

/// A secret that is text, for gateways that take no other: 64 letters and digits, 380 bits.
fn printable() -> Result<Held, String> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = Vec::with_capacity(64);
    while text.len() < 64 {
        let drawn = random::<64>().map_err(|error| error.to_string())?;
        // Of 256 values 248 are evenly spread over 62 letters.
        let fair = drawn.iter().filter(|byte| **byte < 248).map(|byte| LETTERS.get(usize::from(byte % 62)).copied());
        text.extend(fair.flatten().take(64 - text.len()));
    }
    Ok(("value", STANDARD.encode(text)))
}

/// Stages the next secret. The service's own takes over by itself, since nobody else has to be told.
fn rotate(choices: Choices, console: &mut Console<'_>) -> CliResult {
    let (which, now) = (choices.which, UnixTime::now());
    let held = choices.held.map_or_else(|| which.draw(), Ok)?;
    let mut edit = choices.common.edit()?;
    let longest_session = edit.config()?.accounts.values().map(|account| account.refresh_token_lifetime).max();
    change(&mut edit, &choices.common, which, |entries| match which {
        Which::Account | Which::Jwe => entries.stage(held, NEVER, now),
        Which::Session => {
            entries.stage(held, now.plus(SESSION_STAGING), now)?;
            entries.bound_older(now.plus(longest_session.unwrap_or_default() + OVERLAP))
        }
    })?;
    edit.save()?;
    let jwe = if which == Which::Jwe { " -jwe" } else { "" };
    match which {
        Which::Session => console.say(
            "the next session_secret is in the file and takes over in 5 minutes; no session ends. Every replica must have the file by then",
        ),
        Which::Account | Which::Jwe => console.say(&format!(
            "the next {name} is staged: tokens are not made with it yet. Give it to every backend next to the present one \
             (`secret -get base64 -staged{jwe}`), then `secret -activate{jwe}`",
            name = which.name(),
        )),
    }
}

fn activate(choices: &Choices, console: &mut Console<'_>) -> CliResult {
    let (which, now) = (choices.which, UnixTime::now());
    let mut edit = choices.common.edit()?;
    let longest_token = edit.config()?.accounts.values().map(|account| account.token_lifetime).max();
    change(&mut edit, &choices.common, which, |entries| {
        entries.activate(now)?;
        match which {
            Which::Account | Which::Jwe => entries.bound_older(now.plus(longest_token.unwrap_or_default() + OVERLAP)),
            // Its end was set when it was staged.
            Which::Session => Ok(()),
        }
    })?;
    let warning = match which {
        Which::Account | Which::Jwe => {
            "backends that do not have the staged secret will refuse every token from now on."
        }
        Which::Session => {
            "replicas that have not read the staged secret yet will refuse sessions that the others seal."
        }
    };
    edit.confirm(console, warning, choices.common.yes)?;
    edit.save()?;
    console.say(&format!("the staged {} is in force", which.name()))
}

fn retire(choices: &Choices, console: &mut Console<'_>) -> CliResult {
    let (which, now) = (choices.which, UnixTime::now());
    let mut edit = choices.common.edit()?;
    change(&mut edit, &choices.common, which, |entries| entries.retire(choices.staged, now).map(drop))?;
    let warning = match which {
        _ if choices.staged => "backends that have the staged secret will never see a token made with it.",
        Which::Account | Which::Jwe => {
            "the old secret will not be known here any more; let your backends forget it too."
        }
        Which::Session => "sessions sealed with the old secret end; their visitors are checked again.",
    };
    edit.confirm(console, warning, choices.common.yes)?;
    edit.save()?;
    let which_one = if choices.staged { "staged" } else { "old" };
    console.say(&format!("the {which_one} {} is gone", which.name()))
}

/// Edits the entries of a secret.
fn change(
    edit: &mut Edit,
    common: &CommonFlags,
    which: Which,
    change: impl FnOnce(&mut SecretEntries) -> Result<(), String>,
) -> Result<(), String> {
    let table = match which {
        Which::Session => edit.root(),
        Which::Account | Which::Jwe => edit.account(common.account.as_deref())?,
    };
    let mut entries = SecretEntries::read(table, which.name(), UnixTime::now())?;
    change(&mut entries)?;
    entries.write(table);
    Ok(())
}
