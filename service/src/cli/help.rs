//! What `help` says, and what a misspelt word was meant to be. Both are read off the usage texts, so that there is one list.

use std::collections::BTreeSet;

use super::USAGE;

/// What `serve` takes.
pub const SERVE: &str = "\
approov-web-service serve --dev [--listen 127.0.0.1:8087] [--api DOMAIN]... [--dev-tls]
    [--secret BASE64|- | --secret-file FILE] [--session-secret BASE64|- | --session-secret-file FILE]
    [--dev-public] [--public-url URL]... [--latency MS] [--fault drop|lose|delay:MS|5xx[:STATUS]|clock:SECONDS]
approov-web-service serve --config FILE [--listen ADDRESS]
    --operations ADDRESS  where /metrics and /openapi.json are
    --json      print one line of JSON when listening
    --log-json  log lines as JSON
    --quiet     no log line per request
";

const PROGRAM: &str = "approov-web-service ";
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 refused or failed, 2 wrong arguments. Help: approov-web-service help [COMMAND], or COMMAND --help.
";

/// What there is to say about a command, or about all of them. `None`: there is no such command.
#[must_use]
pub fn help(command: Option<&str>) -> Option<String> {
    let Some(command) = command else { return Some([SERVE, USAGE, EXIT_CODES].concat()) };
    let section = section(command);
    if section.is_empty() {
        return None;
    }
    let common = if command == "serve" { "" } else { common() };
    Some([&section, common, EXIT_CODES].concat())
}

/// The usage of one command.
fn section(command: &str) -> String {
    let mut inside = false;
    let commands = USAGE.strip_suffix(common()).unwrap_or(USAGE);
    let lines = SERVE.lines().chain(commands.lines()).filter(|line| {
        if let Some(rest) = line.strip_prefix(PROGRAM) {
            inside = rest.split_whitespace().next() == Some(command);
        }
        inside
    });
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// The options that every command takes.
fn common() -> &'static str {
    USAGE.find("    -config FILE").and_then(|begin| USAGE.get(begin..)).unwrap_or_default()
}

/// All commands.
fn commands() -> BTreeSet<&'static str> {
    let lines = SERVE.lines().chain(USAGE.lines());
    lines.filter_map(|line| line.strip_prefix(PROGRAM)?.split_whitespace().next()).chain(["help"]).collect()
}

/// The command that a word was meant to be.
#[must_use]
pub fn meant_command(given: &str) -> Option<&'static str> {
    nearest(given, commands().into_iter())
}

/// The option of a command that a word was meant to be.
pub(super) fn meant_option(command: &str, given: &str) -> Option<String> {
    let text = section(command) + if command == "serve" { "" } else { common() };
    let words = text.split(|letter: char| letter.is_whitespace() || "|[].".contains(letter));
    let options: BTreeSet<&str> =
        words.filter(|word| word.starts_with('-')).map(|word| word.trim_start_matches('-')).collect();
    nearest(given, options.into_iter().filter(|option| !option.is_empty())).map(str::to_owned)
}

/// The nearest of these, if it is near enough for a slip.
fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = given.to_ascii_lowercase();
    let near = known.map(|known| (strsim::osa_distance(&folded, &known.to_ascii_lowercase()), known));
    let (distance, known) = near.min()?;
    (distance <= 2 && distance < known.len().min(given.len())).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_help_of_its_own() {
        for command in commands().into_iter().filter(|command| *command != "help") {
            let text = help(Some(command)).unwrap();
            assert!(text.starts_with(&format!("{PROGRAM}{command}")) && text.ends_with(EXIT_CODES), "{text}");
            let others =
                text.lines().filter_map(|line| line.strip_prefix(PROGRAM)).filter(|rest| !rest.starts_with(command));
            assert_eq!(others.count(), 0, "{text}");
            assert_eq!(text.contains("-config FILE       the"), command != "serve", "{text}");
        }
        assert!(help(Some("nonsense")).is_none());
        assert!(help(None).is_some_and(|text| text.contains(SERVE) && text.contains(USAGE)));
    }

    #[test]
    fn a_slip_is_told_and_something_else_is_not() {
        for (given, meant) in
            [("sevre", Some("serve")), ("acount", Some("account")), ("WEB", Some("web")), ("delete", None), ("x", None)]
        {
            assert_eq!(meant_command(given), meant, "{given}");
        }
        for (command, given, meant) in [
            ("web", "hcapcha", Some("hcaptcha")),
            ("web", "settokenlifetime", Some("setTokenLifetime")),
            ("serve", "dev-tsl", Some("dev-tls")),
            ("secret", "acount", Some("account")),
            ("secret", "bananas", None),
            ("serve", "acount", None),
        ] {
            assert_eq!(meant_option(command, given).as_deref(), meant, "{command} {given}");
        }
    }
}
