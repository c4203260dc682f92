//! The demo's protected API: `/shapes` and `/orders` serve whoever sends a good token with a good proof. Each request is
//! a line of JSON on standard error: what became of it, and nothing that it brought.
//!
//! `cargo run -p approov-verify --features tower --example demo_api -- --listen 127.0.0.1:0 --secret BASE64
//! --allow-origin http://127.0.0.1:8080`; `--allow-origin` may be repeated, or be `*`. `--server-nonces offered` or
//! `required` gives out nonces (RFC 9449 section 8).

use approov_verify::layer::ApproovLayer;
use approov_verify::time::UnixTime;
use approov_verify::{
    NONCE_HEADER, PROOF_HEADER, ProofPolicy, PublicUrl, ServerNoncePolicy, TOKEN_HEADER, Verified, Verifier,
};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use std::error::Error;
use std::time::Duration;
use tokio::net::TcpListener;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// No problem document is longer, in bytes.
const MAX_PROBLEM: usize = 1 << 16;

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

/// Logs a request. Why it was refused is in the problem document of [`ApproovLayer`].
async fn log(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    if status.is_success() {
        eprintln!("{}", log_line(&method, &path, status.as_u16(), &Value::Null));
        return response;
    }
    let (parts, body) = response.into_parts();
    match to_bytes(body, MAX_PROBLEM).await {
        Ok(body) => {
            let problem = serde_json::from_slice(&body).unwrap_or_default();
            eprintln!("{}", log_line(&method, &path, status.as_u16(), &problem));
            Response::from_parts(parts, Body::from(body))
        }
        Err(error) => {
            eprintln!("{}", log_line(&method, &path, status.as_u16(), &json!({"detail": error.to_string()})));
            Response::from_parts(parts, Body::empty())
        }
    }
}

fn log_line(method: &str, path: &str, status: u16, problem: &Value) -> Value {
    let mut line = json!({"method": method, "path": path, "status": status});
    for member in ["code", "detail"] {
        if let (Some(line), Some(value)) = (line.as_object_mut(), problem.get(member)) {
            line.insert(member.to_owned(), value.clone());
        }
    }
    line
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
        .route("/orders", get(shapes).post(shapes))
        .layer(ApproovLayer::new(verifier, public_urls?))
        .layer(from_fn(log))
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
    fn a_line_of_the_log_says_why_a_request_was_refused_and_nothing_else_of_it() {
        let problem = json!({"code": "proof_missing", "detail": "the request has no proof", "title": "Unauthorized"});
        assert_eq!(
            log_line("POST", "/shapes", 401, &problem),
            json!({"method": "POST", "path": "/shapes", "status": 401, "code": "proof_missing", "detail": "the request has no proof"})
        );
        assert_eq!(
            log_line("GET", "/shapes", 200, &Value::Null),
            json!({"method": "GET", "path": "/shapes", "status": 200})
        );
    }

    #[test]
    fn unknown_options_and_values_are_refused_with_a_message() {
        for arguments in [&["--listen"][..], &["--wrong", "1"], &["--server-nonces", "on"], &["--allow-origin", "\n"]] {
            assert!(read(arguments).is_err(), "{arguments:?}");
        }
        assert_eq!(read(&["--server-nonces", "required"]).unwrap().server_nonces, ServerNoncePolicy::Required);
    }
}
