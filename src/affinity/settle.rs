//! What an answer changes: learn, confirm, refresh, rename, move, end.

use super::{
    Affinity, Claim, Effect, Effects, EndReason, Keys, Member, MoveReason, Roster, Scope, SessionKey,
    Settings, Slot, Tick,
    afterlife::Kind,
    decide::ClaimKind,
    placement::What,
    rename::NewId,
    table::{Flags, Home},
};

/// A backend's answer, as far as affinity is concerned.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Who answered.
    pub slot: Slot,
    /// Its status.
    pub status: u16,
    /// What it says about sessions.
    pub effects: &'a Effects,
    /// The ids that the request carried.
    pub keys: &'a Keys,
    /// The only time.
    pub now: Tick,
}

/// What came of it for the session that the response is about: one that it begins or renames, else the one of
/// its request.
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

impl Affinity {
    /// Lets an answer take effect. To be called before the head of the answer goes on to the client, whose
    /// next request may otherwise come before the binding.
    pub fn settle(&self, settings: &Settings, roster: &Roster, claim: Claim, answer: &Answer<'_>) -> Settled {
        let settled = match roster.member(answer.slot) {
            Some(member) => self.settle_at(settings, member, claim.kind, answer),
            None => Settled::NONE,
        };
        if claim.guessed {
            self.turns.was(if settled.key.is_some() { What::Session } else { What::Request });
        }
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
        let (effects, now) = (answer.effects, answer.now);
        let silent = effects.is_silent();
        if let ClaimKind::Known { key, alias: None } = claim
            && silent
            && let Some(settled) = self.settle_silent(settings, member, key, now)
        {
            // Nearly every answer: one look, no more.
            return settled;
        }
        if let ClaimKind::Known { key, alias } | ClaimKind::Moving { key, alias, .. } = claim {
            // A replaced id was in use until now, however long the answer took.
            for earlier in [Some(key), alias].into_iter().flatten() {
                if let Some((Kind::Renamed(key), until)) = self.led(earlier, now)
                    && self.table.contains(key)
                {
                    self.prolong(settings, earlier, until, key, now);
                }
            }
        }
        match claim {
            ClaimKind::Known { key, .. } => self.settle_known(settings, member, key, answer),
            ClaimKind::Moving { key, from, reason, .. } => {
                self.settle_moving(settings, member, key, from, reason, answer)
            }
            // Whatever the answer, that this is its home does not depend on it.
            ClaimKind::Vouched { key } if silent => self.vouch(settings, member, key, now),
            ClaimKind::Unknown { key } if silent && answer.status < 400 => {
                self.confirm(settings, member, key, answer.keys, now)
            }
            ClaimKind::Unknown { key } => match self.learn_all(settings, member, effects, Some(key), now) {
                Settled::NONE => Settled { key: None, change: Change::Forgotten },
                settled => settled,
            },
            ClaimKind::Free | ClaimKind::Ending | ClaimKind::Vouched { .. } => {
                self.learn_all(settings, member, effects, None, now)
            }
            ClaimKind::Skipped => self.settle_skipped(settings, member, effects, now),
        }
    }

    /// Sessions begin here, whatever the request came with; deletions are of cookies that it did not send.
    fn learn_all(
        &self,
        settings: &Settings,
        member: &Member,
        effects: &Effects,
        unknown: Option<SessionKey>,
        now: Tick,
    ) -> Settled {
        let mut settled = Settled::NONE;
        for effect in effects.iter() {
            let Effect::Set { key, scope, lasts } = effect else { continue };
            if unknown == Some(key) {
                self.count_late(key, now);
            }
            settled = self.learn(settings, member, NewId { key, scope, lasts }, now);
        }
        settled
    }

    /// A request that was placed freely is no reason to move a session that is known: a backend may set an id
    /// again that it only read.
    fn settle_skipped(&self, settings: &Settings, member: &Member, effects: &Effects, now: Tick) -> Settled {
        let mut settled = Settled::NONE;
        for effect in effects.iter() {
            let Effect::Set { key, scope, lasts } = effect else { continue };
            settled = if self.table.contains(key) {
                self.touch_live(settings, key, now);
                Settled { key: Some(key), change: Change::Touched }
            } else {
                self.learn(settings, member, NewId { key, scope, lasts }, now)
            };
        }
        settled
    }

    /// A session moves only when its new backend could do something with it. One that ends, ends where it was:
    /// what the new backend says is that it has no use for it.
    fn settle_moving(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        from: Option<Home>,
        reason: MoveReason,
        answer: &Answer<'_>,
    ) -> Settled {
        let now = answer.now;
        let sets = answer.effects.iter().any(|effect| matches!(effect, Effect::Set { .. }));
        if !sets && !answer.effects.is_silent() {
            let settled = self.settle_known(settings, member, key, answer);
            if settled.change == Change::Ended {
                return settled;
            }
        }
        if !sets && answer.status >= 500 {
            return Settled::NONE;
        }
        if sets && !self.table.contains(self.current(key, now).unwrap_or(key)) {
            // Nothing is left to move, and its client has another id now.
            return self.learn_all(settings, member, answer.effects, None, now);
        }
        let moved = self.rehome(settings, member, key, from, reason, now);
        if !sets {
            return moved;
        }
        match self.settle_known(settings, member, key, answer) {
            Settled { change: Change::Refreshed | Change::Touched, .. } if moved.change == Change::Moved => {
                moved
            }
            settled => settled,
        }
    }

    /// Each thing that a response says is about the session whose id came in the same cookie; a cookie that did
    /// not come with the request is a session beside.
    fn settle_known(
        &self,
        settings: &Settings,
        member: &Member,
        key: SessionKey,
        answer: &Answer<'_>,
    ) -> Settled {
        let now = answer.now;
        // A parallel answer may have renamed it meanwhile; then this one is about the same session.
        let mut key = self.current(key, now).unwrap_or(key);
        let mut settled = self.settle_silent(settings, member, key, now).unwrap_or(Settled::NONE);
        for effect in answer.effects.iter() {
            let kept = self.kept_in(effect.scope(), key, answer.keys, now);
            match effect {
                Effect::Set { key: set, scope, lasts } => {
                    let new = NewId { key: set, scope, lasts };
                    // The client sent it beside the known one: it keeps both, and they are two sessions.
                    let beside = answer.keys.as_slice().contains(&set) && self.table.contains(set);
                    settled = match kept {
                        // A parallel answer may have set it already.
                        Some(old) if set != key && set != old && !beside => {
                            let settled = self.replace(settings, member, old, new, now);
                            key = if old == key { settled.key.unwrap_or(key) } else { key };
                            settled
                        }
                        _ => self.learn(settings, member, new, now),
                    };
                }
                Effect::Deleted { .. } => {
                    if let Some(old) = kept
                        && self.end(settings, old, EndReason::Logout, now).is_some()
                        && old == key
                    {
                        settled = Settled { key: None, change: Change::Ended };
                    }
                }
            }
        }
        settled
    }

    /// The session of a request whose id its client keeps in this scope.
    fn kept_in(&self, scope: Scope, first: SessionKey, keys: &Keys, now: Tick) -> Option<SessionKey> {
        if !scope.is_known() {
            return None;
        }
        let is_kept = |key| self.table.look(key, |binding| binding.scope == scope) == Some(true);
        if is_kept(first) {
            return Some(first);
        }
        keys.as_slice().iter().filter_map(|&key| self.current(key, now)).find(|&key| is_kept(key))
    }

    /// A session gets another id.
    fn replace(
        &self,
        settings: &Settings,
        member: &Member,
        mut old: SessionKey,
        new: NewId,
        now: Tick,
    ) -> Settled {
        loop {
            if let Some(settled) = self.rename(settings, member, old, new, now) {
                return settled;
            }
            // It ended, or another answer renamed it a moment ago.
            match self.resolved(old, now) {
                Some(next) if next != new.key && next != old => old = next,
                _ => return self.learn(settings, member, new, now),
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
        let flags = flags.filter(|flags| !flags.has(Flags::LEAVING))?;
        if flags.has(Flags::RETAINED) {
            self.revive(settings, key, now);
        }
        Some(Settled { key: Some(key), change: Change::Touched })
    }
}

// === impl Settled ===

impl Settled {
    pub(super) const NONE: Self = Self { key: None, change: Change::None };
}
