//! Which sessions Redis has yet to be told of, and which it knows just as they are.
//!
//! Both hold keys, not changes: what is told is what is known by then.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    mem,
    sync::{Mutex, PoisonError},
};

use crate::{affinity::SessionKey, store::Entry, world::Pool};

/// A session of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pool: u64,
    pub(super) key: SessionKey,
}

/// Sessions that Redis has yet to be told of, oldest first, each once.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Subject>,
    known: HashSet<Subject>,
    /// There were more than fit.
    overflowed: bool,
}

/// What Redis knows for sure, so that what a request has told is not told again a moment later. Forgets
/// after a while: then a session is told of once more, no worse.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    new: HashMap<Subject, u64>,
    old: HashMap<Subject, u64>,
}

/// Sessions that wait to be told.
const MAX_PENDING: usize = 100_000;
/// Sessions in one generation of [`Recent`].
const MAX_RECENT: usize = 32_768;

// === impl Subject ===

impl Subject {
    pub(super) fn new(pool: &Pool, key: SessionKey) -> Self {
        Self { pool: hash(&pool.name), key }
    }

    /// Whether it is of this pool.
    pub(super) fn is_of(self, pool: &Pool) -> bool {
        self.pool == hash(&pool.name)
    }
}

// === impl Pending ===

impl Pending {
    /// Adds one, unless it waits already. When there is no room, all are dropped, and everything is to be
    /// looked at instead.
    pub(super) fn push(&mut self, subject: Subject) {
        if self.known.len() >= MAX_PENDING {
            self.queue = VecDeque::new();
            self.known = HashSet::new();
            self.overflowed = true;
        }
        if self.known.insert(subject) {
            self.queue.push_back(subject);
        }
    }

    /// Takes the oldest ones.
    pub(super) fn take(&mut self, most: usize) -> Vec<Subject> {
        let taken: Vec<_> = self.queue.drain(..most.min(self.queue.len())).collect();
        for subject in &taken {
            self.known.remove(subject);
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there were too many since this was last asked.
    pub(super) const fn take_overflowed(&mut self) -> bool {
        mem::replace(&mut self.overflowed, false)
    }
}

// === impl Recent ===

impl Recent {
    /// Redis knows this of the session.
    pub(super) fn note(&self, subject: Subject, entry: &Entry) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.new.len() >= MAX_RECENT {
            generations.old = mem::take(&mut generations.new);
        }
        generations.new.insert(subject, digest(entry));
    }

    /// Whether Redis knows this of the session, as far as is remembered.
    pub(super) fn knows(&self, subject: Subject, entry: &Entry) -> bool {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = generations.new.get(&subject).or_else(|| generations.old.get(&subject));
        known == Some(&digest(entry))
    }

    /// What Redis knows is not sure any more.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Generations::default();
    }
}

/// Whether both lead a request to the same place.
pub(super) fn agree(one: &Entry, other: &Entry) -> bool {
    match (one, other) {
        (Entry::Session(one), Entry::Session(other)) => {
            (&one.home, one.instance) == (&other.home, other.instance)
        }
        _ => digest(one) == digest(other),
    }
}

/// Of all that matters but times of use: those are told on their own.
fn digest(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    match entry {
        Entry::Session(session) => {
            // Not since when: a tick's wall-clock time is only known to a tick.
            (0, &session.home, session.instance, session.ttl, session.unlearned, session.scope.to_bits())
                .hash(&mut hasher);
        }
        Entry::Renamed { to, .. } => (1, to).hash(&mut hasher),
        Entry::Ended { home, .. } => (2, home).hash(&mut hasher),
        Entry::Gone => 3.hash(&mut hasher),
    }
    hasher.finish()
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{key, session};

    fn subject(number: u32) -> Subject {
        Subject { pool: 1, key: key(number) }
    }

    #[test]
    fn each_waits_once_and_in_order() {
        let mut pending = Pending::default();
        for number in [1, 2, 1, 3, 2] {
            pending.push(subject(number));
        }
        assert_eq!(pending.take(2), [subject(1), subject(2)]);
        pending.push(subject(1));
        assert_eq!(pending.take(9), [subject(3), subject(1)]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn too_many_are_dropped_and_everything_is_to_be_looked_at() {
        let mut pending = Pending::default();
        for number in 0..MAX_PENDING as u32 {
            pending.push(subject(number));
        }
        assert!(!pending.take_overflowed());
        pending.push(subject(u32::MAX));
        assert!(pending.take_overflowed());
        assert!(!pending.take_overflowed(), "told once");
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn what_redis_knows_is_remembered_for_two_generations() {
        let recent = Recent::default();
        recent.note(subject(0), &session("app-1"));
        assert!(recent.knows(subject(0), &session("app-1")), "times of use do not matter");
        assert!(!recent.knows(subject(0), &session("app-2")));
        assert!(!recent.knows(subject(0), &Entry::Gone));
        for number in 1..=MAX_RECENT as u32 {
            recent.note(subject(number), &Entry::Gone);
        }
        assert!(recent.knows(subject(0), &session("app-1")));
        for number in 1..=2 * MAX_RECENT as u32 {
            recent.note(subject(number), &Entry::Gone);
        }
        assert!(!recent.knows(subject(0), &session("app-1")));
        let generations = recent.0.lock().unwrap();
        assert!(generations.new.len() + generations.old.len() <= 2 * MAX_RECENT);
    }
}
