//! `token`: checks a token as a backend would, and makes examples.

use approov_verify::Verifier;
use approov_verify::keyset::KeySet;
use approov_verify::time::UnixTime;
use serde_json::json;

use crate::config::Account;
use crate::host::lookup_name;
use crate::secrets::ProcessEnvironment;

use super::example::{Keys, ProofKey, Proven, request_method, request_url, resolve};
use super::{Action, Arg, Args, CliResult, CommonFlags, Console, Failure, unknown};

pub(super) fn token(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let (mut common, mut action) = (CommonFlags::default(), Action(None));
    let (mut valid, mut data, mut proven) = (true, None, None);
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
            "proof" => {
                let method = request_method(&args.value(flag)?).map_err(Failure::Usage)?;
                proven = Some((method, request_url(&args.value(flag)?).map_err(Failure::Usage)?));
            }
            _ if common.take(flag, &mut args)? => {}
            _ => return Err(unknown("token", &arg).into()),
        }
    }
    let (flag, operand) = action.required("token", "-check or -genExample")?;
    if flag == "check" && (proven.is_some() || data.is_some()) {
        return Err(Failure::Usage("-check takes neither -proof nor -setDataHashInToken".to_owned()));
    }
    let account = common.read_account()?;
    if flag == "check" {
        return match check_token(&account, operand.trim())? {
            Ok(claims) => console.say(&format!("valid: {claims}")),
            Err(reason) => Err(Failure::Refused(format!("invalid: {reason}"))),
        };
    }
    let api = account.apis.get(&*lookup_name(&operand)).ok_or_else(|| format!("there is no API domain {operand}"))?;
    let keys = Keys::of_api(&account, api, valid)?;
    let data = data.as_ref().map(String::as_bytes);
    let Some((method, url)) = proven else { return console.say(&keys.token(data, None)?) };
    let key = ProofKey::generate()?;
    let token = keys.token(data, Some(&key))?;
    let proof = key.proof(&token, &Proven { method: method.as_str(), url: &url, body: None, nonce: None })?;
    console.say(&format!("Approov-Token: {token}\nDPoP: {proof}"))
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
