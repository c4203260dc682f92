//! Which pages may use an account: the `allowed_origins` list against the `Origin` header.

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// `https://app.example.com`, `http://localhost:3000`: exactly this origin.
    Exact(String),
    /// `*.example.com`: any subdomain at any depth, over https, on the default port.
    Subdomains(String),
}

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
        let bad =
            || format!("an allowed origin must be like https://app.example.com or *.example.com, got \"{entry}\"");
        if let Some(domain) = entry.strip_prefix("*.") {
            return match url::Host::parse(domain) {
                Ok(url::Host::Domain(domain)) if !domain.contains('*') => Ok(Rule::Subdomains(domain)),
                _ => Err(bad()),
            };
        }
        let url = url::Url::parse(entry).map_err(|_| bad())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !bare || !anonymous || entry.contains('*') {
            return Err(bad());
        }
        Ok(Rule::Exact(url.origin().ascii_serialization()))
    }

    fn may_be_on(&self, domain: &str) -> bool {
        match self {
            Rule::Exact(origin) => url::Url::parse(origin)
                .is_ok_and(|url| url.host_str().is_some_and(|host| host == domain || is_below(host, domain))),
            Rule::Subdomains(above) => above == domain || is_below(above, domain) || is_below(domain, above),
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
        }
    }
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
    fn entries_are_shown_as_they_are_written() {
        let entries: Vec<String> = list(&["https://app.example.com", "*.example.org"]).entries().collect();
        assert_eq!(entries, ["https://app.example.com", "*.example.org"]);
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
        for bad in ["example.com", "https://a.example.com/path", "*", "*.", "*.*.com", "ftp://x", "https://*.a.com", ""]
        {
            assert!(AllowedOrigins::parse([bad]).is_err(), "{bad}");
        }
    }
}
