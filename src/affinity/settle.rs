//! What an answer changes: learn, confirm, refresh, rename, move, end.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Affinity, Claim, Effect, EndReason, Keys, Member, MoveReason, Roster, SessionKey, Settings, Slot, Tick,
    afterlife::Kind,
    decide::ClaimKind,
    rare::Move,
    table::{Binding, Flags, Home, Keep},
};

/// A backend's answer, as far as affinity is concerned.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Who answered.
    pub slot: Slot,
    /// Its status.
    pub status: u16,
    /// What it says about the session.
    pub effect: Effect,
    /// The ids that the request carried.
    pub keys: &'a Keys,
    /// The only time.
    pub now: Tick,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The session's key from now on, if there is a session.
    pub key: Option<SessionKey>,
    /// What changed.
    pub change: Change,
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// A known session was seen again.
    Touched,
    /// A new session is bound.
    Learned,
    /// An id that nobody knew is bound to the backend that accepted it.
    Confirmed,
    /// The id was set once more.
    Refreshed,
    /// The session has another id.
    Renamed,
    /// The session has another home.
    Moved,
    /// The session ended.
    Ended,
    /// The id that nobody knew is of no use.
    Forgotten,
    /// There is no room for a new session.
    Full,
}

/// A made-up id can become at most one in so many sessions.
const UNLEARNED_SHARE: usize = 8;
/// And at least so many, in a small table.
const MIN_UNLEARNED: usize = 1024;
/// Looks at a session that another thread is just renaming, before it is taken for ended.
const MAX_LOOKS: usize = 1000;

impl Affinity {
    /// Lets an answer take effect. To be called before the head of the answer goes on to the client, whose
    /// next request may otherwise come before the binding.
    pub fn settle(&self, settings: &Settings, roster: &Roster, claim: Claim, answer: &Answer<'_>) -> Settled {
        let settled = match roster.member(answer.slot) {
            Some(member) => self.settle_at(settings, member, claim.kind, answer),
            None => Settled::NONE,
        };
        // After the binding is made: who comes in between finds the one or the other.
        self.release_claim(&claim);
        settled
    }

    fn settle_at(
        &self,
        settings: &Settings,
        member: &Member,
        claim: ClaimKind,
        answer: &Answer<'_>,
    ) -> Settled {
        let now = answer.now;
        match (claim, answer.effect) {
            (ClaimKind::Free | ClaimKind::Ending, Effect::Set { key, lasts }) => {
                self.learn(settings, member, key, lasts, now)
            }
            (ClaimKind::Free | ClaimKind::Ending, Effect::Silent | Effect::Deleted) => Settled::NONE,
            (ClaimKind::Known { key, alias }, effect) => {
                self.settle_known(settings, member, key, alias, effect, answer)
            }
            (ClaimKind::Moving { key, alias, reason }, effect) => {
                // A session moves only when its new backend could do something with it.
                if answer.status >= 500 && effect == Effect::Silent {
                    return Settled::NONE;
                }
                let moved = self.rehome(settings, member, key, reason, now);
                match effect {
                    Effect::Silent => moved,
                    effect => self.settle_known(settings, member, key, alias, effect, answer),
                }
            }
            (ClaimKind::Unknown { key }, Effect::Set { key: set, lasts }) => {
                if set == key {
                    self.count_late(key, now);
                }
                self.learn(settings, member, set, lasts, now)
            }
            // Whatever the answer, that this is its home does not depend on it.
            (ClaimKind::Vouched { key }, Effect::Silent) => self.vouch(settings, member, key, now),
            (ClaimKind::Vouched { .. }, Effect::Set { key, lasts }) => {
                self.learn(settings, member, key, lasts, now)
            }
            (ClaimKind::Vouched { .. }, Effect::Deleted) => Settled::NONE,
            (ClaimKind::Unknown { key }, Effect::Silent) if answer.status < 400 => {
                let made_by_client = answer
                    .keys
                    .source()
                    .and_then(|source| settings.keys.get(source))
                    .is_some_and(super::KeySource::is_client_made);
                self.confirm(settings, member, key, made_by_client, now)
            }
            (ClaimKind::Unknown { .. }, Effect::Silent | Effect::Deleted) => {
                Settled { key: None, change: Change::Forgotten }
            }
        }
    }

    fn settle_known(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        alias: Option<SessionKey>,
        effect: Effect,
        answer: &Answer<'_>,
    ) -> Settled {
        let now = answer.now;
        // A parallel answer may have renamed it meanwhile; then this one is about the same session.
        let (key, alias) = match self.current(key, now) {
            Some(current) if current == key => (key, alias),
            Some(current) => (current, Some(key)),
            None => (key, alias),
        };
        match effect {
            Effect::Silent => {
                if let Some(alias) = alias
                    && answer.status < 400
                {
                    self.prolong(settings, alias, key, now);
                }
                let known = self.table.contains(key);
                Settled {
                    key: known.then_some(key),
                    change: if known { Change::Touched } else { Change::None },
                }
            }
            Effect::Deleted => {
                let home = self.table.look(key, |binding| binding.home);
                if !self.end(settings, key, EndReason::Logout, now) {
                    return Settled::NONE;
                }
                if let Some(home) = home {
                    let until = now.after(settings.grace);
                    self.after.remember(key, Kind::Ended(home), until);
                    for &carried in answer.keys.as_slice().iter().filter(|&&carried| carried != key) {
                        if alias == Some(carried) {
                            self.after.remember(carried, Kind::Ended(home), until);
                        }
                    }
                }
                Settled { key: None, change: Change::Ended }
            }
            Effect::Set { key: set, lasts } => {
                if set == key || self.table.contains(set) {
                    self.learn(settings, member, set, lasts, now)
                } else {
                    self.rename(settings, member, key, set, alias.is_some(), lasts, now)
                }
            }
        }
    }

    /// Binds a key to who answered. A key that is bound already is refreshed, or moves there: whoever
    /// sets a cookie to an id owns that session.
    fn learn(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        lasts: Option<Duration>,
        now: Tick,
    ) -> Settled {
        let settled = self.bind(settings, member, key, Flags::default(), now);
        if settled.key.is_some() {
            self.lengthen(settings, key, lasts);
        }
        settled
    }

    /// Binds an id that a backend accepted without setting it: what a proxy that lost its table sees of
    /// real sessions, and what anybody can make up. Such bindings have a quota and displace nothing.
    fn confirm(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        made_by_client: bool,
        now: Tick,
    ) -> Settled {
        self.count_late(key, now);
        let unlearned = !made_by_client;
        if unlearned {
            let max = settings.max_sessions.get();
            let quota = (max / UNLEARNED_SHARE).max(MIN_UNLEARNED).min(max);
            if self.counters.unlearned.load(Relaxed) >= quota || self.table.len() >= max {
                self.counters.over_quota.fetch_add(1, Relaxed);
                return Settled { key: None, change: Change::Forgotten };
            }
        }
        let settled = self.bind(settings, member, key, Flags { unlearned, ..Flags::default() }, now);
        match settled.change {
            Change::Learned => Settled { change: Change::Confirmed, ..settled },
            _ => settled,
        }
    }

    pub(super) fn bind(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        flags: Flags,
        now: Tick,
    ) -> Settled {
        if !self.table.contains(key) && !self.make_room(settings, now) {
            self.counters.full.fetch_add(1, Relaxed);
            return Settled { key: None, change: Change::Full };
        }
        self.after.forget(key);
        let home = Home { slot: member.slot(), generation: member.generation() };
        let due = first_due(settings, now);
        let change = self.table.upsert(
            key,
            |binding| {
                if binding.flags.unlearned && !flags.unlearned {
                    binding.flags.unlearned = false;
                    self.counters.unlearned.fetch_sub(1, Relaxed);
                }
                if binding.home == home {
                    return Change::Refreshed;
                }
                self.move_binding(key, binding, home, MoveReason::Relearned, now, due)
            },
            || {
                if !self.ledger.learned(home, now) {
                    return (None, Change::None);
                }
                if flags.unlearned {
                    self.counters.unlearned.fetch_add(1, Relaxed);
                }
                (Some(Binding::new(home, now, due, flags)), Change::Learned)
            },
        );
        match change {
            Change::None => return Settled::NONE,
            Change::Refreshed => self.touch_live(settings, key, now),
            _ => self.schedule_live(key, due),
        }
        Settled { key: Some(key), change }
    }

    /// A session finds a new home.
    pub(super) fn rehome(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        reason: MoveReason,
        now: Tick,
    ) -> Settled {
        let home = Home { slot: member.slot(), generation: member.generation() };
        let due = first_due(settings, now);
        let moved = self.table.change(key, |binding| {
            let change = if binding.home == home || binding.flags.leaving {
                Change::Touched
            } else {
                self.move_binding(key, binding, home, reason, now, due)
            };
            (Keep::Yes, change)
        });
        match moved {
            Some(change) => {
                if change == Change::Moved {
                    self.schedule_live(key, due);
                }
                Settled { key: Some(key), change }
            }
            // It ended meanwhile, but its client still has it.
            None => self.bind(settings, member, key, Flags::default(), now),
        }
    }

    /// Under the lock of the binding's shard.
    fn move_binding(
        &self,
        key: SessionKey,
        binding: &mut Binding,
        to: Home,
        reason: MoveReason,
        now: Tick,
        due: Tick,
    ) -> Change {
        if !self.ledger.moved(binding, to, reason, now) {
            return Change::None;
        }
        let step = Move { from: binding.home.slot, to: to.slot, reason, at: now };
        self.rare.change(key, |extra| extra.moved(step));
        binding.home = to;
        binding.flags.rare = true;
        binding.flags.retained = false;
        binding.due = due;
        binding.touch(now);
        Change::Moved
    }

    /// The session is known by another id from now on. The old one leads to it for a while, since requests
    /// that were under way still carry it. When the answer's own request carried an even older one, two
    /// parallel answers each set an id, and nobody here knows which of them the client kept: then the one
    /// that is replaced leads to the session for as long as that lives.
    #[expect(clippy::too_many_arguments, reason = "one call, each argument a fact of its own")]
    fn rename(
        &self,
        settings: &Settings,
        member: &Member,
        old: SessionKey,
        new: SessionKey,
        parallel: bool,
        lasts: Option<Duration>,
        now: Tick,
    ) -> Settled {
        let until = now.after(if parallel { settings.ttl } else { settings.grace });
        let due = first_due(settings, now);
        // The old one stays in the table until its successor is there: who looks in between finds it.
        let copy = self.table.change(old, |binding| {
            if binding.flags.leaving || !self.ledger.renamed(binding, now) {
                return (Keep::Yes, None);
            }
            binding.flags.leaving = true;
            let flags = Flags { retained: false, unlearned: false, leaving: false, ..binding.flags };
            if binding.flags.unlearned {
                self.counters.unlearned.fetch_sub(1, Relaxed);
            }
            self.after.remember(old, Kind::Renamed(new), until);
            let mut copy = Binding::new(binding.home, now, due, flags);
            copy.created = binding.created;
            (Keep::Yes, Some(copy))
        });
        let Some(Some(copy)) = copy else {
            return self.learn(settings, member, new, lasts, now);
        };
        let home = copy.home;
        if let Some(extra) = self.rare.take(old) {
            self.rare.put(new, extra);
        }
        let twin = self.table.upsert(
            new,
            |_| Some(Binding::new(home, now, due, Flags::default())),
            || (Some(copy), None),
        );
        self.table.change(old, |_| (Keep::No, ()));
        self.after.forget(new);
        if let Some(renamed) = twin {
            // Somebody bound the new key meanwhile: two sessions have become one.
            self.ledger.ended(&renamed, EndReason::Logout);
            return Settled { key: Some(new), change: Change::Refreshed };
        }
        self.schedule_live(new, due);
        self.lengthen(settings, new, lasts);
        if home.slot != member.slot() {
            self.rehome(settings, member, new, MoveReason::Relearned, now);
        }
        Settled { key: Some(new), change: Change::Renamed }
    }

    /// A client that uses a replaced id well after it was replaced, and is served, never got the new one.
    fn prolong(&self, settings: &Settings, alias: SessionKey, key: SessionKey, now: Tick) {
        let soon = now.after(settings.grace / 2);
        if self.after.find(alias, now).is_some() && self.after.find(alias, soon).is_none() {
            self.after.remember(alias, Kind::Renamed(key), now.after(settings.ttl));
        }
    }

    /// The key by which a session is known now; none when it has ended.
    fn current(&self, key: SessionKey, now: Tick) -> Option<SessionKey> {
        for _ in 0..MAX_LOOKS {
            match self.table.look(key, |binding| binding.flags.leaving) {
                Some(false) => return Some(key),
                // Another thread is between making its successor and taking it out.
                Some(true) => std::thread::yield_now(),
                None => break,
            }
        }
        self.resolved(key, now)
    }

    pub(super) fn resolved(&self, key: SessionKey, now: Tick) -> Option<SessionKey> {
        match self.resolve(key, now)? {
            Kind::Renamed(key) => Some(key),
            Kind::Ended(_) => None,
        }
    }

    /// A cookie that lasts longer than the TTL lengthens that of its binding.
    fn lengthen(&self, settings: &Settings, key: SessionKey, lasts: Option<Duration>) {
        let Some(lasts) = lasts.filter(|lasts| *lasts > settings.ttl) else { return };
        self.counters.long_cookies.fetch_add(1, Relaxed);
        self.counters.longest_cookie.fetch_max(lasts.as_secs(), Relaxed);
        let ttl = lasts.min(settings.max_ttl);
        if ttl <= settings.ttl {
            return;
        }
        self.table.change(key, |binding| {
            binding.flags.rare = true;
            self.rare.change(key, |extra| extra.ttl = Some(ttl));
            (Keep::Yes, ())
        });
    }

    /// An expired id that is still good says how long the TTL should have been.
    fn count_late(&self, key: SessionKey, now: Tick) {
        if let Some(expired) = self.late.take(key) {
            self.counters.late.fetch_add(1, Relaxed);
            self.counters.latest.fetch_max(now.since(expired.last_seen).as_secs(), Relaxed);
        }
    }
}

// === impl Settled ===

impl Settled {
    const NONE: Self = Self { key: None, change: Change::None };
}

/// When a session that has just been seen is to be looked at again.
pub(super) fn first_due(settings: &Settings, now: Tick) -> Tick {
    let idle = now.after(settings.session_timeout);
    settings.max_age.map_or(idle, |age| idle.min(now.after(age)))
}
