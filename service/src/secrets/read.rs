//! Secrets in the configuration file.
//!
//! `name = "…"`, `name_file = "PATH"` and `name_env = "VARIABLE"` are lists of one; a list is
//! `name = [{ value | file | env = "…", from = TIME, until = TIME }, …]`.

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeValue;
use toml::value::Datetime;

use crate::settings::{Read, Source, SpannedTable};

use super::{KeptSecret, Place, SecretKind, SecretList, Timed, Timeline};

/// An entry of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    value: Option<Spanned<String>>,
    file: Option<Spanned<String>>,
    env: Option<Spanned<String>>,
    from: Option<Spanned<Datetime>>,
    until: Option<Spanned<Datetime>>,
}

impl Source<'_> {
    /// Takes the secret `name` out of a table, in whichever form it is written; `None` when it is not there.
    ///
    /// # Errors
    /// When it is written in several forms, or is no such secret.
    pub fn take_secrets(&self, table: &mut SpannedTable<'_>, name: &str, kind: SecretKind) -> Read<Option<SecretList>> {
        let list = match table.get_mut().remove(name) {
            None => None,
            Some(value) => Some(self.secret_list(name, kind, value)?),
        };
        let [in_file, in_env] = [format!("{name}_file"), format!("{name}_env")];
        let elsewhere = [
            self.take_place(table, &in_file, kind, |path| Place::File(path.into()))?,
            self.take_place(table, &in_env, kind, Place::Variable)?,
        ];
        let mut given = list.into_iter().chain(elsewhere.into_iter().flatten().map(Timeline::from));
        match (given.next(), given.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => self.error(&*table, format!("give one of {name}, {in_file} and {in_env}, not several")),
        }
    }

    fn take_place(
        &self,
        table: &mut SpannedTable<'_>,
        name: &str,
        kind: SecretKind,
        place: impl Fn(String) -> Place,
    ) -> Read<Option<KeptSecret>> {
        let Some(value) = table.get_mut().remove(name) else {
            return Ok(None);
        };
        let at = Spanned::new(value.span(), ());
        match value.into_inner() {
            DeValue::String(text) if !text.is_empty() => {
                let kept = KeptSecret::elsewhere(kind, place(text.into_owned()));
                Ok(Some(kept.at(self.position_of(&at))))
            }
            _ => self.error(&at, format!("{name} must be a text")),
        }
    }

    fn secret_list(&self, name: &str, kind: SecretKind, value: Spanned<DeValue<'_>>) -> Read<SecretList> {
        let at = Spanned::new(value.span(), ());
        match value.into_inner() {
            DeValue::String(text) => {
                let text = Spanned::new(at.span(), text.into_owned());
                self.secret_here(name, kind, &text).map(SecretList::from)
            }
            DeValue::Array(array) => {
                let entries = array.into_iter().map(|entry| self.secret_entry(name, kind, entry));
                match Timeline::new(entries.collect::<Read<_>>()?) {
                    Some(list) => Ok(list),
                    None => self.error(&at, format!("{name} needs an entry without until: a secret that stays")),
                }
            }
            _ => self.error(&at, format!("{name} must be a text, or a list of {{ value | file | env, from, until }}")),
        }
    }

    fn secret_entry(&self, name: &str, kind: SecretKind, value: Spanned<DeValue<'_>>) -> Read<Timed<KeptSecret>> {
        let table = self.as_table(name, value)?;
        let at = Spanned::new(table.span(), ());
        let raw: RawEntry = self.deserialize(table)?;
        let elsewhere = |place, text: &Spanned<String>| KeptSecret::elsewhere(kind, place).at(self.position_of(text));
        let value = match (&raw.value, &raw.file, &raw.env) {
            (Some(text), None, None) => self.secret_here(name, kind, text)?,
            (None, Some(text), None) => elsewhere(Place::File(text.get_ref().into()), text),
            (None, None, Some(text)) => elsewhere(Place::Variable(text.get_ref().clone()), text),
            _ => return self.error(&at, format!("an entry of {name} has one of value, file and env")),
        };
        let time = |time: &Option<Spanned<Datetime>>| time.as_ref().map(|time| self.time(time)).transpose();
        let (from, until) = (time(&raw.from)?, time(&raw.until)?);
        if until.is_some_and(|until| from.is_some_and(|from| until <= from)) {
            return self.error(&at, format!("an entry of {name} ends before it begins"));
        }
        Ok(Timed { value, from, until })
    }

    fn secret_here(&self, name: &str, kind: SecretKind, text: &Spanned<String>) -> Read<KeptSecret> {
        match kind.read(text.get_ref()) {
            Ok(secret) => Ok(KeptSecret::here(kind, secret).at(self.position_of(text))),
            Err(expected) => self.error(text, format!("{name} {expected}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use approov_verify::time::UnixTime;

    use super::*;

    const ONE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const TWO: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    fn read(text: &str) -> Result<Option<SecretList>, String> {
        let source = Source { text };
        let mut table = source.table().unwrap();
        let list = source.take_secrets(&mut table, "secret", SecretKind::Key).map_err(|error| error.to_string())?;
        assert!(table.get_ref().is_empty(), "every form is taken out");
        Ok(list)
    }

    #[test]
    fn every_form_is_a_list() {
        assert!(read("").unwrap().is_none());
        let places = |text: &str| -> Vec<Option<Place>> {
            read(text).unwrap().unwrap().entries().map(|entry| entry.value.place().cloned()).collect()
        };
        let file = || Some(Place::File("/run/secrets/one".into()));
        assert_eq!(places(&format!("secret = \"{ONE}\"")), [None]);
        assert_eq!(places("secret_file = \"/run/secrets/one\""), [file()]);
        assert_eq!(places("secret_env = \"ONE\""), [Some(Place::Variable("ONE".into()))]);
        let list = format!(
            "secret = [{{ value = \"{ONE}\", until = 2027-01-01T00:00:00Z }}, \
             {{ file = \"/run/secrets/one\", from = 2026-12-31T23:00:00+01:00 }}]"
        );
        assert_eq!(places(&list), [file(), None]);
        let list = read(&list).unwrap().unwrap();
        let change = UnixTime::from_secs(1_798_754_400);
        assert!(list.making(UnixTime::from_millis(change.as_millis() - 1)).held_here().is_some());
        assert!(list.making(change).held_here().is_none());
        let tables =
            format!("[[secret]]\nvalue = \"{ONE}\"\n[[secret]]\nvalue = \"{TWO}\"\nfrom = 2026-12-31T22:00:00Z\n");
        assert_eq!(read(&tables).unwrap().unwrap().entries().count(), 2);
    }

    #[test]
    fn a_fault_is_named_with_line_and_column() {
        for (text, expected) in [
            (
                "secret = 7",
                "line 1, column 10: secret must be a text, or a list of { value | file | env, from, until }",
            ),
            ("secret = \"c2hvcnQ=\"", "line 1, column 10: secret must decode to at least 32 bytes"),
            ("\nsecret_env = \"\"", "line 2, column 14: secret_env must be a text"),
            ("secret = []", "line 1, column 10: secret needs an entry without until: a secret that stays"),
            ("secret = [{}]", "line 1, column 11: an entry of secret has one of value, file and env"),
            (
                "secret = [{ file = \"a\", env = \"b\" }]",
                "line 1, column 11: an entry of secret has one of value, file and env",
            ),
            (
                "secret = [{ env = \"A\", from = 2026-01-01T00:00:00 }]",
                "line 1, column 31: must be a date and a time with its zone, such as 2027-01-31T12:00:00Z",
            ),
            (
                "secret = [{ env = \"A\", from = 2026-01-02T00:00:00Z, until = 2026-01-01T00:00:00Z }]",
                "line 1, column 11: an entry of secret ends before it begins",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), expected, "{text}");
        }
        let several = read("secret_file = \"a\"\nsecret_env = \"b\"").unwrap_err();
        assert!(several.contains("give one of secret, secret_file and secret_env, not several"), "{several}");
        let unknown = read("secret = [{ value = \"x\", till = 1 }]").unwrap_err();
        assert!(unknown.contains("till"), "{unknown}");
    }
}
