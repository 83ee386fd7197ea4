//! One session, several ids: what replaces an id, and where the replaced one leads.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Affinity, Change, EndReason, Member, MoveReason, SessionKey, Settings, Settled, Tick,
    afterlife::Kind,
    rare::Extra,
    table::{Binding, Flags, Keep},
};

impl Affinity {
    /// The session is known by another id from now on; none when there is none. The old one leads to it for
    /// a while, since requests that were under way still carry it. When the answer's own request carried an
    /// even older one, two parallel answers each set an id, and nobody here knows which of them the client
    /// kept: then the one that is replaced leads to the session for as long as that lives.
    #[expect(clippy::too_many_arguments, reason = "one call, each argument a fact of its own")]
    pub(super) fn rename(
        &self,
        settings: &Settings,
        member: &Member,
        old: SessionKey,
        new: SessionKey,
        parallel: bool,
        lasts: Option<Duration>,
        now: Tick,
    ) -> Option<Settled> {
        // The old one stays in the table until its successor is there: who looks in between finds it.
        let (copy, extra) = self
            .alter(old, |binding| {
                let at = now.max(binding.last_seen());
                if !self.ledger.renamed(binding, at) {
                    return (Keep::Yes, None);
                }
                if binding.flags.unlearned {
                    self.counters.unlearned.fetch_sub(1, Relaxed);
                }
                self.remember_renamed(settings, old, new, parallel, now);
                let extra = if binding.flags.rare { self.rare.take(old) } else { None };
                if let Some(extra) = &extra {
                    extra.renamed(new);
                }
                let due = self.first_due(settings, binding.created, now);
                let flags = Flags { rare: extra.is_some(), ..Flags::default() };
                let mut copy = Binding::new(binding.home, at, due, flags);
                copy.created = binding.created;
                binding.flags = Flags { leaving: true, ..Flags::default() };
                (Keep::Yes, Some((copy, extra)))
            })
            .flatten()?;
        let (home, due) = (copy.home, copy.due);
        let twin = self.put_renamed(new, copy, extra);
        // Unless another session has got this id meanwhile.
        self.table.change(old, |binding| (if binding.flags.leaving { Keep::No } else { Keep::Yes }, ()));
        self.after.forget(new);
        self.journal.changed(old);
        self.journal.changed(new);
        if twin {
            // Somebody bound the new key before: two sessions have become one.
            return Some(self.learn(settings, member, new, lasts, now));
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
                if binding.flags.leaving {
                    *binding = copy;
                    if let Some(extra) = extra {
                        self.rare.put(key, extra);
                    }
                    return false;
                }
                if let Some(extra) = extra {
                    binding.flags.rare = true;
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

    fn remember_renamed(
        &self,
        settings: &Settings,
        old: SessionKey,
        new: SessionKey,
        lasts: bool,
        now: Tick,
    ) {
        let (short, long) = (now.after(settings.grace), now.after(settings.ttl));
        if lasts {
            self.after.remember_long(old, Kind::Renamed(new), long.max(short), short);
        } else {
            self.after.remember(old, Kind::Renamed(new), short);
        }
    }

    /// A client that uses a replaced id well after it was replaced, and is `served`, never got the new one:
    /// that id leads to the session from now on, for as long as either is used. One that lasts already, does
    /// so whenever it is used.
    pub(super) fn prolong(
        &self,
        settings: &Settings,
        alias: SessionKey,
        key: SessionKey,
        served: bool,
        now: Tick,
    ) {
        let Some(past) = self.after.find(alias, now) else { return };
        let left = past.until.since(now);
        let prolongs = if past.lasting {
            left < settings.ttl - settings.ttl / 8
        } else {
            served && left <= settings.grace / 2
        };
        if prolongs && alias != key && matches!(past.kind, Kind::Renamed(_)) {
            self.remember_renamed(settings, alias, key, true, now);
            self.journal.changed(alias);
        }
    }

    /// The key by which a session is known now; none when it has ended.
    pub(super) fn current(&self, key: SessionKey, now: Tick) -> Option<SessionKey> {
        while let Some(leaving) = self.table.look(key, |binding| binding.flags.leaving) {
            if !leaving {
                return Some(key);
            }
            // Another thread is between making its successor and taking it out.
            std::thread::yield_now();
        }
        self.resolved(key, now)
    }

    pub(super) fn resolved(&self, key: SessionKey, now: Tick) -> Option<SessionKey> {
        match self.resolve(key, now)? {
            Kind::Renamed(key) => Some(key),
            Kind::Ended(_) => None,
        }
    }
}
