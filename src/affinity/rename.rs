//! One session, several ids: what replaces an id, and where the replaced one leads.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Affinity, Change, EndReason, Member, MoveReason, Scope, SessionKey, Settings, Settled, Tick,
    afterlife::Kind,
    rare::Extra,
    table::{Binding, Flags, Keep},
};

/// Steps that lead from a replaced id to its session, at most.
const MAX_STEPS: usize = 8;

/// The id that a response gives a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewId {
    pub(super) key: SessionKey,
    pub(super) scope: Scope,
    pub(super) lasts: Option<Duration>,
}

impl Affinity {
    /// The session is known by another id from now on; none when there is none. The old one leads to it for as
    /// long as that is used, or might be: only the client knows whether it got the new one.
    pub(super) fn rename(
        &self,
        settings: &Settings,
        member: &Member,
        old: SessionKey,
        new: NewId,
        now: Tick,
    ) -> Option<Settled> {
        let NewId { key: new, scope, lasts } = new;
        // The old one stays in the table until its successor is there: who looks in between finds it.
        let (copy, extra, until) = self
            .alter(old, |binding| {
                let at = now.max(binding.last_seen());
                if !self.ledger.renamed(binding, at) {
                    return (Keep::Yes, None);
                }
                if binding.flags.has(Flags::UNLEARNED) {
                    self.counters.unlearned.fetch_sub(1, Relaxed);
                }
                let extra = if binding.flags.has(Flags::RARE) { self.rare.take(old) } else { None };
                let ttl = extra.as_ref().and_then(|extra| extra.ttl);
                let until = self.alias_until(settings, ttl, now);
                if let Some(extra) = &extra {
                    extra.renamed(new);
                }
                let due = self.first_due(settings, binding.created, now);
                let flags = Flags::NONE.with(Flags::RARE, extra.is_some());
                let mut copy = Binding::new(binding.home, at, due, scope, flags);
                copy.created = binding.created;
                binding.flags = Flags::LEAVING;
                (Keep::Yes, Some((copy, extra, until)))
            })
            .flatten()?;
        let (home, due) = (copy.home, copy.due);
        let twin = self.put_renamed(new, copy, extra);
        // Earlier ids lead to the old one until then, which is in the table, too.
        self.aliases.rename(old, new, until, settings.max_sessions.get());
        // Unless another session has got this id meanwhile.
        self.table.change(old, |binding| {
            (if binding.flags.has(Flags::LEAVING) { Keep::No } else { Keep::Yes }, ())
        });
        self.after.forget(new);
        self.journal.changed(old);
        self.journal.changed(new);
        if twin {
            // Somebody bound the new key before: two sessions have become one.
            return Some(self.learn(settings, member, NewId { key: new, scope, lasts }, now));
        }
        self.schedule_live(new, due);
        self.lengthen(settings, new, lasts);
        if home.slot != member.slot() {
            self.rehome(settings, member, new, None, MoveReason::Relearned, now);
        }
        Some(Settled { key: Some(new), change: Change::Renamed })
    }

    /// Puts a renamed binding in; true when the key is bound already: then the one that was there lives on,
    /// and has the other's streams. One that is just leaving is replaced: to wait for it could be to wait
    /// for one another, when two sessions swap their ids.
    fn put_renamed(&self, key: SessionKey, copy: Binding, extra: Option<Extra>) -> bool {
        self.table.upsert_with(
            key,
            &mut Some((copy, extra)),
            |put, binding| {
                let Some((copy, extra)) = put.take() else { return false };
                if binding.flags.has(Flags::LEAVING) {
                    *binding = copy;
                    if let Some(extra) = extra {
                        self.rare.put(key, extra);
                    }
                    return false;
                }
                if let Some(extra) = extra {
                    binding.flags.set(Flags::RARE, true);
                    self.rare.change(key, |own| own.adopt(extra));
                }
                self.ledger.ended(&copy, EndReason::Logout);
                true
            },
            |put| {
                let (copy, extra) = put.take().unzip();
                if let Some(extra) = extra.flatten() {
                    self.rare.put(key, extra);
                }
                (copy, false)
            },
        )
    }

    /// Until when a replaced id of a session with this TTL of its own is remembered, if it is used now.
    pub(super) fn alias_until(&self, settings: &Settings, own_ttl: Option<Duration>, now: Tick) -> Tick {
        now.after(settings.ttl.max(own_ttl.unwrap_or_default().min(settings.max_ttl)))
    }

    /// A request came with a replaced id of the session that has this key now.
    pub(super) fn prolong(
        &self,
        settings: &Settings,
        alias: SessionKey,
        until: Tick,
        key: SessionKey,
        now: Tick,
    ) {
        let rare = self.table.look(key, |binding| binding.flags.has(Flags::RARE)) == Some(true);
        let own_ttl = if rare { self.rare.of(key).ttl } else { None };
        let later = self.alias_until(settings, own_ttl, now);
        // Not at every request: each time is an entry to expire, and one to write down.
        if later.since(until) > settings.ttl / 8 {
            self.aliases.prolong(alias, later, settings.max_sessions.get());
            self.journal.changed(alias);
        }
    }

    /// The key by which a session is known now; none when it has ended.
    pub(super) fn current(&self, key: SessionKey, now: Tick) -> Option<SessionKey> {
        while let Some(leaving) = self.table.look(key, |binding| binding.flags.has(Flags::LEAVING)) {
            if !leaving {
                return Some(key);
            }
            // Another thread is between making its successor and taking it out.
            std::thread::yield_now();
        }
        self.resolved(key, now)
    }

    pub(super) fn resolved(&self, key: SessionKey, now: Tick) -> Option<SessionKey> {
        match self.led(key, now)? {
            (Kind::Renamed(key), _) => Some(key),
            (Kind::Ended(_), _) => None,
        }
    }

    /// Where a replaced id leads. That is one step but for ids of sessions that became one while they were renamed.
    pub(super) fn led(&self, key: SessionKey, now: Tick) -> Option<(Kind, Tick)> {
        let (mut kind, until) = self.aliases.find(key, now)?;
        for _ in 0..MAX_STEPS {
            match kind {
                Kind::Renamed(next) if !self.table.contains(next) => match self.aliases.find(next, now) {
                    Some((further, _)) if further != kind => kind = further,
                    _ => break,
                },
                _ => break,
            }
        }
        Some((kind, until))
    }
}
