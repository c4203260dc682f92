//! The counts that test runners print.

/// How many tests passed and failed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Reads a summary line of a test runner; any other line counts nothing.
    pub(super) fn read(line: &str) -> Self {
        // cargo test and wasm-bindgen-test: "test result: ok. 3 passed; 1 failed; 0 ignored; …"
        if let Some(summary) = line.trim_start().strip_prefix("test result:") {
            let count = |word: &str| {
                summary
                    .split([';', '.'])
                    .filter_map(|part| part.trim().strip_suffix(word))
                    .find_map(|number| number.trim().parse().ok())
                    .unwrap_or(0)
            };
            return Self { passed: count("passed"), failed: count("failed") };
        }
        // pytest: "2 passed, 130 subtests passed in 0.41s", "1 failed, 2 passed in 0.40s"
        if let Some((counts, _)) = line.trim_matches(['=', ' ']).rsplit_once(" in ") {
            let count = |word: &str| {
                counts.split(", ").filter_map(|part| part.strip_suffix(word)?.trim().parse::<u64>().ok()).sum::<u64>()
            };
            if counts.split(", ").all(|part| part.starts_with(|first: char| first.is_ascii_digit())) {
                return Self {
                    passed: count(" passed"),
                    failed: count(" failed") + count(" errors") + count(" error"),
                };
            }
        }
        // node --test: "ℹ pass 3", "ℹ fail 1", "ℹ cancelled 0"
        let mut fields = line.split_whitespace();
        match (fields.next(), fields.next(), fields.next().and_then(|number| number.parse().ok()), fields.next()) {
            (Some("ℹ"), Some("pass"), Some(passed), None) => Self { passed, failed: 0 },
            (Some("ℹ"), Some("fail" | "cancelled"), Some(failed), None) => Self { passed: 0, failed },
            _ => Self::default(),
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64) -> Tally {
        Tally { passed, failed }
    }

    #[test]
    fn the_summary_of_cargo_test_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(Tally::read(line), tally(12, 3));
    }

    #[test]
    fn the_summary_of_nodes_test_runner_is_read() {
        assert_eq!(Tally::read("ℹ pass 7"), tally(7, 0));
        assert_eq!(Tally::read("ℹ fail 2"), tally(0, 2));
        assert_eq!(Tally::read("ℹ cancelled 1"), tally(0, 1));
    }

    #[test]
    fn the_summary_of_pytest_is_read() {
        assert_eq!(Tally::read("2 passed, 130 subtests passed in 0.41s"), tally(2, 0));
        assert_eq!(Tally::read("==== 1 failed, 2 passed, 1 error in 0.40s ===="), tally(2, 2));
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in
            ["2 files changed in 3 s", "", "ℹ tests 9", "ℹ pass the salt 3", "test passes ... ok", "3 passed; 1 failed"]
        {
            assert_eq!(Tally::read(line), tally(0, 0), "{line}");
        }
    }
}
