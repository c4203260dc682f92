//! ALTCHA challenges (protocol v2, altcha.org): the service's own check, a proof of work that needs no script of anybody else.
//!
//! A challenge is solved by the counter whose key, derived by PBKDF2 from the challenge's nonce and that counter, begins with
//! the hexadecimal digits that the challenge names.

use crate::json::{Json, integer_literal, string_literal};
use crate::jws::base64url;
use crate::secret::Secret;
use crate::small_map::SmallMap;

/// The one way of derivation that the service asks for.
const ALGORITHM: &str = "PBKDF2/SHA-256";
/// The length of a derived key, in bytes.
pub const KEY_BYTES: usize = 32;
/// A challenge that ends within this time, in seconds, is not begun.
const MARGIN: i64 = 30;
/// Challenges that cost more, in iterations of one try, are no challenges of a service that wants visitors.
const MAX_COST: f64 = 1_000_000.0;

/// A challenge, as the service gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its members that are signed and the signature, as JSON.
    text: String,
    /// What a solution is for.
    purpose: Purpose,
    /// What counters are appended to.
    pub nonce: Vec<u8>,
    /// The salt of the derivation.
    pub salt: Vec<u8>,
    /// Iterations of the derivation.
    pub cost: u32,
    /// The hexadecimal digits that a solution's key begins with.
    prefix: String,
    /// When it ends, in seconds since the Unix epoch by the service's clock.
    expires: i64,
}

/// What a solution is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It is the result of the ALTCHA check.
    Check,
    /// It lets a request through for which the service has little room.
    Work,
}

impl Challenge {
    /// Reads a challenge; `None` for what is none that can be solved here.
    #[must_use]
    pub fn read(json: Json) -> Option<Challenge> {
        let Json::Object(mut challenge) = json else { return None };
        let Json::Object(mut parameters) = challenge.take("parameters")? else { return None };
        let signature = text(&mut challenge, "signature")?;
        let algorithm = text(&mut parameters, "algorithm")?;
        let cost = whole(&mut parameters, "cost", MAX_COST)?;
        let expires = whole(&mut parameters, "expiresAt", 1e11)?;
        let length = whole(&mut parameters, "keyLength", 64.0)?;
        let prefix = text(&mut parameters, "keyPrefix")?;
        let (nonce, salt) = (text(&mut parameters, "nonce")?, text(&mut parameters, "salt")?);
        let Json::Object(data) = parameters.take("data")? else { return None };
        if algorithm != ALGORITHM || length != KEY_BYTES as i64 {
            return None;
        }
        let purpose = match data.get("use") {
            Some(Json::String(purpose)) if purpose == "check" => Purpose::Check,
            Some(Json::String(purpose)) if purpose == "work" => Purpose::Work,
            _ => return None,
        };
        let mut members = String::new();
        for (name, value) in data.iter() {
            let Json::String(value) = value else { return None };
            members.push_str(if members.is_empty() { "{" } else { "," });
            members.push_str(&string_literal(name));
            members.push(':');
            members.push_str(&string_literal(value));
        }
        let text = [
            r#"{"parameters":{"algorithm":"#,
            &string_literal(&algorithm),
            r#","cost":"#,
            &integer_literal(cost),
            r#","data":"#,
            &members,
            r#"},"expiresAt":"#,
            &integer_literal(expires),
            r#","keyLength":"#,
            &integer_literal(length),
            r#","keyPrefix":"#,
            &string_literal(&prefix),
            r#","nonce":"#,
            &string_literal(&nonce),
            r#","salt":"#,
            &string_literal(&salt),
            r#"},"signature":"#,
            &string_literal(&signature),
            "}",
        ]
        .concat();
        let (nonce, salt) = (from_hex(&nonce)?, from_hex(&salt)?);
        Some(Challenge { text, purpose, nonce, salt, cost: cost.try_into().ok()?, prefix, expires })
    }

    /// Whether there is time to solve it. `now` is in milliseconds since the Unix epoch by the service's clock.
    #[must_use]
    pub fn is_good_at(&self, now: i64) -> bool {
        self.expires.saturating_sub(MARGIN).saturating_mul(1000) > now
    }

    /// Whether a key is that of a solution.
    #[must_use]
    pub fn is_solved_by(&self, key: &[u8]) -> bool {
        let mut digits = key.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        self.prefix.bytes().all(|wanted| digits.next().is_some_and(|digit| hex_digit(wanted) == Some(digit)))
    }

    /// A solution, as it travels.
    #[must_use]
    pub fn payload(&self, counter: u32, key: &[u8]) -> Secret {
        let mut hex = String::new();
        for byte in key {
            hex.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
        }
        let counter = integer_literal(counter.into());
        let json = [
            r#"{"challenge":"#,
            &self.text,
            r#","solution":{"counter":"#,
            &counter,
            r#","derivedKey":""#,
            &hex,
            r#""}}"#,
        ];
        base64(json.concat().as_bytes()).into()
    }

    /// The parameter that a solution travels in.
    #[must_use]
    pub fn parameter(&self) -> &'static str {
        match self.purpose {
            Purpose::Check => "altcha-payload",
            Purpose::Work => "work",
        }
    }
}

fn text(members: &mut SmallMap<Json>, name: &str) -> Option<String> {
    match members.take(name)? {
        Json::String(text) => Some(text),
        _ => None,
    }
}

#[allow(clippy::cast_possible_truncation)] // bounded
fn whole(members: &mut SmallMap<Json>, name: &str, most: f64) -> Option<i64> {
    match members.take(name)? {
        Json::Number(number) if number >= 1.0 && number <= most && number.fract() == 0.0 => Some(number as i64),
        _ => None,
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(hex_digit(*high)? << 4 | hex_digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// Padded base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    let mut text: String = base64url(bytes)
        .chars()
        .map(|character| match character {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use super::*;

    // Made with the npm package altcha-lib 2.8.0, but for `data`.
    fn challenge() -> Value {
        json!({
            "parameters": {
                "algorithm": "PBKDF2/SHA-256", "cost": 10, "data": {"use": "check", "site": "a\"b"},
                "expiresAt": 4_102_444_800_i64, "keyLength": 32, "keyPrefix": "00",
                "nonce": "bb083bde1efef0629dd43cf119bef506", "salt": "27fdb51d4721e934b61df8c1edc09bad",
            },
            "signature": "0c50",
        })
    }

    fn read(json: &Value) -> Option<Challenge> {
        Challenge::read(Json::decode(json).expect("JSON"))
    }

    #[test]
    fn a_payload_has_the_challenge_as_it_came() {
        let read = read(&challenge()).expect("a challenge");
        assert_eq!((read.cost, read.nonce.len(), read.salt.len(), read.parameter()), (10, 16, 16, "altcha-payload"));
        let payload = STANDARD.decode(read.payload(153, &[0, 0xab]).expose()).expect("base64");
        let payload: Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!(payload, json!({"challenge": challenge(), "solution": {"counter": 153, "derivedKey": "00ab"}}));
    }

    #[test]
    fn a_key_is_compared_by_hexadecimal_digits() {
        let with = |prefix: &str| {
            let mut json = challenge();
            json["parameters"]["keyPrefix"] = prefix.into();
            read(&json).expect("a challenge")
        };
        assert!(with("00").is_solved_by(&[0, 1]) && with("000").is_solved_by(&[0, 0x0f]));
        assert!(!with("00").is_solved_by(&[1, 0]) && !with("000").is_solved_by(&[0, 0x10]));
        assert!(!with("0000").is_solved_by(&[0]), "shorter than the prefix");
        assert!(with("aB").is_solved_by(&[0xab]) && !with("xy").is_solved_by(&[0xab]));
    }

    #[test]
    fn a_challenge_is_begun_only_while_there_is_time() {
        let challenge = read(&challenge()).expect("a challenge");
        assert!(challenge.is_good_at(4_102_444_769_999));
        assert!(!challenge.is_good_at(4_102_444_770_000));
    }

    #[test]
    fn what_cannot_be_solved_here_is_no_challenge() {
        for (pointer, value) in [
            ("/parameters/algorithm", json!("ARGON2ID")),
            ("/parameters/keyLength", json!(16)),
            ("/parameters/cost", json!(0)),
            ("/parameters/cost", json!(2_000_000)),
            ("/parameters/cost", json!(1.5)),
            ("/parameters/cost", json!("10")),
            ("/parameters/data", json!({"use": "other"})),
            ("/parameters/data", json!({"use": "check", "n": 1})),
            ("/parameters/nonce", json!("0")),
            ("/parameters/nonce", json!("zz")),
            ("/parameters", json!([])),
            ("/signature", json!(null)),
        ] {
            let mut altered = challenge();
            *altered.pointer_mut(pointer).expect("a member") = value.clone();
            assert_eq!(read(&altered), None, "{pointer} {value}");
        }
    }
}
