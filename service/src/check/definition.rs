//! What a check service's file says of it: its names, on the wire, in the configuration file, on the command line.

use std::ops::RangeInclusive;

use crate::error::Code;

use super::altcha::challenge::read_payload;

/// The names that belong to a check service.
pub struct Definition {
    /// See [`super::Provider::name`].
    pub name: &'static str,
    /// See [`super::Provider::prefix`].
    pub prefix: &'static str,
    /// The name as the service writes it itself.
    pub display_name: &'static str,
    /// What the service calls the thing that a public key names; the name of their array in the configuration file.
    pub site_noun: &'static str,
    /// The name of that public key in the configuration file.
    pub key_name: &'static str,
    /// The same in `web -list`.
    pub key_label: &'static str,
    /// The request parameters of a result. The first names the site.
    pub params: &'static [Param],
    /// The parameter that names the result, of which each is used once: what else comes along changes nothing about that.
    pub result: &'static str,
    /// Site keys that it publishes for tests: whatever a browser sends passes, or fails.
    pub test_keys: &'static [&'static str],
    /// The codes of its faults.
    pub codes: ProviderCodes,
    /// Properties of its sites on the command line, apart from [`super::COMMON_OPTIONS`].
    pub options: &'static [&'static [SiteOption]],
}

impl Definition {
    /// Whether a site is known to a server by a secret.
    pub fn needs_secret(&self) -> bool {
        self.options.iter().copied().flatten().any(|option| option.key == "secret")
    }
}

/// A request parameter of a result.
pub struct Param {
    /// The name on the wire.
    pub name: &'static str,
    /// Whether every result has it.
    pub required: bool,
    /// The code for an empty one, when it must not be empty.
    pub empty: Option<Code>,
    /// What its text can be.
    pub text: ParamText,
}

/// What the text of a parameter can be. Nothing else is worth a request to a check service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamText {
    /// Anything: it is compared with what is configured, or not used.
    Any,
    /// What a check service's script gives a page: printable ASCII without spaces.
    Result,
    /// The same, and no longer than this, bytes.
    ResultOf(usize),
    /// A solution of one of our own challenges.
    AltchaPayload,
    /// An ID that becomes part of a URL: letters, digits, `_`, `.` and `-`.
    Id,
}

/// How short and how long a [`ParamText::Result`] can be, bytes.
const RESULT_BYTES: RangeInclusive<usize> = 8..=8192;
/// How long a [`ParamText::Id`] can be, bytes.
const MAX_ID_BYTES: usize = 64;

impl ParamText {
    /// Whether a text, which is not empty, can be one.
    pub fn fits(self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Result => RESULT_BYTES.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()),
            Self::ResultOf(longest) => text.len() <= longest && Self::Result.fits(text),
            Self::AltchaPayload => Self::Result.fits(text) && read_payload(text).is_some(),
            Self::Id => is_id(text),
        }
    }
}

/// Whether a text is an ID that stays one segment of a URL's path, as it is.
pub(super) fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(allowed) && !matches!(text, "." | "..")
}

impl Param {
    /// The key of the site, which is the account's.
    pub(super) const fn key(name: &'static str, empty: Code) -> Self {
        Self { name, required: true, empty: Some(empty), text: ParamText::Any }
    }

    /// A parameter that every result has.
    pub(super) const fn required(name: &'static str, empty: Code, text: ParamText) -> Self {
        Self { name, required: true, empty: Some(empty), text }
    }

    /// A parameter that may be missing; with a code also one that must not be empty then.
    pub(super) const fn optional_text(name: &'static str, empty: Option<Code>, text: ParamText) -> Self {
        Self { name, required: false, empty, text }
    }

    /// A parameter that may be missing or empty.
    pub(super) const fn optional(name: &'static str) -> Self {
        Self { name, required: false, empty: None, text: ParamText::Any }
    }
}

/// The error codes that each check service has of its own.
pub struct ProviderCodes {
    /// Parameters came, but the account has no such site.
    pub config_not_found: Code,
    /// The account requires this check.
    pub missing_required: Code,
    /// Some parameters are missing.
    pub mismatch: Code,
    /// The named site is not the account's.
    pub key_not_found: Code,
    /// The check itself went wrong.
    pub check: Code,
}

/// A property of a site on the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct SiteOption {
    /// The option, without its dash.
    pub flag: &'static str,
    /// The key that it sets in the configuration file.
    pub key: &'static str,
    /// What it takes.
    pub kind: OptionKind,
}

impl SiteOption {
    pub(super) const fn new(flag: &'static str, key: &'static str, kind: OptionKind) -> Self {
        Self { flag, key, kind }
    }
}

/// What a command line option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// Nothing: it switches something on.
    Switch,
    /// A text.
    Text,
    /// A text that nobody should see; `-` reads it from standard input.
    Secret,
    /// A text; the option may be repeated.
    List,
    /// A time.
    Seconds,
    /// A time in whole seconds.
    WholeSeconds,
    /// A number from 0 to 1.
    Probability,
    /// A whole number per minute.
    PerMinute,
    /// A whole number.
    Number,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_printable_ascii_of_a_length_that_results_have() {
        for yes in ["P1_eyJ0eXAi", "10000000-aaaa-bbbb-cccc-000000000001", "a&b=c+d/e", &"x".repeat(8192)] {
            assert!(ParamText::Result.fits(yes), "{yes}");
        }
        for no in ["short", "with a space", "tab\tstop", "r\u{e9}sult-result", &"x".repeat(8193), "nul\0nulnul"] {
            assert!(!ParamText::Result.fits(no), "{no:?}");
        }
    }

    #[test]
    fn an_id_is_nothing_that_could_leave_its_place_in_a_url() {
        for yes in ["1620127950391.unknown", "X", "nG226lNwQWNTTWzOzKbF", "a_b-c.d", "...", &"x".repeat(64)] {
            assert!(ParamText::Id.fits(yes), "{yes}");
        }
        for no in [".", "..", ".\t.", "..\t", "\t", "\t.\n.\r", "a/b", "a b", "a%2e", "a?b", "\u{e9}", &"x".repeat(65)]
        {
            assert!(!ParamText::Id.fits(no), "{no:?}");
        }
    }
}
