#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)]

//! Reading of responses, hostile ones included. The fuzz target `response` runs [`read`]; here its corpus is read again.

#[path = "support/parsed_json.rs"]
mod parsed_json;

use approov_web_sdk::error::Code;
use approov_web_sdk::wire::{Body, Granted, Response};

/// Reads an input as a response: its first line is status, media type and nonce, the rest is the body.
pub fn read(input: &[u8]) {
    let Some(response) = response(input) else { return };
    if let Some(nonce) = response.usable_nonce() {
        assert!(nonce.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    let status = response.status;
    match response.clone().into_grant() {
        Ok(Granted::Session(grant)) => {
            assert!((200..300).contains(&status));
            assert!(grant.token_lifetime > 0 && grant.session_expiry >= 0 && grant.server_time >= 0);
            assert!(grant.tokens.iter().all(|(_, token)| token.expose().bytes().all(|byte| byte.is_ascii_graphic())));
            assert_eq!(grant.expiries.get("session"), Some(&grant.session_expiry));
        }
        Ok(Granted::Bare(token)) => assert!(!token.expose().contains(char::is_whitespace)),
        Err(error) => {
            assert!(matches!(error.code(), Code::Service | Code::InvalidResponse));
            assert_eq!(error.code() == Code::Service, !error.service_errors().is_empty());
        }
    }
    assert!(!response.into_refusal().message().is_empty());
}

fn response(input: &[u8]) -> Option<Response> {
    let end = input.iter().position(|&byte| byte == b'\n')?;
    let (head, body) = input.split_at(end);
    let mut head = std::str::from_utf8(head).ok()?.split(' ');
    let status = head.next()?.parse().ok()?;
    let content_type = head.next().unwrap_or_default().to_owned();
    let nonce = head.next().map(str::to_owned);
    let body = Body::read(body.get(1..).unwrap_or_default().to_vec(), &content_type, parsed_json::decode_text);
    Some(Response { status, content_type, nonce, body, ..Response::default() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_whole_corpus_is_read_without_a_panic() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/response");
        let mut read = 0;
        for entry in std::fs::read_dir(corpus).expect("the corpus") {
            super::read(&std::fs::read(entry.expect("an entry").path()).expect("readable"));
            read += 1;
        }
        assert!(read >= 12, "the corpus has shrunk to {read}");
    }
}
