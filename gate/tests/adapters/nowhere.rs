//! Surroundings that have nothing: the adapters' configurations are whole.

use approov_gate::config::Surroundings;

pub(crate) struct Nowhere;

impl Surroundings for Nowhere {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("{path}: there are no files here"))
    }
}
