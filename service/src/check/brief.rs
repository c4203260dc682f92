//! What tokens embed of a result by default.
//!
//! A check that passed and one that failed look the same: what the check service does not say of a failed one is filled in,
//! and times are printed here for both.

use approov_verify::time::UnixTime;
use serde_json::{Map, Value, json};

use crate::time::rfc3339;

/// What a check service says of a result, as far as tokens embed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brief {
    /// Of a captcha.
    Captcha {
        /// When it was solved.
        solved: Option<UnixTime>,
        /// On which host.
        hostname: Option<String>,
    },
    /// Of a visitor.
    Visit {
        /// As the browser named it, or as it became known.
        visitor_id: Option<String>,
        /// As the browser named it.
        request_id: String,
    },
}

/// What stands in tokens where a check service said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// When a captcha was solved.
    pub solved: UnixTime,
    /// On which host.
    pub hostname: String,
    /// Whose an identification is.
    pub visitor_id: String,
}

impl Brief {
    /// The host that the check service named, if it did.
    pub fn hostname(&self) -> Option<&str> {
        match self {
            Brief::Captcha { hostname, .. } => hostname.as_deref(),
            Brief::Visit { .. } => None,
        }
    }

    /// The members of `embed`.
    pub fn embed(self, fallback: impl FnOnce() -> Fallback) -> Map<String, Value> {
        match self {
            Brief::Captcha { solved, hostname } => {
                let (solved, hostname) = match (solved, hostname) {
                    (Some(solved), Some(hostname)) => (solved, hostname),
                    (solved, hostname) => {
                        let other = fallback();
                        (solved.unwrap_or(other.solved), hostname.unwrap_or(other.hostname))
                    }
                };
                let solved = rfc3339(solved);
                Map::from_iter([("challenge_ts".to_owned(), solved.into()), ("hostname".to_owned(), hostname.into())])
            }
            Brief::Visit { visitor_id, request_id } => Map::from_iter([
                ("visitorId".to_owned(), visitor_id.unwrap_or_else(|| fallback().visitor_id).into()),
                ("visits".to_owned(), json!([{ "requestId": request_id }])),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_filled_in_and_what_is_said_stays() {
        let fallback = || Fallback {
            solved: UnixTime::from_millis(1_620_127_951_391),
            hostname: "b.example".to_owned(),
            visitor_id: "W".to_owned(),
        };
        let embed = |solved, hostname: Option<&str>| {
            let brief = Brief::Captcha { solved, hostname: hostname.map(str::to_owned) };
            Value::Object(brief.embed(fallback))
        };
        assert_eq!(embed(None, None), json!({"challenge_ts": "2021-05-04T11:32:31Z", "hostname": "b.example"}));
        for (named, embedded) in [(Some("V"), "V"), (None, "W")] {
            let visit = Brief::Visit { visitor_id: named.map(str::to_owned), request_id: "R".to_owned() };
            let visit = Value::Object(visit.embed(fallback));
            assert_eq!(visit, json!({"visitorId": embedded, "visits": [{"requestId": "R"}]}));
        }
        let said = embed(Some(UnixTime::from_millis(1_620_127_950_999)), Some("a.example"));
        assert_eq!(said, json!({"challenge_ts": "2021-05-04T11:32:30Z", "hostname": "a.example"}));
    }
}
