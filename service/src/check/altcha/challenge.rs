//! Challenges of ALTCHA's protocol v2 (altcha.org), made and verified by its official library: a proof of work that needs
//! nobody's server but ours.
//!
//! A challenge says in its signed part what it is for, whose site it is of, which key may solve it and in which epoch of the
//! store it was issued. Nothing of it is kept: what was solved is remembered as used, and what the store may have forgotten
//! is of another epoch.

use std::collections::BTreeMap;
use std::time::Duration;

use altcha::{Challenge, CreateChallengeOptions, Payload, VerifySolutionOptions, create_challenge, verify_solution};
use approov_verify::jwk::Thumbprint;
use approov_verify::secret::Secret;
use approov_verify::time::UnixTime;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::crypto::{CryptoError, derive_key};
use crate::secrets::Timeline;
use crate::session::Epoch;

/// How long a challenge can be solved: as long as the nonce that it comes with.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_secs(600);

const ALGORITHM: &str = "PBKDF2/SHA-256";
const KEY_BYTES: usize = 32;

/// The members of a challenge's `data`.
const USE: &str = "use";
const SITE: &str = "site";
const HOLDER: &str = "jkt";
const EPOCH: &str = "epoch";

/// What a solution costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difficulty {
    /// PBKDF2 iterations of one try.
    pub cost: u32,
    /// Hexadecimal zeros that the right try's key begins with: each makes sixteen times as many tries.
    pub zeros: u8,
}

impl Difficulty {
    /// As much as `factor` times of it.
    #[must_use]
    pub fn times(self, factor: f32) -> Self {
        // Costs are far below what a float counts exactly.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let cost = (self.cost as f32 * factor.max(1.0)) as u32;
        Self { cost, ..self }
    }

    fn prefix(self) -> String {
        "0".repeat(self.zeros.into())
    }
}

/// What a challenge is issued for.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// The site, among those of all accounts.
    pub site: &'a str,
    /// Which key may send the solution; `None`: any.
    pub holder: Option<&'a Thumbprint>,
    /// The store's.
    pub epoch: Epoch,
    /// By a clock that is right.
    pub now: UnixTime,
}

/// A solution that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solved {
    /// When its challenge was issued.
    pub issued: UnixTime,
}

/// Why a solution does not count. The client is given another challenge, and told nothing else: it can verify its own
/// solutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsolved {
    /// Its time is over.
    Expired,
    /// It is not ours, of another site, key or epoch, or too easy by now.
    Unknown,
    /// It is wrong.
    Wrong,
    /// It was used before.
    Used,
}

impl Unsolved {
    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
            Self::Used => "used",
        }
    }

    /// Whether whoever sent it can only have made it up.
    pub fn is_made_up(self) -> bool {
        matches!(self, Self::Unknown | Self::Wrong)
    }
}

/// The keys that sign challenges.
pub struct ChallengeKeys(Timeline<Secret>);

impl ChallengeKeys {
    /// Derives the keys from the service's session secret.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn derive(session_secret: &Timeline<Secret>) -> Result<Self, CryptoError> {
        let derive =
            |secret: &Secret| Ok(Secret::from_bytes(derive_key(secret, &[b"approov-web-service altcha v1"])?.to_vec()));
        session_secret.try_map(derive).map(Self)
    }

    /// A fresh challenge.
    ///
    /// # Errors
    /// When the cryptographic module fails.
    pub fn issue(&self, terms: Terms<'_>, difficulty: Difficulty) -> Result<Challenge, CryptoError> {
        let mut data = BTreeMap::from([
            (USE.to_owned(), Value::from("check")),
            (SITE.to_owned(), terms.site.into()),
            // A text: browsers' numbers do not hold 64 bits.
            (EPOCH.to_owned(), format!("{:016x}", terms.epoch).into()),
        ]);
        data.extend(terms.holder.map(|holder| (HOLDER.to_owned(), holder.to_string().into())));
        let options = CreateChallengeOptions {
            algorithm: ALGORITHM.to_owned(),
            cost: difficulty.cost,
            key_prefix: difficulty.prefix(),
            key_length: KEY_BYTES,
            data: Some(data),
            expires_at: Some(terms.now.plus(CHALLENGE_LIFETIME).as_secs()),
            hmac_signature_secret: Some(key_of(self.0.making(terms.now), terms.site)?),
            ..CreateChallengeOptions::default()
        };
        create_challenge(options).map_err(|_| CryptoError)
    }

    /// Verifies a solution. What is least about it is looked at first; the work of a try, [`Difficulty::cost`], last.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify(&self, payload: &Payload, terms: Terms<'_>, least: Difficulty) -> Result<Solved, Unsolved> {
        let parameters = &payload.challenge.parameters;
        let expires = parameters.expires_at.ok_or(Unsolved::Unknown)?;
        if expires <= terms.now.as_secs() {
            return Err(Unsolved::Expired);
        }
        let said = |name: &str| parameters.data.as_ref().and_then(|data| data.get(name)).and_then(Value::as_str);
        let epoch = format!("{:016x}", terms.epoch);
        let holder = terms.holder.map(ToString::to_string);
        let is_ours = said(USE) == Some("check")
            && said(SITE) == Some(terms.site)
            && said(EPOCH) == Some(epoch.as_str())
            && said(HOLDER).is_none_or(|named| holder.as_deref() == Some(named));
        let is_enough = parameters.algorithm == ALGORITHM
            && parameters.key_length == KEY_BYTES
            && parameters.key_signature.is_none()
            && parameters.cost >= least.cost
            && parameters.cost <= MAX_COST
            && parameters.key_prefix.len() >= least.zeros.into()
            && parameters.key_prefix.bytes().all(|digit| digit == b'0');
        if !is_ours || !is_enough {
            return Err(Unsolved::Unknown);
        }
        for secret in self.0.opening(terms.now) {
            let key = key_of(secret, terms.site).map_err(|_| Unsolved::Unknown)?;
            let options = VerifySolutionOptions::new(&payload.challenge, &payload.solution, key);
            let Ok(result) = verify_solution(options) else { return Err(Unsolved::Wrong) };
            if result.verified {
                let issued = UnixTime::from_secs(expires).minus(CHALLENGE_LIFETIME);
                return Ok(Solved { issued });
            }
            if result.expired {
                return Err(Unsolved::Expired);
            }
            if result.invalid_signature == Some(false) {
                return Err(Unsolved::Wrong);
            }
        }
        Err(Unsolved::Unknown)
    }
}

/// The most that a try of our challenges costs; no other is looked at.
pub const MAX_COST: u32 = 100_000;

fn key_of(secret: &Secret, site: &str) -> Result<String, CryptoError> {
    Ok(URL_SAFE_NO_PAD.encode(*derive_key(secret, &[b"site ", site.as_bytes()])?))
}

/// Reads a payload as widgets and the SDK send it; `None` when it is none. Types are strict: a number is no text.
pub fn read_payload(text: &str) -> Option<Payload> {
    serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
}

/// What names a payload among all that can be made of a solution: its challenge.
pub fn challenge_id(payload: &Payload) -> &str {
    payload.challenge.signature.as_deref().unwrap_or_default()
}

/// Whether a challenge is bound to a key.
pub fn is_bound(payload: &Payload) -> bool {
    payload.challenge.parameters.data.as_ref().is_some_and(|data| data.contains_key(HOLDER))
}

#[cfg(test)]
mod tests {
    use altcha::{SolveChallengeOptions, solve_challenge};
    use serde_json::json;

    use super::*;

    const NOW: fn() -> UnixTime = UnixTime::now;
    const EASY: Difficulty = Difficulty { cost: 10, zeros: 1 };

    fn keys(byte: u8) -> ChallengeKeys {
        ChallengeKeys::derive(&Secret::from_bytes(vec![byte; 32]).into()).unwrap()
    }

    fn solve(challenge: Challenge) -> Payload {
        let solution = solve_challenge(SolveChallengeOptions::new(&challenge)).unwrap().unwrap();
        Payload { challenge, solution }
    }

    #[test]
    fn a_solution_counts_for_its_site_key_and_epoch_alone() {
        let (holder, other) = (Thumbprint::from_bytes([1; 32]), Thumbprint::from_bytes([2; 32]));
        let terms = Terms { site: "k:altcha:a", holder: Some(&holder), epoch: u64::MAX, now: NOW() };
        let payload = solve(keys(1).issue(terms, EASY).unwrap());
        let solved = keys(1).verify(&payload, terms, EASY).unwrap();
        assert_eq!(solved.issued.as_secs(), terms.now.as_secs());
        for (keys, terms, least) in [
            (keys(2), terms, EASY),
            (keys(1), Terms { site: "k:altcha:b", ..terms }, EASY),
            (keys(1), Terms { holder: Some(&other), ..terms }, EASY),
            (keys(1), Terms { holder: None, ..terms }, EASY),
            (keys(1), Terms { epoch: 5, ..terms }, EASY),
            (keys(1), terms, Difficulty { cost: 11, ..EASY }),
            (keys(1), terms, Difficulty { zeros: 2, ..EASY }),
        ] {
            assert_eq!(keys.verify(&payload, terms, least), Err(Unsolved::Unknown));
        }
        let late = Terms { now: terms.now.plus(CHALLENGE_LIFETIME), ..terms };
        assert_eq!(keys(1).verify(&payload, late, EASY), Err(Unsolved::Expired));
    }

    #[test]
    fn nothing_of_a_payload_can_be_altered() {
        let holder = Thumbprint::from_bytes([1; 32]);
        let terms = Terms { site: "s", holder: Some(&holder), epoch: 1, now: NOW() };
        let payload = serde_json::to_value(solve(keys(1).issue(terms, EASY).unwrap())).unwrap();
        let verify = |payload: &Value| {
            let payload = read_payload(&STANDARD.encode(payload.to_string()))?;
            Some(keys(1).verify(&payload, terms, Difficulty { cost: 1, zeros: 0 }).is_ok())
        };
        assert_eq!(verify(&payload), Some(true));
        for (pointer, value) in [
            ("/challenge/parameters/algorithm", json!("SHA-256")),
            ("/challenge/parameters/cost", json!(1)),
            ("/challenge/parameters/data/site", json!("t")),
            ("/challenge/parameters/data/use", json!("work")),
            ("/challenge/parameters/data/jkt", json!("x")),
            ("/challenge/parameters/data/epoch", json!("0000000000000002")),
            ("/challenge/parameters/expiresAt", json!(4_102_444_800_i64)),
            ("/challenge/parameters/keyLength", json!(1)),
            ("/challenge/parameters/keyPrefix", json!("")),
            ("/challenge/parameters/nonce", json!("00")),
            ("/challenge/parameters/salt", json!("00")),
            ("/challenge/signature", json!("00")),
            ("/solution/counter", json!(4_000_000_000_u32)),
            ("/solution/derivedKey", json!("00")),
        ] {
            let mut altered = payload.clone();
            *altered.pointer_mut(pointer).unwrap() = value;
            assert_eq!(verify(&altered), Some(false), "{pointer}");
        }
        // What has no place is not what is signed; types are what they are.
        for (pointer, value) in [
            ("/solution/counter", json!("7")),
            ("/solution/counter", json!(7.5)),
            ("/solution/counter", json!(-1)),
            ("/challenge/parameters/expiresAt", json!("4102444800")),
            ("/challenge/parameters/cost", json!("10")),
            ("/challenge/parameters", json!(null)),
            ("/challenge", json!(null)),
        ] {
            let mut altered = payload.clone();
            *altered.pointer_mut(pointer).unwrap() = value;
            assert_eq!(verify(&altered), None, "{pointer}");
        }
        for text in ["", "e30=", "bnVsbA==", "%%%", "eyJjaGFsbGVuZ2UiOm51bGwsInNvbHV0aW9uIjpudWxsLCJ0ZXN0Ijp0cnVlfQ=="]
        {
            assert!(read_payload(text).is_none(), "{text}");
        }
        let mut without_data = payload.clone();
        without_data.pointer_mut("/challenge/parameters").unwrap().as_object_mut().unwrap().remove("data");
        assert_eq!(verify(&without_data), Some(false));
        let mut without_expiry = payload;
        without_expiry.pointer_mut("/challenge/parameters").unwrap().as_object_mut().unwrap().remove("expiresAt");
        assert_eq!(verify(&without_expiry), Some(false));
    }

    // Made with the npm package altcha-lib 2.8.0, the reference implementation, and recomputed in Python: both read challenges
    // as our library does.
    #[test]
    fn the_library_agrees_with_the_reference_implementation() {
        let payload = json!({
            "challenge": {
                "parameters": {
                    "algorithm": "PBKDF2/SHA-256", "cost": 10, "expiresAt": 4_102_444_800_i64, "keyLength": 32,
                    "keyPrefix": "00", "nonce": "bb083bde1efef0629dd43cf119bef506",
                    "salt": "27fdb51d4721e934b61df8c1edc09bad",
                },
                "signature": "0c50ccb8be21d03c0a1d04ba87e15f19af788dbe2cd9e70f55ee3c1b9536eb22",
            },
            "solution": {
                "counter": 153, "derivedKey": "0065a6dac56df55bf8b2d69a0c80f2221e423f274e8a9410cc94f143d8a2d5fa",
            },
        });
        let payload = read_payload(&STANDARD.encode(payload.to_string())).unwrap();
        let options = VerifySolutionOptions::new(&payload.challenge, &payload.solution, "sig-secret");
        assert!(verify_solution(options).unwrap().verified);
    }
}
