#![cfg(target_arch = "wasm32")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

//! The browser edge, in a page, a worker and a service worker of a real browser. The service is a stand-in for `fetch`.

use approov_web_sdk::browser::exports::{
    fetch_token, get_dpop_token, get_expiries, initialize_session, message_signature,
};
use js_sys::{Array, ArrayBuffer, Function, JSON, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::wasm_bindgen_test;

#[wasm_bindgen(inline_js = r#"
// A stand-in for the service: `globalThis.fetch` until the test puts the real one back.
const realFetch = globalThis.fetch
let requests = []

export function serve(reply) {
  requests = []
  globalThis.fetch = async (url, init) => {
    const headers = Object.fromEntries(new Headers(init.headers))
    const { body, signal, redirect } = init
    const request = { url, method: init.method ?? 'GET', body, headers, signal, redirect }
    requests.push(request)
    if (reply === undefined) return realFetch(url, init)
    return reply(request, requests.length)
  }
}
export function received() { return requests }

export function grant(request) {
  if (request.method === 'GET') return new Response(null, { status: 204, headers: { 'DPoP-Nonce': 'n1' } })
  const tokens = {}
  for (const api of new URLSearchParams(request.body).getAll('api')) tokens[api] = `token.for.${api}`
  const now = Date.now()
  const body = { tokens, 'token-lifetime': 120, 'refresh-token': 'refresh', 'server-time': now,
                 expiries: { session: now + 7_200_000, 'recap:re': now + 7_200_000 } }
  return Response.json(body, { headers: { 'DPoP-Nonce': 'n2' } })
}
export const post = respond => (request, count) => request.method === 'GET' ? grant(request) : respond(request, count)

// Checks a proof, or a signature, with WebCrypto and the key in the proof.
const bytes = text => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), c => c.charCodeAt(0))
const json = text => JSON.parse(new TextDecoder().decode(bytes(text)))
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
export async function decoded(proof) {
  // A whole proof, or its two parts as getDPoPToken gives them.
  const [input, signature] = Array.isArray(proof) ? proof : [proof, bytes(proof.split('.')[2])]
  const [header, claims] = input.split('.')
  const { jwk } = json(header)
  const valid = await verified(jwk, await signature, new TextEncoder().encode(`${header}.${claims}`))
  return { header: json(header), claims: json(claims), valid }
}
export async function verified(jwk, signature, message) {
  const key = await crypto.subtle.importKey('jwk', jwk, algorithm, false, ['verify'])
  return crypto.subtle.verify(algorithm, key, signature, message)
}
export const source = text => (0, eval)(`(${text})`)

// The package's built-ins, but for `fetch`: tests replace that as they go.
export function install(builtIns) {
  globalThis.builtIns ??= { ...builtIns, fetch: (url, init) => globalThis.fetch(url, init) }
}
"#)]
extern "C" {
    fn serve(reply: &JsValue);
    fn received() -> Array;
    fn grant(request: &JsValue) -> JsValue;
    fn post(respond: &Function) -> Function;
    fn decoded(proof: &JsValue) -> Promise;
    fn verified(jwk: &JsValue, signature: &JsValue, message: &JsValue) -> Promise;
    fn source(text: &str) -> JsValue;
    fn install(built_ins: &JsValue);
}

#[wasm_bindgen(module = "/pkg-template/built-ins.js")]
extern "C" {
    #[wasm_bindgen(thread_local_v2, js_name = builtIns)]
    static BUILT_INS: JsValue;
}

async fn settled(returned: impl AsRef<JsValue>) -> Result<JsValue, JsValue> {
    JsFuture::from(Promise::resolve(returned.as_ref())).await
}

async fn ok(returned: impl AsRef<JsValue>) -> JsValue {
    settled(returned).await.unwrap_or_else(|failure| panic!("{}", describe(&failure)))
}

async fn failure(returned: impl AsRef<JsValue>) -> JsValue {
    settled(returned).await.expect_err("a rejection")
}

fn describe(failure: &JsValue) -> String {
    format!("{} {}: {}", text(failure, "class"), text(failure, "code"), text(failure, "message"))
}

fn get(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &name.into()).unwrap()
}

fn text(object: &JsValue, name: &str) -> String {
    get(object, name).as_string().unwrap_or_default()
}

fn js(value: &str) -> JsValue {
    source(value)
}

fn options(key_storage: &str) -> JsValue {
    let options = js("{ approovHost: 'service.example.com', approovSiteKey: 'site', recaptchaSiteKey: 're' }");
    Reflect::set(&options, &"keyStorage".into(), &key_storage.into()).unwrap();
    options
}

/// Begins a session whose service grants everything.
async fn begin(key_storage: &str) {
    serve(&js("request => globalThis.approovGrant(request)"));
    let grant = wasm_bindgen::closure::Closure::<dyn Fn(JsValue) -> JsValue>::new(|request: JsValue| grant(&request));
    Reflect::set(&js_sys::global(), &"approovGrant".into(), &grant.into_js_value()).unwrap();
    start(&options(key_storage)).await.expect("a session");
}

/// Begins a session.
async fn start(options: &JsValue) -> Result<JsValue, JsValue> {
    BUILT_INS.with(install);
    settled(initialize_session(options, &Object::new().into(), &JsValue::UNDEFINED)).await
}

/// Begins a session whose service responds to attest requests with what this source of a function returns.
async fn begin_responding(respond: &str) {
    begin("auto").await;
    serve(&post(js(respond).unchecked_ref()).into());
    start(&options("auto")).await.expect("a session");
}

fn result(token: &str) -> JsValue {
    js(&format!("{{ recaptchaToken: '{token}' }}"))
}

async fn proof(arguments: [&str; 5]) -> JsValue {
    let [method, uri, nonce, token, signature] = arguments.map(js);
    let proof = ok(get_dpop_token(&method, &uri, &nonce, &token, &signature)).await;
    let decoded = ok(decoded(&proof)).await;
    assert!(get(&decoded, "valid").is_truthy(), "the signature is not valid");
    decoded
}

#[wasm_bindgen_test]
async fn options_that_are_missing_or_wrong_are_named() {
    for (options, class, parts) in [
        ("5", "ApproovError", &["\"options\" must be an object, got a number"][..]),
        ("'host'", "ApproovError", &["\"options\" must be an object, got a string"]),
        ("[]", "ApproovError", &["\"options\" must be an object, got an array"]),
        (
            "{ approovHost: 5 }",
            "ApproovError",
            &["\"approovHost\" must be", "got a number", "\"approovSiteKey\" is missing"],
        ),
        ("{ approovHost: 'a', approovSiteKey: Symbol('x'), recaptchaSiteKey: 'r' }", "ApproovError", &["got a symbol"]),
        ("{ approovHost: 'a', approovSiteKey: 1n, recaptchaSiteKey: 'r' }", "ApproovError", &["got a BigInt"]),
        (
            "{ approovHost: 'a', approovSiteKey: Promise.resolve('k'), recaptchaSiteKey: 'r' }",
            "ApproovError",
            &["await"],
        ),
        ("{ get approovHost() { throw new Error('boo') } }", "ApproovError", &["\"approovHost\" could not be read"]),
        ("new Proxy({}, { ownKeys() { throw new Error('boo') } })", "ApproovError", &["could not be read"]),
        (
            "{ approovHost: 'a', approovSiteKey: 'k', recaptchaSitekey: 'r' }",
            "ApproovError",
            &["did you mean \"recaptchaSiteKey\""],
        ),
        (
            "{ approovHost: 'https://a', approovSiteKey: 'k', recaptchaSiteKey: 'r' }",
            "ApproovError",
            &["\"approovHost\""],
        ),
        (
            "{ approovHost: 'a', approovSiteKey: 'k', recaptchaSiteKey: 'r', keyStorage: 'disk' }",
            "ApproovError",
            &["\"keyStorage\""],
        ),
    ] {
        let failure = start(&js(options)).await.expect_err("a rejection");
        assert_eq!(text(&failure, "class"), class);
        assert_eq!(text(&failure, "code"), "invalid-argument", "{options}");
        for part in parts {
            assert!(text(&failure, "message").contains(part), "{options}: {}", text(&failure, "message"));
        }
    }
}

#[wasm_bindgen_test]
async fn a_visit_gets_a_token_in_both_key_stores() {
    for key_storage in ["webcrypto", "wasm", "auto"] {
        begin(key_storage).await;
        let first = failure(fetch_token(&"api".into(), &JsValue::UNDEFINED)).await;
        assert_eq!(describe(&first).split(':').next(), Some("ApproovSessionError results-required"));
        let token = ok(fetch_token(&"api".into(), &result("r1"))).await;
        assert_eq!(token, "token.for.api");
        assert_eq!(ok(fetch_token(&"api".into(), &JsValue::NULL)).await, "token.for.api");
        let requests = received();
        assert_eq!(requests.length(), 2, "one nonce request, one attest request");
        let attest = requests.get(1);
        assert_eq!(text(&attest, "url"), "https://service.example.com/attest");
        assert_eq!(text(&attest, "body"), "api=api&approov-site-key=site&recaptcha-site-key=re&recaptcha-token=r1");
        assert_eq!(text(&get(&attest, "headers"), "content-type"), "application/x-www-form-urlencoded");
        let proof = ok(decoded(&get(&get(&attest, "headers"), "dpop"))).await;
        assert!(get(&proof, "valid").is_truthy());
        let claims = get(&proof, "claims");
        assert_eq!((text(&claims, "htm").as_str(), text(&claims, "nonce").as_str()), ("POST", "n1"));
        let expiries = ok(get_expiries()).await;
        let left = get(&expiries, "session").as_f64().unwrap() - js_sys::Date::now();
        assert!((7_100_000.0..=7_200_100.0).contains(&left), "{left}");
        assert!(get(&expiries, "recap:re").as_f64().is_some());
    }
}

#[wasm_bindgen_test]
async fn proofs_have_the_requested_claims_and_no_private_key() {
    for key_storage in ["webcrypto", "wasm"] {
        begin(key_storage).await;
        let bare =
            proof(["'get'", "'https://user:pw@API.example.com:443/a%20b/../c?q#f'", "null", "undefined", "''"]).await;
        let header = get(&bare, "header");
        assert_eq!((text(&header, "typ").as_str(), text(&header, "alg").as_str()), ("dpop+jwt", "ES256"));
        let members = Object::keys(get(&header, "jwk").unchecked_ref::<Object>()).sort().join(" ");
        assert_eq!(members, "crv kty x y");
        let claims = get(&bare, "claims");
        assert_eq!(Object::keys(claims.unchecked_ref::<Object>()).sort().join(" "), "htm htu iat jti");
        assert_eq!(text(&claims, "htm"), "get");
        assert_eq!(text(&claims, "htu"), "https://api.example.com/c");
        assert_eq!(get(&claims, "iat").as_f64().unwrap().fract(), 0.0);
        assert_eq!(text(&claims, "jti").len(), 22);
        let whole =
            proof(["'POST'", "'https://bücher.example:8443'", "{ a: [1, 'x', null] }", "'tökn'", "'sig'"]).await;
        let claims = get(&whole, "claims");
        assert_eq!(JSON::stringify(&get(&claims, "nonce")).unwrap(), r#"{"a":[1,"x",null]}"#);
        assert_eq!(text(&claims, "htu"), "https://xn--bcher-kva.example:8443/");
        assert_eq!(text(&claims, "msgs"), "sig");
        assert_eq!(text(&claims, "ath").len(), 43);
    }
}

#[wasm_bindgen_test]
async fn every_proof_has_a_jti_of_its_own_and_every_session_a_key_of_its_own() {
    let mut thumbs = Vec::new();
    for key_storage in ["webcrypto", "webcrypto", "wasm", "wasm"] {
        begin(key_storage).await;
        let [one, two] = [
            proof(["'GET'", "'https://a'", "0", "0", "0"]).await,
            proof(["'GET'", "'https://a'", "0", "0", "0"]).await,
        ];
        assert_ne!(text(&get(&one, "claims"), "jti"), text(&get(&two, "claims"), "jti"));
        let key = |proof| text(&get(&get(proof, "header"), "jwk"), "x");
        assert_eq!(key(&one), key(&two));
        assert!(!thumbs.contains(&key(&one)));
        thumbs.push(key(&one));
    }
}

#[wasm_bindgen_test]
async fn nonces_are_any_value_that_json_can_carry() {
    begin("auto").await;
    for falsy in ["undefined", "null", "false", "0", "''", "NaN", "0n"] {
        let claims = get(&proof(["'GET'", "'https://a/'", falsy, "null", "null"]).await, "claims");
        assert!(get(&claims, "nonce").is_undefined(), "{falsy}");
    }
    for (nonce, expected) in [
        ("'n\"\\\\\\u2028'", "\"n\\\"\\\\\u{2028}\""),
        ("12.5", "12.5"),
        ("true", "true"),
        ("[]", "[]"),
        ("{}", "{}"),
        ("{ toJSON: () => 'x' }", "\"x\""),
        ("new Date(0)", "\"1970-01-01T00:00:00.000Z\""),
    ] {
        let claims = get(&proof(["'GET'", "'https://a/'", nonce, "null", "null"]).await, "claims");
        assert_eq!(JSON::stringify(&get(&claims, "nonce")).unwrap(), expected, "{nonce}");
    }
    for unusable in
        ["1n", "{ a: 1n }", "(() => { const a = {}; a.a = a; return a })()", "() => {}", "Symbol('x')", "Infinity"]
    {
        let failure =
            failure(get_dpop_token(&"GET".into(), &"https://a".into(), &js(unusable), &js("0"), &js("0"))).await;
        assert_eq!(text(&failure, "code"), "invalid-argument", "{unusable}");
        assert!(text(&failure, "message").contains("\"nonce\""), "{unusable}");
    }
}

#[wasm_bindgen_test]
async fn unusable_arguments_of_a_proof_are_named() {
    begin("auto").await;
    for (arguments, name) in [
        (["''", "'https://a'", "0", "0", "0"], "\"method\""),
        (["5", "'https://a'", "0", "0", "0"], "\"method\""),
        (["'GE T'", "'https://a'", "0", "0", "0"], "\"method\""),
        (["'GET'", "'/relative'", "0", "0", "0"], "\"uri\""),
        (["'GET'", "'ftp://a/'", "0", "0", "0"], "\"uri\""),
        (["'GET'", "'data:text/plain,x'", "0", "0", "0"], "\"uri\""),
        (["'GET'", "'blob:https://a/b'", "0", "0", "0"], "\"uri\""),
        (["'GET'", "'https://'", "0", "0", "0"], "\"uri\""),
        (["'GET'", "new URL('https://a')", "0", "0", "0"], "\"uri\""),
        (["'GET'", "'https://a'", "0", "5", "0"], "\"token\""),
        (["'GET'", "'https://a'", "0", "0", "{}"], "\"messageSignature\""),
    ] {
        let [method, uri, nonce, token, signature] = arguments.map(js);
        let failure = failure(get_dpop_token(&method, &uri, &nonce, &token, &signature)).await;
        assert_eq!(text(&failure, "code"), "invalid-argument", "{arguments:?}");
        assert!(text(&failure, "message").contains(name), "{arguments:?}: {}", text(&failure, "message"));
    }
}

#[wasm_bindgen_test]
async fn messages_of_every_kind_of_buffer_are_signed() {
    for key_storage in ["webcrypto", "wasm"] {
        begin(key_storage).await;
        let jwk = get(&get(&proof(["'GET'", "'https://a'", "0", "0", "0"]).await, "header"), "jwk");
        for message in [
            "new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8])",
            "new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]).buffer",
            "new Uint8Array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).subarray(1, 9)",
            "new DataView(new Uint8Array([0, 1, 2, 3, 4, 5, 6, 7, 8]).buffer, 1)",
            "new Uint32Array(new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]).buffer)",
            "new Float64Array(new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]).buffer)",
            "new BigInt64Array(new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]).buffer)",
            "new Uint8ClampedArray([1, 2, 3, 4, 5, 6, 7, 8])",
            "[1, 2, 3, 4, 5, 6, 7, 8]",
        ] {
            let signature = ok(message_signature(&js(message))).await;
            assert!(signature.is_instance_of::<ArrayBuffer>());
            let expected = Uint8Array::from(&[1u8, 2, 3, 4, 5, 6, 7, 8][..]);
            assert_eq!(Uint8Array::new(&signature).length(), 64);
            assert!(ok(verified(&jwk, &signature, &expected)).await.is_truthy(), "{message}");
        }
        for size in [0, 1, 100_000, 5_000_000] {
            let message = Uint8Array::new_with_length(size).fill(7, 0, size);
            let signature = ok(message_signature(&message)).await;
            assert!(ok(verified(&jwk, &signature, &message)).await.is_truthy(), "{size} bytes");
        }
    }
}

#[wasm_bindgen_test]
async fn shared_buffers_are_copied_and_signed() {
    if get(&js_sys::global(), "SharedArrayBuffer").is_undefined() {
        return; // only on pages that are isolated from other origins, in some engines
    }
    begin("webcrypto").await;
    let jwk = get(&get(&proof(["'GET'", "'https://a'", "0", "0", "0"]).await, "header"), "jwk");
    for message in ["new SharedArrayBuffer(3)", "new Uint8Array(new SharedArrayBuffer(5), 1, 3)"] {
        let signature = ok(message_signature(&js(message))).await;
        assert!(ok(verified(&jwk, &signature, &Uint8Array::new_with_length(3))).await.is_truthy(), "{message}");
    }
}

#[wasm_bindgen_test]
async fn what_is_no_message_is_refused() {
    begin("auto").await;
    for (message, part) in [
        ("'text'", "TextEncoder"),
        ("undefined", "got nothing"),
        ("5", "got a number"),
        ("{}", "got an object"),
        ("[1, 256]", "item 1"),
        ("[-1]", "item 0"),
        ("[1.5]", "item 0"),
        ("['1']", "item 0"),
        ("(() => { const b = new ArrayBuffer(8); structuredClone(b, { transfer: [b] }); return b })()", "detached"),
        (
            "(() => { const v = new Uint8Array(8); structuredClone(v.buffer, { transfer: [v.buffer] }); return v })()",
            "detached",
        ),
    ] {
        let failure = failure(message_signature(&js(message))).await;
        assert_eq!(text(&failure, "code"), "invalid-argument", "{message}");
        assert!(text(&failure, "message").contains(part), "{message}: {}", text(&failure, "message"));
    }
}

#[wasm_bindgen_test]
async fn a_message_changed_after_the_call_is_signed_as_it_was() {
    begin("webcrypto").await;
    let jwk = get(&get(&proof(["'GET'", "'https://a'", "0", "0", "0"]).await, "header"), "jwk");
    let message = Uint8Array::from(&[1u8, 2, 3][..]);
    let signing = message_signature(&message);
    message.fill(9, 0, 3);
    let signature = ok(signing).await;
    assert!(ok(verified(&jwk, &signature, &Uint8Array::from(&[1u8, 2, 3][..]))).await.is_truthy());
}

#[wasm_bindgen_test]
async fn strange_responses_are_fetch_errors_and_leave_the_session_as_it_was() {
    begin("auto").await;
    ok(fetch_token(&"api".into(), &result("r1"))).await;
    let headers = "headers: { 'content-type': 'application/json' }";
    for respond in [
        "() => new Response('<html>', { headers: { 'content-type': 'text/html' } })".to_owned(),
        "() => new Response('', { status: 200 })".to_owned(),
        "() => new Response(null, { status: 204 })".to_owned(),
        format!("() => new Response('{{\"tokens\":', {{ {headers} }})"),
        format!("() => new Response('[]', {{ {headers} }})"),
        format!("() => new Response('null', {{ {headers} }})"),
        format!("() => new Response('['.repeat(100000) + ']'.repeat(100000), {{ {headers} }})"),
        format!("() => new Response(new Uint8Array([255, 254]), {{ {headers} }})"),
        format!("() => new Response(' '.repeat(300 * 1024), {{ {headers} }})"),
        format!("() => new Response('{{\"tokens\":{{\"other\":5}}}}', {{ {headers} }})"),
        "() => new Response('no token', { headers: { 'content-type': 'text/plain' } })".to_owned(),
        "() => new Response('oops', { status: 500 })".to_owned(),
        "() => new Response(null, { status: 404 })".to_owned(),
        "() => new Response(new ReadableStream({ pull(c) { c.error(new TypeError('cut')) } }))".to_owned(),
        "() => { throw new TypeError('Failed to fetch') }".to_owned(),
        "() => { throw 'a string' }".to_owned(),
        "() => { throw null }".to_owned(),
        "() => new Response('OK', { headers: { 'content-type': 'text/plain' } })".to_owned(),
        "() => ({ status: 200, headers: new Headers({ 'content-type': 'application/json' }), body: { getReader: () => ({ read: async () => ({ value: 'text'.repeat(3) }) }) }, statusText: '' })".to_owned(),
        "() => Promise.reject(undefined)".to_owned(),
        "() => ({ status: 200 })".to_owned(),
    ] {
        serve(&post(js(&respond).unchecked_ref()).into());
        let failure = failure(fetch_token(&"other".into(), &result("r2"))).await;
        assert_eq!(text(&failure, "class"), "ApproovFetchError", "{respond}: {}", describe(&failure));
        session_goes_on(&respond).await;
    }
}

/// The session of the test above still has its cached token or can fetch another with its refresh token.
async fn session_goes_on(respond: &str) {
    serve(&js("request => globalThis.approovGrant(request)"));
    let token = settled(fetch_token(&"api".into(), &JsValue::UNDEFINED)).await;
    assert!(token.is_ok(), "after {respond}");
}

#[wasm_bindgen_test]
async fn nesting_is_decoded_to_a_depth_and_no_further() {
    for (depth, what) in [(14, "an array as a token"), (15, "broken JSON")] {
        let nested = [&"[".repeat(depth), "1", &"]".repeat(depth)].concat();
        begin_responding(&format!("() => Response.json({{ tokens: {{ api: {nested} }} }})")).await;
        let failure = failure(fetch_token(&"api".into(), &result("r1"))).await;
        assert!(text(&failure, "message").contains(what), "{depth}: {}", describe(&failure));
    }
}

#[wasm_bindgen_test]
async fn of_members_with_the_same_name_the_last_counts() {
    begin_responding(
        r#"() => new Response(`{
            "tokens": {"api": "first.a.b", "__proto__": "x.y.z", "api": "second.a.b"}, "token-lifetime": -1, "token-lifetime": 120,
            "refresh-token": "refresh", "server-time": ${Date.now()}, "expiries": {"session": ${Date.now() + 7200000}}
        }`, { headers: { 'content-type': 'application/json' } })"#,
    )
    .await;
    assert_eq!(ok(fetch_token(&"api".into(), &result("r1"))).await, "second.a.b");
}

#[wasm_bindgen_test]
async fn the_options_of_the_last_session_are_noted_for_another_instance() {
    serve(&js("request => new Promise(() => {})"));
    let memory = js("{ approovHost: 'old.example.com', approovSiteKey: 'old', hcaptchaSiteKey: 'old' }");
    let noted = |memory: &JsValue| String::from(JSON::stringify(memory).unwrap());
    let old = noted(&memory);
    BUILT_INS.with(install);
    failure(initialize_session(&js("{ approovHost: 5 }"), &memory, &JsValue::UNDEFINED)).await;
    assert_eq!(noted(&memory), old, "a call that failed changes nothing");
    ok(initialize_session(&options("wasm"), &memory, &JsValue::UNDEFINED)).await;
    let new =
        r#"{"approovHost":"service.example.com","approovSiteKey":"site","recaptchaSiteKey":"re","keyStorage":"wasm"}"#;
    assert_eq!(noted(&memory), new);
    ok(initialize_session(&js("{ keyStorage: 'webcrypto' }"), &memory, &JsValue::UNDEFINED)).await;
    assert_eq!(noted(&memory), new.replace("wasm", "webcrypto"));
    ok(initialize_session(&JsValue::UNDEFINED, &memory, &JsValue::UNDEFINED)).await;
    assert_eq!(noted(&memory), new.replace("wasm", "webcrypto"));
}

#[wasm_bindgen_test]
async fn an_error_map_arrives_whole() {
    begin_responding("() => Response.json({ 'aprv-api-not-found': 'api', 'aprv-no-site-key': '' }, { status: 400 })")
        .await;
    let failure = failure(fetch_token(&"api".into(), &result("r1"))).await;
    assert_eq!(describe(&failure), "ApproovServiceError service: Bad Request: aprv-api-not-found, aprv-no-site-key");
    assert_eq!(
        JSON::stringify(&get(&failure, "errors")).unwrap(),
        r#"{"aprv-api-not-found":"api","aprv-no-site-key":""}"#
    );
    assert_eq!(get(&failure, "retryable"), false);
}

#[wasm_bindgen_test]
async fn a_call_times_out_and_aborts_its_request() {
    begin("auto").await;
    ok(fetch_token(&"api".into(), &result("r"))).await;
    serve(&js("request => new Promise(() => {})"));
    let late = failure(fetch_token(&"other".into(), &js("{ timeout: 50 }"))).await;
    assert_eq!(describe(&late), "ApproovFetchError timeout: no response from the Approov service within 50 ms");
    assert_eq!(text(&get(&late, "cause"), "name"), "TimeoutError");
    let requests = received();
    let attest = requests.get(requests.length() - 1);
    assert!(get(&get(&attest, "signal"), "aborted").is_truthy());
}

#[wasm_bindgen_test]
async fn a_signal_gives_a_call_up_with_its_reason() {
    begin_responding("request => new Promise(() => {})").await;
    let controller = js("globalThis.approovAbort = new AbortController()");
    let call = fetch_token(&"api".into(), &js("{ recaptchaToken: 'r', signal: globalThis.approovAbort.signal }"));
    let other = fetch_token(&"api".into(), &js("{ recaptchaToken: 'r', timeout: 100 }"));
    let abort: Function = get(&controller, "abort").unchecked_into();
    abort.call1(&controller, &"enough".into()).unwrap();
    let aborted = failure(call).await;
    assert_eq!(text(&aborted, "code"), "aborted");
    assert_eq!(get(&aborted, "cause"), "enough");
    assert_eq!(text(&failure(other).await, "code"), "timeout");
    let requests_before = received().length();
    let at_once =
        failure(fetch_token(&"api".into(), &js("{ recaptchaToken: 'r', signal: AbortSignal.abort() }"))).await;
    assert_eq!(text(&at_once, "code"), "aborted");
    assert_eq!(text(&get(&at_once, "cause"), "name"), "AbortError");
    assert_eq!(received().length(), requests_before);
    let wrong = failure(fetch_token(&"api".into(), &js("{ signal: {} }"))).await;
    assert!(text(&wrong, "message").contains("\"signal\""));
}

#[wasm_bindgen_test]
async fn a_thousand_calls_are_one_request() {
    begin("auto").await;
    let calls: Array = (0..1000).map(|_| fetch_token(&"api".into(), &result("r1"))).collect();
    ok(Promise::all(&calls)).await;
    let posts = received().iter().filter(|request| text(request, "method") == "POST").count();
    assert_eq!(posts, 1);
}

#[wasm_bindgen_test]
async fn apis_of_one_turn_travel_together() {
    begin("auto").await;
    let calls: Array = ["a", "b", "c"].map(|api| fetch_token(&api.into(), &result("r1"))).iter().collect();
    let tokens: Array = ok(Promise::all(&calls)).await.unchecked_into();
    assert_eq!(tokens.join(" "), "token.for.a token.for.b token.for.c");
    let requests = received();
    assert!(text(&requests.get(requests.length() - 1), "body").starts_with("api=a&api=b&api=c&"));
}

#[wasm_bindgen_test]
async fn without_webcrypto_the_key_is_kept_in_webassembly() {
    // What built-ins.js is on an insecure page, where crypto.subtle is undefined.
    serve(&js("request => globalThis.approovGrant(request)"));
    BUILT_INS.with(install);
    let keep = js("globalThis.builtIns.generateKey");
    let lacking = js("() => { throw new TypeError('undefined is not a function') }");
    let built_ins = get(&js_sys::global(), "builtIns");
    Reflect::set(&built_ins, &"generateKey".into(), &lacking).unwrap();
    let begun = start(&options("auto")).await;
    let refused = start(&options("webcrypto")).await;
    let made = settled(get_dpop_token(&"GET".into(), &"https://a".into(), &js("0"), &js("0"), &js("0"))).await;
    Reflect::set(&built_ins, &"generateKey".into(), &keep).unwrap();
    assert!(begun.is_ok());
    assert_eq!(text(&refused.expect_err("no WebCrypto"), "code"), "unsupported");
    assert!(get(&ok(decoded(&made.unwrap())).await, "valid").is_truthy());
}

#[wasm_bindgen_test]
async fn a_key_that_can_be_exported_is_refused() {
    begin("auto").await;
    let built_ins = get(&js_sys::global(), "builtIns");
    let keep = get(&built_ins, "generateKey");
    let exportable = "() => crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign'])";
    Reflect::set(&built_ins, &"generateKey".into(), &js(exportable)).unwrap();
    let refused = start(&options("webcrypto")).await.expect_err("a rejection");
    Reflect::set(&built_ins, &"generateKey".into(), &keep).unwrap();
    assert_eq!(text(&refused, "code"), "unsupported");
    assert!(text(&refused, "message").contains("can be exported"), "{}", describe(&refused));
}

#[wasm_bindgen_test]
async fn properties_of_a_prototype_are_no_options() {
    begin("auto").await;
    let inherited = js("Object.create({ approovHost: 'other.example.com', keyStorage: 'disk' }, {})");
    ok(initialize_session(&inherited, &Object::new().into(), &JsValue::UNDEFINED)).await;
    let options = "Object.create({ payload: 'p', timeout: -1, signal: 5, hcaptchaToken: 'h' }, { recaptchaToken: { value: 'r' } })";
    ok(fetch_token(&"api".into(), &js(options))).await;
    let attest = received().pop();
    assert_eq!(text(&attest, "body"), "api=api&approov-site-key=site&recaptcha-site-key=re&recaptcha-token=r");
    let result = js("Object.create({ key: 5 }, { response: { value: 'h' } })");
    let options = Object::new();
    Reflect::set(&options, &"hcaptchaToken".into(), &result).unwrap();
    let refused = failure(fetch_token(&"api".into(), &options)).await;
    assert!(!text(&refused, "message").contains("key\""), "{}", describe(&refused));
}

#[wasm_bindgen_test]
async fn what_the_agent_of_fingerprint_resolves_to_travels_as_it_is() {
    begin("auto").await;
    let options = js("{ approovHost: 'service.example.com', approovSiteKey: 'site', fingerprintPublicAPIKey: 'fp' }");
    ok(initialize_session(&options, &Object::new().into(), &JsValue::UNDEFINED)).await;
    // The text comes from a method of the prototype, as in the agent.
    let event = "{ event_id: 'e.1', cache_hit: false, sealed_result: new (class { base64() { return 'noXc7Q==' } }) }";
    ok(fetch_token(&"api".into(), &js(&format!("{{ fingerprintIDResult: {event} }}")))).await;
    assert_eq!(
        text(&received().pop(), "body"),
        "api=api&approov-site-key=site&fingerprintjs-token=fp&fingerprintjs-request-id=e.1&fingerprintjs-sealed-result=noXc7Q%3D%3D"
    );
    let wrong = js("{ fingerprintIDResult: { event_id: 'e', sealed_result: { base64() { throw 'no bytes' } } } }");
    let refused = failure(fetch_token(&"api".into(), &wrong)).await;
    assert_eq!(text(&refused, "code"), "invalid-argument");
    assert_eq!(text(&refused, "cause"), "no bytes");
    assert!(text(&refused, "message").starts_with("\"fingerprintIDResult.sealed_result\""), "{}", describe(&refused));
}

#[wasm_bindgen_test]
async fn what_a_proof_signs_is_not_signed_as_a_message() {
    for key_storage in ["webcrypto", "wasm"] {
        begin(key_storage).await;
        let [method, uri, nothing] = ["'GET'", "'https://a'", "0"].map(js);
        let parts: Array = ok(get_dpop_token(&method, &uri, &nothing, &nothing, &nothing)).await.unchecked_into();
        let input = parts.get(0).as_string().unwrap();
        let (header, claims) = input.split_once('.').unwrap();
        let spaced: String = header.chars().flat_map(|character| [' ', character]).collect();
        for message in
            [input.clone(), format!("{header}."), format!("{header}=.{claims}"), format!("{spaced}.{claims}")]
        {
            let bytes = Uint8Array::from(message.as_bytes());
            let buffer = bytes.buffer();
            let view = js_sys::DataView::new(&buffer, 0, bytes.length() as usize);
            let given: [JsValue; 4] = [bytes.clone().into(), buffer.into(), view.into(), Array::from(&bytes).into()];
            for given in &given {
                let refused = failure(message_signature(given)).await;
                assert_eq!(text(&refused, "code"), "invalid-argument", "{message}");
                assert!(text(&refused, "message").contains("getDPoPToken"), "{}", describe(&refused));
            }
        }
        for message in
            [header.to_owned(), claims.to_owned(), format!("x{input}"), format!(".{input}"), "a.b".to_owned()]
        {
            let signed = settled(message_signature(&Uint8Array::from(message.as_bytes()))).await;
            assert!(signed.is_ok(), "{message}");
        }
    }
}

/// The source of a function that gives what `grant` gives, with its body as this source of a function makes it.
fn granting(remake: &str) -> String {
    format!(
        "async request => {{ const given = globalThis.approovGrant(request); return ({remake})(given, await given.text()) }}"
    )
}

#[wasm_bindgen_test]
async fn a_grant_is_read_whatever_its_media_type() {
    for content_type in ["text/plain", "text/html; charset=utf-8", ""] {
        begin_responding(&granting(&format!(
            "({{ headers }}, text) => (headers.set('content-type', '{content_type}'), new Response(text, {{ headers }}))"
        )))
        .await;
        assert_eq!(ok(fetch_token(&"api".into(), &result("r1"))).await, "token.for.api", "{content_type}");
        assert_eq!(
            ok(fetch_token(&"other".into(), &JsValue::UNDEFINED)).await,
            "token.for.other",
            "the session goes on"
        );
    }
}

#[wasm_bindgen_test]
async fn a_response_without_a_stream_is_read() {
    for body in [
        "body: undefined, arrayBuffer: async () => new TextEncoder().encode(text).buffer",
        "body: null, text: async () => text",
        "text: async () => text",
        "arrayBuffer: undefined, text: () => text",
    ] {
        begin_responding(&granting(&format!(
            "({{ headers }}, text) => ({{ status: 200, statusText: '', headers, {body} }})"
        )))
        .await;
        assert_eq!(ok(fetch_token(&"api".into(), &result("r1"))).await, "token.for.api", "{body}");
    }
    begin_responding("() => ({ status: 200, headers: new Headers(), text: async () => ' '.repeat(300 * 1024) })").await;
    let failure = failure(fetch_token(&"api".into(), &result("r1"))).await;
    assert!(text(&failure, "message").contains("256 KiB"), "{}", describe(&failure));
}

#[wasm_bindgen_test]
async fn no_error_carries_what_a_response_was_made_of() {
    for part in ["'sec' + 'ret'.repeat(2)", "new Uint16Array([115, 101])", "[115, 101]", "{ secret: 1 }", "5"] {
        begin_responding(&format!(
            "() => ({{ status: 200, statusText: '', headers: new Headers({{ 'content-type': 'application/json' }}),
                      body: {{ getReader: () => ({{ count: 0, read: async function () {{
                          return this.count++ ? {{ done: true }} : {{ value: {part} }} }} }}) }} }})"
        ))
        .await;
        let failure = failure(fetch_token(&"api".into(), &result("r1"))).await;
        assert_eq!(text(&failure, "class"), "ApproovFetchError");
        assert!(!text(&failure, "message").contains("secret"), "{}", describe(&failure));
        for carried in [get(&failure, "cause"), get(&failure, "errors")] {
            assert!(carried.is_undefined() || carried.is_instance_of::<js_sys::Error>(), "{part}: {carried:?}");
        }
    }
}

#[wasm_bindgen_test]
async fn redirects_are_not_followed_and_are_no_type_error_elsewhere() {
    begin("auto").await;
    serve(&post(js("() => Response.redirect('https://elsewhere.example.com/')").unchecked_ref()).into());
    let failure = failure(fetch_token(&"api".into(), &result("r1"))).await;
    assert_eq!(text(&failure, "code"), "invalid-response");
    // workerd throws a TypeError for 'error'.
    assert_eq!(text(&received().pop(), "redirect"), "manual");
}
