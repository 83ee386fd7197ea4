//! Answers for operators: where does a session live, since when, and why was it moved.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    Affinity, EndReason, Fingerprint, Member, MoveReason, OnUnknown, Roster, SessionKey, Settings, Slot,
    Tick,
    rare::Move,
    rendezvous,
    table::{Flags, Seen},
};

/// What there is to say about one session id.
#[derive(Clone, Debug)]
pub enum Explanation {
    /// It is a session's.
    Known(Known),
    /// It is nobody's.
    Unknown {
        /// Where a request with it would go.
        would_go_to: Option<Slot>,
        /// It would be placed as a request without an id is, so that nothing says where.
        placed: bool,
    },
}

/// A session, as an operator may see it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The short form of its key.
    pub fingerprint: Fingerprint,
    /// Its home.
    pub home: Slot,
    /// Whether its home lost its memory since, so that it will be placed afresh.
    pub stale: bool,
    /// Whether it is idle for longer than the session timeout.
    pub retained: bool,
    /// Whether the id was accepted by a backend, but never set by one.
    pub unlearned: bool,
    /// Time since it was bound.
    pub age: Duration,
    /// Time since its last request.
    pub idle: Duration,
    /// Time until it is forgotten, if nobody uses it; none while a stream holds it.
    pub left: Option<Duration>,
    /// Open streams.
    pub streams: u32,
    /// Its last moves, the latest last.
    pub moves: Vec<Move>,
}

/// One consistent reading of a pool's numbers.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// By backend; one that left the configuration is there as long as it has something to show and its
    /// place was not given to another.
    pub backends: Vec<BackendStats>,
    /// Sessions: the sum of live and retained over backends.
    pub entries: u64,
    /// Sessions bound so far.
    pub learned: u64,
    /// Sessions that came back with their backend.
    pub restored: u64,
    /// Sessions ended so far, on whatever backend: learned and restored less this are `entries`.
    pub ended: u64,
    /// Ids replaced so far.
    pub renamed: u64,
    /// Requests that carried several different ids.
    pub ambiguous: u64,
    /// Expired ids that their backend still accepted.
    pub late: u64,
    /// The longest idle time of such an id: the TTL that would have kept it.
    pub longest_late: Duration,
    /// Sessions not learned for want of room.
    pub full: u64,
    /// Ids not bound because only a share of the table is for ids that no backend has set.
    pub over_quota: u64,
    /// Bindings of ids that no backend has set.
    pub unlearned: u64,
    /// Cookies set to last longer than the TTL.
    pub long_cookies: u64,
    /// The longest of them.
    pub longest_cookie: Duration,
    /// Requests under way with an id that is not bound.
    pub pins: u64,
}

/// One backend's part in [`Stats`].
#[derive(Clone, Debug)]
pub struct BackendStats {
    /// Which.
    pub member: Arc<Member>,
    /// It has left the configuration: its sessions have ended.
    pub removed: bool,
    /// Sessions idle for less than the session timeout.
    pub live: u64,
    /// Sessions idle for longer.
    pub retained: u64,
    /// Open streams.
    pub streams: u64,
    /// Sessions that left it, in the order of [`MoveReason::ALL`].
    pub moved: [u64; MoveReason::ALL.len()],
    /// Sessions that ended on it, in the order of [`EndReason::ALL`].
    pub ended: [u64; EndReason::ALL.len()],
}

impl Affinity {
    /// One consistent reading of all numbers.
    pub fn stats(&self) -> Stats {
        let (totals, books) = self.ledger.read();
        let counters = &self.counters;
        Stats {
            backends: books
                .into_iter()
                .filter(|book| !book.retired || book.moved.iter().chain(&book.ended).any(|&count| count > 0))
                .map(|book| BackendStats {
                    removed: book.retired,
                    live: if book.retired { 0 } else { book.live },
                    retained: if book.retired { 0 } else { book.retained },
                    streams: book.member.streams().into(),
                    moved: book.moved,
                    ended: book.ended,
                    member: book.member,
                })
                .collect(),
            entries: totals.entries,
            learned: totals.learned,
            restored: totals.restored,
            ended: totals.ended,
            renamed: totals.renamed,
            ambiguous: counters.ambiguous.load(Relaxed),
            late: counters.late.load(Relaxed),
            longest_late: Duration::from_secs(counters.latest.load(Relaxed)),
            full: counters.full.load(Relaxed),
            over_quota: counters.over_quota.load(Relaxed),
            unlearned: counters.unlearned.load(Relaxed) as u64,
            long_cookies: counters.long_cookies.load(Relaxed),
            longest_cookie: Duration::from_secs(counters.longest_cookie.load(Relaxed)),
            pins: self.pins.len() as u64,
        }
    }

    /// What there is to say about a session id. Touches nothing.
    pub fn explain(&self, settings: &Settings, roster: &Roster, key: SessionKey, now: Tick) -> Explanation {
        let key = self.current(key, now).unwrap_or(key);
        let Some((seen, deadlines)) =
            self.table.look(key, |binding| (binding.seen(), self.deadlines(settings, key, binding)))
        else {
            if settings.on_unknown == OnUnknown::Place {
                return Explanation::Unknown { would_go_to: None, placed: true };
            }
            let candidates = roster.members().iter().filter(|member| member.takes_new());
            let would_go_to = rendezvous::pick(candidates.map(|member| &**member), key.words());
            return Explanation::Unknown { would_go_to: would_go_to.map(Member::slot), placed: false };
        };
        Explanation::Known(self.known_as(roster, key, &seen, deadlines.gone, now))
    }

    /// The member of this slot, also one that has left the configuration.
    pub fn member(&self, slot: Slot) -> Option<Arc<Member>> {
        self.ledger.member(slot)
    }

    /// Sessions of one backend, in no particular order; `skip` and `limit` page through them as far as
    /// the table does not change in between.
    pub fn sessions(
        &self,
        settings: &Settings,
        roster: &Roster,
        slot: Slot,
        skip: usize,
        limit: usize,
        now: Tick,
    ) -> Vec<Known> {
        let mut found = Vec::new();
        let mut passed = 0;
        self.table.each(|key, binding| {
            let counted = binding.home.slot == slot
                && roster.member(slot).is_some_and(|member| member.generation() == binding.home.generation);
            if counted {
                passed += 1;
                if passed > skip {
                    let gone = self.deadlines(settings, key, binding).gone;
                    found.push(self.known_as(roster, key, &binding.seen(), gone, now));
                }
            }
            found.len() < limit
        });
        found
    }

    /// Time until the last live session of a backend is idle, if nobody uses it; none when it has no
    /// live session. Told up to a 64th of the session timeout too late, never too early; open streams are
    /// taken to end now.
    pub fn drain_eta(&self, settings: &Settings, roster: &Roster, slot: Slot, now: Tick) -> Option<Duration> {
        let member = roster.member(slot)?;
        let live = member.live();
        if live == 0 {
            return None;
        }
        let timeout = Tick::ZERO.after(settings.session_timeout).get();
        let latest = if member.streams() > 0 {
            Some(now)
        } else {
            member.recency().latest(timeout, live, now).or_else(|| self.latest_of(member))
        };
        Some(latest?.after(settings.session_timeout).since(now))
    }

    /// The last request of any live session of a backend, by looking at all of them: for the time after a
    /// change of the session timeout.
    fn latest_of(&self, member: &Member) -> Option<Tick> {
        let mut latest = None;
        self.table.each(|_, binding| {
            let lives = binding.home.slot == member.slot()
                && binding.home.generation == member.generation()
                && !binding.flags.has(Flags::RETAINED)
                && !binding.flags.has(Flags::LEAVING);
            if lives {
                latest = latest.max(Some(binding.last_seen()));
            }
            true
        });
        latest
    }

    fn known_as(&self, roster: &Roster, key: SessionKey, seen: &Seen, gone: Tick, now: Tick) -> Known {
        let extra =
            if seen.flags.has(Flags::RARE) { self.rare.of(key) } else { super::rare::Extra::default() };
        let streams = extra.held();
        let member = roster.member(seen.home.slot);
        Known {
            fingerprint: key.fingerprint(),
            home: seen.home.slot,
            stale: member.is_none_or(|member| member.generation() != seen.home.generation),
            retained: seen.flags.has(Flags::RETAINED),
            unlearned: seen.flags.has(Flags::UNLEARNED),
            age: now.since(seen.created),
            idle: now.since(seen.last_seen),
            left: (gone != Tick::NEVER).then(|| gone.since(now)),
            streams,
            moves: extra.moves,
        }
    }
}
