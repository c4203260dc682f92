//! The tokens that a page got lately, and the session that each is of.
//!
//! A token is bound to the key of its session: with a proof by another session's key, every backend refuses it. When one part of a
//! page begins a session while another still has a token of the one before, the SDK can tell, and a backend need not.

/// How many tokens are remembered. A token lives for minutes, and a page has few APIs.
const MAX_TOKENS: usize = 128;

/// The latest tokens by their hash, each with the number of its session.
#[derive(Debug, Default)]
pub struct IssuedTokens {
    tokens: Vec<(String, u64)>,
    oldest: usize,
}

impl IssuedTokens {
    /// Notes a token of a session, in place of the oldest if there are too many.
    pub fn note(&mut self, hash: String, session: u64) {
        if self.tokens.len() < MAX_TOKENS {
            self.tokens.push((hash, session));
        } else if let Some(oldest) = self.tokens.get_mut(self.oldest) {
            *oldest = (hash, session);
            self.oldest = self.oldest.saturating_add(1) % MAX_TOKENS;
        }
    }

    /// Whether a token is known to be of another session than this.
    #[must_use]
    pub fn is_of_another(&self, hash: &str, session: u64) -> bool {
        let mut sessions =
            self.tokens.iter().filter(|(known, _)| known == hash).map(|(_, session)| *session).peekable();
        sessions.peek().is_some() && sessions.all(|known| known != session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_the_session_that_got_it() {
        let mut issued = IssuedTokens::default();
        issued.note("a".into(), 1);
        issued.note("b".into(), 2);
        assert!(!issued.is_of_another("a", 1) && issued.is_of_another("a", 2));
        assert!(issued.is_of_another("b", 1) && !issued.is_of_another("b", 2));
        assert!(!issued.is_of_another("unknown", 1));
        issued.note("a".into(), 2);
        assert!(!issued.is_of_another("a", 1) && !issued.is_of_another("a", 2), "a service may give one token twice");
    }

    #[test]
    fn the_oldest_tokens_are_forgotten() {
        let mut issued = IssuedTokens::default();
        for number in 0..=2 * MAX_TOKENS {
            issued.note(number.to_string(), 1);
        }
        assert_eq!(issued.tokens.len(), MAX_TOKENS);
        assert!(!issued.is_of_another(&MAX_TOKENS.to_string(), 2));
        assert!(issued.is_of_another(&(MAX_TOKENS + 1).to_string(), 2));
        assert!(issued.is_of_another(&(2 * MAX_TOKENS).to_string(), 2));
    }
}
