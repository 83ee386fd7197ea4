//! What time does to sessions: live, retained, gone; and what ends them before their time.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    Affinity, EndReason, Member, SessionKey, Settings, Tick,
    expiry::{Entry, Wheel},
    table::{Binding, Flags, Keep},
};

/// When a binding changes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// From live to retained.
    pub(super) idle: Tick,
    /// From retained to gone.
    pub(super) gone: Tick,
}

/// The settings on which every [`Deadlines`] depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    session_timeout: Duration,
    ttl: Duration,
    max_ttl: Duration,
    max_age: Option<Duration>,
}

/// What a due binding turns into.
enum Turn {
    /// Not due after all: look again then.
    Later(Tick),
    /// Retained, and to be looked at again then.
    Retained(Tick),
    /// Live again, since the session timeout is longer now.
    Live(Tick),
    /// It has left the table.
    Gone,
    /// The entry is not the valid one.
    Stale,
}

/// What became of a retained session that was to make room.
enum Evicted {
    Yes,
    /// It is in use after all; its entry goes back.
    Later(Tick),
    /// The entry was not the valid one.
    Stale,
}

/// Entries of the wheel of retained sessions that are looked at to make room for one. More than a few
/// only if many sessions were used again since they were retained.
const MAX_EVICTION_LOOKS: usize = 1024;
/// Stale entries that a wheel may hold beside the valid ones before it is swept.
const STALE_SLACK: usize = 4096;
/// Entries swept per tick and wheel, and while a wheel is locked.
const SWEEP: usize = 1024;
const SWEEP_PORTION: usize = 128;
/// Ids forgotten per tick.
const PURGE: usize = 1024;

impl Affinity {
    /// Moves sessions along: live → retained → gone. Handles at most about `budget` of them; true when
    /// there is more to do, and it is to be called again soon.
    pub fn tick(&self, settings: &Settings, now: Tick, budget: usize) -> bool {
        self.heed(settings);
        let budget = budget.div_ceil(2);
        let more_live = self.turn(settings, &self.live, false, now, budget);
        let more_retained = self.turn(settings, &self.retained, true, now, budget);
        let more_past = self.after.purge(now, PURGE, |key| self.journal.changed(key))
            | self.aliases.purge(now, PURGE, |key| self.journal.changed(key));
        if self.counters.ghosts_wanted.swap(false, Relaxed) && self.ledger.has_uncounted() {
            self.drop_uncounted();
        }
        let more_stale = self.compact();
        more_live || more_retained || more_past || more_stale
    }

    /// Changes a binding that is not just being renamed; waits for one that is, which is a matter of
    /// two table operations, and finds none then.
    pub(super) fn alter<T>(
        &self,
        key: SessionKey,
        change: impl FnOnce(&mut Binding) -> (Keep, T),
    ) -> Option<T> {
        let mut change = Some(change);
        loop {
            let done = self.table.change(key, |binding| {
                match change.take_if(|_| !binding.flags.has(Flags::LEAVING)) {
                    Some(change) => {
                        let (keep, result) = change(binding);
                        (keep, Some(result))
                    }
                    None => (Keep::Yes, None),
                }
            })?;
            match done {
                Some(result) => return Some(result),
                None => std::thread::yield_now(),
            }
        }
    }

    /// Ends a session; none when there was none, or its time is not over, false for one that nobody
    /// counted any more.
    pub(super) fn end(
        &self,
        settings: &Settings,
        key: SessionKey,
        reason: EndReason,
        now: Tick,
    ) -> Option<bool> {
        self.alter(key, |binding| {
            if reason == EndReason::Expired && self.deadlines(settings, key, binding).gone > now {
                return (Keep::Yes, None);
            }
            if reason == EndReason::Logout {
                // Before it is gone: who looks in between must not take it for an unknown one.
                let until = now.after(settings.grace);
                self.after.remember(key, binding.home, until);
                self.aliases.ended(key, binding.home, until);
            }
            (Keep::No, Some(self.bury(key, binding, reason)))
        })
        .flatten()
    }

    /// Whether one more session fits; makes room if need be. Never at the cost of a live one.
    pub(super) fn make_room(&self, settings: &Settings, now: Tick) -> bool {
        if self.table.len() < settings.max_sessions.get() {
            return true;
        }
        // Sessions that nobody counts any more take up room as well. Sweeping them out takes longer than a
        // request should, so it is the tick's.
        self.counters.ghosts_wanted.store(true, Relaxed);
        let mut again = Vec::new();
        let mut found = false;
        for _ in 0..MAX_EVICTION_LOOKS {
            let Some(entry) = lock(&self.retained).earliest() else { break };
            let key = SessionKey::from_words(entry.key);
            match self.table.change(key, |binding| self.evict(settings, key, binding, &entry, now)) {
                Some(Evicted::Yes) => {
                    found = true;
                    break;
                }
                Some(Evicted::Later(due)) => again.push(Entry { due, ..entry }),
                Some(Evicted::Stale) | None => {}
            }
        }
        insert(&self.retained, again);
        found
    }

    /// A retained session was seen again.
    pub(super) fn revive(&self, settings: &Settings, key: SessionKey, now: Tick) {
        let revived = self.alter(key, |binding| {
            let due = self.first_due(settings, binding.created, now);
            (Keep::Yes, self.enliven(binding, due).then_some(due))
        });
        if let Some(Some(due)) = revived {
            self.schedule_live(key, due);
        }
    }

    /// Turns a retained binding live; true when that is to be scheduled.
    pub(super) fn enliven(&self, binding: &mut Binding, due: Tick) -> bool {
        let revived = binding.flags.has(Flags::RETAINED)
            && self.ledger.turned(binding.home, false, binding.last_seen());
        if revived {
            binding.flags.set(Flags::RETAINED, false);
            binding.due = due;
        }
        revived
    }

    /// Notes a sign of life, under at least a read lock of the binding's shard, so that nobody takes the
    /// binding out of its bucket in between; returns when it was seen before. `member` is its home's, if
    /// the caller has it at hand: without it this takes the ledger's lock.
    pub(super) fn sign_of_life(&self, binding: &Binding, member: Option<&Member>, now: Tick) -> Tick {
        let before = binding.touch(now);
        // A retained one is in no bucket, and one that is being renamed has left its own.
        if now > before && !binding.flags.has(Flags::RETAINED) && !binding.flags.has(Flags::LEAVING) {
            match member.filter(|member| member.generation() == binding.home.generation) {
                Some(member) => member.recency().touch(before, now),
                None => self.ledger.touched(binding.home, before, now),
            }
        }
        before
    }

    /// Notes a sign of life of a session that must be live after it.
    pub(super) fn touch_live(&self, settings: &Settings, key: SessionKey, now: Tick) {
        let retained = self.table.look(key, |binding| {
            self.sign_of_life(binding, None, now);
            binding.flags.has(Flags::RETAINED)
        });
        if retained == Some(true) {
            self.revive(settings, key, now);
        }
    }

    /// When a session that has just been seen is to be looked at again. A request may still hold the settings
    /// from before a reload; too early a look does no harm.
    pub(super) fn first_due(&self, settings: &Settings, created: Tick, now: Tick) -> Tick {
        let latest = Tick::new(now.get().saturating_add(self.timeout.load(Relaxed)));
        let idle = now.after(settings.session_timeout).min(latest).min(self.journal.next_look(now));
        settings.max_age.map_or(idle, |age| idle.min(created.after(age)))
    }

    pub(super) fn schedule_live(&self, key: SessionKey, due: Tick) {
        lock(&self.live).insert(Entry { key: key.words(), due });
    }

    /// When a binding turns. Consults what is rare about it only if there is anything.
    pub(super) fn deadlines(&self, settings: &Settings, key: SessionKey, binding: &Binding) -> Deadlines {
        let last = binding.last_seen();
        let mut ttl = settings.ttl;
        let mut held = false;
        if binding.flags.has(Flags::RARE) {
            let extra = self.rare.of(key);
            held = extra.held() > 0;
            ttl = ttl.max(extra.ttl.unwrap_or_default().min(settings.max_ttl));
        }
        let oldest = settings.max_age.map_or(Tick::NEVER, |age| binding.created.after(age));
        if held {
            return Deadlines { idle: Tick::NEVER, gone: oldest };
        }
        Deadlines { idle: last.after(settings.session_timeout), gone: last.after(ttl).min(oldest) }
    }

    fn turn(
        &self,
        settings: &Settings,
        wheel: &Mutex<Wheel>,
        retained: bool,
        now: Tick,
        budget: usize,
    ) -> bool {
        let mut due = Vec::with_capacity(budget);
        let more = {
            let mut wheel = lock(wheel);
            wheel.advance(now);
            wheel.pop(&mut due, budget);
            !wheel.ready_is_empty()
        };
        let mut again = Vec::new();
        let mut idle = Vec::new();
        let mut live = Vec::new();
        for entry in due {
            let key = SessionKey::from_words(entry.key);
            let turn = self.table.change(key, |binding| {
                if binding.due != entry.due
                    || binding.flags.has(Flags::RETAINED) != retained
                    || binding.flags.has(Flags::LEAVING)
                {
                    return (Keep::Yes, Turn::Stale);
                }
                self.turn_one(settings, key, binding, now)
            });
            match turn {
                Some(Turn::Later(due)) => again.push(Entry { due, ..entry }),
                Some(Turn::Retained(due)) => idle.push(Entry { due, ..entry }),
                Some(Turn::Live(due)) => live.push(Entry { due, ..entry }),
                Some(Turn::Gone | Turn::Stale) | None => {}
            }
        }
        insert(wheel, again);
        insert(&self.live, live);
        insert(&self.retained, idle);
        more
    }

    /// Under the lock of the binding's shard.
    fn turn_one(
        &self,
        settings: &Settings,
        key: SessionKey,
        binding: &mut Binding,
        now: Tick,
    ) -> (Keep, Turn) {
        let Deadlines { idle, gone } = self.deadlines(settings, key, binding);
        if gone <= now {
            self.bury(key, binding, EndReason::Expired);
            return (Keep::No, Turn::Gone);
        }
        // A held session is looked at once per timeout, so that the end of its stream is noticed.
        let soon = now.after(settings.session_timeout).min(self.journal.next_look(now));
        let next = idle.min(soon).min(gone);
        // A session that an open stream holds is in use all the time.
        let held = idle == Tick::NEVER;
        if held || (idle > now && self.journal.was_used(binding.last_seen(), binding.due)) {
            self.journal.touched(key);
        }
        let turn = match (binding.flags.has(Flags::RETAINED), idle > now) {
            (false, true) => Turn::Later(next),
            (true, false) => Turn::Later(gone),
            (false, false) if self.ledger.turned(binding.home, true, binding.last_seen()) => {
                binding.flags.set(Flags::RETAINED, true);
                Turn::Retained(gone)
            }
            (true, true) if self.enliven(binding, next) => Turn::Live(next),
            _ => {
                // A ghost.
                self.bury(key, binding, EndReason::Expired);
                return (Keep::No, Turn::Gone);
            }
        };
        if let Turn::Later(due) | Turn::Retained(due) | Turn::Live(due) = turn {
            binding.due = due;
        }
        (Keep::Yes, turn)
    }

    /// Under the lock of the binding's shard.
    fn evict(
        &self,
        settings: &Settings,
        key: SessionKey,
        binding: &mut Binding,
        entry: &Entry,
        now: Tick,
    ) -> (Keep, Evicted) {
        if !binding.flags.has(Flags::RETAINED)
            || binding.due != entry.due
            || binding.flags.has(Flags::LEAVING)
        {
            return (Keep::Yes, Evicted::Stale);
        }
        let Deadlines { idle, gone } = self.deadlines(settings, key, binding);
        if idle > now && gone > now {
            binding.due = gone;
            return (Keep::Yes, Evicted::Later(gone));
        }
        let reason = if gone <= now { EndReason::Expired } else { EndReason::Capacity };
        self.bury(key, binding, reason);
        (Keep::No, Evicted::Yes)
    }

    /// Settings that change deadlines apply to sessions that wait already: each is looked at again.
    fn heed(&self, settings: &Settings) {
        let timing = Timing {
            session_timeout: settings.session_timeout,
            ttl: settings.ttl,
            max_ttl: settings.max_ttl,
            max_age: settings.max_age,
        };
        let before = self.timing.lock().unwrap_or_else(PoisonError::into_inner).replace(timing);
        if before != Some(timing) {
            self.timeout.store(Tick::ZERO.after(settings.session_timeout).get(), Relaxed);
            lock(&self.live).recall();
            lock(&self.retained).recall();
        }
    }

    /// Books the end of a binding that is about to leave the table; false for one that nobody counts.
    fn bury(&self, key: SessionKey, binding: &Binding, reason: EndReason) -> bool {
        self.journal.changed(key);
        self.aliases.gone(key);
        if binding.flags.has(Flags::RARE) {
            self.rare.take(key);
        }
        if binding.flags.has(Flags::UNLEARNED) {
            self.counters.unlearned.fetch_sub(1, Relaxed);
        }
        let counted = self.ledger.ended(binding, reason);
        if counted && reason == EndReason::Expired {
            self.late.expired(key, binding.home, binding.last_seen());
        }
        counted
    }

    /// Drops the bindings of backends that have restarted or left since.
    fn drop_uncounted(&self) {
        self.table.sweep(|key, binding| {
            let keep = binding.flags.has(Flags::LEAVING) || self.ledger.counts(binding.home);
            if !keep {
                self.bury(key, binding, EndReason::Restarted);
            }
            keep
        });
    }

    /// Logins and logouts leave stale entries in the wheels; there are never many more than valid ones. A
    /// sweep drops half of what it looks at or more, so it keeps up with whatever makes them. True while
    /// one is under way.
    fn compact(&self) -> bool {
        let mut more = false;
        for (wheel, retained) in [(&self.live, false), (&self.retained, true)] {
            for left in (0..SWEEP / SWEEP_PORTION).rev() {
                let mut wheel = lock(wheel);
                if wheel.len() <= 2 * self.table.len() + STALE_SLACK {
                    break;
                }
                let valid = |entry: &Entry| {
                    let key = SessionKey::from_words(entry.key);
                    self.table.look(key, |binding| {
                        binding.due == entry.due && binding.flags.has(Flags::RETAINED) == retained
                    }) == Some(true)
                };
                if wheel.compact(valid, SWEEP_PORTION) {
                    break;
                }
                more |= left == 0;
            }
        }
        more
    }
}

pub(super) fn lock(wheel: &Mutex<Wheel>) -> MutexGuard<'_, Wheel> {
    wheel.lock().unwrap_or_else(PoisonError::into_inner)
}

fn insert(wheel: &Mutex<Wheel>, entries: Vec<Entry>) {
    if !entries.is_empty() {
        let mut wheel = lock(wheel);
        for entry in entries {
            wheel.insert(entry);
        }
    }
}
