//! Examples for backends: a token like those of the web channel, and proofs of its key.

use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use url::Url;

use crate::config::{Account, Api};
use crate::crypto::{CryptoError, JweEntropy, KeyAlg, KeyPair, PublicParts, random};
use crate::secrets::{KeptSecret, ProcessEnvironment};
use crate::token::{Signer, arc_text, encrypt};

/// What signs and encrypts it.
pub(super) struct Keys {
    signer: Signer,
    jwe: Option<Secret>,
    issuer: Option<String>,
    audience: Option<String>,
}

/// The key that a token is bound to.
pub(super) struct ProofKey {
    pair: KeyPair,
    jwk: Value,
}

/// What a proof is about.
pub(super) struct Proven<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a Url,
    pub(super) body: Option<&'a [u8]>,
    pub(super) nonce: Option<&'a str>,
}

impl Keys {
    /// Those of an API of an account.
    pub(super) fn of_api(account: &Account, api: &Api, valid: bool) -> Result<Self, String> {
        let now = UnixTime::now();
        let key = api.keyset_kid.as_ref().and_then(|kid| account.keys.get(kid));
        let key = key.map(|key| key.resolve(&ProcessEnvironment)).transpose().map_err(|error| error.to_string())?;
        let kid = account.secret_kid.as_deref();
        let signer = match key {
            Some(key) if valid => Signer::Key(key),
            Some(key) => Signer::Key(key.with_pair(key.pair().generate_similar().map_err(failed)?)),
            None if valid => Signer::hs256(&resolve(account.secret.making(now))?, kid),
            None => Signer::hs256(&unknown_secret()?, kid),
        };
        let jwe = account.jwe_secret.as_ref().filter(|_| api.jwe).map(|secrets| resolve(secrets.making(now)));
        let (issuer, audience) = (account.issuer.clone(), api.audience.clone());
        Ok(Self { signer, jwe: jwe.transpose()?, issuer, audience })
    }

    /// An account's secret alone.
    pub(super) fn of_secret(secret: &Secret, valid: bool) -> Result<Self, String> {
        let signer = if valid { Signer::hs256(secret, None) } else { Signer::hs256(&unknown_secret()?, None) };
        Ok(Self { signer, jwe: None, issuer: None, audience: None })
    }

    /// A token like those of the web channel, good for an hour, bound to this data and this key.
    pub(super) fn token(&self, data: Option<&[u8]>, key: Option<&ProofKey>) -> Result<String, String> {
        let now = UnixTime::now().as_secs();
        let mut claims = Map::from_iter([
            ("exp".to_owned(), json!(now + 3600)),
            ("iat".to_owned(), json!(now)),
            ("ip".to_owned(), json!("1.2.3.4")),
            ("arc".to_owned(), json!(arc_text(random().map_err(failed)?))),
            ("embed".to_owned(), json!({})),
        ]);
        let named = [("iss", &self.issuer), ("aud", &self.audience)];
        claims.extend(named.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into()))));
        if let Some(data) = data {
            claims.insert("pay".to_owned(), STANDARD.encode(digest(&SHA256, data)).into());
        }
        if let Some(key) = key {
            claims.insert("cnf".to_owned(), json!({ "jkt": key.thumbprint() }));
        }
        let jws = self.signer.sign(&claims).map_err(failed)?;
        match &self.jwe {
            Some(secret) => encrypt(&jws, secret, JweEntropy::draw().map_err(failed)?).map_err(failed),
            None => Ok(jws),
        }
    }
}

impl ProofKey {
    pub(super) fn generate() -> Result<Self, String> {
        let pair = KeyPair::generate(KeyAlg::Es256).map_err(failed)?;
        let jwk = match pair.public_parts().map_err(failed)? {
            PublicParts::P256 { x, y } => {
                let text = |coordinate: &[u8]| URL_SAFE_NO_PAD.encode(coordinate);
                json!({"crv": "P-256", "kty": "EC", "x": text(x), "y": text(y)})
            }
            PublicParts::Rsa { .. } => return Err("the key is not one for proofs".to_owned()),
        };
        Ok(Self { pair, jwk })
    }

    /// RFC 7638: the members that there are, in this order.
    fn thumbprint(&self) -> String {
        hash(self.jwk.to_string().as_bytes())
    }

    /// A proof (RFC 9449 section 4.2) as the SDK makes it, with the hashes of query and body.
    pub(super) fn proof(&self, token: &str, about: &Proven<'_>) -> Result<String, String> {
        let mut htu = about.url.clone();
        htu.set_query(None);
        htu.set_fragment(None);
        let mut claims = json!({
            "jti": URL_SAFE_NO_PAD.encode(random::<16>().map_err(failed)?), "htm": about.method, "htu": htu.as_str(),
            "iat": UnixTime::now().as_secs(), "ath": hash(token.as_bytes()),
        });
        let query = about.url.query().filter(|query| !query.is_empty()).map(|query| hash(query.as_bytes()));
        let more = [("htq", query), ("msgs", about.body.map(hash)), ("nonce", about.nonce.map(str::to_owned))];
        if let Some(claims) = claims.as_object_mut() {
            claims.extend(more.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))));
        }
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk});
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", encoded(&header), encoded(&claims));
        let signature = self.pair.sign(input.as_bytes()).map_err(failed)?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The URL of a request.
pub(super) fn request_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| format!("URL must be one such as https://api.example.com/shapes, got \"{text}\""))
}

/// The method of a request. Methods are case-sensitive, and the usual ones are in capitals.
pub(super) fn request_method(text: &str) -> Result<reqwest::Method, String> {
    let method = text.to_ascii_uppercase().parse::<reqwest::Method>();
    method.map_err(|_| format!("METHOD must be one such as GET, got \"{text}\""))
}

fn hash(data: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, data))
}

fn unknown_secret() -> Result<Secret, String> {
    Ok(Secret::from_bytes(random::<64>().map_err(failed)?.to_vec()))
}

fn failed(error: CryptoError) -> String {
    error.to_string()
}

pub(super) fn resolve(secret: &KeptSecret) -> Result<Secret, String> {
    secret.resolve(&ProcessEnvironment).map_err(|error| error.to_string())
}
