//! How many checks may be under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use approov_listener::fairness::{Cells, WIDE_FACTOR};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What one client may have under way when a site has half of what it may have. A network may have four times as much.
const PER_CLIENT: usize = 8;
/// How long a check may wait for its turn.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// One gate for each site: so that its check service is not flooded, and no client takes all of it.
#[derive(Default)]
pub struct Gates(Mutex<HashMap<String, Arc<Gate>>>);

#[derive(Default)]
struct Gate {
    inside: Mutex<Inside>,
    left: Notify,
}

#[derive(Default)]
struct Inside {
    all: usize,
    clients: HashMap<u16, usize>,
    networks: HashMap<u16, usize>,
}

/// Leave to have one check under way; dropped, somebody else has it.
pub struct Permit {
    gate: Arc<Gate>,
    cells: Cells,
}

impl Gates {
    /// Waits for a site's gate to open, in which `limit` checks may be; `None` when that takes too long.
    pub async fn enter(&self, site: &str, cells: Cells, limit: usize) -> Option<Permit> {
        let gate = self.gate(site);
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            // Before the look, so that nobody leaves unnoticed in between.
            let left = gate.left.notified();
            if gate.inside().enter(cells, limit) {
                drop(left);
                return Some(Permit { gate, cells });
            }
            tokio::time::timeout_at(deadline, left).await.ok()?;
        }
    }

    /// How many checks the busiest site has under way.
    pub fn busiest(&self) -> usize {
        self.gates().values().map(|gate| gate.inside().all).max().unwrap_or(0)
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<String, Arc<Gate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sites are those of the configuration, so there is a bounded number of gates.
    fn gate(&self, site: &str) -> Arc<Gate> {
        let mut gates = self.gates();
        if let Some(gate) = gates.get(site) {
            return Arc::clone(gate);
        }
        Arc::clone(gates.entry(site.to_owned()).or_default())
    }
}

impl Gate {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn enter(&mut self, cells: Cells, limit: usize) -> bool {
        let is_half_full = self.all * 2 >= limit;
        let of = |counts: &HashMap<u16, usize>, cell: u16| counts.get(&cell).copied().unwrap_or(0);
        let network_limit = PER_CLIENT * usize::try_from(WIDE_FACTOR).unwrap_or(1);
        let has_enough =
            of(&self.clients, cells.narrow) >= PER_CLIENT || of(&self.networks, cells.wide) >= network_limit;
        if self.all >= limit || (is_half_full && has_enough) {
            return false;
        }
        self.all += 1;
        *self.clients.entry(cells.narrow).or_default() += 1;
        *self.networks.entry(cells.wide).or_default() += 1;
        true
    }

    fn leave(&mut self, cells: Cells) {
        self.all = self.all.saturating_sub(1);
        for (counts, cell) in [(&mut self.clients, cells.narrow), (&mut self.networks, cells.wide)] {
            if let Some(count) = counts.get_mut(&cell) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    counts.remove(&cell);
                }
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.inside().leave(self.cells);
        // All who wait look again: the first of them may be one who has enough.
        self.gate.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u16) -> Cells {
        Cells { narrow: n, wide: n }
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_has_so_many_checks_under_way_and_no_more() {
        let gates = Gates::default();
        let mut permits = Vec::new();
        for n in 0..64 {
            permits.push(gates.enter("a", client(n), 64).await.unwrap());
        }
        assert_eq!(gates.busiest(), 64);
        let begun = Instant::now();
        assert!(gates.enter("a", client(99), 64).await.is_none());
        assert_eq!(begun.elapsed(), MAX_WAIT);
        assert!(gates.enter("b", client(99), 64).await.is_some(), "another site has its own");
        let waiting = gates.enter("a", client(99), 64);
        let leaving = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            permits.pop();
        };
        let (entered, ()) = tokio::join!(waiting, leaving);
        assert!(entered.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_has_eight_when_half_is_taken() {
        let gates = Gates::default();
        let mut permits = Vec::new();
        while let Some(permit) = gates.enter("a", client(1), 64).await {
            permits.push(permit);
        }
        assert_eq!(permits.len(), 32, "nobody else wants it");
        for n in 2..6 {
            for _ in 0..8 {
                permits.push(gates.enter("a", client(n), 64).await.unwrap());
            }
        }
        assert_eq!(permits.len(), 64);
        drop(permits);
        assert_eq!(gates.busiest(), 0);
        assert!(gates.gate("a").inside().clients.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_enough_does_not_stand_in_the_way_of_others() {
        let gates = Gates::default();
        let mut permits = Vec::new();
        for n in 0..32 {
            permits.push(gates.enter("a", client(n / 8), 33).await.unwrap());
        }
        permits.push(gates.enter("a", client(9), 33).await.unwrap());
        let greedy = gates.enter("a", client(0), 33);
        let honest = gates.enter("a", client(8), 33);
        let leaving = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            permits.truncate(32);
        };
        let (greedy, honest, ()) = tokio::join!(greedy, honest, leaving);
        assert!(greedy.is_none() && honest.is_some());
    }
}
