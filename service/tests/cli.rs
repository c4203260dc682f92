//! The configuration's command line, from an empty directory.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use approov_web_service::cli::{self, Args, Console, Failure};
use approov_web_service::config::Config;

/// A directory of its own that is removed after the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("approov-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("service.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Runs a command line; the response to a question is `typed`.
    fn run(&self, line: &str, typed: &str) -> Result<String, Failure> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let command = words.next().unwrap();
        let config = ["-config".to_owned(), self.file().display().to_string()];
        let mut output = Vec::new();
        let mut console = Console { input: &mut typed.as_bytes(), output: &mut output };
        cli::run(&command, Args::new(words.chain(config)), &mut console).unwrap()?;
        Ok(String::from_utf8(output).unwrap())
    }

    fn ok(&self, line: &str) -> String {
        self.run(&format!("{line} -y"), "").unwrap_or_else(|failure| panic!("{line}: {failure:?}"))
    }
}

/// Runs a command line whose words may have spaces.
fn run_words(words: &[&str]) -> Result<String, Failure> {
    let (command, rest) = words.split_first().unwrap();
    let mut output = Vec::new();
    let mut console = Console { input: &mut &b""[..], output: &mut output };
    cli::run(command, Args::new(rest.iter().map(ToString::to_string)), &mut console).unwrap()?;
    Ok(String::from_utf8(output).unwrap())
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_account_is_made_from_nothing_and_listed_as_documented() {
    let place = Place::new("nothing");
    assert_eq!(place.ok("account -add your-Approov-site-key"), "added account with site key your-Approov-site-key\n");
    assert_eq!(
        place.ok("api -add your.domain -allowWeb"),
        "added API domain your.domain with type:account, alg:HS256, web:allowed\n"
    );
    assert_eq!(
        place.ok("web -fingerprint -add your-public-key -secret s -region RoW"),
        "fingerprint subscription your-public-key added\n"
    );
    assert_eq!(place.ok("web -hcaptcha -add h -secret s -domain your-web-site-domain"), "hcaptcha site h added\n");
    assert_eq!(place.ok("web -recaptcha -add r -secret s -action login -rateLimit 60"), "recaptcha site r added\n");
    assert_eq!(
        place.ok("web -list"),
        "Site Key: your-Approov-site-key
Token Lifetime: 120 seconds
Refresh Token Lifetime: 7200 seconds
Allowed Origins: any
Suffices: any one of fingerprint, hcaptcha, recaptcha
Fingerprint:
  Optional: true
  Subscription Key: your-public-key
    Region: RoW
    Max Elapsed Time: 2.00s
    Max Bot Probability: 1.00
    Embed Result: false
    Max Result Lifetime: 0s
hCaptcha:
  Optional: true
  Site Key: h
    Domains:
      your-web-site-domain
    Min Score: 0.00
    Include IP: false
    Embed Result: false
    Max Result Lifetime: 0s
reCAPTCHA:
  Optional: true
  Site Key: r
    Actions:
      login
    Min Score: 0.00
    Include IP: false
    Embed Result: false
    Max Result Lifetime: 0s
    Rate Limit: 60 per minute
WARNING: pages of any origin may use it (web -allowOrigin)
WARNING: for a token suffices any one of fingerprint, hcaptcha, recaptcha (-setRequired, -anyOf)
WARNING: Fingerprint subscription your-public-key accepts any bot probability (max_bot_probability is 1)
WARNING: hCaptcha site h accepts any score (min_score is 0)
WARNING: reCAPTCHA site r accepts results of any domain (domains is empty)
WARNING: reCAPTCHA site r accepts any score (min_score is 0)
"
    );
    assert_eq!(
        fs::metadata(place.file()).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777).unwrap(),
        0o600
    );
}

#[test]
fn groups_and_modes_are_set_and_listed() {
    let place = Place::new("groups");
    place.ok("account -add k");
    place.ok("web -hcaptcha -add h -secret s");
    place.ok("web -altcha -add a -cost 900 -widget");
    assert_eq!(place.ok("web -anyOf hcaptcha,altcha"), "one of hcaptcha, altcha has to come\n");
    let listed = place.ok("web -list");
    assert!(listed.contains("Any Of: hcaptcha, altcha\nSuffices: any one of hcaptcha, altcha\n"), "{listed}");
    assert!(
        listed.contains("ALTCHA:\n  Optional: true\n  Site Key: a\n    Cost: 900\n    Zeros: 3\n    Widget: true\n"),
        "{listed}"
    );
    assert_eq!(place.ok("web -anyOf none"), "no check of a group has to come\n");
    assert_eq!(place.ok("web -hcaptcha -setMode monitor"), "hcaptcha is now in mode monitor\n");
    let listed = place.ok("web -list");
    assert!(listed.contains("hCaptcha:\n  Optional: true\n  Mode: monitor\n"), "{listed}");
    assert!(listed.contains("WARNING: hCaptcha is only watched"), "{listed}");
    place.ok("web -altcha -setMode monitor");
    assert!(place.ok("web -list").contains("Suffices: nothing, since every check is only watched"));
    let before = place.text();
    for (line, complaint) in [
        ("web -hcaptcha -setMode loud -y", "enforce or monitor"),
        ("web -anyOf friendly,turnstile -y", "friendly"),
        ("web -anyOf altcha -y", "monitored"),
    ] {
        let failure = place.run(line, "").unwrap_err();
        assert!(format!("{failure:?}").contains(complaint), "{line}: {failure:?}");
    }
    assert_eq!(place.text(), before, "nothing has changed");
}

#[test]
fn a_change_wants_yes_typed() {
    let place = Place::new("yes");
    place.ok("account -add k");
    let before = place.text();
    for typed in ["", "no\n", "yes\n", "Y\n"] {
        let refused = place.run("api -add your.domain -allowWeb", typed);
        assert_eq!(refused, Err(Failure::Refused("nothing was changed".to_owned())), "{typed:?}");
        assert_eq!(place.text(), before);
    }
    assert_eq!(
        place.run("api -add your.domain -allowWeb", "YES\n").unwrap(),
        "WARNING: adding the API will have an immediate impact on your apps in production.\n\
         ATTENTION: If you wish to continue then please type YES and return: \
         added API domain your.domain with type:account, alg:HS256, web:allowed\n"
    );
}

#[test]
fn comments_and_order_survive_edits() {
    let place = Place::new("comments");
    let text = "# The service of Example Ltd.
listen = \"0.0.0.0:443\" # all interfaces

[[account]] # the only one
# never show this
secret = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"
site_key = \"k\"
token_lifetime = 60 # short

# The shop.
[[account.api]]
domain = \"shop.example\"
allow_web = false # not yet

[account.hcaptcha]
# both sites
site = [{ site_key = \"h\", secret = \"s\" }]
";
    fs::write(place.file(), text).unwrap();
    place.ok("web -setTokenLifetime 90");
    assert_eq!(place.text(), text.replace("token_lifetime = 60", "token_lifetime = 90"));
    place.ok("api -add SHOP.example -allowWeb");
    let after = place.text();
    for comment in [
        "# The service of Example Ltd.",
        "# all interfaces",
        "# never show this",
        "# short",
        "# The shop.",
        "# not yet",
    ] {
        assert!(after.contains(comment), "{comment} in\n{after}");
    }
    assert!(after.contains("allow_web = true # not yet"), "{after}");
    place.ok("web -hcaptcha -add h2 -secret s2");
    let config = Config::parse(&place.text()).unwrap();
    let sites = config.accounts["k"].sites(approov_web_service::check::Provider::Hcaptcha).unwrap();
    assert_eq!(sites.keys().collect::<Vec<_>>(), ["h", "h2"], "{}", place.text());
}

#[test]
fn adding_again_overwrites_all_properties() {
    let place = Place::new("again");
    place.ok("account -add k");
    place.ok("web -recaptcha -add r -secret s -minScore 0.5 -action a -domain d -embedResult -includeIP");
    place.ok("web -recaptcha -add r -secret t -minScore 0.7");
    let listed = place.ok("web -recaptcha -list");
    assert_eq!(
        listed,
        "reCAPTCHA:\n  Optional: true\n  Site Key: r\n    Min Score: 0.70\n    Include IP: false\n    \
         Embed Result: false\n    Max Result Lifetime: 0s\n\
         WARNING: reCAPTCHA site r accepts results of any domain (domains is empty)\n"
    );
    place.ok("api -add d -allowWeb -jwe");
    assert!(place.ok("api -list").contains("jwe:A256GCMKW"));
    assert_eq!(place.ok("api -add d"), "added API domain d with type:account, alg:HS256, web:not allowed\n");
}

#[test]
fn requirements_origins_and_removals() {
    let place = Place::new("more");
    place.ok("account -add k");
    place.ok("web -hcaptcha -add h -secretEnv PATH");
    assert_eq!(place.ok("web -hcaptcha -setRequired"), "hcaptcha is now required\n");
    assert!(place.ok("web -list").contains("Optional: false"));
    assert_eq!(place.ok("web -hcaptcha -setOptional"), "hcaptcha is now optional\n");
    assert_eq!(place.ok("web -allowOrigin *.example.com"), "pages of 1 origin are allowed\n");
    assert_eq!(place.ok("web -disallowOrigin *.example.com"), "pages of any origin are allowed\n");
    assert_eq!(place.ok("web -hcaptcha -remove h"), "hcaptcha site h removed\n");
    place.ok("api -add a.example");
    assert_eq!(place.ok("api -remove A.example"), "removed API domain A.example\n");
    assert!(matches!(place.run("api -remove a.example", ""), Err(Failure::Refused(_))));
}

#[test]
fn example_tokens_check_out_in_every_form() {
    let place = Place::new("token");
    place.ok("account -add k");
    place.ok("keyset -add ES256 -kid e1");
    place.ok("keyset -add RS256 -kid r1");
    let listed = place.ok("keyset -list");
    assert!(
        listed.starts_with("e1 alg:ES256\nr1 alg:RS256\nNOTE: a public key also tells the tokens of failed checks"),
        "{listed}"
    );
    assert!(place.ok("keyset -getPublic r1").starts_with("-----BEGIN PUBLIC KEY-----\n"));
    for (domain, options) in [
        ("hs.example", ""),
        ("es.example", "-keySetKID e1"),
        ("rs.example", "-keySetKID r1"),
        ("jwe.example", "-jwe"),
        ("both.example", "-jwe -keySetKID e1"),
    ] {
        place.ok(&format!("api -add {domain} -allowWeb {options}"));
        let token = place.ok(&format!("token -genExample {domain} -setDataHashInToken abc"));
        let parts = token.trim().split('.').count();
        assert_eq!(parts, if options.contains("-jwe") { 5 } else { 3 }, "{domain}");
        let checked = place.ok(&format!("token -check {token}"));
        assert!(checked.starts_with("valid: {\"arc\":"), "{domain}: {checked}");
        // SHA-256 of "abc", FIPS 180-2 appendix B.1.
        assert!(checked.contains("\"pay\":\"ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=\""), "{checked}");
        let token = place.ok(&format!("token -genExample {domain} -type invalid"));
        let refused = place.run(&format!("token -check {token}"), "");
        assert_eq!(
            refused,
            Err(Failure::Refused("invalid: the token's signature does not match".to_owned())),
            "{domain}"
        );
    }
    assert!(matches!(place.run("token -check nonsense", ""), Err(Failure::Refused(_))));
    let secret = place.ok("secret -get base64");
    assert!(place.text().contains(secret.trim()));
    assert!(!place.ok("secret -get base64url").contains(['+', '/', '=']));
}

#[test]
fn a_configuration_is_checked_before_it_is_served() {
    let place = Place::new("check");
    assert!(
        matches!(place.run("config -check", ""), Err(Failure::Refused(message)) if message.contains("No such file"))
    );
    place.ok("account -add k");
    match place.run("config -check", "") {
        Err(Failure::Refused(message)) => {
            assert!(message.contains("public_urls = [\"https://web.example.com\"]"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    fs::write(place.file(), format!("public_urls = [\"https://web.example.com\"]\n{}", place.text())).unwrap();
    place.ok("api -add a.example -allowWeb");
    place.ok("web -hcaptcha -add h -secret s -domain other.example");
    place.ok("web -allowOrigin https://app.example.com");
    fs::set_permissions(place.file(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let checked = place.ok("config -check");
    let file = place.file().display().to_string();
    assert_eq!(
        checked.lines().collect::<Vec<_>>(),
        [
            &format!("{file} can be served: 1 account"),
            "WARNING: the file holds secrets, and its mode 0644 is for more than its owner: chmod 600",
            "WARNING: browsers come through a proxy, since listen is a loopback address, and trusted_proxies is empty: the \
             claim ip is the proxy's",
            "WARNING: account k: hCaptcha site h fails every result: no page of allowed_origins is on one of its domains",
            "WARNING: account k: hCaptcha site h accepts any score (min_score is 0)",
        ]
    );
    fs::write(place.file(), format!("tls_cert = \"none.pem\"\ntls_key = \"none.pem\"\n{}", place.text())).unwrap();
    assert!(place.ok("config -check").contains("WARNING: none.pem: No such file"), "it may be another machine's");
    let kept = place.text().replace("secret = \"s\"", "secret_env = \"UNSET_OF_CHECK\"");
    fs::write(place.file(), kept).unwrap();
    assert!(place.ok("config -check").contains("the environment variable UNSET_OF_CHECK is not set: on this machine"));
    let text = place.text();
    let without: String =
        text.lines().filter(|line| !line.starts_with("session_secret")).map(|line| format!("{line}\n")).collect();
    fs::write(place.file(), &without).unwrap();
    assert!(
        matches!(place.run("config -check", ""), Err(Failure::Refused(message)) if message.contains("config -migrate"))
    );
    fs::write(place.file(), text).unwrap();
    fs::write(place.file(), format!("listen = 7\n{}", place.text())).unwrap();
    assert!(
        matches!(place.run("config -check", ""), Err(Failure::Refused(message)) if message.contains("line 1, column 10"))
    );
}

#[test]
fn secrets_are_staged_then_active_then_retired() {
    let place = Place::new("rotate");
    place.ok("account -add k");
    place.ok("api -add a.example -jwe");
    for options in ["", "-jwe"] {
        let get = |more: &str| place.ok(&format!("secret -get base64 {options} {more}"));
        let old = get("");
        let refused = |line: &str, word: &str| match place.run(&format!("secret {line} {options}"), "YES\n") {
            Err(Failure::Refused(message)) => assert!(message.contains(word), "{line}: {message}"),
            other => panic!("{line}: {other:?}"),
        };
        refused("-activate", "-rotate");
        refused("-retire", "no old");
        let said = place.ok(&format!("secret -rotate {options}"));
        assert!(said.contains("-get base64 -staged") && said.contains("secret -activate"), "{said}");
        refused("-rotate", "staged already");
        let staged = get("-staged");
        assert_eq!(get(""), old, "staged is not in force");
        assert_eq!(staged.trim().len(), old.trim().len());
        let before = place.text();
        assert!(matches!(place.run(&format!("secret -activate {options}"), "no\n"), Err(Failure::Refused(_))));
        assert_eq!(place.text(), before);
        // Tokens of both are good while both are known.
        let old_token = place.ok("token -genExample a.example");
        place.ok(&format!("secret -activate {options}"));
        assert_eq!(get(""), staged);
        place.ok(&format!("token -check {old_token}"));
        assert!(place.text().contains("until = "), "the old one ends by itself");
        place.ok(&format!("secret -retire {options}"));
        assert_eq!(get(""), staged);
        assert!(matches!(place.run(&format!("token -check {old_token}"), ""), Err(Failure::Refused(_))));
    }
    place.ok("secret -rotate -secretFile /run/secrets/next");
    assert!(place.text().contains("{ file = \"/run/secrets/next\", from = 9999-12-31T23:59:59Z }"), "{}", place.text());
    place.ok("secret -retire -staged");
    assert!(!place.text().contains("9999"), "{}", place.text());
}

#[test]
fn the_session_secret_is_never_shown() {
    let place = Place::new("session-secret");
    place.ok("account -add k");
    let secret = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("session_secret = \"")).unwrap();
        line.trim_end_matches('"').to_owned()
    };
    let secret = secret(&place.text());
    assert!(
        matches!(place.run("secret -get base64 -session", ""), Err(Failure::Usage(message)) if message.contains("only the service"))
    );
    let lines = ["web -list", "account -list", "secret -get base64", "secret -rotate -session", "config -migrate"];
    let said = lines.map(|line| place.ok(line)).concat();
    assert!(!said.contains(&secret), "{said}");
    assert!(place.text().contains(&format!("{{ value = \"{secret}\", until = ")), "{}", place.text());
}

#[test]
fn a_key_is_rotated_and_takes_its_apis_over() {
    let place = Place::new("keys");
    place.ok("account -add k");
    place.ok("keyset -add ES256 -kid one");
    place.ok("keyset -add RS256 -kid other");
    place.ok("api -add a.example -keySetKID one");
    place.ok("api -add b.example -keySetKID other");
    let said = place.ok("keyset -rotate one -kid two");
    assert!(said.contains("keyset -activate two"), "{said}");
    assert!(place.ok("keyset -list").contains("two alg:ES256, staged to replace one\n"));
    assert!(place.ok("api -list").contains("a.example with type:keyset, alg:ES256, kid:one"));
    for (line, word) in [
        ("keyset -rotate one", "staged already"),
        ("keyset -rotate none", "none"),
        ("keyset -activate one", "not staged"),
        ("keyset -activate none", "none"),
        ("keyset -remove one", "one"),
    ] {
        match place.run(line, "YES\n") {
            Err(Failure::Refused(message)) => assert!(message.contains(word), "{line}: {message}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    assert!(place.ok("keyset -activate two").contains("key two signs for a.example"));
    let listed = place.ok("api -list");
    assert!(listed.contains("alg:ES256, kid:two") && listed.contains("alg:RS256, kid:other"), "{listed}");
    place.ok("keyset -remove one");
    assert!(!place.text().contains("replaces"), "{}", place.text());
}

#[test]
fn keys_that_begin_with_a_dash_are_keys() {
    let place = Place::new("dash");
    assert_eq!(place.ok("account -add=-one"), "added account with site key -one\n");
    // Everything behind the two dashes is an operand, so the options come first.
    let file = place.file().display().to_string();
    let added = run_words(&["account", "-config", &file, "-add", "--", "-two"]).unwrap();
    assert_eq!(added, "added account with site key -two\n");
    match run_words(&["account", "-add", "-three", "-config", &file]) {
        Err(Failure::Usage(message)) => assert!(message.ends_with("account -add -- -three"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(place.ok("web -hcaptcha -add -key -secret -s -account -one"), "hcaptcha site -key added\n");
    assert_eq!(place.ok("web -hcaptcha -remove=-key -account=-one"), "hcaptcha site -key removed\n");
    assert!(matches!(place.run("account -list=all", ""), Err(Failure::Usage(message)) if message.contains("no value")));
}

#[test]
fn a_token_that_was_copied_with_its_end_of_line_is_checked() {
    let place = Place::new("newline");
    place.ok("account -add k");
    place.ok("api -add a.example -allowWeb");
    let token = place.ok("token -genExample a.example");
    assert!(token.ends_with('\n'));
    let file = place.file().display().to_string();
    for copied in [token.clone(), format!(" {token}\r\n")] {
        let checked = run_words(&["token", "-check", &copied, "-config", &file]).unwrap();
        assert!(checked.starts_with("valid: "), "{checked}");
    }
}

#[test]
fn names_of_any_script_are_domains() {
    let place = Place::new("idn");
    place.ok("account -add k");
    assert!(place.ok("api -add bücher.example -allowWeb").starts_with("added API domain bücher.example with "));
    place.ok("api -add XN--bcher-kva.example");
    assert_eq!(place.ok("api -list"), "xn--bcher-kva.example with type:account, alg:HS256, web:not allowed\n");
    place.ok("token -genExample BÜCHER.example");
    place.ok("api -remove Bücher.example");
    assert_eq!(place.ok("api -list"), "");
}

#[test]
fn revoked_sessions_are_listed_until_they_would_have_ended() {
    let place = Place::new("revoked");
    place.ok("account -add k");
    let (session, key) = ("AQEBAQEBAQEBAQEBAQEBAQ", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE");
    place.ok(&format!("session -revoke {session}"));
    place.ok(&format!("session -revoke {key}"));
    place.ok(&format!("session -revoke {session}"));
    let listed = place.ok("session -list");
    let lines: Vec<&str> = listed.lines().map(|line| line.split_once(" until ").unwrap().0).collect();
    assert_eq!(lines, [format!("session {session}"), format!("key {key}")]);
    assert!(place.text().contains(&format!("    {{ key = \"{key}\", until = ")), "{}", place.text());
    // What has ended goes with the next edit.
    let text = place.text();
    let until = text.split_once("until = ").unwrap().1.split_once(' ').unwrap().0;
    fs::write(place.file(), text.replace(until, "2026-01-01T00:00:00Z")).unwrap();
    assert!(!place.ok("session -list").contains("2026-01-01"));
    place.ok("session -revoke BQUFBQUFBQUFBQUFBQUFBQ");
    assert!(!place.text().contains("2026-01-01"), "{}", place.text());
    place.ok("session -revokeAll");
    let listed = place.ok("session -list");
    assert!(listed.starts_with("every session that began before ") && listed.lines().count() == 1, "{listed}");
    for bad in ["session -revoke nonsense", "session -revoke AAAA", "session"] {
        assert!(matches!(place.run(bad, "YES\n"), Err(Failure::Usage(_))), "{bad}");
    }
}

#[test]
fn no_more_sessions_are_listed_than_every_replica_can_hold() {
    let place = Place::new("many");
    place.ok("account -add k");
    let id = |n: u32| approov_web_service::session::SessionId::from_bytes(u128::from(n).to_be_bytes());
    let entries = |count: u32| -> String {
        (0..count).map(|n| format!("    {{ session = \"{}\", until = 2999-01-01T00:00:00Z }},\n", id(n))).collect()
    };
    let before = place.text();
    let with =
        |count: u32| before.replace("[[account]]\n", &format!("[[account]]\nrevoked = [\n{}]\n", entries(count)));
    fs::write(place.file(), with(10_000)).unwrap();
    assert_eq!(place.ok("session -list").lines().count(), 10_000);
    match place.run(&format!("session -revoke {}", id(10_000)), "YES\n") {
        Err(Failure::Refused(message)) => assert!(message.contains("-revokeAll"), "{message}"),
        other => panic!("{other:?}"),
    }
    let error = Config::parse(&with(10_001)).unwrap_err();
    assert!(error.message.contains("not_before"), "{error}");
}

#[test]
fn times_may_have_a_unit() {
    let place = Place::new("times");
    place.ok("account -add k");
    for (written, elapsed, lifetime) in
        [("2", "2.00s", "2s"), ("1500ms", "1.50s", "2s"), ("2.5s", "2.50s", "3s"), ("10m", "600.00s", "600s")]
    {
        place.ok(&format!("web -fingerprint -add f -secret s -maxElapsedTime {written} -maxResultLifetime {written}"));
        let listed = place.ok("web -list");
        assert!(listed.contains(&format!("Max Elapsed Time: {elapsed}\n")), "{written}: {listed}");
        assert!(listed.contains(&format!("Max Result Lifetime: {lifetime}\n")), "{written}: {listed}");
    }
    for bad in ["soon", "-1", "2d", "ms", "1e99"] {
        let line = format!("web -fingerprint -add f -secret s -maxElapsedTime {bad}");
        assert!(matches!(place.run(&line, "YES\n"), Err(Failure::Usage(_))), "{bad}");
    }
}

#[test]
fn mistakes_are_named_and_change_nothing() {
    let place = Place::new("mistakes");
    assert!(matches!(place.run("api -list", ""), Err(Failure::Refused(message)) if message.contains("account -add")));
    place.ok("account -add k");
    let before = place.text();
    for (line, word) in [
        ("api", "-add"),
        ("api -add a -remove b", "at once"),
        ("api -add a -colour red", "-colour"),
        ("api -add https://a", "domain"),
        ("api -add a -keySetKID none", "none"),
        ("web -add k -secret s", "-hcaptcha"),
        ("web -hcaptcha -add k", "-secret"),
        ("web -hcaptcha -fingerprint -list", "one check service"),
        ("web -hcaptcha -add k -secret s -minScore high", "0 to 1"),
        ("web -hcaptcha -add k -secret s -minScore 1.5", "between 0 and 1"),
        ("web -fingerprint -add k -secret s -region US", "RoW"),
        ("web -setTokenLifetime soon", "seconds"),
        ("web -setTokenLifetime 0", "lifetime"),
        ("web -allowOrigin example.com", "origin"),
        ("keyset -add HS256", "RS256 or ES256"),
        ("secret -get hex", "base64"),
        ("api -list -account other", "other"),
        ("account -add k", "already"),
    ] {
        match place.run(line, "YES\n") {
            Err(Failure::Usage(message) | Failure::Refused(message)) => {
                assert!(message.contains(word), "{line}: {message}");
            }
            Ok(output) => panic!("{line}: {output}"),
            Err(Failure::Unread) => panic!("{line}"),
        }
        assert_eq!(place.text(), before, "{line}");
    }
    place.ok("account -add second");
    assert!(matches!(place.run("api -list", ""), Err(Failure::Refused(message)) if message.contains("-account")));
    place.ok("api -add only-second -allowWeb -account second");
    assert!(place.ok("api -list -account second").starts_with("only-second"));
    assert_eq!(place.ok("api -list -account k"), "");
}

#[test]
fn a_broken_file_is_refused_with_line_and_column() {
    let place = Place::new("broken");
    fs::write(place.file(), "listen = \"127.0.0.1:1\"\n[[account]]\nsite_key = 7\n").unwrap();
    match place.run("web -list -account x", "") {
        Err(Failure::Refused(_)) => {}
        other => panic!("{other:?}"),
    }
    let error = Config::parse(&place.text()).unwrap_err();
    assert_eq!(error.position, Some((3, 12)));
}

#[test]
fn an_account_is_removed_when_that_is_confirmed() {
    let place = Place::new("remove");
    place.ok("account -add one");
    place.ok("account -add two");
    place.ok("api -add a.example -allowWeb -account one");
    assert!(matches!(place.run("account -remove one", "no\n"), Err(Failure::Refused(_))));
    assert_eq!(place.ok("account -list"), "one\ntwo\n");
    assert_eq!(place.ok("account -remove one"), "removed account with site key one\n");
    assert_eq!(place.ok("account -list"), "two\n");
    assert!(!place.text().contains("a.example"), "{}", place.text());
    assert!(
        matches!(place.run("account -remove one -y", ""), Err(Failure::Refused(message)) if message == "there is no account one")
    );
    assert!(matches!(place.run("account -remove two three -y", ""), Err(Failure::Usage(_))));
}

#[test]
fn a_misspelt_option_is_told() {
    let place = Place::new("misspelt");
    place.ok("account -add k");
    let told = place.run("web -hcapcha -list", "");
    assert_eq!(told, Err(Failure::Usage("web has no option -hcapcha: did you mean -hcaptcha?".to_owned())));
}

#[test]
fn help_is_asked_for_and_mistakes_are_short() {
    use std::process::{Command, Stdio};
    let run = |words: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_approov-web-service")).args(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    };
    for words in [&["help"][..], &["--help"], &["-h"]] {
        let (code, said, mistakes) = run(words);
        assert!(code == 0 && said.contains("Exit codes:") && mistakes.is_empty(), "{words:?} {said}");
    }
    for words in [&["help", "web"][..], &["web", "--help"], &["web", "-hcaptcha", "-h"], &["--help", "web"]] {
        let (code, said, _) = run(words);
        assert!(
            code == 0 && said.starts_with("approov-web-service web") && !said.contains("keyset"),
            "{words:?} {said}"
        );
    }
    for (words, told) in [
        (&["sevre"][..], "there is no command sevre: did you mean serve?\nSee approov-web-service help\n"),
        (&["help", "nonsense"], "there is no command nonsense\nSee approov-web-service help\n"),
        (
            &["serve", "--dev-tsl"],
            "serve has no option -dev-tsl: did you mean -dev-tls?\nSee approov-web-service help serve\n",
        ),
        (&[], "which command?\nSee approov-web-service help\n"),
        (&["--config", "x"], "there is no option -config before a command\nSee approov-web-service help\n"),
    ] {
        assert_eq!(run(words), (2, String::new(), format!("approov-web-service: {told}")), "{words:?}");
    }
    // Whoever reads the first line and goes is no reason for a complaint.
    let mut child = Command::new("sh")
        .args(["-c", "\"$0\" help | true", env!("CARGO_BIN_EXE_approov-web-service")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut complaints = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut complaints).unwrap();
    assert!(child.wait().unwrap().success() && complaints.is_empty(), "{complaints}");
}
