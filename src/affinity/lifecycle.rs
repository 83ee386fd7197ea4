//! What time does to sessions: live, retained, gone; and what ends them before their time.

use std::sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed};

use super::{
    Affinity, EndReason, SessionKey, Settings, Tick,
    expiry::{Entry, Wheel},
    settle::first_due,
    table::{Binding, Keep},
};

/// When a binding changes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// From live to retained.
    pub(super) idle: Tick,
    /// From retained to gone.
    pub(super) gone: Tick,
}

/// What a due binding turns into.
enum Turn {
    /// Not due after all: look again then.
    Later(Tick),
    /// Retained, and to be looked at again then.
    Retained(Tick),
    Gone,
    /// Nobody counts it; it has left the table.
    Ghost,
    /// The entry is not the valid one.
    Stale,
}

/// Entries of the wheel of retained sessions that are looked at to make room for one.
const MAX_EVICTION_LOOKS: usize = 64;
/// Stale entries that a wheel may hold beside the valid ones before it is swept.
const STALE_SLACK: usize = 4096;
/// Entries swept per tick.
const SWEEP: usize = 8192;
/// Ids forgotten per tick.
const PURGE: usize = 8192;

impl Affinity {
    /// Moves sessions along: live → retained → gone. Handles at most about `budget` of them; true when
    /// more are due, and it is to be called again soon.
    pub fn tick(&self, settings: &Settings, now: Tick, budget: usize) -> bool {
        let more_live = self.turn(settings, &self.live, false, now, budget / 2);
        let more_retained = self.turn(settings, &self.retained, true, now, budget / 2);
        self.after.purge(now, PURGE);
        if self.counters.ghosts_wanted.swap(false, Relaxed) {
            self.drop_ghosts();
        }
        self.compact();
        more_live || more_retained
    }

    /// Ends a session; false when there was none, or only a ghost of one.
    pub(super) fn end(&self, settings: &Settings, key: SessionKey, reason: EndReason, now: Tick) -> bool {
        self.table
            .change(key, |binding| {
                if reason == EndReason::Expired && self.deadlines(settings, key, binding).gone > now {
                    return (Keep::Yes, false);
                }
                (Keep::No, self.bury(key, binding, reason))
            })
            .unwrap_or(false)
    }

    /// Whether one more session fits; makes room if need be. Never at the cost of a live one.
    pub(super) fn make_room(&self, settings: &Settings, now: Tick) -> bool {
        if self.table.len() < settings.max_sessions.get() {
            return true;
        }
        let mut oldest = Vec::with_capacity(1);
        for _ in 0..MAX_EVICTION_LOOKS {
            oldest.clear();
            if lock(&self.retained).earliest(&mut oldest, 1) == 0 {
                break;
            }
            let Some(entry) = oldest.pop() else { break };
            let key = SessionKey::from_words(entry.key);
            let evicted = self.table.change(key, |binding| {
                if !binding.flags.retained || binding.due != entry.due || binding.flags.leaving {
                    return (Keep::Yes, false);
                }
                let reason = match self.deadlines(settings, key, binding).gone <= now {
                    true => EndReason::Expired,
                    false => EndReason::Capacity,
                };
                self.bury(key, binding, reason);
                (Keep::No, true)
            });
            if evicted == Some(true) {
                return true;
            }
        }
        // The rest is the control thread's: a sweep takes longer than a request should.
        self.counters.ghosts_wanted.store(true, Relaxed);
        false
    }

    /// A retained session was seen again.
    pub(super) fn revive(&self, settings: &Settings, key: SessionKey, now: Tick) {
        let due = first_due(settings, now);
        let revived = self.table.change(key, |binding| {
            let revived = binding.flags.retained
                && !binding.flags.leaving
                && self.ledger.turned(binding.home, false, binding.last_seen());
            if revived {
                binding.flags.retained = false;
                binding.due = due;
            }
            (Keep::Yes, revived)
        });
        if revived == Some(true) {
            self.schedule_live(key, due);
        }
    }

    /// Notes a sign of life.
    pub(super) fn touch(&self, key: SessionKey, now: Tick) {
        self.table.change(key, |binding| {
            let before = binding.touch(now);
            if !binding.flags.retained {
                self.ledger.touched(binding.home, before, now);
            }
            (Keep::Yes, ())
        });
    }

    /// Notes a sign of life of a session that must be live after it.
    pub(super) fn touch_live(&self, settings: &Settings, key: SessionKey, now: Tick) {
        self.touch(key, now);
        self.revive(settings, key, now);
    }

    pub(super) fn schedule_live(&self, key: SessionKey, due: Tick) {
        lock(&self.live).insert(Entry { key: key.words(), due });
    }

    /// When a binding turns. Consults what is rare about it only if there is anything.
    pub(super) fn deadlines(&self, settings: &Settings, key: SessionKey, binding: &Binding) -> Deadlines {
        let mut last = binding.last_seen();
        let mut ttl = settings.ttl;
        let mut held = false;
        if binding.flags.rare {
            let extra = self.rare.of(key);
            let (open, ended) = extra.held();
            held = open > 0;
            last = last.max(ended);
            ttl = ttl.max(extra.ttl.unwrap_or_default());
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
        for entry in due {
            let key = SessionKey::from_words(entry.key);
            let turn = self.table.change(key, |binding| {
                if binding.due != entry.due || binding.flags.retained != retained || binding.flags.leaving {
                    return (Keep::Yes, Turn::Stale);
                }
                self.turn_one(settings, key, binding, now)
            });
            match turn {
                Some(Turn::Later(due)) => again.push(Entry { due, ..entry }),
                Some(Turn::Retained(due)) => idle.push(Entry { due, ..entry }),
                Some(Turn::Gone | Turn::Ghost | Turn::Stale) | None => {}
            }
        }
        insert(wheel, again);
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
            let counted = self.bury(key, binding, EndReason::Expired);
            return (Keep::No, if counted { Turn::Gone } else { Turn::Ghost });
        }
        if binding.flags.retained {
            binding.due = gone;
            return (Keep::Yes, Turn::Later(gone));
        }
        if idle > now {
            // A held session is looked at once per timeout, so that the end of its stream is noticed.
            binding.due = idle.min(now.after(settings.session_timeout)).min(gone);
            return (Keep::Yes, Turn::Later(binding.due));
        }
        if !self.ledger.turned(binding.home, true, binding.last_seen()) {
            self.bury(key, binding, EndReason::Expired);
            return (Keep::No, Turn::Ghost);
        }
        binding.flags.retained = true;
        binding.due = gone;
        (Keep::Yes, Turn::Retained(gone))
    }

    /// Books the end of a binding that is about to leave the table; false for a ghost.
    fn bury(&self, key: SessionKey, binding: &Binding, reason: EndReason) -> bool {
        if binding.flags.rare {
            self.rare.take(key);
        }
        if binding.flags.unlearned {
            self.counters.unlearned.fetch_sub(1, Relaxed);
        }
        let counted = self.ledger.ended(binding, reason);
        if counted && reason == EndReason::Expired {
            self.late.expired(key, binding.home, binding.last_seen());
        }
        counted
    }

    /// Drops the bindings of backends that have restarted since.
    fn drop_ghosts(&self) {
        self.table.sweep(|key, binding| {
            let alive = self.ledger.knows(binding.home) || binding.flags.leaving;
            if !alive {
                self.bury(key, binding, EndReason::Restarted);
            }
            alive
        });
    }

    /// Logins and logouts leave stale entries in the wheels; there are never many more than valid ones.
    fn compact(&self) {
        for (wheel, retained) in [(&self.live, false), (&self.retained, true)] {
            let mut wheel = lock(wheel);
            if wheel.len() > 2 * self.table.len() + STALE_SLACK {
                wheel.compact(
                    |entry| {
                        let key = SessionKey::from_words(entry.key);
                        self.table.look(key, |binding| {
                            binding.due == entry.due && binding.flags.retained == retained
                        }) == Some(true)
                    },
                    SWEEP,
                );
            }
        }
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
