//! What the driver does with calls, responses and time.

use std::rc::Rc;

use crate::simulated::{
    Received, Reply, START, World, api, from_base64url, good, json_response, options, parameter, refusal, text,
    with_result,
};
use approov_web_sdk::argument::Argument;
use approov_web_sdk::config::SessionArguments;
use approov_web_sdk::dpop::ProofArguments;
use approov_web_sdk::driver::{Failure, Host as _};
use approov_web_sdk::error::{Class, Code, Error};
use approov_web_sdk::json::Json;
use approov_web_sdk::token_request::TokenArguments;
use approov_web_sdk::wire::{Body, Response};
use serde_json::json;

fn code<T: std::fmt::Debug>(result: Result<T, Failure<&'static str>>) -> Code {
    result.expect_err("an error").error.code()
}

/// The arguments of a proof for a `GET` request.
fn proof_of(uri: &str) -> ProofArguments {
    ProofArguments {
        method: Ok("GET".into()),
        uri: Ok(uri.into()),
        nonce: None,
        token: None,
        message_signature: None,
        covers_query: false,
    }
}

#[test]
fn without_a_session_every_call_says_so() {
    let mut world = World::new(|request| (0, Ok(good(request))));
    assert_eq!(code(world.fetch(api("a"))), Code::NotInitialized);
    let sdk = Rc::clone(&world.sdk);
    assert_eq!(code(world.run(async move { sdk.active().await.map(|_| ()) })), Code::NotInitialized);
    assert!(world.host.received().is_empty());
}

#[test]
fn one_visit_is_one_nonce_request_and_one_attest_request() {
    let mut world = World::started();
    world.pass(3_000); // the user solves the challenge
    assert_eq!(world.fetch(with_result("a", "r1")).as_deref().unwrap(), "3000:a");
    assert_eq!(world.fetch(api("a")).as_deref().unwrap(), "3000:a");
    let received = world.host.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].claims["htm"], "GET");
    assert_eq!(received[0].claims["htu"], "https://service.example.com/attest");
    assert_eq!(received[0].claims.get("nonce"), None);
    assert_eq!(received[1].claims["htm"], "POST");
    assert_eq!(received[1].claims["nonce"], "nonce-0");
}

#[test]
fn initialising_does_not_wait_for_the_service() {
    let mut world = World::new(|_| (60_000, Err("gone")));
    world.initialize().unwrap();
    let sdk = Rc::clone(&world.sdk);
    assert!(world.run(async move { sdk.active().await }).unwrap().expiries().is_empty());
}

#[test]
fn the_first_attest_request_is_signed_before_the_challenge_is_solved() {
    let mut world = World::started();
    world.pass(100);
    let before = world.host.signatures();
    assert!(world.fetch(with_result("a", "r1")).is_ok());
    assert_eq!(world.host.signatures(), before);
    assert!(world.fetch(api("b")).is_ok());
    assert_eq!(world.host.signatures(), before + 1);
}

#[test]
fn an_old_presigned_proof_is_not_used() {
    for (solving, signed_again) in [(60_000, 0), (60_101, 1)] {
        let mut world = World::started();
        world.pass(solving);
        let before = world.host.signatures();
        assert!(world.fetch(with_result("a", "r1")).is_ok());
        assert_eq!(world.host.signatures() - before, signed_again, "after {solving} ms");
    }
}

#[test]
fn a_proof_that_was_ready_too_late_is_not_used_with_the_next_nonce() {
    let mut world = World::new(|request| (10, Ok(good(request))));
    world.host.set_signing_takes(50);
    world.initialize().unwrap();
    // The nonce was there at 60, and its proof will be at 110.
    world.pass(70);
    assert!(world.fetch(with_result("a", "r1")).is_ok());
    assert!(world.fetch(api("b")).is_ok());
    let received = world.host.received();
    assert_eq!(received.len(), 3);
    assert_eq!(received[1].claims["nonce"], "nonce-50");
    assert_eq!(received[2].claims["nonce"], format!("nonce-{}", received[1].at));
}

#[test]
fn a_thousand_concurrent_calls_are_one_request() {
    let mut world = World::started();
    world.pass(100);
    let calls: Vec<_> = (0..1000).map(|_| world.start_fetch(with_result("a", "r1"))).collect();
    world.pass(1_000);
    assert_eq!(world.host.posts().len(), 1);
    for mut call in calls {
        assert_eq!(call.try_recv().unwrap().unwrap().unwrap(), "100:a");
    }
}

#[test]
fn different_apis_of_one_turn_travel_together() {
    let mut world = World::started();
    world.pass(100);
    let calls: Vec<_> = ["a", "b", "c"].map(|name| world.start_fetch(with_result(name, "r1"))).into();
    world.pass(1_000);
    let posts = world.host.posts();
    assert_eq!(posts.len(), 1);
    assert_eq!(parameter(&posts[0], "api"), ["a", "b", "c"]);
    for (mut call, expected) in calls.into_iter().zip(["100:a", "100:b", "100:c"]) {
        assert_eq!(call.try_recv().unwrap().unwrap().unwrap(), expected);
    }
}

#[test]
fn a_refused_nonce_is_retried_once_with_the_fresh_one() {
    let mut world = World::started();
    let mut refusals = 0;
    world.host.serve(move |request| {
        refusals += 1;
        (10, Ok(if refusals == 1 { refusal(401, "aprv-invalid-nonce") } else { good(request) }))
    });
    assert!(world.fetch(with_result("a", "r1")).is_ok());
    let received = world.host.received();
    assert_eq!(received.len(), 3);
    assert_eq!(received[2].claims["nonce"], "fresh");
    assert_eq!(received[1].form, received[2].form);
    assert_ne!(received[1].claims["jti"], received[2].claims["jti"]);
}

#[test]
fn a_proof_that_a_browser_has_sent_twice_is_made_again_once() {
    let mut world = World::started();
    let mut refusals = 0;
    world.host.serve(move |request| {
        refusals += 1;
        (10, Ok(if refusals == 1 { refusal(401, "aprv-invalid-dpop-token") } else { good(request) }))
    });
    assert!(world.fetch(with_result("a", "r1")).is_ok());
    world.host.serve(|_| (10, Ok(refusal(401, "aprv-invalid-dpop-token"))));
    assert_eq!(code(world.fetch(api("b"))), Code::Service);
    assert_eq!(world.host.posts().len(), 2 + 2);
}

#[test]
fn a_nonce_that_is_refused_twice_is_an_error() {
    let mut world = World::started();
    world.host.serve(|_| (10, Ok(refusal(401, "aprv-invalid-nonce"))));
    let failure = world.fetch(with_result("a", "r1")).expect_err("an error");
    assert_eq!(failure.error.code(), Code::Service);
    assert!(failure.error.is_invalid_nonce());
    assert_eq!(world.host.posts().len(), 2);
}

#[test]
fn a_request_with_a_fresh_result_is_sent_again_once_and_only_if_the_network_failed() {
    for (reply, posts) in [(Err("reset"), 2), (Ok(refusal(502, "recap-token-check")), 1), (Ok(refusal(503, "x")), 1)] {
        let mut world = World::started();
        world.host.serve(move |_| (10, reply.clone()));
        assert!(world.fetch(with_result("a", "r1")).is_err());
        assert_eq!(world.host.posts().len(), posts);
    }
    let mut world = World::started();
    let mut lost = false;
    world
        .host
        .serve(move |request| (10, if std::mem::replace(&mut lost, true) { Ok(good(request)) } else { Err("reset") }));
    assert!(world.fetch(with_result("a", "r1")).is_ok());
    let posts = world.host.posts();
    assert_eq!(posts[0], posts[1], "the same request with another proof");
}

#[test]
fn a_refresh_is_tried_three_times() {
    let mut world = World::started();
    world.fetch(with_result("a", "r1")).unwrap();
    world.host.serve(|_| (10, Err("reset")));
    let failure = world.fetch(api("b")).expect_err("an error");
    assert_eq!((failure.error.code(), failure.cause), (Code::Network, Some("reset")));
    assert_eq!(world.host.posts().len(), 1 + 3);
    let mut failures = 2;
    world.host.serve(move |request| {
        failures -= 1;
        (10, if failures >= 0 { Err("reset") } else { Ok(good(request)) })
    });
    assert!(world.fetch(api("b")).is_ok());
}

#[test]
fn a_refusal_is_not_tried_again() {
    let mut world = World::started();
    world.fetch(with_result("a", "r1")).unwrap();
    world.host.serve(|_| (10, Ok(refusal(400, "aprv-api-not-found"))));
    let failure = world.fetch(api("b")).expect_err("an error");
    assert_eq!(failure.error.code(), Code::Service);
    assert_eq!(world.host.posts().len(), 2);
}

#[test]
fn retry_after_is_respected() {
    let mut world = World::started();
    world.fetch(with_result("a", "r1")).unwrap();
    let mut refused = false;
    world.host.serve(move |request| {
        if std::mem::replace(&mut refused, true) {
            return (10, Ok(good(request)));
        }
        (10, Ok(Response { retry_after: Some(4_000), ..refusal(429, "aprv-rate-limit") }))
    });
    assert!(world.fetch(api("b")).is_ok());
    let times: Vec<_> = world.host.received().iter().map(|request| request.at).collect();
    let [.., refused, granted] = times[..] else { panic!("two requests") };
    assert!(granted - refused >= 4_000, "{times:?}");
}

#[test]
fn a_pause_longer_than_the_time_out_is_not_begun_and_the_reason_is_reported() {
    let mut world = World::started();
    world.fetch(with_result("a", "r1")).unwrap();
    world.host.serve(|_| (10, Ok(Response { retry_after: Some(60_000), ..refusal(429, "aprv-rate-limit") })));
    let begun = world.host.now_since_start();
    let failure = world.fetch(api("b")).unwrap_err();
    assert_eq!(failure.error.code(), Code::Service);
    assert!(failure.error.service_errors().get("aprv-rate-limit").is_some());
    assert!(failure.error.is_retryable());
    assert!(world.host.now_since_start() - begun < 1_000);
}

#[test]
fn a_response_past_the_time_out_is_a_fetch_error_and_the_request_is_aborted() {
    let mut world = World::started();
    world.fetch(with_result("a", "r1")).unwrap();
    let begun = world.host.now_since_start();
    world.host.serve(|request| (60_000, Ok(good(request))));
    let arguments = TokenArguments { timeout: Argument::Number(250.0), ..api("b") };
    assert_eq!(code(world.fetch(arguments)), Code::Timeout);
    assert_eq!(world.host.now_since_start() - begun, 250);
    world.settle();
    assert_eq!(world.host.aborted(), 1);
    world.host.serve(|request| (10, Ok(good(request))));
    assert!(world.fetch(api("b")).is_ok());
}

/// A call that ends with `aborted` after so many milliseconds.
fn aborted_after(world: &World, milliseconds: u32, arguments: TokenArguments) -> Shared {
    let (sdk, host) = (Rc::clone(&world.sdk), world.host.clone());
    let outcome = Shared::default();
    let settled = Rc::clone(&outcome);
    world.spawn(async move {
        let cancelled = async {
            host.sleep(milliseconds).await;
            Failure::caused_by(Error::new(Code::Aborted, &["aborted"]), "reason")
        };
        *settled.borrow_mut() = Some(sdk.fetch_token(arguments, cancelled).await);
    });
    outcome
}

type Shared = Rc<std::cell::RefCell<Option<Result<String, Failure<&'static str>>>>>;

#[test]
fn a_request_that_carries_a_result_runs_on_when_its_caller_gives_up_and_its_token_is_cached() {
    for gives_up_by_time_out in [false, true] {
        let mut world = World::started();
        world.pass(100);
        world.host.serve(|request| (1_000, Ok(good(request))));
        let given_up = if gives_up_by_time_out {
            let arguments = TokenArguments { timeout: Argument::Number(300.0), ..with_result("a", "r1") };
            aborted_after(&world, 60_000, arguments)
        } else {
            aborted_after(&world, 300, with_result("a", "r1"))
        };
        world.pass(500);
        assert!(given_up.borrow().as_ref().is_some_and(Result::is_err));
        // The component is mounted again while the request is under way, and once more when it is done.
        let mut again = world.start_fetch(with_result("a", "r1"));
        world.pass(1_000);
        assert_eq!(again.try_recv().unwrap().unwrap().unwrap(), "100:a");
        assert_eq!(world.fetch(with_result("a", "r1")).unwrap(), "100:a");
        assert_eq!((world.host.posts().len(), world.host.aborted()), (1, 0));
    }
}

#[test]
fn a_request_that_runs_on_is_given_up_in_the_end() {
    let mut world = World::started();
    world.pass(100);
    world.host.serve(|request| (60_000, Ok(good(request))));
    let given_up = aborted_after(&world, 300, with_result("a", "r1"));
    world.pass(10_200);
    assert!(given_up.borrow().is_some());
    assert_eq!(world.host.aborted(), 0);
    world.pass(200);
    assert_eq!(world.host.aborted(), 1);
}

#[test]
fn a_result_that_has_not_left_the_page_is_not_sent_for_a_caller_who_gave_up() {
    let mut world = World::new(|request| (1_000, Ok(good(request))));
    world.initialize().unwrap();
    let given_up = aborted_after(&world, 300, with_result("a", "r1"));
    world.pass(5_000);
    assert!(given_up.borrow().is_some());
    assert!(world.host.posts().is_empty(), "the nonce came later");
}

#[test]
fn a_response_that_came_while_the_page_was_blocked_counts_before_the_time_out() {
    let mut world = World::started();
    world.pass(100);
    // On its way when the page is blocked, and there before the page hears of anything: but the timer is called first.
    world.host.serve(|request| (10_500, Ok(good(request))));
    let mut call = world.start_fetch(with_result("a", "r1"));
    world.pass(10);
    world.block(11_000);
    world.pass(2_000);
    assert!(call.try_recv().unwrap().unwrap().is_ok());
    // The wait is not longer for a response that has not come.
    world.host.serve(|request| (60_000, Ok(good(request))));
    let mut call = world.start_fetch(api("b"));
    world.pass(10);
    world.block(30_000);
    world.pass(1_010);
    assert_eq!(code(call.try_recv().unwrap().unwrap()), Code::Timeout);
}

#[test]
fn one_caller_who_gives_up_does_not_abort_the_others() {
    let mut world = World::started();
    world.pass(100);
    world.host.serve(|request| (1_000, Ok(good(request))));
    let mut patient = world.start_fetch(with_result("a", "r1"));
    let sdk = Rc::clone(&world.sdk);
    let gave_up = Failure::caused_by(Error::new(Code::Aborted, &["aborted"]), "reason");
    let impatient = world.run(async move { sdk.fetch_token(with_result("a", "r1"), async { gave_up }).await });
    let failure = impatient.expect_err("an error");
    assert_eq!((failure.error.code(), failure.cause), (Code::Aborted, Some("reason")));
    world.pass(2_000);
    assert!(patient.try_recv().unwrap().unwrap().is_ok());
    assert_eq!((world.host.posts().len(), world.host.aborted()), (1, 0));
}

#[test]
fn a_shared_failure_reaches_every_caller_and_is_not_remembered() {
    let mut world = World::started();
    world.pass(100);
    world.host.serve(|_| (10, Err("reset")));
    let calls: Vec<_> = (0..3).map(|_| world.start_fetch(with_result("a", "r1"))).collect();
    world.pass(1_000);
    for mut call in calls {
        assert_eq!(code(call.try_recv().unwrap().unwrap()), Code::Network);
    }
    assert_eq!(world.host.posts().len(), 2);
    world.host.serve(|request| (10, Ok(good(request))));
    assert!(world.fetch(with_result("a", "r1")).is_ok());
}

#[test]
fn a_caller_without_results_shares_the_fate_of_the_request_it_waits_for() {
    let mut world = World::started();
    world.pass(100);
    world.host.serve(|_| (50, Err("reset")));
    let mut first = world.start_fetch(with_result("a", "r1"));
    world.pass(10);
    let mut second = world.start_fetch(api("b"));
    world.pass(1_000);
    assert_eq!(code(first.try_recv().unwrap().unwrap()), Code::Network);
    assert_eq!(code(second.try_recv().unwrap().unwrap()), Code::Network);
}

#[test]
fn a_stale_token_is_returned_at_once_and_refreshed_in_the_background() {
    let mut world = World::started();
    world.fetch(with_result("a", "r1")).unwrap();
    world.pass(100_000);
    let posts = world.host.posts().len();
    let before = world.host.now_since_start();
    let token = world.fetch(api("a")).unwrap();
    assert_eq!(world.host.now_since_start(), before, "the caller did not wait");
    world.pass(1_000);
    assert_eq!(world.host.posts().len(), posts + 1);
    assert_ne!(world.fetch(api("a")).unwrap(), token);
    assert_eq!(world.host.posts().len(), posts + 1);
}

#[test]
fn a_new_session_gets_nothing_from_requests_of_the_old_one() {
    let mut world = World::started();
    world.pass(100);
    world.host.serve(|request| (1_000, Ok(good(request))));
    let mut old = world.start_fetch(with_result("a", "r1"));
    world.pass(500);
    world.initialize().unwrap();
    world.pass(2_000);
    assert!(old.try_recv().unwrap().unwrap().is_ok());
    assert_eq!(code(world.fetch(api("a"))), Code::ResultsRequired);
}

#[test]
fn a_proof_for_a_token_of_a_session_before_is_refused() {
    let mut world = World::started();
    let proof_for = |world: &mut World, token: &str| {
        let arguments = ProofArguments { token: Some(Ok(token.into())), ..proof_of("https://a/") };
        let sdk = Rc::clone(&world.sdk);
        world.run(async move { sdk.active().await.and_then(|session| session.proof_input(arguments)) })
    };
    world.pass(100);
    let first = world.fetch(with_result("a", "r1")).unwrap();
    assert!(proof_for(&mut world, &first).is_ok());
    world.host.serve(|request| (1_000, Ok(good(request))));
    let mut late = world.start_fetch(api("b"));
    world.pass(500);
    world.initialize().unwrap();
    world.pass(2_000);
    let late = late.try_recv().unwrap().unwrap().unwrap();
    for old in [&first, &late] {
        assert_eq!(code(proof_for(&mut world, old)), Code::SessionExpired, "{old}");
    }
    let second = world.fetch(with_result("a", "r2")).unwrap();
    for token in [&second, "of somebody else", &second] {
        assert!(proof_for(&mut world, token).is_ok(), "{token}");
    }
    assert_eq!(code(proof_for(&mut world, &first)), Code::SessionExpired);
}

#[test]
fn initialising_again_without_options_keeps_the_configuration() {
    let mut world = World::started();
    let sdk = Rc::clone(&world.sdk);
    world
        .run(
            async move { sdk.initialize_session(SessionArguments::default(), SessionArguments::default(), None).await },
        )
        .unwrap();
    assert!(world.fetch(with_result("a", "r1")).is_ok());
}

#[test]
fn a_failed_initialisation_leaves_the_session_as_it_was() {
    let mut world = World::started();
    world.fetch(with_result("a", "r1")).unwrap();
    world.host.break_keys(true);
    assert_eq!(code(world.initialize()), Code::Unsupported);
    let sdk = Rc::clone(&world.sdk);
    let bad = SessionArguments { approov_host: Argument::Number(1.0), ..options() };
    assert_eq!(
        code(world.run(async move { sdk.initialize_session(bad, SessionArguments::default(), None).await })),
        Code::InvalidArgument
    );
    assert!(world.fetch(api("a")).is_ok());
}

#[test]
fn a_call_right_after_initialise_session_waits_for_it() {
    let mut world = World::new(|request| (10, Ok(good(request))));
    let sdk = Rc::clone(&world.sdk);
    world.spawn(async move { sdk.initialize_session(options(), SessionArguments::default(), None).await.unwrap() });
    assert!(world.fetch(with_result("a", "r1")).is_ok());
}

#[test]
fn two_lazy_callers_at_once_both_end_with_a_token() {
    let mut world = World::new(|request| (10, Ok(good(request))));
    let lazy = |result: &'static str| {
        let sdk = Rc::clone(&world.sdk);
        async move {
            let first = sdk.fetch_token(api("a"), std::future::pending()).await;
            let Err(failure) = first else { return first };
            assert_eq!(failure.error.code().class(), Class::Session);
            sdk.initialize_session(options(), SessionArguments::default(), None).await.unwrap();
            sdk.fetch_token(with_result("a", result), std::future::pending()).await
        }
    };
    let both = futures_util::future::join(lazy("r1"), lazy("r2"));
    let (first, second) = world.run(both);
    assert!(first.is_ok() && second.is_ok());
}

#[test]
fn a_nonce_that_a_proxy_took_away_is_named() {
    let mut world = World::new(|_| (10, Ok(Response { status: 204, ..Response::default() })));
    world.initialize().unwrap();
    let failure = world.fetch(with_result("a", "r1")).expect_err("an error");
    assert_eq!(failure.error.code(), Code::InvalidResponse);
    assert!(failure.error.message().contains("DPoP-Nonce"), "{}", failure.error);
}

#[test]
fn a_nonce_request_that_failed_is_made_again_by_the_attest_request() {
    let mut world = World::new(|_| (10, Err("reset")));
    world.initialize().unwrap();
    world.pass(100);
    assert_eq!(code(world.fetch(with_result("a", "r1"))), Code::Network);
    assert!(world.host.posts().is_empty(), "without a nonce nothing is posted");
    world.host.serve(|request| (10, Ok(good(request))));
    assert!(world.fetch(with_result("a", "r1")).is_ok());
}

#[test]
fn a_wrong_wall_clock_changes_nothing() {
    for hours in [-6, 6] {
        let mut world = World::new(|request| (10, Ok(good(request))));
        world.host.set_wall_error(hours * 3_600_000);
        world.initialize().unwrap();
        world.fetch(with_result("a", "r1")).unwrap();
        world.pass(60_000);
        assert!(world.fetch(api("a")).is_ok());
        assert_eq!(world.host.posts().len(), 1);
        let sdk = Rc::clone(&world.sdk);
        let session = world.run(async move { sdk.active().await }).unwrap();
        let input = session.proof_input(proof_of("https://a/")).unwrap();
        let claims = from_base64url(input.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["iat"], (START + world.host.now_since_start()) / 1000);
        let expiries = session.expiries();
        let expected = START + 7_200_000 + hours * 3_600_000;
        assert!((expiries[0].1 - expected).abs() < 1_000, "{expiries:?}");
    }
}

#[test]
fn a_clock_changed_in_between_costs_at_most_one_request() {
    for hours in [-30, 30] {
        let mut world = World::started();
        world.fetch(with_result("a", "r1")).unwrap();
        world.host.set_wall_error(hours * 3_600_000);
        for _ in 0..20 {
            world.pass(1_000);
            world.fetch(api("a")).unwrap();
        }
        assert!(world.host.posts().len() <= 2, "{:?}", world.host.posts());
    }
}

#[test]
fn after_hours_of_sleep_the_first_calls_are_one_request() {
    let mut world = World::started();
    world.fetch(with_result("a", "r1")).unwrap();
    world.pass(3_600_000);
    let calls: Vec<_> = (0..50).map(|_| world.start_fetch(api("a"))).collect();
    world.pass(1_000);
    assert_eq!(world.host.posts().len(), 2);
    for mut call in calls {
        assert!(call.try_recv().unwrap().unwrap().is_ok());
    }
    world.pass(7_200_000);
    assert_eq!(code(world.fetch(api("a"))), Code::SessionExpired);
    assert_eq!(world.host.posts().len(), 2);
}

/// Refuses requests for APIs that the account lacks, as the service does: before it consumes any result.
fn only(known: &'static [&'static str]) -> impl FnMut(&Received) -> Reply {
    move |request| {
        let apis = request.form.as_deref().map(|form| parameter(form, "api")).unwrap_or_default();
        let is_known = |api: &String| known.contains(&api.as_str());
        (10, Ok(if apis.iter().all(is_known) { good(request) } else { refusal(400, "aprv-api-not-found") }))
    }
}

#[test]
fn an_api_that_the_account_lacks_does_not_fail_the_others_of_its_turn() {
    for order in [["bad", "a", "b"], ["a", "bad", "b"], ["a", "b", "bad"]] {
        let mut world = World::started();
        world.pass(100);
        world.host.serve(only(&["a", "b"]));
        let calls = order.map(|name| (name, world.start_fetch(with_result(name, "r1"))));
        world.pass(1_000);
        for (name, mut call) in calls {
            let outcome = call.try_recv().unwrap().unwrap();
            if name == "bad" {
                let error = outcome.expect_err("an error").error;
                assert!(error.service_errors().get("aprv-api-not-found").is_some(), "{error:?}");
            } else {
                assert!(outcome.unwrap().ends_with(name), "{order:?}");
            }
        }
        let posts = world.host.posts();
        let requested: Vec<_> = posts.iter().map(|form| parameter(form, "api").join("+")).collect();
        assert_eq!(requested, [&[order.join("+")], order.map(str::to_owned).as_slice()].concat());
        // The result travels until it is accepted, and no further.
        let with_result = posts.iter().filter(|form| !parameter(form, "recaptcha-token").is_empty()).count();
        assert_eq!(with_result, if order[0] == "bad" { 3 } else { 2 });
        assert!(world.fetch(api("a")).is_ok() && world.fetch(api("b")).is_ok());
        assert_eq!(world.host.posts().len(), 4);
    }
}

#[test]
fn apis_that_the_account_lacks_are_each_refused_and_the_session_goes_on() {
    let mut world = World::started();
    world.fetch(with_result("a", "r1")).unwrap();
    world.host.serve(only(&["a"]));
    let calls = ["x", "y"].map(|name| world.start_fetch(api(name)));
    world.pass(1_000);
    for mut call in calls {
        assert_eq!(code(call.try_recv().unwrap().unwrap()), Code::Service);
    }
    assert_eq!(world.host.posts().len(), 1 + 3);
    world.pass(200_000);
    assert!(world.fetch(api("a")).is_ok());
}

#[test]
fn when_the_service_becomes_unreachable_between_apis_the_tokens_that_came_are_returned() {
    let mut world = World::started();
    world.pass(100);
    let mut posts = 0;
    world.host.serve(move |request| {
        posts += u32::from(request.form.is_some());
        match posts {
            0 | 2 => (10, Ok(good(request))),
            1 => (10, Ok(refusal(400, "aprv-api-not-web-enabled"))),
            _ => (10, Err("reset")),
        }
    });
    let [mut first, mut second] = ["a", "b"].map(|name| world.start_fetch(with_result(name, "r1")));
    world.pass(9_000);
    assert!(first.try_recv().unwrap().unwrap().is_ok());
    let failure = second.try_recv().unwrap().unwrap().expect_err("an error");
    assert_eq!((failure.error.code(), failure.cause), (Code::Network, Some("reset")));
}

#[test]
fn who_waits_for_results_that_failed_with_every_api_gets_the_reason() {
    let mut world = World::started();
    world.pass(100);
    let mut posts = 0;
    world.host.serve(move |request| {
        posts += u32::from(request.form.is_some());
        (100, if posts < 2 { Ok(refusal(400, "aprv-api-not-found")) } else { Err("reset") })
    });
    let calls = ["a", "b"].map(|name| world.start_fetch(with_result(name, "r1")));
    world.pass(10);
    let mut later = world.start_fetch(with_result("c", "r1"));
    world.pass(9_000);
    for mut call in calls {
        assert_eq!(code(call.try_recv().unwrap().unwrap()), Code::Network);
    }
    let failure = later.try_recv().unwrap().unwrap().expect_err("an error");
    assert_eq!((failure.error.code(), failure.cause), (Code::Network, Some("reset")));
}

#[test]
fn results_that_were_not_consumed_go_to_the_next_turn() {
    let mut world = World::started();
    world.pass(100);
    world.host.serve(only(&["a"]));
    let mut bad = world.start_fetch(with_result("bad", "r1"));
    world.pass(5);
    let mut good = world.start_fetch(with_result("a", "r1"));
    world.pass(1_000);
    assert_eq!(code(bad.try_recv().unwrap().unwrap()), Code::Service);
    assert!(good.try_recv().unwrap().unwrap().is_ok());
    assert_eq!(world.host.posts().len(), 2);
}

#[test]
fn a_bare_token_of_one_api_is_kept_when_the_next_cannot_be_requested() {
    let mut world = World::started();
    world.pass(100);
    world.host.serve(|request| {
        let Some(form) = &request.form else { return (10, Ok(good(request))) };
        let bare = Response {
            status: 200,
            content_type: "text/plain".into(),
            body: Body::Text("e30.e30.c2ln".into()),
            ..Response::default()
        };
        (10, Ok(if parameter(form, "api").len() > 1 { refusal(400, "aprv-api-too-many-targets") } else { bare }))
    });
    let [mut first, mut second] = ["a", "b"].map(|name| world.start_fetch(with_result(name, "r1")));
    world.pass(1_000);
    assert_eq!(first.try_recv().unwrap().unwrap().unwrap(), "e30.e30.c2ln");
    assert_eq!(code(second.try_recv().unwrap().unwrap()), Code::ResultsRequired);
}

#[test]
fn a_refusal_for_other_reasons_too_fails_all_of_the_turn_at_once() {
    let mut world = World::started();
    world.pass(100);
    world.host.serve(|request| {
        let response = if request.form.is_some() {
            json_response(400, &json!({ "aprv-api-not-found": "a", "aprv-no-site-key": "" }))
        } else {
            good(request)
        };
        (10, Ok(response))
    });
    let calls = ["a", "b"].map(|name| world.start_fetch(with_result(name, "r1")));
    world.pass(1_000);
    for mut call in calls {
        assert_eq!(code(call.try_recv().unwrap().unwrap()), Code::Service);
    }
    assert_eq!(world.host.posts().len(), 1);
}

#[test]
fn a_session_of_any_check_gets_its_tokens_and_its_expiries() {
    for (key, option, parameters, prefix) in [
        ("turnstileSiteKey", "turnstileToken", ["turnstile-site-key", "turnstile-token"], "turnstile:"),
        ("friendlyCaptchaSiteKey", "friendlyCaptchaResponse", ["friendly-site-key", "friendly-response"], "friendly:"),
    ] {
        let mut world = World::new(move |request| {
            let mut response = good(request);
            if let (Some(_), Body::Json(Json::Object(members))) = (&request.form, &mut response.body) {
                let Some(Json::Object(mut expiries)) = members.take("expiries") else { panic!("expiries") };
                expiries.insert(format!("{prefix}key"), Json::Number(1.7e12 + 3_600_000.0));
                members.insert("expiries".into(), Json::Object(expiries));
            }
            (10, Ok(response))
        });
        let sdk = Rc::clone(&world.sdk);
        let arguments = SessionArguments::default()
            .with("approovHost", text("service.example.com"))
            .with("approovSiteKey", text("site"))
            .with(key, text("key"));
        world.run(async move { sdk.initialize_session(arguments, SessionArguments::default(), None).await }).unwrap();
        assert_eq!(code(world.fetch(with_result("a", "r1"))), Code::InvalidArgument, "of a check that it has not");
        assert!(world.fetch(api("a").with(option, text("result"))).is_ok());
        let form = world.host.posts().pop().unwrap();
        assert_eq!(parameters.map(|name| parameter(&form, name).concat()), ["key", "result"]);
        let sdk = Rc::clone(&world.sdk);
        let expiries = world.run(async move { sdk.active().await.map(|session| session.expiries()) }).unwrap();
        assert!(expiries.iter().any(|(name, _)| *name == format!("{prefix}key")), "{expiries:?}");
    }
}

#[test]
fn a_missing_result_is_called_by_the_options_of_the_session() {
    let mut world = World::started();
    let message = |failure: Failure<&'static str>| failure.error.message().to_owned();
    let missing = message(world.fetch(api("a")).expect_err("no result"));
    assert!(missing.ends_with("needs the result of a check: \"recaptchaToken\""), "{missing}");
    let misspelt = world.fetch(api("a").with("g-recaptcha-response", text("r"))).expect_err("no result");
    assert_eq!(misspelt.error.code(), Code::ResultsRequired);
    let misspelt = message(misspelt);
    let hint = "\"g-recaptcha-response\" is not an option: did you mean \"recaptchaToken\"?";
    assert!(misspelt.ends_with(hint), "{misspelt}");
    assert!(world.fetch(with_result("a", "r1").with("recaptchatoken", text("r"))).is_ok());
    assert!(world.fetch(api("a").with("recaptchatoken", text("r"))).is_ok(), "unknown options are ignored");
}
