//! Which backend owns which session: the pure core of the product.
//!
//! Nothing in here does I/O, spawns, reads a clock or draws random numbers of its own: time and
//! randomness are arguments, requests and answers are borrowed bytes. It imports nothing of ours but
//! itself, so a simulation can drive all of it.
//!
//! A request is decided in [`decide`] ([`Affinity::choose`]) and settled in [`settle`]
//! ([`Affinity::settle`]) before the head of its answer goes on. Bindings live in [`table`], are counted in
//! [`ledger`], and are moved along by [`lifecycle`] ([`Affinity::tick`]).
//!
//! Invariants, which `tests/simulation.rs` checks after each step: a live session whose home serves is
//! never sent elsewhere; the sum of live and retained sessions over backends is the number of entries,
//! and learned + restored - ended is that number, at every reading; nothing grows without bound; every
//! session ends exactly once.

mod afterlife;
mod cookie_date;
mod decide;
mod expiry;
mod explain;
mod key;
mod late;
mod ledger;
mod lifecycle;
mod member;
mod pins;
mod placement;
mod rare;
mod recency;
mod rendezvous;
mod roster;
mod session_id;
mod set_cookie;
mod settings;
mod settle;
mod table;
mod tick;
mod verdict;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use self::{
    afterlife::Afterlife, expiry::Wheel, late::Late, ledger::Ledger, lifecycle::lock, pins::Pins,
    placement::RoundRobin, rare::Rare, table::Table,
};
pub use self::{
    decide::{Ask, Claim, Decision},
    explain::{BackendStats, Explanation, Known, Stats},
    key::{Fingerprint, KeyBuildHasher, KeyHasher, KeyTableHasher, SessionKey},
    member::{Admin, Member, Slot},
    rare::Move,
    roster::Roster,
    session_id::{Carrier, Keys},
    set_cookie::{Answerer, Effect},
    settings::{Balance, KeySource, OnDown, PathPattern, Settings},
    settle::{Answer, Change, Settled},
    tick::Tick,
    verdict::{EndReason, MoveReason, Reason, Verdict},
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
    /// The truth about counts.
    ledger: Ledger,
    /// Requests under way with a key that has no home.
    pins: Pins,
    /// Ids that were replaced or ended a moment ago.
    after: Afterlife,
    /// Sessions that expired not long ago.
    late: Late,
    /// Every backend that ever was, by name: its slot is its own for as long as the process lives.
    names: Mutex<HashMap<Box<str>, Arc<Member>>>,
    round_robin: RoundRobin,
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
            ledger: Ledger::default(),
            pins: Pins::new(),
            after: Afterlife::new(),
            late: Late::default(),
            names: Mutex::default(),
            round_robin: RoundRobin::default(),
            counters: Counters::default(),
        }
    }

    /// The roster for a list of backends (name and weight). Members are reused by name; the sessions of
    /// names that left end (`removed`), and are restored when the name comes back. A name that joins later
    /// than the first ones starts slowly.
    pub fn roster(&self, backends: &[(&str, u32)], session_timeout: Duration, now: Tick) -> Roster {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let running = !names.is_empty();
        let members: Vec<_> = backends
            .iter()
            .map(|&(name, weight)| {
                if let Some(member) = names.get(name) {
                    member.configure_weight(weight);
                    return Arc::clone(member);
                }
                let slot =
                    Slot::new(u16::try_from(names.len()).expect("fewer than 65,536 backends a process"));
                let member = Arc::new(Member::new(name, slot, weight));
                member.recency().reset(Tick::ZERO.after(session_timeout).get());
                if running {
                    member.start_ramp(now);
                }
                self.ledger.open(Arc::clone(&member));
                names.insert(name.into(), Arc::clone(&member));
                member
            })
            .collect();
        for member in names.values() {
            let configured = members.iter().any(|other| other.slot() == member.slot());
            self.ledger.retire(member.slot(), !configured);
        }
        Roster::new(members)
    }

    /// Another instance answers under this backend's name: its sessions have ended.
    pub fn restarted(&self, slot: Slot, now: Tick) {
        self.ledger.restarted(slot, now);
    }

    /// A stream of this session opens at this backend; none when there is no such session. Until
    /// [`release`](Self::release) the session is live.
    pub fn hold(&self, key: SessionKey, member: &Arc<Member>, now: Tick) -> Option<Hold> {
        let key = if self.table.contains(key) { key } else { self.resolved(key, now)? };
        let streams = self.table.change(key, |binding| {
            binding.flags.rare = true;
            let streams = self.rare.change(key, |extra| Arc::clone(extra.streams.get_or_insert_default()));
            streams.open();
            (table::Keep::Yes, streams)
        })?;
        member.add_streams(1);
        Some(Hold { streams, member: Arc::clone(member), key })
    }

    /// The stream ended: the idle clock starts, unless another one is open.
    pub fn release(&self, hold: Hold, now: Tick) {
        hold.streams.end(now);
        hold.member.add_streams(-1);
        // Under its first name it may be gone; then the wheel finds out when the stream ended.
        self.touch(hold.key, now);
    }

    /// An operator ends a session; false when there is none.
    pub fn forget(&self, settings: &Settings, key: SessionKey, now: Tick) -> bool {
        let key = self.resolved(key, now).unwrap_or(key);
        self.end(settings, key, EndReason::Admin, now)
    }

    /// An operator gives a session another home; false when there is no such session.
    pub fn move_to(&self, settings: &Settings, key: SessionKey, to: &Member, now: Tick) -> bool {
        let key = self.resolved(key, now).unwrap_or(key);
        self.table.contains(key)
            && self.rehome(settings, to, key, MoveReason::Admin, now).change == Change::Moved
    }

    /// Entries of everything that could grow: table, pins, past ids, both wheels. For tests of bounds.
    pub fn sizes(&self) -> [usize; 5] {
        [
            self.table.len(),
            self.pins.len(),
            self.after.len(),
            lock(&self.live).len(),
            lock(&self.retained).len(),
        ]
    }
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
    member: Arc<Member>,
    /// The session's key when the stream opened.
    key: SessionKey,
}
