//! The whole call, with a token, a proof and a URL from the fuzzer: `cargo fuzz run whole_call` in `verify/`.
#![no_main]

#[path = "../input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        input::check(text);
    }
});
