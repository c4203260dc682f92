//! Which requests have to carry what: by path and method.

use serde::Deserialize;

/// Whether requests are checked at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Their token and proof are.
    #[default]
    Verify,
    /// They pass.
    Open,
}

/// The requests that a policy is for.
#[derive(Clone, Debug)]
pub struct Scope {
    paths: Vec<Pattern>,
    /// Empty: all.
    methods: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// `/a/*`: everything below `/a/`, that path itself included.
    Below(String),
}

impl Scope {
    /// Reads patterns such as `/health` and `/public/*`, and methods.
    ///
    /// # Errors
    /// Which of them is none.
    pub fn new(paths: &[String], methods: &[String]) -> Result<Self, String> {
        if paths.is_empty() {
            return Err("paths must name one path at least, such as \"/public/*\"".to_owned());
        }
        if let Some(bad) = methods.iter().find(|method| method.parse::<http::Method>().is_err()) {
            return Err(format!("methods: \"{bad}\" is no method"));
        }
        if let Some(small) = methods.iter().find(|method| method.bytes().any(|byte| byte.is_ascii_lowercase())) {
            return Err(format!("methods: methods are case-sensitive: \"{}\"", small.to_ascii_uppercase()));
        }
        Ok(Self {
            paths: paths.iter().map(|path| Pattern::parse(path)).collect::<Result<_, _>>()?,
            methods: methods.to_vec(),
        })
    }

    /// Whether a request is one of them. `path` is a normalised one that [`can_be_read_in_one_way`].
    #[must_use]
    pub fn has(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|allowed| allowed == method))
            && self.paths.iter().any(|pattern| pattern.fits(path))
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let (path, below) = match text.strip_suffix('*') {
            Some(path) if path.ends_with('/') => (path, true),
            Some(_) => {
                return Err(format!("paths: \"{text}\": a star stands for what follows a slash, as in \"/public/*\""));
            }
            None => (text, false),
        };
        // As the paths are that it is compared with.
        let url = format!("http://path.invalid{path}");
        let normal = approov_verify::uri::HttpUri::of_request(&url);
        match normal {
            Ok(normal) if path.starts_with('/') && normal.path() == path && can_be_read_in_one_way(path) => {
                Ok(match below {
                    true => Self::Below(path.to_owned()),
                    false => Self::Exact(path.to_owned()),
                })
            }
            _ => Err(format!(
                "paths: \"{text}\" is no normalised path: it begins with one slash, and has neither dot segments, empty ones, a query nor %2F"
            )),
        }
    }

    fn fits(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Below(prefix) => path.starts_with(prefix.as_str()),
        }
    }
}

/// Whether every server takes a path for the same one. What one takes for a part of a name separates names for another:
/// encoded slashes and backslashes, empty segments, parameters behind semicolons, text that is encoded twice, NUL.
#[must_use]
pub fn can_be_read_in_one_way(path: &str) -> bool {
    let encoded = ["%2F", "%5C", "%3B", "%25", "%00", "%23", "%3F"];
    let upper = path.to_ascii_uppercase();
    !path.contains("//") && !path.contains([';', '\\']) && !encoded.iter().any(|encoded| upper.contains(encoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(paths: &[&str], methods: &[&str]) -> Result<Scope, String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Scope::new(&owned(paths), &owned(methods))
    }

    #[test]
    fn a_scope_has_what_is_below_its_prefix_and_nothing_beside_it() {
        let scope = scope(&["/public/*", "/health"], &["GET", "HEAD"]).unwrap();
        for (method, path, has) in [
            ("GET", "/public/", true),
            ("GET", "/public/a/b", true),
            ("HEAD", "/health", true),
            ("GET", "/public", false),
            ("GET", "/publicity", false),
            ("GET", "/health/", false),
            ("GET", "/healthy", false),
            ("GET", "/Public/a", false),
            ("POST", "/public/a", false),
            ("get", "/public/a", false),
            ("GET", "/", false),
        ] {
            assert_eq!(scope.has(method, path), has, "{method} {path}");
        }
        assert!(super::tests::scope(&["/*"], &[]).unwrap().has("PATCH", "/anything"));
    }

    #[test]
    fn patterns_that_would_never_fit_are_refused() {
        for path in [
            "", "public", "/public*", "*", "/a/../b", "//a", "/a//b", "/a?b", "/a#b", "/a%2Fb", "/%61", "/a;b", "/a b",
            "/é",
        ] {
            let error = scope(&[path], &[]).unwrap_err();
            assert!(error.starts_with("paths: "), "{path}: {error}");
        }
        assert!(scope(&[], &[]).unwrap_err().starts_with("paths "));
        assert!(scope(&["/a"], &["get"]).unwrap_err().contains("\"GET\""));
        assert!(scope(&["/a"], &["GE T"]).unwrap_err().contains("no method"));
    }

    #[test]
    fn paths_that_servers_read_differently_are_known() {
        for path in
            ["/a%2fb", "/a%2Fb", "/a%5c..%5cb", "/a\\b", "//a", "/a//b", "/a;x=1/b", "/a%3Bb", "/%2561", "/a%00"]
        {
            assert!(!can_be_read_in_one_way(path), "{path}");
        }
        for path in ["/", "/a/b", "/a%20b", "/%C3%A9", "/a:b@c", "/a,b"] {
            assert!(can_be_read_in_one_way(path), "{path}");
        }
    }
}
