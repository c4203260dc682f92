//! What happens around the calls: what the host is told, sessions beside the active one, several hosts, and sessions that outlive
//! their page.

use std::rc::Rc;

use crate::simulated::{
    Kept, Received, World, api, good, json_response, options, parameter, refusal, text, with_result,
};
use approov_web_sdk::argument::Argument;
use approov_web_sdk::config::SessionArguments;
use approov_web_sdk::dpop::ProofArguments;
use approov_web_sdk::driver::Failure;
use approov_web_sdk::error::{Code, Error};
use approov_web_sdk::token_request::TokenArguments;
use approov_web_sdk::wire::Response;
use serde_json::json;

/// The session's end is told by the least that the service's clock may show: the response took 10 ms.
const HOUR: i64 = 3_600_000;

fn initialize(world: &mut World, options: SessionArguments, kept: Option<Kept>) {
    let sdk = Rc::clone(&world.sdk);
    let record = kept.map(Kept::record);
    world.run(async move { sdk.initialize_session(options, SessionArguments::default(), record).await }).unwrap();
}

fn renew(
    world: &mut World,
    arguments: Result<TokenArguments, Failure<&'static str>>,
) -> Result<bool, Failure<&'static str>> {
    renew_kept(world, options(), None, arguments)
}

fn renew_kept(
    world: &mut World,
    options: SessionArguments,
    kept: Option<Kept>,
    arguments: Result<TokenArguments, Failure<&'static str>>,
) -> Result<bool, Failure<&'static str>> {
    let sdk = Rc::clone(&world.sdk);
    let record = kept.map(Kept::record);
    world.run(async move {
        let arguments = async { arguments.map(|arguments| (arguments, std::future::pending())) };
        sdk.renew(&options, &SessionArguments::default(), record, arguments).await
    })
}

fn persistent() -> SessionArguments {
    options().with("persistence", text("browser"))
}

/// The host that a request was for.
fn host_of(request: &Received) -> &str {
    let htu = request.claims["htu"].as_str().unwrap();
    htu.strip_prefix("https://").and_then(|rest| rest.strip_suffix(".example/attest")).unwrap()
}

fn hosts(names: &[&str]) -> SessionArguments {
    let hosts = names.iter().map(|name| format!("{name}.example")).collect();
    options().with("approovHost", Argument::Texts(hosts))
}

fn network() -> (u32, Result<Response, &'static str>) {
    (10, Err("broken"))
}

#[test]
fn a_session_is_told_with_its_first_token_and_its_end_once() {
    let mut world = World::started();
    assert!(world.host.notices().is_empty(), "a key is no session");
    world.fetch(with_result("a", "r")).unwrap();
    assert_eq!(world.host.notices(), [format!("session {}", 2 * HOUR + 10), "token a".to_owned()]);
    world.fetch(api("a")).unwrap();
    assert!(world.host.notices().is_empty());
    world.pass(2 * HOUR);
    assert_eq!(world.sdk.time_left(true), Some(0));
    assert_eq!(world.fetch(api("a")).unwrap_err().error.code(), Code::SessionExpired);
    assert_eq!(world.host.notices(), ["end session-expired"]);
}

#[test]
fn time_left_is_that_of_the_service_whatever_the_wall_clock_says() {
    let mut world = World::started();
    assert_eq!(world.sdk.time_left(true), None);
    world.host.set_wall_error(6 * HOUR);
    world.fetch(with_result("a", "r")).unwrap();
    let left = world.sdk.time_left(true).unwrap();
    assert_eq!(world.sdk.time_left(false), Some(left - 10), "the response took 10 ms");
    assert!((2 * HOUR - 100..=2 * HOUR).contains(&left), "{left}");
}

#[test]
fn a_refused_refresh_token_ends_the_session_for_the_host_too() {
    let mut world = World::started();
    world.fetch(with_result("a", "r")).unwrap();
    world.host.notices();
    world.host.serve(|request| match request.form {
        Some(_) => (10, Ok(refusal(401, "aprv-invalid-refresh-token"))),
        None => (10, Ok(good(request))),
    });
    assert_eq!(world.fetch(api("b")).unwrap_err().error.code(), Code::SessionExpired);
    assert_eq!(world.host.notices(), ["end session-expired"]);
}

#[test]
fn a_stale_token_that_is_refreshed_is_told_and_a_refresh_that_fails_is_an_error_of_nobody() {
    let mut world = World::started();
    world.fetch(with_result("a", "r")).unwrap();
    world.host.notices();
    world.pass(100_000);
    world.fetch(api("a")).unwrap();
    world.pass(1_000);
    assert_eq!(world.host.notices(), ["token a"]);
    world.host.serve(|_| (10, Ok(json_response(500, &json!({"internal": ""})))));
    world.pass(100_000);
    world.fetch(api("a")).unwrap();
    world.pass(5_000);
    assert_eq!(world.host.notices(), ["failed service"]);
}

#[test]
fn what_happens_is_told_in_words_with_the_notes_of_a_service_for_development() {
    let mut world = World::new(|request| {
        let Some(_) = &request.form else { return (10, Ok(good(request))) };
        (10, Ok(json_response(400, &json!({"aprv-api-not-found": "a", "notes": ["no API a"]}))))
    });
    world.initialize().unwrap();
    let error = world.fetch(with_result("a", "r")).unwrap_err().error;
    assert_eq!(error.service_errors().iter().map(|(code, _)| code).collect::<Vec<_>>(), ["aprv-api-not-found"]);
    assert_eq!(
        world.host.log(),
        [
            "GET https://service.example.com/attest: 204",
            "POST https://service.example.com/attest: 400",
            "the service says: no API a"
        ]
    );
}

#[test]
fn the_pause_that_a_service_asks_for_is_in_the_error() {
    let mut world = World::new(|request| match request.form {
        Some(_) => (10, Ok(Response { retry_after: Some(30_000), ..refusal(429, "aprv-too-many") })),
        None => (10, Ok(good(request))),
    });
    world.initialize().unwrap();
    assert_eq!(world.fetch(with_result("a", "r")).unwrap_err().error.retry_after(), Some(30_000));
}

#[test]
fn token_and_proof_are_of_one_session() {
    let mut world = World::started();
    world.fetch(with_result("a", "r")).unwrap();
    let sdk = Rc::clone(&world.sdk);
    let proof = ProofArguments {
        method: Ok("GET".into()),
        uri: Ok("https://a/x?y=1".into()),
        nonce: None,
        token: None,
        message_signature: None,
        covers_query: true,
    };
    let authorized = world.run(async move { sdk.authorize(api("a"), proof, std::future::pending()).await }).unwrap();
    let claims = crate::simulated::from_base64url(authorized.input.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["htu"], "https://a/x");
    // By Python's hashlib and base64.
    assert_eq!(claims["htq"], "mbp4jqkTeN2dOzGO0g_cjybRjglNRcpkoUr6Wp2D2sg");
    assert_eq!(claims["ath"].as_str().map(str::len), Some(43));
    assert!(authorized.token.ends_with(":a"));
}

#[test]
fn a_renewed_session_takes_the_place_of_the_one_before_with_its_first_token() {
    let mut world = World::started();
    let old = world.fetch(with_result("a", "r")).unwrap();
    world.host.notices();
    world.pass(1_000);
    assert!(renew(&mut world, Ok(with_result("a", "r2"))).unwrap());
    let notices = world.host.notices();
    assert_eq!(notices.first().map(String::as_str), Some("end replaced"));
    assert!(notices.get(1).is_some_and(|line| line.starts_with("session ")), "{notices:?}");
    assert_ne!(world.fetch(api("a")).unwrap(), old);
}

#[test]
fn a_renewal_that_fails_changes_nothing() {
    let mut world = World::started();
    let old = world.fetch(with_result("a", "r")).unwrap();
    world.host.notices();
    let blocked = Failure::caused_by(Error::new(Code::Internal, &["blocked"]), "blocked");
    assert_eq!(renew(&mut world, Err(blocked)).unwrap_err().cause, Some("blocked"));
    assert_eq!(world.fetch(api("a")).unwrap(), old);
    assert!(world.host.notices().is_empty());
}

#[test]
fn a_renewal_gives_way_to_a_session_of_the_app() {
    let mut world = World::started();
    let sdk = Rc::clone(&world.sdk);
    let renewed = world.run(async move {
        let inner = Rc::clone(&sdk);
        let arguments = async move {
            inner.initialize_session(options(), SessionArguments::default(), None).await?;
            Ok((with_result("a", "late"), std::future::pending()))
        };
        sdk.renew(&options(), &SessionArguments::default(), None, arguments).await
    });
    assert!(!renewed.unwrap());
    assert_eq!(
        world.fetch(api("a")).unwrap_err().error.code(),
        Code::ResultsRequired,
        "the app's session has no token yet"
    );
}

#[test]
fn a_token_that_a_backend_refuses_is_dropped_unless_it_has_only_just_come() {
    let mut world = World::started();
    let token = world.fetch(with_result("a", "r")).unwrap();
    assert!(!world.sdk.refuse(&token), "another would be no better");
    assert_eq!(world.fetch(api("a")).unwrap(), token);
    world.pass(10_000);
    assert!(world.sdk.refuse(&token));
    assert_ne!(world.fetch(api("a")).unwrap(), token);
}

#[test]
fn the_first_host_is_asked_alone_while_it_responds() {
    let mut world = World::new(|request| (10, Ok(good(request))));
    initialize(&mut world, hosts(&["one", "two"]), None);
    world.pass(10_000);
    world.fetch(with_result("a", "r")).unwrap();
    assert_eq!(world.host.received().iter().map(host_of).collect::<Vec<_>>(), ["one", "one"]);
}

#[test]
fn the_next_host_is_asked_after_a_network_error_a_502_or_two_seconds() {
    for (delay, reply) in [(10, Err("broken")), (10, Ok(502)), (10, Ok(504)), (60_000, Ok(204))] {
        let mut world = World::new(move |request| match (host_of(request), reply) {
            ("one", Err(cause)) => (delay, Err(cause)),
            ("one", Ok(status)) => (delay, Ok(Response { status, ..good(request) })),
            _ => (10, Ok(good(request))),
        });
        initialize(&mut world, hosts(&["one", "two"]), None);
        world.pass(3_000);
        world.fetch(with_result("a", "r")).unwrap();
        let received = world.host.received();
        assert_eq!(received.iter().map(host_of).collect::<Vec<_>>(), ["one", "two", "two"], "{delay} {reply:?}");
        assert!(received.iter().any(|request| request.form.is_some()));
    }
}

#[test]
fn a_slow_first_host_that_responds_before_the_second_is_kept() {
    let mut world = World::new(|request| (if host_of(request) == "one" { 2_500 } else { 5_000 }, Ok(good(request))));
    initialize(&mut world, hosts(&["one", "two"]), None);
    world.pass(10_000);
    world.host.serve(|request| (10, Ok(good(request))));
    world.fetch(with_result("a", "r")).unwrap();
    assert_eq!(world.host.received().iter().map(host_of).collect::<Vec<_>>(), ["one", "two", "one"]);
}

#[test]
fn a_refusal_of_the_first_host_is_final() {
    let mut world = World::new(|_| (10, Ok(refusal(400, "aprv-no-site-key"))));
    initialize(&mut world, hosts(&["one", "two"]), None);
    world.pass(5_000);
    assert!(world.host.received().iter().all(|request| host_of(request) == "one"));
}

#[test]
fn a_result_is_never_sent_to_a_second_host() {
    let mut world = World::new(|request| if request.form.is_some() { network() } else { (10, Ok(good(request))) });
    initialize(&mut world, hosts(&["one", "two"]), None);
    assert_eq!(world.fetch(with_result("a", "r")).unwrap_err().error.code(), Code::Network);
    world.pass(10_000);
    let posts: Vec<_> = world.host.received().into_iter().filter(|request| request.form.is_some()).collect();
    assert!(posts.len() == 2 && posts.iter().all(|request| host_of(request) == "one"), "{posts:?}");
}

#[test]
fn a_refresh_moves_on_after_its_retries_and_stays_there() {
    let mut world = World::new(|request| (10, Ok(good(request))));
    initialize(&mut world, hosts(&["one", "two", "three"]), None);
    world.fetch(with_result("a", "r")).unwrap();
    world.host.serve(|request| if host_of(request) == "one" { network() } else { (10, Ok(good(request))) });
    world.fetch(api("b")).unwrap();
    world.fetch(api("c")).unwrap();
    let hosts: Vec<_> = world.host.received().iter().map(|request| host_of(request).to_owned()).collect();
    assert_eq!(hosts, ["one", "one", "one", "one", "one", "two", "two"]);
}

#[test]
fn a_refresh_does_not_move_on_when_the_service_asks_to_wait() {
    for reply in [(429, None), (503, Some(60_000))] {
        let mut world = World::new(|request| (10, Ok(good(request))));
        initialize(&mut world, hosts(&["one", "two"]), None);
        world.fetch(with_result("a", "r")).unwrap();
        world.host.serve(move |_| (10, Ok(Response { retry_after: reply.1, ..refusal(reply.0, "aprv-too-many") })));
        assert_eq!(world.fetch(api("b")).unwrap_err().error.code(), Code::Service);
        assert!(world.host.received().iter().all(|request| host_of(request) == "one"), "{reply:?}");
    }
}

/// A world in which a page has had a session that outlives it, and what it has kept.
fn kept() -> (World, Kept) {
    let mut world = World::new(|request| (10, Ok(good(request))));
    initialize(&mut world, persistent(), None);
    world.fetch(with_result("a", "r")).unwrap();
    assert!(world.host.notices().contains(&"record".to_owned()));
    let kept = world.host.kept().unwrap();
    (world, kept)
}

/// Another page on the same service.
fn next_page() -> World {
    World::new(|request| (10, Ok(good(request))))
}

#[test]
fn a_session_that_ends_with_its_page_is_not_kept() {
    let mut world = World::started();
    world.fetch(with_result("a", "r")).unwrap();
    assert!(world.host.kept().is_none());
}

#[test]
fn another_page_goes_on_without_a_result() {
    let (_, kept) = kept();
    let mut page = next_page();
    initialize(&mut page, persistent(), Some(kept));
    assert_eq!(page.host.notices(), [format!("session {}", 2 * HOUR + 10)]);
    page.fetch(api("b")).unwrap();
    let form = page.host.posts().pop().unwrap();
    assert_eq!(parameter(&form, "refresh-token").len(), 1, "{form}");
    assert!(page.host.notices().contains(&"refreshed".to_owned()));
}

#[test]
fn a_renewal_that_finds_a_record_needs_no_check() {
    let (_, kept) = kept();
    let mut page = next_page();
    let not_called = Failure::caused_by(Error::new(Code::Internal, &["called"]), "called");
    assert!(renew_kept(&mut page, persistent(), Some(kept), Err(not_called)).unwrap());
    page.fetch(api("b")).unwrap();
}

#[test]
fn a_record_of_another_account_or_of_a_page_that_keeps_nothing_is_not_used() {
    for options in [
        persistent().with("approovSiteKey", text("other")),
        persistent().with("approovHost", text("other.example")),
        persistent().with("hcaptchaSiteKey", text("more")),
        options(),
    ] {
        let (_, kept) = kept();
        let mut page = next_page();
        initialize(&mut page, options, Some(kept));
        assert!(page.host.notices().is_empty());
        assert_eq!(page.fetch(api("b")).unwrap_err().error.code(), Code::ResultsRequired);
    }
}

#[test]
fn a_record_with_less_than_a_minute_left_is_not_used_whatever_the_clock_says() {
    for (wall_error, passed, is_used) in
        [(0, 2 * HOUR - 60_010, true), (0, 2 * HOUR - 59_000, false), (-6 * HOUR, HOUR, true)]
    {
        let mut world = next_page();
        world.host.set_wall_error(wall_error);
        initialize(&mut world, persistent(), None);
        world.fetch(with_result("a", "r")).unwrap();
        let kept = world.host.kept().unwrap();
        let mut page = next_page();
        page.host.set_wall_error(wall_error);
        page.block(passed);
        initialize(&mut page, persistent(), Some(kept));
        assert_eq!(!page.host.notices().is_empty(), is_used, "{wall_error} {passed}");
    }
}

#[test]
fn a_page_takes_over_the_newer_session_of_another_and_not_its_own() {
    let (mut first, own) = kept();
    let before = first.fetch(api("a")).unwrap();
    first.sdk.adopt(own.record());
    assert_eq!(first.fetch(api("a")).unwrap(), before, "it is the same session");
    let mut second = next_page();
    second.block(5_000);
    // Another key than that of the first page.
    initialize(&mut second, persistent(), None);
    initialize(&mut second, persistent(), None);
    second.fetch(with_result("a", "r2")).unwrap();
    first.host.notices();
    first.pass(10_000);
    first.sdk.adopt(second.host.kept().unwrap().record());
    let notices = first.host.notices();
    assert_eq!(notices.first().map(String::as_str), Some("end replaced"));
    assert_ne!(first.fetch(api("a")).unwrap(), before);
    assert_eq!(first.host.received().last().map(|request| request.key), Some(2));
}

#[test]
fn kept_sessions_cannot_have_their_key_in_webassembly_memory() {
    let mut world = next_page();
    let both = persistent().with("keyStorage", text("wasm"));
    let sdk = Rc::clone(&world.sdk);
    let error =
        world.run(async move { sdk.initialize_session(both, SessionArguments::default(), None).await }).unwrap_err();
    assert_eq!(error.error.code(), Code::InvalidArgument);
    initialize(&mut world, options().with("keyStorage", text("wasm")), None);
    let again = SessionArguments::default().with("persistence", text("browser"));
    let sdk = Rc::clone(&world.sdk);
    let error =
        world.run(async move { sdk.initialize_session(again, SessionArguments::default(), None).await }).unwrap_err();
    assert_eq!(error.error.code(), Code::InvalidArgument);
}
