//! What results that passed looked like lately, so that failed ones can look like them.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};

/// How many pages are remembered. A page takes the place of another one that has its slot.
const PAGES: usize = 1024;

/// What was last seen of results that passed. In this process only, and lost with it.
pub(super) struct LastPassed {
    hasher: RandomState,
    /// Slots for a site's results on a page.
    pages: Mutex<Vec<Option<Page>>>,
    /// By site. There are as many as were ever configured.
    sites: Mutex<HashMap<String, SiteMemory>>,
}

struct Page {
    site: String,
    host: String,
    hostname: String,
}

#[derive(Clone, Default)]
struct SiteMemory {
    hostname: Option<String>,
    carried: Option<Carried>,
}

/// How a session carries a full result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// Not at all: it is too long.
    Not,
    /// Whole; bytes of its JSON.
    Whole(usize),
}

impl Default for LastPassed {
    fn default() -> Self {
        let pages = std::iter::repeat_with(|| None).take(PAGES).collect();
        Self { hasher: RandomState::new(), pages: Mutex::new(pages), sites: Mutex::default() }
    }
}

impl LastPassed {
    /// Remembers on which host a result of `site` passed that came from a page on `page_host`, and how it was carried.
    pub(super) fn remember(&self, site: &str, page_host: &str, hostname: Option<&str>, carried: Option<Carried>) {
        {
            let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
            let memory = sites.entry(site.to_owned()).or_default();
            memory.carried = carried.or(memory.carried);
            if let Some(hostname) = hostname {
                memory.hostname = Some(hostname.to_owned());
            }
        }
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(hostname), Some(slot)) = (hostname, pages.get_mut(self.slot(site, page_host))) {
            let own = str::to_owned;
            *slot = Some(Page { site: own(site), host: own(page_host), hostname: own(hostname) });
        }
    }

    /// The host that was last named for a result of `site` from a page on `page_host`. Without a page, from any.
    pub(super) fn hostname(&self, site: &str, page_host: &str) -> Option<String> {
        if page_host.is_empty() {
            return self.memory(site).hostname;
        }
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let page = pages.get(self.slot(site, page_host))?.as_ref()?;
        (page.site == site && page.host == page_host).then(|| page.hostname.clone())
    }

    /// How the last result of `site` was carried.
    pub(super) fn carried(&self, site: &str) -> Option<Carried> {
        self.memory(site).carried
    }

    fn memory(&self, site: &str) -> SiteMemory {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner).get(site).cloned().unwrap_or_default()
    }

    fn slot(&self, site: &str, page_host: &str) -> usize {
        // Less than 1,024 in any case.
        usize::try_from(self.hasher.hash_one((site, page_host)) % PAGES as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_host_of_a_page_is_remembered_and_of_no_other() {
        let passed = LastPassed::default();
        assert_eq!(passed.hostname("s", "www.a.example"), None);
        passed.remember("s", "www.a.example", Some("old.example"), None);
        passed.remember("s", "www.a.example", Some("a.example"), None);
        passed.remember("s", "www.a.example", None, None);
        assert_eq!(passed.hostname("s", "www.a.example").as_deref(), Some("a.example"));
        assert_eq!(passed.hostname("s", "www.b.example"), None);
        assert_eq!(passed.hostname("t", "www.a.example"), None);
        assert_eq!(passed.hostname("s", "").as_deref(), Some("a.example"), "without a page: of any");
    }

    #[test]
    fn memory_is_bounded_however_many_pages_there_are() {
        let passed = LastPassed::default();
        for n in 0..10_000 {
            passed.remember("s", &format!("{n}.example"), Some("a.example"), Some(Carried::Whole(n)));
        }
        assert_eq!(passed.pages.lock().unwrap().len(), PAGES);
        assert_eq!(passed.sites.lock().unwrap().len(), 1);
        assert_eq!(passed.carried("s"), Some(Carried::Whole(9_999)));
        let known = (0..10_000).filter(|n| passed.hostname("s", &format!("{n}.example")).is_some()).count();
        assert!((900..=PAGES).contains(&known), "{known}");
    }
}
