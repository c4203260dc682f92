//! The body of a success, and the tokens in it.

use std::collections::{BTreeMap, BTreeSet};

use approov_verify::secret::Secret;

use crate::check::Provider;
use crate::config::Account;
use crate::crypto::{CryptoError, JweEntropy};
use crate::session::{CheckResult, Session};
use crate::token::{self, Claims, Confirmation, Embed, Signer, arc_text};

use super::{Attest, AttestRequest};

/// The body of a success.
#[derive(Debug)]
pub struct Granted {
    /// Tokens by API, named as the client named it.
    pub tokens: BTreeMap<String, String>,
    /// Lifetime of the tokens, seconds.
    pub token_lifetime: u64,
    /// The session.
    pub refresh_token: String,
    /// Ends of session and results, Unix milliseconds, service clock.
    pub expiries: BTreeMap<String, i64>,
    /// The service's clock, Unix milliseconds.
    pub server_time: i64,
    /// Whether the checks passed; the client does not learn it.
    pub passed: bool,
    /// Whether a check was made for this request.
    pub checked: bool,
}

/// The longest token that is made, bytes. nginx and Apache take no longer header line than 8 KiB by default.
pub(super) const MAX_TOKEN_BYTES: usize = 8_000;

/// Enough for the body of a success with a token or two, bytes.
const BODY_CAPACITY: usize = 2048;

impl Granted {
    /// What became of the request, for the log and the counters.
    pub fn outcome(&self) -> &'static str {
        match (self.passed, self.checked) {
            (false, _) => "failed-check",
            (true, true) => "token",
            (true, false) => "refreshed",
        }
    }

    /// The body, as JSON. Tokens are base64url and dots, so nothing in them needs escapes.
    ///
    /// # Errors
    /// Never for what a service grants; the type is that of writing any value.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut body = Vec::with_capacity(BODY_CAPACITY);
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

impl Attest<'_> {
    /// The watched checks that would have failed, by their key in `embed`; those without a result by their prefix.
    fn watched(&self, account: &Account, session: &Session) -> Vec<String> {
        let has = |provider: Provider| session.results.iter().any(|result| result.provider == provider);
        let would_fail = session.results.iter().filter(|result| result.would_fail == 1).map(CheckResult::embed_key);
        let without = account.watched_missing(has).into_iter().chain(self.not_made.iter().copied());
        let without: BTreeSet<&str> = without.map(Provider::prefix).collect();
        would_fail.chain(without.into_iter().map(str::to_owned)).collect()
    }

    /// Makes what a session is granted.
    pub(super) fn grant(
        &mut self,
        request: &AttestRequest<'_>,
        session: &Session,
        thumbprint: &str,
        checked: bool,
    ) -> Result<Granted, CryptoError> {
        let (account, incoming) = (request.account, self.incoming);
        let keys = self.active.keys(account)?;
        let passed = session.passed(account.has_enforced());
        let monitor = self.watched(account, session);
        let arc = arc_text(incoming.entropy.arc);
        let mut tokens = BTreeMap::new();
        for (name, api) in &request.targets {
            let claims = Claims {
                iss: account.issuer.as_deref(),
                aud: api.audience.as_deref(),
                exp: incoming.now.plus(account.token_lifetime).as_secs(),
                iat: incoming.now.as_secs(),
                ip: incoming.client_ip,
                arc: &arc,
                embed: Embed { results: &session.results, full: &[] },
                pay: request.pay.as_deref(),
                cnf: Confirmation { jkt: thumbprint },
                monitor: &monitor,
            };
            let signer = keys.signer(api, passed, incoming.now)?;
            let token =
                if api.jwe { encrypted(signer, &claims, keys.jwe(incoming.now)?)? } else { signer.sign(&claims)? };
            tokens.insert((*name).to_owned(), token);
        }
        let mut expiries: BTreeMap<String, i64> =
            session.results.iter().map(|result| (result.embed_key(), result.expires)).collect();
        expiries.insert("session".to_owned(), session.expiry());
        self.notes.arc = Some(arc);
        Ok(Granted {
            tokens,
            token_lifetime: account.token_lifetime.as_secs(),
            refresh_token: keys.refresh.seal(session, incoming.entropy.refresh, incoming.now)?,
            expiries,
            server_time: incoming.now.as_millis(),
            passed,
            checked,
        })
    }
}

/// An encrypted token with as many full results as fit in [`MAX_TOKEN_BYTES`]: the longest go first.
fn encrypted(signer: &Signer, claims: &Claims<'_>, secret: &Secret) -> Result<String, CryptoError> {
    let results = claims.embed.results;
    let mut full: Vec<bool> = results.iter().map(|result| result.full.is_some()).collect();
    loop {
        let padding =
            results.iter().zip(&full).filter(|(_, full)| **full).map(|(result, _)| usize::from(result.padding));
        let embed = Embed { results, full: &full };
        let text = token::padded_claims(&Claims { embed, ..*claims }, padding.sum())?;
        let fits = token::encrypted_length(signer.signed_length(text.len())) <= MAX_TOKEN_BYTES;
        let candidates = results.iter().zip(&mut full).filter(|(_, full)| **full && !fits);
        match candidates.max_by_key(|(result, _)| full_length(result)) {
            Some((_, full)) => *full = false,
            None => return token::encrypt(&signer.sign_text(&text)?, secret, JweEntropy::draw()?),
        }
    }
}

/// The length that a full result has, whether its check passed or not.
fn full_length(result: &CheckResult) -> usize {
    let text = result.full.as_ref().and_then(|full| serde_json::to_string(full).ok());
    text.map_or(0, |text| text.len()) + usize::from(result.padding)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

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
}
