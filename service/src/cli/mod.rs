//! The command line for the configuration: the hosted service's commands, flags and style, on a
//! TOML file. A running service picks the change up by itself.

mod api;
mod args;
mod config;
mod document;
mod edit_lock;
mod example;
pub mod help;
mod keys;
mod replace;
mod request;
mod secret;
mod secret_entries;
mod session;
mod token;
mod web;

use std::io::{BufRead, ErrorKind, Write};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use toml_edit::Item;

use crate::config::{Account, Config};
use crate::crypto::random;

pub use args::{Arg, Args, UsageError, secret_operand, unknown};

use document::{Document, Edit};

/// The file that is edited when nothing names one.
const DEFAULT_FILE: &str = "service.toml";

/// What the commands take.
pub const USAGE: &str = "\
approov-web-service config  -check | -migrate
approov-web-service account -add [SITE_KEY] | -list | -remove SITE_KEY
approov-web-service api     -add DOMAIN [-allowWeb] [-jwe] [-keySetKID KID] | -list | -remove DOMAIN
approov-web-service web     -list | -setTokenLifetime SECONDS | -setRefreshTokenLifetime SECONDS
                            -allowOrigin ORIGIN | -disallowOrigin ORIGIN | -anyOf CHECK,CHECK…|none
approov-web-service web     -fingerprint|-hcaptcha|-recaptcha|-turnstile|-friendly|-altcha
                            -list | -setRequired | -setOptional | -setMode enforce|monitor | -remove KEY
    -add KEY [-embedResult] [-maxResultLifetime SECONDS] [-rateLimit PER_MINUTE] [-verifyURL URL]
        all but -altcha: -secretFile FILE|-secretEnv VARIABLE|-secret SECRET|- [-verifyURL URL]
        -fingerprint:   [-region RoW|EU|AP] [-maxElapsedTime SECONDS] [-maxBotProbability 0..1] [-api v4|v3]
                        [-sealedKeyFile FILE|-sealedKeyEnv VARIABLE|-sealedKey KEY|-]
        -hcaptcha:      [-domain DOMAIN]... [-minScore 0..1] [-includeIP]
        -recaptcha:     [-domain DOMAIN]... [-action ACTION]... [-minScore 0..1] [-includeIP]
                        [-host google.com|recaptcha.net | -kind enterprise -project PROJECT]
        -turnstile:     [-domain DOMAIN]... [-action ACTION]... [-includeIP]
        -friendly:      [-domain DOMAIN]... [-region global|EU]
        -altcha:        [-cost ITERATIONS] [-zeros DIGITS] [-widget]
approov-web-service token   -check TOKEN | -genExample DOMAIN [-type valid|invalid] [-setDataHashInToken DATA]
                            [-proof METHOD URL]
approov-web-service request METHOD URL [-api DOMAIN | -secret SECRET|-] [-header 'NAME: VALUE']... [-data TEXT|@FILE|-]
                            [-bind HEADER]... [-type valid|invalid] [-noProof] [-caCert FILE]
approov-web-service secret  -get base64|base64url|text [-jwe] [-staged] [-plain]
                            -setKeyID ID|none | -change [-forcePrintable]
                            -rotate [-jwe|-session] [-secretFile FILE|-secretEnv VARIABLE]
                            -activate [-jwe|-session] | -retire [-jwe|-session] [-staged]
approov-web-service keyset  -add RS256|ES256 [-kid KID] | -list | -getPublic KID | -remove KID
                            -rotate KID [-kid NEW_KID] | -activate NEW_KID
approov-web-service session -revoke SESSION_ID|KEY_THUMBPRINT | -revokeAll | -list
    -config FILE       the configuration (default service.toml, or $APPROOV_SERVICE_CONFIG)
    -account SITE_KEY  which account, when there are several
    -y                 do not ask
    --                 what follows is no option, as in `account -add -- -KEY`
";

/// Why a command did nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The command line is right, but it cannot be done.
    Refused(String),
    /// Nobody reads what it says any more.
    Unread,
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

type CliResult = Result<(), Failure>;

/// Where a command reads and writes.
pub struct Console<'a> {
    /// For what the operator types.
    pub input: &'a mut dyn BufRead,
    /// For what the command says.
    pub output: &'a mut dyn Write,
}

impl Console<'_> {
    fn say(&mut self, line: &str) -> CliResult {
        writeln!(self.output, "{line}").map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::Refused(error.to_string()),
        })
    }

    /// Has the operator confirm a change, with the hosted command line's text.
    fn confirm(&mut self, warning: &str) -> CliResult {
        self.say(&format!("WARNING: {warning}"))?;
        let prompted = write!(self.output, "ATTENTION: If you wish to continue then please type YES and return: ");
        let mut typed = String::new();
        prompted
            .and_then(|()| self.output.flush())
            .and_then(|()| self.input.read_line(&mut typed))
            .map_err(|error| Failure::Refused(error.to_string()))?;
        if typed.trim() == "YES" { Ok(()) } else { Err(Failure::Refused("nothing was changed".to_owned())) }
    }
}

/// Runs a command of the configuration; `None` when there is no such command.
pub fn run(command: &str, args: Args, console: &mut Console<'_>) -> Option<CliResult> {
    let run = match command {
        "config" => config::config,
        "account" => keys::account,
        "api" => api::api,
        "web" => web::web,
        "token" => token::token,
        "secret" => secret::secret,
        "keyset" => keys::keyset,
        "request" => request::request,
        "session" => session::session,
        _ => return None,
    };
    Some(run(args, console))
}

/// The options that every command takes.
#[derive(Default)]
struct CommonFlags {
    file: Option<PathBuf>,
    account: Option<String>,
    yes: bool,
}

impl CommonFlags {
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

    fn path(&self) -> PathBuf {
        let path = self.file.clone().or_else(|| std::env::var_os("APPROOV_SERVICE_CONFIG").map(PathBuf::from));
        path.unwrap_or_else(|| DEFAULT_FILE.into())
    }

    /// The file, to change it.
    fn edit(&self) -> Result<Edit, String> {
        Edit::begin(&self.path())
    }

    /// The file, to look at it.
    fn read(&self) -> Result<Document, String> {
        Document::read(&self.path())
    }

    fn read_account(&self) -> Result<Account, String> {
        let mut document = self.read()?;
        let site_key = document.account(self.account.as_deref())?.get("site_key").and_then(Item::as_str);
        let site_key = site_key.unwrap_or_default().to_owned();
        let Config { mut accounts, .. } = document.config()?;
        accounts.remove(&site_key).ok_or_else(|| format!("there is no account {site_key}"))
    }
}

/// A name that nobody has, from so many random bytes. It does not begin with a dash, as options do.
fn random_name<const N: usize>() -> Result<String, String> {
    loop {
        let name = URL_SAFE_NO_PAD.encode(random::<N>().map_err(|error| error.to_string())?);
        if !name.starts_with('-') {
            return Ok(name);
        }
    }
}

/// The one thing that a command does.
struct Action(Option<(String, Option<String>)>);

impl Action {
    fn is(&self, flag: &str) -> bool {
        self.0.as_ref().is_some_and(|(set, _)| set == flag)
    }

    fn set(&mut self, flag: &str, operand: Option<String>) -> Result<(), UsageError> {
        match self.0.replace((flag.to_owned(), operand)) {
            None => Ok(()),
            Some((first, _)) => Err(UsageError(format!("-{first} and -{flag} cannot be used at once"))),
        }
    }

    fn required(self, command: &str, choices: &str) -> Result<(String, String), UsageError> {
        match self.0 {
            Some((flag, operand)) => Ok((flag, operand.unwrap_or_default())),
            None => Err(UsageError(format!("{command} needs one of {choices}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{COMMON_OPTIONS, Provider};

    #[test]
    fn the_usage_text_names_every_check_service_and_every_property_of_its_sites() {
        for provider in Provider::ALL {
            let definition = provider.definition();
            assert!(USAGE.contains(&format!("-{}", definition.name)), "{}", definition.name);
            for option in definition.options.iter().copied().chain([COMMON_OPTIONS]).flatten() {
                assert!(USAGE.contains(&format!("-{}", option.flag)), "{}: -{}", definition.name, option.flag);
            }
        }
    }
}
