//! Who is let in: connections and requests, counted over all workers against `[limits]`.
//!
//! Whatever is counted in is counted out by a drop. What is kept is bounded by what it counts: an address has an
//! entry as long as it has a connection, and the tables of rates and of crowds have sizes that they never exceed.

mod crowd;
mod network;
mod rate;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::time::Instant;

pub use self::{
    crowd::{Crowd, Crowds},
    network::Network,
    rate::{RateLimit, TooFast},
};

/// What is counted over all workers.
#[derive(Debug, Default)]
pub struct Gate {
    /// Open client connections.
    connections: AtomicUsize,
    /// Connections for which there are file descriptors, if that is fewer than the limit; zero for any number.
    room: AtomicUsize,
    /// Open client connections of each address that has any.
    addresses: DashMap<Network, u32>,
    /// Requests under way.
    requests: AtomicUsize,
    /// Limits the log lines about addresses with too many connections.
    complaints: Throttle,
    /// Likewise, those about balancers that send no PROXY header.
    headers: Throttle,
    /// Addresses from which many sessions begin on few connections.
    pub crowds: Crowds,
    /// Limits the log lines about those.
    crowded: Throttle,
}

/// A client connection that counts until it is dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    /// The address that it counts for, once that is known and does not belong to a trusted proxy.
    network: Option<Network>,
}

/// A request that counts until it is dropped.
#[derive(Debug)]
pub struct RequestPermit(Arc<Gate>);

/// Lets something through once in a while.
#[derive(Debug, Default)]
pub struct Throttle(AtomicU64);

// === impl Gate ===

impl Gate {
    /// Client connections open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Addresses that have connections now.
    pub fn addresses(&self) -> usize {
        self.addresses.len()
    }

    /// No more connections than these, whatever the limit says.
    pub fn set_room(&self, room: usize) {
        self.room.store(room, Ordering::Relaxed);
    }

    /// Counts a connection in, unless there are as many as `limit`.
    pub fn connection(self: &Arc<Self>, limit: usize) -> Option<Permit> {
        let permit = Permit { gate: Arc::clone(self), network: None };
        // Counted before compared, so that two workers cannot both take the last place; the permit's drop takes a
        // refused one back.
        let limit = match self.room.load(Ordering::Relaxed) {
            0 => limit,
            room => limit.min(room),
        };
        (self.connections.fetch_add(1, Ordering::Relaxed) < limit).then_some(permit)
    }

    /// Counts a request in, unless there are as many as `limit`.
    pub fn request(self: &Arc<Self>, limit: usize) -> Option<RequestPermit> {
        let permit = RequestPermit(Arc::clone(self));
        (self.requests.fetch_add(1, Ordering::Relaxed) < limit).then_some(permit)
    }

    /// Whether it is time to complain about an address with too many connections.
    pub fn may_complain(&self, uptime: Duration) -> bool {
        self.complaints.passes(uptime)
    }

    /// Whether it is time to complain about a balancer that sends no PROXY header.
    pub fn may_complain_of_header(&self, uptime: Duration) -> bool {
        self.headers.passes(uptime)
    }

    /// A session begins on a connection of this address, the `nth` one there. Tells of it when that is due; `uptime` is
    /// that of the process.
    pub fn session_begins(&self, address: IpAddr, nth: u32, now: Instant, uptime: Duration) {
        if let Some(crowd) = self.crowds.begins(address, nth, now)
            && self.crowded.passes(uptime)
        {
            tracing::warn!(
                %address,
                sessions = crowd.sessions,
                connections = crowd.connections,
                "many sessions begin on few connections of one address, that of a proxy or a CDN? name it in \
                 `trusted_proxies`, or let it send PROXY headers (`[listen] proxy_protocol`)"
            );
        }
    }
}

// === impl Permit ===

impl Permit {
    /// Makes the connection count for this address, too; whether that has no more than `limit` with it. If it has,
    /// the connection counts for no address, and is to be closed.
    pub fn count_for(&mut self, address: IpAddr, limit: NonZeroU32) -> bool {
        let network = Network::of(address);
        self.leave_address();
        let mut count = self.gate.addresses.entry(network).or_insert(0);
        if *count >= limit.get() {
            return false;
        }
        *count += 1;
        self.network = Some(network);
        true
    }

    fn leave_address(&mut self) {
        let Some(network) = self.network.take() else { return };
        self.gate.addresses.remove_if_mut(&network, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave_address();
        self.gate.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl RequestPermit ===

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Throttle ===

impl Throttle {
    /// Whether this is the first time in [`PAUSE`]; `uptime` is that of the process.
    pub fn passes(&self, uptime: Duration) -> bool {
        // One more than the seconds, since zero is never.
        let now = uptime.as_secs() + 1;
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || now >= last + PAUSE.as_secs();
        due && self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// From one log line of a kind to the next.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: NonZeroU32 = NonZeroU32::new(2).unwrap();

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_place_is_given_once_and_comes_back() {
        let gate = Arc::new(Gate::default());
        let first = gate.connection(1);
        assert!(first.is_some() && gate.connection(1).is_none());
        assert_eq!(gate.connections(), 1, "a refused one does not stay counted");
        drop(first);
        assert!(gate.connection(1).is_some());
        assert_eq!(gate.connections(), 0);
    }

    #[test]
    fn there_is_no_more_room_than_descriptors() {
        let gate = Arc::new(Gate::default());
        gate.set_room(1);
        let _first = gate.connection(10).unwrap();
        assert!(gate.connection(10).is_none());
    }

    #[test]
    fn an_address_has_its_own_limit_and_leaves_nothing_behind() {
        let gate = Arc::new(Gate::default());
        let open = |text| {
            let mut permit = gate.connection(100).unwrap();
            permit.count_for(address(text), TWO).then_some(permit)
        };
        let held: Vec<_> = ["192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"].into_iter().map(open).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(open("192.0.2.1").is_none() && open("::ffff:192.0.2.1").is_none());
        assert!(open("192.0.2.2").is_some());
        assert_eq!((gate.connections(), gate.addresses()), (3, 2));
        drop(held);
        assert_eq!((gate.connections(), gate.addresses()), (0, 0));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let gate = Arc::new(Gate::default());
        let open = |text| {
            let mut permit = gate.connection(100).unwrap();
            permit.count_for(address(text), TWO).then_some(permit)
        };
        let _held = [open("2001:db8::1"), open("2001:db8::ffff:2")];
        assert!(open("2001:db8:0:0:1::").is_none());
        assert!(open("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn a_connection_counts_for_the_last_address_it_is_told() {
        let gate = Arc::new(Gate::default());
        let mut permit = gate.connection(100).unwrap();
        assert!(permit.count_for(address("192.0.2.1"), TWO) && permit.count_for(address("192.0.2.2"), TWO));
        assert_eq!(gate.addresses(), 1);
        drop(permit);
        assert_eq!(gate.addresses(), 0);
    }

    #[test]
    fn many_threads_leave_exact_counts() {
        let gate = Arc::new(Gate::default());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let gate = &gate;
                scope.spawn(move || {
                    for number in 0..2000_u32 {
                        let mut permit = gate.connection(3).into_iter().collect::<Vec<_>>();
                        for permit in &mut permit {
                            permit.count_for(IpAddr::from([192, 0, 2, (thread + number % 3) as u8]), TWO);
                        }
                        let _request = gate.request(2);
                    }
                });
            }
        });
        assert_eq!((gate.connections(), gate.addresses()), (0, 0));
        assert!(gate.request(1).is_some());
    }

    #[test]
    fn a_throttle_passes_once_a_minute() {
        let throttle = Throttle::default();
        let at = |seconds| throttle.passes(Duration::from_secs(seconds));
        assert!(at(0) && !at(0) && !at(59) && at(60) && !at(61) && at(500));
    }
}
