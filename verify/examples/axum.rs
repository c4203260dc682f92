//! A protected API: `APPROOV_SECRET=… cargo run -p approov-verify --example axum`.

use approov_verify::layer::{ApproovLayer, Refusal};
use approov_verify::token::Channel;
use approov_verify::{ProofPolicy, PublicUrl, Verified, Verifier};
use axum::{Extension, Router, routing::post};
use std::error::Error;

async fn order(Extension(verified): Extension<Verified>) -> String {
    format!("ordered, from {:?}\n", verified.claims.ip)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let verifier =
        Verifier::builder().secret_base64(&std::env::var("APPROOV_SECRET")?).proof(ProofPolicy::Required).build()?;
    let approov =
        ApproovLayer::new(verifier, [PublicUrl::parse("https://api.example.com")?]).rule(|verified, _| match verified
            .claims
            .channel
        {
            Channel::Web => Ok(()),
            _ => Err(Refusal::new("web_only", "this is for browsers")),
        });
    let app = Router::new().route("/order", post(order)).layer(approov);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    Ok(axum::serve(listener, app).await?)
}
