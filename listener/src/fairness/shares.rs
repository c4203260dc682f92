//! Fair shares of what was served lately.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use super::prefix::{CELLS, Cells};

/// The time over which use is compared.
const WINDOW: Duration = Duration::from_secs(10);

/// What prefixes had in the current window of time, to tell who has more than a fair share.
///
/// A share is hierarchical: networks share the whole, the clients of a network its share. Only what was served counts,
/// so the share of whoever is refused does not grow by asking more.
#[derive(Debug)]
pub struct Shares(Mutex<State>);

#[derive(Debug)]
struct State {
    window: u64,
    narrow: Box<[Use]>,
    wide: Box<[Use]>,
    total: u32,
    networks: u32,
}

/// The use of a cell in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    window: u64,
    count: u32,
    /// Of a wide prefix: how many narrow ones in it have had something.
    clients: u32,
}

impl Use {
    fn of(self, window: u64) -> Self {
        if self.window == window { self } else { Self { window, ..Self::default() } }
    }
}

impl Default for Shares {
    fn default() -> Self {
        let table = || vec![Use::default(); CELLS].into_boxed_slice();
        Self(Mutex::new(State { window: 0, narrow: table(), wide: table(), total: 0, networks: 0 }))
    }
}

impl Shares {
    /// Whether a prefix has had its share, so that one more would be more. No share is less than `least` in ten seconds.
    #[must_use]
    pub fn is_over(&self, cells: Cells, least: u32, now: Duration) -> bool {
        self.excess(cells, least, now).is_some()
    }

    /// How many times its share a prefix will have had with one more; `None` when that is within its share.
    #[must_use]
    pub fn excess(&self, cells: Cells, least: u32, now: Duration) -> Option<u32> {
        self.with(now, |state| {
            let (narrow, wide) = state.uses(cells);
            // Together with what is asked for, which may be of a network that has had nothing yet.
            let networks = state.networks + u32::from(wide.count == 0);
            let clients = wide.clients + u32::from(narrow.count == 0);
            let network_share = ((state.total + 1) / networks.max(1)).max(least);
            let client_share = (network_share.max(wide.count + 1) / clients.max(1)).max(least);
            let times = (wide.count / network_share.max(1)).max(narrow.count / client_share.max(1));
            (times >= 1).then_some(times)
        })
    }

    /// Notes that something was served.
    pub fn note(&self, cells: Cells, now: Duration) {
        self.with(now, |state| state.note(cells));
    }

    fn with<T>(&self, now: Duration, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // From 1, since 0 is what no cell has been used in.
        let window = now.as_secs() / WINDOW.as_secs() + 1;
        if state.window != window {
            state.window = window;
            (state.total, state.networks) = (0, 0);
        }
        change(&mut state)
    }
}

impl State {
    fn uses(&self, cells: Cells) -> (Use, Use) {
        let get = |table: &[Use], cell: u16| table.get(usize::from(cell)).copied().unwrap_or_default();
        (get(&self.narrow, cells.narrow).of(self.window), get(&self.wide, cells.wide).of(self.window))
    }

    fn note(&mut self, cells: Cells) {
        let (mut narrow, mut wide) = self.uses(cells);
        self.total = self.total.saturating_add(1);
        self.networks += u32::from(wide.count == 0);
        wide.clients += u32::from(narrow.count == 0);
        wide.count = wide.count.saturating_add(1);
        narrow.count = narrow.count.saturating_add(1);
        if let Some(cell) = self.narrow.get_mut(usize::from(cells.narrow)) {
            *cell = narrow;
        }
        if let Some(cell) = self.wide.get_mut(usize::from(cells.wide)) {
            *cell = wide;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn cells(narrow: u16, wide: u16) -> Cells {
        Cells { narrow, wide }
    }

    /// How many of `count` a prefix gets.
    fn served(shares: &Shares, cells: Cells, count: u32) -> u32 {
        (0..count)
            .map(|_| {
                u32::from(
                    !shares.is_over(cells, 8, NOW) && {
                        shares.note(cells, NOW);
                        true
                    },
                )
            })
            .sum()
    }

    #[test]
    fn who_is_alone_has_all() {
        let shares = Shares::default();
        assert_eq!(served(&shares, cells(1, 1), 10_000), 10_000);
    }

    #[test]
    fn a_flood_gets_what_others_get() {
        let shares = Shares::default();
        for honest in 0..50 {
            assert_eq!(served(&shares, cells(100 + honest, 100 + honest), 20), 20);
        }
        let flood = served(&shares, cells(1, 1), 100_000);
        assert!((15..=25).contains(&flood), "{flood}");
        assert_eq!(served(&shares, cells(999, 999), 10), 10, "who comes later is served");
    }

    #[test]
    fn many_addresses_of_one_network_are_one_network() {
        let shares = Shares::default();
        for honest in 0..10 {
            served(&shares, cells(100 + honest, 100 + honest), 100);
        }
        let flood: u32 = (1000..3000).map(|client| served(&shares, cells(client, 1), 10)).sum();
        assert!(flood <= 150, "{flood}");
    }

    #[test]
    fn a_flooding_client_of_a_network_does_not_take_the_share_of_its_neighbours() {
        let shares = Shares::default();
        served(&shares, cells(500, 2), 1000);
        for neighbour in 0..20 {
            assert_eq!(served(&shares, cells(100 + neighbour, 1), 8), 8);
        }
        let flood = served(&shares, cells(1, 1), 10_000);
        assert!(flood <= 60, "{flood}");
        assert_eq!(served(&shares, cells(200, 1), 8), 8);
    }

    #[test]
    fn the_next_window_begins_with_nothing() {
        let shares = Shares::default();
        served(&shares, cells(2, 2), 1);
        served(&shares, cells(1, 1), 1000);
        assert!(shares.is_over(cells(1, 1), 8, NOW));
        assert!(!shares.is_over(cells(1, 1), 8, NOW + WINDOW));
    }
}
