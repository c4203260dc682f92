//! What a check service's file says of it: its names, on the wire, in the configuration file, on the command line.

use crate::error::Code;

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
}

impl Param {
    /// A parameter that every result has.
    pub(super) const fn required(name: &'static str, empty: Code) -> Self {
        Self { name, required: true, empty: Some(empty) }
    }

    /// A parameter that may be missing or empty.
    pub(super) const fn optional(name: &'static str) -> Self {
        Self { name, required: false, empty: None }
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
}
