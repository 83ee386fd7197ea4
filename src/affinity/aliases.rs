//! Ids that were replaced, and the session that each of them leads to.
//!
//! Only the client knows which of the ids it was given it kept, so a replaced id leads to its session for as
//! long as the session itself would live without use. A session has one [`Name`], which all of its replaced
//! ids share: a rename changes the name and no id, so the way to the session is as long for the first of a
//! thousand ids as for the last.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use dashmap::{DashMap, Entry};

use super::{KeyBuildHasher, SessionKey, Tick, afterlife::Kind, due::Due, table::Home};

#[derive(Debug)]
pub(super) struct Aliases {
    /// Replaced ids.
    map: DashMap<SessionKey, Alias, KeyBuildHasher>,
    /// The names of sessions that have replaced ids, by the session's key. No more of them than `map` has
    /// entries: the last id of a name takes it along.
    names: DashMap<SessionKey, Names, KeyBuildHasher>,
    count: AtomicUsize,
    /// When to forget which.
    due: Due,
}

#[derive(Clone, Debug)]
struct Alias {
    name: Arc<Name>,
    until: Tick,
}

/// Where the ids that share it lead.
#[derive(Debug)]
struct Name(Mutex<Leads>);

#[derive(Clone, Copy, Debug)]
enum Leads {
    /// To the session with this key.
    To(SessionKey),
    /// Its session ended there, which matters until then.
    Ended(Home, Tick),
    /// Its session expired, or made room.
    Nowhere,
}

/// The names of one session; more than one when sessions became one.
#[derive(Debug)]
enum Names {
    One(Arc<Name>),
    #[expect(clippy::box_collection, reason = "rare, and the common case is half as large")]
    Many(Box<Vec<Arc<Name>>>),
}

/// Names of one session; ids of older ones are forgotten.
const MAX_NAMES: usize = 64;
/// Replaced ids that a small table remembers.
const MIN_ALIASES: usize = 4096;
const SHARDS: usize = 64;

// === impl Aliases ===

impl Aliases {
    pub(super) fn new() -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(KeyBuildHasher, SHARDS),
            names: DashMap::with_hasher_and_shard_amount(KeyBuildHasher, SHARDS),
            count: AtomicUsize::new(0),
            due: Due::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Where a replaced id leads, and until when that is remembered.
    pub(super) fn find(&self, key: SessionKey, now: Tick) -> Option<(Kind, Tick)> {
        if self.is_empty() {
            return None;
        }
        let alias = self.map.get(&key)?;
        if alias.until <= now {
            return None;
        }
        match *alias.name.leads() {
            Leads::To(session) => Some((Kind::Renamed(session), alias.until)),
            Leads::Ended(home, until) if until > now => Some((Kind::Ended(home), until)),
            Leads::Ended(..) | Leads::Nowhere => None,
        }
    }

    /// The session with the key `old` has the key `new`: `old`, and all ids that led to it, lead there from
    /// now on. `old` is remembered until then, at most `capacity` ids are. Sessions that have one key now have
    /// one way there.
    pub(super) fn rename(&self, old: SessionKey, new: SessionKey, until: Tick, capacity: usize) {
        let names = match self.names.remove(&old) {
            Some((_, names)) => names,
            None => Names::One(Arc::new(Name(Mutex::new(Leads::To(new))))),
        };
        for name in names.as_slice() {
            *name.leads() = Leads::To(new);
        }
        let name = Arc::clone(&names.as_slice()[0]);
        match self.names.entry(new) {
            Entry::Vacant(entry) => {
                entry.insert(names);
            }
            Entry::Occupied(mut entry) => entry.get_mut().join(names),
        }
        self.forget(new);
        self.insert(old, Alias { name, until }, capacity.max(MIN_ALIASES));
    }

    /// A replaced id was used: it is remembered until then.
    pub(super) fn prolong(&self, key: SessionKey, until: Tick, capacity: usize) {
        let known = self.map.get_mut(&key).map(|mut alias| alias.until = alias.until.max(until));
        if known.is_some() {
            self.enqueue(key, until, capacity.max(MIN_ALIASES));
        }
    }

    /// The session ended there; its ids lead home until then.
    pub(super) fn ended(&self, session: SessionKey, home: Home, until: Tick) {
        self.conclude(session, Leads::Ended(home, until));
    }

    /// The session is gone; its ids lead nowhere.
    pub(super) fn gone(&self, session: SessionKey) {
        self.conclude(session, Leads::Nowhere);
    }

    /// The id is that of a session (again).
    pub(super) fn forget(&self, key: SessionKey) {
        if !self.is_empty() {
            self.dropped(self.map.remove(&key));
        }
    }

    /// Forgets at most `budget` ids whose time has come; true when there are more.
    pub(super) fn purge(&self, now: Tick, budget: usize, mut forgotten: impl FnMut(SessionKey)) -> bool {
        self.due.take(now, budget, |key, until| {
            forgotten(key);
            self.forget_at(key, until);
        })
    }

    /// The replaced ids.
    pub(super) fn keys(&self) -> Vec<SessionKey> {
        self.map.iter().map(|alias| *alias.key()).collect()
    }

    /// Ids, names and entries of the queue.
    pub(super) fn len(&self) -> (usize, usize, usize) {
        (self.count.load(Relaxed), self.names.len(), self.due.len())
    }

    fn conclude(&self, session: SessionKey, leads: Leads) {
        if let Some((_, names)) = self.names.remove(&session) {
            for name in names.as_slice() {
                *name.leads() = leads;
            }
        }
    }

    fn insert(&self, key: SessionKey, alias: Alias, capacity: usize) {
        self.count.fetch_add(1, Relaxed);
        let until = alias.until;
        let before = self.map.insert(key, alias);
        self.dropped(before.map(|before| (key, before)));
        self.enqueue(key, until, capacity);
    }

    fn enqueue(&self, key: SessionKey, until: Tick, capacity: usize) {
        let full = || self.count.load(Relaxed) > capacity;
        self.due.push(key, until, capacity.saturating_mul(2), full, |key, until| self.forget_at(key, until));
    }

    /// Forgets an id unless it has been used since; then another entry of the queue stands for it.
    fn forget_at(&self, key: SessionKey, until: Tick) {
        self.dropped(self.map.remove_if(&key, |_, alias| alias.until <= until));
    }

    fn dropped(&self, alias: Option<(SessionKey, Alias)>) {
        let Some((_, alias)) = alias else { return };
        self.count.fetch_sub(1, Relaxed);
        let leads = *alias.name.leads();
        // Before it is counted who has the name: of two threads that drop its last ids, the second one sees it.
        drop(alias);
        if let Leads::To(session) = leads {
            self.names.remove_if_mut(&session, |_, names| names.tidy());
        }
    }
}

// === impl Name ===

impl Name {
    fn leads(&self) -> MutexGuard<'_, Leads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Names ===

impl Names {
    fn as_slice(&self) -> &[Arc<Name>] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }

    /// Two sessions became one.
    fn join(&mut self, other: Self) {
        let mut all: Vec<Arc<Name>> = other.as_slice().iter().chain(self.as_slice()).cloned().collect();
        for old in all.drain(MAX_NAMES.min(all.len())..) {
            *old.leads() = Leads::Nowhere;
        }
        *self = Self::Many(Box::new(all));
    }

    /// Takes names out that no id has; true when none is left.
    fn tidy(&mut self) -> bool {
        match self {
            Self::One(own) => Arc::strong_count(own) == 1,
            Self::Many(names) => {
                names.retain(|own| Arc::strong_count(own) > 1);
                names.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::Slot;

    const HOME: Home = Home { slot: Slot::new(3), generation: 1 };

    fn key(n: u32) -> SessionKey {
        SessionKey::from_words([n; 4])
    }

    fn rename(aliases: &Aliases, old: u32, new: u32, until: u32) {
        aliases.rename(key(old), key(new), Tick::new(until), 0);
    }

    fn leads(aliases: &Aliases, n: u32, now: u32) -> Option<Kind> {
        aliases.find(key(n), Tick::new(now)).map(|(kind, _)| kind)
    }

    fn to(n: u32) -> Option<Kind> {
        Some(Kind::Renamed(key(n)))
    }

    fn assert_empty(aliases: &Aliases) {
        assert!(aliases.is_empty());
        assert_eq!((aliases.len().0, aliases.len().1), (0, 0));
    }

    #[test]
    fn every_id_of_a_long_chain_leads_to_its_head() {
        let aliases = Aliases::new();
        for n in 0..2_000 {
            rename(&aliases, n, n + 1, 10);
        }
        assert!((0..2_000).all(|n| leads(&aliases, n, 9) == to(2_000)));
        assert_eq!((leads(&aliases, 2_000, 9), aliases.len().1), (None, 1));
        aliases.purge(Tick::new(10), usize::MAX, drop);
        assert_empty(&aliases);
    }

    #[test]
    fn an_id_that_is_used_is_remembered_longer_than_the_others() {
        let aliases = Aliases::new();
        rename(&aliases, 1, 2, 10);
        rename(&aliases, 2, 3, 10);
        aliases.prolong(key(1), Tick::new(20), 0);
        aliases.purge(Tick::new(15), usize::MAX, drop);
        assert_eq!((leads(&aliases, 1, 15), leads(&aliases, 2, 15)), (to(3), None));
        aliases.purge(Tick::new(20), usize::MAX, drop);
        assert_empty(&aliases);
    }

    #[test]
    fn an_id_is_that_of_its_session_again() {
        let aliases = Aliases::new();
        rename(&aliases, 1, 2, 10);
        rename(&aliases, 2, 1, 10);
        assert_eq!((leads(&aliases, 1, 5), leads(&aliases, 2, 5)), (None, to(1)));
        aliases.forget(key(2));
        assert_empty(&aliases);
    }

    #[test]
    fn ids_of_two_sessions_that_became_one_lead_to_it() {
        let aliases = Aliases::new();
        rename(&aliases, 1, 2, 10);
        rename(&aliases, 11, 12, 10);
        rename(&aliases, 2, 12, 10);
        assert!([1, 2, 11].iter().all(|&n| leads(&aliases, n, 5) == to(12)));
        rename(&aliases, 12, 13, 10);
        assert!([1, 2, 11, 12].iter().all(|&n| leads(&aliases, n, 5) == to(13)));
        aliases.purge(Tick::new(10), usize::MAX, drop);
        assert_empty(&aliases);
    }

    #[test]
    fn sessions_that_become_one_again_and_again_are_bounded() {
        let aliases = Aliases::new();
        for n in 0..1_000 {
            rename(&aliases, 2 * n, 2 * n + 1, 10);
            rename(&aliases, 2 * n + 1, 1_000_000, 10);
        }
        assert_eq!(leads(&aliases, 0, 5), None);
        assert_eq!(leads(&aliases, 1_998, 5), to(1_000_000));
        aliases.purge(Tick::new(10), usize::MAX, drop);
        assert_empty(&aliases);
    }

    #[test]
    fn all_ids_of_a_session_know_that_it_ended() {
        let aliases = Aliases::new();
        rename(&aliases, 1, 2, 100);
        rename(&aliases, 2, 3, 100);
        aliases.ended(key(3), HOME, Tick::new(10));
        assert!([1, 2].iter().all(|&n| leads(&aliases, n, 9) == Some(Kind::Ended(HOME))));
        assert!([1, 2].iter().all(|&n| leads(&aliases, n, 10).is_none()));
        // Another session that gets the key is not theirs.
        rename(&aliases, 3, 4, 100);
        assert_eq!((leads(&aliases, 1, 10), leads(&aliases, 3, 10)), (None, to(4)));
    }

    #[test]
    fn ids_of_a_session_that_is_gone_lead_nowhere() {
        let aliases = Aliases::new();
        rename(&aliases, 1, 2, 100);
        aliases.gone(key(2));
        assert_eq!(leads(&aliases, 1, 9), None);
        aliases.purge(Tick::new(100), usize::MAX, drop);
        assert_empty(&aliases);
    }

    #[test]
    fn it_remembers_no_more_than_the_bound_and_the_latest() {
        let aliases = Aliases::new();
        let most = MIN_ALIASES as u32;
        for n in 0..most + 100 {
            rename(&aliases, n, n + 1_000_000, n + 1_000);
        }
        assert_eq!((aliases.len().0, aliases.len().1), (MIN_ALIASES, MIN_ALIASES));
        assert_eq!((leads(&aliases, 0, 0), leads(&aliases, 99, 0)), (None, None));
        assert_eq!(leads(&aliases, 100, 0), to(1_000_100));
    }
}
