//! What a sound configuration allows, or can never do, that its author may not have meant.

use approov_verify::time::UnixTime;

use crate::check::{CaptchaRules, Check, Mode, Provider, SiteKind};
use crate::host::is_loopback;
use crate::time::rfc3339;

use super::{Account, Certificate, Config, PublicUrl, TrustedProxies};

/// How long before its end a certificate is worth a word, seconds.
const CERTIFICATE_NOTICE: i64 = 3 * 86_400;

/// What surrounds a configuration, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// When it is looked at.
    pub now: UnixTime,
    /// Mode of the file.
    pub mode: Option<u32>,
    /// The certificate that the file names.
    pub certificate: Option<&'a Certificate>,
}

impl Config {
    /// Everything that is worth a word.
    pub fn warnings(&self, around: &Surroundings<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(mode) = around.mode.filter(|mode| mode & 0o077 != 0) {
            let mode = mode & 0o777;
            warnings
                .push(format!("the file holds secrets, and its mode {mode:04o} is for more than its owner: chmod 600"));
        }
        if self.accounts.is_empty() {
            warnings.push("there is no account: every request is refused (account -add)".to_owned());
        }
        self.warn_of_proxies(&mut warnings);
        self.warn_of_urls(around, &mut warnings);
        if self.limits.request <= self.limits.check {
            warnings.push(
                "request_seconds is not more than check_seconds: a slow check service uses results up for nothing"
                    .to_owned(),
            );
        }
        warnings.extend(self.limits.warnings().into_iter().map(str::to_owned));
        for account in self.accounts.values() {
            let site_key = &account.site_key;
            warnings.extend(account.warnings().into_iter().map(|warning| format!("account {site_key}: {warning}")));
        }
        warnings
    }

    /// What is as its author meant it, and worth knowing when the service starts.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (key, account) in &self.accounts {
            notes.extend(account.weakest().map(|set| format!("account {key}: for a token suffices {set}")));
            for (site, rules) in account.hcaptcha_rules().filter(|(_, rules)| rules.min_score.unwrap_or(0.0) > 0.0) {
                let least = rules.min_score.unwrap_or(0.0);
                notes.push(format!(
                    "account {key}: hCaptcha site {site} passes scores of a person from {least} (1 - hCaptcha's score, which is of a threat)"
                ));
            }
        }
        notes
    }

    fn warn_of_proxies(&self, warnings: &mut Vec<String>) {
        match &self.trusted_proxies {
            TrustedProxies::Count(count) => warnings.push(format!(
                "trusted_proxies = {count} believes whoever reaches this service: name the proxies' networks instead, \
                 such as [\"10.0.0.0/8\"]"
            )),
            TrustedProxies::Networks(networks) => {
                for network in networks.iter().filter(|network| network.prefix_len() == 0) {
                    warnings.push(format!("trusted_proxies has {network}: everybody may choose an address"));
                }
                let elsewhere = |url: &PublicUrl| !is_loopback(url.host());
                if networks.is_empty() && self.listen.ip().is_loopback() && self.public_urls.iter().any(elsewhere) {
                    warnings.push(
                        "browsers come through a proxy, since listen is a loopback address, and trusted_proxies is \
                         empty: the claim ip is the proxy's"
                            .to_owned(),
                    );
                }
            }
        }
    }

    fn warn_of_urls(&self, around: &Surroundings<'_>, warnings: &mut Vec<String>) {
        for url in &self.public_urls {
            if !url.is_https() && !is_loopback(url.host()) {
                warnings.push(format!(
                    "{url} is not https: tokens can be read on their way, and browsers have no WebCrypto"
                ));
            }
        }
        let Some(certificate) = around.certificate else { return };
        for url in self.public_urls.iter().filter(|url| url.is_https() && !certificate.covers(url.host())) {
            warnings.push(format!(
                "the certificate is not for {}, only for {}",
                url.host(),
                certificate.names.join(", ")
            ));
        }
        let (from, until, now) = (certificate.not_before, certificate.not_after, around.now);
        if now < from {
            warnings.push(format!("the certificate is not good before {}", rfc3339(from)));
        } else if now > until {
            warnings.push(format!("the certificate expired on {}: browsers refuse it", rfc3339(until)));
        } else if until.as_secs() - now.as_secs() < CERTIFICATE_NOTICE {
            warnings.push(format!("the certificate expires on {}", rfc3339(until)));
        }
    }
}

impl Account {
    fn hcaptcha_rules(&self) -> impl Iterator<Item = (&str, &CaptchaRules)> {
        let sites = self.checks.values().flat_map(|check| &check.sites);
        sites.filter_map(|(key, site)| match &site.kind {
            SiteKind::Hcaptcha(site) => Some((key.as_str(), &site.rules)),
            _ => None,
        })
    }

    /// What is worth a word about the account as a whole, then about its sites.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.allowed_origins.is_empty() {
            warnings.push("pages of any origin may use it (web -allowOrigin)".to_owned());
        }
        if !self.apis.values().any(|api| api.allow_web) {
            warnings
                .push("it has no API for web tokens: every request is refused (api -add DOMAIN -allowWeb)".to_owned());
        }
        if self.checks.values().all(|check| check.sites.is_empty()) {
            warnings.push("it has no check service: every request is refused (web -add)".to_owned());
        }
        if self.token_lifetime > self.refresh_token_lifetime {
            warnings
                .push("token_lifetime is more than refresh_token_lifetime: tokens outlive their session".to_owned());
        }
        let has_required = self.checks.values().any(|check| check.required && check.mode == Mode::Enforce);
        let weakest = self.weakest().filter(|_| !has_required);
        warnings.extend(weakest.map(|set| format!("for a token suffices {set} (-setRequired, -anyOf)")));
        for provider in Provider::ALL {
            warnings.extend(self.warnings_about(provider));
        }
        warnings
    }

    /// The weakest set of checks that suffices for a token; `None` where there is but one check.
    pub fn weakest(&self) -> Option<String> {
        let names = |wanted: &dyn Fn(Provider, &Check) -> bool| -> Vec<&str> {
            let with_sites = self.checks.iter().filter(|(_, check)| !check.sites.is_empty());
            with_sites
                .filter(|(provider, check)| wanted(**provider, check))
                .map(|(provider, _)| provider.name())
                .collect()
        };
        let all = names(&|_, _| true);
        let enforced = names(&|provider, _| self.enforces(provider));
        let required = names(&|provider, check| check.required && self.enforces(provider)).join(" and ");
        let any_of: Vec<&str> = self.any_of.iter().map(|provider| provider.name()).collect();
        let any_of = any_of.join(", ");
        match (required.is_empty(), any_of.is_empty()) {
            _ if enforced.is_empty() && !all.is_empty() => {
                Some("nothing, since every check is only watched".to_owned())
            }
            _ if all.len() < 2 => None,
            (true, true) if enforced.len() == 1 => Some(format!("{} alone", enforced.join(", "))),
            (true, true) => Some(format!("any one of {}", enforced.join(", "))),
            (true, false) => Some(format!("any one of {any_of}")),
            (false, true) => Some(required),
            (false, false) => Some(format!("{required} and any one of {any_of}")),
        }
    }

    /// What is worth a word about a check service.
    pub fn warnings_about(&self, provider: Provider) -> Vec<String> {
        let Some(check) = self.checks.get(&provider) else { return Vec::new() };
        let definition = provider.definition();
        let (name, noun) = (definition.display_name, definition.site_noun);
        let mut warnings = Vec::new();
        if check.mode == Mode::Monitor {
            warnings.push(format!("{name} is only watched: results that do not meet its rules pass (mode is monitor)"));
        }
        if check.required && check.mode == Mode::Enforce && check.sites.is_empty() {
            warnings.push(format!("{name} is required and has no {noun}: every request is refused"));
        }
        for (key, site) in &check.sites {
            if definition.test_keys.contains(&key.as_str()) {
                warnings.push(format!("{name} {noun} {key} is a key that {name} publishes for tests: scripts pass"));
            }
            let of_site = site.kind.warnings(&self.allowed_origins);
            warnings.extend(of_site.into_iter().map(|warning| format!("{name} {noun} {key} {warning}")));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

    fn warnings(text: &str) -> Vec<String> {
        let around = Surroundings { now: NOW, mode: Some(0o100_600), certificate: None };
        Config::parse(text).unwrap().warnings(&around)
    }

    fn account(top: &str, more: &str) -> String {
        let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        format!("{top}\n[[account]]\nsite_key = \"k\"\nsecret = \"{secret}\"\n{more}")
    }

    const SOUND: &str = r#"
allowed_origins = ["https://app.example.com"]
[[account.api]]
domain = "a.example"
allow_web = true
[account.hcaptcha]
required = true
[[account.hcaptcha.site]]
site_key = "h"
secret = "s"
domains = ["example.com"]
min_score = 0.5
[[account.fingerprint.subscription]]
public_api_key = "f"
secret = "s"
max_bot_probability = 0.5
"#;

    #[test]
    fn a_configuration_that_says_what_it_means_is_not_talked_about() {
        assert_eq!(warnings(&account("public_urls = [\"http://localhost:8087\"]", SOUND)), Vec::<String>::new());
    }

    #[test]
    fn what_suffices_and_which_way_scores_go_is_said_at_the_start() {
        assert_eq!(
            Config::parse(&account("", SOUND)).unwrap().notes(),
            [
                "account k: for a token suffices hcaptcha",
                "account k: hCaptcha site h passes scores of a person from 0.5 (1 - hCaptcha's score, which is of a threat)",
            ]
        );
    }

    #[test]
    fn a_key_for_tests_is_named() {
        for (table, key, name) in [
            ("hcaptcha", "10000000-ffff-ffff-ffff-000000000001", "hCaptcha"),
            ("recaptcha", "6LeIxAcTAAAAAJcZVRqyHh71UMIEGNQ_MXjiZKhI", "reCAPTCHA"),
            ("turnstile", "1x00000000000000000000AA", "Turnstile"),
        ] {
            let text = account("", &format!("[[account.{table}.site]]\nsite_key = \"{key}\"\nsecret = \"s\"\n"));
            let expected =
                format!("account k: {name} site {key} is a key that {name} publishes for tests: scripts pass");
            assert!(warnings(&text).contains(&expected), "{table}: {:?}", warnings(&text));
        }
    }

    #[test]
    fn the_specifications_defaults_are_named() {
        let bare = account(
            "",
            "[[account.api]]\ndomain = \"a\"\nallow_web = true\n\
             [[account.hcaptcha.site]]\nsite_key = \"h\"\nsecret = \"s\"\n\
             [[account.recaptcha.site]]\nsite_key = \"r\"\nsecret = \"s\"\n\
             [[account.fingerprint.subscription]]\npublic_api_key = \"f\"\nsecret = \"s\"\n",
        );
        assert_eq!(
            warnings(&bare),
            [
                "account k: pages of any origin may use it (web -allowOrigin)",
                "account k: for a token suffices any one of fingerprint, hcaptcha, recaptcha (-setRequired, -anyOf)",
                "account k: Fingerprint subscription f accepts any bot probability (max_bot_probability is 1)",
                "account k: hCaptcha site h accepts results of any domain (domains is empty)",
                "account k: hCaptcha site h accepts any score (min_score is 0)",
                "account k: reCAPTCHA site r accepts results of any domain (domains is empty)",
                "account k: reCAPTCHA site r accepts any score (min_score is 0)",
            ]
        );
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (text, expected) in [
            (String::new(), "no account"),
            (account("trusted_proxies = 1", SOUND), "networks"),
            (account("trusted_proxies = [\"0.0.0.0/0\"]", SOUND), "everybody"),
            (account("public_urls = [\"https://web.example.com\"]", SOUND), "claim ip"),
            (account("public_urls = [\"http://web.example.com\"]\nlisten = \"0.0.0.0:80\"", SOUND), "not https"),
            (account("limits = { request_seconds = 5 }", SOUND), "request_seconds"),
            (account("limits = { failed_checks = 0 }", SOUND), "limits.failed_checks is 0"),
            (account("", &SOUND.replace("allow_web = true", "")), "no API for web"),
            (account("", "[[account.api]]\ndomain = \"a\"\nallow_web = true\n"), "no check service"),
            (account("", &format!("token_lifetime = 9000\n{SOUND}")), "outlive"),
            (account("", &format!("{SOUND}[account.recaptcha]\nrequired = true\n")), "reCAPTCHA is required"),
            (account("", &SOUND.replace("\"example.com\"", "\"example.org\"")), "no page of allowed_origins"),
            (account("", &SOUND.replace("\"example.com\"", "\"https://example.com\"")), "never the host"),
        ] {
            let found = warnings(&text);
            assert_eq!(found.iter().filter(|warning| warning.contains(expected)).count(), 1, "{text}: {found:?}");
        }
    }

    #[test]
    fn a_file_for_many_eyes_and_a_certificate_for_another_time_or_name_are_named() {
        let config =
            Config::parse(&account("public_urls = [\"https://web.example.com\"]\nlisten = \"0.0.0.0:443\"", SOUND))
                .unwrap();
        let day = |days: i64| UnixTime::from_secs(NOW.as_secs() + days * 86_400);
        let certificate = |from: i64, until: i64, name: &str| Certificate {
            names: vec![name.to_owned()],
            not_before: day(from),
            not_after: day(until),
        };
        for (mode, certificate, expected) in [
            (0o600, certificate(-1, 90, "web.example.com"), None),
            (0o600, certificate(-1, 90, "*.example.com"), None),
            (0o640, certificate(-1, 90, "web.example.com"), Some("mode 0640")),
            (0o100_644, certificate(-1, 90, "web.example.com"), Some("mode 0644")),
            (0o600, certificate(1, 90, "web.example.com"), Some("not good before 2026-09-22")),
            (0o600, certificate(-90, -1, "web.example.com"), Some("expired on 2026-09-20")),
            (0o600, certificate(-90, 2, "web.example.com"), Some("expires on 2026-09-23")),
            (0o600, certificate(-1, 90, "example.com"), Some("not for web.example.com, only for example.com")),
        ] {
            let around = Surroundings { now: NOW, mode: Some(mode), certificate: Some(&certificate) };
            let found = config.warnings(&around);
            match expected {
                None => assert_eq!(found, Vec::<String>::new()),
                Some(expected) => assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}"),
            }
        }
    }
}
