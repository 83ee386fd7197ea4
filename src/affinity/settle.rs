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

/// How a key comes to be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A backend set it, or the proxy's own cookie vouches for it.
    Set,
    /// A backend accepted it, and nobody knows who made it.
    Accepted,
    /// No backend ever sets it: a token, an address.
    Client,
}

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
            (ClaimKind::Skipped, _) => Settled::NONE,
            (ClaimKind::Free | ClaimKind::Ending, Effect::Set { key, lasts }) => {
                self.learn(settings, member, key, lasts, now)
            }
            (ClaimKind::Free | ClaimKind::Ending, Effect::Silent | Effect::Deleted) => Settled::NONE,
            // Nearly every answer: one look, no more.
            (ClaimKind::Known { key, alias: None }, Effect::Silent)
                if let Some(settled) = self.settle_silent(settings, member, key, now) =>
            {
                settled
            }
            (ClaimKind::Known { key, alias }, _) => self.settle_known(settings, member, key, alias, answer),
            // It ends where it was: what its new backend says of it is that it has no use for it.
            (ClaimKind::Moving { key, alias, .. }, Effect::Deleted) => {
                self.settle_known(settings, member, key, alias, answer)
            }
            // A session moves only when its new backend could do something with it.
            (ClaimKind::Moving { .. }, Effect::Silent) if answer.status >= 500 => Settled::NONE,
            (ClaimKind::Moving { key, alias, from, reason }, Effect::Silent) => {
                let settled = self.rehome(settings, member, key, from, reason, now);
                if let (Some(alias), Some(key)) = (alias, settled.key) {
                    self.prolong(settings, alias, key, answer.status < 400, now);
                }
                settled
            }
            (ClaimKind::Moving { key, alias, from, reason }, Effect::Set { .. }) => {
                let moved = self.rehome(settings, member, key, from, reason, now);
                match self.settle_known(settings, member, key, alias, answer) {
                    Settled { change: Change::Refreshed, .. } if moved.change == Change::Moved => moved,
                    settled => settled,
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
                self.confirm(settings, member, key, answer.keys.is_client_made(), now)
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
        answer: &Answer<'_>,
    ) -> Settled {
        let now = answer.now;
        // A parallel answer may have renamed it meanwhile; then this one is about the same session.
        let (key, alias) = match self.current(key, now) {
            Some(current) if current == key => (key, alias),
            Some(current) => (current, alias.or(Some(key))),
            None => (key, alias),
        };
        match answer.effect {
            Effect::Silent => {
                if let Some(alias) = alias {
                    self.prolong(settings, alias, key, answer.status < 400, now);
                }
                self.settle_silent(settings, member, key, now).unwrap_or(Settled::NONE)
            }
            Effect::Deleted => {
                let home = self.table.look(key, |binding| binding.home);
                if self.end(settings, key, EndReason::Logout, now).is_none() {
                    return Settled::NONE;
                }
                if let (Some(home), Some(alias)) = (home, alias) {
                    self.after.remember(alias, Kind::Ended(home), now.after(settings.grace));
                }
                Settled { key: None, change: Change::Ended }
            }
            Effect::Set { key: set, lasts } => {
                // The client sent it beside the known one: it keeps both, and they are two sessions.
                let beside = answer.keys.as_slice().contains(&set) && alias != Some(set);
                if set == key || (beside && self.table.contains(set)) {
                    return self.learn(settings, member, set, lasts, now);
                }
                let (mut old, mut parallel) = (key, alias.is_some());
                loop {
                    if let Some(settled) = self.rename(settings, member, old, set, parallel, lasts, now) {
                        return settled;
                    }
                    // It ended, or another answer renamed it a moment ago.
                    match self.resolved(old, now) {
                        Some(next) if next != set && next != old => (old, parallel) = (next, true),
                        _ => return self.learn(settings, member, set, lasts, now),
                    }
                }
            }
        }
    }

    /// The session with this very key was seen again; none when there is none, or it is just being renamed.
    fn settle_silent(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        now: Tick,
    ) -> Option<Settled> {
        let flags = self.table.look(key, |binding| {
            self.sign_of_life(binding, Some(member).filter(|m| m.slot() == binding.home.slot), now);
            binding.flags
        });
        let flags = flags.filter(|flags| !flags.leaving)?;
        if flags.retained {
            self.revive(settings, key, now);
        }
        Some(Settled { key: Some(key), change: Change::Touched })
    }

    /// Binds a key to who answered. A key that is bound already is refreshed, or moves there: whoever
    /// sets a cookie to an id owns that session.
    pub(super) fn learn(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        lasts: Option<Duration>,
        now: Tick,
    ) -> Settled {
        let settled = self.bind(settings, member, key, Origin::Set, now);
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
        match self.after.find(key, now).map(|past| past.kind) {
            // It ended while this request was under way, or its home went within the grace.
            Some(Kind::Ended(_)) => return Settled { key: None, change: Change::Forgotten },
            Some(Kind::Renamed(_)) => {
                let key = self.current(key, now);
                return Settled { key, change: if key.is_some() { Change::Touched } else { Change::None } };
            }
            None => self.count_late(key, now),
        }
        if !made_by_client && !self.table.contains(key) {
            let max = settings.max_sessions.get();
            let quota = (max / UNLEARNED_SHARE).max(MIN_UNLEARNED).min(max.div_ceil(2));
            if self.counters.unlearned.load(Relaxed) >= quota || self.table.len() >= max {
                self.counters.over_quota.fetch_add(1, Relaxed);
                return Settled { key: None, change: Change::Forgotten };
            }
        }
        let origin = if made_by_client { Origin::Client } else { Origin::Accepted };
        let settled = self.bind(settings, member, key, origin, now);
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
        origin: Origin,
        now: Tick,
    ) -> Settled {
        let home = Home { slot: member.slot(), generation: member.generation() };
        if !self.table.contains(key) {
            // Nobody makes room for a session of a backend that was forgotten meanwhile.
            if !self.ledger.knows(home) {
                return Settled::NONE;
            }
            if !self.make_room(settings, now) {
                self.counters.full.fetch_add(1, Relaxed);
                return Settled { key: None, change: Change::Full };
            }
        }
        let unlearned = origin == Origin::Accepted;
        let (change, due) = loop {
            let done = self.table.upsert(
                key,
                |binding| {
                    if binding.flags.leaving {
                        return None;
                    }
                    if binding.flags.unlearned && origin == Origin::Set {
                        binding.flags.unlearned = false;
                        self.counters.unlearned.fetch_sub(1, Relaxed);
                    }
                    let due = self.first_due(settings, binding.created, now);
                    // Of parallel requests with an id that nobody knew, the first answer decides.
                    Some(if binding.home == home || origin != Origin::Set {
                        (Change::Refreshed, due)
                    } else {
                        (self.move_binding(key, binding, home, (MoveReason::Relearned, now), now, due), due)
                    })
                },
                || {
                    let due = self.first_due(settings, now, now);
                    if !self.ledger.learned(home, now) {
                        return (None, Some((Change::None, due)));
                    }
                    if unlearned {
                        self.counters.unlearned.fetch_add(1, Relaxed);
                    }
                    let flags = Flags { unlearned, ..Flags::default() };
                    (Some(Binding::new(home, now, due, flags)), Some((Change::Learned, due)))
                },
            );
            match done {
                Some(done) => break done,
                None => std::thread::yield_now(),
            }
        };
        match change {
            Change::None => return Settled::NONE,
            Change::Refreshed => self.touch_live(settings, key, now),
            _ => {
                self.schedule_live(key, due);
                self.journal.changed(key);
            }
        }
        // After it is in the table: who looks in between finds the one or the other.
        self.after.forget(key);
        Settled { key: Some(key), change }
    }

    /// A session finds a new home, if it is still at `from`.
    pub(super) fn rehome(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        from: Option<Home>,
        reason: MoveReason,
        now: Tick,
    ) -> Settled {
        let key = self.current(key, now).unwrap_or(key);
        let home = Home { slot: member.slot(), generation: member.generation() };
        let moved = self.alter(key, |binding| {
            let due = self.first_due(settings, binding.created, now);
            let change = if binding.home == home || from.is_some_and(|from| from != binding.home) {
                Change::Touched
            } else {
                self.move_binding(key, binding, home, (reason, now), now, due)
            };
            (Keep::Yes, (change, due))
        });
        match moved {
            Some((Change::Moved, due)) => {
                self.schedule_live(key, due);
                self.journal.changed(key);
                Settled { key: Some(key), change: Change::Moved }
            }
            Some((change, _)) => {
                self.touch_live(settings, key, now);
                Settled { key: Some(key), change }
            }
            // It was logged out meanwhile.
            None if self.after.find(key, now).is_some() => Settled::NONE,
            // It expired, or made room, but its client still has it.
            None => self.bind(settings, member, key, Origin::Set, now),
        }
    }

    /// Under the lock of the binding's shard. `step` is why it moves, and when it did.
    pub(super) fn move_binding(
        &self,
        key: SessionKey,
        binding: &mut Binding,
        to: Home,
        step: (MoveReason, Tick),
        now: Tick,
        due: Tick,
    ) -> Change {
        let (reason, moved) = step;
        let at = now.max(binding.last_seen());
        if !self.ledger.moved(binding, to, reason, at) {
            return Change::None;
        }
        let step = Move { from: binding.home.slot, to: to.slot, reason, at: moved };
        self.rare.change(key, |extra| extra.moved(step));
        binding.home = to;
        binding.flags.rare = true;
        binding.flags.retained = false;
        binding.due = due;
        binding.touch(at);
        Change::Moved
    }

    /// A cookie that lasts longer than the TTL lengthens that of its binding.
    pub(super) fn lengthen(&self, settings: &Settings, key: SessionKey, lasts: Option<Duration>) {
        let Some(lasts) = lasts.filter(|lasts| *lasts > settings.ttl) else { return };
        self.counters.long_cookies.fetch_add(1, Relaxed);
        self.counters.longest_cookie.fetch_max(lasts.as_secs(), Relaxed);
        let ttl = lasts.min(settings.max_ttl);
        if ttl <= settings.ttl {
            return;
        }
        let before = self.alter(key, |binding| {
            binding.flags.rare = true;
            (Keep::Yes, self.rare.change(key, |extra| extra.ttl.replace(ttl)))
        });
        // Applications that set the cookie with every answer change nothing by it.
        if before.is_some_and(|before| before != Some(ttl)) {
            self.journal.changed(key);
        }
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
