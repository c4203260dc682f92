//! The parameters of a check result, as browsers send them.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::definition::Definition;

/// The parameters of one result: those that [`super::Definition::params`] names.
#[derive(Clone)]
pub struct ResultParams<'a> {
    values: Vec<(&'static str, Option<&'a str>)>,
    /// Which of them is the result.
    result: &'static str,
}

impl<'a> ResultParams<'a> {
    /// Looks up the parameters of a check service.
    pub fn read(definition: &'static Definition, value: impl Fn(&str) -> Option<&'a str>) -> Self {
        let values = definition.params.iter().map(|param| (param.name, value(param.name))).collect();
        Self { values, result: definition.result }
    }

    /// The text that is the result.
    pub fn result(&self) -> &'a str {
        self.get(self.result)
    }

    /// Whether none came.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(|(_, value)| value.is_none())
    }

    /// The key of the site: the first parameter.
    pub fn site_key(&self) -> Option<&'a str> {
        self.values.first().and_then(|(_, value)| *value)
    }

    /// The value of a parameter; `None` when it did not come.
    pub fn find(&self, name: &str) -> Option<&'a str> {
        self.values.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value)
    }

    /// The value of a parameter; empty when it did not come.
    pub fn get(&self, name: &str) -> &'a str {
        self.find(name).unwrap_or_default()
    }

    /// The same, for longer than the request.
    pub fn to_owned(&self) -> OwnedParams {
        let values = self.values.iter().map(|(name, value)| (*name, value.map(str::to_owned))).collect();
        OwnedParams { values, result: self.result }
    }

    /// 128 bits that identify a result: SHA-256 over the values with their lengths.
    pub fn digest(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for (_, value) in &self.values {
            let value = value.unwrap_or_default();
            context.update(&value.len().to_be_bytes());
            context.update(value.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(context.finish().as_ref().iter().take(16).copied().collect::<Vec<u8>>())
    }
}

/// [`ResultParams`] that outlive their request.
pub struct OwnedParams {
    values: Vec<(&'static str, Option<String>)>,
    result: &'static str,
}

impl OwnedParams {
    /// The parameters.
    pub fn borrowed(&self) -> ResultParams<'_> {
        let values = self.values.iter().map(|(name, value)| (*name, value.as_deref())).collect();
        ResultParams { values, result: self.result }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn results_differ_in_their_digest_when_any_value_differs() {
        let digest = |values: &[&'static str]| {
            let values = values.iter().map(|value| ("", Some(*value))).collect();
            ResultParams { values, result: "" }.digest()
        };
        let pairs = [digest(&["ab", "c"]), digest(&["a", "bc"]), digest(&["a", "bc", ""])];
        assert_eq!(pairs.iter().collect::<BTreeSet<_>>().len(), 3);
    }
}
