//! Whatever the order of calls, responses, failures and clock changes, the session keeps its promises.

use std::cell::RefCell;
use std::rc::Rc;

use crate::simulated::{Received, Reply, START, World, api, json_response, options, parameter, refusal, text};
use approov_web_sdk::argument::Argument;
use approov_web_sdk::config::SessionArguments;
use approov_web_sdk::driver::Failure;
use approov_web_sdk::error::Code;
use approov_web_sdk::token_request::TokenArguments;
use approov_web_sdk::wire::{Body, Response};
use proptest::prelude::*;
use serde_json::json;

/// How long the tokens of these services live, in milliseconds.
const LIFETIME: i64 = 20_000;
const SESSION: i64 = 200_000;

#[derive(Clone, Debug)]
enum Event {
    Fetch { api: u8, result: Option<u8>, binding: Option<u8>, timeout: u32 },
    Initialize,
    Pass(i64),
    Clock(i64),
    Service(ServiceBehaviour),
}

#[derive(Clone, Copy, Debug)]
enum ServiceBehaviour {
    Good(u32),
    Unreachable,
    Overloaded,
    NonceExpired,
    RefreshTokenRefused,
    Malformed,
    Forgetful,
    /// Refuses one API, and with it whatever else is requested with it.
    Picky(u8),
    Silent,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let fetch = (0..3u8, prop::option::of(0..3u8), prop::option::weighted(0.2, 0..2u8), 1..12_000u32)
        .prop_map(|(api, result, binding, timeout)| Event::Fetch { api, result, binding, timeout });
    let behaviour = prop_oneof![
        4 => (0..3_000u32).prop_map(ServiceBehaviour::Good),
        1 => Just(ServiceBehaviour::Unreachable),
        1 => Just(ServiceBehaviour::Overloaded),
        1 => Just(ServiceBehaviour::NonceExpired),
        1 => Just(ServiceBehaviour::RefreshTokenRefused),
        1 => Just(ServiceBehaviour::Malformed),
        1 => Just(ServiceBehaviour::Forgetful),
        2 => (0..3u8).prop_map(ServiceBehaviour::Picky),
        1 => Just(ServiceBehaviour::Silent),
    ];
    let event = prop_oneof![
        10 => fetch,
        1 => Just(Event::Initialize),
        5 => (0..30_000i64).prop_map(Event::Pass),
        1 => (0..300_000i64).prop_map(Event::Pass),
        1 => (-100_000_000..100_000_000i64).prop_map(Event::Clock),
        3 => behaviour.prop_map(Event::Service),
    ];
    prop::collection::vec(event, 1..60)
}

/// A token that names its key, time of issue, API and binding.
fn token(request: &Received, api: &str, form: &str) -> String {
    format!("{}/{}/{api}/{}", request.key, request.at, parameter(form, "payload").concat())
}

fn respond(behaviour: ServiceBehaviour, request: &Received) -> Reply {
    let nonce = Some(format!("nonce-{}", request.at));
    let Some(form) = &request.form else {
        return match behaviour {
            ServiceBehaviour::Unreachable => (10, Err("reset")),
            ServiceBehaviour::Silent => (1_000_000, Err("late")),
            _ => (10, Ok(Response { status: 204, nonce, ..Response::default() })),
        };
    };
    let tokens = |apis: Vec<String>| -> serde_json::Map<_, _> {
        apis.into_iter().map(|api| (api.clone(), json!(token(request, &api, form)))).collect()
    };
    let grant = |apis| {
        let body = json!({
            "tokens": tokens(apis), "token-lifetime": LIFETIME / 1000, "server-time": START + request.at,
            "refresh-token": format!("refresh-{}-{}", request.key, request.at), "expiries": {"session": START + request.at + SESSION},
        });
        Response { nonce: nonce.clone(), ..json_response(200, &body) }
    };
    match behaviour {
        ServiceBehaviour::Good(delay) => (delay, Ok(grant(parameter(form, "api")))),
        ServiceBehaviour::Unreachable => (10, Err("reset")),
        ServiceBehaviour::Overloaded => (10, Ok(refusal(503, "overloaded"))),
        ServiceBehaviour::NonceExpired => (10, Ok(refusal(401, "aprv-invalid-nonce"))),
        ServiceBehaviour::RefreshTokenRefused => (10, Ok(refusal(401, "aprv-invalid-refresh-token"))),
        ServiceBehaviour::Malformed => {
            (10, Ok(Response { status: 200, nonce, body: Body::Text("<html>".into()), ..Response::default() }))
        }
        ServiceBehaviour::Forgetful => (10, Ok(grant(Vec::new()))),
        ServiceBehaviour::Picky(api) => {
            let apis = parameter(form, "api");
            let refused = apis.contains(&format!("api-{api}"));
            (100, Ok(if refused { refusal(400, "aprv-api-not-found") } else { grant(apis) }))
        }
        ServiceBehaviour::Silent => (1_000_000, Err("late")),
    }
}

/// What a call requested, and what came of it and when.
struct Call {
    key: u8,
    api: String,
    binding: Option<u8>,
    deadline: i64,
    settled: Rc<RefCell<Option<Settled>>>,
}

/// When a call was settled, and how.
type Settled = (i64, Result<String, Failure<&'static str>>);

fn arguments(event: &Event) -> TokenArguments {
    let Event::Fetch { api: index, result, binding, timeout } = event else { panic!("a call") };
    let result = result.map_or(Argument::Absent, |result| text(&format!("result-{result}")));
    TokenArguments {
        payload: binding.map_or(Argument::Absent, |binding| Argument::Bytes(vec![binding])),
        timeout: Argument::Number(f64::from(*timeout)),
        ..api(&format!("api-{index}")).with("recaptchaToken", result)
    }
}

fn start(world: &World, key: u8, event: &Event) -> Call {
    let Event::Fetch { api, binding, timeout, .. } = event else { panic!("a call") };
    let settled = Rc::new(RefCell::new(None));
    let (sdk, host, into) = (Rc::clone(&world.sdk), world.host.clone(), Rc::clone(&settled));
    let arguments = arguments(event);
    world.spawn(async move {
        let outcome = sdk.fetch_token(arguments, std::future::pending()).await;
        *into.borrow_mut() = Some((host.now_since_start(), outcome));
    });
    let deadline = world.host.now_since_start() + i64::from(*timeout);
    Call { key, api: format!("api-{api}"), binding: *binding, deadline, settled }
}

/// No two requests in flight of the same session request the same.
fn requests_are_shared(world: &World) -> Result<(), TestCaseError> {
    let mut wanted: Vec<String> = Vec::new();
    for request in world.host.in_flight() {
        let Some(form) = &request.form else { continue };
        for api in parameter(form, "api") {
            let what =
                ["payload", "recaptcha-token", "refresh-token"].map(|name| parameter(form, name).concat()).join("/");
            let what = format!("{}/{api}/{what}", request.key);
            prop_assert!(!wanted.contains(&what), "{what} is in flight twice");
            wanted.push(what);
        }
    }
    Ok(())
}

fn keeps_its_promises(call: &Call, end: i64) -> Result<(), TestCaseError> {
    let settled = call.settled.borrow();
    let Some((at, outcome)) = settled.as_ref() else {
        prop_assert!(end < call.deadline, "a call is still open after its time-out");
        return Ok(());
    };
    prop_assert!(*at <= call.deadline, "settled at {at}, after the time-out at {}", call.deadline);
    let token = match outcome {
        Ok(token) => token,
        Err(failure) => {
            prop_assert!(failure.error.code() != Code::Internal, "{}", failure.error);
            return Ok(());
        }
    };
    let parts: Vec<_> = token.split('/').collect();
    let issued: i64 = parts[1].parse().unwrap();
    prop_assert!(*at < issued + LIFETIME, "{token} was given at {at}, past its life");
    prop_assert_eq!(parts[0].parse::<u8>().unwrap(), call.key, "a token of another session");
    prop_assert_eq!(parts[2], &call.api);
    prop_assert_eq!(parts[3].is_empty(), call.binding.is_none());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_keeps_the_promises(events in events()) {
        let behaviour = Rc::new(RefCell::new(ServiceBehaviour::Good(10)));
        let service = Rc::clone(&behaviour);
        let mut world = World::new(move |request| respond(*service.borrow(), request));
        let mut key = 0;
        let mut calls = Vec::new();
        for event in &events {
            match event {
                Event::Fetch { .. } => calls.push(start(&world, key, event)),
                Event::Initialize => {
                    // What was called before belongs to the session before.
                    world.settle();
                    let sdk = Rc::clone(&world.sdk);
                    world.run(async move { sdk.initialize_session(options(), SessionArguments::default(), None).await }).expect("a session");
                    key += 1;
                }
                Event::Pass(milliseconds) => world.pass(*milliseconds),
                Event::Clock(error) => world.host.set_wall_error(*error),
                Event::Service(next) => *behaviour.borrow_mut() = *next,
            }
            requests_are_shared(&world)?;
        }
        world.pass(30_000);
        let end = world.host.now_since_start();
        for call in &calls {
            keeps_its_promises(call, end)?;
        }
        prop_assert!(world.host.in_flight().is_empty(), "requests that nobody waits for: {:?}", world.host.in_flight());
    }

    #[test]
    fn a_session_recovers_from_whatever_happened(events in events()) {
        let behaviour = Rc::new(RefCell::new(ServiceBehaviour::Good(10)));
        let service = Rc::clone(&behaviour);
        let mut world = World::new(move |request| respond(*service.borrow(), request));
        for event in &events {
            match event {
                Event::Fetch { .. } => drop(start(&world, 0, event)),
                Event::Initialize => drop(world.initialize()),
                Event::Pass(milliseconds) => world.pass(*milliseconds),
                Event::Clock(error) => world.host.set_wall_error(*error),
                Event::Service(next) => *behaviour.borrow_mut() = *next,
            }
        }
        *behaviour.borrow_mut() = ServiceBehaviour::Good(10);
        // The lazy pattern of the specification: a session error, a new session, a fresh result.
        let fresh = api("api-0").with("recaptchaToken", text("fresh"));
        let token = match world.fetch(api("api-0")) {
            Err(failure) if failure.error.code().class() == approov_web_sdk::error::Class::Session => {
                world.initialize().expect("a session");
                world.fetch(fresh)
            }
            // A request from before may still be failing: the caller's own repetition is a new one.
            Err(_) => {
                world.pass(30_000);
                world.initialize().expect("a session");
                world.fetch(fresh)
            }
            ok => ok,
        };
        prop_assert!(token.is_ok(), "{token:?}");
    }
}
