//! What one client, one session and one site may take from the others.
//!
//! Shares, not walls: an existing session answers for itself; who asks for a new one is held to a fair share only when
//! the service runs short ([`Pressure`](approov_listener::pressure::Pressure)); calls to check services are paid for by
//! those that failed. Everything is counted in fixed memory, in this process.

mod gates;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use approov_listener::fairness::{Buckets, Cells, Prefix, Prefixes, Rate, Shares, WIDE_FACTOR};
use approov_listener::pressure::SCARCE;
use approov_verify::jwk::Thumbprint;

use crate::config::Limits;
use crate::error::{Code, Refusal};

pub use gates::{Gates, Permit};

/// The time in which failed checks are forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// Why a client is refused although nothing is wrong with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// The session asks too often.
    Session,
    /// The client's network has had its share of new sessions, and the service runs short.
    Share,
    /// Too many results of the client, or of its session, were not accepted.
    FailedChecks,
    /// Too many checks are under way.
    ChecksInFlight,
    /// The session has too many proofs that may not be forgotten yet.
    LiveProofs,
}

impl Limit {
    /// The name in metrics and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Share => "share",
            Self::FailedChecks => "failed-checks",
            Self::ChecksInFlight => "checks-in-flight",
            Self::LiveProofs => "live-proofs",
        }
    }

    fn code(self) -> Code {
        match self {
            Self::ChecksInFlight => Code::Unavailable,
            _ => Code::RateLimit,
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::Session => "this session asks too often",
            Self::Share => "the service is busy, and this network has had its share: solve the challenge first",
            Self::FailedChecks => "too many check results were not accepted",
            Self::ChecksInFlight => "too many checks are under way",
            Self::LiveProofs => "this session has used too many proofs",
        }
    }
}

/// What a client is told when it is over a limit, and what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Which limit.
    pub limit: Limit,
    /// When a repetition makes sense.
    pub retry_after: Duration,
    /// Whose limit it is, for the log.
    pub whose: String,
}

impl Limited {
    /// The refusal that says so.
    pub fn refusal(&self) -> Refusal {
        let mut refusal = Refusal::new(self.limit.code(), self.limit.detail());
        // Rounded up: who comes on time is served.
        refusal.retry_after =
            Some(u64::try_from(self.retry_after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1));
        refusal
    }
}

/// A client that is over its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// How many times the share it has had.
    pub times: u32,
    /// Who it is, for the log.
    pub whose: String,
}

/// A client, by its address.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    ip: IpAddr,
    cells: Cells,
}

/// Who pays for a check that fails.
#[derive(Clone, Copy, Debug)]
pub enum Payer {
    /// The client, who wants a new session.
    Client(Client),
    /// The existing session of this key: its neighbours have nothing to do with it.
    Session(Thumbprint),
}

/// The counters.
pub struct ClientLimits {
    begun: Instant,
    cells: Prefixes,
    sessions: Buckets,
    shares: Shares,
    failed: FailedChecks,
    /// Checks under way.
    pub gates: Gates,
}

#[derive(Default)]
struct FailedChecks {
    clients: Buckets,
    networks: Buckets,
    sessions: Buckets,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            cells: Prefixes::default(),
            sessions: Buckets::default(),
            shares: Shares::default(),
            failed: FailedChecks::default(),
            gates: Gates::default(),
        }
    }
}

impl ClientLimits {
    /// The time by the clock of these counters, which no one sets.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The client with this address.
    pub fn client(&self, ip: IpAddr) -> Client {
        Client { ip, cells: self.cells.cells(ip) }
    }

    /// An existing session asks for tokens.
    ///
    /// # Errors
    /// When it asks too often.
    pub fn use_session(&self, holder: &Thumbprint, limits: &Limits, now: Duration) -> Result<(), Limited> {
        let Some(rate) = limits.refreshes else {
            return Ok(());
        };
        let taken = self.sessions.take(self.cells.cell(holder.as_bytes()), now, rate);
        taken.map_err(|retry_after| Limited { limit: Limit::Session, retry_after, whose: "this session".to_owned() })
    }

    /// A client asks for a new session.
    ///
    /// # Errors
    /// When the service runs short, and others have had less: how many times its share the client has had. It has to work
    /// for another one.
    pub fn admit_newcomer(&self, client: Client, pressure: f32, limits: &Limits, now: Duration) -> Result<(), Excess> {
        let excess = match limits.least_share {
            Some(least) if pressure >= SCARCE => self.shares.excess(client.cells, least, now),
            _ => None,
        };
        match excess {
            Some(times) => {
                Err(Excess { times, whose: format!("{} of {}", Prefix::narrow(client.ip), Prefix::wide(client.ip)) })
            }
            None => {
                self.note_newcomer(client, now);
                Ok(())
            }
        }
    }

    /// A client gets a new session, whether it had room or has worked for it.
    pub fn note_newcomer(&self, client: Client, now: Duration) {
        self.shares.note(client.cells, now);
    }

    /// Whether the signature of a nonce request is verified, which tells the client early what is wrong, but is work.
    pub fn verifies_nonce_request(&self, client: Client, pressure: f32, limits: &Limits, now: Duration) -> bool {
        let verifies = pressure < SCARCE || !self.is_over_share(client, limits, now);
        if verifies {
            self.shares.note(client.cells, now);
        }
        verifies
    }

    fn is_over_share(&self, client: Client, limits: &Limits, now: Duration) -> bool {
        limits.least_share.is_some_and(|least| self.shares.is_over(client.cells, least, now))
    }

    /// A check service is about to be called for somebody.
    ///
    /// # Errors
    /// When too many results that they brought were not accepted.
    pub fn may_call(&self, payer: Payer, limits: &Limits, now: Duration) -> Result<(), Limited> {
        let Some(rate) = failures(limits) else {
            return Ok(());
        };
        let limited = |retry_after, whose| Limited { limit: Limit::FailedChecks, retry_after, whose };
        match payer {
            Payer::Client(Client { ip, cells }) => {
                let narrow = self.failed.clients.peek(cells.narrow, now, rate);
                narrow.map_err(|retry_after| limited(retry_after, Prefix::narrow(ip).to_string()))?;
                let wide = self.failed.networks.peek(cells.wide, now, rate.times(WIDE_FACTOR));
                wide.map_err(|retry_after| limited(retry_after, Prefix::wide(ip).to_string()))
            }
            Payer::Session(holder) => {
                let session = self.failed.sessions.peek(self.cells.cell(holder.as_bytes()), now, rate);
                session.map_err(|retry_after| limited(retry_after, "this session".to_owned()))
            }
        }
    }

    /// A check that somebody asked for has failed. One that passed costs nothing.
    pub fn charge_failure(&self, payer: Payer, limits: &Limits, now: Duration) {
        let Some(rate) = failures(limits) else {
            return;
        };
        match payer {
            Payer::Client(Client { cells, .. }) => {
                self.failed.clients.charge(cells.narrow, now, rate);
                self.failed.networks.charge(cells.wide, now, rate.times(WIDE_FACTOR));
            }
            Payer::Session(holder) => {
                self.failed.sessions.charge(self.cells.cell(holder.as_bytes()), now, rate);
            }
        }
    }

    /// May one more check be under way for this client? See [`Gates::enter`].
    ///
    /// # Errors
    /// When it may not for too long.
    pub async fn enter_gate(&self, site: &str, client: Client, limits: &Limits) -> Result<Option<Permit>, Limited> {
        let Some(limit) = limits.checks_in_flight else {
            return Ok(None);
        };
        self.gates.enter(site, client.cells, limit).await.map(Some).ok_or_else(|| Limited {
            limit: Limit::ChecksInFlight,
            retry_after: Duration::from_secs(1),
            whose: site.to_owned(),
        })
    }
}

fn failures(limits: &Limits) -> Option<Rate> {
    limits.failed_checks.map(|checks| Rate::per(FORGIVEN_AFTER, checks, checks))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn holder(n: u8) -> Thumbprint {
        Thumbprint::from_bytes([n; 32])
    }

    fn client(counters: &ClientLimits, ip: &str) -> Client {
        counters.client(ip.parse().unwrap())
    }

    #[test]
    fn a_session_has_a_rate_of_its_own() {
        let (counters, limits) = (ClientLimits::default(), Limits::default());
        let used = |holder, now| (0..1000).filter(|_| counters.use_session(&holder, &limits, now).is_ok()).count();
        assert_eq!(used(holder(1), NOW), 120);
        assert_eq!(used(holder(2), NOW), 120, "whatever others do");
        assert_eq!(used(holder(1), NOW + Duration::from_secs(60)), 60);
        let limited = counters.use_session(&holder(1), &limits, NOW + Duration::from_secs(60)).unwrap_err();
        assert_eq!((limited.limit, limited.refusal().retry_after), (Limit::Session, Some(1)));
        assert_eq!(limited.refusal().status(), 429);
    }

    #[test]
    fn newcomers_are_held_to_a_share_only_when_the_service_runs_short() {
        let (counters, limits) = (ClientLimits::default(), Limits::default());
        let (office, other) = (client(&counters, "192.0.2.1"), client(&counters, "198.51.100.1"));
        let served = |who, pressure, times| {
            (0..times).filter(|_| counters.admit_newcomer(who, pressure, &limits, NOW).is_ok()).count()
        };
        assert_eq!(served(office, 0.4, 1000), 1000, "a thousand behind one address, as long as there is room");
        assert_eq!(served(other, 1.0, 50), 50);
        assert_eq!(served(office, 1.0, 1000), 0);
        let excess = |who| counters.admit_newcomer(who, 1.0, &limits, NOW).unwrap_err().times;
        assert_eq!(excess(office), 1);
        (2..20).for_each(|n| counters.note_newcomer(client(&counters, &format!("198.51.{n}.1")), NOW));
        (0..1000).for_each(|_| counters.note_newcomer(office, NOW));
        assert!(excess(office) > 1, "who works for more owes more");
        assert!(counters.verifies_nonce_request(office, 0.4, &limits, NOW));
        assert!(!counters.verifies_nonce_request(office, 0.6, &limits, NOW));
        assert!(counters.verifies_nonce_request(other, 0.6, &limits, NOW));
    }

    #[test]
    fn failed_checks_are_paid_for_by_who_brought_them() {
        let (counters, limits) = (ClientLimits::default(), Limits::default());
        let one = Payer::Client(client(&counters, "192.0.2.1"));
        let neighbour = Payer::Client(client(&counters, "192.0.2.2"));
        let other = Payer::Client(client(&counters, "198.51.100.1"));
        let session = Payer::Session(holder(1));
        for _ in 0..20 {
            assert_eq!(counters.may_call(one, &limits, NOW), Ok(()));
            counters.charge_failure(one, &limits, NOW);
        }
        let limited = counters.may_call(one, &limits, NOW).unwrap_err();
        assert_eq!((limited.limit, limited.refusal().retry_after), (Limit::FailedChecks, Some(30)));
        for free in [neighbour, other, session] {
            assert_eq!(counters.may_call(free, &limits, NOW), Ok(()));
        }
        assert_eq!(counters.may_call(one, &limits, NOW + FORGIVEN_AFTER), Ok(()));
        // A network has four times as many.
        for n in 3..7 {
            let client = Payer::Client(client(&counters, &format!("192.0.2.{n}")));
            (0..20).for_each(|_| counters.charge_failure(client, &limits, NOW));
        }
        assert!(counters.may_call(neighbour, &limits, NOW).is_err());
        assert_eq!(counters.may_call(other, &limits, NOW), Ok(()));
    }

    #[test]
    fn what_is_off_limits_nobody() {
        let counters = ClientLimits::default();
        let limits = Limits { refreshes: None, failed_checks: None, least_share: None, ..Limits::default() };
        let one = client(&counters, "192.0.2.1");
        for _ in 0..1000 {
            counters.charge_failure(Payer::Client(one), &limits, NOW);
            assert_eq!(counters.may_call(Payer::Client(one), &limits, NOW), Ok(()));
            assert_eq!(counters.use_session(&holder(1), &limits, NOW), Ok(()));
            assert_eq!(counters.admit_newcomer(one, 9.0, &limits, NOW), Ok(()));
        }
    }
}
