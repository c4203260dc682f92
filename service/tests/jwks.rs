//! The public keys that an account publishes.

// A helper of a test may fail as a test fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use approov_verify::keyset::KeySet;
use approov_web_service::config::Config;
use approov_web_service::crypto::{KeyAlg, KeyPair};
use approov_web_service::token::private_pem;
use axum::body::Body;
use axum::http::Request;
use support::*;

fn config() -> Config {
    let account = |site_key: &str, more: &str| {
        format!("[[account]]\nsite_key = \"{site_key}\"\nsecret = \"{SECRET}\"\njwe_secret = \"{SECRET}\"\n{more}\n")
    };
    let key = |kid: &str, alg: KeyAlg, more: &str| {
        let pem = private_pem(&KeyPair::generate(alg).unwrap()).unwrap();
        let (alg, pem) = (alg.name(), pem.trim_end());
        format!("[[account.key]]\nkid = \"{kid}\"\nalg = \"{alg}\"\nprivate_key = \"\"\"{pem}\"\"\"\n{more}\n")
    };
    let text = [
        FILE_HEAD.to_owned(),
        account("open", "publish_jwks = true"),
        key("e1", KeyAlg::Es256, ""),
        key("r1", KeyAlg::Rs256, ""),
        key("e2", KeyAlg::Es256, "replaces = \"e1\""),
        account("a key/with ümlaut", "publish_jwks = true"),
        account("shut", ""),
        key("e1", KeyAlg::Es256, ""),
    ];
    Config::parse(&text.concat()).unwrap()
}

#[tokio::test]
async fn an_account_publishes_its_public_keys_where_it_says_so() {
    let service = service(config()).await;
    let get =
        async |path: &str| send(&service, Request::get(path).header("host", HOST).body(Body::empty()).unwrap()).await;
    let response = get("/open/.well-known/jwks.json").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), "application/jwk-set+json");
    assert_eq!(response.header("cache-control"), "max-age=300");
    assert_eq!(KeySet::from_jwks(&response.body).unwrap().len(), 3, "a staged key is there, too");
    let set = response.json();
    for key in set["keys"].as_array().unwrap() {
        assert!(matches!(key["kty"].as_str().unwrap(), "EC" | "RSA"), "{key}");
        assert_eq!(key["use"], "sig");
        assert!(key["kid"].is_string() && key["alg"].is_string());
        assert!(["d", "p", "q", "dp", "dq", "qi", "k"].iter().all(|private| key.get(private).is_none()), "{key}");
    }
    assert_eq!(get("/a%20key%2Fwith%20%C3%BCmlaut/.well-known/jwks.json").await.body, r#"{"keys":[]}"#);
    for path in ["/shut/.well-known/jwks.json", "/nobody/.well-known/jwks.json", "/.well-known/jwks.json"] {
        assert_eq!(get(path).await.status, 404, "{path}");
    }
    let post = Request::post("/open/.well-known/jwks.json").header("host", HOST).body(Body::empty()).unwrap();
    assert_eq!(send(&service, post).await.status, 405);
}
