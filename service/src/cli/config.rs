//! `config`: the configuration file as a whole.

use std::os::unix::fs::MetadataExt as _;

use approov_verify::time::UnixTime;

use crate::config::{Certificate, Config, Surroundings, TlsFiles};
use crate::secrets::ProcessEnvironment;

use super::{Action, Arg, Args, CliResult, CommonFlags, Console, Failure, unknown};

/// What the operator confirms.
const MIGRATE_WARNING: &str = "adding a session secret ends every session once; visitors are checked again.";

pub(super) fn config(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action) = (CommonFlags::default(), Action(None));
    while let Some(arg) = args.next_arg()? {
        match &arg {
            Arg::Flag(flag) if flag == "check" || flag == "migrate" => action.set(flag, None)?,
            Arg::Flag(flag) if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("config", &arg).into()),
        }
    }
    let (flag, _) = action.required("config", "-check or -migrate")?;
    if flag == "check" { check(&common, console) } else { migrate(&common, console) }
}

/// Says whether `serve` takes the file, and what else is worth a word.
fn check(common: &CommonFlags, console: &mut Console<'_>) -> CliResult {
    let path = common.path();
    let at = |error: &dyn std::fmt::Display| Failure::Refused(format!("{}: {error}", path.display()));
    // A file that is not there is as good as an empty one for edits only.
    let mode = std::fs::metadata(&path).map_err(|error| at(&error))?.mode();
    let mut config = common.read()?.config()?;
    config.session_secret().map_err(|error| at(&error))?;
    let (certificate, mut warnings) = look_at_certificate(&config);
    let elsewhere = config.secrets().filter_map(|secret| secret.resolve(&ProcessEnvironment).err());
    warnings.extend(elsewhere.map(|error| error.to_string()).map(on_this_machine));
    if certificate.is_some() || config.tls.is_none() {
        config.public_urls =
            config.public_urls_with(certificate.as_ref(), config.listen.port()).map_err(|error| at(&error))?;
    }
    let around = Surroundings { now: UnixTime::now(), mode: Some(mode), certificate: certificate.as_ref() };
    warnings.extend(config.warnings(&around));
    let accounts = config.accounts.len();
    let plural = if accounts == 1 { "" } else { "s" };
    console.say(&format!("{} can be served: {accounts} account{plural}", path.display()))?;
    config.notes().iter().try_for_each(|note| console.say(note))?;
    warnings.iter().try_for_each(|warning| console.say(&format!("WARNING: {warning}")))
}

/// The certificate, if it is on this machine, and what is wrong with it.
fn look_at_certificate(config: &Config) -> (Option<Certificate>, Vec<String>) {
    let Some(TlsFiles { cert, key }) = &config.tls else { return (None, Vec::new()) };
    let read = || {
        approov_listener::tls::from_files(cert, key)?;
        let pem = std::fs::read(cert).map_err(|error| format!("{}: {error}", cert.display()))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| format!("{}: {error}", cert.display()))?;
        Ok::<_, String>(certificate)
    };
    match read() {
        Ok(certificate) => (Some(certificate), Vec::new()),
        Err(error) => (None, vec![on_this_machine(error)]),
    }
}

/// The file may be another machine's.
fn on_this_machine(error: String) -> String {
    format!("{error}: on this machine, serve would not start")
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
