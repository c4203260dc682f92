//! Edits of the configuration file that keep its comments and order.

use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, RawString, Table, Value, value};

use crate::config::Config;
use crate::crypto::random;
use crate::host::lookup_name;

use super::edit_lock::EditLock;
use super::replace::{follow_links, replace};
use super::{CliResult, Console};

/// The key of the service's own secret.
const SESSION_SECRET: &str = "session_secret";

/// A configuration file.
pub(super) struct Document {
    path: PathBuf,
    text: String,
    doc: DocumentMut,
}

/// A configuration file being edited: no other command edits it before this one is done.
pub(super) struct Edit {
    document: Document,
    lock: EditLock,
}

impl Document {
    /// Reads the file; one that does not exist is empty.
    ///
    /// # Errors
    /// When it cannot be read or is not TOML.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = text_of(path).map_err(|error| at(&error))?;
        let doc = text.parse().map_err(|error| at(&error))?;
        Ok(Self { path: path.to_owned(), text, doc })
    }

    /// The checked configuration that the file now means.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn config(&self) -> Result<Config, String> {
        Config::parse(&self.doc.to_string()).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Whether the file is there already.
    pub(super) fn exists(&self) -> bool {
        !self.text.is_empty()
    }

    /// Adds the service's own secret; false: the file has it already.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub(super) fn add_session_secret(&mut self) -> Result<bool, String> {
        const COMMENT: &str = "# The service's own: whoever has it can make any token. No backend needs it.\n";
        let root = self.doc.as_table_mut();
        if has_secret(root, SESSION_SECRET) {
            return Ok(false);
        }
        let secret = random::<32>().map_err(|error| error.to_string())?;
        root.insert(SESSION_SECRET, value(STANDARD.encode(secret)));
        if let Some(mut key) = root.key_mut(SESSION_SECRET) {
            key.leaf_decor_mut().set_prefix(COMMENT);
        }
        Ok(true)
    }

    /// Removes a value at the top; false: it was not there. The comments above it stay, above the value that comes next.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let root = self.doc.as_table_mut();
        let comments = root.key(name).and_then(|key| key.leaf_decor().prefix()).and_then(RawString::as_str);
        let comments = comments.unwrap_or_default().to_owned();
        let next = root.iter().skip_while(|(key, _)| *key != name).nth(1).map(|(key, _)| key.to_owned());
        let removed = root.remove(name).is_some();
        if let Some(mut key) = next.and_then(|next| root.key_mut(&next)) {
            let own = key.leaf_decor().prefix().and_then(RawString::as_str).unwrap_or_default().to_owned();
            key.leaf_decor_mut().set_prefix(comments + &own);
        }
        removed
    }

    /// The values at the top.
    pub(super) fn root(&mut self) -> &mut Table {
        self.doc.as_table_mut()
    }

    /// Adds an account.
    ///
    /// # Errors
    /// When there is one with this site key.
    pub(super) fn add_account(&mut self, site_key: &str, secret: &str) -> Result<(), String> {
        let accounts = tables(self.doc.as_table_mut(), "account")?;
        if find(accounts, "site_key", site_key).is_some() {
            return Err(format!("there is an account {site_key} already"));
        }
        let mut account = Table::new();
        account.insert("site_key", value(site_key));
        account.insert("secret", value(secret));
        account.insert("token_lifetime", value(120));
        account.insert("refresh_token_lifetime", value(7200));
        accounts.push(account);
        Ok(())
    }

    /// Removes an account, with everything in it.
    ///
    /// # Errors
    /// When there is none with this site key.
    pub(super) fn remove_account(&mut self, site_key: &str) -> Result<(), String> {
        let accounts = tables(self.doc.as_table_mut(), "account")?;
        let index = find(accounts, "site_key", site_key).ok_or_else(|| format!("there is no account {site_key}"))?;
        accounts.remove(index);
        Ok(())
    }

    /// The account with this site key, or the only one.
    ///
    /// # Errors
    /// When there is none, or a choice.
    pub(super) fn account(&mut self, site_key: Option<&str>) -> Result<&mut Table, String> {
        let accounts = tables(self.doc.as_table_mut(), "account")?;
        let index = match site_key {
            Some(site_key) => {
                find(accounts, "site_key", site_key).ok_or_else(|| format!("there is no account {site_key}"))?
            }
            None if accounts.len() > 1 => {
                return Err("there are several accounts: say which with -account SITE_KEY".to_owned());
            }
            None => 0,
        };
        accounts.get_mut(index).ok_or_else(|| "there is no account yet: add one with `account -add`".to_owned())
    }
}

/// Whether a table has this secret in some form.
pub(super) fn has_secret(table: &Table, name: &str) -> bool {
    ["", "_file", "_env"].iter().any(|form| table.contains_key(&format!("{name}{form}")))
}

impl Edit {
    /// Reads the file to change it; one that does not exist is empty.
    ///
    /// # Errors
    /// When it cannot be read or is not TOML, or another command is editing it.
    pub(super) fn begin(path: &Path) -> Result<Self, String> {
        let path = follow_links(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let lock = EditLock::acquire(&path)?;
        Ok(Self { document: Document::read(&path)?, lock })
    }

    /// Asks before a change, if the edit is sound.
    ///
    /// # Errors
    /// When it is not, or the answer is not YES.
    pub(super) fn confirm(&mut self, console: &mut Console<'_>, warning: &str, yes: bool) -> CliResult {
        self.config()?;
        if yes {
            return Ok(());
        }
        self.lock.while_asking(|| console.confirm(warning))?
    }

    /// Writes the file if the edits make a sound configuration, and it still is what was edited.
    ///
    /// # Errors
    /// When the result is not sound, or cannot be written, or something else changed the file meanwhile.
    pub(super) fn save(&mut self) -> Result<(), String> {
        self.config()?;
        let Document { path, text: before, doc } = &mut self.document;
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = doc.to_string();
        if text == *before {
            return Ok(());
        }
        // Editors know nothing of the lock.
        if text_of(path).map_err(|error| at(&error))? != *before {
            return Err(at(&"it was changed meanwhile by something else. Nothing was written: run the command again"));
        }
        replace(path, &text).map_err(|error| at(&error))?;
        *before = text;
        Ok(())
    }
}

impl Deref for Edit {
    type Target = Document;

    fn deref(&self) -> &Document {
        &self.document
    }
}

impl DerefMut for Edit {
    fn deref_mut(&mut self) -> &mut Document {
        &mut self.document
    }
}

fn text_of(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// The array of tables `name` in `parent`, made if missing.
///
/// # Errors
/// When `name` is something else.
pub(super) fn tables<'a>(parent: &'a mut Table, name: &str) -> Result<&'a mut ArrayOfTables, String> {
    let item = parent.entry(name).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if !item.is_array_of_tables() {
        let plain = std::mem::take(item);
        *item = plain.into_array_of_tables().map_or_else(|plain| plain, Item::ArrayOfTables);
    }
    item.as_array_of_tables_mut().ok_or_else(|| format!("{name} must be an array of tables ([[{name}]])"))
}

/// The table `name` in `parent`, made if missing; a made one shows no header of its own.
///
/// # Errors
/// When `name` is something else.
pub(super) fn table<'a>(parent: &'a mut Table, name: &str) -> Result<&'a mut Table, String> {
    let item = parent.entry(name).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    if !item.is_table() {
        let plain = std::mem::take(item);
        *item = plain.into_table().map_or_else(|plain| plain, Item::Table);
    }
    item.as_table_mut().ok_or_else(|| format!("{name} must be a table ([{name}])"))
}

/// Puts `entry` into `list`; it replaces the one with the same `key`. True: there was one.
pub(super) fn put(list: &mut ArrayOfTables, key: &str, entry: Table) -> bool {
    let name = entry.get(key).and_then(Item::as_str).unwrap_or_default().to_owned();
    match find(list, key, &name).and_then(|index| list.get_mut(index)) {
        None => {
            list.push(entry);
            false
        }
        Some(old) => {
            let names: Vec<String> = old.iter().map(|(name, _)| name.to_owned()).collect();
            for name in names {
                if !entry.contains_key(&name) {
                    old.remove(&name);
                }
            }
            for (name, item) in entry.iter() {
                set(old, name, item.clone());
            }
            true
        }
    }
}

/// Has each entry of a list on a line of its own.
pub(super) fn one_entry_a_line(list: &mut Array) {
    for entry in list.iter_mut() {
        if let Value::InlineTable(entry) = entry {
            entry.fmt();
        }
        entry.decor_mut().clear();
        entry.decor_mut().set_prefix("\n    ");
    }
    list.set_trailing("\n");
    list.set_trailing_comma(true);
}

/// Sets a value; the comments next to the old one stay.
pub(super) fn set(table: &mut Table, name: &str, item: Item) {
    match (table.get_mut(name), item) {
        (Some(Item::Value(old)), Item::Value(mut new)) => {
            let decor: toml_edit::Decor = Value::decor(old).clone();
            *new.decor_mut() = decor;
            *old = new;
        }
        (_, item) => {
            table.insert(name, item);
        }
    }
}

/// Where in `list` the entry is whose `key` is `name`.
pub(super) fn find(list: &ArrayOfTables, key: &str, name: &str) -> Option<usize> {
    list.iter().position(|entry| {
        entry
            .get(key)
            .and_then(Item::as_str)
            .is_some_and(|have| if key == "domain" { lookup_name(have) == lookup_name(name) } else { have == name })
    })
}
