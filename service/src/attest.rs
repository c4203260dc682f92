//! The flow of an attest request: parameters and proof, session, checks, tokens.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use approov_verify::dpop::{DpopError, Expected, Nonce, Proof};
use approov_verify::time::UnixTime;
use approov_verify::uri::HttpUri;
use futures_util::future::join_all;
use serde_json::{Map, Value};

use crate::check::Checked;
use crate::config::{Account, Site};
use crate::entropy::{RequestEntropy, arc_text};
use crate::error::{Code, Problems, Refusal};
use crate::lookup::Asker;
use crate::params::{self, AttestRequest, Form, FreshResult};
use crate::provider::Provider;
use crate::service::{Live, Service};
use crate::session::{CheckResult, Session};
use crate::store::{Issued, Seen, Store as _, StoreError, seconds_to_next_minute};
use crate::time::Moment;
use crate::token::{self, Claims, Confirmation, Embed, JweEntropy, TokenError};

/// The nonce proves that a proof is fresh, so its `iat` may be off by as much as clocks are: a wrong
/// clock in the browser must not lock its user out.
const ANY_CLOCK: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The `Retry-After` when the store is away, seconds.
const STORE_RETRY: u64 = 1;

/// What a request brought, apart from its parameters.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// URL as the browser sees it.
    pub url: &'a HttpUri,
    /// Every `DPoP` header.
    pub proofs: &'a [&'a str],
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// The browser's address.
    pub client_ip: IpAddr,
    /// When it came.
    pub now: Moment,
    /// Its random bytes.
    pub entropy: RequestEntropy,
}

/// Notes for the log, beyond what the client is told.
#[derive(Default)]
pub struct Trace {
    /// `service: result` of each check made.
    pub checks: Vec<String>,
    /// The `arc` claim.
    pub arc: Option<String>,
    /// Why a proof was refused, or what went wrong inside.
    pub detail: Option<String>,
}

/// The body of a success.
#[derive(Debug)]
pub struct Granted {
    /// Tokens by API, named as the client named it.
    pub tokens: BTreeMap<String, String>,
    /// Life of the tokens, seconds.
    pub token_lifetime: u64,
    /// The session.
    pub refresh_token: String,
    /// Ends of session and results, Unix milliseconds, service clock.
    pub expiries: BTreeMap<String, u64>,
    /// The service's clock, Unix milliseconds.
    pub server_time: u64,
    /// Whether the checks passed; the client is not told.
    pub passed: bool,
    /// Whether a check was made for this request.
    pub checked: bool,
}

/// Room for the body of a success with a token or two.
const BODY_ROOM: usize = 2048;

impl Granted {
    /// The body, as JSON. Tokens are base64url and dots, so nothing in them is looked at for escapes.
    ///
    /// # Errors
    /// Never for what a service grants; the type is that of writing any value.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut body = Vec::with_capacity(BODY_ROOM);
        body.extend(b"{\"tokens\":");
        for (at, (name, token)) in self.tokens.iter().enumerate() {
            body.push(if at == 0 { b'{' } else { b',' });
            serde_json::to_writer(&mut body, name)?;
            body.push(b':');
            quoted(&mut body, token);
        }
        body.extend(if self.tokens.is_empty() { b"{}".as_slice() } else { b"}" });
        body.extend(b",\"token-lifetime\":");
        serde_json::to_writer(&mut body, &self.token_lifetime)?;
        body.extend(b",\"refresh-token\":");
        quoted(&mut body, &self.refresh_token);
        body.extend(b",\"expiries\":");
        serde_json::to_writer(&mut body, &self.expiries)?;
        body.extend(b",\"server-time\":");
        serde_json::to_writer(&mut body, &self.server_time)?;
        body.push(b'}');
        Ok(body)
    }
}

fn quoted(body: &mut Vec<u8>, token: &str) {
    body.push(b'"');
    body.extend_from_slice(token.as_bytes());
    body.push(b'"');
}

/// Answers a nonce request: the proof must be sound, but needs no nonce yet.
///
/// # Errors
/// `aprv-invalid-dpop-token`.
pub fn check_nonce_request(incoming: &Incoming<'_>, trace: &mut Trace) -> Result<(), Refusal> {
    let proof = single_proof(incoming, trace)?;
    check_proof(&proof, incoming, Nonce::Ignored, trace)
}

/// Answers an attest request.
///
/// # Errors
/// Every reason that can be found at once.
pub async fn attest(
    service: &Service,
    live: &Live,
    form: Result<Form<'_>, Refusal>,
    incoming: &Incoming<'_>,
    trace: &mut Trace,
) -> Result<Granted, Refusal> {
    let mut problems = Problems::default();
    let form = form.as_ref();
    let request = match form {
        Ok(form) => AttestRequest::read(form, &live.config.accounts, incoming.origin, &mut problems),
        Err(refusal) => {
            problems.extend(refusal.clone());
            None
        }
    };
    let proof = match fresh_proof(live, incoming, trace) {
        Ok(proof) => Some(proof),
        Err(refusal) => {
            problems.extend(refusal);
            None
        }
    };
    problems.into_result()?;
    let (Some(request), Some((proof, nonce))) = (request, proof) else {
        return Err(unavailable("the request was not understood", None));
    };
    let thumbprint = proof.thumbprint().to_string();
    let plan = Plan::make(live, &request, &thumbprint, incoming.now)?;

    // Up to here nothing has changed anywhere. From here the proof is used up.
    match service.store.remember(proof.replay_key(), nonce, incoming.now).await {
        Ok(Seen::First) => {}
        Ok(Seen::Again) => {
            return Err(Refusal::new(Code::InvalidDpopToken, "the proof was used before"));
        }
        Ok(Seen::Forgotten) => return Err(Refusal::new(Code::InvalidNonce, "")),
        Err(error) => return Err(store_away(service, &error, trace)),
    }
    let fresh = if plan.to_check.is_empty() {
        Vec::new()
    } else {
        // Rare beside refreshes, so on the heap: every request makes room for what may be awaited here.
        Box::pin(async {
            limit_rates(service, &plan, request.account, incoming.now, trace).await?;
            run_checks(service, &plan, request.account, incoming, trace).await
        })
        .await?
    };
    let checked = !fresh.is_empty();
    let session = plan.session(fresh);
    let granted = grant(live, &request, &session, &thumbprint, incoming, checked, trace).map_err(|_| {
        trace.detail = Some("tokens could not be made".to_owned());
        unavailable("tokens could not be made", None)
    })?;
    let id = proof.thumbprint().as_bytes().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte));
    service.metrics.session(id, incoming.now);
    Ok(granted)
}

fn single_proof(incoming: &Incoming<'_>, trace: &mut Trace) -> Result<Proof, Refusal> {
    match incoming.proofs {
        [proof] => Proof::parse(proof).map_err(|error| bad_proof(error, trace)),
        [] => Err(Refusal::new(Code::InvalidDpopToken, "the DPoP header is missing")),
        _ => Err(Refusal::new(Code::InvalidDpopToken, "more than one DPoP header")),
    }
}

fn bad_proof(error: DpopError, trace: &mut Trace) -> Refusal {
    trace.detail = Some(error.code().to_owned());
    match error {
        DpopError::NonceMissing | DpopError::Nonce => Refusal::new(Code::InvalidNonce, ""),
        _ => Refusal::new(Code::InvalidDpopToken, error.to_string()),
    }
}

fn check_proof(proof: &Proof, incoming: &Incoming<'_>, nonce: Nonce<'_>, trace: &mut Trace) -> Result<(), Refusal> {
    proof
        .check(&Expected {
            method: incoming.method,
            url: incoming.url,
            nonce,
            access_token: None,
            thumbprint: None,
            now: UnixTime::from_millis(i64::try_from(incoming.now.as_millis()).unwrap_or(i64::MAX)),
            max_age: ANY_CLOCK,
            clock_skew: ANY_CLOCK,
        })
        .map_err(|error| bad_proof(error, trace))
}

/// The proof of an attest request, with when and where its nonce was issued.
fn fresh_proof(live: &Live, incoming: &Incoming<'_>, trace: &mut Trace) -> Result<(Proof, Issued), Refusal> {
    let proof = single_proof(incoming, trace)?;
    let issued = Cell::new(None);
    let accepts = |nonce: &Value| {
        issued.set(nonce.as_str().and_then(|nonce| live.check_nonce(nonce, incoming.now)));
        issued.get().is_some()
    };
    check_proof(&proof, incoming, Nonce::Checked(&accepts), trace)?;
    match issued.get() {
        Some(issued) => Ok((proof, issued)),
        None => Err(Refusal::new(Code::InvalidNonce, "")),
    }
}

/// What a request needs done: which results stand, and which have to be checked.
struct Plan {
    session: Session,
    to_check: Vec<FreshResult>,
}

impl Plan {
    fn make(live: &Live, request: &AttestRequest<'_>, thumbprint: &str, now: Moment) -> Result<Self, Refusal> {
        let account = request.account;
        let invalid = |why: &str| Refusal::new(Code::InvalidRefreshToken, why);
        let mut session = match &request.refresh_token {
            None => Session {
                thumbprint: thumbprint.to_owned(),
                expires: now.after(account.refresh_token_lifetime).as_millis(),
                results: Vec::new(),
            },
            Some(token) => live
                .keys(account)
                .ok()
                .and_then(|keys| keys.refresh.open(token, &account.site_key, thumbprint, now))
                .ok_or_else(|| invalid(""))?,
        };
        let mut to_check = Vec::new();
        for fresh in &request.results {
            let same = |known: &CheckResult| {
                known.provider == fresh.provider && known.site == fresh.site && known.digest == fresh.digest
            };
            if !session.results.iter().any(same) {
                session.results.retain(|known| known.provider != fresh.provider);
                to_check.push(fresh.clone());
            }
        }
        for known in &session.results {
            if known.expires <= now.as_millis() {
                return Err(invalid("a check result has reached the end of its life"));
            }
            if account.site(known.provider, &known.site).is_none() {
                return Err(invalid("a check result is of a site that the account no longer has"));
            }
        }
        let mut problems = Problems::default();
        for provider in Provider::ALL {
            let there = session.results.iter().any(|known| known.provider == provider)
                || to_check.iter().any(|fresh| fresh.provider == provider);
            if !there {
                params::require(provider, Some(account), &mut problems);
            }
        }
        problems.into_result()?;
        Ok(Self { session, to_check })
    }

    fn sites<'a>(&'a self, account: &'a Account) -> impl Iterator<Item = (&'a FreshResult, &'a Site)> {
        self.to_check.iter().filter_map(|fresh| Some((fresh, account.site(fresh.provider, &fresh.site)?)))
    }

    fn session(self, fresh: Vec<CheckResult>) -> Session {
        let mut session = self.session;
        session.results.extend(fresh);
        session
    }
}

async fn limit_rates(
    service: &Service,
    plan: &Plan,
    account: &Account,
    now: Moment,
    trace: &mut Trace,
) -> Result<(), Refusal> {
    for (fresh, site) in plan.sites(account) {
        let Some(limit) = site.rate_limit else {
            continue;
        };
        let name = format!("{}:{}:{}", account.site_key, fresh.provider.prefix(), fresh.site);
        match service.store.count(&name, limit, now).await {
            Ok(true) => {}
            Ok(false) => {
                let mut refusal =
                    Refusal::new(Code::RateLimit, format!("{}: {limit} per minute", fresh.provider.prefix()));
                refusal.retry_after = Some(seconds_to_next_minute(now));
                return Err(refusal);
            }
            Err(error) => return Err(store_away(service, &error, trace)),
        }
    }
    Ok(())
}

async fn run_checks(
    service: &Service,
    plan: &Plan,
    account: &Account,
    incoming: &Incoming<'_>,
    trace: &mut Trace,
) -> Result<Vec<CheckResult>, Refusal> {
    let page_host = incoming.origin.and_then(|origin| url::Url::parse(origin).ok());
    let page_host = page_host.as_ref().and_then(url::Url::host_str).unwrap_or_default();
    let client_ip = incoming.client_ip.to_string();
    let asker = Asker { client_ip: &client_ip, page_host };
    let checks = plan.sites(account).map(|(fresh, site)| async move {
        let begun = Instant::now();
        let outcome = service.lookup.check(fresh, site, asker).await;
        let result = match &outcome {
            Ok(Checked { verdict: Ok(()), .. }) => "passed",
            Ok(Checked { verdict: Err(fault), .. }) => fault.name(),
            Err(_) => "error",
        };
        service.metrics.check(fresh.provider.name(), result, begun.elapsed());
        (fresh, site, result, outcome)
    });
    let mut problems = Problems::default();
    let mut results = Vec::new();
    for (fresh, site, result, outcome) in join_all(checks).await {
        trace.checks.push(format!("{}: {result}", fresh.provider.name()));
        match outcome {
            Err(error) => problems.add(fresh.provider.codes().check, error.0),
            Ok(checked) => results.push(CheckResult {
                provider: fresh.provider,
                site: fresh.site.clone(),
                digest: fresh.digest.clone(),
                expires: incoming
                    .now
                    .after(site.max_result_lifetime.unwrap_or(account.refresh_token_lifetime))
                    .as_millis(),
                passed: u8::from(checked.verdict.is_ok()),
                brief: checked.brief,
                full: site.embed_result.then_some(checked.full).filter(fits_session),
            }),
        }
    }
    problems.into_result()?;
    Ok(results)
}

/// The longest result that a session carries whole, bytes of JSON. A longer one would make the refresh token
/// too long to come back; tokens then embed the brief form.
const LONGEST_RESULT: usize = 8 * 1024;

fn fits_session(full: &Map<String, Value>) -> bool {
    serde_json::to_string(full).is_ok_and(|text| text.len() <= LONGEST_RESULT)
}

fn grant(
    live: &Live,
    request: &AttestRequest<'_>,
    session: &Session,
    thumbprint: &str,
    incoming: &Incoming<'_>,
    checked: bool,
    trace: &mut Trace,
) -> Result<Granted, TokenError> {
    let account = request.account;
    let keys = live.keys(account)?;
    let passed = session.passed();
    let arc = arc_text(incoming.entropy.arc);
    let mut tokens = BTreeMap::new();
    for (name, api) in &request.targets {
        let jwe_secret = account.jwe_secret.as_ref().filter(|_| api.jwe);
        let claims = Claims {
            exp: incoming.now.after(account.token_lifetime).as_secs(),
            iat: incoming.now.as_secs(),
            ip: incoming.client_ip,
            arc: &arc,
            embed: Embed { results: &session.results, whole: jwe_secret.is_some() },
            pay: request.pay.as_deref(),
            cnf: Confirmation { jkt: thumbprint },
        };
        let jws = keys.signer(api, passed)?.sign(&claims)?;
        let token = match jwe_secret {
            None if api.jwe => return Err(TokenError),
            None => jws,
            Some(secret) => token::encrypt(&jws, secret, JweEntropy::draw()?)?,
        };
        tokens.insert((*name).to_owned(), token);
    }
    let mut expiries: BTreeMap<String, u64> =
        session.results.iter().map(|result| (result.embed_key(), result.expires)).collect();
    expiries.insert("session".to_owned(), session.ends());
    trace.arc = Some(arc);
    Ok(Granted {
        tokens,
        token_lifetime: account.token_lifetime.as_secs(),
        refresh_token: keys.refresh.seal(session, &account.site_key, incoming.entropy.refresh)?,
        expiries,
        server_time: incoming.now.as_millis(),
        passed,
        checked,
    })
}

fn store_away(service: &Service, error: &StoreError, trace: &mut Trace) -> Refusal {
    service.metrics.store_error();
    trace.detail = Some(error.to_string());
    unavailable("the shared store is away", Some(STORE_RETRY))
}

fn unavailable(why: &str, retry_after: Option<u64>) -> Refusal {
    let mut refusal = Refusal::new(Code::Unavailable, why);
    refusal.retry_after = retry_after;
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_is_json_whatever_its_apis_are_called() {
        for names in [vec![], vec!["a.example"], vec!["a.example", "quo\"te\\"]] {
            let granted = Granted {
                tokens: names.iter().map(|name| ((*name).to_owned(), "e30.e30.c2ln".to_owned())).collect(),
                token_lifetime: 120,
                refresh_token: "AQ-_".to_owned(),
                expiries: BTreeMap::from([("hcap:key".to_owned(), 1), ("session".to_owned(), 2)]),
                server_time: 3,
                passed: true,
                checked: false,
            };
            let tokens: Map<String, Value> =
                names.iter().map(|name| ((*name).to_owned(), "e30.e30.c2ln".into())).collect();
            let expected = serde_json::json!({
                "tokens": tokens, "token-lifetime": 120, "refresh-token": "AQ-_",
                "expiries": {"hcap:key": 1, "session": 2}, "server-time": 3,
            });
            let read: Value = serde_json::from_slice(&granted.to_json().unwrap()).unwrap();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_result_too_long_for_the_refresh_token_is_not_carried_whole() {
        let result = |length: usize| Map::from_iter([("tag".to_owned(), Value::from("x".repeat(length)))]);
        assert!(fits_session(&result(8000)));
        assert!(!fits_session(&result(8200)));
    }
}
