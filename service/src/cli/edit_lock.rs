//! One edit of a configuration file at a time: a lock file next to it, held from reading to writing.
//!
//! The lock is the kernel's (`flock`): it ends with its process, however that ends. The lock file stays; while a
//! command waits for an answer of its operator, it holds that command's process id, so that others do not wait for a
//! person who may have left.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How often a waiting edit looks whether the one before it is at a prompt.
const PROMPT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The right to edit a configuration file, for as long as it lives.
#[derive(Debug)]
pub(super) struct EditLock {
    file: File,
    path: PathBuf,
}

impl EditLock {
    /// Waits until no other command edits `config`.
    ///
    /// # Errors
    /// When the lock file cannot be used, or the other command is at a prompt.
    pub(super) fn acquire(config: &Path) -> Result<Self, String> {
        let path = lock_path(config);
        let at = |error: io::Error| format!("{}: {error}", path.display());
        let file = open(&path, config).map_err(at)?;
        let file = match file.try_lock() {
            Ok(()) => file,
            Err(TryLockError::WouldBlock) => wait(file, config, &path)?,
            Err(TryLockError::Error(error)) => return Err(at(error)),
        };
        // A command that was killed at its prompt leaves its id.
        file.set_len(0).map_err(at)?;
        Ok(Self { file, path })
    }

    /// Runs `ask`, during which other commands are refused instead of waiting.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub(super) fn while_asking<T>(&mut self, ask: impl FnOnce() -> T) -> Result<T, String> {
        let at = |error: io::Error| format!("{}: {error}", self.path.display());
        let begin = |file: &mut File| {
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        begin(&mut self.file).map_err(at)?;
        let answer = ask();
        self.file.set_len(0).map_err(at)?;
        Ok(answer)
    }
}

fn lock_path(config: &Path) -> PathBuf {
    let mut name = config.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    config.with_file_name(name)
}

/// Opens the lock file, and gives it to whom the configuration belongs to: whoever may edit that can lock it.
fn open(path: &Path, config: &Path) -> io::Result<File> {
    // Not truncated: it may say who is at a prompt.
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let (lock, owner) = (
        file.metadata()?,
        match fs::metadata(config) {
            Ok(owner) => owner,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(file),
            Err(error) => return Err(error),
        },
    );
    let mode = owner.mode() & 0o666 | 0o600;
    if (lock.uid(), lock.gid(), lock.mode() & 0o777) != (owner.uid(), owner.gid(), mode) {
        let changed = fchown(&file, Some(owner.uid()), Some(owner.gid()))
            .and_then(|()| file.set_permissions(Permissions::from_mode(mode)));
        match changed {
            // Only its owner may, and to others only root gives files.
            Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(file)
}

fn wait(file: File, config: &Path, path: &Path) -> Result<File, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let (locked, waiting) = channel();
    // It waits in the kernel's queue: who came first is served first. When this function gives up before, the lock
    // comes back with the file that nobody takes.
    thread::spawn(move || {
        let result = file.lock().map(|()| file);
        let _ = locked.send(result);
    });
    let mut seen = None;
    loop {
        match waiting.recv_timeout(PROMPT_POLL_INTERVAL) {
            Ok(Ok(file)) => return Ok(file),
            Ok(Err(error)) => return Err(at(&error)),
            Err(RecvTimeoutError::Disconnected) => return Err(at(&"the lock could not be waited for")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // Twice the same: one that was just killed leaves its id until the next edit takes the lock.
        let asking = process_at_prompt(path).map_err(|error| at(&error))?;
        if asking.is_some() && asking == seen {
            let process = asking.unwrap_or_default();
            return Err(format!(
                "{}: another command (process {process}) is editing it and waits for its YES: answer or end that one \
                 first. Nothing was changed",
                config.display()
            ));
        }
        seen = asking;
    }
}

fn process_at_prompt(path: &Path) -> io::Result<Option<u32>> {
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text.trim().parse().ok())
}
