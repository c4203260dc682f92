#![no_main]

#[path = "../../tests/response_reading.rs"]
mod response_reading;

libfuzzer_sys::fuzz_target!(|data: &[u8]| response_reading::read(data));
