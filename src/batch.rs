//! APIs whose tokens travel in one request, and how far that request has come.
//!
//! ```text
//!             sealed            granted, or failed
//!   Open ──────────────▶ Together ────────────────▶ done
//!   further APIs join       │
//!                           │ refused, only because of its APIs, of which there are several
//!                           ▼
//!                       OneByOne ─────────────────▶ done
//!                       ▲      │   after the last API, or a failure that is not about its API
//!                       └──────┘
//!              sealed for the next API alone
//! ```
//!
//! So an API that the service refuses does not fail the others of its batch.

use crate::checks::Results;
use crate::error::{Code, Error};
use crate::secret::Secret;
use crate::small_map::SmallMap;
use crate::token_request::Binding;

/// Names a batch within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId(pub(crate) u64);

/// APIs whose tokens travel in one request.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: BatchId,
    pub(crate) binding: Option<Binding>,
    /// Results that the service has not accepted yet.
    pub(crate) fresh: Results,
    pub(crate) results_version: u64,
    /// The refresh token of the latest request.
    pub(crate) sent_refresh_token: Option<Secret>,
    apis: Vec<String>,
    progress: Progress,
}

/// How far a batch has come.
#[derive(Debug)]
enum Progress {
    /// Not sent yet.
    Open,
    /// Sent, for all APIs.
    Together,
    /// One request per API, since the service refused one of them: the outcomes so far.
    OneByOne(SmallMap<Result<Secret, Error>>),
}

/// What the outcome of a request is for its batch.
#[derive(Debug)]
pub(crate) enum Settlement {
    /// The batch is to be sealed again, for its next API.
    Again,
    /// The batch is done.
    Done(Result<Tokens, Error>),
}

impl Batch {
    pub(crate) fn new(
        id: BatchId,
        api: String,
        binding: Option<Binding>,
        fresh: Results,
        results_version: u64,
    ) -> Self {
        Batch {
            id,
            binding,
            fresh,
            results_version,
            sent_refresh_token: None,
            apis: vec![api],
            progress: Progress::Open,
        }
    }

    /// Whether further APIs may join.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.progress, Progress::Open)
    }

    pub(crate) fn has(&self, api: &str) -> bool {
        self.apis.iter().any(|known| known == api)
    }

    pub(crate) fn join(&mut self, api: &str) {
        self.apis.push(api.to_owned());
    }

    /// The batch is being sent with this refresh token.
    pub(crate) fn seal(&mut self, refresh_token: Option<Secret>) {
        self.sent_refresh_token = refresh_token;
        if self.is_open() {
            self.progress = Progress::Together;
        }
    }

    /// The APIs of the request that is to be sent, or under way.
    pub(crate) fn requested(&self) -> &[String] {
        match &self.progress {
            Progress::Open | Progress::Together => &self.apis,
            Progress::OneByOne(outcomes) => {
                self.apis.get(outcomes.len()..).and_then(|rest| rest.get(..1)).unwrap_or_default()
            }
        }
    }

    /// Goes over to one request per API, if the failure of the request for all of them calls for it.
    pub(crate) fn divide_after(&mut self, error: &Error) -> bool {
        let divides = matches!(self.progress, Progress::Together) && self.apis.len() > 1 && error.is_about_apis();
        if divides {
            self.progress = Progress::OneByOne(SmallMap::default());
        }
        divides
    }

    /// Takes the outcome of the request that was under way.
    pub(crate) fn settle(&mut self, outcome: Result<Tokens, Error>) -> Settlement {
        let Progress::OneByOne(outcomes) = &mut self.progress else { return Settlement::Done(outcome) };
        if outcome.is_ok() {
            // The service has consumed the results: they must not be sent again.
            self.fresh = Results::default();
        }
        let concerns_all = outcome.as_ref().is_err_and(|error| !error.is_about_apis());
        let settled = if concerns_all { self.apis.len() } else { 1 };
        for api in self.apis.iter().skip(outcomes.len()).take(settled) {
            let token = outcome.as_ref().map_err(Error::clone).and_then(|tokens| tokens.get(api));
            outcomes.insert(api.clone(), token);
        }
        if outcomes.len() < self.apis.len() {
            return Settlement::Again;
        }
        Settlement::Done(Ok(Tokens::OneByOne(std::mem::take(outcomes))))
    }
}

/// The tokens of a batch.
#[derive(Debug)]
pub enum Tokens {
    /// One per API, from one response.
    PerApi(SmallMap<Secret>),
    /// One for whichever API was requested.
    Bare(Secret),
    /// The outcome of one request per API.
    OneByOne(SmallMap<Result<Secret, Error>>),
}

impl Tokens {
    /// The latest error, if no API got a token.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        let Tokens::OneByOne(outcomes) = self else { return None };
        let mut latest = None;
        for (_, outcome) in outcomes.iter() {
            latest = Some(outcome.as_ref().err()?);
        }
        latest
    }

    /// Calls `visit` with each token, and with its API if the response named it.
    pub fn for_each(&self, mut visit: impl FnMut(&str, &Secret)) {
        match self {
            Tokens::PerApi(tokens) => tokens.iter().for_each(|(api, token)| visit(api, token)),
            Tokens::Bare(token) => visit("", token),
            Tokens::OneByOne(outcomes) => {
                outcomes
                    .iter()
                    .filter_map(|(api, outcome)| Some((api, outcome.as_ref().ok()?)))
                    .for_each(|(api, token)| visit(api, token));
            }
        }
    }

    /// The token of an API.
    ///
    /// # Errors
    /// `token-unavailable` if the response has none; the outcome of the API's own request, where there was one.
    pub fn get(&self, api: &str) -> Result<Secret, Error> {
        match self {
            Tokens::PerApi(tokens) => tokens.get(api).cloned(),
            Tokens::Bare(token) => Some(token.clone()),
            Tokens::OneByOne(outcomes) => outcomes.get(api).cloned().transpose()?,
        }
        .ok_or_else(|| {
            Error::new(
                Code::TokenUnavailable,
                &[
                    "the Approov service gave no token for \"",
                    api,
                    "\": is the API added to the account and enabled for the web?",
                ],
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(apis: &[&str]) -> Batch {
        let results = Results::of(&[("recaptchaToken", "r")]);
        let mut batch = Batch::new(BatchId(1), apis[0].to_owned(), None, results, 1);
        apis[1..].iter().for_each(|api| batch.join(api));
        batch
    }

    fn sealed(apis: &[&str]) -> Batch {
        let mut batch = batch(apis);
        batch.seal(None);
        batch
    }

    fn tokens(apis: &[&str]) -> Tokens {
        let mut tokens = SmallMap::default();
        apis.iter().for_each(|api| tokens.insert((*api).to_owned(), Secret::from(*api)));
        Tokens::PerApi(tokens)
    }

    fn refused(code: &str) -> Error {
        let mut errors = SmallMap::default();
        errors.insert(code.to_owned(), String::new());
        Error::new(Code::Service, &[]).with_service_errors(errors)
    }

    fn done(settlement: Settlement) -> Result<Tokens, Error> {
        match settlement {
            Settlement::Done(tokens) => tokens,
            Settlement::Again => panic!("the batch is not done"),
        }
    }

    #[test]
    fn apis_join_until_the_batch_is_sealed() {
        let mut batch = batch(&["a"]);
        assert!(batch.is_open() && batch.has("a") && !batch.has("b"));
        batch.join("b");
        assert_eq!(batch.requested(), ["a", "b"]);
        batch.seal(Some("t".into()));
        assert!(!batch.is_open());
        assert_eq!((batch.requested().len(), batch.sent_refresh_token), (2, Some("t".into())));
    }

    #[test]
    fn only_a_refusal_of_several_apis_together_divides_a_batch() {
        assert!(!sealed(&["a"]).divide_after(&refused("aprv-api-not-found")));
        assert!(!sealed(&["a", "b"]).divide_after(&refused("aprv-no-site-key")));
        assert!(!batch(&["a", "b"]).divide_after(&refused("aprv-api-not-found")), "it was not sent");
        let mut divided = sealed(&["a", "b"]);
        assert!(divided.divide_after(&refused("aprv-api-not-found")));
        assert!(!divided.divide_after(&refused("aprv-api-not-found")), "once");
    }

    #[test]
    fn a_divided_batch_ends_with_the_outcome_of_each_api() {
        let mut batch = sealed(&["a", "b", "c"]);
        assert!(batch.divide_after(&refused("aprv-api-not-found")));
        assert_eq!(batch.requested(), ["a"]);
        assert!(matches!(batch.settle(Err(refused("aprv-api-not-found"))), Settlement::Again));
        assert!(!batch.fresh.is_empty(), "nothing was consumed");
        assert_eq!(batch.requested(), ["b"]);
        assert!(matches!(batch.settle(Ok(tokens(&["b"]))), Settlement::Again));
        assert!(batch.fresh.is_empty(), "the results were consumed");
        let tokens = done(batch.settle(Ok(tokens(&["other"])))).expect("tokens");
        assert_eq!(tokens.get("a").expect_err("an error").code(), Code::Service);
        assert_eq!(tokens.get("b"), Ok("b".into()));
        assert_eq!(tokens.get("c").expect_err("an error").code(), Code::TokenUnavailable);
        assert_eq!(tokens.error(), None);
    }

    #[test]
    fn a_failure_that_is_not_about_an_api_ends_a_divided_batch() {
        let mut batch = sealed(&["a", "b", "c"]);
        assert!(batch.divide_after(&refused("aprv-api-not-found")));
        assert!(matches!(batch.settle(Err(refused("aprv-api-not-found"))), Settlement::Again));
        let tokens = done(batch.settle(Err(Error::new(Code::Network, &[])))).expect("outcomes");
        assert_eq!(tokens.get("b").expect_err("an error").code(), Code::Network);
        assert_eq!(tokens.get("c").expect_err("an error").code(), Code::Network);
        assert_eq!(tokens.error().map(Error::code), Some(Code::Network));
    }
}
