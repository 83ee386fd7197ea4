//! Ids whose session ended a moment ago: requests that were under way still go home.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use dashmap::DashMap;

use super::{KeyBuildHasher, SessionKey, Tick, due::Due, table::Home};

#[derive(Debug)]
pub(super) struct Afterlife {
    map: DashMap<SessionKey, Past, KeyBuildHasher>,
    count: AtomicUsize,
    /// When to forget which.
    due: Due,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    pub(super) until: Tick,
    /// Where its session lived.
    pub(super) home: Home,
}

/// What became of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its session has this key now.
    Renamed(SessionKey),
    /// Its session ended, there.
    Ended(Home),
}

/// Ids remembered at one time; beyond, the ones that would be forgotten first are.
const MAX_PAST: usize = 131_072;
const SHARDS: usize = 64;

// === impl Afterlife ===

impl Afterlife {
    pub(super) fn new() -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(KeyBuildHasher, SHARDS),
            count: AtomicUsize::new(0),
            due: Due::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    pub(super) fn find(&self, key: SessionKey, now: Tick) -> Option<Past> {
        if self.is_empty() {
            return None;
        }
        self.map.get(&key).filter(|past| past.until > now).map(|past| *past)
    }

    /// Remembers until then where the session of an id lived.
    pub(super) fn remember(&self, key: SessionKey, home: Home, until: Tick) {
        self.count.fetch_add(1, Relaxed);
        self.gone(self.map.insert(key, Past { until, home }).is_some());
        let full = || self.count.load(Relaxed) > MAX_PAST;
        self.due.push(key, until, 2 * MAX_PAST, full, |key, until| self.forget_at(key, until));
    }

    /// The id is that of a session (again).
    pub(super) fn forget(&self, key: SessionKey) {
        if !self.is_empty() {
            self.gone(self.map.remove(&key).is_some());
        }
    }

    /// Forgets at most `budget` ids whose time has come; true when there are more.
    pub(super) fn purge(&self, now: Tick, budget: usize, mut forgotten: impl FnMut(SessionKey)) -> bool {
        self.due.take(now, budget, |key, until| {
            forgotten(key);
            self.forget_at(key, until);
        })
    }

    /// The ids remembered now.
    pub(super) fn keys(&self) -> Vec<SessionKey> {
        self.map.iter().map(|past| *past.key()).collect()
    }

    /// Ids, and entries of the queue.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.count.load(Relaxed), self.due.len())
    }

    /// Forgets an id unless its time was set again meanwhile; then another entry of the queue stands for it.
    fn forget_at(&self, key: SessionKey, until: Tick) {
        self.gone(self.map.remove_if(&key, |_, past| past.until <= until).is_some());
    }

    fn gone(&self, was_there: bool) {
        self.count.fetch_sub(usize::from(was_there), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::Slot;

    fn home(n: u16) -> Home {
        Home { slot: Slot::new(n), generation: 0 }
    }

    fn key(n: u32) -> SessionKey {
        SessionKey::from_words([n; 4])
    }

    fn found(after: &Afterlife, n: u32, now: u32) -> Option<Home> {
        after.find(key(n), Tick::new(now)).map(|past| past.home)
    }

    #[test]
    fn an_id_is_forgotten_when_its_time_has_come() {
        let after = Afterlife::new();
        after.remember(key(1), home(2), Tick::new(10));
        assert_eq!(found(&after, 1, 9), Some(home(2)));
        assert_eq!(found(&after, 1, 10), None);
        after.purge(Tick::new(10), 8, drop);
        assert!(after.is_empty());
    }

    #[test]
    fn a_longer_time_replaces_a_shorter() {
        let after = Afterlife::new();
        after.remember(key(1), home(2), Tick::new(10));
        after.remember(key(1), home(3), Tick::new(20));
        after.purge(Tick::new(15), 8, drop);
        assert_eq!(found(&after, 1, 15), Some(home(3)));
    }

    #[test]
    fn it_remembers_no_more_than_the_bound() {
        let after = Afterlife::new();
        for n in 0..MAX_PAST as u32 + 100 {
            after.remember(key(n), home(0), Tick::new(n));
        }
        assert_eq!(after.len().0, MAX_PAST);
        assert_eq!(found(&after, 0, 0), None);
    }

    #[test]
    fn an_id_whose_time_was_lengthened_is_not_dropped_for_its_first_time() {
        let after = Afterlife::new();
        after.remember(key(0), home(1), Tick::new(1));
        after.remember(key(0), home(1), Tick::new(u32::MAX));
        for n in 1..MAX_PAST as u32 + 100 {
            after.remember(key(n), home(1), Tick::new(n));
        }
        assert_eq!(found(&after, 0, 0), Some(home(1)));
    }
}
