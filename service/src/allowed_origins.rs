//! Which pages may use an account: the `allowed_origins` list against the `Origin` header.

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// `https://app.example.com`, `http://localhost:3000`, `capacitor://localhost`: exactly this origin.
    Exact(String),
    /// `*.example.com`: any subdomain at any depth, over https, on the default port.
    Subdomains(String),
    /// `moz-extension://*`: any origin of this scheme, where browsers give each installation a host of its own.
    Scheme(String),
    /// `null`: what sandboxed frames, `data:` and `file:` pages send.
    Opaque,
}

/// The schemes of which every host may be allowed at once.
const WILD_SCHEMES: [&str; 2] = ["moz-extension", "safari-web-extension"];

/// The origins an account allows. An empty list allows every origin and requests without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<Rule>);

impl AllowedOrigins {
    /// Reads the configured list.
    ///
    /// # Errors
    /// The message names the entry and what is accepted.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        entries.into_iter().map(Rule::parse).collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// Whether every origin is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, as they are written.
    pub fn entries(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|rule| match rule {
            Rule::Exact(origin) => origin.clone(),
            Rule::Subdomains(domain) => format!("*.{domain}"),
            Rule::Scheme(scheme) => format!("{scheme}://*"),
            Rule::Opaque => "null".to_owned(),
        })
    }

    /// Whether a page may be on this domain or below it. Check services name the domain that a site is registered for,
    /// which may be above the page's host.
    pub fn may_be_on(&self, domain: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|rule| rule.may_be_on(domain))
    }

    /// Whether a request from this origin is served. `None`: the request had no `Origin` header.
    pub fn allows(&self, origin: Option<&str>) -> bool {
        self.0.is_empty() || origin.is_some_and(|origin| self.0.iter().any(|rule| rule.matches(origin)))
    }
}

impl Rule {
    fn parse(entry: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "an allowed origin must be like https://app.example.com, *.example.com, chrome-extension://ID, moz-extension://*, capacitor://localhost or null, got \"{entry}\""
            )
        };
        if entry == "null" {
            return Ok(Rule::Opaque);
        }
        if let Some(scheme) = entry.strip_suffix("://*") {
            return if WILD_SCHEMES.contains(&scheme) { Ok(Rule::Scheme(scheme.to_owned())) } else { Err(bad()) };
        }
        if let Some(domain) = entry.strip_prefix("*.") {
            return match url::Host::parse(domain) {
                Ok(url::Host::Domain(domain)) if !domain.contains('*') => Ok(Rule::Subdomains(domain)),
                _ => Err(bad()),
            };
        }
        let url = url::Url::parse(entry).map_err(|_| bad())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if !anonymous || entry.contains('*') {
            return Err(bad());
        }
        if !matches!(url.scheme(), "http" | "https") {
            return of_app(&url).map(Rule::Exact).ok_or_else(bad);
        }
        if !bare {
            return Err(bad());
        }
        Ok(Rule::Exact(url.origin().ascii_serialization()))
    }

    fn may_be_on(&self, domain: &str) -> bool {
        match self {
            Rule::Exact(origin) => url::Url::parse(origin)
                .is_ok_and(|url| url.host_str().is_some_and(|host| host == domain || is_below(host, domain))),
            Rule::Subdomains(above) => above == domain || is_below(above, domain) || is_below(domain, above),
            // Pages of these have no domain.
            Rule::Scheme(_) | Rule::Opaque => false,
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            // The header is a serialised origin (RFC 6454 section 6.2), already in canonical form.
            Rule::Exact(exact) => exact == origin,
            Rule::Subdomains(domain) => origin
                .strip_prefix("https://")
                .and_then(|host| host.strip_suffix(domain.as_str()))
                .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.') && is_host_text(labels)),
            Rule::Scheme(scheme) => origin
                .strip_prefix(scheme.as_str())
                .and_then(|rest| rest.strip_prefix("://"))
                .is_some_and(|host| !host.is_empty() && is_host_text(host)),
            Rule::Opaque => origin == "null",
        }
    }
}

/// The origin of pages that are no web pages: of an extension, or of an app in a shell. Browsers send the scheme and the host.
fn of_app(url: &url::Url) -> Option<String> {
    let is_page = !matches!(url.scheme(), "ftp" | "file" | "data" | "blob" | "ws" | "wss" | "javascript");
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let host = url.host_str().filter(|host| is_host_text(host))?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    (is_page && bare).then(|| format!("{}://{}{port}", url.scheme(), host.to_ascii_lowercase()))
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|labels| labels.ends_with('.'))
}

fn is_host_text(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowedOrigins {
        AllowedOrigins::parse(entries.iter().copied()).unwrap()
    }

    #[test]
    fn an_empty_list_allows_everyone() {
        assert!(list(&[]).allows(Some("https://anywhere.example")));
        assert!(list(&[]).allows(None));
    }

    #[test]
    fn a_wildcard_matches_subdomains_at_any_depth_and_nothing_else() {
        let origins = list(&["*.example.com"]);
        for yes in ["https://a.example.com", "https://a.b.c.example.com"] {
            assert!(origins.allows(Some(yes)), "{yes}");
        }
        for no in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "https://a.example.com.evil.net",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://evil.net/.example.com",
            "https://user@a.example.com",
            "null",
            "",
        ] {
            assert!(!origins.allows(Some(no)), "{no}");
        }
        assert!(!origins.allows(None));
    }

    #[test]
    fn an_exact_entry_matches_scheme_host_and_port() {
        let origins = list(&["https://App.example.com:443/", "http://localhost:3000"]);
        assert!(origins.allows(Some("https://app.example.com")));
        assert!(origins.allows(Some("http://localhost:3000")));
        assert!(!origins.allows(Some("http://app.example.com")));
        assert!(!origins.allows(Some("http://localhost:3001")));
    }

    #[test]
    fn extensions_and_apps_in_shells_have_origins_of_their_own() {
        let origins =
            list(&["chrome-extension://abcdefghijklmnopabcdefghijklmnop", "capacitor://localhost", "app://Shop/"]);
        for yes in ["chrome-extension://abcdefghijklmnopabcdefghijklmnop", "capacitor://localhost", "app://shop"] {
            assert!(origins.allows(Some(yes)), "{yes}");
        }
        for no in [
            "chrome-extension://ponmlkjihgfedcbaponmlkjihgfedcba",
            "http://localhost",
            "capacitor://localhost:1",
            "null",
        ] {
            assert!(!origins.allows(Some(no)), "{no}");
        }
        assert!(!origins.may_be_on("example.com"));
    }

    #[test]
    fn an_extension_of_firefox_has_another_host_in_each_installation() {
        let origins = list(&["moz-extension://*"]);
        assert!(origins.allows(Some("moz-extension://6c1a4bd2-2f0b-4c0b-9a3b-3a4a0f2f0b11")));
        for no in ["moz-extension://", "chrome-extension://a", "moz-extension://a/b", "moz-extension-x://a", "null"] {
            assert!(!origins.allows(Some(no)), "{no}");
        }
    }

    #[test]
    fn an_opaque_origin_is_allowed_only_by_its_name() {
        assert!(list(&["null"]).allows(Some("null")));
        assert!(!list(&["null"]).allows(None));
        assert!(!list(&["https://app.example.com"]).allows(Some("null")));
    }

    #[test]
    fn entries_are_shown_as_they_are_written() {
        let all = ["https://app.example.com", "*.example.org", "moz-extension://*", "capacitor://localhost", "null"];
        let entries: Vec<String> = list(&all).entries().collect();
        assert_eq!(entries, all);
    }

    #[test]
    fn a_page_may_be_on_a_domain_that_is_its_host_or_above() {
        let origins = list(&["https://a.b.example.com:8443", "*.example.org"]);
        for yes in ["a.b.example.com", "example.com", "com", "example.org", "x.example.org", "org"] {
            assert!(origins.may_be_on(yes), "{yes}");
        }
        for no in ["x.a.b.example.com", "ample.com", "example.net", ""] {
            assert!(!origins.may_be_on(no), "{no}");
        }
        assert!(list(&[]).may_be_on("anything"));
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for bad in [
            "example.com",
            "https://a.example.com/path",
            "*",
            "*.",
            "*.*.com",
            "ftp://x",
            "https://*.a.com",
            "file://x",
            "data:x",
            "capacitor://localhost/x",
            "chrome-extension://*",
            "null/",
            "",
        ] {
            assert!(AllowedOrigins::parse([bad]).is_err(), "{bad}");
        }
    }
}
