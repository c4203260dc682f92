//! `session`: sessions that end before their time.

use approov_verify::time::UnixTime;
use toml_edit::{Array, Datetime, InlineTable, Item, Table, Value};

use crate::config::{MAX_REVOKED, Revoked};
use crate::time::{parse_rfc3339, rfc3339};

use super::{Action, Arg, Args, CliResult, CommonFlags, Console, Failure, document, unknown};

pub(super) fn session(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action) = (CommonFlags::default(), Action(None));
    while let Some(arg) = args.next_arg()? {
        let Arg::Flag(flag) = &arg else { return Err(unknown("session", &arg).into()) };
        match flag.as_str() {
            "revoke" => {
                let operand = args.value(flag)?;
                action.set(flag, Some(operand))?;
            }
            "list" | "revokeAll" => action.set(flag, None)?,
            _ if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("session", &arg).into()),
        }
    }
    let (flag, operand) = action.required("session", "-revoke, -revokeAll or -list")?;
    match flag.as_str() {
        "list" => list(&common, console),
        "revokeAll" => revoke_all(&common, console),
        _ => revoke(&common, operand.parse().map_err(Failure::Usage)?, console),
    }
}

fn list(common: &CommonFlags, console: &mut Console<'_>) -> CliResult {
    let (revocations, now) = (common.read_account()?.revocations, UnixTime::now());
    if let Some(time) = revocations.not_before {
        console.say(&format!("every session that began before {}", rfc3339(time)))?;
    }
    for (revoked, until) in revocations.listed.iter().filter(|(_, until)| now < **until) {
        console.say(&format!("{} {revoked} until {}", revoked.member(), rfc3339(*until)))?;
    }
    Ok(())
}

/// Ends one session, or those of a key.
fn revoke(common: &CommonFlags, revoked: Revoked, console: &mut Console<'_>) -> CliResult {
    let now = UnixTime::now();
    // No session of today lasts longer.
    let until = now.plus(common.read_account()?.refresh_token_lifetime);
    let mut edit = common.edit()?;
    let account = edit.account(common.account.as_deref())?;
    let mut entries = read(account)?;
    let is_of = |entry: &InlineTable, revoked: Revoked| {
        entry.get(revoked.member()).and_then(Value::as_str) == Some(&revoked.to_string())
    };
    entries.retain(|entry| ends_after(entry, now) && !is_of(entry, revoked));
    if entries.len() >= MAX_REVOKED {
        let message =
            format!("{MAX_REVOKED} sessions are listed already: `session -revokeAll` ends all that there are");
        return Err(Failure::Refused(message));
    }
    let mut entry = InlineTable::from_iter([(revoked.member(), revoked.to_string())]);
    entry.insert("until", datetime(until)?.into());
    entries.push(entry);
    write(account, entries);
    edit.confirm(console, "visitors of a revoked session are checked again.", common.yes)?;
    edit.save()?;
    console.say(&format!("{} {revoked} is revoked. Tokens that it has live to their end", revoked.member()))
}

/// Ends every session that has begun.
fn revoke_all(common: &CommonFlags, console: &mut Console<'_>) -> CliResult {
    // The next full second, since the file has no parts of one.
    let time = UnixTime::from_secs(UnixTime::now().as_secs().saturating_add(1));
    let mut edit = common.edit()?;
    let account = edit.account(common.account.as_deref())?;
    document::set(account, "not_before", Item::Value(datetime(time)?.into()));
    // Single sessions are among them. A key must not begin another one.
    let mut entries = read(account)?;
    entries.retain(|entry| entry.contains_key("key"));
    write(account, entries);
    edit.confirm(console, "every visitor of the account is checked again.", common.yes)?;
    edit.save()?;
    console.say(&format!("every session that began before {} is over. Tokens live to their end", rfc3339(time)))
}

fn read(account: &Table) -> Result<Vec<InlineTable>, String> {
    let entries = match account.get("revoked") {
        None => Some(Vec::new()),
        Some(Item::Value(Value::Array(array))) => array.iter().map(|entry| entry.as_inline_table().cloned()).collect(),
        Some(Item::ArrayOfTables(tables)) => Some(tables.iter().cloned().map(Table::into_inline_table).collect()),
        Some(_) => None,
    };
    entries.ok_or_else(|| "revoked must be a list of { session | key, until }".to_owned())
}

fn write(account: &mut Table, entries: Vec<InlineTable>) {
    if entries.is_empty() {
        account.remove("revoked");
        return;
    }
    let mut list: Array = entries.into_iter().map(Value::InlineTable).collect();
    document::one_entry_a_line(&mut list);
    if account.get("revoked").is_some_and(Item::is_array_of_tables) {
        account.remove("revoked");
    }
    document::set(account, "revoked", Item::Value(list.into()));
}

fn ends_after(entry: &InlineTable, now: UnixTime) -> bool {
    let until = entry.get("until").and_then(Value::as_datetime);
    until.and_then(|until| parse_rfc3339(&until.to_string())).is_some_and(|until| now < until)
}

fn datetime(time: UnixTime) -> Result<Datetime, String> {
    rfc3339(time).parse().map_err(|_| "the time cannot be written".to_owned())
}
