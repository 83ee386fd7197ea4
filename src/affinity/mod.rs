//! Which backend owns which session: the pure core of the product.
//!
//! Nothing in here does I/O, spawns, reads a clock or draws random numbers of its own: time and
//! randomness are arguments, requests and answers are borrowed bytes. It imports nothing of ours but
//! itself, so a simulation can drive all of it.
//!
//! A request is decided in `decide` ([`Affinity::choose`]) and settled in `settle`
//! ([`Affinity::settle`]) before the head of its answer goes on. Bindings live in `table`, are counted in
//! `ledger`, and are moved along by `lifecycle` ([`Affinity::tick`]).
//!
//! Invariants, which `tests/simulation.rs` checks after each step: a live session whose home serves is
//! never sent elsewhere; the sum of live and retained sessions over backends is the number of entries,
//! and learned + restored - ended is that number, at every reading; nothing grows without bound; every
//! session ends exactly once.

mod afterlife;
mod aliases;
mod bind;
mod carried;
mod cookie_date;
mod decide;
mod due;
mod expiry;
mod explain;
mod journal;
mod key;
mod late;
mod ledger;
mod lifecycle;
mod member;
mod pins;
mod placement;
mod portable;
mod rare;
mod recency;
mod rename;
mod rendezvous;
mod roster;
mod scope;
mod sealed;
mod session_id;
mod set_cookie;
mod settings;
mod settle;
mod sources;
mod table;
mod target_id;
mod tick;
mod verdict;
mod vouch;
mod watch;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use self::{
    afterlife::Afterlife,
    aliases::Aliases,
    expiry::Wheel,
    late::Late,
    ledger::Ledger,
    lifecycle::{Timing, lock},
    pins::Pins,
    placement::Turns,
    rare::Rare,
    table::Table,
};
pub use self::{
    decide::{Ask, Claim, Decision},
    explain::{BackendStats, Explanation, Known, Stats},
    journal::{Journal, Notes},
    key::{Fingerprint, KeyBuildHasher, KeyHasher, KeyTableHasher, SessionKey},
    member::{Admin, Left, Member, Slot},
    portable::{Absorbed, MAX_ABSENT, Record, Rule, Trace},
    rare::Move,
    roster::Roster,
    scope::{Scope, Target},
    sealed::{Life, Sealer, SealingKey, Token, TokenId, Unsealed},
    session_id::{Carrier, Keys, value_if_named},
    set_cookie::{Answerer, Effect, Effects, Exchange},
    settings::{Balance, KeySource, OnDown, OnUnknown, PathPattern, Settings},
    settle::{Answer, Change, Settled},
    sources::KeySources,
    target_id::{values_in_path, values_in_query},
    tick::Tick,
    verdict::{EndReason, MoveReason, Reason, Verdict},
    watch::{ENOUGH, Stranger, Watch},
};

/// All affinity state of one pool; shared by every worker, kept by every reload.
pub struct Affinity {
    /// Session key → home. Written by requests and by the tick.
    table: Table,
    /// What few bindings have beside their home.
    rare: Rare,
    /// When live sessions turn retained, and retained ones go.
    live: Mutex<Wheel>,
    retained: Mutex<Wheel>,
    /// The settings by which the wheels' entries fall due.
    timing: Mutex<Option<Timing>>,
    /// Its session timeout in ticks.
    timeout: AtomicU32,
    /// The truth about counts.
    ledger: Ledger,
    /// Requests under way with a key that has no home.
    pins: Pins,
    /// Replaced ids.
    aliases: Aliases,
    /// Ids whose session ended a moment ago.
    after: Afterlife,
    /// Sessions that expired not long ago.
    late: Late,
    /// The backends, by name: those of the latest roster, and earlier ones that still have sessions in the
    /// table or whose slot nobody else needed yet.
    names: Mutex<HashMap<Box<str>, Arc<Member>>>,
    /// For placing.
    turns: Turns,
    /// For those who keep or share bindings outside the process.
    journal: Journal,
    /// What responses set.
    watch: Watch,
    counters: Counters,
}

/// Counts of events that change no session.
#[derive(Debug, Default)]
struct Counters {
    ambiguous: AtomicU64,
    late: AtomicU64,
    /// Seconds that the latest of the late ones was idle.
    latest: AtomicU64,
    full: AtomicU64,
    over_quota: AtomicU64,
    unlearned: AtomicUsize,
    long_cookies: AtomicU64,
    /// Seconds that the longest of them lasts.
    longest_cookie: AtomicU64,
    /// The table is full, and ghosts in it may be the reason.
    ghosts_wanted: AtomicBool,
}

// === impl Affinity ===

impl Affinity {
    /// An empty table.
    pub fn new(now: Tick) -> Self {
        Self {
            table: Table::new(),
            rare: Rare::new(),
            live: Mutex::new(Wheel::new(now)),
            retained: Mutex::new(Wheel::new(now)),
            timing: Mutex::default(),
            timeout: AtomicU32::new(u32::MAX),
            ledger: Ledger::default(),
            pins: Pins::new(),
            aliases: Aliases::new(),
            after: Afterlife::new(),
            late: Late::default(),
            names: Mutex::default(),
            turns: Turns::default(),
            journal: Journal::default(),
            watch: Watch::new(),
            counters: Counters::default(),
        }
    }

    /// What responses set.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The roster for a list of backends (name and weight). Members are reused by name; the sessions of
    /// names that left end (`removed`), and are restored when the name comes back. A name that joins later
    /// than the first ones starts slowly.
    pub fn roster(&self, backends: &[(&str, u32)], session_timeout: Duration, now: Tick) -> Roster {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let running = !names.is_empty();
        // First of all, so that no newcomer gets the slot of one that comes back.
        for (name, _) in backends {
            if let Some(member) = names.get(*name).filter(|member| member.name() == *name) {
                self.ledger.retire(member.slot(), false);
            }
        }
        let mut members: Vec<Arc<Member>> = Vec::with_capacity(backends.len());
        for &(name, weight) in backends {
            // Not one that had this name until it was renamed.
            if let Some(member) = names.get(name).filter(|member| member.name() == name) {
                member.configure_weight(weight);
                member.recency().retime(Tick::ZERO.after(session_timeout).get(), now);
                members.push(Arc::clone(member));
                continue;
            }
            let (member, earlier) = self.ledger.open(|slot, generation| {
                Arc::new(Member::of_generation(generation, name, slot, weight, session_timeout))
            });
            if let Some(earlier) = earlier {
                names.retain(|_, member| !Arc::ptr_eq(member, &earlier));
            }
            if running {
                member.start_ramp(now);
            }
            names.insert(name.into(), Arc::clone(&member));
            members.push(member);
        }
        let roster = Roster::new(members);
        for member in names.values() {
            self.ledger.retire(member.slot(), roster.index_of(member.slot()).is_none());
        }
        roster
    }

    /// Backends have other names from now on (the old one first), and keep their sessions. What another process says
    /// of an old name is understood until another backend has it.
    pub fn rename_members(&self, renames: &[(&str, &str)], now: Tick) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut renamed = Vec::with_capacity(renames.len());
        // All old names are free before the first new one is given: two may be swapped.
        for &(old, new) in renames {
            if let Some(member) = names.get(old).filter(|member| member.name() == old).cloned() {
                names.remove(old);
                renamed.push((member, old, new));
            }
        }
        renamed.retain(|(member, old, new)| {
            let done = member.rename(new);
            let name = if done { new } else { old };
            if let Some(other) = names.insert((*name).into(), Arc::clone(member))
                && !Arc::ptr_eq(&other, member)
                && other.name() == *name
            {
                // It has left the configuration, and its name is another's: its sessions cannot come back.
                self.ledger.restarted(other.slot(), now);
            }
            done
        });
        for (member, old, _) in &renamed {
            names.entry((*old).into()).or_insert_with(|| Arc::clone(member));
        }
        drop(names);
        // Whoever keeps or shares bindings knows them by name.
        self.table.each(|key, binding| {
            if renamed.iter().any(|(member, ..)| member.slot() == binding.home.slot) {
                self.journal.changed(key);
            }
            true
        });
    }

    /// Another instance answers under this backend's name: its sessions have ended.
    pub fn restarted(&self, slot: Slot, now: Tick) {
        self.ledger.restarted(slot, now);
    }

    /// A stream of this session opens at this backend; none when there is no such session. Until
    /// [`release`](Self::release) the session is live.
    pub fn hold(&self, key: SessionKey, member: &Arc<Member>, now: Tick) -> Option<Hold> {
        let key = self.current(key, now)?;
        let (streams, revived) = self.alter(key, |binding| {
            self.sign_of_life(binding, None, now);
            binding.flags.set(table::Flags::RARE, true);
            let streams = self.rare.change(key, |extra| extra.open(key, member));
            // At once: the next tick knows when it is really due.
            (table::Keep::Yes, (streams, self.enliven(binding, now)))
        })?;
        if revived {
            self.schedule_live(key, now);
        }
        member.add_streams(1);
        Some(Hold { streams })
    }

    /// The stream ended: the idle clock starts, unless another one is open.
    pub fn release(&self, hold: Hold, now: Tick) {
        hold.streams.member().add_streams(-1);
        let key = hold.streams.end();
        let revived = self.alter(key, |binding| {
            self.sign_of_life(binding, None, now);
            if binding.flags.has(table::Flags::RARE) && self.rare.tidy(key) {
                binding.flags.set(table::Flags::RARE, false);
            }
            // The session may have ended and begun anew since the stream was opened.
            (table::Keep::Yes, self.enliven(binding, now))
        });
        if revived == Some(true) {
            self.schedule_live(key, now);
        }
    }

    /// Tells how many streams each session has open at which backend.
    pub fn each_stream(&self, tell: impl FnMut(SessionKey, &Arc<Member>, u32)) {
        self.rare.each_stream(tell);
    }

    /// An operator ends a session; false when there is none.
    pub fn forget(&self, settings: &Settings, key: SessionKey, now: Tick) -> bool {
        let key = self.current(key, now).unwrap_or(key);
        self.end(settings, key, EndReason::Admin, now).is_some()
    }

    /// An operator gives a session another home; false when there is no such session.
    pub fn move_to(&self, settings: &Settings, key: SessionKey, to: &Member, now: Tick) -> bool {
        let key = self.current(key, now).filter(|key| self.table.contains(*key));
        key.is_some_and(|key| {
            self.rehome(settings, to, key, None, MoveReason::Admin, now).change == Change::Moved
        })
    }

    /// Entries of everything that could grow, and what bounds them: see [`Sizes`]. For tests of bounds.
    pub fn sizes(&self) -> Sizes {
        let (ended, ended_queue) = self.after.len();
        let (aliases, names, alias_queue) = self.aliases.len();
        Sizes {
            table: self.table.len(),
            rare: self.rare.len(),
            pins: self.pins.len(),
            past: ended + aliases + names,
            past_queue: ended_queue + alias_queue,
            late: self.late.len(),
            live_wheel: lock(&self.live).len(),
            retained_wheel: lock(&self.retained).len(),
            names: self.names.lock().unwrap_or_else(PoisonError::into_inner).len(),
        }
    }
}

/// Entries of everything that could grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bindings, those that nobody counts included.
    pub table: usize,
    /// Bindings that have something beside their home.
    pub rare: usize,
    /// Requests' keys that have no home yet.
    pub pins: usize,
    /// Replaced ids, what they lead to, and ended ids.
    pub past: usize,
    /// Times at which one of them is to be forgotten.
    pub past_queue: usize,
    /// Expired ids.
    pub late: usize,
    /// Entries of the wheel of live sessions.
    pub live_wheel: usize,
    /// Entries of the wheel of retained sessions.
    pub retained_wheel: usize,
    /// Backends, those that left included.
    pub names: usize,
}

impl fmt::Debug for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Affinity").field("entries", &self.table.len()).finish_non_exhaustive()
    }
}

/// An open stream's hold on its session; must reach [`Affinity::release`].
#[derive(Debug)]
#[must_use = "a hold that is not released keeps its session for ever"]
pub struct Hold {
    streams: Arc<rare::Streams>,
}

#[cfg(test)]
mod tests;
