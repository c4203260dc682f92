//! Edits of the configuration file by several at once, and what an edit leaves as it was.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A directory of its own that is removed after the test.
struct Place(PathBuf);

impl Place {
    /// With a file that has one account.
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("approov-edits-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let place = Self(path);
        place.ok("account -add k");
        place
    }

    fn file(&self) -> PathBuf {
        self.0.join("service.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn command(&self, line: &str) -> Command {
        self.command_on(&self.file(), line)
    }

    fn command_on(&self, file: &Path, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_approov-web-service"));
        command.args(line.split_whitespace()).env("APPROOV_SERVICE_CONFIG", file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn ok(&self, line: &str) {
        self.ok_on(&self.file(), line);
    }

    fn ok_on(&self, file: &Path, line: &str) {
        let output = self.command_on(file, line).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }

    /// An edit that has put its question.
    fn asking(&self, line: &str) -> Child {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.as_mut().unwrap();
        let (mut shown, mut byte) = (Vec::new(), [0]);
        while !shown.ends_with(b"type YES and return: ") {
            assert_eq!(out.read(&mut byte).unwrap(), 1, "{line}: {}", String::from_utf8_lossy(&shown));
            shown.push(byte[0]);
        }
        child
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn say_yes(mut asking: Child) -> Output {
    asking.stdin.take().unwrap().write_all(b"YES\n").unwrap();
    asking.wait_with_output().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn two_hundred_edits_at_once_are_all_in_the_file() {
    let place = Place::new("parallel");
    let edits: Vec<Child> =
        (0..200).map(|n| place.command(&format!("api -add api{n}.example.com -y")).spawn().unwrap()).collect();
    for edit in edits {
        let output = edit.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let text = place.text();
    let kept = (0..200).filter(|n| text.contains(&format!("\"api{n}.example.com\""))).count();
    assert_eq!(kept, 200);
}

#[test]
fn an_edit_during_an_open_prompt_is_refused_and_nothing_is_lost() {
    let place = Place::new("prompt");
    place.ok("keyset -add ES256 -kid leaked -y");
    let asking = place.asking("web -allowOrigin https://app.example.com");
    let refused = place.run("keyset -remove leaked -y");
    assert!(!refused.status.success());
    let complaint = complaint(&refused);
    assert!(complaint.contains(&format!("process {}", asking.id())) && complaint.contains("YES"), "{complaint}");
    assert!(place.text().contains("leaked"), "what was refused did not happen");
    assert!(place.run("keyset -list").status.success(), "looking needs no lock");

    let done = say_yes(asking);
    assert!(done.status.success(), "{done:?}");
    place.ok("keyset -remove leaked -y");
    let text = place.text();
    assert!(text.contains("https://app.example.com") && !text.contains("leaked"), "{text}");
}

#[test]
fn a_prompt_does_not_undo_what_an_editor_wrote_meanwhile() {
    let place = Place::new("editor");
    let asking = place.asking("web -allowOrigin https://app.example.com");
    let edited = format!("# by hand\n{}", place.text());
    fs::write(place.file(), &edited).unwrap();
    let refused = say_yes(asking);
    assert!(!refused.status.success());
    assert!(complaint(&refused).contains("changed"), "{refused:?}");
    assert_eq!(place.text(), edited);
    place.ok("web -allowOrigin https://app.example.com -y");
}

#[test]
fn a_command_that_was_killed_is_in_nobodys_way() {
    let place = Place::new("killed");
    fs::write(place.0.join("service.toml.new"), "half of it").unwrap();
    let mut asking = place.asking("web -allowOrigin https://app.example.com");
    asking.kill().unwrap();
    asking.wait().unwrap();
    place.ok("api -add a.example.com -y");
    place.ok("api -add b.example.com -y");
}

#[test]
fn a_no_at_the_prompt_lets_the_next_edit_through() {
    let place = Place::new("no");
    let mut asking = place.asking("web -allowOrigin https://app.example.com");
    asking.stdin.take().unwrap().write_all(b"no\n").unwrap();
    assert!(!asking.wait_with_output().unwrap().status.success());
    place.ok("api -add a.example.com -y");
    assert!(!place.text().contains("allowed_origins"));
}

#[test]
fn links_stay_links() {
    let place = Place::new("links");
    let (link, chain, real) = (place.0.join("f.toml"), place.0.join("g.toml"), place.0.join("real.toml"));
    fs::rename(place.file(), &real).unwrap();
    std::os::unix::fs::symlink("real.toml", &link).unwrap();
    std::os::unix::fs::symlink(&link, &chain).unwrap();
    place.ok_on(&link, "api -add a.example.com -y");
    place.ok_on(&chain, "api -add b.example.com -y");
    for path in [&link, &chain] {
        assert!(fs::symlink_metadata(path).unwrap().is_symlink(), "{}", path.display());
    }
    let text = fs::read_to_string(&real).unwrap();
    assert!(text.contains("a.example.com") && text.contains("b.example.com"), "{text}");

    let second = place.0.join("second.toml");
    fs::hard_link(&real, &second).unwrap();
    place.ok_on(&real, "api -remove a.example.com -y");
    assert_eq!(fs::read_to_string(&second).unwrap(), fs::read_to_string(&real).unwrap());
    assert_eq!(fs::metadata(&real).unwrap().nlink(), 2);
    assert!(!fs::read_to_string(&real).unwrap().contains("a.example.com"), "the file may get shorter");
}

#[test]
fn a_link_to_a_file_that_is_not_there_yet_makes_that_file() {
    let place = Place::new("dangling");
    let link = place.0.join("new.toml");
    std::os::unix::fs::symlink("made.toml", &link).unwrap();
    place.ok_on(&link, "account -add other");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let made = fs::metadata(place.0.join("made.toml")).unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
}

#[test]
fn owner_group_and_mode_are_kept() {
    const NOBODY: u32 = 65534;
    let place = Place::new("owner");
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let mine = fs::metadata(place.file()).unwrap();
    let is_root = mine.uid() == 0;
    if is_root {
        std::os::unix::fs::chown(place.file(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    place.ok("api -add a.example.com -y");
    let after = fs::metadata(place.file()).unwrap();
    let expected = if is_root { (NOBODY, NOBODY) } else { (mine.uid(), mine.gid()) };
    assert_eq!((after.uid(), after.gid()), expected);
    assert_eq!(after.permissions().mode() & 0o777, 0o640);
    assert!(place.text().contains("a.example.com"));
    let left: Vec<_> = fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{left:?}");
    if is_root {
        let lock = fs::metadata(place.0.join("service.toml.lock")).unwrap();
        assert_eq!(lock.uid(), NOBODY, "the file's owner can edit it, too");
    }
}

/// What somebody who is not the file's owner may do: with a file that everybody may write, edit it; with another, not.
#[test]
fn an_edit_by_somebody_else_leaves_the_file_its_owners() {
    const NOBODY: u32 = 65534;
    let place = Place::new("others");
    if fs::metadata(place.file()).unwrap().uid() != 0 {
        // Only root can be two people.
        return;
    }
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(place.0.join("service.toml.lock"), fs::Permissions::from_mode(0o666)).unwrap();
    // Where everybody may look for the program. Copied by another process: were the copy open for writing in this one, what
    // other tests start meanwhile would keep it open, and nobody can run what is being written.
    let program = place.0.join("program");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_approov-web-service")).arg(&program).status().unwrap();
    assert!(copied.success());
    let as_nobody = |line: &str| {
        let mut command = Command::new(&program);
        command.args(line.split_whitespace()).env("APPROOV_SERVICE_CONFIG", place.file());
        command.uid(NOBODY).gid(NOBODY).output().unwrap()
    };
    let output = as_nobody("api -add a.example.com -y");
    assert!(output.status.success(), "{output:?}");
    let after = fs::metadata(place.file()).unwrap();
    assert_eq!((after.uid(), after.permissions().mode() & 0o777), (0, 0o666));
    assert!(place.text().contains("a.example.com"));

    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o644)).unwrap();
    let before = place.text();
    let output = as_nobody("api -remove a.example.com -y");
    assert!(!output.status.success() && complaint(&output).contains("Permission denied"), "{output:?}");
    assert_eq!(place.text(), before);
    let left: Vec<_> = fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{left:?}");
}
