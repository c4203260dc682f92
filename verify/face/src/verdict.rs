//! Verdicts as JSON.

use crate::{Call, Face};
use approov_verify::{Error, Verified};
use serde_json::{Map, Value, json};

/// `{"ok": true, "channel", "claims", "proof", "wouldFail", "headers"}`.
pub(crate) fn good(face: &Face, call: &Call, verified: Verified) -> String {
    let Verified { claims, proof, would_fail, .. } = verified;
    json!({
        "ok": true,
        "channel": claims.channel.to_string(),
        "claims": claims.all,
        "proof": proof,
        "wouldFail": would_fail.map(|error| error.code()),
        "headers": fields(face, call),
    })
    .to_string()
}

/// `{"ok": false, "status", "code", "detail", "log", "challenge", "headers", "body"}`: what to respond, and in `log` what it is
/// about in the host's own logs.
pub(crate) fn bad(face: &Face, call: &Call, error: &Error) -> String {
    let mut headers = fields(face, call);
    if let Some(challenge) = error.challenge() {
        headers.insert("WWW-Authenticate".to_owned(), Value::from(challenge.header_value()));
    }
    if *error == Error::TooManyProofs {
        headers.insert("Retry-After".to_owned(), Value::from("10"));
    }
    let challenge = error.challenge().map(|challenge| challenge.error().unwrap_or("none"));
    refusal(error.status(), error.code(), &error.public_detail(), &error.to_string(), challenge, headers)
}

pub(crate) fn problem(face: &Face, call: &Call, status: u16, code: &str, detail: &str) -> String {
    refusal(status, code, detail, detail, None, fields(face, call))
}

fn refusal(
    status: u16,
    code: &str,
    detail: &str,
    log: &str,
    challenge: Option<&str>,
    mut headers: Map<String, Value>,
) -> String {
    headers.insert("Content-Type".to_owned(), Value::from("application/problem+json"));
    headers.insert("Cache-Control".to_owned(), Value::from("no-store"));
    let title =
        http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    let body = json!({"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail});
    json!({
        "ok": false, "status": status, "code": code, "detail": detail, "log": log, "challenge": challenge,
        "headers": headers, "body": body.to_string(),
    })
    .to_string()
}

/// The headers of every response.
fn fields(face: &Face, call: &Call) -> Map<String, Value> {
    let mut fields = face.cors.as_ref().map(|cors| cors.fields(call.origin.as_deref())).unwrap_or_default();
    if let Some(nonce) = face.verifier.dpop_nonce(call.now) {
        fields.insert("DPoP-Nonce".to_owned(), Value::from(nonce.to_str().unwrap_or_default()));
        fields.entry("Access-Control-Expose-Headers").or_insert_with(|| Value::from("DPoP-Nonce, WWW-Authenticate"));
    }
    fields
}
