//! A running service and its configuration file: what it takes over, what it refuses, and what it says about it.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::*;

/// A directory of its own that is removed after the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("approov-reload-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("service.toml")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn account(api: &str) -> String {
    format!(
        "{FILE_HEAD}[[account]]\nsite_key = \"k\"\nsecret = \"{SECRET}\"\n\
         [[account.api]]\ndomain = \"{api}\"\nallow_web = true\n\
         [[account.hcaptcha.site]]\nsite_key = \"h\"\nsecret = \"s\"\n"
    )
}

fn start(file: &Path) -> Process {
    Process::start(&["--config", file.to_str().unwrap()])
}

/// What the service says to a refresh for `a.example`: enough to see which configuration is in force.
async fn codes(process: &Process) -> Vec<String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut browser = Browser::of_public();
    browser.ask_nonce_at(&client, &process.url).await.unwrap();
    let params = [("approov-site-key", "k"), ("api", "a.example"), ("refresh-token", "x")];
    browser.attest_at(&client, &process.url, &params).await.unwrap().codes()
}

fn is_event(name: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line["event"] == name
}

async fn counted(process: &Process, result: &str) -> Option<u64> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = client.get(format!("{}/metrics", process.operations)).send().await.unwrap().text().await.unwrap();
    let name = format!("approov_config_reloads_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map(|count| count.parse().unwrap())
}

#[tokio::test]
async fn a_file_that_lost_its_accounts_is_refused() {
    let place = Place::new("empty");
    fs::write(place.file(), account("a.example")).unwrap();
    let mut process = start(&place.file());
    fs::write(place.file(), "").unwrap();
    let line = process.wait_for_log(is_event("reload"));
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("no account") && message.contains("stays in force"), "{message}");
    assert_eq!(codes(&process).await, ["aprv-invalid-refresh-token"]);
    assert_eq!(counted(&process, "refused").await, Some(1));
    fs::write(place.file(), account("b.example")).unwrap();
    process.wait_for_log(is_event("reloaded"));
    assert_eq!(codes(&process).await, ["aprv-api-not-found"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_reported_and_counted() {
    let place = Place::new("unreadable");
    fs::write(place.file(), account("a.example")).unwrap();
    let mut process = start(&place.file());
    fs::rename(place.file(), place.0.join("elsewhere")).unwrap();
    let line = process.wait_for_log(is_event("reload"));
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("service.toml: ") && message.contains("stays in force"), "{message}");
    assert_eq!(counted(&process, "unreadable").await, Some(1));
    assert_eq!(codes(&process).await, ["aprv-invalid-refresh-token"]);
    process.signal("-HUP");
    process.wait_for_logs(2, is_event("reload"));
    assert_eq!(counted(&process, "unreadable").await, Some(2));
    fs::rename(place.0.join("elsewhere"), place.file()).unwrap();
    process.wait_for_log(is_event("reloaded"));
}

#[tokio::test]
async fn a_hangup_is_answered_also_when_nothing_changed() {
    let place = Place::new("hangup");
    fs::write(place.file(), account("a.example")).unwrap();
    let mut process = start(&place.file());
    for count in 1..=2 {
        process.signal("-HUP");
        process.wait_for_logs(count, is_event("reloaded"));
    }
    assert_eq!(counted(&process, "ok").await, Some(2));
}

#[tokio::test]
async fn a_certificate_renewed_by_swapping_a_link_is_used() {
    let place = Place::new("renewed");
    let install = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        fs::create_dir_all(place.0.join(name)).unwrap();
        fs::write(place.0.join(name).join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(place.0.join(name).join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap()
    };
    let clients = [install("first"), install("second")];
    let live = place.0.join("live");
    std::os::unix::fs::symlink("first", &live).unwrap();
    let text = format!("tls_cert = \"{0}/cert.pem\"\ntls_key = \"{0}/key.pem\"\n", live.display());
    fs::write(place.file(), text + &account("a.example")).unwrap();
    let mut process = start(&place.file());
    let healthz = format!("{}/healthz", process.url);
    assert!(clients[0].get(&healthz).send().await.is_ok());
    assert!(clients[1].get(&healthz).send().await.is_err());
    let swapped = place.0.join("swapped");
    std::os::unix::fs::symlink("second", &swapped).unwrap();
    fs::rename(&swapped, &live).unwrap();
    process.wait_for_log(is_event("reloaded"));
    assert!(clients[1].get(&healthz).send().await.is_ok());
}

#[tokio::test]
async fn what_a_configuration_allows_without_saying_so_is_said_once() {
    let place = Place::new("warnings");
    fs::write(place.file(), account("a.example")).unwrap();
    fs::set_permissions(place.file(), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let mut process = start(&place.file());
    let said = |lines: &[Value]| -> Vec<String> {
        lines.iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    };
    let at_start = said(&process.wait_for_logs(5, is_event("warning")));
    for expected in ["mode 0640", "claim ip", "any origin", "any domain", "any score"] {
        assert!(at_start.iter().any(|warning| warning.contains(expected)), "{expected}: {at_start:?}");
    }
    fs::write(place.file(), account("a.example").replace("secret = \"s\"\n", "secret = \"s\"\nmin_score = 0.5\n"))
        .unwrap();
    process.wait_for_log(is_event("reloaded"));
    fs::write(place.file(), account("a.example").replace("allow_web = true", "")).unwrap();
    process.wait_for_logs(2, is_event("reloaded"));
    let later = said(&process.wait_for_logs(7, is_event("warning"))[5..]);
    for expected in ["no API for web tokens", "any score"] {
        assert!(later.iter().any(|warning| warning.contains(expected)), "{expected}: {later:?}");
    }
}

#[tokio::test]
async fn a_secret_in_a_file_of_its_own_is_watched_like_the_configuration() {
    let place = Place::new("secret-file");
    let secret = place.0.join("hcaptcha-secret");
    fs::write(&secret, "one\n").unwrap();
    let with_file = format!("secret_file = \"{}\"\n", secret.display());
    fs::write(place.file(), account("a.example").replace("secret = \"s\"\n", &with_file)).unwrap();
    let mut process = start(&place.file());
    fs::write(&secret, "two\n").unwrap();
    process.wait_for_log(is_event("reloaded"));
    fs::write(&secret, "").unwrap();
    let line = process.wait_for_log(is_event("reload"));
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("hcaptcha-secret") && message.contains("stays in force"), "{message}");
    assert_eq!(codes(&process).await, ["aprv-invalid-refresh-token"]);
    // One that is not there yet when it is first named, and then comes.
    let other = place.0.join("other-secret");
    let with_other = format!("secret_file = \"{}\"\n", other.display());
    fs::write(place.file(), account("b.example").replace("secret = \"s\"\n", &with_other)).unwrap();
    let line = process.wait_for_log(|line| is_event("reload")(line) && line.to_string().contains("other-secret"));
    assert!(line["message"].as_str().unwrap().contains("stays in force"), "{line}");
    fs::write(&other, "three").unwrap();
    process.wait_for_logs(2, is_event("reloaded"));
    assert_eq!(codes(&process).await, ["aprv-api-not-found"]);
}
