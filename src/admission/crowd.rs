//! Addresses from which many sessions begin on few connections: proxies that are not declared, so that their users are
//! taken for one.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Network;

/// What is known of such addresses.
#[derive(Debug, Default)]
pub struct Crowds(Mutex<Vec<Crowd>>);

/// One such address, or IPv6 network of 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// The last one of the network that was seen.
    pub address: IpAddr,
    /// Sessions that began there.
    pub sessions: u64,
    /// The connections that they began on.
    pub connections: u64,
    last: Instant,
    told: bool,
}

/// Sessions that begin on one connection before it counts. A browser's user who logs out and in again has fewer.
const MANY: u32 = 10;
/// Sessions of one address before it is told of.
const TELLING: u64 = 30;
/// Addresses that are remembered.
const MAX: usize = 16;
/// Silence that ends an episode.
const QUIET: Duration = Duration::from_secs(600);

// === impl Crowds ===

impl Crowds {
    /// A session begins on a connection of this address, the `nth` one there. What is to be told, once an episode.
    pub fn begins(&self, address: IpAddr, nth: u32, now: Instant) -> Option<Crowd> {
        if nth < MANY {
            return None;
        }
        let (sessions, connections) = if nth == MANY { (MANY.into(), 1) } else { (1, 0) };
        let mut crowds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        crowds.retain(|crowd| crowd.is_recent(now));
        let network = Network::of(address);
        let known = crowds.iter().position(|crowd| Network::of(crowd.address) == network);
        let crowd = match known {
            Some(index) => &mut crowds[index],
            None => {
                if crowds.len() == MAX {
                    let oldest = (0..MAX).min_by_key(|&index| crowds[index].last).unwrap_or_default();
                    crowds.swap_remove(oldest);
                }
                let new = Crowd { address, sessions: 0, connections: 0, last: now, told: false };
                crowds.push(new);
                let last = crowds.len() - 1;
                &mut crowds[last]
            }
        };
        *crowd = Crowd {
            address,
            sessions: crowd.sessions + sessions,
            // The first ones may have been forgotten.
            connections: (crowd.connections + connections).max(1),
            last: now,
            told: crowd.told,
        };
        let tells = crowd.is_told_of() && !crowd.told;
        crowd.told |= tells;
        tells.then_some(*crowd)
    }

    /// Those that there are to tell of now.
    pub fn now(&self, now: Instant) -> Vec<Crowd> {
        let crowds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        crowds.iter().filter(|crowd| crowd.is_recent(now) && crowd.is_told_of()).copied().collect()
    }
}

// === impl Crowd ===

impl Crowd {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < QUIET
    }

    fn is_told_of(&self) -> bool {
        self.sessions >= TELLING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// So many sessions, one after another on one connection; how often that is told.
    fn begin(crowds: &Crowds, address: IpAddr, sessions: u32, now: Instant) -> usize {
        (1..=sessions).filter(|&nth| crowds.begins(address, nth, now).is_some()).count()
    }

    #[test]
    fn many_sessions_on_few_connections_are_told_of_once_an_episode() {
        let (crowds, now, there) = (Crowds::default(), clock::now(), address("192.0.2.1"));
        assert_eq!(begin(&crowds, there, 20, now), 0);
        assert_eq!(begin(&crowds, there, 20, now), 1);
        assert_eq!(begin(&crowds, there, 500, now), 0);
        let [crowd] = crowds.now(now)[..] else { panic!("one") };
        assert_eq!((crowd.address, crowd.sessions, crowd.connections), (there, 540, 3));
        assert!(crowds.now(now + QUIET).is_empty());
        assert_eq!(begin(&crowds, there, 30, now + QUIET), 1);
    }

    #[test]
    fn few_sessions_on_many_connections_are_nothing_to_tell_of() {
        let (crowds, now) = (Crowds::default(), clock::now());
        let told: usize = (0..1_000).map(|_| begin(&crowds, address("192.0.2.1"), MANY - 1, now)).sum();
        assert_eq!((told, crowds.now(now).len()), (0, 0));
    }

    #[test]
    fn no_number_of_addresses_takes_more_room_than_there_is() {
        let (crowds, now) = (Crowds::default(), clock::now());
        for number in 0..1_000_u32 {
            begin(&crowds, IpAddr::from(number.to_be_bytes()), 40, now);
        }
        assert_eq!(crowds.now(now).len(), MAX);
    }
}
