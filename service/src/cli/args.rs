//! Command line arguments: `-name value`, `--name value`, `--name=value`, flags and operands. One dash or
//! two, as in the hosted service's command line.

use std::collections::VecDeque;
use std::io::BufRead;

use zeroize::Zeroizing;

/// The arguments not yet looked at.
pub struct Args {
    rest: VecDeque<String>,
    /// The value that came with the last flag, behind its equals sign.
    attached: Option<(String, String)>,
    /// Whether `--` has come: all that follows are operands.
    only_operands: bool,
}

/// One argument.
#[derive(Debug, PartialEq, Eq)]
pub enum Arg {
    /// `-name` or `--name`, without the dashes.
    Flag(String),
    /// An argument without a dash.
    Operand(String),
}

/// What is wrong with a command line.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

impl From<String> for UsageError {
    fn from(message: String) -> Self {
        UsageError(message)
    }
}

impl Args {
    /// Arguments, without the program's name.
    pub fn new(arguments: impl IntoIterator<Item = String>) -> Self {
        Self { rest: arguments.into_iter().collect(), attached: None, only_operands: false }
    }

    /// The next argument.
    ///
    /// # Errors
    /// When the flag before it came with a value that nobody wanted.
    pub fn next_arg(&mut self) -> Result<Option<Arg>, UsageError> {
        if let Some((flag, value)) = self.attached.take() {
            return Err(UsageError(format!("-{flag} takes no value, got \"{value}\"")));
        }
        let Some(text) = self.rest.pop_front() else { return Ok(None) };
        if text == "--" && !self.only_operands {
            self.only_operands = true;
            return self.next_arg();
        }
        let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
        let Some(name) = name.filter(|name| !name.is_empty() && !self.only_operands) else {
            return Ok(Some(Arg::Operand(text)));
        };
        if let Some((name, value)) = name.split_once('=') {
            self.attached = Some((name.to_owned(), value.to_owned()));
            return Ok(Some(Arg::Flag(name.to_owned())));
        }
        Ok(Some(Arg::Flag(name.to_owned())))
    }

    /// The value of `flag`.
    ///
    /// # Errors
    /// When nothing follows.
    pub fn value(&mut self, flag: &str) -> Result<String, UsageError> {
        let value = self.attached_value().or_else(|| self.rest.pop_front());
        value.ok_or_else(|| UsageError(format!("-{flag} needs a value")))
    }

    /// The value of a flag that may have none: only one behind an equals sign is certain to be it.
    pub fn attached_value(&mut self) -> Option<String> {
        self.attached.take().map(|(_, value)| value)
    }

    /// The value of `flag`, read as a `T`.
    ///
    /// # Errors
    /// When nothing follows, or not a `T`; `expected` says what one is.
    pub fn parsed<T: std::str::FromStr>(&mut self, flag: &str, expected: &str) -> Result<T, UsageError> {
        let text = self.value(flag)?;
        text.parse().map_err(|_| UsageError(format!("-{flag} must be {expected}, got \"{text}\"")))
    }
}

/// A secret on the command line: itself, or `-` for a line of standard input, since other users of the machine can see the
/// arguments of its processes.
///
/// # Errors
/// When standard input has no line.
pub fn secret_operand(flag: &str, operand: String, input: &mut dyn BufRead) -> Result<Zeroizing<String>, UsageError> {
    let mut text = Zeroizing::new(operand);
    if *text == "-" {
        text.clear();
        let read = input.read_line(&mut text);
        if read.is_err() || text.trim().is_empty() {
            return Err(UsageError(format!("-{flag} - reads a line of standard input, and there is none")));
        }
        let length = text.trim_end().len();
        text.truncate(length);
    }
    Ok(text)
}

/// The error for an argument that a command does not know.
pub fn unknown(command: &str, arg: &Arg) -> UsageError {
    UsageError(match arg {
        Arg::Flag(name) => {
            let hint = super::help::meant_option(command, name).map(|meant| format!(": did you mean -{meant}?"));
            format!("{command} has no option -{name}{}", hint.unwrap_or_default())
        }
        Arg::Operand(text) => format!("{command} does not take \"{text}\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_may_come_from_standard_input() {
        let read = |operand: &str, input: &str| {
            secret_operand("secret", operand.to_owned(), &mut input.as_bytes()).map(|text| text.to_string())
        };
        assert_eq!(read("abc", "other\n"), Ok("abc".to_owned()));
        assert_eq!(read("-", "abc \r\nYES\n"), Ok("abc".to_owned()));
        assert_eq!(read("-", "abc"), Ok("abc".to_owned()));
        for none in ["", "\n"] {
            assert!(read("-", none).unwrap_err().0.contains("standard input"));
        }
    }

    fn args(line: &[&str]) -> Args {
        Args::new(line.iter().map(ToString::to_string))
    }

    #[test]
    fn one_dash_or_two_and_an_equals_sign_mean_the_same() {
        for line in [["-listen", "a:1"].as_slice(), &["--listen", "a:1"], &["--listen=a:1"]] {
            let mut args = args(line);
            assert_eq!(args.next_arg(), Ok(Some(Arg::Flag("listen".into()))));
            assert_eq!(args.value("listen").unwrap(), "a:1");
            assert_eq!(args.next_arg(), Ok(None));
        }
        let mut args = args(&["serve", "-n", "-1"]);
        assert_eq!(args.next_arg(), Ok(Some(Arg::Operand("serve".into()))));
        assert_eq!(args.next_arg(), Ok(Some(Arg::Flag("n".into()))));
        assert_eq!(args.parsed::<i8>("n", "a number").unwrap(), -1);
        assert!(args.value("n").is_err());
    }

    #[test]
    fn what_begins_with_a_dash_can_be_a_value_or_an_operand() {
        for line in [["-add", "-KEY"].as_slice(), &["-add=-KEY"]] {
            let mut args = args(line);
            args.next_arg().unwrap();
            assert_eq!(args.value("add").unwrap(), "-KEY");
        }
        let mut args = args(&["-add", "--", "-KEY", "--", "-y"]);
        let rest: Vec<Arg> = std::iter::from_fn(|| args.next_arg().unwrap()).collect();
        let operand = |text: &str| Arg::Operand(text.to_owned());
        assert_eq!(rest, [Arg::Flag("add".into()), operand("-KEY"), operand("--"), operand("-y")]);
        assert_eq!(super::Args::new(["-".to_owned()]).next_arg(), Ok(Some(operand("-"))));
    }

    #[test]
    fn a_value_that_nobody_takes_is_an_error() {
        let mut args = args(&["-list=all", "-y"]);
        assert_eq!(args.next_arg(), Ok(Some(Arg::Flag("list".into()))));
        assert_eq!(args.next_arg(), Err(UsageError("-list takes no value, got \"all\"".to_owned())));
    }
}
