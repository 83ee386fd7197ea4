//! The shadow: what the tables of the README say, written down as plainly as possible. Maps and linear scans, no code of
//! the core's but its vocabulary.

use std::{collections::HashMap, sync::Arc, time::Duration};

use homing::affinity::{Change, EndReason, Member, MoveReason, OnDown, Reason, Settings, Verdict};

use crate::jar::{Place, SetCookie};

/// The number of a session id.
pub(crate) type Id = u32;

/// A backend's number in [`Model::backends`], and its instance.
pub(crate) type Home = (usize, u32);

pub(crate) struct Backend {
    pub(crate) name: String,
    /// As long as the core knows it.
    pub(crate) member: Option<Arc<Member>>,
    pub(crate) configured: bool,
    pub(crate) up: bool,
    pub(crate) draining: bool,
    pub(crate) maintenance: bool,
    pub(crate) weight: u32,
    pub(crate) instance: u32,
    pub(crate) moved: [u64; MoveReason::ALL.len()],
    pub(crate) ended: [u64; EndReason::ALL.len()],
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) home: Home,
    pub(crate) created: u32,
    pub(crate) seen: u32,
    pub(crate) ttl: Option<Duration>,
    pub(crate) streams: Vec<u32>,
    pub(crate) unlearned: bool,
    pub(crate) scope: Scope,
}

/// A replaced id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alias {
    pub(crate) until: u32,
    pub(crate) leads: Leads,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Leads {
    To(Id),
    /// Its session ended there, which matters until then.
    Ended(Home, u32),
    Nowhere,
}

/// What became of an id that is no session's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PastKind {
    Renamed(Id),
    Ended(Home),
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum About {
    Nothing,
    Skipped,
    Ending,
    Known { id: Id, alias: Option<Id> },
    Moving { id: Id, alias: Option<Id>, from: Home, reason: MoveReason },
    Unknown { id: Id },
}

/// What the core must decide.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    /// The one backend that is right; none when any usable one is.
    pub(crate) only: Option<usize>,
    pub(crate) waits: bool,
    pub(crate) about: About,
}

/// Which cookie holds an id, as far as answers have told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scope {
    Unknown,
    In(Place),
    Several,
}

/// One thing that an answer says.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Set(Id, Place, Option<Duration>),
    Deleted(Place),
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now: u32,
    pub(crate) backends: Vec<Backend>,
    pub(crate) sessions: HashMap<Id, Session>,
    pub(crate) aliases: HashMap<Id, Alias>,
    /// Ids whose session ended, where, and until when that matters.
    pub(crate) past: HashMap<Id, (Home, u32)>,
    pub(crate) late: HashMap<Id, (Home, u32)>,
    /// Where requests under way with an id that has no home go, and how many there are.
    pub(crate) pins: HashMap<Id, (usize, u32)>,
    /// By stream: the id that its session had last.
    pub(crate) streams: HashMap<u32, Id>,
    pub(crate) learned: u64,
    pub(crate) restored: u64,
    pub(crate) ended: u64,
    pub(crate) renamed: u64,
    pub(crate) late_hits: u64,
    pub(crate) full: u64,
    pub(crate) over_quota: u64,
    /// The table was full: what is not counted may be dropped.
    pub(crate) wanted: bool,
}

impl Said {
    /// What Set-Cookie fields say: of one place the last one, and no more than four places.
    pub(crate) fn read(set_cookies: &[String], host: &str, path: &str) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for text in set_cookies {
            let set = SetCookie::read(text, host, path);
            all.retain(|said| *said.place() != set.place);
            if all.len() == 4 {
                continue;
            }
            all.push(match crate::browsers::id_in(&set.value) {
                Some(id) if !set.deletes() => Self::Set(id, set.place.clone(), set.lasts()),
                _ => Self::Deleted(set.place),
            });
        }
        all
    }

    pub(crate) fn place(&self) -> &Place {
        match self {
            Self::Set(_, place, _) | Self::Deleted(place) => place,
        }
    }
}

impl Scope {
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Unknown, scope) | (scope, Self::Unknown) => scope.clone(),
            (one, two) if one == two => one.clone(),
            _ => Self::Several,
        }
    }
}

pub(crate) fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(100)).unwrap_or(u32::MAX)
}

impl Model {
    pub(crate) fn is_ghost(&self, home: Home) -> bool {
        self.backends[home.0].instance != home.1
    }

    pub(crate) fn counts(&self, session: &Session) -> bool {
        !self.is_ghost(session.home) && self.backends[session.home.0].configured
    }

    pub(crate) fn is_retained(&self, settings: &Settings, session: &Session) -> bool {
        session.streams.is_empty() && session.seen + ticks(settings.session_timeout) <= self.now
    }

    pub(crate) fn takes_new(&self, backend: usize) -> bool {
        let backend = &self.backends[backend];
        backend.up && !backend.draining && !backend.maintenance
    }

    pub(crate) fn serves(&self, backend: usize) -> bool {
        self.backends[backend].up && !self.backends[backend].maintenance
    }

    fn gone_at(&self, settings: &Settings, session: &Session) -> u32 {
        let oldest = settings.max_age.map_or(u32::MAX, |age| session.created + ticks(age));
        if !session.streams.is_empty() {
            return oldest;
        }
        let ttl = settings.ttl.max(session.ttl.unwrap_or_default().min(settings.max_ttl));
        oldest.min(session.seen + ticks(ttl))
    }

    /// Time has come for some.
    pub(crate) fn expire(&mut self, settings: &Settings) {
        let gone: Vec<Id> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                !self.is_ghost(session.home) && self.gone_at(settings, session) <= self.now
            })
            .map(|(&id, _)| id)
            .collect();
        for id in gone {
            self.end(id, EndReason::Expired);
        }
        self.past.retain(|_, (_, until)| *until > self.now);
        self.aliases.retain(|_, alias| alias.until > self.now);
    }

    /// Takes a session out; books its end if it counts.
    pub(crate) fn end(&mut self, id: Id, reason: EndReason) {
        let Some(session) = self.forget(id, Leads::Nowhere) else { return };
        if self.counts(&session) {
            self.backends[session.home.0].ended[reason as usize] += 1;
            self.ended += 1;
            if reason == EndReason::Expired {
                self.late.insert(id, (session.home, session.seen));
            }
        }
    }

    /// Takes a session out; this is where its earlier ids lead.
    pub(crate) fn forget(&mut self, id: Id, leads: Leads) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.lead(id, leads);
        Some(session)
    }

    /// The ids that lead to this one lead there from now on.
    pub(crate) fn lead(&mut self, id: Id, leads: Leads) {
        for alias in self.aliases.values_mut().filter(|alias| alias.leads == Leads::To(id)) {
            alias.leads = leads;
        }
    }

    pub(crate) fn restart(&mut self, backend: usize) {
        let count = self.counted_on(backend);
        self.backends[backend].instance += 1;
        if self.backends[backend].configured {
            self.backends[backend].ended[EndReason::Restarted as usize] += count;
            self.ended += count;
        }
    }

    /// Sessions of its present instance.
    pub(crate) fn counted_on(&self, backend: usize) -> u64 {
        let home = (backend, self.backends[backend].instance);
        self.sessions.values().filter(|session| session.home == home).count() as u64
    }

    pub(crate) fn configure(&mut self, backend: usize, configured: bool) {
        if self.backends[backend].configured == configured {
            return;
        }
        self.backends[backend].configured = configured;
        let count = self.counted_on(backend);
        if configured {
            self.restored += count;
        } else {
            self.backends[backend].ended[EndReason::Removed as usize] += count;
            self.ended += count;
        }
    }

    pub(crate) fn resolve(&self, id: Id) -> Option<PastKind> {
        match self.aliases.get(&id).filter(|alias| alias.until > self.now).map(|alias| alias.leads) {
            Some(Leads::To(id)) => return Some(PastKind::Renamed(id)),
            Some(Leads::Ended(home, until)) if until > self.now => return Some(PastKind::Ended(home)),
            _ => {}
        }
        self.past.get(&id).filter(|(_, until)| *until > self.now).map(|(home, _)| PastKind::Ended(*home))
    }

    /// What a session is called now.
    pub(crate) fn current(&self, id: Id) -> Option<Id> {
        if self.sessions.contains_key(&id) {
            return Some(id);
        }
        match self.resolve(id)? {
            PastKind::Renamed(id) => Some(id),
            PastKind::Ended(_) => None,
        }
    }

    /// A stream opens; false when there is no such session.
    pub(crate) fn hold(&mut self, id: Id, stream: u32) -> bool {
        let Some(id) = self.current(id) else { return false };
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        session.seen = now;
        session.streams.push(stream);
        self.streams.insert(stream, id);
        true
    }

    pub(crate) fn release(&mut self, stream: u32) {
        let now = self.now;
        let id = self.streams.remove(&stream).expect("it was open");
        if let Some(session) = self.sessions.get_mut(&id) {
            session.seen = now;
            session.streams.retain(|&open| open != stream);
        }
    }

    pub(crate) fn choose(
        &mut self,
        settings: &Settings,
        carried: &[Id],
        skip: bool,
        follow: Option<usize>,
        tried: &[usize],
        waited: bool,
    ) -> Expected {
        let free = |verdict, reason, only, about| Expected { verdict, reason, only, waits: false, about };
        if skip {
            return free(Verdict::Skipped, Reason::SkippedPath, None, About::Skipped);
        }
        if carried.is_empty() {
            return match follow.filter(|&slot| self.usable(slot, tried)) {
                Some(slot) => free(Verdict::Placed, Reason::Follows, Some(slot), About::Nothing),
                None => free(Verdict::Placed, Reason::NoId, None, About::Nothing),
            };
        }
        let known = carried.iter().find_map(|&id| {
            let current = self.current(id).filter(|current| self.sessions.contains_key(current))?;
            Some((current, (current != id).then_some(id)))
        });
        if let Some((id, alias)) = known {
            if let Some(alias) = alias {
                self.prolong(settings, alias, id);
            }
            return self.known(settings, id, alias, tried, waited);
        }
        let ended = carried.iter().find_map(|&id| match self.resolve(id) {
            Some(PastKind::Ended(home)) => Some(home),
            _ => None,
        });
        if let Some(home) = ended
            && !self.is_ghost(home)
            && self.backends[home.0].configured
            && self.serves(home.0)
        {
            return free(Verdict::Home, Reason::Ending, Some(home.0), About::Ending);
        }
        let id = carried[0];
        let (mut only, mut reason) = (None, Reason::UnknownId);
        match self.pins.get(&id) {
            Some(&(slot, _)) if self.usable(slot, tried) => only = Some(slot),
            _ => {
                if let Some(&(home, _)) = self.late.get(&id)
                    && !self.is_ghost(home)
                    && self.backends[home.0].configured
                    && self.serves(home.0)
                    && !tried.contains(&home.0)
                {
                    (only, reason) = (Some(home.0), Reason::Expired);
                }
            }
        }
        free(Verdict::Provisional, reason, only, About::Unknown { id })
    }

    fn known(
        &mut self,
        settings: &Settings,
        id: Id,
        alias: Option<Id>,
        tried: &[usize],
        waited: bool,
    ) -> Expected {
        let now = self.now;
        let session = self.sessions.get_mut(&id).expect("it is known");
        session.seen = session.seen.max(now);
        let home = session.home;
        let backend = &self.backends[home.0];
        let moving = |reason: MoveReason| {
            let only = match self.pins.get(&id) {
                Some(&(slot, _)) if self.usable(slot, tried) => Some(slot),
                _ => None,
            };
            Expected {
                verdict: Verdict::Moved,
                reason: reason.into(),
                only,
                waits: false,
                about: About::Moving { id, alias, from: home, reason },
            }
        };
        if !backend.configured {
            return moving(MoveReason::Removed);
        }
        if self.is_ghost(home) {
            return moving(MoveReason::Restarted);
        }
        let stays =
            |verdict, reason, about| Expected { verdict, reason, only: Some(home.0), waits: false, about };
        if self.serves(home.0) {
            let reason = match (backend.draining, alias) {
                (true, _) => Reason::Draining,
                (false, Some(_)) => Reason::Renamed,
                (false, None) => Reason::Known,
            };
            return stays(Verdict::Home, reason, About::Known { id, alias });
        }
        if backend.up {
            return moving(MoveReason::Maintenance);
        }
        match settings.on_down {
            OnDown::Refuse => stays(Verdict::Refused, Reason::HomeDown, About::Nothing),
            OnDown::Wait(_) if !waited => {
                Expected { waits: true, ..stays(Verdict::Home, Reason::Down, About::Nothing) }
            }
            OnDown::Wait(_) | OnDown::Move => moving(MoveReason::Down),
        }
    }

    pub(crate) fn usable(&self, backend: usize, tried: &[usize]) -> bool {
        !tried.contains(&backend) && self.backends[backend].configured && self.takes_new(backend)
    }
}

/// What came of an answer.
pub(crate) type Outcome = (Option<Id>, Change);
pub(crate) const NOTHING: Outcome = (None, Change::None);
