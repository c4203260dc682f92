//! Command line arguments: `-name value`, `--name value`, `--name=value`, flags and operands. One dash or
//! two, as in the hosted service's command line.

use std::collections::VecDeque;
use std::io::BufRead;

use zeroize::Zeroizing;

/// The arguments not yet looked at.
pub struct Args(VecDeque<String>);

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
        Self(arguments.into_iter().collect())
    }

    /// The next argument.
    pub fn next_arg(&mut self) -> Option<Arg> {
        let text = self.0.pop_front()?;
        let Some(name) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).filter(|name| !name.is_empty())
        else {
            return Some(Arg::Operand(text));
        };
        if let Some((name, value)) = name.split_once('=') {
            self.0.push_front(value.to_owned());
            return Some(Arg::Flag(name.to_owned()));
        }
        Some(Arg::Flag(name.to_owned()))
    }

    /// The value of `flag`.
    ///
    /// # Errors
    /// When nothing follows.
    pub fn value(&mut self, flag: &str) -> Result<String, UsageError> {
        self.0.pop_front().ok_or_else(|| UsageError(format!("-{flag} needs a value")))
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
        Arg::Flag(name) => format!("{command} has no option -{name}"),
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

    #[test]
    fn one_dash_or_two_and_an_equals_sign_mean_the_same() {
        for line in [["-listen", "a:1"].as_slice(), &["--listen", "a:1"], &["--listen=a:1"]] {
            let mut args = Args::new(line.iter().map(ToString::to_string));
            assert_eq!(args.next_arg(), Some(Arg::Flag("listen".into())));
            assert_eq!(args.value("listen").unwrap(), "a:1");
            assert_eq!(args.next_arg(), None);
        }
        let mut args = Args::new(["serve".into(), "-n".into(), "-1".into()]);
        assert_eq!(args.next_arg(), Some(Arg::Operand("serve".into())));
        assert_eq!(args.next_arg(), Some(Arg::Flag("n".into())));
        assert_eq!(args.parsed::<i8>("n", "a number").unwrap(), -1);
        assert!(args.value("n").is_err());
    }
}
