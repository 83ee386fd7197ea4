//! Where a request goes. Looks, touches, and pins; binds nothing.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    Affinity, EndReason, Keys, Member, MoveReason, OnDown, OnUnknown, Reason, Roster, SessionKey, Settings,
    Slot, Tick, Verdict,
    afterlife::Kind,
    placement::{self, What},
    rendezvous,
    table::{Flags, Home, Seen},
};

/// What is asked for one request.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The ids it carries.
    pub keys: &'a Keys,
    /// The backend that is home by the proxy's own cookie, which nobody can forge: it stands in for a
    /// binding that is not there (any more, or on this replica).
    pub hint: Option<&'a str>,
    /// Whether its path is skipped.
    pub skip: bool,
    /// Where the first request without an id of this client connection went, or where it has authenticated.
    pub follow: Option<Slot>,
    /// Backends that already failed this request: no candidates for placing it. A home is a home all the
    /// same, as long as its state says that it serves.
    pub tried: &'a [Slot],
    /// The only randomness.
    pub random: u64,
    /// The only time.
    pub now: Tick,
    /// Whether the request has waited for its home (`on_down = "wait:…"`).
    pub waited: bool,
    /// Whether so many requests without an id came before on its client connection that it is no browser's: it will
    /// begin no session, as far as can be told.
    pub crawls: bool,
}

/// Where a request goes, and why.
#[derive(Debug)]
pub struct Decision {
    /// The backend; none when there is none, or the home is to be waited for.
    pub pick: Option<Slot>,
    /// The home to wait for, after which to ask again.
    pub wait_for: Option<Slot>,
    /// What was decided.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// To be settled or abandoned.
    pub claim: Claim,
}

/// What a request holds between decision and answer; must reach [`Affinity::settle`] or
/// [`Affinity::abandon`].
#[derive(Debug)]
#[must_use = "a claim that is neither settled nor abandoned leaves a pin behind"]
pub struct Claim {
    pub(super) kind: ClaimKind,
    /// The backend at which this request counts as being placed.
    pub(super) placing: Option<Arc<Member>>,
    /// Whether its answer tells how many requests without an id begin a session.
    pub(super) guessed: bool,
    /// The key whose pin is held.
    pub(super) pin: Option<SessionKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimKind {
    /// No session.
    Free,
    /// The session with this key; `alias` when the request knows it by an earlier one.
    Known { key: SessionKey, alias: Option<SessionKey> },
    /// The session with this key, which has to leave `from`.
    Moving { key: SessionKey, alias: Option<SessionKey>, from: Option<Home>, reason: MoveReason },
    /// An id that nobody knows.
    Unknown { key: SessionKey },
    /// A session that only the proxy's own cookie knows.
    Vouched { key: SessionKey },
    /// An id whose session ended a moment ago.
    Ending,
    /// A skipped path: only a session that begins there is learned.
    Skipped,
}

// === impl Claim ===

impl Claim {
    pub(super) const FREE: Self = Self { kind: ClaimKind::Free, placing: None, guessed: false, pin: None };

    const fn of(kind: ClaimKind) -> Self {
        Self { kind, ..Self::FREE }
    }

    /// The session that the request belongs to, if there is one already.
    pub fn session(&self) -> Option<SessionKey> {
        match self.kind {
            ClaimKind::Known { key, .. } | ClaimKind::Moving { key, .. } => Some(key),
            _ => None,
        }
    }

    fn placing(mut self, member: Option<&Arc<Member>>) -> Self {
        if let Some(member) = member {
            member.begin_placing();
            self.placing = Some(Arc::clone(member));
        }
        self
    }
}

impl Decision {
    const fn refused(reason: Reason) -> Self {
        Self { pick: None, wait_for: None, verdict: Verdict::Refused, reason, claim: Claim::FREE }
    }
}

// === impl Affinity ===

impl Affinity {
    /// Decides where a request goes.
    pub fn choose(&self, settings: &Settings, roster: &Roster, ask: &Ask<'_>) -> Decision {
        if ask.skip {
            let mut decision = match ask.follow.filter(|&slot| usable(roster, ask, slot)) {
                Some(slot) => Decision {
                    pick: Some(slot),
                    wait_for: None,
                    verdict: Verdict::Skipped,
                    reason: Reason::SkippedPath,
                    claim: Claim::FREE,
                },
                None => self.free(settings, roster, ask, Verdict::Skipped, Reason::SkippedPath),
            };
            decision.claim.kind = ClaimKind::Skipped;
            return decision;
        }
        if ask.keys.is_empty() {
            return self.without_id(settings, roster, ask);
        }
        if ask.keys.ambiguous() && ask.tried.is_empty() {
            self.counters.ambiguous.fetch_add(1, Relaxed);
        }
        let mut ended = None;
        for &key in ask.keys.as_slice() {
            if let Some(seen) = self.visit(settings, roster, key, ask.now) {
                return self.known(settings, roster, ask, seen, key, None);
            }
            let mut found = self.resolve(key, ask.now);
            while let Some((Kind::Renamed(now_key), until)) = found {
                if let Some(seen) = self.visit(settings, roster, now_key, ask.now) {
                    self.prolong(settings, key, until, now_key, ask.now);
                    return self.known(settings, roster, ask, seen, now_key, Some(key));
                }
                // It may have been renamed between the two looks.
                let again = self.resolve(key, ask.now);
                if again == found {
                    break;
                }
                found = again;
            }
            // Another id of the same request may be that of a living session.
            if let Some((Kind::Ended(home), _)) = found {
                ended = ended.or(Some(home));
            }
        }
        if let Some(decision) = ended.and_then(|home| ending(roster, home)) {
            return decision;
        }
        self.unknown(settings, roster, ask)
    }

    /// Gives a claim up: nothing was answered, nothing is learnt.
    pub fn abandon(&self, claim: Claim) {
        self.release_claim(&claim);
    }

    pub(super) fn release_claim(&self, claim: &Claim) {
        if let Some(member) = &claim.placing {
            member.end_placing();
        }
        if let Some(key) = claim.pin {
            self.pins.leave(key);
        }
    }

    /// The session with this very key, touched; one that has outlived its time is ended on the spot.
    fn visit(&self, settings: &Settings, roster: &Roster, key: SessionKey, now: Tick) -> Option<Seen> {
        let seen = self.table.look(key, |binding| {
            let mut seen = binding.seen();
            if now.since(seen.last_seen) < settings.ttl {
                let member = roster.member(seen.home.slot).map(|member| &**member);
                seen.last_seen = self.sign_of_life(binding, member, now);
            }
            seen
        })?;
        let aged = settings.max_age.is_some_and(|age| now.since(seen.created) >= age);
        if aged || now.since(seen.last_seen) >= settings.ttl {
            // Rare: it may have a longer TTL of its own, or a stream that holds it.
            if self.end(settings, key, EndReason::Expired, now).is_some() {
                return None;
            }
            self.table.look(key, |binding| self.sign_of_life(binding, None, now));
        }
        if seen.flags.has(Flags::RETAINED) {
            self.revive(settings, key, now);
        }
        Some(seen)
    }

    /// What became of an id that is no session's, and until when that is remembered.
    pub(super) fn resolve(&self, key: SessionKey, now: Tick) -> Option<(Kind, Tick)> {
        let ended = || self.after.find(key, now).map(|past| (Kind::Ended(past.home), past.until));
        self.led(key, now).or_else(ended)
    }

    fn known(
        &self,
        settings: &Settings,
        roster: &Roster,
        ask: &Ask<'_>,
        seen: Seen,
        key: SessionKey,
        alias: Option<SessionKey>,
    ) -> Decision {
        let Some(member) = roster.member(seen.home.slot) else {
            if self.awaits(seen.home, ask.now) {
                return self.unsettled(roster, ask, key);
            }
            return self.moving(settings, roster, ask, key, alias, Some(seen.home), MoveReason::Removed);
        };
        if member.generation() != seen.home.generation {
            return self.moving(settings, roster, ask, key, alias, Some(seen.home), MoveReason::Restarted);
        }
        if member.serves_home() {
            let reason = if alias.is_some() { Reason::Renamed } else { Reason::Known };
            return home(member, reason, ClaimKind::Known { key, alias });
        }
        self.away(settings, roster, ask, member, key, alias, Some(seen.home))
    }

    /// A session whose home does not serve it now.
    #[expect(clippy::too_many_arguments, reason = "one call, each argument a fact of its own")]
    pub(super) fn away(
        &self,
        settings: &Settings,
        roster: &Roster,
        ask: &Ask<'_>,
        member: &Member,
        key: SessionKey,
        alias: Option<SessionKey>,
        from: Option<Home>,
    ) -> Decision {
        if member.is_up() {
            return self.moving(settings, roster, ask, key, alias, from, MoveReason::Maintenance);
        }
        match settings.on_down {
            OnDown::Refuse => Decision::refused(Reason::HomeDown),
            OnDown::Wait(_) if !ask.waited => Decision {
                pick: None,
                wait_for: Some(member.slot()),
                verdict: Verdict::Home,
                reason: Reason::Down,
                claim: Claim::FREE,
            },
            OnDown::Wait(_) | OnDown::Move => {
                self.moving(settings, roster, ask, key, alias, from, MoveReason::Down)
            }
        }
    }

    /// Placed afresh; requests of the same session that are under way agree.
    #[expect(clippy::too_many_arguments, reason = "one call, each argument a fact of its own")]
    pub(super) fn moving(
        &self,
        settings: &Settings,
        roster: &Roster,
        ask: &Ask<'_>,
        key: SessionKey,
        alias: Option<SessionKey>,
        from: Option<Home>,
        reason: MoveReason,
    ) -> Decision {
        let place = || {
            let (random, turns) = (ask.random, &self.turns);
            placement::place(What::Session, settings, roster, ask.tried, random, ask.now, turns)
        };
        let Some((slot, pinned)) = self.pins.enter(key, |slot| usable(roster, ask, slot), place) else {
            return Decision::refused(Reason::NoBackend);
        };
        let mut claim =
            Claim::of(ClaimKind::Moving { key, alias, from, reason }).placing(roster.member(slot));
        claim.pin = pinned.then_some(key);
        Decision { pick: Some(slot), wait_for: None, verdict: Verdict::Moved, reason: reason.into(), claim }
    }

    fn without_id(&self, settings: &Settings, roster: &Roster, ask: &Ask<'_>) -> Decision {
        if let Some(slot) = ask.follow.filter(|&slot| usable(roster, ask, slot)) {
            return Decision {
                pick: Some(slot),
                wait_for: None,
                verdict: Verdict::Placed,
                reason: Reason::Follows,
                claim: Claim::FREE.placing(roster.member(slot)),
            };
        }
        self.free(settings, roster, ask, Verdict::Placed, Reason::NoId)
    }

    fn free(
        &self,
        settings: &Settings,
        roster: &Roster,
        ask: &Ask<'_>,
        verdict: Verdict,
        reason: Reason,
    ) -> Decision {
        let guessed = verdict == Verdict::Placed;
        let what = if guessed && !ask.crawls { self.turns.guess(ask.random) } else { What::Request };
        match placement::place(what, settings, roster, ask.tried, ask.random, ask.now, &self.turns) {
            Some(slot) => {
                let mut claim = Claim::FREE.placing(roster.member(slot).filter(|_| guessed));
                claim.guessed = guessed;
                Decision { pick: Some(slot), wait_for: None, verdict, reason, claim }
            }
            None => Decision::refused(Reason::NoBackend),
        }
    }

    /// Whether this home is another replica's, and may yet be configured here.
    fn awaits(&self, home: Home, now: Tick) -> bool {
        self.ledger.knows(home) && self.ledger.member(home.slot).is_some_and(|member| member.is_awaited(now))
    }

    /// Whether a key leads to such a home. Takes the ledger's lock if it leads to none of this roster.
    pub fn awaits_home(&self, roster: &Roster, key: SessionKey, now: Tick) -> bool {
        let home = self.table.look(key, |binding| binding.home);
        home.is_some_and(|home| roster.member(home.slot).is_none() && self.awaits(home, now))
    }

    /// A session whose home is not here yet is not moved: that would be for everybody, and its home is well.
    fn unsettled(&self, roster: &Roster, ask: &Ask<'_>, key: SessionKey) -> Decision {
        let candidates = roster.members().iter().filter(|member| usable(roster, ask, member.slot()));
        match rendezvous::pick(candidates.map(|member| &**member), key.words()) {
            Some(member) => Decision {
                pick: Some(member.slot()),
                wait_for: None,
                verdict: Verdict::Provisional,
                reason: Reason::Absent,
                claim: Claim::of(ClaimKind::Ending),
            },
            None => Decision::refused(Reason::NoBackend),
        }
    }

    /// As `on_unknown` says: by rendezvous, so that every replica, and a proxy that lost its table, says the same, or
    /// as a request without an id is placed. But a session that expired here not long ago goes where it lived.
    fn unknown(&self, settings: &Settings, roster: &Roster, ask: &Ask<'_>) -> Decision {
        let Some(&key) = ask.keys.as_slice().first() else {
            return self.without_id(settings, roster, ask);
        };
        if let Some(name) = ask.hint {
            return self.vouched(settings, roster, ask, key, name);
        }
        let mut reason = Reason::UnknownId;
        let place = || {
            if let Some(expired) = self.late.find(key)
                && let Some(member) = roster.member(expired.home.slot)
                && member.generation() == expired.home.generation
                && member.serves_home()
                && !ask.tried.contains(&member.slot())
            {
                reason = Reason::Expired;
                return Some(member.slot());
            }
            // An id that a body told is used first on the connection on which the body came.
            if ask.keys.are_in_target()
                && let Some(slot) = ask.follow.filter(|&slot| usable(roster, ask, slot))
            {
                return Some(slot);
            }
            if settings.on_unknown == OnUnknown::Place {
                let (random, turns) = (ask.random, &self.turns);
                return placement::place(What::Session, settings, roster, ask.tried, random, ask.now, turns);
            }
            let candidates = roster.members().iter().filter(|member| usable(roster, ask, member.slot()));
            rendezvous::pick(candidates.map(|member| &**member), key.words()).map(Member::slot)
        };
        let Some((slot, pinned)) = self.pins.enter(key, |slot| usable(roster, ask, slot), place) else {
            return Decision::refused(Reason::NoBackend);
        };
        let mut claim = Claim::of(ClaimKind::Unknown { key });
        if settings.on_unknown == OnUnknown::Place {
            claim = claim.placing(roster.member(slot));
        }
        claim.pin = pinned.then_some(key);
        Decision { pick: Some(slot), wait_for: None, verdict: Verdict::Provisional, reason, claim }
    }
}

/// Whether a request may be placed there.
fn usable(roster: &Roster, ask: &Ask<'_>, slot: Slot) -> bool {
    !ask.tried.contains(&slot) && roster.member(slot).is_some_and(|member| member.takes_new())
}

/// A session goes home.
pub(super) fn home(member: &Member, reason: Reason, kind: ClaimKind) -> Decision {
    Decision {
        pick: Some(member.slot()),
        wait_for: None,
        verdict: Verdict::Home,
        reason: if member.takes_new() { reason } else { Reason::Draining },
        claim: Claim::of(kind),
    }
}

/// A request of a session that has just ended still goes home, and teaches nothing.
fn ending(roster: &Roster, home: Home) -> Option<Decision> {
    let member = roster.member(home.slot)?;
    (member.generation() == home.generation && member.serves_home()).then(|| Decision {
        pick: Some(home.slot),
        wait_for: None,
        verdict: Verdict::Home,
        reason: Reason::Ending,
        claim: Claim::of(ClaimKind::Ending),
    })
}
