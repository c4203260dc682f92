//! The check that the SDK passes by itself: challenges that come with nonces, and those that the service asks for.

use std::cell::RefCell;
use std::rc::Rc;

use approov_web_sdk::argument::Argument;
use approov_web_sdk::config::SessionArguments;
use approov_web_sdk::driver::{Failure, Host as _};
use approov_web_sdk::error::{Code, Error};
use approov_web_sdk::wire::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::simulated::*;

/// A challenge that one of 16 counters solves, named by its nonce.
fn challenge(purpose: &str, nonce: u8) -> Value {
    json!({
        "parameters": {
            "algorithm": "PBKDF2/SHA-256", "cost": 1, "data": {"use": purpose}, "expiresAt": START / 1000 + 600, "keyLength": 32,
            "keyPrefix": "0", "nonce": format!("{nonce:02x}"), "salt": "00",
        },
        "signature": "sig",
    })
}

/// A healthy service that gives a challenge with each nonce.
fn with_challenges(request: &Received) -> Response {
    let response = good(request);
    if request.form.is_some() || request.claims["aprv"].is_null() {
        return response;
    }
    assert_eq!(request.claims["aprv"], json!({"site-key": "site", "altcha-site-key": "alt"}));
    let body = json!({"altcha": challenge("check", u8::try_from(request.at % 251).unwrap())});
    Response { nonce: response.nonce, ..json_response(200, &body) }
}

fn altcha_options() -> SessionArguments {
    SessionArguments::default()
        .with("approovHost", text("service.example.com"))
        .with("approovSiteKey", text("site"))
        .with("altchaSiteKey", text("alt"))
}

fn world_with(options: SessionArguments) -> World {
    let mut world = World::new(|request| (10, Ok(with_challenges(request))));
    let sdk = Rc::clone(&world.sdk);
    world
        .run(async move { sdk.initialize_session(options, SessionArguments::default(), None).await })
        .expect("a session");
    world.pass(100);
    world
}

/// The challenge whose solution a form has as this parameter; the solution is one.
fn solved(form: &str, name: &str) -> Value {
    let [payload] = &parameter(form, name)[..] else { panic!("{name} is not there once in {form}") };
    let payload: Value = serde_json::from_slice(&STANDARD.decode(payload).unwrap()).unwrap();
    let hex = |name: &str| {
        let text = payload["challenge"]["parameters"][name].as_str().unwrap();
        u8::from_str_radix(text, 16).unwrap()
    };
    let counter = u32::try_from(payload["solution"]["counter"].as_u64().unwrap()).unwrap();
    let password = [&[hex("nonce")][..], &counter.to_be_bytes()].concat();
    let mut key = [0; 32];
    pbkdf2::pbkdf2_hmac::<sha2::Sha256>(&password, &[hex("salt")], 1, &mut key);
    let written: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(payload["solution"]["derivedKey"], written);
    assert!(written.starts_with('0'));
    payload["challenge"].clone()
}

#[test]
fn a_token_takes_three_lines_and_no_result() {
    let mut world = world_with(altcha_options());
    assert_eq!(world.fetch(api("a")).unwrap().split(':').nth(1), Some("a"));
    let received = world.host.received();
    assert_eq!(received.len(), 2, "a nonce with its challenge, and one attest request");
    let form = received[1].form.as_ref().unwrap();
    assert_eq!(parameter(form, "altcha-site-key"), ["alt"]);
    assert_eq!(solved(form, "altcha-payload"), challenge("check", 0));
    // The session goes on by itself.
    world.pass(115_000);
    world.fetch(api("a")).unwrap();
    world.pass(1_000);
    let posts = world.host.posts();
    assert_eq!((posts.len(), parameter(&posts[1], "altcha-payload").len()), (2, 0));
}

#[test]
fn a_thousand_concurrent_calls_solve_one_challenge() {
    let mut world = world_with(altcha_options());
    let calls: Vec<_> = (0..1000).map(|n| world.start_fetch(api(if n % 2 == 0 { "a" } else { "b" }))).collect();
    world.pass(1_000);
    for mut call in calls {
        assert!(call.try_recv().unwrap().unwrap().is_ok());
    }
    assert_eq!(world.host.received().len(), 2);
}

#[test]
fn a_call_does_not_wait_for_the_nonce_twice() {
    let mut world = World::new(|request| (500, Ok(with_challenges(request))));
    let sdk = Rc::clone(&world.sdk);
    world
        .run(async move { sdk.initialize_session(altcha_options(), SessionArguments::default(), None).await })
        .unwrap();
    world.fetch(api("a")).unwrap();
    assert_eq!(world.host.received().len(), 2);
}

#[test]
fn a_challenge_that_has_no_time_left_is_replaced() {
    let mut world = world_with(altcha_options());
    world.host.serve(|request| {
        let mut response = with_challenges(request);
        if request.form.is_none() {
            let mut fresh = challenge("check", 7);
            fresh["parameters"]["expiresAt"] = json!(START / 1000 + 2_000);
            response = Response { nonce: response.nonce, ..json_response(200, &json!({"altcha": fresh})) };
        }
        (10, Ok(response))
    });
    world.pass(580_000);
    world.fetch(api("a")).unwrap();
    let received = world.host.received();
    assert_eq!(received.len(), 3);
    assert_eq!(solved(received[2].form.as_ref().unwrap(), "altcha-payload")["parameters"]["nonce"], "07");
}

#[test]
fn next_to_other_checks_it_is_passed_only_when_the_call_says_so() {
    let both = altcha_options().with("recaptchaSiteKey", text("re"));
    let mut world = world_with(both);
    let missing = world.fetch(api("a")).unwrap_err();
    assert_eq!(missing.error.code(), Code::ResultsRequired);
    world.fetch(with_result("a", "r1").with("altchaPayload", Argument::True)).unwrap();
    let posts = world.host.posts();
    assert_eq!(parameter(&posts[0], "recaptcha-token"), ["r1"]);
    solved(&posts[0], "altcha-payload");
    // A widget's payload travels as it is.
    world.fetch(api("a").with("altchaPayload", text("d2lkZ2V0"))).unwrap();
    assert_eq!(parameter(&world.host.posts()[1], "altcha-payload"), ["d2lkZ2V0"]);
    // Another one is another challenge's.
    world.fetch(api("a").with("altchaPayload", Argument::True)).unwrap();
    let posts = world.host.posts();
    assert_ne!(solved(&posts[0], "altcha-payload"), solved(&posts[2], "altcha-payload"));
}

#[test]
fn what_asks_for_it_without_its_key_is_refused_by_name() {
    let mut world = World::started();
    let refused = world.fetch(with_result("a", "r").with("altchaPayload", Argument::True)).unwrap_err();
    assert!(refused.error.message().contains("\"altchaPayload\" needs the option \"altchaSiteKey\""), "{refused:?}");
}

#[test]
fn a_service_that_offers_no_challenge_is_named() {
    let mut world = world_with(altcha_options());
    world.host.serve(|request| (10, Ok(good(request))));
    // The first challenge is used up by a request that fails.
    world.host.serve(|request| match &request.form {
        Some(_) => (10, Ok(refusal(400, "aprv-no-site-key"))),
        None => (10, Ok(good(request))),
    });
    assert_eq!(world.fetch(api("a")).unwrap_err().error.code(), Code::Service);
    let none = world.fetch(api("a")).unwrap_err();
    assert!(none.error.message().contains("offers no ALTCHA challenge"), "{none:?}");
}

#[test]
fn the_time_out_begins_after_the_challenge_is_solved_and_who_gives_up_stops_the_work() {
    let world = world_with(altcha_options());
    let mut world = world;
    // No key begins so: it would go on for ever.
    world.host.serve(|request| {
        let mut response = with_challenges(request);
        if request.form.is_none() {
            let mut endless = challenge("check", 1);
            endless["parameters"]["keyPrefix"] = json!("f".repeat(64));
            endless["parameters"]["expiresAt"] = json!(START / 1000 + 600_000);
            response = Response { nonce: response.nonce, ..json_response(200, &json!({"altcha": endless})) };
        }
        (10, Ok(response))
    });
    let sdk = Rc::clone(&world.sdk);
    world
        .run(async move { sdk.initialize_session(altcha_options(), SessionArguments::default(), None).await })
        .unwrap();
    let (sdk, host) = (Rc::clone(&world.sdk), world.host.clone());
    let outcome = Rc::new(RefCell::new(None));
    let settled = Rc::clone(&outcome);
    world.spawn(async move {
        let cancelled = async {
            host.sleep(12_000).await;
            Failure::caused_by(Error::new(Code::Aborted, &["aborted"]), "reason")
        };
        *settled.borrow_mut() = Some(sdk.fetch_token(api("a"), cancelled).await);
    });
    world.pass(11_000);
    assert!(outcome.borrow().is_none(), "the usual time-out is for the service");
    world.pass(2_000);
    assert_eq!(outcome.borrow_mut().take().unwrap().unwrap_err().error.code(), Code::Aborted);
    assert!(!world.host.has_timers(), "nothing goes on");
}

#[test]
fn required_work_is_done_once_and_everything_is_sent_again_with_another_proof() {
    for (purpose, name) in [("work", "work"), ("check", "altcha-payload")] {
        let mut world = world_with(altcha_options().with("recaptchaSiteKey", text("re")));
        let asked = Rc::new(RefCell::new(0));
        let count = Rc::clone(&asked);
        world.host.serve(move |request| {
            let Some(form) = &request.form else { return (10, Ok(with_challenges(request))) };
            *count.borrow_mut() += 1;
            if *count.borrow() == 1 {
                let detail = URL_SAFE_NO_PAD.encode(challenge(purpose, 99).to_string());
                return (
                    10,
                    Ok(Response {
                        retry_after: Some(1000),
                        ..json_response(429, &json!({"aprv-work-required": detail}))
                    }),
                );
            }
            assert_eq!(solved(form, name)["parameters"]["nonce"], "63");
            (10, Ok(good(request)))
        });
        let token = world.fetch(with_result("a", "r1").with("altchaPayload", Argument::True));
        token.unwrap();
        let posts = world.host.posts();
        assert_eq!(posts.len(), 2);
        for form in &posts {
            assert_eq!(parameter(form, "recaptcha-token"), ["r1"]);
            assert_eq!(parameter(form, "altcha-payload").len(), 1);
        }
    }
    // A service that is never content is an error.
    let mut world = world_with(altcha_options());
    world.host.serve(|request| match &request.form {
        None => (10, Ok(with_challenges(request))),
        Some(_) => {
            let detail = URL_SAFE_NO_PAD.encode(challenge("work", 1).to_string());
            (10, Ok(json_response(429, &json!({"aprv-work-required": detail}))))
        }
    });
    let refused = world.fetch(api("a")).unwrap_err();
    assert_eq!((refused.error.code(), refused.error.is_retryable()), (Code::Service, true));
    assert_eq!(world.host.posts().len(), 2);
    // One that asks for what nobody can solve, too.
    world.host.serve(|request| match &request.form {
        None => (10, Ok(with_challenges(request))),
        Some(_) => (10, Ok(refusal(429, "aprv-work-required"))),
    });
    assert_eq!(world.fetch(api("a")).unwrap_err().error.code(), Code::Service);
    assert_eq!(world.host.posts().len(), 3);
}
