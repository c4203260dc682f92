//! Where secrets are kept, who reads them, and what a running service does about them.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use approov_web_service::dev::{self, sim};
use support::*;

/// A directory of its own that is removed after the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("approov-secrets-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A file, and its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The binary, run to its end: whether it succeeded, and all that it said.
    fn run(&self, line: &str, input: &str, env: &[(&str, &str)]) -> (bool, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_approov-web-service"))
            .args(line.split_whitespace())
            .current_dir(&self.0)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An account with an hCaptcha site, its secrets written as given.
fn account(secret: &str, site_secret: &str) -> String {
    format!(
        "[[account]]\nsite_key = \"{}\"\n{secret}\n[[account.api]]\ndomain = \"api.example.com\"\nallow_web = true\n\
         [[account.hcaptcha.site]]\nsite_key = \"{}\"\n{site_secret}\n",
        dev::SITE_KEY,
        sim::HCAPTCHA_SITE_KEY,
    )
}

#[test]
fn without_a_session_secret_nothing_is_served_and_the_command_that_adds_one_is_named() {
    let place = Place::new("none");
    place.file(
        "service.toml",
        &(format!("public_urls = [\"{PUBLIC}\"]\n") + &account(&format!("secret = \"{SECRET}\""), "secret = \"s\"")),
    );
    let (served, said) = place.run("serve --config service.toml --listen 127.0.0.1:0", "", &[]);
    assert!(!served);
    assert!(said.contains("session_secret") && said.contains("`approov-web-service config -migrate`"), "{said}");
    let (sound, checked) = place.run("config -check", "", &[]);
    assert!(!sound && checked.contains("`approov-web-service config -migrate`"), "{checked}");
}

#[tokio::test]
async fn secrets_in_files_and_variables_serve_with_a_newline_at_their_end() {
    let place = Place::new("kept");
    let sims = simulators().await;
    let session = place.file("session", &format!("{SESSION_SECRET}\r\n"));
    let site = place.file("site", &format!("{}\n", sim::HCAPTCHA_SECRET));
    let text = format!("public_urls = [\"{PUBLIC}\"]\nsession_secret_file = \"{session}\"\n")
        + &account(
            "secret_env = \"APPROOV_TEST_SECRET\"",
            &format!("secret_file = \"{site}\"\nverify_url = \"http://{sims}/sim/hcaptcha/siteverify\""),
        );
    let config = place.file("service.toml", &text);
    let process = Process::start_with(&["--config", &config], &[("APPROOV_TEST_SECRET", &format!("{SECRET}\n"))]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut browser = Browser::of_public();
    assert_eq!(browser.ask_nonce_at(&client, &process.url).await.unwrap().status, 204);
    let response = browser.attest_at(&client, &process.url, &with_hcaptcha("sim-pass-kept")).await.unwrap();
    assert!(is_trusted(&response.token()), "{}", response.body);
}

#[tokio::test]
async fn a_secret_that_changes_in_its_own_file_is_in_force_soon() {
    let place = Place::new("changed");
    let secret = place.file("secret", SECRET);
    let text = FILE_HEAD.to_owned() + &account(&format!("secret_file = \"{secret}\""), "secret = \"s\"");
    let config = place.file("service.toml", &text);
    let mut process = Process::start(&["--config", &config]);
    place.file("secret", "short");
    let line = process.wait_for_log(|line| line["event"] == "reload");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("/secret must") && message.contains("stays in force"), "{message}");
    place.file("secret", SESSION_SECRET);
    process.wait_for_log(|line| line["event"] == "reloaded");
}

#[test]
fn a_secret_that_cannot_be_had_is_named_at_the_start_and_its_text_is_not() {
    let place = Place::new("missing");
    let empty = place.file("empty", "\n");
    let lines = place.file("lines", "hunter2\nhunter3\n");
    for (secret, site, expected) in [
        (
            "secret_env = \"APPROOV_NOT_SET\"",
            "secret = \"s\"".to_owned(),
            "line 5, column 14: the environment variable APPROOV_NOT_SET is not set",
        ),
        (
            "secret_file = \"/nowhere\"",
            "secret = \"s\"".to_owned(),
            "line 5, column 15: the file /nowhere cannot be read: ",
        ),
        (
            "secret_env = \"APPROOV_SHORT\"",
            "secret = \"s\"".to_owned(),
            "the environment variable APPROOV_SHORT must decode to at least 32 bytes",
        ),
        ("secret_env = \"APPROOV_GOOD\"", format!("secret_file = \"{empty}\""), "/empty must not be empty"),
        (
            "secret_env = \"APPROOV_GOOD\"",
            format!("secret_file = \"{lines}\""),
            "/lines must be one line of printable characters",
        ),
    ] {
        place.file("service.toml", &(FILE_HEAD.to_owned() + &account(secret, &site)));
        let env = [("APPROOV_SHORT", "c2hvcnQ="), ("APPROOV_GOOD", SECRET)];
        let (served, said) = place.run("serve --config service.toml --listen 127.0.0.1:0", "", &env);
        assert!(!served && said.contains("service.toml: ") && said.contains(expected), "{said}");
        assert!(!said.contains("hunter") && !said.contains("c2hv"), "{said}");
    }
}

#[test]
fn the_command_line_works_where_the_secrets_are_not() {
    let place = Place::new("anywhere");
    let text = "session_secret_file = \"/run/secrets/session\"\n".to_owned()
        + &account(
            "secret_env = \"APPROOV_NOT_SET\"\njwe_secret_file = \"/run/secrets/jwe\"",
            "secret_env = \"HCAPTCHA\"",
        );
    place.file("service.toml", &text);
    for line in [
        "web -list",
        "api -list",
        "account -list",
        "web -allowOrigin https://a.example -y",
        "api -add other.example -allowWeb -jwe -y",
        "web -recaptcha -add r -secretFile /run/secrets/r -y",
        "web -recaptcha -add r -secretEnv RECAPTCHA -y",
        "keyset -add ES256 -kid e -y",
        "config -migrate -y",
    ] {
        let (worked, said) = place.run(line, "", &[]);
        assert!(worked, "{line}: {said}");
    }
    // What needs the secret itself says where it is, or finds it.
    let (worked, said) = place.run("secret -get base64", "", &[]);
    assert!(!worked && said.contains("the environment variable APPROOV_NOT_SET is not set"), "{said}");
    let (worked, said) = place.run("secret -get base64", "", &[("APPROOV_NOT_SET", SECRET)]);
    assert!(worked && said.trim() == SECRET, "{said}");
}

#[test]
fn a_secret_typed_or_piped_is_not_on_the_command_line() {
    let place = Place::new("stdin");
    place.run("account -add k", "", &[]);
    let (worked, said) = place.run("web -hcaptcha -add h -secret -", "0xpiped \nYES\n", &[]);
    assert!(worked, "{said}");
    let text = fs::read_to_string(place.0.join("service.toml")).unwrap();
    assert!(text.contains("secret = \"0xpiped\"\n"), "{text}");
    let (worked, said) = place.run("web -hcaptcha -add h -secret -", "", &[]);
    assert!(!worked && said.contains("standard input"), "{said}");
    let file = place.file("secret", &format!("{SECRET}\n"));
    let process = Process::start(&["--dev", "--secret-file", &file]);
    assert_eq!(process.announced["secret"], SECRET);
    let process = Process::start_with_input(&["--dev", "--secret", "-"], &format!("{SECRET}\n"));
    assert_eq!(process.announced["secret"], SECRET);
}

#[test]
fn a_file_of_an_earlier_version_is_migrated_by_one_command() {
    let place = Place::new("migrate");
    let old = account(&format!("secret = \"{SECRET}\" # the shop's"), "secret = \"s\"");
    place.file(
        "service.toml",
        &format!("# The service.\nnonce_secret = \"{SECRET}\"\npublic_urls = [\"{PUBLIC}\"]\n\n{old}"),
    );
    let (worked, said) = place.run("config -migrate", "no\n", &[]);
    assert!(!worked && said.contains("nothing was changed"), "{said}");
    let (worked, said) = place.run("config -migrate", "YES\n", &[]);
    assert!(worked && said.contains("removed nonce_secret") && said.contains("added session_secret"), "{said}");
    let text = fs::read_to_string(place.0.join("service.toml")).unwrap();
    assert!(
        text.contains("# The service.") && text.contains("# the shop's") && !text.contains("nonce_secret"),
        "{text}"
    );
    let secret = text.lines().find_map(|line| line.strip_prefix("session_secret = \"")).unwrap().trim_end_matches('"');
    let secret = approov_verify::secret::Secret::from_base64(secret).unwrap();
    assert_eq!(secret.as_bytes().len(), 32);
    let path = place.0.join("service.toml").display().to_string();
    drop(Process::start(&["--config", &path]));
    let (worked, said) = place.run("config -migrate", "", &[]);
    assert!(worked && said.contains("nothing is missing"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}
