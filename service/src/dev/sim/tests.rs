//! The simulators are asked as the service and the pages ask them.

use std::io::Read as _;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::read::DeflateDecoder;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;

/// The simulators, which keep what was used.
struct Simulators(Router);

impl Simulators {
    fn new() -> Self {
        Self(router())
    }

    async fn send(&self, request: Request<Body>) -> (u16, String) {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn json(&self, request: Request<Body>) -> (u16, Value) {
        let (status, body) = self.send(request).await;
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("not JSON: {body}")))
    }

    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Value {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        self.json(request.body(Body::from(form)).unwrap()).await.1
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }
}

fn post(path: &str, headers: &[(&str, &str)], body: &Value) -> Request<Body> {
    let mut request = Request::post(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_string())).unwrap()
}

fn code(verdict: &Value) -> &str {
    assert_eq!(verdict["success"], false, "{verdict}");
    verdict["error-codes"][0].as_str().unwrap()
}

/// A result of a page on `localhost`, with no action, and this as what a service adds.
fn token(name: &str, more: &str) -> String {
    format!("sim-{name}.bG9jYWxob3N0..{}", URL_SAFE_NO_PAD.encode(more))
}

#[tokio::test]
async fn every_script_is_there() {
    let simulators = Simulators::new();
    for path in [
        "/sim/hcaptcha/1/api.js".to_owned(),
        "/sim/recaptcha/api.js".to_owned(),
        "/sim/recaptcha/enterprise.js?render=k".to_owned(),
        "/sim/turnstile/v0/api.js".to_owned(),
        "/sim/friendly/site.js".to_owned(),
        format!("/sim/fingerprint/v3/{FINGERPRINT_PUBLIC_API_KEY}"),
        format!("/sim/fingerprint/v4/{FINGERPRINT_PUBLIC_API_KEY}"),
        format!("/sim/fingerprint/v4/{FINGERPRINT_PUBLIC_API_KEY}-sim-fail"),
    ] {
        let (status, text) = simulators.get(&path).await;
        assert_eq!(status, 200, "{path}");
        assert!(text.contains("imulated"), "{path}");
        let blocked = format!("{path}{}approov-sim=script-blocked", if path.contains('?') { '&' } else { '?' });
        assert_eq!(simulators.get(&blocked).await.0, 403, "{blocked}");
    }
    for version in ["v3", "v4"] {
        assert_eq!(simulators.get(&format!("/sim/fingerprint/{version}/another-key")).await.0, 403);
        let blocked = format!("/sim/fingerprint/{version}/{FINGERPRINT_PUBLIC_API_KEY}-sim-script-blocked");
        assert_eq!(simulators.get(&blocked).await.0, 403);
    }
}

const HCAPTCHA: &str = "/sim/hcaptcha/siteverify";

#[tokio::test]
async fn hcaptcha_scores_threats_and_accepts_each_result_once() {
    let simulators = Simulators::new();
    let verify = async |response: &str, key: &str| {
        simulators.form(HCAPTCHA, &[("secret", HCAPTCHA_SECRET), ("response", response), ("sitekey", key)]).await
    };
    for (response, human) in [("sim-pass-1", 0.9), ("sim-low-1", 0.1), ("sim-bot-1", 0.0)] {
        let verdict = verify(response, HCAPTCHA_SITE_KEY).await;
        assert_eq!((&verdict["success"], &verdict["score"]), (&json!(true), &json!(1.0 - human)), "{response}");
        assert_eq!(code(&verify(response, HCAPTCHA_SITE_KEY).await), "already-seen-response");
    }
    assert_eq!(code(&verify("sim-pass-2", "another").await), "sitekey-secret-mismatch");
    let chosen = format!("{HCAPTCHA_SITE_KEY}-sim-fail");
    assert_eq!(code(&verify("sim-fail-2", &chosen).await), "invalid-input-response");
    let bot = verify("30000000-aaaa-bbbb-cccc-000000000003", "30000000-ffff-ffff-ffff-000000000003").await;
    assert_eq!((&bot["success"], &bot["score"]), (&json!(true), &json!(1.0)));
}

const TURNSTILE: &str = "/sim/turnstile/v0/siteverify";

#[tokio::test]
async fn turnstile_says_what_a_result_was_made_for() {
    let simulators = Simulators::new();
    let made = "sim-pass-1620127950391xa.bG9jYWxob3N0.bG9naW4.b3JkZXItMQ";
    let request = json!({"secret": TURNSTILE_SECRET, "response": made});
    let (status, verdict) = simulators.json(post(TURNSTILE, &[], &request)).await;
    assert_eq!(status, 200);
    let expected = json!({
        "success": true, "challenge_ts": "2021-05-04T11:32:30Z", "hostname": "localhost", "error-codes": [],
        "action": "login", "cdata": "order-1", "metadata": {"interactive": false},
    });
    assert_eq!(verdict, expected);
    assert_eq!(code(&simulators.json(post(TURNSTILE, &[], &request)).await.1), "timeout-or-duplicate");
}

#[tokio::test]
async fn turnstile_verifies_again_with_the_same_idempotency_key_only() {
    let simulators = Simulators::new();
    let (one, other) = ("7a3b5a43-4b0b-4b0b-8b0b-0b0b0b0b0b0b", "00000000-0000-4000-8000-000000000000");
    let verify = async |response: &str, key: &str| {
        let fields = [("secret", TURNSTILE_SECRET), ("response", response), ("idempotency_key", key)];
        simulators.form(TURNSTILE, &fields).await
    };
    let first = verify("sim-pass-1620127950391xa", one).await;
    assert_eq!(first["success"], true);
    assert_eq!(verify("sim-pass-1620127950391xa", one).await, first);
    assert_eq!(code(&verify("sim-pass-1620127950391xa", other).await), "timeout-or-duplicate");
    assert_eq!(code(&verify("sim-pass-b", "no-uuid").await), "bad-request");
}

#[tokio::test]
async fn turnstile_refuses_with_the_codes_that_it_documents() {
    let simulators = Simulators::new();
    for (secret, response, expected) in [
        ("", "sim-pass-1", "missing-input-secret"),
        ("wrong", "sim-pass-1", "invalid-input-secret"),
        (TURNSTILE_SECRET, "", "missing-input-response"),
        (TURNSTILE_SECRET, "what is this", "invalid-input-response"),
        (TURNSTILE_SECRET, "sim-fail-1", "invalid-input-response"),
        (TURNSTILE_SECRET, "sim-bot-1", "invalid-input-response"),
        (TURNSTILE_SECRET, "sim-expired-1", "timeout-or-duplicate"),
        (TURNSTILE_SECRET, "sim-error-1", "internal-error"),
    ] {
        let verdict = simulators.form(TURNSTILE, &[("secret", secret), ("response", response)]).await;
        assert_eq!(code(&verdict), expected, "{response}");
    }
    let not_json = Request::post(TURNSTILE).header("content-type", "application/json").body(Body::from("{")).unwrap();
    assert_eq!(simulators.json(not_json).await.0, 400);
}

#[tokio::test]
async fn turnstiles_public_secrets_know_the_public_token_and_no_other() {
    let simulators = Simulators::new();
    let verify = async |secret: &str, response: &str| {
        simulators.form(TURNSTILE, &[("secret", secret), ("response", response)]).await
    };
    let [pass, fail, spent] = TURNSTILE_TEST_SECRETS;
    for _ in 0..2 {
        assert_eq!(verify(pass, TURNSTILE_TEST_TOKEN).await["success"], true);
    }
    assert_eq!(code(&verify(fail, TURNSTILE_TEST_TOKEN).await), "invalid-input-response");
    assert_eq!(code(&verify(spent, TURNSTILE_TEST_TOKEN).await), "timeout-or-duplicate");
    assert_eq!(code(&verify(pass, "sim-pass-1").await), "invalid-input-response");
    assert_eq!(code(&verify(TURNSTILE_SECRET, TURNSTILE_TEST_TOKEN).await), "invalid-input-response");
}

const FRIENDLY: &str = "/sim/friendly/api/v2/captcha/siteverify";

#[tokio::test]
async fn friendly_captcha_says_when_and_where() {
    let simulators = Simulators::new();
    let request = json!({"response": "sim-pass-1620127950391xa.bG9jYWxob3N0", "sitekey": FRIENDLY_SITE_KEY});
    let (status, verdict) = simulators.json(post(FRIENDLY, &[("x-api-key", FRIENDLY_API_KEY)], &request)).await;
    assert_eq!((status, &verdict["success"]), (200, &json!(true)));
    assert_eq!(verdict["data"]["challenge"], json!({"timestamp": "2021-05-04T11:32:30Z", "origin": "localhost"}));
    assert_eq!(verdict["data"]["event_id"], "ev_1620127950391xa");
    let low = json!({"response": "sim-low-1"});
    let (_, verdict) = simulators.json(post(FRIENDLY, &[("x-api-key", FRIENDLY_API_KEY)], &low)).await;
    assert_eq!(verdict["data"]["risk_intelligence"]["risk_scores"]["overall"], 5);
}

#[tokio::test]
async fn friendly_captcha_refuses_with_the_codes_and_statuses_that_it_documents() {
    let simulators = Simulators::new();
    let key = Some(FRIENDLY_API_KEY);
    for (key, request, status, code) in [
        (None, json!({"response": "sim-pass-1"}), 401, "auth_required"),
        (Some("wrong"), json!({"response": "sim-pass-1"}), 401, "auth_invalid"),
        (key, json!("text"), 400, "bad_request"),
        (key, json!({}), 400, "response_missing"),
        (key, json!({"response": "sim-pass-1", "sitekey": "another"}), 400, "sitekey_invalid"),
        (key, json!({"response": "what is this"}), 200, "response_invalid"),
        (key, json!({"response": "sim-fail-1"}), 200, "response_invalid"),
        (key, json!({"response": "sim-bot-1"}), 200, "response_invalid"),
        (key, json!({"response": "sim-bot-1"}), 200, "response_duplicate"),
        (key, json!({"response": "sim-expired-1"}), 200, "response_timeout"),
        (key, json!({"response": "sim-error-1"}), 500, "internal_server_error"),
    ] {
        let headers: Vec<(&str, &str)> = key.map(|key| ("x-api-key", key)).into_iter().collect();
        let (is, verdict) = simulators.json(post(FRIENDLY, &headers, &request)).await;
        assert_eq!((is, &verdict["error"]["error_code"]), (status, &json!(code)), "{request}");
    }
}

fn assessments(project: &str, query: &str) -> String {
    format!("/sim/recaptcha-enterprise/v1/projects/{project}/assessments{query}")
}

fn event(token: &str) -> Value {
    json!({"event": {"token": token, "siteKey": RECAPTCHA_ENTERPRISE_SITE_KEY, "expectedAction": "login"}})
}

#[tokio::test]
async fn enterprise_assesses_a_token_once() {
    let simulators = Simulators::new();
    let path = assessments(RECAPTCHA_ENTERPRISE_PROJECT, "");
    let assess = async |token: &str| {
        let key = [("x-goog-api-key", RECAPTCHA_ENTERPRISE_API_KEY)];
        simulators.json(post(&path, &key, &event(token))).await
    };
    let made = "sim-pass-1620127950391xa.bG9jYWxob3N0.bG9naW4";
    let (status, assessment) = assess(made).await;
    assert_eq!(status, 200);
    let properties = &assessment["tokenProperties"];
    assert_eq!(properties["valid"], true);
    assert_eq!(properties["invalidReason"], "INVALID_REASON_UNSPECIFIED");
    assert_eq!(properties["createTime"], "2021-05-04T11:32:30Z");
    assert_eq!((&properties["hostname"], &properties["action"]), (&json!("localhost"), &json!("login")));
    assert_eq!(assessment["riskAnalysis"]["score"], 0.9);
    assert_eq!(assessment["event"]["expectedAction"], "login");
    assert!(assessment["name"].as_str().unwrap().starts_with("projects/1234567890/assessments/"));
    for (token, reason) in [
        (made.to_owned(), "DUPE"),
        (String::new(), "MISSING"),
        ("what is this".to_owned(), "MALFORMED"),
        ("sim-fail-1".to_owned(), "MALFORMED"),
        ("sim-expired-1".to_owned(), "EXPIRED"),
        (token("pass-1", "another-site-key"), "KEY_MISMATCH"),
    ] {
        let (status, assessment) = assess(&token).await;
        let properties = &assessment["tokenProperties"];
        assert_eq!((status, &properties["valid"], &properties["invalidReason"]), (200, &json!(false), &json!(reason)));
        assert_eq!(properties["createTime"], "1970-01-01T00:00:00Z");
        assert_eq!(assessment["riskAnalysis"]["score"], 0.0);
    }
    assert_eq!(assess(&token("pass-2", RECAPTCHA_ENTERPRISE_SITE_KEY)).await.1["tokenProperties"]["valid"], true);
    for (token, score, reason) in [("sim-low-1", 0.3, "LOW_CONFIDENCE_SCORE"), ("sim-bot-1", 0.1, "AUTOMATION")] {
        let analysis = &assess(token).await.1["riskAnalysis"];
        assert_eq!((&analysis["score"], &analysis["reasons"]), (&json!(score), &json!([reason])), "{token}");
    }
    let (status, error) = assess("sim-error-1").await;
    assert_eq!((status, &error["error"]["status"]), (503, &json!("UNAVAILABLE")));
}

#[tokio::test]
async fn enterprise_wants_a_key_and_its_project() {
    let simulators = Simulators::new();
    let own = RECAPTCHA_ENTERPRISE_PROJECT;
    let good = format!("?key={RECAPTCHA_ENTERPRISE_API_KEY}");
    for (path, status, name) in [
        (assessments(own, ""), 403, "PERMISSION_DENIED"),
        (assessments(own, "?key=wrong"), 400, "INVALID_ARGUMENT"),
        (assessments("another", &good), 403, "PERMISSION_DENIED"),
    ] {
        let (is, error) = simulators.json(post(&path, &[], &event("sim-pass-1"))).await;
        assert_eq!((is, &error["error"]["status"]), (status, &json!(name)), "{path}");
        assert_eq!(error["error"]["code"], status);
    }
    let path = assessments(own, &good);
    assert_eq!(simulators.json(post(&path, &[], &event("sim-pass-1"))).await.0, 200);
    for request in [json!({}), json!({"event": {"token": "sim-pass-2"}})] {
        assert_eq!(simulators.json(post(&path, &[], &request)).await.0, 400, "{request}");
    }
}

fn lookup(id: &str, authorization: Option<&str>) -> Request<Body> {
    let mut request = Request::get(format!("/sim/fingerprint/v4/events/{id}"));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    request.body(Body::empty()).unwrap()
}

/// What the agent sends, and what it gets.
async fn identify(simulators: &Simulators, outcome: &str) -> Value {
    let path = format!("/sim/fingerprint/v4/{FINGERPRINT_PUBLIC_API_KEY}");
    let body = json!({
        "outcome": outcome, "visitor": "simV_-1", "url": "https://app.example/login?a=b", "tags": "nonce", "linked_id": "u1",
    });
    let (status, result) = simulators.json(post(&path, &[("user-agent", "Test/1")], &body)).await;
    assert_eq!(status, 200);
    result
}

#[tokio::test]
async fn the_event_that_an_agent_made_is_found() {
    let simulators = Simulators::new();
    let bearer = format!("Bearer {FINGERPRINT_SECRET}");
    let result = identify(&simulators, "pass").await;
    assert_eq!((&result["visitor_id"], &result["suspect_score"]), (&json!("simV_-1"), &json!(0)));
    let id = result["event_id"].as_str().unwrap();
    assert!(id.len() <= 64, "{id}");
    let (status, event) = simulators.json(lookup(id, Some(&bearer))).await;
    assert_eq!(status, 200);
    assert_eq!(event["event_id"], id);
    assert_eq!(event["identification"]["visitor_id"], "simV_-1");
    assert_eq!(event["url"], "https://app.example/login?a=b");
    assert_eq!((&event["tags"], &event["linked_id"]), (&json!({"tag": "nonce"}), &json!("u1")));
    assert_eq!((&event["bot"], &event["replayed"]), (&json!("not_detected"), &json!(false)));
    let age = approov_verify::time::UnixTime::now().as_millis() - event["timestamp"].as_i64().unwrap();
    assert!((0..60_000).contains(&age), "{age}");

    let bot = identify(&simulators, "bot").await;
    let (_, event) = simulators.json(lookup(bot["event_id"].as_str().unwrap(), Some(&bearer))).await;
    assert_eq!((&event["bot"], &event["bot_type"]), (&json!("bad"), &json!("headless_chrome")));
    let expired = identify(&simulators, "expired").await;
    let (_, event) = simulators.json(lookup(expired["event_id"].as_str().unwrap(), Some(&bearer))).await;
    let age = approov_verify::time::UnixTime::now().as_millis() - event["timestamp"].as_i64().unwrap();
    assert!(age >= 3_600_000, "{age}");
}

#[tokio::test]
async fn request_ids_of_agent_v3_are_event_ids() {
    let simulators = Simulators::new();
    let bearer = format!("Bearer {FINGERPRINT_SECRET}");
    for (id, visitor) in [("sim-pass-1620127950391xAbCdEf_simVis_1-a", "simVis_1-a"), ("sim-pass-f1", "visitor")] {
        let (status, event) = simulators.json(lookup(id, Some(&bearer))).await;
        assert_eq!((status, &event["identification"]["visitor_id"]), (200, &json!(visitor)), "{id}");
    }
}

#[tokio::test]
async fn the_server_api_refuses_with_its_codes() {
    let simulators = Simulators::new();
    let bearer = format!("Bearer {FINGERPRINT_SECRET}");
    let good = Some(bearer.as_str());
    for (id, authorization, status, code) in [
        ("sim-pass-1", None, 403, "secret_api_key_required"),
        ("sim-pass-1", Some("Bearer wrong"), 403, "secret_api_key_not_found"),
        ("1708102555327.NLOjmg", good, 404, "event_not_found"),
        ("sim-fail-1", good, 404, "event_not_found"),
        ("sim-pass-1%20", good, 400, "request_cannot_be_parsed"),
        ("sim-error-1", good, 500, "failed"),
    ] {
        let (is, error) = simulators.json(lookup(id, authorization)).await;
        assert_eq!((is, &error["error"]["code"]), (status, &json!(code)), "{id}");
    }
}

/// Opens a sealed result, as docs.fingerprint.com/docs/sealed-client-results says.
fn open(sealed: &str) -> Value {
    let bytes = STANDARD.decode(sealed).unwrap();
    let (header, rest) = bytes.split_at(4);
    assert_eq!(header, [0x9e, 0x85, 0xdc, 0xed]);
    let (nonce, rest) = rest.split_at(NONCE_LEN);
    let key = UnboundKey::new(&AES_256_GCM, &STANDARD.decode(FINGERPRINT_SEALED_KEY).unwrap()).unwrap();
    let mut rest = rest.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
    let plain = LessSafeKey::new(key).open_in_place(nonce, Aad::empty(), &mut rest).unwrap();
    let mut json = String::new();
    DeflateDecoder::new(&*plain).read_to_string(&mut json).unwrap();
    serde_json::from_str(&json).unwrap()
}

#[tokio::test]
async fn a_sealed_result_is_the_event_and_keeps_no_outcome_of_the_server_back() {
    let simulators = Simulators::new();
    let bearer = format!("Bearer {FINGERPRINT_SECRET}");
    for outcome in ["pass", "low", "bot", "expired"] {
        let result = identify(&simulators, outcome).await;
        let (_, event) = simulators.json(lookup(result["event_id"].as_str().unwrap(), Some(&bearer))).await;
        assert_eq!(open(result["sealed_result"].as_str().unwrap()), event, "{outcome}");
    }
    for outcome in ["fail", "error", "slow", "unheard-of"] {
        assert_eq!(identify(&simulators, outcome).await["sealed_result"], Value::Null, "{outcome}");
    }
}
