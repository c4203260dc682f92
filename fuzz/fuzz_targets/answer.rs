#![no_main]

#[path = "../../tests/answer_reading.rs"]
mod answer_reading;

libfuzzer_sys::fuzz_target!(|data: &[u8]| answer_reading::read(data));
