//! Part of a test's name, in the form that each test runner takes. Upper and lower case make no difference.

use std::fmt;

use anyhow::{Result, ensure};

/// Part of a test's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NamePart(String);

impl NamePart {
    pub(super) fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        ensure!(!text.is_empty(), "the part of a test's name is empty");
        Ok(Self(text.to_owned()))
    }

    /// Whether this name contains it.
    pub(super) fn is_in(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.0.to_lowercase())
    }

    /// As names in Rust are written: libtest and wasm-bindgen's runner compare letter by letter.
    pub(super) fn as_rust_name(&self) -> String {
        self.0.chars().map(|c| if c.is_whitespace() { '_' } else { c }).flat_map(char::to_lowercase).collect()
    }

    /// For Node's runner: a regular expression.
    pub(super) fn for_node(&self) -> String {
        let mut pattern = String::from("/");
        for c in self.0.chars() {
            if r"\/^$.*+?()[]{}|".contains(c) {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push_str("/i");
        pattern
    }

    /// For pytest, which compares without regard to case, and takes an expression: the words, joined as in a name.
    pub(super) fn for_pytest(&self) -> String {
        self.0
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join("_")
    }

    /// Whether `listed`, the output of `list-tests.mjs`, has a test in this file that is to run: by its name or by that of a suite
    /// around it, as Node's runner selects. Each line is a file and these names, separated by tabs.
    pub(super) fn is_listed_for(&self, file: &str, listed: &str) -> bool {
        listed.lines().any(|line| {
            let mut fields = line.split('\t');
            fields.next() == Some(file) && fields.any(|name| self.is_in(name))
        })
    }
}

impl fmt::Display for NamePart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> NamePart {
        NamePart::new(text).unwrap()
    }

    #[test]
    fn case_makes_no_difference() {
        assert!(part("Replayed PROOF").is_in("a replayed proof is refused"));
        assert!(!part("replayed token").is_in("a replayed proof is refused"));
    }

    #[test]
    fn cargo_gets_it_as_a_name_in_rust() {
        assert_eq!(part("Replayed proof").as_rust_name(), "replayed_proof");
    }

    #[test]
    fn node_gets_it_as_a_regular_expression_that_means_the_text() {
        assert_eq!(part("a.b (c/d)").for_node(), r"/a\.b \(c\/d\)/i");
    }

    #[test]
    fn pytest_gets_one_word_and_no_expression() {
        assert_eq!(part("not (a proof)").for_pytest(), "not_a_proof");
    }

    #[test]
    fn a_file_is_chosen_by_the_names_in_it() {
        let listed = "/a.mjs\tsuite\tone\n/b.mjs\tthree\n";
        assert!(part("ONE").is_listed_for("/a.mjs", listed) && part("suite").is_listed_for("/a.mjs", listed));
        assert!(!part("three").is_listed_for("/a.mjs", listed) && !part("suite one").is_listed_for("/a.mjs", listed));
    }
}
