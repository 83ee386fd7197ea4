//! What answers change, in the shadow.

use std::time::Duration;

use homing::affinity::{Change, EndReason, MoveReason, Settings};

use super::{
    jar::Place,
    model::{About, Alias, Home, Id, Leads, Model, NOTHING, Outcome, PastKind, Said, Scope, Session, ticks},
};

/// An answer, and what only the core can tell: whether an id is bound there now.
pub(crate) struct Answered<'a> {
    pub(crate) settings: &'a Settings,
    /// Who answered. Its instance is none when the core has given its place to another backend.
    pub(crate) backend: usize,
    pub(crate) instance: Option<u32>,
    pub(crate) status: u16,
    pub(crate) says: &'a [Said],
    pub(crate) carried: &'a [Id],
    pub(crate) bound: &'a dyn Fn(Id) -> bool,
}

impl Model {
    pub(crate) fn settle(&mut self, about: About, answer: &Answered<'_>) -> Outcome {
        let silent = answer.says.is_empty();
        if let About::Known { id, alias } | About::Moving { id, alias, .. } = about {
            for earlier in [Some(id), alias].into_iter().flatten() {
                if let Some(PastKind::Renamed(now)) = self.resolve(earlier)
                    && self.sessions.contains_key(&now)
                {
                    self.prolong(answer.settings, earlier, now);
                }
            }
        }
        match about {
            About::Skipped => self.settle_skipped(answer),
            About::Nothing | About::Ending => self.learn_all(answer),
            About::Known { id, .. } => self.settle_known(answer, id),
            About::Moving { id, from, reason, .. } => self.settle_moving(answer, id, from, reason),
            About::Unknown { id } if silent && answer.status < 400 => self.confirm(answer, id),
            About::Unknown { id } => {
                if answer.says.iter().any(|said| matches!(said, Said::Set(set, ..) if *set == id)) {
                    self.late_hits += u64::from(self.late.remove(&id).is_some());
                }
                match self.learn_all(answer) {
                    NOTHING => (None, Change::Forgotten),
                    outcome => outcome,
                }
            }
        }
    }

    fn learn_all(&mut self, answer: &Answered<'_>) -> Outcome {
        let mut outcome = NOTHING;
        for said in answer.says {
            if let Said::Set(id, place, lasts) = said {
                outcome = self.learn(answer, *id, place, *lasts);
            }
        }
        outcome
    }

    fn settle_skipped(&mut self, answer: &Answered<'_>) -> Outcome {
        let mut outcome = NOTHING;
        for said in answer.says {
            let Said::Set(id, place, lasts) = said else { continue };
            outcome = match self.sessions.get_mut(id) {
                Some(session) => {
                    session.seen = self.now;
                    (Some(*id), Change::Touched)
                }
                None => self.learn(answer, *id, place, *lasts),
            };
        }
        outcome
    }

    fn settle_moving(&mut self, answer: &Answered<'_>, id: Id, from: Home, reason: MoveReason) -> Outcome {
        let sets = answer.says.iter().any(|said| matches!(said, Said::Set(..)));
        if !sets && !answer.says.is_empty() {
            let outcome = self.settle_known(answer, id);
            if outcome.1 == Change::Ended {
                return outcome;
            }
        }
        if !sets && answer.status >= 500 {
            return NOTHING;
        }
        if sets && !self.sessions.contains_key(&self.current(id).unwrap_or(id)) {
            return self.learn_all(answer);
        }
        let moved = self.rehome(answer, id, Some(from), reason);
        if !sets {
            return moved;
        }
        match self.settle_known(answer, id) {
            (_, Change::Refreshed | Change::Touched) if moved.1 == Change::Moved => moved,
            settled => settled,
        }
    }

    fn settle_known(&mut self, answer: &Answered<'_>, id: Id) -> Outcome {
        let mut id = self.current(id).unwrap_or(id);
        let now = self.now;
        let mut outcome = match self.sessions.get_mut(&id) {
            Some(session) => {
                session.seen = now;
                (Some(id), Change::Touched)
            }
            None => NOTHING,
        };
        for said in answer.says {
            let kept = self.kept(said.place(), id, answer.carried);
            match said {
                Said::Deleted(_) => {
                    let Some(old) = kept else { continue };
                    let home = self.sessions[&old].home;
                    let until = now + ticks(answer.settings.grace);
                    self.lead(old, Leads::Ended(home, until));
                    self.end(old, EndReason::Logout);
                    self.past.insert(old, (home, until));
                    if old == id {
                        outcome = (None, Change::Ended);
                    }
                }
                Said::Set(set, place, lasts) => {
                    let beside = answer.carried.contains(set) && self.sessions.contains_key(set);
                    outcome = match kept {
                        Some(old) if *set != id && *set != old && !beside => {
                            let outcome = self.rename(answer, old, *set, place, *lasts);
                            id = if old == id { outcome.0.unwrap_or(id) } else { id };
                            outcome
                        }
                        _ => self.learn(answer, *set, place, *lasts),
                    };
                }
            }
        }
        outcome
    }

    /// The session of a request whose id is in this cookie.
    pub(crate) fn kept(&self, place: &Place, id: Id, carried: &[Id]) -> Option<Id> {
        let is_kept =
            |id: &Id| self.sessions.get(id).is_some_and(|session| session.scope == Scope::In(place.clone()));
        let others = carried.iter().filter_map(|&id| self.current(id));
        std::iter::once(id).chain(others).find(is_kept)
    }

    fn learn(&mut self, answer: &Answered<'_>, id: Id, place: &Place, lasts: Option<Duration>) -> Outcome {
        let outcome = self.bind(answer, id, true, Scope::In(place.clone()));
        if outcome.0.is_some() {
            self.lengthen(answer.settings, id, lasts);
        }
        outcome
    }

    fn lengthen(&mut self, settings: &Settings, id: Id, lasts: Option<Duration>) {
        if let Some(ttl) = lasts.map(|lasts| lasts.min(settings.max_ttl))
            && ttl > settings.ttl
        {
            self.sessions.get_mut(&id).expect("it was just bound").ttl = Some(ttl);
        }
    }

    fn confirm(&mut self, answer: &Answered<'_>, id: Id) -> Outcome {
        match self.resolve(id) {
            Some(PastKind::Ended(_)) => return (None, Change::Forgotten),
            Some(PastKind::Renamed(_)) => {
                let id = self.current(id);
                return (id, if id.is_some() { Change::Touched } else { Change::None });
            }
            None => self.late_hits += u64::from(self.late.remove(&id).is_some()),
        }
        if !self.sessions.contains_key(&id) {
            let max = answer.settings.max_sessions.get();
            let unlearned = self.sessions.values().filter(|session| session.unlearned).count();
            if unlearned >= (max / 8).max(1024).min(max.div_ceil(2)) || self.sessions.len() >= max {
                self.over_quota += 1;
                return (None, Change::Forgotten);
            }
        }
        match self.bind(answer, id, false, Scope::Unknown) {
            (id, Change::Learned) => (id, Change::Confirmed),
            outcome => outcome,
        }
    }

    fn bind(&mut self, answer: &Answered<'_>, id: Id, set: bool, scope: Scope) -> Outcome {
        let now = self.now;
        if !self.sessions.contains_key(&id) {
            if answer.instance.is_none() {
                return NOTHING;
            }
            if !self.make_room(answer) {
                self.full += 1;
                return (None, Change::Full);
            }
        }
        let home = answer.home();
        let change = match self.sessions.get_mut(&id) {
            Some(session) => {
                session.unlearned &= !set;
                session.scope = session.scope.and(&scope);
                if Some(session.home) == home || !set {
                    session.seen = now;
                    Change::Refreshed
                } else {
                    self.move_session(id, home, MoveReason::Relearned)
                }
            }
            None => {
                let Some(home) = home else { return NOTHING };
                if self.backends[home.0].configured {
                    self.learned += 1;
                }
                let session = Session {
                    home,
                    created: now,
                    seen: now,
                    ttl: None,
                    streams: Vec::new(),
                    unlearned: !set,
                    scope,
                };
                self.sessions.insert(id, session);
                Change::Learned
            }
        };
        if change == Change::None {
            return NOTHING;
        }
        self.past.remove(&id);
        self.aliases.remove(&id);
        (Some(id), change)
    }

    /// The core says whom it chose; the shadow judges.
    fn make_room(&mut self, answer: &Answered<'_>) -> bool {
        if self.sessions.len() < answer.settings.max_sessions.get() {
            return true;
        }
        self.wanted = true;
        let missing: Vec<Id> = self.sessions.keys().copied().filter(|&id| !(answer.bound)(id)).collect();
        let mut idle: Vec<(u32, Id)> = self
            .sessions
            .iter()
            .filter(|(_, session)| self.is_retained(answer.settings, session))
            .filter(|(_, session)| !self.is_ghost(session.home))
            .map(|(&id, session)| (session.seen, id))
            .collect();
        idle.sort_unstable();
        // The very id that the answer sets may have made room before it was set.
        let set = match answer.says {
            [Said::Set(set, ..)] => idle.iter().find(|(_, id)| id == set).map(|(_, id)| *id),
            _ => None,
        };
        let missing = if missing.is_empty() { Vec::from_iter(set) } else { missing };
        match missing[..] {
            [] => {
                assert!(idle.is_empty(), "no room was made, although {} sessions are idle", idle.len());
                false
            }
            [victim] => {
                let session = &self.sessions[&victim];
                assert!(
                    self.is_retained(answer.settings, session) || self.is_ghost(session.home),
                    "a live session made room: {session:?}"
                );
                let oldest = self.sessions.values().all(|other| other.ttl.is_none())
                    && !self.is_ghost(session.home)
                    && answer.settings.max_age.is_none();
                if oldest {
                    let (seen, _) = idle[0];
                    assert!(session.seen <= seen + EVICTION_SLACK, "{} made room for {seen}", session.seen);
                }
                self.end(victim, EndReason::Capacity);
                true
            }
            _ => panic!("{} sessions made room for one", missing.len()),
        }
    }

    pub(crate) fn rehome(
        &mut self,
        answer: &Answered<'_>,
        id: Id,
        from: Option<Home>,
        reason: MoveReason,
    ) -> Outcome {
        let id = self.current(id).unwrap_or(id);
        let (now, home) = (self.now, answer.home());
        let known = self.resolve(id).is_some();
        match self.sessions.get_mut(&id) {
            Some(session) if Some(session.home) == home || from.is_some_and(|from| from != session.home) => {
                session.seen = now;
                (Some(id), Change::Touched)
            }
            Some(session) => {
                session.seen = now;
                (Some(id), self.move_session(id, home, reason))
            }
            None if known => NOTHING,
            None => self.bind(answer, id, true, Scope::Unknown),
        }
    }

    fn move_session(&mut self, id: Id, to: Option<Home>, reason: MoveReason) -> Change {
        let Some(to) = to else { return Change::None };
        let counted = self.counts(&self.sessions[&id]);
        let now = self.now;
        let session = self.sessions.get_mut(&id).expect("it is bound");
        self.backends[session.home.0].moved[reason as usize] += 1;
        (session.home, session.seen) = (to, now);
        match (counted, self.backends[to.0].configured) {
            (false, true) => self.learned += 1,
            (true, false) => {
                self.ended += 1;
                self.backends[to.0].ended[EndReason::Removed as usize] += 1;
            }
            _ => {}
        }
        Change::Moved
    }

    fn rename(
        &mut self,
        answer: &Answered<'_>,
        old: Id,
        new: Id,
        place: &Place,
        lasts: Option<Duration>,
    ) -> Outcome {
        let alive = self.sessions.get(&old).is_some_and(|session| !self.is_ghost(session.home));
        if !alive {
            return self.learn(answer, new, place, lasts);
        }
        let mut session = self.forget(old, Leads::To(new)).expect("it is bound");
        self.renamed += 1;
        let until = self.alias_until(answer.settings, &session);
        self.aliases.insert(old, Alias { until, leads: Leads::To(new) });
        self.aliases.remove(&new);
        self.past.remove(&new);
        session.seen = self.now;
        session.unlearned = false;
        session.scope = Scope::In(place.clone());
        for stream in &session.streams {
            self.streams.insert(*stream, new);
        }
        if let Some(twin) = self.sessions.get_mut(&new) {
            twin.streams.append(&mut session.streams);
            if self.counts(&session) {
                self.backends[session.home.0].ended[EndReason::Logout as usize] += 1;
                self.ended += 1;
            }
            return self.learn(answer, new, place, lasts);
        }
        let home = session.home;
        self.sessions.insert(new, session);
        self.lengthen(answer.settings, new, lasts);
        if home.0 != answer.backend {
            self.rehome(answer, new, None, MoveReason::Relearned);
        }
        (Some(new), Change::Renamed)
    }

    fn alias_until(&self, settings: &Settings, session: &Session) -> u32 {
        self.now + ticks(settings.ttl.max(session.ttl.unwrap_or_default().min(settings.max_ttl)))
    }

    pub(crate) fn prolong(&mut self, settings: &Settings, alias: Id, id: Id) {
        let later = self.alias_until(settings, &self.sessions[&id]);
        let known = self.aliases.get_mut(&alias).expect("it led there");
        if Duration::from_millis(100) * later.saturating_sub(known.until) > settings.ttl / 8 {
            known.until = later;
        }
    }
}

impl Answered<'_> {
    fn home(&self) -> Option<Home> {
        self.instance.map(|instance| (self.backend, instance))
    }
}

/// Sessions that fall idle within a few ticks of one another go in any order.
const EVICTION_SLACK: u32 = 64;
