//! Bindings leave the process and come back: what is known of a key, and taking in what another process
//! knew of it.
//!
//! Invariants: what comes in never displaces what is known to be later; a session that ended here a moment
//! ago does not come back by an older word of it; taking in what is known already changes nothing and is not
//! noted in the journal, so that two processes that tell each other everything fall silent.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    Affinity, Change, EndReason, Member, MoveReason, Scope, SessionKey, Settings, Slot, Tick,
    afterlife::Kind,
    expiry::Entry,
    lifecycle::lock,
    rename::NewId,
    table::{Binding, Flags, Home, Keep},
};

/// A session's binding, as far as it means something outside the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it lives.
    pub home: Slot,
    /// When it was bound.
    pub created: Tick,
    /// Since when it lives there.
    pub placed: Tick,
    /// Where it lived before, if it ever moved.
    pub from: Option<Slot>,
    /// When it was last used.
    pub last_seen: Tick,
    /// Its own TTL, longer than the pool's.
    pub ttl: Option<Duration>,
    /// Accepted by a backend, never set by one.
    pub unlearned: bool,
    /// Which of the client's cookies holds its id.
    pub scope: Scope,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It is a session's.
    Bound(Record),
    /// It was one's, which is known by another key now.
    Renamed {
        /// That key.
        to: SessionKey,
        /// Until when that is remembered.
        until: Tick,
    },
    /// Its session ended a moment ago.
    Ended {
        /// Where it lived.
        home: Slot,
        /// Until when that is remembered.
        until: Tick,
    },
    /// Nothing: it is nobody's, or that of a session whose home has forgotten it.
    Unknown,
}

/// Who is right when a session is known here with another home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The home that it came to later.
    Newer,
    /// The other side.
    Always,
}

/// What became of a session that was told by another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absorbed {
    /// It is known from now on.
    New,
    /// It has another home from now on.
    Moved,
    /// It was known already.
    Same,
    /// It is known better here.
    Older,
    /// It ended here a moment ago.
    Ended,
    /// Its time is over.
    Expired,
    /// Its home has forgotten it.
    Restarted,
    /// There is no room for it.
    Full,
    /// There is nothing to take in.
    Unknown,
}

/// Backends without configuration that sessions from outside may name. Beyond, such sessions are not taken in.
pub const MAX_ABSENT: usize = 256;

impl Affinity {
    /// What is known of a key now.
    pub fn trace(&self, key: SessionKey, now: Tick) -> Trace {
        let record = self.table.look(key, |binding| {
            (!binding.flags.has(Flags::LEAVING) && self.ledger.knows(binding.home))
                .then(|| self.record(key, binding, now))
        });
        // Neither a ghost nor one that is being renamed, which is remembered as such already.
        if let Some(Some(record)) = record {
            return Trace::Bound(record);
        }
        match self.resolve(key, now) {
            Some((Kind::Renamed(to), until)) => Trace::Renamed { to, until },
            Some((Kind::Ended(home), until)) if self.ledger.knows(home) => {
                Trace::Ended { home: home.slot, until }
            }
            Some((Kind::Ended(_), _)) | None => Trace::Unknown,
        }
    }

    /// Shows all there is, sessions first, until `look` is false. No lock is held while it looks; a session
    /// that comes or changes meanwhile is shown as it was or as it is, and is in the journal.
    pub fn each(&self, now: Tick, mut look: impl FnMut(SessionKey, Trace) -> bool) {
        for keys in [
            Self::session_keys,
            |affinity: &Self| affinity.aliases.keys(),
            |affinity: &Self| affinity.after.keys(),
        ] {
            for key in keys(self) {
                match self.trace(key, now) {
                    Trace::Unknown => {}
                    trace if look(key, trace) => {}
                    _ => return,
                }
            }
        }
    }

    /// Keys that changed, for those who keep or share bindings.
    pub fn journal(&self) -> &super::Journal {
        &self.journal
    }

    /// The backend of this name; one that the configuration does not have is kept like one that has left it,
    /// so that its sessions are there when it comes. None when there are [`MAX_ABSENT`] of these.
    pub fn home_named(&self, name: &str, settings: &Settings) -> Option<Arc<Member>> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = names.get(name) {
            return Some(Arc::clone(member));
        }
        if self.ledger.retired() >= MAX_ABSENT {
            return None;
        }
        let (member, earlier) = self.ledger.open(|slot, generation| {
            Arc::new(Member::of_generation(generation, name, slot, 1, settings.session_timeout))
        });
        if let Some(earlier) = earlier {
            names.retain(|_, member| !Arc::ptr_eq(member, &earlier));
        }
        self.ledger.retire(member.slot(), true);
        names.insert(name.into(), Arc::clone(&member));
        Some(member)
    }

    /// Takes in a session that another process knew, which lives at `member`; `record.home` and `record.from`
    /// do not matter.
    pub fn absorb(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        record: &Record,
        rule: Rule,
        now: Tick,
    ) -> Absorbed {
        let home = Home { slot: member.slot(), generation: member.generation() };
        let seen = record.last_seen.min(now);
        let created = record.created.min(seen);
        let ttl = record.ttl.unwrap_or_default().min(settings.max_ttl).max(settings.ttl);
        let gone = seen.after(ttl);
        let gone = settings.max_age.map_or(gone, |age| gone.min(created.after(age)));
        if gone <= now {
            return Absorbed::Expired;
        }
        match self.resolve(key, now).map(|(kind, _)| kind) {
            Some(Kind::Ended(_)) if rule == Rule::Newer => return Absorbed::Ended,
            Some(Kind::Renamed(_)) if rule == Rule::Newer => return Absorbed::Older,
            _ => {}
        }
        let idle = seen.after(settings.session_timeout) <= now;
        if !self.table.contains(key) {
            let full = self.table.len() >= settings.max_sessions.get();
            // What is kept only by the longer TTL displaces nothing.
            if full && (idle || !self.make_room(settings, now)) {
                return Absorbed::Full;
            }
        }
        let due = if idle { gone } else { self.first_due(settings, created, seen).max(now) };
        let done = loop {
            let done = self.table.upsert(
                key,
                |binding| {
                    if binding.flags.has(Flags::LEAVING) {
                        return None;
                    }
                    let due = self.first_due(settings, binding.created, now);
                    Some((self.meet(key, binding, home, record, rule, now, due), due))
                },
                || {
                    if !self.ledger.adopted(home, idle, seen) {
                        return (None, Some((Absorbed::Restarted, due)));
                    }
                    if record.unlearned {
                        self.counters.unlearned.fetch_add(1, Relaxed);
                    }
                    let rare = self.remember_rare(key, record, member, created);
                    let flags = Flags::NONE
                        .with(Flags::RETAINED, idle)
                        .with(Flags::UNLEARNED, record.unlearned)
                        .with(Flags::RARE, rare);
                    let mut binding = Binding::new(home, seen, due, record.scope, flags);
                    binding.created = created;
                    (Some(binding), Some((Absorbed::New, due)))
                },
            );
            match done {
                Some(done) => break done,
                // Being renamed by another thread, which is a matter of two table operations.
                None => std::thread::yield_now(),
            }
        };
        let (absorbed, due) = done;
        match absorbed {
            Absorbed::New if idle => lock(&self.retained).insert(Entry { key: key.words(), due }),
            Absorbed::New | Absorbed::Moved => self.schedule_live(key, due),
            Absorbed::Same => {
                if self.outlast(key, record.ttl) {
                    self.journal.changed(key);
                }
                if !idle {
                    self.touch_live(settings, key, seen);
                }
            }
            _ => {}
        }
        if matches!(absorbed, Absorbed::New | Absorbed::Moved) {
            self.after.forget(key);
            self.aliases.forget(key);
            self.journal.changed(key);
        }
        absorbed
    }

    /// Another process knows that a session has another key now.
    pub fn absorb_renamed(
        &self,
        settings: &Settings,
        old: SessionKey,
        new: SessionKey,
        until: Tick,
        now: Tick,
    ) -> Absorbed {
        // That key may have been replaced, too.
        let new = self.resolved(new, now).unwrap_or(new);
        if old == new || until <= now {
            return Absorbed::Unknown;
        }
        let home_of = |key| {
            self.table
                .look(key, |binding| (!binding.flags.has(Flags::LEAVING)).then_some(binding.home))
                .flatten()
        };
        // What is known by the new key is known better.
        let home = home_of(old).map(|home| home_of(new).unwrap_or(home));
        if let Some(member) = home.and_then(|home| self.ledger.member(home.slot)) {
            let scope = self.table.look(old, |binding| binding.scope).unwrap_or_default();
            return match self.rename(settings, &member, old, NewId { key: new, scope, lasts: None }, now) {
                Some(settled) if settled.change == Change::Renamed => Absorbed::Moved,
                Some(_) => Absorbed::Same,
                None => Absorbed::Older,
            };
        }
        match self.resolve(old, now) {
            Some((Kind::Renamed(known), remembered)) if known == new && remembered >= until => {
                return Absorbed::Same;
            }
            // It leads to a session here.
            Some((Kind::Renamed(known), _)) if known != new && self.table.contains(known) => {
                return Absorbed::Older;
            }
            _ => {}
        }
        self.aliases.rename(old, new, until, settings.max_sessions.get());
        self.journal.changed(old);
        Absorbed::New
    }

    /// Another process knows that a session has ended, at `home`, which matters for no longer than `until`.
    pub fn absorb_ended(
        &self,
        settings: &Settings,
        key: SessionKey,
        home: Slot,
        until: Tick,
        now: Tick,
    ) -> Absorbed {
        let until = until.min(now.after(settings.grace));
        if self.end(settings, key, EndReason::Logout, now).is_some() {
            return Absorbed::Ended;
        }
        let Some(member) = self.ledger.member(home) else { return Absorbed::Unknown };
        if until <= now || self.resolve(key, now).is_some() {
            return Absorbed::Same;
        }
        let home = Home { slot: home, generation: member.generation() };
        self.after.remember(key, home, until);
        self.journal.changed(key);
        Absorbed::Ended
    }

    fn session_keys(&self) -> Vec<SessionKey> {
        self.table.keys()
    }

    /// Under the lock of the binding's shard.
    fn record(&self, key: SessionKey, binding: &Binding, now: Tick) -> Record {
        let extra =
            if binding.flags.has(Flags::RARE) { self.rare.of(key) } else { super::rare::Extra::default() };
        let moved = extra.moves.last().filter(|step| step.to == binding.home.slot);
        Record {
            home: binding.home.slot,
            created: binding.created,
            placed: moved.map_or(binding.created, |step| step.at),
            from: moved.map(|step| step.from),
            // An open stream is a use of it all the time.
            last_seen: if extra.held() > 0 { now } else { binding.last_seen() },
            ttl: extra.ttl,
            unlearned: binding.flags.has(Flags::UNLEARNED),
            scope: binding.scope,
        }
    }

    /// A session that is told is bound here already. Under the lock of the binding's shard.
    #[expect(clippy::too_many_arguments, reason = "one call, each argument a fact of its own")]
    fn meet(
        &self,
        key: SessionKey,
        binding: &mut Binding,
        home: Home,
        record: &Record,
        rule: Rule,
        now: Tick,
        due: Tick,
    ) -> Absorbed {
        if binding.home == home {
            binding.created = binding.created.min(record.created);
            binding.scope = binding.scope.and(record.scope);
            self.acknowledge(binding, record);
            return Absorbed::Same;
        }
        let known = self.ledger.knows(binding.home).then(|| self.record(key, binding, now).placed);
        if rule == Rule::Newer && known.is_some_and(|placed| placed >= record.placed) {
            return Absorbed::Older;
        }
        match self.move_binding(key, binding, home, (MoveReason::Announced, record.placed.min(now)), now, due)
        {
            Change::Moved => {
                self.acknowledge(binding, record);
                Absorbed::Moved
            }
            _ => Absorbed::Restarted,
        }
    }

    /// An id that a backend set, as the other side knows, takes up none of the quota for made-up ones.
    fn acknowledge(&self, binding: &mut Binding, record: &Record) {
        if binding.flags.has(Flags::UNLEARNED) && !record.unlearned {
            binding.flags.set(Flags::UNLEARNED, false);
            self.counters.unlearned.fetch_sub(1, Relaxed);
        }
    }

    /// Gives a binding this TTL if it has none of its own, or a shorter one; whether that is so.
    fn outlast(&self, key: SessionKey, ttl: Option<Duration>) -> bool {
        ttl.is_some()
            && self.alter(key, |binding| {
                let known = if binding.flags.has(Flags::RARE) { self.rare.of(key).ttl } else { None };
                let longer = ttl > known;
                if longer {
                    binding.flags.set(Flags::RARE, true);
                    self.rare.change(key, |extra| extra.ttl = ttl);
                }
                (Keep::Yes, longer)
            }) == Some(true)
    }

    /// What only few bindings have; true when this one has. Under the lock of the binding's shard.
    fn remember_rare(&self, key: SessionKey, record: &Record, member: &Member, created: Tick) -> bool {
        let moved = record.placed > created;
        if moved || record.ttl.is_some() {
            self.rare.change(key, |extra| {
                extra.ttl = record.ttl;
                if moved {
                    let from = record.from.unwrap_or_else(|| member.slot());
                    extra.moved(super::Move {
                        from,
                        to: member.slot(),
                        reason: MoveReason::Announced,
                        at: record.placed,
                    });
                }
            });
        }
        moved || record.ttl.is_some()
    }
}

#[cfg(test)]
#[path = "portable/tests.rs"]
mod tests;
