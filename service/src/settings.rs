//! A configuration file being read: its text for positions, and values within bounds.

use std::fmt;
use std::time::Duration;

use approov_verify::time::UnixTime;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};
use toml::value::Datetime;
use url::Url;

use crate::crypto::CryptoError;
use crate::host::is_loopback;
use crate::time::parse_rfc3339;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Line and column, both from 1, where they are known.
    pub position: Option<(usize, usize)>,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

impl From<CryptoError> for ConfigError {
    fn from(error: CryptoError) -> Self {
        Self { position: None, message: error.to_string() }
    }
}

/// What reading a part of the file gives.
pub type Read<T> = Result<T, ConfigError>;

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The file.
pub struct Source<'a> {
    /// Its text.
    pub text: &'a str,
}

/// A table of the file, and where it is.
pub type SpannedTable<'a> = Spanned<DeTable<'a>>;

impl<'a> Source<'a> {
    /// The whole file.
    ///
    /// # Errors
    /// When it is not TOML.
    pub fn table(&self) -> Read<SpannedTable<'a>> {
        DeTable::parse(self.text).map_err(|error| self.toml_error(&error))
    }

    /// What a table means to a type. Types refuse unknown names by themselves.
    ///
    /// # Errors
    /// What the type does not take, and where.
    pub fn deserialize<T: DeserializeOwned>(&self, table: SpannedTable<'_>) -> Read<T> {
        T::deserialize(Deserializer::from(table)).map_err(|error| self.toml_error(&error))
    }

    /// A value that must be a table, called `name`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn as_table<'t>(&self, name: &str, value: Spanned<DeValue<'t>>) -> Read<SpannedTable<'t>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Ok(Spanned::new(span, table)),
            _ => self.error(&Spanned::new(span, ()), format!("{name} must be a table ([{name}])")),
        }
    }

    /// The tables of the array `name` in `parent`; none when there is no array.
    ///
    /// # Errors
    /// When it is something else.
    pub fn take_tables<'t>(&self, parent: &mut SpannedTable<'t>, name: &str) -> Read<Vec<SpannedTable<'t>>> {
        let Some(value) = parent.get_mut().remove(name) else {
            return Ok(Vec::new());
        };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(array) => array.into_iter().map(|entry| self.as_table(name, entry)).collect(),
            _ => self.error(&Spanned::new(span, ()), format!("{name} must be an array of tables ([[{name}]])")),
        }
    }

    fn toml_error(&self, error: &Error) -> ConfigError {
        ConfigError {
            position: error.span().map(|span| position(self.text, span.start)),
            message: error.message().to_owned(),
        }
    }

    /// A fault of the value `at`.
    ///
    /// # Errors
    /// Always: this makes the error.
    pub fn error<T, V>(&self, at: &Spanned<V>, message: impl Into<String>) -> Read<T> {
        Err(ConfigError { position: Some(self.position_of(at)), message: message.into() })
    }

    /// Line and column, both from 1, of a value.
    pub fn position_of<V>(&self, at: &Spanned<V>) -> (usize, usize) {
        position(self.text, at.span().start)
    }

    /// A point in time.
    ///
    /// # Errors
    /// When it is one of no certain zone.
    pub fn time(&self, value: &Spanned<Datetime>) -> Read<UnixTime> {
        match parse_rfc3339(&value.get_ref().to_string()) {
            Some(time) => Ok(time),
            None => self.error(value, "must be a date and a time with its zone, such as 2027-01-31T12:00:00Z"),
        }
    }

    /// A key such as a site key.
    ///
    /// # Errors
    /// When it is empty, long or not printable.
    pub fn key_text(&self, text: &Spanned<String>, name: &str) -> Read<String> {
        let value = text.get_ref();
        if value.is_empty() || value.len() > 256 || value.chars().any(char::is_control) {
            return self.error(text, format!("{name} must be 1 to 256 printable characters"));
        }
        Ok(value.clone())
    }

    /// The URL of a server that is given a secret: https, or http on this machine.
    ///
    /// # Errors
    /// When it is something else.
    pub fn server_url(&self, text: &Spanned<String>) -> Read<Url> {
        let got = text.get_ref();
        match Url::parse(got) {
            Ok(url) if url.scheme() == "https" && url.has_host() => Ok(url),
            Ok(url) if url.scheme() == "http" && url.host_str().is_some_and(is_loopback) => Ok(url),
            Ok(url) if url.scheme() == "http" => {
                self.error(text, format!("must be https, since a secret is sent there, got \"{got}\""))
            }
            _ => self.error(text, format!("must be an https URL, got \"{got}\"")),
        }
    }

    /// What one of a few names stands for, the first of which is the default.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn one_of<T: Copy, const N: usize>(
        &self,
        key: &str,
        value: Option<&Spanned<String>>,
        known: &[(&str, T); N],
    ) -> Read<T> {
        let name = value.map_or(known.first().map_or("", |(name, _)| *name), |value| value.get_ref().as_str());
        match known.iter().find(|(known, _)| *known == name) {
            Some((_, meaning)) => Ok(*meaning),
            None => {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let at = value.map_or(0..0, Spanned::span);
                self.error(&Spanned::new(at, ()), format!("{key} must be {}, got \"{name}\"", names.join(" or ")))
            }
        }
    }

    /// A number of seconds above 0.
    ///
    /// # Errors
    /// When it is something else.
    pub fn duration(&self, value: &Spanned<f64>) -> Read<Duration> {
        match Duration::try_from_secs_f64(*value.get_ref()) {
            Ok(duration) if !duration.is_zero() => Ok(duration),
            _ => self.error(value, format!("must be a number of seconds above 0, got {}", value.get_ref())),
        }
    }

    /// A number between 0 and 1.
    ///
    /// # Errors
    /// When it is outside.
    pub fn probability(&self, value: Option<&Spanned<f64>>, default: f64) -> Read<f64> {
        match value {
            None => Ok(default),
            Some(value) if (0.0..=1.0).contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => self.error(value, format!("must be between 0 and 1, got {}", value.get_ref())),
        }
    }
}
