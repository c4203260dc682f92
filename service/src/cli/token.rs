//! `token`: checks a token as a backend would, and makes examples.

use approov_verify::Verifier;
use approov_verify::keyset::KeySet;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, json};

use crate::config::Account;
use crate::crypto::{CryptoError, JweEntropy, random};
use crate::host::lookup_name;
use crate::secrets::{KeptSecret, ProcessEnvironment};
use crate::token::{Signer, arc_text, encrypt};

use super::{Action, Arg, Args, CliResult, CommonFlags, Console, Failure, unknown};

pub(super) fn token(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action) = (CommonFlags::default(), Action(None));
    let (mut valid, mut data) = (true, None);
    while let Some(arg) = args.next_arg()? {
        let Arg::Flag(flag) = &arg else { return Err(unknown("token", &arg).into()) };
        match flag.as_str() {
            "check" | "genExample" => {
                let operand = args.value(flag)?;
                action.set(flag, Some(operand))?;
            }
            "type" => {
                valid = match args.value(flag)?.as_str() {
                    "valid" => true,
                    "invalid" => false,
                    other => return Err(Failure::Usage(format!("-type must be valid or invalid, got \"{other}\""))),
                }
            }
            "setDataHashInToken" => data = Some(args.value(flag)?),
            _ if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("token", &arg).into()),
        }
    }
    let (flag, operand) = action.required("token", "-check or -genExample")?;
    let account = common.read_account()?;
    if flag == "check" {
        return match check_token(&account, operand.trim())? {
            Ok(claims) => console.say(&format!("valid: {claims}")),
            Err(reason) => Err(Failure::Refused(format!("invalid: {reason}"))),
        };
    }
    let example = example_token(&account, &operand, valid, data.as_deref())?;
    console.say(&example)
}

/// What a backend would say of a token: its claims, or why not.
fn check_token(account: &Account, token: &str) -> Result<Result<String, String>, String> {
    let now = UnixTime::now();
    let mut verifier = Verifier::builder();
    for secret in account.secret.opening(now) {
        verifier = verifier.secret(&resolve(secret)?);
    }
    let mut pem = String::new();
    for key in account.keys.values() {
        let key = key.resolve(&ProcessEnvironment).map_err(|error| error.to_string())?;
        pem.push_str(&key.public_pem().map_err(|error| error.to_string())?);
    }
    if !pem.is_empty() {
        verifier = verifier.keyset(KeySet::from_pem(&pem).map_err(|error| error.to_string())?);
    }
    for secret in account.jwe_secret.iter().flat_map(|secrets| secrets.opening(now)) {
        verifier = verifier.jwe_secret(&resolve(secret)?);
    }
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let claims = verifier.verify_token(token, now);
    Ok(claims.map(|claims| json!(claims.all).to_string()).map_err(|error| error.to_string()))
}

/// A token like those of the web channel, good for an hour, for trying a backend out.
fn example_token(account: &Account, domain: &str, valid: bool, data: Option<&str>) -> Result<String, String> {
    let api = account.apis.get(&*lookup_name(domain)).ok_or_else(|| format!("there is no API domain {domain}"))?;
    let failed = |error: CryptoError| error.to_string();
    let now = UnixTime::now();
    let key = api.keyset_kid.as_ref().and_then(|kid| account.keys.get(kid));
    let key = key.map(|key| key.resolve(&ProcessEnvironment)).transpose().map_err(|error| error.to_string())?;
    let signer = match key {
        Some(key) if valid => Signer::Key(key),
        Some(key) => Signer::Key(key.with_pair(key.pair().generate_similar().map_err(failed)?)),
        None if valid => Signer::hs256(&resolve(account.secret.making(now))?),
        None => Signer::hs256(&Secret::from_bytes(random::<64>().map_err(failed)?.to_vec())),
    };
    let now_seconds = now.as_secs();
    let mut claims = Map::from_iter([
        ("exp".to_owned(), json!(now_seconds + 3600)),
        ("iat".to_owned(), json!(now_seconds)),
        ("ip".to_owned(), json!("1.2.3.4")),
        ("arc".to_owned(), json!(arc_text(random().map_err(failed)?))),
        ("embed".to_owned(), json!({})),
    ]);
    if let Some(data) = data {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data.as_bytes());
        claims.insert("pay".to_owned(), STANDARD.encode(hash.as_ref()).into());
    }
    let jws = signer.sign(&claims).map_err(failed)?;
    match &account.jwe_secret {
        Some(secrets) if api.jwe => {
            encrypt(&jws, &resolve(secrets.making(now))?, JweEntropy::draw().map_err(failed)?).map_err(failed)
        }
        _ => Ok(jws),
    }
}

fn resolve(secret: &KeptSecret) -> Result<Secret, String> {
    secret.resolve(&ProcessEnvironment).map_err(|error| error.to_string())
}
