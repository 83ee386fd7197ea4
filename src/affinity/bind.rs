//! How a session comes to be bound, and to another home: what every answer comes down to.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Affinity, KeySource, Keys, Member, MoveReason, Scope, SessionKey, Settings, Tick,
    afterlife::Kind,
    rare::Move,
    rename::NewId,
    settle::{Change, Settled},
    table::{Binding, Flags, Home, Keep},
};

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
    /// Binds a key to who answered. A key that is bound already is refreshed, or moves there: whoever
    /// sets a cookie to an id owns that session.
    pub(super) fn learn(&self, settings: &Settings, member: &Member, new: NewId, now: Tick) -> Settled {
        let settled = self.bind(settings, member, new.key, new.scope, Origin::Set, now);
        if settled.key.is_some() {
            self.lengthen(settings, new.key, new.lasts);
        }
        settled
    }

    /// Binds an id that a backend accepted without setting it: what a proxy that lost its table sees of
    /// real sessions, and what anybody can make up. Such bindings have a quota and displace nothing.
    pub(super) fn confirm(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        keys: &Keys,
        now: Tick,
    ) -> Settled {
        match self.resolve(key, now) {
            // It ended while this request was under way, or its home went within the grace.
            Some((Kind::Ended(_), _)) => return Settled { key: None, change: Change::Forgotten },
            Some((Kind::Renamed(_), _)) => {
                let key = self.current(key, now);
                return Settled { key, change: if key.is_some() { Change::Touched } else { Change::None } };
            }
            None => self.count_late(key, now),
        }
        let made_by_client = keys.is_client_made();
        if !made_by_client && !self.table.contains(key) {
            let max = settings.max_sessions.get();
            let quota = (max / UNLEARNED_SHARE).max(MIN_UNLEARNED).min(max.div_ceil(2));
            if self.counters.unlearned.load(Relaxed) >= quota || self.table.len() >= max {
                self.counters.over_quota.fetch_add(1, Relaxed);
                return Settled { key: None, change: Change::Forgotten };
            }
        }
        let origin = if made_by_client { Origin::Client } else { Origin::Accepted };
        // An id from a header field is in no cookie; of one from a cookie, only its backend knows which.
        let source = keys.source().and_then(|at| settings.keys.get(at));
        let scope = if matches!(source, Some(KeySource::Header(_))) { Scope::WHOLE } else { Scope::UNKNOWN };
        let settled = self.bind(settings, member, key, scope, origin, now);
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
        scope: Scope,
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
                    if binding.flags.has(Flags::LEAVING) {
                        return None;
                    }
                    if binding.flags.has(Flags::UNLEARNED) && origin == Origin::Set {
                        binding.flags.set(Flags::UNLEARNED, false);
                        self.counters.unlearned.fetch_sub(1, Relaxed);
                    }
                    binding.scope = binding.scope.and(scope);
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
                    let flags = Flags::NONE.with(Flags::UNLEARNED, unlearned);
                    (Some(Binding::new(home, now, due, scope, flags)), Some((Change::Learned, due)))
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
        self.aliases.forget(key);
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
            None if self.resolve(key, now).is_some() => Settled::NONE,
            // It expired, or made room, but its client still has it.
            None => self.bind(settings, member, key, Scope::UNKNOWN, Origin::Set, now),
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
        binding.flags.set(Flags::RARE, true);
        binding.flags.set(Flags::RETAINED, false);
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
            binding.flags.set(Flags::RARE, true);
            (Keep::Yes, self.rare.change(key, |extra| extra.ttl.replace(ttl)))
        });
        // Applications that set the cookie with every answer change nothing by it.
        if before.is_some_and(|before| before != Some(ttl)) {
            self.journal.changed(key);
        }
    }

    /// An expired id that is still good says how long the TTL should have been.
    pub(super) fn count_late(&self, key: SessionKey, now: Tick) {
        if let Some(expired) = self.late.take(key) {
            self.counters.late.fetch_add(1, Relaxed);
            self.counters.latest.fetch_max(now.since(expired.last_seen).as_secs(), Relaxed);
        }
    }
}
