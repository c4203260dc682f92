//! The web protection service.
fn main() {}
