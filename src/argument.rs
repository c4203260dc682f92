//! Arguments as they came from JavaScript, and the collecting of what is wrong with them.

use crate::error::Error;

/// One argument or option, before it is known whether it is of the right type.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Argument {
    /// `undefined` or `null`.
    #[default]
    Absent,
    /// A string.
    Text(String),
    /// A copy of an `ArrayBuffer` or of what a view shows of one.
    Bytes(Vec<u8>),
    /// A number.
    Number(f64),
    /// `true`; `false` is anything else.
    True,
    /// An array of strings.
    Texts(Vec<String>),
    /// An object, with those of its members that were requested.
    Object(Vec<(&'static str, Argument)>),
    /// Anything else; the text names the kind, for messages ("a boolean").
    Other(&'static str),
}

/// Quoted names in a row, for messages: `"a", "b" or "c"`.
#[inline(never)]
pub fn listed(names: &mut dyn Iterator<Item = &'static str>) -> String {
    let mut list = String::new();
    let mut last = None;
    for name in names {
        if let Some(before) = last.replace(name) {
            quote(&mut list, ", ", before);
        }
    }
    quote(&mut list, " or ", last.unwrap_or_default());
    list
}

fn quote(list: &mut String, separator: &str, name: &str) {
    let separator = if list.is_empty() { "" } else { separator };
    for part in [separator, "\"", name, "\""] {
        list.push_str(part);
    }
}

/// A non-empty string, or the kind of value that came in its place.
pub type Text = Result<String, &'static str>;

impl Argument {
    /// Whether there is a value.
    #[must_use]
    pub fn is_given(&self) -> bool {
        *self != Argument::Absent
    }

    /// The text of a non-empty string.
    ///
    /// # Errors
    /// The kind of anything else.
    pub fn into_text(self) -> Text {
        match self {
            Argument::Text(text) if !text.is_empty() => Ok(text),
            other => Err(other.kind()),
        }
    }

    /// The member `name` of an object argument.
    #[must_use]
    pub fn member(&self, name: &str) -> &Argument {
        const ABSENT: &Argument = &Argument::Absent;
        let Argument::Object(members) = self else { return ABSENT };
        members.iter().find(|(known, _)| *known == name).map_or(ABSENT, |(_, value)| value)
    }

    /// What this is, for messages: `got …`. Never the value, which may be a secret.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Argument::Absent => "nothing",
            Argument::Text(text) if text.is_empty() => "an empty string",
            Argument::Text(_) => "a string",
            Argument::Bytes(bytes) if bytes.is_empty() => "an empty buffer",
            Argument::Bytes(_) => "a buffer",
            Argument::Number(_) => "a number",
            Argument::True => "a boolean",
            Argument::Texts(_) => "an array",
            Argument::Object(_) => "an object",
            Argument::Other(kind) => kind,
        }
    }
}

/// Everything wrong with the arguments of one call, for one message.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes a problem: a clause that names the argument, in pieces.
    pub fn add(&mut self, problem: &[&str]) {
        self.0.push(problem.concat());
    }

    /// Notes that an argument is not what was expected.
    #[inline(never)]
    pub fn add_wrong(&mut self, name: &str, expected: &str, got: &str) {
        self.add(&["\"", name, "\" must be ", expected, ", got ", got]);
    }

    /// Adds a hint, but only if there is a problem that it may help with.
    pub fn add_hint(&mut self, hint: &str) {
        if !self.0.is_empty() && !hint.is_empty() {
            self.add(&[hint]);
        }
    }

    /// Reads a non-empty string that must be there.
    #[inline(never)]
    pub fn required_text(&mut self, name: &str, argument: &Argument, expected: &str) -> Option<String> {
        if argument.is_given() {
            return self.optional_text(name, argument, expected);
        }
        self.add(&["\"", name, "\" is missing: it must be ", expected]);
        None
    }

    /// Reads a non-empty string that may be absent.
    #[inline(never)]
    pub fn optional_text(&mut self, name: &str, argument: &Argument, expected: &str) -> Option<String> {
        match argument {
            Argument::Absent => None,
            Argument::Text(text) if !text.is_empty() => Some(text.clone()),
            other => {
                self.add_wrong(name, expected, other.kind());
                None
            }
        }
    }

    /// An error with all the problems noted, if there are any.
    ///
    /// # Errors
    /// `invalid-argument`, with every problem in its message.
    pub fn into_result(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::invalid_argument(&[&self.0.join("; ")])) }
    }
}
