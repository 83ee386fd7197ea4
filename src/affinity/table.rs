//! The affinity table: session key → home. Everything behind plain methods; no guard leaves this file.
//!
//! Lock order, for the whole core: a wheel, for its sweep → a shard of this table → a shard of
//! [`Rare`](super::rare), or of the [`Afterlife`](super::afterlife) → the [`Ledger`](super::ledger). Pins
//! are never locked together with any of them.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use dashmap::{DashMap, Entry};

use super::{KeyBuildHasher, Scope, SessionKey, Slot, Tick};

/// Where a session lives: a backend, and which instance of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) slot: Slot,
    pub(super) generation: u16,
}

/// One session. 20 bytes: five million of them must fit where others keep two.
#[derive(Debug)]
pub(super) struct Binding {
    /// Tick of the last request; written under a read lock, so that touching blocks nobody.
    last_seen: AtomicU32,
    /// When its one valid wheel entry is due; an entry with another time is stale.
    pub(super) due: Tick,
    pub(super) created: Tick,
    pub(super) home: Home,
    /// Which of the client's cookies holds its id.
    pub(super) scope: Scope,
    pub(super) flags: Flags,
}

/// What a binding is beside its home: a set of marks in one byte, which leaves room for the scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u8);

/// A copy of what a request needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) home: Home,
    pub(super) flags: Flags,
    pub(super) created: Tick,
    /// Last seen *before* this look.
    pub(super) last_seen: Tick,
}

#[derive(Debug)]
pub(super) struct Table {
    map: DashMap<SessionKey, Binding, KeyBuildHasher>,
    /// Entries, ghosts included; exact, unlike a sum over shards taken one after the other.
    entries: AtomicUsize,
}

/// Enough that growing one shard, or sweeping it, delays nobody for long.
const SHARDS: usize = 256;

// === impl Flags ===

impl Flags {
    /// Nothing of all that.
    pub(super) const NONE: Self = Self(0);
    /// Idle for longer than the session timeout. Its valid entry is in the wheel of retained ones.
    pub(super) const RETAINED: Self = Self(1);
    /// Bound because a backend accepted it, never set by one: counts against a quota.
    pub(super) const UNLEARNED: Self = Self(1 << 1);
    /// Something about it is kept in [`Rare`](super::rare).
    pub(super) const RARE: Self = Self(1 << 2);
    /// Being renamed: it is about to go, and the thread that set this is making its successor.
    pub(super) const LEAVING: Self = Self(1 << 3);

    pub(super) const fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    pub(super) fn set(&mut self, mark: Self, is: bool) {
        *self = self.with(mark, is);
    }

    pub(super) const fn with(self, mark: Self, is: bool) -> Self {
        Self(if is { self.0 | mark.0 } else { self.0 & !mark.0 })
    }
}

// === impl Binding ===

impl Binding {
    pub(super) fn new(home: Home, now: Tick, due: Tick, scope: Scope, flags: Flags) -> Self {
        Self { last_seen: AtomicU32::new(now.get()), due, created: now, home, scope, flags }
    }

    pub(super) fn last_seen(&self) -> Tick {
        Tick::new(self.last_seen.load(Relaxed))
    }

    /// Notes a sign of life; returns the one before. Signs may come out of order between threads.
    pub(super) fn touch(&self, now: Tick) -> Tick {
        Tick::new(self.last_seen.fetch_max(now.get(), Relaxed))
    }

    pub(super) fn seen(&self) -> Seen {
        Seen { home: self.home, flags: self.flags, created: self.created, last_seen: self.last_seen() }
    }
}

// === impl Table ===

impl Table {
    pub(super) fn new() -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(KeyBuildHasher, SHARDS),
            entries: AtomicUsize::new(0),
        }
    }

    /// Entries, ghosts included.
    pub(super) fn len(&self) -> usize {
        self.entries.load(Relaxed)
    }

    pub(super) fn contains(&self, key: SessionKey) -> bool {
        self.map.contains_key(&key)
    }

    /// Looks at a binding under a read lock; `look` must be short.
    pub(super) fn look<T>(&self, key: SessionKey, look: impl FnOnce(&Binding) -> T) -> Option<T> {
        self.map.get(&key).map(|binding| look(&binding))
    }

    /// Changes a binding under the write lock; `change` says whether it stays.
    pub(super) fn change<T>(
        &self,
        key: SessionKey,
        change: impl FnOnce(&mut Binding) -> (Keep, T),
    ) -> Option<T> {
        match self.map.entry(key) {
            Entry::Vacant(_) => None,
            Entry::Occupied(mut entry) => {
                let (keep, result) = change(entry.get_mut());
                if keep == Keep::No {
                    entry.remove();
                    self.entries.fetch_sub(1, Relaxed);
                }
                Some(result)
            }
        }
    }

    /// Gets or inserts: `occupied` if the key is bound, else `vacant`, which may decline.
    pub(super) fn upsert<T>(
        &self,
        key: SessionKey,
        occupied: impl FnOnce(&mut Binding) -> T,
        vacant: impl FnOnce() -> (Option<Binding>, T),
    ) -> T {
        self.upsert_with(key, &mut (), |(), binding| occupied(binding), |()| vacant())
    }

    /// The same, with something that both want.
    pub(super) fn upsert_with<C, T>(
        &self,
        key: SessionKey,
        context: &mut C,
        occupied: impl FnOnce(&mut C, &mut Binding) -> T,
        vacant: impl FnOnce(&mut C) -> (Option<Binding>, T),
    ) -> T {
        match self.map.entry(key) {
            Entry::Occupied(mut entry) => occupied(context, entry.get_mut()),
            Entry::Vacant(entry) => {
                let (binding, result) = vacant(context);
                if let Some(binding) = binding {
                    entry.insert(binding);
                    self.entries.fetch_add(1, Relaxed);
                }
                result
            }
        }
    }

    /// Drops what `keep` does not want; walks the whole table, one shard at a time.
    pub(super) fn sweep(&self, mut keep: impl FnMut(SessionKey, &Binding) -> bool) {
        let mut dropped = 0;
        self.map.retain(|key, binding| {
            let keeps = keep(*key, binding);
            dropped += usize::from(!keeps);
            keeps
        });
        self.entries.fetch_sub(dropped, Relaxed);
    }

    /// The keys of all bindings, ghosts included.
    pub(super) fn keys(&self) -> Vec<SessionKey> {
        let mut keys = Vec::with_capacity(self.len());
        keys.extend(self.map.iter().map(|entry| *entry.key()));
        keys
    }

    /// Shows bindings one after the other, a shard locked for reading at a time, until `look` is false.
    pub(super) fn each(&self, mut look: impl FnMut(SessionKey, &Binding) -> bool) {
        for entry in &self.map {
            if !look(*entry.key(), entry.value()) {
                return;
            }
        }
    }
}

/// Whether a binding stays in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_small() {
        assert!(size_of::<(SessionKey, Binding)>() <= 36, "{}", size_of::<(SessionKey, Binding)>());
    }
}
