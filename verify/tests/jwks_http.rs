//! Keys fetched over HTTP, from a server on this machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use approov_verify::jwks::{MAX_JWKS_LENGTH, http_fetcher};
use axum::Router;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use tokio::net::TcpListener;

#[tokio::test]
async fn keys_are_fetched_and_nothing_else_is_taken_for_them() {
    let app = Router::new()
        .route("/good", get(|| async { "keys" }))
        .route("/as-long-as-may-be", get(|| async { "x".repeat(MAX_JWKS_LENGTH) }))
        .route("/too-long", get(|| async { "x".repeat(MAX_JWKS_LENGTH + 1) }))
        .route("/not-text", get(|| async { vec![0xff_u8] }))
        .route("/moved", get(|| async { Redirect::temporary("/good") }))
        .route("/down", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "keys") }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });

    let fetch = http_fetcher().unwrap();
    let at = async |path: &str| fetch(format!("http://{address}{path}")).await;
    assert_eq!(at("/good").await.as_deref(), Ok("keys"));
    assert_eq!(at("/as-long-as-may-be").await.map(|text| text.len()), Ok(MAX_JWKS_LENGTH));
    for path in ["/too-long", "/not-text", "/moved", "/down", "/missing"] {
        assert!(at(path).await.is_err(), "{path}");
    }
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(fetch(format!("http://{gone}/good")).await.is_err());
}
