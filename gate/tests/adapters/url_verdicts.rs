//! Reads a JSON list of [htu, url] or [htu, public URL, request target] from standard input, and prints the gate's verdicts: whether it
//! lets a question about the request pass with a proof for the first. `null`: no gateway can ask about it. For the test that
//! compares the implementations (`verify/python/tests/test_agreement.py`).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test's program fails by panicking"
)]

mod nowhere;
#[path = "../support/session.rs"]
mod session;

use approov_gate::config::Config;
use approov_gate::gate::{Gate, Store};
use approov_verify::time::UnixTime;
use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use nowhere::Nowhere;
use serde_json::json;
use session::Session;
use std::collections::HashMap;

/// A gate for a server at this URL. `None`: no server can be there.
async fn gate(public_url: &str) -> Option<Gate> {
    let mut text = toml::Table::new();
    text.insert("public_urls".to_owned(), vec![public_url].into());
    let mut verify = toml::Table::new();
    verify.insert("secret".to_owned(), session::SECRET.into());
    text.insert("verify".to_owned(), verify.into());
    let config = Config::parse(&text.to_string(), &Nowhere).ok()?;
    Some(Gate::new(config.rules, &Store::open(&config.store).await.unwrap()).unwrap())
}

/// The public URL and the request target of a question.
fn question(texts: &[String]) -> Option<(String, String)> {
    match texts {
        [_, url] => {
            let (_, rest) = url.split_once("://")?;
            let begin = url.len() - rest.len() + rest.find(['/', '?', '#'])?;
            let (origin, target) = url.split_at_checked(begin)?;
            // Neither fragments nor what is not printable ASCII are sent, and two slashes begin another server's URL.
            let printable = target.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#');
            (printable && target.starts_with('/') && !target.starts_with("//"))
                .then(|| (origin.to_owned(), target.to_owned()))
        }
        [_, public_url, target] => Some((public_url.clone(), target.clone())),
        _ => panic!("two or three texts are needed"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let pairs: Vec<Vec<String>> = serde_json::from_reader(std::io::stdin()).unwrap();
    let (session, now) = (Session::new(), UnixTime::now());
    let mut gates: HashMap<String, Option<Gate>> = HashMap::new();
    let mut verdicts = Vec::new();
    for texts in &pairs {
        let Some((public_url, target)) = question(texts) else {
            verdicts.push(json!(null));
            continue;
        };
        let Ok(target) = HeaderValue::from_bytes(target.as_bytes()) else {
            verdicts.push(json!(null));
            continue;
        };
        if !gates.contains_key(&public_url) {
            gates.insert(public_url.clone(), gate(&public_url).await);
        }
        let Some(gate) = gates.get(&public_url).unwrap() else {
            verdicts.push(json!(false));
            continue;
        };
        let mut claims = session.proof_claims("GET", texts.first().unwrap());
        // The query is another claim's matter.
        claims.remove("htq");
        let request = Request::get("/forward-auth")
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Uri", target)
            .header("Approov-Token", session.token())
            .header("DPoP", session.sign(&claims))
            .body(Full::new(Bytes::new()))
            .unwrap();
        let decision = gate.decide(request, now).await;
        assert!(matches!(decision.code, "ok" | "proof_url" | "proof_claim" | "incomplete_question"), "{decision:?}");
        verdicts.push(json!(decision.code == "ok"));
    }
    println!("{}", serde_json::to_string(&verdicts).unwrap());
}
