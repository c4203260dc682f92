//! An API behind the layer, for the table of verdicts (`npm/tests/verdicts.test.mjs`). Its options are in the variable
//! `APPROOV_OPTIONS`, as JSON, named as in the packages.

use approov_verify::keyset::KeySet;
use approov_verify::layer::ApproovLayer;
use approov_verify::secret::Secret;
use approov_verify::{ProofPolicy, PublicUrl, Verified, Verifier};
use axum::routing::post;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::error::Error;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    public_url: String,
    secret: Option<String>,
    jwe_secret: Option<String>,
    jwks: Option<Value>,
    bound_to_header: Option<String>,
}

async fn order(Extension(verified): Extension<Verified>, Json(what): Json<Value>) -> Json<Value> {
    Json(json!({"ordered": what, "from": verified.claims.ip}))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options: Options = serde_json::from_str(&std::env::var("APPROOV_OPTIONS")?)?;
    let mut builder = Verifier::builder().proof(ProofPolicy::Required);
    if let Some(secret) = &options.secret {
        builder = builder.secret_base64(secret);
    }
    if let Some(secret) = &options.jwe_secret {
        builder = builder.jwe_secret(&Secret::from_base64(secret)?);
    }
    if let Some(jwks) = &options.jwks {
        builder = builder.keyset(KeySet::from_jwks(&jwks.to_string())?);
    }
    if let Some(name) = &options.bound_to_header {
        builder = builder.bound_to_header(name.parse()?);
    }
    let approov = ApproovLayer::new(builder.build()?, [PublicUrl::parse(&options.public_url)?]);
    let app = Router::new().route("/order", post(order)).layer(approov);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
