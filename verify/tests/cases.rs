//! Hostile and malformed requests, each with the error that it must give: the conformance kit, which `generate.mjs` makes, and
//! which the npm and PyPI packages are tested with, too.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use approov_verify::keyset::KeySet;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use approov_verify::token::Channel;
use approov_verify::{Challenge, Error, Verifier};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;

#[path = "../conformance/adapters/kit.rs"]
mod kit;

use kit::Case;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(rename = "about")]
    _about: String,
    now: i64,
    secret: String,
    jwe_secret: String,
    jwks: serde_json::Value,
    pem: String,
    cases: Vec<Case>,
}

fn file() -> File {
    serde_json::from_str(include_str!("../conformance/cases.json")).unwrap()
}

fn challenge_name(challenge: Challenge) -> String {
    challenge.error().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn each_case_gives_its_error() {
    let file = file();
    let now = UnixTime::from_secs(file.now);
    let jwks = KeySet::from_jwks(&file.jwks.to_string()).unwrap();
    let mut wrong = Vec::new();
    for case in &file.cases {
        let verifier = case.config.verifier(&file.secret, &file.jwe_secret, &jwks);
        for request in &case.earlier {
            // Whether these pass is checked by cases of their own.
            drop(request.check(&verifier, now).await);
        }
        let verdict = case.request.check(&verifier, now).await;
        let code = verdict.as_ref().err().map(|error| error.code().to_owned());
        let challenge = verdict.as_ref().err().and_then(Error::challenge).map(challenge_name);
        if code != case.error || challenge != case.challenge {
            wrong.push(format!(
                "{}: expected {:?} {:?}, got {code:?} {challenge:?}",
                case.name, case.error, case.challenge
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn there_are_enough_hostile_cases_and_none_has_the_name_of_another() {
    let file = file();
    assert_eq!(file.version, 1);
    assert!(file.cases.iter().filter(|case| case.error.is_some()).count() >= 355);
    let names: BTreeSet<_> = file.cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), file.cases.len());
}

#[tokio::test]
async fn keys_from_pem_verify_what_the_same_keys_from_a_jwk_set_verify() {
    let file = file();
    let now = UnixTime::from_secs(file.now);
    let keyset = KeySet::from_pem(&file.pem).unwrap();
    assert_eq!(keyset.len(), 2);
    for (name, expected) in [
        ("ES256 by the keyset", None),
        ("RS256 by the keyset", None),
        // A key without a name matches any.
        ("an unknown kid", None),
        ("ES256 by a stranger", Some("token_signature")),
        ("HS256 with the PEM of the RSA key", Some("token_algorithm")),
    ] {
        let case = file.cases.iter().find(|case| case.name == name).unwrap();
        let verdict = case.request.check(&case.config.verifier(&file.secret, &file.jwe_secret, &keyset), now).await;
        assert_eq!(verdict.as_ref().err().map(Error::code), expected, "{name}");
    }
}

#[tokio::test]
async fn a_good_request_yields_the_claims_of_token_and_proof() {
    let file = file();
    let case = file.cases.iter().find(|case| case.name == "a web token with its proof").unwrap();
    let verifier = case.config.verifier(&file.secret, &file.jwe_secret, &KeySet::default());
    let verified = case.request.check(&verifier, UnixTime::from_secs(file.now)).await.unwrap();
    let claims = &verified.claims;
    assert_eq!(claims.channel, Channel::Web);
    assert_eq!(claims.expires, UnixTime::from_secs(file.now + 120));
    assert_eq!(claims.ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(claims.arc.as_deref(), Some("EAM2W37PSU"));
    assert_eq!(claims.device, None);
    assert_eq!(claims.pay, None);
    assert_eq!(claims.embed.hcaptcha["site"].hostname.as_deref(), Some("app.example.com"));
    assert_eq!(claims.embed.hcaptcha["site"].challenge_time.as_deref(), Some("2027-01-15T08:00:00Z"));
    assert_eq!(claims.cnf.unwrap().to_string(), claims.all["cnf"]["jkt"].as_str().unwrap());
    let proof = verified.proof.unwrap();
    assert_eq!((proof.htm.as_str(), proof.htu.as_str()), ("POST", "https://api.example.com/shapes"));
    assert!(proof.ath.is_some() && proof.msgs.is_none() && proof.nonce.is_none());
}

#[tokio::test]
async fn secrets_can_be_changed_while_old_tokens_are_about() {
    let file = file();
    let now = UnixTime::from_secs(file.now);
    let new = Secret::from_bytes(vec![1; 32]);
    let old = Secret::from_base64(&file.jwe_secret).unwrap();
    let verdict = async |name: &str, jwe_secrets: &[&Secret]| {
        let mut builder = Verifier::builder().secret(&new).secret_base64(&file.secret);
        for secret in jwe_secrets {
            builder = builder.jwe_secret(secret);
        }
        let case = file.cases.iter().find(|case| case.name == name).unwrap();
        case.request.check(&builder.build().unwrap(), now).await.err().map(|error| error.code())
    };
    assert_eq!(verdict("a mobile token without proof", &[]).await, None);
    for secrets in [[&new, &old], [&old, &new]] {
        assert_eq!(verdict("an encrypted token", &secrets).await, None);
        assert_eq!(verdict("encrypted with another secret", &secrets).await, Some("token_decryption"));
        assert_eq!(verdict("encrypted, and alg is dir", &secrets).await, Some("token_algorithm"));
    }
}

#[tokio::test]
async fn the_results_of_each_check_service_are_read() {
    let file = file();
    let case = file.cases.iter().find(|case| case.name == "results of all check services").unwrap();
    let verified = case
        .request
        .check(&case.config.verifier(&file.secret, &file.jwe_secret, &KeySet::default()), UnixTime::from_secs(file.now))
        .await;
    let embed = verified.unwrap().claims.embed;
    assert_eq!(embed.fingerprint["public"].visitor_id, "visitor");
    assert_eq!(embed.fingerprint["public"].request_ids, ["request"]);
    assert_eq!(embed.fingerprint["public"].full["extra"], 1);
    assert_eq!(embed.hcaptcha["site"].hostname.as_deref(), Some("one.example"));
    assert_eq!(embed.recaptcha["site"].hostname.as_deref(), Some("two.example"));
    assert_eq!(embed.recaptcha["site"].challenge_time, None);
    assert_eq!((embed.fingerprint.len(), embed.hcaptcha.len(), embed.recaptcha.len()), (1, 1, 1));
}

#[tokio::test]
async fn the_clock_leeway_bounds_how_far_a_token_may_be_outside_its_time() {
    let file = file();
    for (name, leeway, expected) in [
        ("exp past by more than the leeway", 6, Some("token_expired")),
        ("exp past by more than the leeway", 7, None),
        ("exp past by less than the leeway", 4, Some("token_expired")),
        ("exp past by less than the leeway", 0, Some("token_expired")),
        ("nbf within the leeway", 5, None),
        ("nbf within the leeway", 4, Some("token_not_yet_valid")),
        ("nbf to come", 60, None),
        ("nbf to come", 59, Some("token_not_yet_valid")),
    ] {
        let case = file.cases.iter().find(|case| case.name == name).unwrap();
        let builder = Verifier::builder().secret_base64(&file.secret).clock_leeway(Duration::from_secs(leeway));
        let verdict = case.request.check(&builder.build().unwrap(), UnixTime::from_secs(file.now)).await;
        assert_eq!(verdict.err().map(|error| error.code()), expected, "{name}, {leeway} s");
    }
}

#[tokio::test]
async fn a_proof_stays_used_when_a_clock_is_set_back() {
    let file = file();
    let verifier = Verifier::builder().secret_base64(&file.secret).build().unwrap();
    let case = |name: &str| &file.cases.iter().find(|case| case.name == name).unwrap().request;
    let (proof, other) = (case("a web token with its proof"), case("as far ahead as is allowed"));
    let at = |seconds| UnixTime::from_secs(file.now + seconds);
    assert!(proof.check(&verifier, at(0)).await.is_ok());
    // This server forgets what has expired; then its clock, or that of another one with the same store, is behind.
    assert!(other.check(&verifier, at(75)).await.is_ok());
    assert_eq!(proof.check(&verifier, at(60)).await, Err(Error::Replayed));
}
