//! Where solutions are verified: in threads of their own, at most a quarter of the processors, so that nobody who sends junk
//! slows the requests of others.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use altcha::Payload;
use tokio::sync::Semaphore;

use super::challenge::{ChallengeKeys, Difficulty, Solved, Terms, Unsolved};

/// What a solution is verified with. One for the process.
pub struct WorkPool(Arc<Semaphore>);

impl Default for WorkPool {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new((processors / 4).max(1))))
    }
}

impl WorkPool {
    /// Verifies a solution as [`ChallengeKeys::verify`] does. `None`: no thread could.
    pub async fn verify(
        &self,
        keys: &Arc<ChallengeKeys>,
        payload: Payload,
        terms: Terms<'_>,
        least: Difficulty,
    ) -> Option<Result<Solved, Unsolved>> {
        let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let (keys, site, holder) = (Arc::clone(keys), terms.site.to_owned(), terms.holder.copied());
        let (epoch, now) = (terms.epoch, terms.now);
        let verify = move || {
            let terms = Terms { site: &site, holder: holder.as_ref(), epoch, now };
            let verified = keys.verify(&payload, terms, least);
            drop(permit);
            verified
        };
        tokio::task::spawn_blocking(verify).await.ok()
    }
}
