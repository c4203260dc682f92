//! Putting a new text in a file's place, and leaving the rest of the file as it is: owner, group, mode, links.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// The longest chain of symbolic links that is followed, as in the kernel.
const MAX_LINKS: usize = 40;

/// Where a path leads when its last part is a symbolic link, also one to a file that is not there yet.
///
/// # Errors
/// When links cannot be read or go round in circles.
pub(super) fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                let target = fs::read_link(&path)?;
                path = path.parent().unwrap_or(Path::new("")).join(target);
            }
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Replaces what a file says. Who reads it sees the file before or the file after, nothing between; only where that
/// would take the file from its owner, or a hard link from it, or the file is a mount point, it is overwritten in place.
///
/// # Errors
/// When it cannot be written; the file is then as it was, unless it was being overwritten in place.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let before = match fs::metadata(path) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // Edits come one at a time: what is there was left by one that was killed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The file holds secrets: a new one is its owner's alone.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| install(&file, &temporary, path, before.as_ref(), text));
    if !matches!(written, Ok(Installed::Renamed)) {
        let removed = fs::remove_file(&temporary);
        return written.and(removed);
    }
    Ok(())
}

enum Installed {
    Renamed,
    Overwritten,
}

fn install(file: &File, temporary: &Path, path: &Path, before: Option<&Metadata>, text: &str) -> io::Result<Installed> {
    if let Some(before) = before
        && (before.nlink() > 1 || !take_after(file, before)?)
    {
        return overwrite(path, text);
    }
    match fs::rename(temporary, path) {
        Ok(()) => Ok(Installed::Renamed),
        // A file that is mounted into a container.
        Err(error) if before.is_some() && error.kind() == ErrorKind::ResourceBusy => overwrite(path, text),
        Err(error) => Err(error),
    }
}

/// Gives `file` owner, group and mode of the one `before` it; `false`: this process may not.
fn take_after(file: &File, before: &Metadata) -> io::Result<bool> {
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
        match fchown(file, Some(before.uid()), Some(before.gid())) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    file.set_permissions(Permissions::from_mode(before.mode() & 0o7777))?;
    Ok(true)
}

fn overwrite(path: &Path, text: &str) -> io::Result<Installed> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(u64::try_from(text.len()).map_err(io::Error::other)?)?;
    file.sync_all()?;
    Ok(Installed::Overwritten)
}
