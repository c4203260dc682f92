//! `request`: a request to a backend, with an example token and a proof for it.

use std::fmt::Write as _;
use std::time::Duration;

use approov_verify::secret::Secret;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, Response};
use url::Url;

use crate::host::lookup_name;

use super::example::{Keys, ProofKey, Proven, request_method, request_url};
use super::{Arg, Args, CliResult, CommonFlags, Console, Failure, secret_operand, unknown};

/// The longest time that a backend may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest body that is shown, bytes.
const MAX_SHOWN: usize = 1 << 20;

/// What a command line asks for.
#[derive(Default)]
struct Request {
    common: CommonFlags,
    method: Option<Method>,
    url: Option<Url>,
    api: Option<String>,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    bound: Vec<HeaderName>,
    invalid: bool,
    unproven: bool,
    certificate: Option<Vec<u8>>,
    secret: Option<Secret>,
}

pub(super) fn request(mut args: Args, console: &mut Console<'_>) -> CliResult {
    let mut request = Request::default();
    while let Some(arg) = args.next_arg()? {
        match &arg {
            Arg::Operand(text) if request.method.is_none() => {
                request.method = Some(request_method(text).map_err(Failure::Usage)?);
            }
            Arg::Operand(text) if request.url.is_none() => {
                request.url = Some(request_url(text).map_err(Failure::Usage)?);
            }
            Arg::Flag(flag) if request.take(flag, &mut args, console)? => {}
            _ => return Err(unknown("request", &arg).into()),
        }
    }
    let (Some(method), Some(url)) = (request.method.take(), request.url.take()) else {
        return Err(Failure::Usage(
            "request needs METHOD and URL, such as GET https://api.example.com/shapes".to_owned(),
        ));
    };
    let keys = request.keys(&url)?;
    let bound = request.bound_data()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Refused(error.to_string()))?;
    runtime.block_on(request.send(&keys, bound.as_deref(), &method, &url, console))
}

impl Request {
    fn take(&mut self, flag: &str, args: &mut Args, console: &mut Console<'_>) -> Result<bool, Failure> {
        match flag {
            "api" => self.api = Some(args.value(flag)?),
            "header" => {
                let (name, value) = header(&args.value(flag)?)?;
                self.headers.append(name, value);
            }
            "data" => self.body = Some(body(args.value(flag)?, console)?),
            "bind" => {
                let text = args.value(flag)?;
                let name = text.parse().map_err(|_| format!("-bind must be the name of a header, got \"{text}\""));
                self.bound.push(name.map_err(Failure::Usage)?);
            }
            "type" => {
                self.invalid = match args.value(flag)?.as_str() {
                    "valid" => false,
                    "invalid" => true,
                    other => return Err(Failure::Usage(format!("-type must be valid or invalid, got \"{other}\""))),
                }
            }
            "noProof" => self.unproven = true,
            "caCert" => {
                let path = args.value(flag)?;
                self.certificate = Some(std::fs::read(&path).map_err(|error| format!("-caCert: {path}: {error}"))?);
            }
            "secret" => {
                let text = secret_operand(flag, args.value(flag)?, console.input)?;
                let secret = Secret::from_base64(&text).map_err(|error| Failure::Usage(format!("-secret: {error}")))?;
                self.secret = Some(secret);
            }
            _ => return Ok(self.common.take(flag, args)?),
        }
        Ok(true)
    }

    /// What the token is signed with.
    fn keys(&self, url: &Url) -> Result<Keys, Failure> {
        if let Some(secret) = &self.secret {
            return Ok(Keys::of_secret(secret, !self.invalid)?);
        }
        let account = self.common.read_account()?;
        let domain = self.api.as_deref().or_else(|| url.host_str()).unwrap_or_default();
        let api = account.apis.get(&*lookup_name(domain)).ok_or_else(|| {
            format!("there is no API domain {domain}: -api names one, or -secret gives the secret that the backend has")
        })?;
        Ok(Keys::of_api(&account, api, !self.invalid)?)
    }

    /// The data that the token is bound to: the values of headers, one after the other.
    fn bound_data(&self) -> Result<Option<Vec<u8>>, Failure> {
        if self.bound.is_empty() {
            return Ok(None);
        }
        let mut data = Vec::new();
        for name in &self.bound {
            let value = self.headers.get(name).ok_or_else(|| {
                Failure::Usage(format!("-bind {name}: the request has no such header: -header '{name}: …'"))
            })?;
            data.extend_from_slice(value.as_bytes());
        }
        Ok(Some(data))
    }

    /// Sends it, and once more when the backend asks for its own nonce; shows what came.
    async fn send(
        &self,
        keys: &Keys,
        bound: Option<&[u8]>,
        method: &Method,
        url: &Url,
        console: &mut Console<'_>,
    ) -> CliResult {
        let mut client = Client::builder().redirect(Policy::none()).timeout(TIMEOUT);
        if let Some(pem) = &self.certificate {
            let roots = Certificate::from_pem_bundle(pem).map_err(|error| format!("-caCert: {error}"))?;
            client = client.tls_certs_merge(roots);
        }
        let client = client.build().map_err(|error| error.to_string())?;
        // Without a proof, the token is still bound to a key: so a backend sees what a thief has.
        let key = ProofKey::generate()?;
        let token = keys.token(bound, Some(&key))?;
        let key = Some(key).filter(|_| !self.unproven);
        let mut nonce: Option<String> = None;
        loop {
            let mut request = client.request(method.clone(), url.clone()).headers(self.headers.clone());
            request = request.header("Approov-Token", &token);
            if let Some(key) = &key {
                let body = self.body.as_deref();
                let about = Proven { method: method.as_str(), url, body, nonce: nonce.as_deref() };
                request = request.header("DPoP", key.proof(&token, &about)?);
            }
            if let Some(body) = &self.body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(|error| no_response(url, &error))?;
            let offered = response.headers().get("DPoP-Nonce").and_then(|value| value.to_str().ok()).map(str::to_owned);
            if nonce.is_none()
                && key.is_some()
                && error_of(&response).as_deref() == Some("use_dpop_nonce")
                && offered.is_some()
            {
                nonce = offered;
                continue;
            }
            return show(response, nonce.is_some(), console).await;
        }
    }
}

/// Whoever reads it has to know what failed, which a library says in the causes of its errors.
fn no_response(url: &Url, error: &reqwest::Error) -> String {
    let mut text = format!("{}: no response", url.origin().ascii_serialization());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The `error` of the challenge in a 401 (RFC 9449 section 7.1).
fn error_of(response: &Response) -> Option<String> {
    let challenge = response.headers().get("WWW-Authenticate")?.to_str().ok()?;
    let (_, rest) = challenge.split_once("error=\"")?;
    rest.split_once('"').map(|(error, _)| error.to_owned())
}

async fn show(mut response: Response, again: bool, console: &mut Console<'_>) -> CliResult {
    let (status, error) = (response.status(), error_of(&response));
    let mut head = format!("{:?} {status}\n", response.version());
    for (name, value) in response.headers() {
        let _ = writeln!(head, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    console.say(&head)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| format!("the body broke off: {error}"))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_SHOWN {
            body.truncate(MAX_SHOWN);
            break;
        }
    }
    if !body.is_empty() {
        console.say(&String::from_utf8_lossy(&body))?;
    }
    if again {
        console.say("(sent twice: the backend asked for its nonce)")?;
    }
    if status.as_u16() < 400 {
        return Ok(());
    }
    let meaning = match error.as_deref() {
        Some("invalid_token") => {
            ": the backend does not accept the token: another secret, another account, expired, or bound to something else"
        }
        Some("invalid_dpop_proof") => {
            ": the backend does not accept the proof: its public URL is another, its clock differs, or it saw another body"
        }
        Some("use_dpop_nonce") => ": the backend asks for a nonce, and did not accept its own",
        _ => "",
    };
    Err(Failure::Refused(format!("status {status}{meaning}")))
}

/// `Name: value`, as curl takes it.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let wrong = || Failure::Usage(format!("-header must be 'Name: value', got \"{text}\""));
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
    if name == "approov-token" || name == "dpop" {
        return Err(Failure::Usage(format!("-header: {name} is what this command makes")));
    }
    Ok((name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?))
}

/// A body: itself, `@FILE`, or `-` for standard input.
fn body(text: String, console: &mut Console<'_>) -> Result<Vec<u8>, Failure> {
    if text == "-" {
        let mut body = Vec::new();
        console.input.read_to_end(&mut body).map_err(|error| format!("-data -: {error}"))?;
        return Ok(body);
    }
    match text.strip_prefix('@') {
        Some(path) => Ok(std::fs::read(path).map_err(|error| format!("-data @{path}: {error}"))?),
        None => Ok(text.into_bytes()),
    }
}
