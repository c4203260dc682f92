//! The demo's protected API: `/shapes` serves whoever sends a good token with a good proof.
//!
//! `cargo run -p approov-verify --example demo_api -- --listen 127.0.0.1:0 --secret BASE64
//! --allow-origin http://127.0.0.1:8080`; `--allow-origin` may be repeated.

use approov_verify::layer::{ApproovLayer, PublicUrl};
use approov_verify::time::UnixTime;
use approov_verify::{PROOF_HEADER, ProofPolicy, TOKEN_HEADER, Verified, Verifier};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use std::error::Error;
use std::time::Duration;
use tokio::net::TcpListener;
use tower_http::cors::CorsLayer;

const SHAPES: [&str; 4] = ["circle", "triangle", "square", "rectangle"];

#[derive(Default)]
struct Options {
    listen: Option<String>,
    secret: Option<String>,
    allow_origin: Vec<HeaderValue>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self::default();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--listen" => options.listen = Some(value),
                "--secret" => options.secret = Some(value),
                "--allow-origin" => options.allow_origin.push(value.parse()?),
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        Ok(options)
    }
}

async fn shapes(Extension(verified): Extension<Verified>) -> Json<Value> {
    let turn = usize::try_from(UnixTime::now().as_millis()).unwrap_or_default();
    let mut proof = json!({"accepted": verified.proof.is_some()});
    if let (Some(members), Ok(Value::Object(claims))) = (proof.as_object_mut(), serde_json::to_value(&verified.proof)) {
        members.extend(claims);
    }
    Json(json!({
        "shape": SHAPES.iter().cycle().nth(turn % SHAPES.len()),
        "claims": verified.claims.all,
        "proof": proof,
    }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::read(std::env::args().skip(1))?;
    let secret = options.secret.ok_or("--secret is needed: the account's secret as base64")?;
    let listener = TcpListener::bind(options.listen.as_deref().unwrap_or("127.0.0.1:8088")).await?;
    let address = listener.local_addr()?;

    let verifier = Verifier::builder().secret_base64(&secret).proof(ProofPolicy::Required).build()?;
    let public_urls = [format!("http://{address}"), format!("http://localhost:{}", address.port())];
    let public_urls: Result<Vec<_>, _> = public_urls.iter().map(|url| PublicUrl::parse(url)).collect();
    let cors = CorsLayer::new()
        .allow_origin(options.allow_origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([TOKEN_HEADER, PROOF_HEADER, CONTENT_TYPE])
        .expose_headers([WWW_AUTHENTICATE])
        .max_age(Duration::from_secs(7200));
    let app = Router::new()
        .route("/shapes", get(shapes).post(shapes))
        .layer(ApproovLayer::new(verifier, public_urls?))
        .layer(cors);

    println!("listening on http://{address}");
    Ok(axum::serve(listener, app).await?)
}
