//! Ids that are no sessions of their own any more: replaced ones, which lead to their session for a
//! while, and ended ones, which still lead home until requests that were under way have passed.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use dashmap::DashMap;

use super::{KeyBuildHasher, SessionKey, Tick, table::Home};

#[derive(Debug)]
pub(super) struct Afterlife {
    map: DashMap<SessionKey, Past, KeyBuildHasher>,
    count: AtomicUsize,
    /// When to look at which again; may hold entries of ids that are long gone.
    queue: Mutex<BinaryHeap<Turn>>,
}

/// When to look at an id again, the next first.
type Turn = Reverse<(Tick, [u32; 4])>;

#[derive(Clone, Copy, Debug)]
struct Past {
    until: Tick,
    kind: Kind,
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
const MAX_PAST: usize = 65_536;
const SHARDS: usize = 64;

// === impl Afterlife ===

impl Afterlife {
    pub(super) fn new() -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(KeyBuildHasher, SHARDS),
            count: AtomicUsize::new(0),
            queue: Mutex::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    pub(super) fn find(&self, key: SessionKey, now: Tick) -> Option<Kind> {
        if self.is_empty() {
            return None;
        }
        self.map.get(&key).filter(|past| past.until > now).map(|past| past.kind)
    }

    /// Remembers an id until then.
    pub(super) fn remember(&self, key: SessionKey, kind: Kind, until: Tick) {
        if self.map.insert(key, Past { until, kind }).is_none() {
            self.count.fetch_add(1, Relaxed);
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push(Reverse((until, key.words())));
        while queue.len() > 2 * MAX_PAST || self.count.load(Relaxed) > MAX_PAST {
            let Some(Reverse((_, words))) = queue.pop() else { break };
            self.forget(SessionKey::from_words(words));
        }
    }

    /// The id is that of a session (again).
    pub(super) fn forget(&self, key: SessionKey) {
        if !self.is_empty() && self.map.remove(&key).is_some() {
            self.count.fetch_sub(1, Relaxed);
        }
    }

    /// Forgets at most `budget` ids whose time has come.
    pub(super) fn purge(&self, now: Tick, budget: usize) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..budget {
            let Some(&Reverse((until, words))) = queue.peek() else { return };
            if until > now {
                return;
            }
            queue.pop();
            // Its time may have been set anew meanwhile; then another entry of the queue stands for it.
            if self.map.remove_if(&SessionKey::from_words(words), |_, past| past.until <= now).is_some() {
                self.count.fetch_sub(1, Relaxed);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> SessionKey {
        SessionKey::from_words([n; 4])
    }

    #[test]
    fn an_id_is_forgotten_when_its_time_has_come() {
        let after = Afterlife::new();
        after.remember(key(1), Kind::Renamed(key(2)), Tick::new(10));
        assert_eq!(after.find(key(1), Tick::new(9)), Some(Kind::Renamed(key(2))));
        assert_eq!(after.find(key(1), Tick::new(10)), None);
        after.purge(Tick::new(10), 8);
        assert!(after.is_empty());
    }

    #[test]
    fn a_longer_time_replaces_a_shorter() {
        let after = Afterlife::new();
        after.remember(key(1), Kind::Renamed(key(2)), Tick::new(10));
        after.remember(key(1), Kind::Renamed(key(3)), Tick::new(20));
        after.purge(Tick::new(15), 8);
        assert_eq!(after.find(key(1), Tick::new(15)), Some(Kind::Renamed(key(3))));
    }

    #[test]
    fn it_remembers_no_more_than_the_bound() {
        let after = Afterlife::new();
        for n in 0..MAX_PAST as u32 + 100 {
            after.remember(key(n), Kind::Renamed(key(0)), Tick::new(n));
        }
        assert_eq!(after.len(), MAX_PAST);
        assert_eq!(after.find(key(0), Tick::ZERO), None);
    }
}
