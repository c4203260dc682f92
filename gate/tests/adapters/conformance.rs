//! The gate as a program for the conformance kit's `run.sh`: each case is a gateway's question.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test's program fails by panicking"
)]

mod nowhere;

use approov_gate::config::Config;
use approov_gate::gate::{Gate, Store};
use approov_verify::time::UnixTime;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use nowhere::Nowhere;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Given {
    now: i64,
    secret: String,
    jwe_secret: String,
    jwks: Value,
    case: Case,
}

#[derive(Deserialize)]
struct Case {
    config: serde_json::Map<String, Value>,
    earlier: Vec<RequestData>,
    request: RequestData,
}

#[derive(Deserialize)]
struct RequestData {
    method: String,
    #[serde(default)]
    url: String,
    target: Option<String>,
    public_url: Option<String>,
    headers: Vec<(String, String)>,
    body: Option<String>,
    binding: Option<String>,
}

/// The public URL and the request target that the URL of a case is made of. `None`: no server gets such a request.
fn split(request: &RequestData) -> Option<(String, String)> {
    if let (Some(public_url), Some(target)) = (&request.public_url, &request.target) {
        return Some((public_url.clone(), target.clone()));
    }
    let (_, rest) = request.url.split_once("://")?;
    let begin = request.url.len() - rest.len() + rest.find(['/', '?'])?;
    let (origin, target) = request.url.split_at_checked(begin)?;
    // To whoever gets a request target, two slashes begin a reference to another server: it is refused, whatever the proof.
    (!target.starts_with("//")).then(|| (origin.to_owned(), target.to_owned()))
}

/// Whether a body that the case does not have is the point: a gate that gets bodies has every one.
fn misses_a_body(request: &RequestData) -> bool {
    let proofs = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("dpop"));
    let covers_body = |proof: &str| {
        let payload = proof.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())?;
        serde_json::from_slice::<Value>(&payload).ok()?.get("msgs").map(drop)
    };
    request.body.is_none() && proofs.into_iter().any(|(_, proof)| covers_body(proof).is_some())
}

async fn verdict(given: &Given) -> Option<String> {
    let Given { now, secret, jwe_secret, jwks, case } = given;
    let mut verify = case.config.clone();
    let keys = verify.remove("keys");
    let keys = keys.as_ref().and_then(Value::as_str).unwrap_or("secret");
    if keys != "keyset" {
        verify.insert("secret".to_owned(), Value::from(secret.as_str()));
    }
    if keys != "secret" {
        verify.insert("jwks".to_owned(), jwks.clone());
    }
    if verify.remove("jwe").is_some() {
        verify.insert("jwe_secret".to_owned(), Value::from(jwe_secret.as_str()));
    }
    // Nonces of an application's own, data that no header has, and bodies that nobody read, are not for a gateway.
    if verify.contains_key("accepted_nonce") || case.request.binding.is_some() {
        return None;
    }
    if misses_a_body(&case.request) {
        return None;
    }
    let (public_url, _) = split(&case.request)?;
    let mut text = toml::Table::new();
    text.insert("public_urls".to_owned(), vec![public_url].into());
    text.insert("bodies".to_owned(), "forwarded".into());
    text.insert("verify".to_owned(), toml::Value::try_from(&verify).unwrap());
    let config = match Config::parse(&text.to_string(), &Nowhere) {
        Ok(config) => config,
        // A URL that no server can have as its own.
        Err(error) if error.starts_with("public_urls") => return None,
        Err(error) => panic!("{error}"),
    };
    let gate = Gate::new(config.rules, &Store::open(&config.store).await.unwrap()).unwrap();
    for earlier in &case.earlier {
        ask(&gate, earlier, *now).await;
    }
    ask(&gate, &case.request, *now).await
}

async fn ask(gate: &Gate, request: &RequestData, now: i64) -> Option<String> {
    let (_, target) = split(request)?;
    let mut question = Request::get("/forward-auth").header("X-Forwarded-Method", request.method.as_str());
    let fields = question.headers_mut().unwrap();
    fields.append("x-forwarded-uri", HeaderValue::from_bytes(target.as_bytes()).ok()?);
    for (name, value) in &request.headers {
        fields.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let body = Full::new(Bytes::from(request.body.clone().unwrap_or_default()));
    let decision = gate.decide(question.body(body).unwrap(), UnixTime::from_secs(now)).await;
    // What goes over the wire counts, not what the gate says of it to its log.
    let (parts, body) = decision.response.into_parts();
    if parts.status == 200 {
        return Some("ok".to_owned());
    }
    let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    match body["code"].as_str().unwrap() {
        // The gateway could not ask about it.
        "incomplete_question" => None,
        code => Some(code.to_owned()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for line in std::io::stdin().lines() {
        let given: Given = serde_json::from_str(&line.unwrap()).unwrap();
        println!("{}", verdict(&given).await.unwrap_or_else(|| "skip".to_owned()));
    }
}
