//! `config`: the configuration file as a whole.

use super::{Action, Arg, Args, CliResult, CommonFlags, Console, Failure, unknown};

/// What the operator confirms.
const MIGRATE_WARNING: &str = "adding a session secret ends every session once; visitors are checked again.";

pub(super) fn config(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action) = (CommonFlags::default(), Action(None));
    while let Some(arg) = args.next_arg() {
        match &arg {
            Arg::Flag(flag) if flag == "migrate" => action.set(flag, None)?,
            Arg::Flag(flag) if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("config", &arg).into()),
        }
    }
    action.required("config", "-migrate")?;
    migrate(&common, console)
}

/// Adds to a file of an earlier version what it lacks, and says so.
fn migrate(common: &CommonFlags, console: &mut Console<'_>) -> CliResult {
    let mut edit = common.edit()?;
    if !edit.exists() {
        return Err(Failure::Refused("there is no such file; `account -add` makes one".to_owned()));
    }
    let mut done = Vec::new();
    if edit.add_session_secret()? {
        done.push("added session_secret: sessions, nonces and all else that only the service makes follow from it");
    }
    if edit.remove("nonce_secret") {
        done.push("removed nonce_secret: session_secret is for nonces, too");
    }
    if !done.is_empty() {
        edit.confirm(console, MIGRATE_WARNING, common.yes)?;
    }
    edit.save()?;
    if done.is_empty() {
        done.push("nothing is missing");
    }
    done.iter().try_for_each(|line| console.say(line))
}
