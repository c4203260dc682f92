//! The cases of the conformance kit, and a verifier for each.

use approov_verify::jws::Algorithm;
use approov_verify::keyset::KeySet;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use approov_verify::token::Channel;
use approov_verify::{
    Body, Error, MessagePolicy, NoncePolicy, ProofPolicy, PublicUrl, QueryPolicy, Request, Verified, Verifier,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) earlier: Vec<RequestData>,
    pub(crate) request: RequestData,
    pub(crate) error: Option<String>,
    pub(crate) challenge: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) keys: Option<String>,
    pub(crate) algorithms: Option<Vec<String>>,
    pub(crate) jwe: bool,
    pub(crate) require_encryption: bool,
    pub(crate) require_binding: bool,
    pub(crate) channel: Option<String>,
    pub(crate) proof: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) query: Option<String>,
    pub(crate) nonce: Option<String>,
    pub(crate) accepted_nonce: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) allow_debug_tokens: bool,
    pub(crate) bound_to_header: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestData {
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) url: String,
    /// In place of `url`: what a server received, and where its clients find it.
    #[serde(default)]
    pub(crate) target: Option<String>,
    #[serde(default)]
    pub(crate) public_url: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<String>,
    pub(crate) binding: Option<String>,
}

impl Config {
    pub(crate) fn verifier(&self, secret: &str, jwe_secret: &str, keyset: &KeySet) -> Verifier {
        let keys = self.keys.as_deref().unwrap_or("secret");
        let mut builder = Verifier::builder();
        if matches!(keys, "secret" | "both") {
            builder = builder.secret_base64(secret);
        }
        if matches!(keys, "keyset" | "both") {
            builder = builder.keyset(keyset.clone());
        }
        if let Some(names) = &self.algorithms {
            let all = [Algorithm::Hs256, Algorithm::Es256, Algorithm::Rs256];
            builder = builder.algorithms(all.into_iter().filter(|known| names.iter().any(|name| known.name() == name)));
        }
        if self.jwe {
            builder = builder.jwe_secret(&Secret::from_base64(jwe_secret).unwrap());
        }
        if self.require_encryption {
            builder = builder.require_encryption();
        }
        if self.require_binding {
            builder = builder.require_binding();
        }
        if let Some(channel) = &self.channel {
            builder = builder.channel(if channel == "web" { Channel::Web } else { Channel::Mobile });
        }
        builder = builder.proof(match self.proof.as_deref() {
            None => ProofPolicy::WhenBound,
            Some("required") => ProofPolicy::Required,
            Some("optional") => ProofPolicy::Optional,
            Some(other) => panic!("{other}"),
        });
        builder = builder.message(match self.message.as_deref() {
            None => MessagePolicy::WhenPresent,
            Some("required") => MessagePolicy::Required,
            Some("ignored") => MessagePolicy::Ignored,
            Some(other) => panic!("{other}"),
        });
        builder = builder.query(match self.query.as_deref() {
            None => QueryPolicy::WhenPresent,
            Some("required") => QueryPolicy::Required,
            Some("ignored") => QueryPolicy::Ignored,
            Some(other) => panic!("{other}"),
        });
        builder = builder.nonce(match self.nonce.as_deref() {
            None => NoncePolicy::UniqueWhenDemanded,
            Some("required") => NoncePolicy::UniqueRequired,
            Some("ignored") => NoncePolicy::Ignored,
            Some(other) => panic!("{other}"),
        });
        if let Some(accepted) = self.accepted_nonce.clone() {
            builder = builder.nonce_check(move |nonce| *nonce == accepted);
        }
        if let Some(issuer) = &self.issuer {
            builder = builder.issuer(issuer);
        }
        if let Some(audience) = &self.audience {
            builder = builder.audience(audience);
        }
        if self.allow_debug_tokens {
            builder = builder.allow_debug_tokens();
        }
        for name in &self.bound_to_header {
            builder = builder.bound_to_header(name.parse().unwrap());
        }
        builder.build().unwrap()
    }
}

impl RequestData {
    fn url(&self) -> String {
        match (&self.public_url, &self.target) {
            (Some(public_url), Some(target)) => {
                PublicUrl::parse(public_url).unwrap().request_url(target).unwrap_or_default()
            }
            _ => self.url.clone(),
        }
    }

    pub(crate) async fn check(&self, verifier: &Verifier, now: UnixTime) -> Result<Verified, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let request = Request {
            method: &self.method,
            url: &self.url(),
            headers: &headers,
            body: self.body.as_ref().map_or(Body::Unread, |body| Body::Bytes(body.as_bytes())),
            binding: self.binding.as_ref().map(String::as_bytes),
        };
        verifier.verify(&request, now).await
    }
}
