//! Edits of a secret's list in the configuration file.

use approov_verify::time::UnixTime;
use toml_edit::{Array, Datetime, InlineTable, Item, Table, Value};

use crate::secrets::{Timed, Timeline};
use crate::time::{parse_rfc3339, rfc3339};

use super::document;

/// The entries of a secret, whichever way it was written before.
pub(super) struct SecretEntries {
    name: &'static str,
    entries: Vec<InlineTable>,
}

/// What an entry holds: `value`, `file` or `env`, and its text.
pub(super) type Held = (&'static str, String);

impl SecretEntries {
    /// The entries of the secret `name`, without those that have ended.
    ///
    /// # Errors
    /// When there are none, or the list is not one.
    pub(super) fn read(table: &Table, name: &'static str, now: UnixTime) -> Result<Self, String> {
        let plain = ["value", "file", "env"].into_iter().find_map(|form| {
            let key = if form == "value" { name.to_owned() } else { format!("{name}_{form}") };
            let text = table.get(&key).and_then(Item::as_str)?;
            Some(vec![InlineTable::from_iter([(form, text)])])
        });
        let listed = || match table.get(name)? {
            Item::Value(Value::Array(array)) => array.iter().map(|entry| entry.as_inline_table().cloned()).collect(),
            Item::ArrayOfTables(tables) => Some(tables.iter().cloned().map(Table::into_inline_table).collect()),
            _ => None,
        };
        let mut entries = plain.or_else(listed).ok_or_else(|| format!("there is no {name}"))?;
        entries.retain(|entry| time(entry, "until").is_none_or(|until| now < until));
        Ok(Self { name, entries })
    }

    /// Writes them, in the place of what was there.
    pub(super) fn write(self, table: &mut Table) {
        let mut list: Array = self.entries.into_iter().map(Value::InlineTable).collect();
        document::one_entry_a_line(&mut list);
        for form in ["file", "env"] {
            table.remove(&format!("{}_{form}", self.name));
        }
        if table.get(self.name).is_some_and(Item::is_array_of_tables) {
            table.remove(self.name);
        }
        document::set(table, self.name, Item::Value(list.into()));
    }

    /// Puts one secret in the place of all there are.
    pub(super) fn replace(&mut self, held: Held) {
        self.entries = vec![InlineTable::from_iter([(held.0, held.1)])];
    }

    /// Adds the secret that is to follow, from when on it is.
    ///
    /// # Errors
    /// When another one is waiting.
    pub(super) fn stage(&mut self, held: Held, from: UnixTime, now: UnixTime) -> Result<(), String> {
        if self.times()?.staged(now).is_some() {
            return Err(format!("a {} is staged already: activate it, or `-retire -staged` first", self.name));
        }
        let mut entry = InlineTable::from_iter([(held.0, held.1)]);
        set_time(&mut entry, "from", from)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Puts the staged secret in force at once.
    ///
    /// # Errors
    /// When none is staged.
    pub(super) fn activate(&mut self, now: UnixTime) -> Result<(), String> {
        let staged = self.times()?.staged(now).copied();
        match staged.and_then(|index| self.entries.get_mut(index)) {
            Some(entry) => set_time(entry, "from", now),
            None => Err(format!("no {} is staged: `-rotate` stages one", self.name)),
        }
    }

    /// Has every secret that would stay, apart from the latest, end then.
    ///
    /// # Errors
    /// Never for times of this age.
    pub(super) fn bound_older(&mut self, end: UnixTime) -> Result<(), String> {
        let latest = self.entries.iter().map(|entry| time(entry, "from")).max().flatten();
        for entry in &mut self.entries {
            if time(entry, "from") != latest && time(entry, "until").is_none() {
                set_time(entry, "until", end)?;
            }
        }
        Ok(())
    }

    /// Removes the staged secret, or every one that is neither staged nor in force. Gives how many.
    ///
    /// # Errors
    /// When there is none to remove.
    pub(super) fn retire(&mut self, staged: bool, now: UnixTime) -> Result<usize, String> {
        let times = self.times()?;
        let (making, waiting) = (*times.making(now), times.staged(now).copied());
        let before = self.entries.len();
        let mut index = 0;
        self.entries.retain(|_| {
            let keep = if staged { Some(index) != waiting } else { index == making || Some(index) == waiting };
            index += 1;
            keep
        });
        match before - self.entries.len() {
            0 if staged => Err(format!("no {} is staged", self.name)),
            0 => Err(format!("there is no old {}", self.name)),
            removed => {
                // The successor is gone that had bounded it.
                let latest = self.entries.iter_mut().filter(|_| staged).max_by_key(|entry| time(entry, "from"));
                if let Some(entry) = latest {
                    entry.remove("until");
                }
                Ok(removed)
            }
        }
    }

    /// When which entry is in use.
    fn times(&self) -> Result<Timeline<usize>, String> {
        let times = self.entries.iter().enumerate().map(|(index, entry)| Timed {
            value: index,
            from: time(entry, "from"),
            until: time(entry, "until"),
        });
        Timeline::new(times.collect()).ok_or_else(|| format!("{} has no entry without until", self.name))
    }
}

fn time(entry: &InlineTable, key: &str) -> Option<UnixTime> {
    parse_rfc3339(&entry.get(key)?.as_datetime()?.to_string())
}

fn set_time(entry: &mut InlineTable, key: &str, time: UnixTime) -> Result<(), String> {
    let time: Datetime = rfc3339(time).parse().map_err(|_| "the time cannot be written".to_owned())?;
    entry.insert(key, time.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use toml_edit::DocumentMut;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn after(seconds: u64) -> UnixTime {
        NOW.plus(Duration::from_secs(seconds))
    }

    fn edited(text: &str, edit: impl FnOnce(&mut SecretEntries) -> Result<(), String>) -> Result<String, String> {
        let mut document: DocumentMut = text.parse().unwrap();
        let mut entries = SecretEntries::read(&document, "secret", NOW)?;
        edit(&mut entries)?;
        entries.write(document.as_table_mut());
        Ok(document.to_string())
    }

    #[test]
    fn every_form_becomes_a_list() {
        for (before, held) in [
            ("secret = \"a\" # ours\n", "value = \"a\""),
            ("secret_file = \"/a\"\n", "file = \"/a\""),
            ("secret_env = \"A\"\n", "env = \"A\""),
            ("secret = [{ value = \"a\" }]\n", "value = \"a\""),
            ("[[secret]]\nvalue = \"a\"\n", "value = \"a\""),
        ] {
            let after = edited(before, |entries| {
                entries.stage(("value", "b".to_owned()), after(300), NOW)?;
                entries.bound_older(after(900))
            });
            let expected = format!(
                "secret = [\n    {{ {held}, until = 2027-01-15T08:15:00Z }},\n    \
                 {{ value = \"b\", from = 2027-01-15T08:05:00Z }},\n]"
            );
            assert!(after.clone().unwrap().starts_with(&expected), "{before}: {}", after.unwrap());
        }
        assert!(edited("secret = \"a\" # ours\n", |_| Ok(())).unwrap().ends_with("] # ours\n"));
        assert!(edited("other = 1", |_| Ok(())).is_err());
    }

    #[test]
    fn a_secret_is_staged_once_then_active_then_the_old_one_retired() {
        let stage = |entries: &mut SecretEntries| entries.stage(("value", "b".to_owned()), after(1_000_000), NOW);
        let staged = edited("secret = \"a\"\n", stage).unwrap();
        assert!(edited(&staged, stage).unwrap_err().contains("staged already"));
        assert!(edited(&staged, |entries| entries.retire(false, NOW).map(drop)).is_err(), "nothing is old yet");
        let dropped = edited(&staged, |entries| entries.retire(true, NOW).map(drop)).unwrap();
        assert_eq!(dropped, "secret = [\n    { value = \"a\" },\n]\n");
        let active = edited(&staged, |entries| {
            entries.activate(NOW)?;
            entries.bound_older(after(720))
        });
        let active = active.unwrap();
        assert_eq!(
            active,
            "secret = [\n    { value = \"a\", until = 2027-01-15T08:12:00Z },\n    \
             { value = \"b\", from = 2027-01-15T08:00:00Z },\n]\n"
        );
        assert!(edited(&active, |entries| entries.activate(NOW)).is_err(), "nothing is staged any more");
        let retired = edited(&active, |entries| entries.retire(false, NOW).map(drop)).unwrap();
        assert_eq!(retired, "secret = [\n    { value = \"b\", from = 2027-01-15T08:00:00Z },\n]\n");
    }

    #[test]
    fn dropping_a_staged_secret_keeps_the_one_in_force_for_good() {
        let bounded = edited("secret = \"a\"\n", |entries| {
            entries.stage(("value", "b".to_owned()), after(300), NOW)?;
            entries.bound_older(after(900))
        });
        let dropped = edited(&bounded.unwrap(), |entries| entries.retire(true, NOW).map(drop)).unwrap();
        assert_eq!(dropped, "secret = [\n    { value = \"a\" },\n]\n");
    }

    #[test]
    fn what_has_ended_goes() {
        let list = "secret = [{ value = \"a\", until = 2027-01-15T08:00:00Z }, { value = \"b\" }]\n";
        assert_eq!(edited(list, |_| Ok(())).unwrap(), "secret = [\n    { value = \"b\" },\n]\n");
    }
}
