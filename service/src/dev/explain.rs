//! Notes for the page in what the service grants: what became of the request's checks. Development mode only, since otherwise a page
//! does not learn that its check failed.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};

use crate::telemetry::RequestNotes;

/// No grant is longer, in bytes.
const MAX_GRANT: usize = 1 << 20;

/// The layer that adds the notes: the member `notes`, an array of texts.
pub async fn explain(request: Request, next: Next) -> Response {
    let (mut parts, body) = next.run(request).await.into_parts();
    let notes = parts.extensions.remove::<RequestNotes>();
    let Some(notes) = notes.filter(|notes| parts.status == StatusCode::OK && !notes.checks.is_empty()) else {
        return Response::from_parts(parts, body);
    };
    // What the service has made itself is in memory already.
    let grant = to_bytes(body, MAX_GRANT).await.unwrap_or_default();
    let explained = explained(&grant, &notes).unwrap_or(grant);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(explained))
}

/// The grant with its notes; `None` if it is not an object.
fn explained(grant: &[u8], notes: &RequestNotes) -> Option<Bytes> {
    let mut grant: Value = serde_json::from_slice(grant).ok()?;
    let outcome = match notes.outcome {
        "failed-check" => "these tokens are of a failed check, and backends refuse them",
        outcome => outcome,
    };
    let all: Vec<&str> = notes.checks.iter().map(String::as_str).chain([outcome]).collect();
    grant.as_object_mut()?.insert("notes".to_owned(), json!(all));
    serde_json::to_vec(&grant).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_keeps_all_it_has_and_says_what_came_of_its_checks() {
        let notes =
            RequestNotes { checks: vec!["hcaptcha: score".to_owned()], ..RequestNotes::outcome("failed-check") };
        let explained = explained(br#"{"tokens":{"a":"t"},"token-lifetime":120}"#, &notes).expect("an object");
        let value: Value = serde_json::from_slice(&explained).expect("JSON");
        let failed = "these tokens are of a failed check, and backends refuse them";
        assert_eq!(value, json!({"tokens": {"a": "t"}, "token-lifetime": 120, "notes": ["hcaptcha: score", failed]}));
    }

    #[test]
    fn what_is_no_object_is_left_alone() {
        for grant in [b"".as_slice(), b"[]", b"text"] {
            assert_eq!(explained(grant, &RequestNotes::outcome("token")), None);
        }
    }
}
