//! One backend of a pool as the core sees it: what it is called, whether it serves, how much it
//! carries.

mod name;

use std::{
    fmt,
    num::NonZeroU32,
    sync::atomic::{
        AtomicU32,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::Duration,
};

use self::name::Name;
use super::{Tick, recency::Recency, rendezvous::Seed};

/// Small integer that names a backend within its pool for as long as the process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Admin {
    /// It takes new sessions and keeps its own.
    #[default]
    Ready,
    /// It keeps its own sessions and takes no new ones.
    Draining,
    /// It serves nobody; its sessions move.
    Maintenance,
}

/// One backend of one pool.
///
/// Shared by every worker and by every snapshot it occurs in: a reload reuses it by name, so its
/// counters, its state and the sessions that point at its slot survive.
///
/// Up, admin state and generation share one word, so that a reader never sees half of a change.
/// The counters are each exact, but no reader may conclude from one to another: they are written
/// `Relaxed`.
pub struct Member {
    name: Name,
    slot: Slot,
    /// Share of the pool's sessions, relative to the other members'. Written by operators, and by a reload
    /// that changes the configured one.
    weight: AtomicU32,
    /// The weight of the configuration. Written by a reload.
    configured_weight: AtomicU32,
    /// A packed [`State`]. Written by health checks, operators and the core; read by each placement.
    state: AtomicU32,
    /// The tick at which the slow start began, [`NO_RAMP`] for none. Written *before* the state word
    /// that makes the member take new sessions (release/acquire), so nobody sees a fresh member at
    /// its full share.
    ramp_start: AtomicU32,
    /// Until this tick it is no wonder that the configuration does not have it; 0 when nobody awaits it.
    awaited_until: AtomicU32,
    /// Requests under way.
    in_flight: AtomicU32,
    /// How many it takes at a time. Written by the control thread.
    limit: AtomicU32,
    /// Sessions that were placed here and wait for their answer: not yet counted by `live`, but
    /// coming. Without it a burst between two answers would all go to the same member.
    placing: AtomicU32,
    /// Bindings idle for less than the session timeout. Written by the core under its own locks.
    live: AtomicU32,
    /// Bindings kept only by the longer TTL. Written by the core under its own locks.
    retained: AtomicU32,
    /// Open streams that hold a binding.
    streams: AtomicU32,
    /// When its live sessions were last seen.
    recency: Recency,
}

/// What is still going on at a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Requests under way or queued; WebSockets and other long responses included.
    pub requests: u32,
    /// Live sessions.
    pub sessions: u32,
    /// Open streams that hold a session.
    pub streams: u32,
}

/// What the state word holds: bit 0 up, bit 1 fresh, bits 2 and 3 admin, bits 16 to 31 generation.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    up: bool,
    /// It has to ramp up as soon as it takes new sessions: it joined or restarted while it took none.
    fresh: bool,
    admin: Admin,
    generation: u16,
}

// === impl Slot ===

impl Slot {
    /// The slot of this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

// === impl Left ===

impl Left {
    /// Whether nothing is left.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

// === impl Admin ===

impl Admin {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Draining, Self::Maintenance];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }
}

// === impl Member ===

impl Member {
    #[cfg(test)]
    pub(super) fn new(name: &str, slot: Slot, weight: u32) -> Self {
        Self::of_generation(0, name, slot, weight, Duration::ZERO)
    }

    /// A member that is up, ready and at its full share, in a slot that another member may have had before:
    /// the generation tells them apart.
    pub(super) fn of_generation(
        generation: u16,
        name: &str,
        slot: Slot,
        weight: u32,
        session_timeout: Duration,
    ) -> Self {
        let state = State { up: true, fresh: false, admin: Admin::Ready, generation };
        Self {
            name: Name::new(name),
            slot,
            weight: AtomicU32::new(weight),
            configured_weight: AtomicU32::new(weight),
            state: AtomicU32::new(state.pack()),
            ramp_start: AtomicU32::new(NO_RAMP.get()),
            awaited_until: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(u32::MAX),
            placing: AtomicU32::new(0),
            live: AtomicU32::new(0),
            retained: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            recency: Recency::new(Tick::ZERO.after(session_timeout).get()),
        }
    }

    /// Its name: what it *is*, across reloads, restarts and replicas.
    pub fn name(&self) -> &str {
        self.name.latest().text()
    }

    /// Whether it had this name once, and has another one now.
    pub(super) fn was_called(&self, name: &str) -> bool {
        self.name.all().any(|other| other.text() == name) && self.name() != name
    }

    /// It is called this from now on; false when it has been renamed too often.
    pub(super) fn rename(&self, name: &str) -> bool {
        self.name.give(name)
    }

    /// Its slot.
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) fn seed(&self) -> &Seed {
        self.name.latest().seed()
    }

    /// Whether its health checks say that it serves.
    pub fn is_up(&self) -> bool {
        self.state().up
    }

    /// Marks it up or down; returns whether that changed anything. Coming back up is a slow start: what was down may
    /// have restarted, and has lost its connections and caches.
    pub fn set_up(&self, up: bool, now: Tick) -> bool {
        self.change(now, |state| State { up, fresh: state.fresh || (up && !state.up), ..state })
    }

    /// What the operator wants of it.
    pub fn admin(&self) -> Admin {
        self.state().admin
    }

    /// Sets what the operator wants of it; returns whether that changed anything. The end of a maintenance is a slow
    /// start, the end of a drain is none: its sessions have kept it warm.
    pub fn set_admin(&self, admin: Admin, now: Tick) -> bool {
        self.change(now, |state| {
            let returns = state.admin == Admin::Maintenance && admin != Admin::Maintenance;
            State { admin, fresh: state.fresh || returns, ..state }
        })
    }

    /// Its weight; 0 means that it is never chosen for a new session.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Sets its weight.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Relaxed);
    }

    /// The weight of the configuration, whatever operators have set since.
    pub fn configured_weight(&self) -> u32 {
        self.configured_weight.load(Relaxed)
    }

    /// The configuration gives it this weight; one that an operator has set stays until that changes.
    pub(super) fn configure_weight(&self, weight: u32) {
        if self.configured_weight.swap(weight, Relaxed) != weight {
            self.set_weight(weight);
        }
    }

    /// Another process has sessions on it, and it is not configured here: it may come until then. Only the first
    /// such word counts.
    pub fn await_until(&self, until: Tick) {
        // Whoever was first has set it.
        let _ = self.awaited_until.compare_exchange(0, until.get(), Relaxed, Relaxed);
    }

    /// Whether it may yet come.
    pub fn is_awaited(&self, now: Tick) -> bool {
        now.get() < self.awaited_until.load(Relaxed)
    }

    /// It has left the configuration: what operators wanted of it is over, should its name come back.
    pub fn forget_operators(&self, now: Tick) {
        self.set_admin(Admin::Ready, now);
        self.set_weight(self.configured_weight.load(Relaxed));
    }

    /// Which instance answers under this name; another number means that the sessions of the earlier
    /// one are gone. Wraps around after 65,536 restarts.
    pub fn generation(&self) -> u16 {
        self.state().generation
    }

    /// Whether new sessions may be placed here.
    pub fn takes_new(&self) -> bool {
        self.state().takes_new()
    }

    /// Whether it would serve if it were up.
    pub fn is_down_only(&self) -> bool {
        let state = self.state();
        !state.up && state.admin != Admin::Maintenance
    }

    /// Whether the sessions that live here may be sent here.
    pub fn serves_home(&self) -> bool {
        let state = self.state();
        state.up && state.admin != Admin::Maintenance
    }

    /// Another instance answers under this name: a new generation, which starts slowly.
    pub(super) fn bump_generation(&self, now: Tick) {
        self.change(now, |state| State {
            generation: state.generation.wrapping_add(1),
            fresh: true,
            ..state
        });
    }

    /// Begins the slow start: now, or once it takes new sessions.
    pub(super) fn start_ramp(&self, now: Tick) {
        self.change(now, |state| State { fresh: true, ..state });
    }

    /// How much of its weight counts at `now`, in thousandths: rises linearly from
    /// [`FIRST_SHARE`] to [`FULL_SHARE`] in the time `slow_start` after the ramp began.
    pub(super) fn share(&self, slow_start: Duration, now: Tick) -> u32 {
        let start = Tick::new(self.ramp_start.load(Relaxed));
        if start == NO_RAMP {
            return FULL_SHARE;
        }
        let (passed, whole) = (now.since(start).as_millis(), slow_start.as_millis());
        if passed >= whole {
            return FULL_SHARE;
        }
        let risen = u128::from(FULL_SHARE - FIRST_SHARE) * passed / whole;
        u32::try_from(risen).map_or(FULL_SHARE, |risen| FIRST_SHARE + risen)
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Sets how many requests it takes at a time; as many as there are when none.
    pub fn set_limit(&self, limit: Option<NonZeroU32>) {
        self.limit.store(limit.map_or(u32::MAX, NonZeroU32::get), Relaxed);
    }

    /// Whether one more request would not have to wait.
    pub fn has_room(&self) -> bool {
        self.in_flight() < self.limit.load(Relaxed)
    }

    /// A request goes there.
    pub fn enter(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// A request came back; pairs with [`enter`](Self::enter).
    pub fn leave(&self) {
        // Whoever sees it gone, sees the session that its response began; see `left`.
        let before = self.in_flight.fetch_sub(1, Release);
        debug_assert!(before > 0, "more requests came back than went");
    }

    /// What is still going on here, beside `queued` requests that wait for room. Requests are counted first: a
    /// response that begins a session ends its request after that, so one of the two is always seen.
    pub fn left(&self, queued: u32) -> Left {
        let requests = self.in_flight.load(Acquire).saturating_add(queued).max(self.placing());
        Left { requests, sessions: self.live(), streams: self.streams() }
    }

    /// Sessions placed here whose answer is still to come.
    pub fn placing(&self) -> u32 {
        self.placing.load(Relaxed)
    }

    /// A session was placed here.
    pub(super) fn begin_placing(&self) {
        self.placing.fetch_add(1, Relaxed);
    }

    /// A placed session was settled or given up; pairs with [`begin_placing`](Self::begin_placing).
    pub(super) fn end_placing(&self) {
        add(&self.placing, -1);
    }

    /// Live sessions.
    pub fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }

    /// What the books say, for placement to read without a lock.
    pub(super) fn set_sessions(&self, live: u64, retained: u64) {
        self.live.store(u32::try_from(live).unwrap_or(u32::MAX), Relaxed);
        self.retained.store(u32::try_from(retained).unwrap_or(u32::MAX), Relaxed);
    }

    pub(super) const fn recency(&self) -> &Recency {
        &self.recency
    }

    #[cfg(test)]
    pub(super) fn add_live(&self, change: i32) {
        add(&self.live, change);
    }

    /// Retained sessions.
    pub fn retained(&self) -> u32 {
        self.retained.load(Relaxed)
    }

    /// Open streams.
    pub fn streams(&self) -> u32 {
        self.streams.load(Relaxed)
    }

    /// Counts what another process of ours has under way here: so many requests and open streams more, or less.
    pub fn carry(&self, in_flight: i32, streams: i32) {
        add(&self.in_flight, in_flight);
        add(&self.streams, streams);
    }

    /// Adds to the open streams.
    pub(super) fn add_streams(&self, change: i32) {
        add(&self.streams, change);
    }

    fn state(&self) -> State {
        State::unpack(self.state.load(Acquire))
    }

    /// Changes the state word in one step. A fresh member begins its ramp with the change that lets
    /// it take new sessions.
    fn change(&self, now: Tick, change: impl Fn(State) -> State) -> bool {
        let mut word = self.state.load(Acquire);
        loop {
            let before = State::unpack(word);
            let mut after = change(before);
            let begins = after.fresh && after.takes_new();
            if begins {
                after.fresh = false;
                // Before the word below, see `ramp_start`. `NEVER` would read as "no ramp".
                self.ramp_start.store(now.get().min(NO_RAMP.get() - 1), Release);
            }
            if after == before {
                return begins;
            }
            match self.state.compare_exchange_weak(word, after.pack(), AcqRel, Acquire) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Member")
            .field("name", &self.name())
            .field("slot", &self.slot.0)
            .field("up", &state.up)
            .field("admin", &state.admin)
            .field("generation", &state.generation)
            .field("weight", &self.weight())
            .finish_non_exhaustive()
    }
}

/// Adds to a counter. Whoever takes away has added before, so a counter never falls below zero.
fn add(counter: &AtomicU32, change: i32) {
    let before = counter.fetch_add(change.cast_unsigned(), Relaxed);
    debug_assert!(before.checked_add_signed(change).is_some(), "a counter of {before} cannot take {change}");
}

// === impl State ===

impl State {
    const fn takes_new(self) -> bool {
        self.up && matches!(self.admin, Admin::Ready)
    }

    fn pack(self) -> u32 {
        let admin = match self.admin {
            Admin::Ready => 0,
            Admin::Draining => 1,
            Admin::Maintenance => 2,
        };
        u32::from(self.up)
            | u32::from(self.fresh) << 1
            | admin << ADMIN_SHIFT
            | u32::from(self.generation) << GENERATION_SHIFT
    }

    const fn unpack(word: u32) -> Self {
        Self {
            up: word & 1 != 0,
            fresh: word & 2 != 0,
            admin: match word >> ADMIN_SHIFT & 3 {
                0 => Admin::Ready,
                1 => Admin::Draining,
                _ => Admin::Maintenance,
            },
            generation: (word >> GENERATION_SHIFT) as u16,
        }
    }
}

/// The share of a member that is not ramping up, in thousandths of its weight.
pub(super) const FULL_SHARE: u32 = 1_000;
/// The share with which a ramp begins: enough to be exercised, too little to be flooded.
pub(super) const FIRST_SHARE: u32 = 100;
const NO_RAMP: Tick = Tick::NEVER;
const ADMIN_SHIFT: u32 = 2;
const GENERATION_SHIFT: u32 = 16;

#[cfg(test)]
mod tests;
