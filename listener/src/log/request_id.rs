//! Ids that find a request in several logs.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Makes an id for each request. It is no secret, but it says nothing either: not even how many requests there were.
#[derive(Debug, Default)]
pub struct RequestIds {
    /// SipHash under a random key turns a count into what looks like chance.
    key: RandomState,
    count: AtomicU64,
}

impl RequestIds {
    /// The next one, twelve characters of base64url.
    pub fn next_id(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let (first, second) = (self.key.hash_one((count, 0_u8)), self.key.hash_one((count, 1_u8)));
        let mut bytes = [0; 9];
        let parts = first.to_be_bytes().into_iter().chain(second.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_do_not_count() {
        let ids = RequestIds::default();
        let made: Vec<String> = (0..10_000).map(|_| ids.next_id()).collect();
        assert_eq!(made.iter().collect::<HashSet<_>>().len(), made.len());
        assert!(made.iter().all(|id| id.len() == 12));
        // Of a count, neighbours would share their beginnings.
        let shared = |(one, next): (&String, &String)| one.as_bytes()[..3] == next.as_bytes()[..3];
        assert!(made.iter().zip(made.iter().skip(1)).filter(|pair| shared(*pair)).count() < 3);
        assert_ne!(RequestIds::default().next_id(), RequestIds::default().next_id());
    }
}
