//! The documents say what is so.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use approov_verify::dpop::Proof;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use approov_web_service::config::Config;
use approov_web_service::secrets::Timeline;
use approov_web_service::session::{NonceKeys, RefreshKeys};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

const PROTOCOL: &str = include_str!("../../docs/PROTOCOL.md");
const SERVICE: &str = include_str!("../../docs/SERVICE.md");

const SESSION_SECRET: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

fn secret() -> Secret {
    Secret::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
}

#[test]
fn the_recorded_exchange_verifies() {
    let proofs: Vec<Proof> = PROTOCOL
        .lines()
        .filter_map(|line| line.strip_prefix("dpop: "))
        .map(|proof| Proof::parse(proof).unwrap())
        .collect();
    assert!(proofs.len() >= 4);
    let response: Value = PROTOCOL
        .lines()
        .find(|line| line.starts_with("{\"tokens\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .unwrap();
    let token = response["tokens"]["api.example.com"].as_str().unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret().as_bytes());
    hmac::verify(&key, message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let thumbprint = proofs[0].thumbprint().to_string();
    assert!(PROTOCOL.contains(&format!("\"jkt\": \"{thumbprint}\"")));
    let then = UnixTime::from_millis(response["server-time"].as_i64().unwrap());
    let refresh_token = response["refresh-token"].as_str().unwrap();
    let session_secret = Timeline::from(Secret::from_base64(SESSION_SECRET).unwrap());
    let keys = RefreshKeys::derive(&session_secret, "dev-approov-site-key").unwrap();
    let session = keys.open(refresh_token, &thumbprint, then).unwrap();
    assert_eq!(session.expiry(), response["expiries"]["session"].as_i64().unwrap());
    let nonces = NonceKeys::derive(&session_secret).unwrap();
    for nonce in PROTOCOL.lines().filter_map(|line| line.strip_prefix("dpop-nonce: ")) {
        assert!(nonces.check(nonce, then).is_some(), "{nonce}");
    }
}

#[test]
fn the_documented_configuration_is_accepted_and_shows_the_defaults() {
    let block = |start: &str| {
        let text = SERVICE.split_once(start).unwrap().1;
        text.split_once("```").unwrap().0.to_owned()
    };
    let text = block("defaults in the comments. Times are seconds.\n\n```toml\n");
    let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.limits, approov_web_service::config::Limits::default());
    let account = &config.accounts["your-Approov-site-key"];
    assert_eq!(account.checks.len(), 4);
    // What is shown as the default is the default.
    let shown = format!("{:?}", account.checks);
    let bare: String = text
        .lines()
        .filter(|line| {
            ![
                "required",
                "mode",
                "min_score",
                "include_ip",
                "embed_result",
                "max_result_lifetime",
                "rate_limit",
                "verify_url",
                "region",
                "max_elapsed_time",
                "max_bot_probability",
            ]
            .iter()
            .any(|name| line.starts_with(&format!("{name} =")))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(format!("{:?}", Config::parse(&bare).unwrap().accounts["your-Approov-site-key"].checks), shown);
}

#[test]
fn every_option_of_the_command_line_is_in_the_usage_text() {
    let usage = approov_web_service::cli::USAGE;
    for command in SERVICE.lines().filter_map(|line| line.trim().strip_prefix("approov-web-service ")) {
        for word in command.split_whitespace().take_while(|word| !word.starts_with('#')) {
            if word.starts_with('-') && !word.starts_with("--") {
                assert!(usage.contains(word), "{word} of `{command}`");
            }
        }
    }
}
