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
    /// How many of them last for longer than the grace.
    lasting: AtomicUsize,
    /// When to look at which again; may hold entries of ids that are long gone.
    queue: Mutex<Queue>,
}

/// Keys' words by the tick when to look at them, the earliest first.
type Queue = BinaryHeap<Reverse<(Tick, [u32; 4])>>;

#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    pub(super) until: Tick,
    pub(super) kind: Kind,
    /// Remembered for as long as its session lives, since a client may have nothing else.
    pub(super) lasting: bool,
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
/// Of these, ids that last. They must not displace the others, which every rename needs.
const MAX_LASTING: usize = MAX_PAST / 2;
const SHARDS: usize = 64;

// === impl Afterlife ===

impl Afterlife {
    pub(super) fn new() -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(KeyBuildHasher, SHARDS),
            count: AtomicUsize::new(0),
            lasting: AtomicUsize::new(0),
            queue: Mutex::default(),
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

    /// Remembers an id until then.
    pub(super) fn remember(&self, key: SessionKey, kind: Kind, until: Tick) {
        self.insert(key, Past { until, kind, lasting: false });
    }

    /// Remembers an id until `long`; only until `short` when too many ids last already.
    pub(super) fn remember_long(&self, key: SessionKey, kind: Kind, long: Tick, short: Tick) {
        let lasting = self.lasting.load(Relaxed) < MAX_LASTING;
        self.insert(key, Past { until: if lasting { long } else { short }, kind, lasting });
    }

    /// The id is that of a session (again).
    pub(super) fn forget(&self, key: SessionKey) {
        if !self.is_empty() {
            self.gone(self.map.remove(&key));
        }
    }

    /// Forgets at most `budget` ids whose time has come; true when there are more.
    pub(super) fn purge(&self, now: Tick, budget: usize, mut forgotten: impl FnMut(SessionKey)) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..budget {
            match queue.peek() {
                Some(Reverse((until, words))) if *until <= now => forgotten(SessionKey::from_words(*words)),
                _ => return false,
            }
            self.pop(&mut queue);
        }
        true
    }

    /// The ids remembered now.
    pub(super) fn keys(&self) -> Vec<SessionKey> {
        self.map.iter().map(|past| *past.key()).collect()
    }

    /// Ids, and entries of the queue.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.count.load(Relaxed), self.queue.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    fn insert(&self, key: SessionKey, past: Past) {
        self.count.fetch_add(1, Relaxed);
        self.lasting.fetch_add(usize::from(past.lasting), Relaxed);
        let before = self.map.insert(key, past);
        self.gone(before.map(|before| (key, before)));
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push(Reverse((past.until, key.words())));
        while queue.len() > 2 * MAX_PAST || self.count.load(Relaxed) > MAX_PAST {
            if !self.pop(&mut queue) {
                break;
            }
        }
    }

    /// Forgets the id that is to be forgotten first; false when there is none.
    fn pop(&self, queue: &mut Queue) -> bool {
        let Some(Reverse((until, words))) = queue.pop() else { return false };
        // Its time may have been set anew meanwhile; then another entry of the queue stands for it.
        self.gone(self.map.remove_if(&SessionKey::from_words(words), |_, past| past.until <= until));
        true
    }

    fn gone(&self, past: Option<(SessionKey, Past)>) {
        if let Some((_, past)) = past {
            self.count.fetch_sub(1, Relaxed);
            self.lasting.fetch_sub(usize::from(past.lasting), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> SessionKey {
        SessionKey::from_words([n; 4])
    }

    fn found(after: &Afterlife, n: u32, now: u32) -> Option<Kind> {
        after.find(key(n), Tick::new(now)).map(|past| past.kind)
    }

    #[test]
    fn an_id_is_forgotten_when_its_time_has_come() {
        let after = Afterlife::new();
        after.remember(key(1), Kind::Renamed(key(2)), Tick::new(10));
        assert_eq!(found(&after, 1, 9), Some(Kind::Renamed(key(2))));
        assert_eq!(found(&after, 1, 10), None);
        after.purge(Tick::new(10), 8, drop);
        assert!(after.is_empty());
    }

    #[test]
    fn a_longer_time_replaces_a_shorter() {
        let after = Afterlife::new();
        after.remember(key(1), Kind::Renamed(key(2)), Tick::new(10));
        after.remember(key(1), Kind::Renamed(key(3)), Tick::new(20));
        after.purge(Tick::new(15), 8, drop);
        assert_eq!(found(&after, 1, 15), Some(Kind::Renamed(key(3))));
    }

    #[test]
    fn it_remembers_no_more_than_the_bound() {
        let after = Afterlife::new();
        for n in 0..MAX_PAST as u32 + 100 {
            after.remember(key(n), Kind::Renamed(key(0)), Tick::new(n));
        }
        assert_eq!(after.len().0, MAX_PAST);
        assert_eq!(found(&after, 0, 0), None);
    }

    #[test]
    fn an_id_whose_time_was_lengthened_is_not_dropped_for_its_first_time() {
        let after = Afterlife::new();
        after.remember(key(0), Kind::Renamed(key(1)), Tick::new(1));
        after.remember(key(0), Kind::Renamed(key(1)), Tick::new(u32::MAX));
        for n in 1..MAX_PAST as u32 + 100 {
            after.remember(key(n), Kind::Renamed(key(1)), Tick::new(n));
        }
        assert_eq!(found(&after, 0, 0), Some(Kind::Renamed(key(1))));
    }

    #[test]
    fn what_lasts_does_not_displace_what_does_not() {
        let after = Afterlife::new();
        after.remember(key(0), Kind::Renamed(key(1)), Tick::new(10));
        for n in 1..MAX_PAST as u32 * 2 {
            after.remember_long(key(n), Kind::Renamed(key(0)), Tick::new(1_000), Tick::new(5));
        }
        assert_eq!(after.lasting.load(Relaxed), MAX_LASTING);
        assert_eq!(found(&after, 0, 6), Some(Kind::Renamed(key(1))));
        after.purge(Tick::new(1_000), usize::MAX, drop);
        assert_eq!((after.len(), after.lasting.load(Relaxed)), ((0, 0), 0));
    }
}
