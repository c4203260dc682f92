//! The demo's protected API: `/shapes` serves whoever sends a good token with a good proof.
//!
//! `cargo run -p approov-verify --features tower --example demo_api -- --listen 127.0.0.1:0 --secret BASE64
//! --allow-origin http://127.0.0.1:8080`; `--allow-origin` may be repeated, or be `*`. `--server-nonces offered` or
//! `required` gives out nonces (RFC 9449 section 8).

use approov_verify::layer::ApproovLayer;
use approov_verify::time::UnixTime;
use approov_verify::{
    NONCE_HEADER, PROOF_HEADER, ProofPolicy, PublicUrl, ServerNoncePolicy, TOKEN_HEADER, Verified, Verifier,
};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use std::error::Error;
use std::time::Duration;
use tokio::net::TcpListener;
use tower_http::cors::{AllowOrigin, CorsLayer};

const SHAPES: [&str; 4] = ["circle", "triangle", "square", "rectangle"];

#[derive(Default)]
struct Options {
    listen: Option<String>,
    secret: Option<String>,
    allow_origin: Vec<HeaderValue>,
    server_nonces: ServerNoncePolicy,
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
                "--server-nonces" => options.server_nonces = server_nonces(&value)?,
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        Ok(options)
    }

    /// `*` allows every origin, so it has to be alone.
    fn allowed_origins(&self) -> Result<AllowOrigin, String> {
        match self.allow_origin.as_slice() {
            [only] if only == "*" => Ok(AllowOrigin::any()),
            several if several.iter().any(|origin| origin == "*") => {
                Err("--allow-origin '*' allows every origin: leave the others out".to_owned())
            }
            listed => Ok(AllowOrigin::list(listed.iter().cloned())),
        }
    }
}

fn server_nonces(value: &str) -> Result<ServerNoncePolicy, String> {
    match value {
        "off" => Ok(ServerNoncePolicy::Off),
        "offered" => Ok(ServerNoncePolicy::Offered),
        "required" => Ok(ServerNoncePolicy::Required),
        _ => Err(format!("--server-nonces must be off, offered or required, got {value}")),
    }
}

async fn shapes(Extension(verified): Extension<Verified>) -> Json<Value> {
    let millis = usize::try_from(UnixTime::now().as_millis()).unwrap_or_default();
    let mut proof = json!({"accepted": verified.proof.is_some()});
    if let (Some(members), Ok(Value::Object(claims))) = (proof.as_object_mut(), serde_json::to_value(&verified.proof)) {
        members.extend(claims);
    }
    Json(json!({
        "shape": SHAPES.iter().cycle().nth(millis % SHAPES.len()),
        "claims": verified.claims.all,
        "proof": proof,
    }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::read(std::env::args().skip(1))?;
    let allowed_origins = options.allowed_origins()?;
    let secret = options.secret.ok_or("--secret is needed: the account's secret as base64")?;
    let listener = TcpListener::bind(options.listen.as_deref().unwrap_or("127.0.0.1:8088")).await?;
    let address = listener.local_addr()?;

    let verifier = Verifier::builder()
        .secret_base64(&secret)
        .proof(ProofPolicy::Required)
        .server_nonces(options.server_nonces)
        .build()?;
    let public_urls = [format!("http://{address}"), format!("http://localhost:{}", address.port())];
    let public_urls: Result<Vec<_>, _> = public_urls.iter().map(|url| PublicUrl::parse(url)).collect();
    let cors = CorsLayer::new()
        .allow_origin(allowed_origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([TOKEN_HEADER, PROOF_HEADER, AUTHORIZATION, CONTENT_TYPE])
        .expose_headers([WWW_AUTHENTICATE, NONCE_HEADER])
        .max_age(Duration::from_secs(7200));
    let app = Router::new()
        .route("/shapes", get(shapes).post(shapes))
        .layer(ApproovLayer::new(verifier, public_urls?))
        .layer(cors);

    println!("listening on http://{address}");
    Ok(axum::serve(listener, app).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, Box<dyn Error>> {
        Options::read(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn any_origin_may_be_allowed_and_then_none_is_listed() {
        let layer = |arguments: &[&str]| {
            read(arguments).unwrap().allowed_origins().map(|origins| drop(CorsLayer::new().allow_origin(origins)))
        };
        assert_eq!(layer(&["--allow-origin", "*"]), Ok(()));
        assert_eq!(layer(&["--allow-origin", "http://a.example", "--allow-origin", "http://b.example"]), Ok(()));
        assert_eq!(layer(&[]), Ok(()));
        for arguments in [
            ["--allow-origin", "*", "--allow-origin", "http://a.example"],
            ["--allow-origin", "*", "--allow-origin", "*"],
        ] {
            assert!(layer(&arguments).unwrap_err().contains("leave the others out"));
        }
    }

    #[test]
    fn unknown_options_and_values_are_refused_with_a_message() {
        for arguments in [&["--listen"][..], &["--wrong", "1"], &["--server-nonces", "on"], &["--allow-origin", "\n"]] {
            assert!(read(arguments).is_err(), "{arguments:?}");
        }
        assert_eq!(read(&["--server-nonces", "required"]).unwrap().server_nonces, ServerNoncePolicy::Required);
    }
}
