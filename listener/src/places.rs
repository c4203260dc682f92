//! Who has how many connections, and whose makes way for another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::connection::{Activity, Millis};
use crate::fairness::{Buckets, Prefix, Prefixes, Rate, WIDE_FACTOR};

/// What any prefix may have, however many there are.
const LEAST_SHARE: u32 = 32;

/// The places of a listener: one for each connection.
pub(crate) struct Places {
    slots: usize,
    handshakes: Option<Handshakes>,
    state: Mutex<State>,
}

struct Handshakes {
    rate: Rate,
    prefixes: Prefixes,
    narrow: Buckets,
    wide: Buckets,
}

/// Counted exactly, not by cells: what is counted up and down again must not be counted for another prefix. There are no
/// more prefixes than connections, so the listener's limit bounds the tables.
#[derive(Default)]
struct State {
    /// Connections of each narrow prefix that has any.
    narrow: HashMap<Prefix, u32>,
    /// What each wide prefix has that has anything.
    wide: HashMap<Prefix, Network>,
    connections: HashMap<u64, Connection>,
    next: u64,
    /// How many of them have been asked to make way.
    going: usize,
}

/// What a wide prefix has.
#[derive(Clone, Copy, Default)]
struct Network {
    connections: u32,
    /// Narrow prefixes in it that have one.
    clients: u32,
}

struct Connection {
    activity: Arc<Activity>,
    /// `None`: a trusted proxy's, which stands for many clients.
    owner: Option<Owner>,
    makes_way: bool,
}

/// Whose a connection is.
#[derive(Clone, Copy)]
struct Owner {
    narrow: Prefix,
    wide: Prefix,
}

impl From<IpAddr> for Owner {
    fn from(ip: IpAddr) -> Self {
        Self { narrow: Prefix::narrow(ip), wide: Prefix::wide(ip) }
    }
}

/// Why a connection gets no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its prefix has its share of the places already.
    Share { prefix: Prefix, connections: u32, share: u32 },
    /// Its prefix opens connections faster than it may.
    Handshakes(Prefix),
}

impl Refusal {
    pub(crate) const NAMES: [&'static str; 2] = ["share", "handshakes"];

    /// The name in metrics.
    pub(crate) const fn name(&self) -> &'static str {
        let [share, handshakes] = Self::NAMES;
        match self {
            Self::Share { .. } => share,
            Self::Handshakes(_) => handshakes,
        }
    }

    /// What the log says.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Share { prefix, connections, share } => {
                format!("{prefix} has {connections} connections, and its share is {share}: another one was closed")
            }
            Self::Handshakes(prefix) => format!("{prefix} opens connections too fast: one was closed"),
        }
    }
}

/// A connection's place; dropped, it is free.
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
}

impl Places {
    /// So many, with so many handshakes for each prefix under pressure.
    pub(crate) fn new(slots: usize, handshakes: Option<Rate>) -> Arc<Self> {
        let handshakes = handshakes.map(|rate| Handshakes {
            rate,
            prefixes: Prefixes::default(),
            narrow: Buckets::default(),
            wide: Buckets::default(),
        });
        Arc::new(Self { slots, handshakes, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many connections there are.
    pub(crate) fn taken(&self) -> usize {
        self.state().connections.len()
    }

    /// How many there may be before clients are held to their shares.
    fn pressed(&self) -> usize {
        self.slots / 5 * 4 + self.slots % 5 * 4 / 5
    }

    /// Whether an address that nobody trusts to speak for others may have one more connection.
    ///
    /// # Errors
    /// Why it may not. Below four fifths of all places nobody is refused.
    pub(crate) fn admit(&self, ip: IpAddr, under_pressure: bool, now: Duration) -> Result<(), Refusal> {
        let state = self.state();
        if state.connections.len() + 1 > self.pressed() {
            state.check_share(self.slots, ip.into())?;
        }
        drop(state);
        match &self.handshakes {
            Some(handshakes) if under_pressure => handshakes.take(ip, now),
            _ => Ok(()),
        }
    }

    /// Notes a connection. `ip` is `None` when it is a trusted proxy's.
    pub(crate) fn take(self: &Arc<Self>, ip: Option<IpAddr>, activity: Arc<Activity>) -> Place {
        let owner = ip.map(Owner::from);
        let mut state = self.state();
        if let Some(owner) = owner {
            state.add(owner);
        }
        let id = state.next;
        state.next += 1;
        state.connections.insert(id, Connection { activity, owner, makes_way: false });
        Place { places: Arc::clone(self), id }
    }

    /// Asks connections to make way when places get scarce: the longest idle of the prefix that has most. With none
    /// left, also one that is busy, when its prefix has more than its share.
    pub(crate) fn make_way(&self) {
        let mut state = self.state();
        // What makes way already counts as free.
        let staying = state.connections.len() - state.going;
        let excess = (staying + 1).saturating_sub(self.pressed());
        if excess == 0 {
            return;
        }
        // A few at once in a large listener, since it takes a look at all.
        let wanted = excess + self.slots / 128;
        for id in state.expendable(self.slots, wanted, staying >= self.slots) {
            if let Some(connection) = state.connections.get_mut(&id) {
                connection.makes_way = true;
                connection.activity.evict();
                state.going += 1;
            }
        }
    }
}

impl Handshakes {
    fn take(&self, ip: IpAddr, now: Duration) -> Result<(), Refusal> {
        let cells = self.prefixes.cells(ip);
        let narrow = self.narrow.take(cells.narrow, now, self.rate);
        narrow.map_err(|_| Refusal::Handshakes(Prefix::narrow(ip)))?;
        let wide = self.wide.take(cells.wide, now, self.rate.times(WIDE_FACTOR));
        wide.map_err(|_| Refusal::Handshakes(Prefix::wide(ip)))
    }
}

impl State {
    fn narrow(&self, owner: Owner) -> u32 {
        self.narrow.get(&owner.narrow).copied().unwrap_or(0)
    }

    fn wide(&self, owner: Owner) -> Network {
        self.wide.get(&owner.wide).copied().unwrap_or_default()
    }

    fn add(&mut self, owner: Owner) {
        let connections = self.narrow.entry(owner.narrow).or_default();
        *connections += 1;
        let is_first = *connections == 1;
        let network = self.wide.entry(owner.wide).or_default();
        network.connections += 1;
        network.clients += u32::from(is_first);
    }

    fn remove(&mut self, owner: Owner) {
        let (connections, mut network) = (self.narrow(owner).saturating_sub(1), self.wide(owner));
        network.connections = network.connections.saturating_sub(1);
        network.clients = network.clients.saturating_sub(u32::from(connections == 0));
        put(&mut self.narrow, owner.narrow, connections, connections == 0);
        put(&mut self.wide, owner.wide, network, network.connections == 0);
    }

    /// What a network and a client of it may have: networks share the places, clients the share of their network.
    fn shares(&self, slots: usize, network: Network, newcomers: u32) -> (u32, u32) {
        let networks = self.wide.len() + usize::from(network.connections == 0);
        let network_share = u32::try_from(slots / networks.max(1)).unwrap_or(u32::MAX).max(LEAST_SHARE);
        let client_share = (network_share / (network.clients + newcomers).max(1)).max(LEAST_SHARE);
        (network_share, client_share)
    }

    fn check_share(&self, slots: usize, owner: Owner) -> Result<(), Refusal> {
        let (narrow, network) = (self.narrow(owner), self.wide(owner));
        let (network_share, client_share) = self.shares(slots, network, u32::from(narrow == 0));
        let refuse = |prefix, connections, share| Err(Refusal::Share { prefix, connections, share });
        if narrow >= client_share {
            return refuse(owner.narrow, narrow, client_share);
        }
        if network.connections >= network_share {
            return refuse(owner.wide, network.connections, network_share);
        }
        Ok(())
    }

    /// The connections that are missed least, at most so many.
    fn expendable(&self, slots: usize, wanted: usize, is_full: bool) -> Vec<u64> {
        let holds = |owner: Owner| (self.wide(owner).connections, self.narrow(owner));
        let (mut most, mut of) = ((0, 0), Vec::new());
        for (id, connection) in &self.connections {
            let Some(owner) = connection.owner.filter(|_| !connection.makes_way) else { continue };
            let held = holds(owner);
            if held > most {
                most = held;
                of.clear();
            }
            if held == most {
                of.push((*id, &connection.activity, owner));
            }
        }
        let mut idle: Vec<(Millis, u64)> =
            of.iter().filter_map(|(id, activity, _)| Some((activity.idle_since()?, *id))).collect();
        if wanted < idle.len() {
            idle.select_nth_unstable(wanted);
            idle.truncate(wanted);
        }
        if !idle.is_empty() || !is_full {
            return idle.into_iter().map(|(_, id)| id).collect();
        }
        let is_over = |owner: Owner| {
            let network = self.wide(owner);
            let (network_share, client_share) = self.shares(slots, network, 0);
            network.connections > network_share || self.narrow(owner) > client_share
        };
        let busy = of.iter().filter(|(_, _, owner)| is_over(*owner));
        busy.min_by_key(|(_, activity, _)| activity.opened()).map(|(id, ..)| *id).into_iter().collect()
    }
}

/// Keeps a value in a table, unless it is nothing.
fn put<T>(table: &mut HashMap<Prefix, T>, prefix: Prefix, value: T, is_nothing: bool) {
    if is_nothing {
        table.remove(&prefix);
    } else {
        table.insert(prefix, value);
    }
}

impl Place {
    /// Counts a proxy's connection for the client that it was opened for.
    pub(crate) fn belongs_to(&self, ip: IpAddr) {
        let owner = Owner::from(ip);
        let mut state = self.places.state();
        let Some(connection) = state.connections.get_mut(&self.id).filter(|connection| connection.owner.is_none())
        else {
            return;
        };
        connection.owner = Some(owner);
        state.add(owner);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state();
        let Some(connection) = state.connections.remove(&self.id) else { return };
        state.going -= usize::from(connection.makes_way);
        if let Some(owner) = connection.owner {
            state.remove(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::connection::Clock;

    struct Room {
        places: Arc<Places>,
        clock: Clock,
    }

    impl Room {
        fn new(slots: usize) -> Self {
            let rate = Rate::per(Duration::from_secs(1), 50, 200);
            Self { places: Places::new(slots, Some(rate)), clock: Clock::start() }
        }

        /// A connection, if it may have a place.
        fn connect(&self, ip: &str) -> Option<(Place, Arc<Activity>)> {
            let ip = ip.parse().unwrap();
            self.places.admit(ip, false, Duration::ZERO).ok()?;
            let activity = Arc::new(Activity::new(self.clock));
            Some((self.places.take(Some(ip), Arc::clone(&activity)), activity))
        }

        fn connect_all(&self, ips: impl Iterator<Item = String>) -> Vec<(Place, Arc<Activity>)> {
            ips.filter_map(|ip| self.connect(&ip)).collect()
        }

        /// Which of these was asked to make way.
        fn gone<'a>(&self, of: &'a [(Place, Arc<Activity>)]) -> Vec<&'a Arc<Activity>> {
            let state = self.places.state();
            let gone = |id: u64| state.connections[&id].makes_way;
            of.iter().filter(|(place, _)| gone(place.id)).map(|(_, activity)| activity).collect()
        }
    }

    #[test]
    fn a_thousand_clients_behind_one_address_have_room_as_long_as_there_is_any() {
        let room = Room::new(10_000);
        let office = room.connect_all((0..1000).map(|_| "192.0.2.1".to_owned()));
        assert_eq!(office.len(), 1000);
        // One client floods from elsewhere: it gets 8,000 and then no more, and the office still connects.
        let flood = room.connect_all((0..20_000).map(|_| "198.51.100.1".to_owned()));
        assert_eq!(flood.len(), 7000);
        assert!(room.connect("192.0.2.1").is_some());
        assert!(room.connect("203.0.113.1").is_some());
    }

    #[test]
    fn the_longest_idle_of_the_greediest_makes_way() {
        let room = Room::new(100);
        let honest = room.connect_all((0..20).map(|n| format!("192.0.{n}.1")));
        let flood = room.connect_all((0..60).map(|_| "198.51.100.1".to_owned()));
        room.places.make_way();
        assert_eq!(room.gone(&flood).len(), 1, "80 of 100 are taken");
        let newcomer = room.connect("203.0.113.1").unwrap();
        room.places.make_way();
        assert_eq!((room.gone(&flood).len(), room.gone(&honest).len()), (2, 0));
        drop((newcomer, flood, honest));
        let state = room.places.state();
        assert!(state.connections.is_empty() && state.narrow.is_empty() && state.wide.is_empty());
    }

    #[test]
    fn what_one_prefix_has_is_never_counted_for_another() {
        // So many that some would meet in a table of 65,536 cells.
        let room = Room::new(200_000);
        let all = room.connect_all((0..2000_u32).map(|n| Ipv4Addr::from_bits(0x0a00_0001 + (n << 8)).to_string()));
        let more = room.connect_all((0..2000_u32).map(|n| Ipv4Addr::from_bits(0x0a00_0002 + (n << 8)).to_string()));
        drop(all);
        let state = room.places.state();
        assert_eq!((state.narrow.len(), state.wide.len()), (2000, 2000));
        assert!(state.wide.values().all(|network| (network.connections, network.clients) == (1, 1)));
        drop(state);
        drop(more);
        let state = room.places.state();
        assert!(state.connections.is_empty() && state.narrow.is_empty() && state.wide.is_empty());
    }

    #[test]
    fn many_subnets_of_one_network_do_not_count_as_many_clients() {
        let room = Room::new(1000);
        let office = room.connect_all((0..100).map(|_| "192.0.2.1".to_owned()));
        let flood = room.connect_all((0..5000).map(|n| format!("2001:db8:1:{n:x}::1")));
        assert!((690..=700).contains(&flood.len()), "{}", flood.len());
        assert!(room.connect("192.0.2.1").is_some(), "the office has not had its share");
        room.places.make_way();
        assert!(!room.gone(&flood).is_empty() && room.gone(&office).is_empty());
    }

    #[test]
    fn a_busy_connection_makes_way_only_when_there_is_no_room_and_its_prefix_has_too_much() {
        let room = Room::new(50);
        let flood = room.connect_all((0..40).map(|_| "198.51.100.1".to_owned()));
        let exchanges: Vec<_> = flood.iter().map(|(_, activity)| activity.begin_exchange()).collect();
        let honest = room.connect_all((0..10).map(|n| format!("192.0.{n}.1")));
        let busy: Vec<_> = honest.iter().map(|(_, activity)| activity.begin_exchange()).collect();
        assert_eq!((flood.len(), honest.len()), (40, 10));
        room.places.make_way();
        assert_eq!((room.gone(&flood).len(), room.gone(&honest).len()), (1, 0));
        drop((exchanges, busy));
    }

    #[test]
    fn what_makes_way_already_is_not_asked_twice() {
        let room = Room::new(10);
        let flood = room.connect_all((0..8).map(|_| "198.51.100.1".to_owned()));
        for _ in 0..5 {
            room.places.make_way();
        }
        assert_eq!(room.gone(&flood).len(), 1);
    }

    #[test]
    fn a_trusted_proxy_is_not_capped() {
        let room = Room::new(100);
        let proxy: Vec<Place> = (0..95).map(|_| room.places.take(None, Arc::new(Activity::new(room.clock)))).collect();
        room.places.make_way();
        assert_eq!(room.places.state().going, 0);
        assert_eq!(room.places.taken(), 95);
        drop(proxy);
    }

    #[test]
    fn handshakes_have_a_rate_under_pressure() {
        let room = Room::new(10_000);
        let ip = |n: u32| IpAddr::from([192, 0, 2, u8::try_from(n).unwrap()]);
        let admitted = |n: u32, pressed: bool, times: u32| {
            (0..times).filter(|_| room.places.admit(ip(n), pressed, Duration::from_secs(9)).is_ok()).count()
        };
        assert_eq!(admitted(1, false, 1000), 1000);
        assert_eq!(admitted(1, true, 1000), 200);
        // The network as a whole has four times as much.
        assert_eq!((2..20).map(|n| admitted(n, true, 1000)).sum::<usize>(), 600);
    }
}
