//! The corpus of the fuzz target, run as a test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, clippy::cast_precision_loss, reason = "the module is shared with the fuzz target")]

#[path = "../fuzz/input.rs"]
mod input;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_keeps_all_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/whole_call");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let verdict = String::from_utf8(fs::read(&path).unwrap()).ok().and_then(|text| input::check(&text));
        // The seeds say in their names what is to come of them; what the fuzzer found need not.
        if name.starts_with("good-") || name == "good" {
            assert!(matches!(verdict, Some(Ok(_))), "{name}: {verdict:?}");
        } else if name.starts_with("bad-") || name.starts_with("raw-") {
            assert!(!matches!(verdict, Some(Ok(_))), "{name}");
        }
        names.push(name);
    }
    assert!(names.len() >= 30, "{} inputs", names.len());
}
