//! What happens: one step at a time.

use std::{sync::Arc, time::Duration};

use homing::affinity::{
    Admin, Answer, Ask, Change, Effect, Effects, EndReason, MoveReason, OnUnknown, Reason, Slot, Verdict,
};

use crate::{
    answers::{Answered, SCOPE},
    model::{About, Id, Says, ticks},
    world::{Flight, Held, World, settings},
};

/// Steps that settle something, by and large.
const MAX_FLIGHTS: usize = 40;

impl World {
    pub(crate) fn step(&mut self) {
        self.pass();
        self.drain();
        match self.rng.u8(0..100) {
            0..45 if self.flights.len() < MAX_FLIGHTS => self.request(),
            45..50 => self.operate(),
            50..53 => self.reload(),
            53..57 if !self.holds.is_empty() => {
                let at = self.rng.usize(..self.holds.len());
                self.release(at);
            }
            57..60 if !self.flights.is_empty() => {
                let at = self.rng.usize(..self.flights.len());
                self.abandon(at);
            }
            60..62 => self.administer(),
            62 => self.upgrade(),
            _ if !self.flights.is_empty() => {
                let at = self.rng.usize(..self.flights.len());
                self.answer(at);
            }
            _ => {}
        }
        self.drain();
        self.check();
    }

    fn pass(&mut self) {
        let timeout = ticks(self.settings.session_timeout);
        self.model.now += match self.rng.u8(0..100) {
            0..60 => 0,
            60..85 => self.rng.u32(1..8),
            85..95 => self.rng.u32(1..timeout),
            95..99 => self.rng.u32(1..2 * timeout),
            _ => self.rng.u32(timeout..20 * timeout),
        };
    }

    fn request(&mut self) {
        let client = (!self.chance(8)).then(|| self.rng.usize(..self.clients.len()));
        let jar = client.and_then(|client| self.clients[client].jar);
        let mut carried: Vec<Id> = Vec::new();
        match client {
            // Made up, or once somebody's.
            None if self.chance(60) || self.next_id == 0 => carried.push(self.fresh_id()),
            None => carried.push(self.rng.u32(1..=self.next_id)),
            Some(_) => {
                if self.chance(5) {
                    carried.push(self.fresh_id());
                }
                carried.extend(jar);
                if self.chance(5) && self.next_id > 0 {
                    carried.push(self.rng.u32(1..=self.next_id));
                }
                if self.chance(4) {
                    carried.clear();
                }
            }
        }
        let mut seen = Vec::new();
        carried.retain(|id| !seen.contains(id) && (seen.push(*id), true).1);
        let skip = self.chance(3);
        let tried: Vec<usize> = match self.chance(10) {
            true => {
                let tried = self.rng.usize(..self.model.backends.len());
                vec![tried].into_iter().filter(|&at| self.model.backends[at].configured).collect()
            }
            false => Vec::new(),
        };
        let follow = if self.chance(20) { Some(self.rng.usize(..self.model.backends.len())) } else { None };
        self.choose(client, carried, skip, follow, &tried, false);
    }

    fn choose(
        &mut self,
        client: Option<usize>,
        carried: Vec<Id>,
        skip: bool,
        follow: Option<usize>,
        tried: &[usize],
        waited: bool,
    ) {
        let slot_of = |world: &Self, backend: usize| -> Option<Slot> {
            let name = &world.model.backends[backend].name;
            world.roster.members().iter().find(|member| member.name() == name).map(|member| member.slot())
        };
        let keys = self.keys(&carried);
        let tried_slots: Vec<Slot> = tried.iter().filter_map(|&at| slot_of(self, at)).collect();
        let ask = Ask {
            hint: None,
            keys: &keys,
            skip,
            follow: follow.and_then(|at| slot_of(self, at)),
            tried: &tried_slots,
            random: self.rng.u64(..),
            now: self.now(),
            waited,
        };
        let decision = self.affinity.choose(&self.settings, &self.roster, &ask);
        let expected = self.model.choose(&self.settings, &carried, skip, follow, tried, waited);
        let picked =
            decision.pick.map(|slot| self.backend_of(self.roster.member(slot).expect("it is configured")));
        self.log.push(format!(
            "{:>8} client {client:?} sends {carried:?} skip {skip} tried {tried:?}: {:?} {:?} to {picked:?} ({:?})",
            self.model.now, decision.verdict, decision.reason, expected.about
        ));
        if let Some(client) = client
            && !skip
            && carried.first().is_some_and(|id| Some(*id) == self.clients[client].jar)
            && let Some((home, told)) = self.clients[client].home
            && self.model.now - told < ticks(self.settings.session_timeout)
            && self.settings.max_age.is_none()
            && self.model.backends[home.0].configured
            && !self.model.is_ghost(home)
            && self.model.serves(home.0)
        {
            assert_eq!(picked, Some(home.0), "a live session is sent elsewhere");
            assert_eq!(decision.verdict, Verdict::Home);
        }
        if expected.waits {
            assert!(decision.pick.is_none() && decision.wait_for.is_some(), "{decision:?} {expected:?}");
            self.affinity.abandon(decision.claim);
            if self.chance(50) {
                self.choose(client, carried, skip, follow, tried, true);
            }
            return;
        }
        let places = matches!(expected.verdict, Verdict::Placed | Verdict::Moved | Verdict::Provisional)
            || expected.verdict == Verdict::Skipped;
        let Some(backend) = picked else {
            let none = (0..self.model.backends.len())
                .all(|at| !self.model.usable(at, tried) || self.model.backends[at].weight == 0);
            assert_eq!(decision.verdict, Verdict::Refused);
            assert!(!places || (none && expected.only.is_none()), "refused, but {expected:?}");
            self.affinity.abandon(decision.claim);
            return;
        };
        assert_eq!((decision.verdict, decision.reason), (expected.verdict, expected.reason));
        match expected.only {
            Some(only) => assert_eq!(backend, only, "not the only right one"),
            None => assert!(self.model.usable(backend, tried), "{backend} takes no new sessions"),
        }
        let pinned = match expected.about {
            About::Moving { id, .. } | About::Unknown { id } => Some(id),
            _ => None,
        };
        if let Some(id) = pinned {
            let pin = self.model.pins.entry(id).or_insert((backend, 0));
            *pin = (backend, pin.1 + 1);
        }
        let member = self.roster.member(decision.pick.expect("it was picked")).expect("it is configured");
        self.flights.push(Flight {
            client,
            carried,
            keys,
            claim: decision.claim,
            about: expected.about,
            backend,
            member: Arc::clone(member),
            roster: self.roster.clone(),
            pinned,
            placing: match expected.verdict {
                Verdict::Placed | Verdict::Moved => true,
                Verdict::Provisional => {
                    self.settings.on_unknown == OnUnknown::Place && expected.reason != Reason::Absent
                }
                Verdict::Home | Verdict::Skipped | Verdict::Refused => false,
            },
        });
    }

    pub(crate) fn abandon(&mut self, at: usize) {
        let flight = self.flights.swap_remove(at);
        self.log.push(format!("{:>8} {:?} is given up", self.model.now, flight.about));
        self.unpin(flight.pinned);
        self.affinity.abandon(flight.claim);
    }

    fn unpin(&mut self, pinned: Option<Id>) {
        if let Some(id) = pinned {
            let pin = self.model.pins.get_mut(&id).expect("it is pinned");
            pin.1 -= 1;
            if pin.1 == 0 {
                self.model.pins.remove(&id);
            }
        }
    }

    fn answer(&mut self, at: usize) {
        let flight = self.flights.swap_remove(at);
        let status = *self.rng.choice(&[200, 200, 200, 200, 302, 404, 500]).expect("some");
        let says = self.says(&flight);
        let same = self.same_session(&flight);
        let others = self.others(&flight, says);
        let effects = match says {
            Says::Silent => Effects::SILENT,
            Says::Deleted => Effect::Deleted { scope: SCOPE }.into(),
            Says::Set(id, lasts) => Effect::Set { key: self.key(id), scope: SCOPE, lasts }.into(),
        };
        self.log.push(format!(
            "{:>8} backend {} answers {status} {says:?} to client {:?} {:?} {:?}",
            self.model.now, flight.backend, flight.client, flight.carried, flight.about
        ));
        let answer = Answer {
            slot: flight.member.slot(),
            status,
            effects: &effects,
            keys: &flight.keys,
            now: self.now(),
        };
        let settled = self.affinity.settle(&self.settings, &flight.roster, flight.claim, &answer);
        let backend = &self.model.backends[flight.backend];
        let current = backend.member.as_ref().is_some_and(|member| Arc::ptr_eq(member, &flight.member));
        let instance = current.then_some(backend.instance);
        let mut model = std::mem::take(&mut self.model);
        let bound = |id| {
            let key = self.key(id);
            let now = homing::affinity::Tick::new(model_now(&answer));
            match self.affinity.explain(&self.settings, &self.roster, key, now) {
                homing::affinity::Explanation::Known(known) => known.fingerprint == key.fingerprint(),
                homing::affinity::Explanation::Unknown { .. } => false,
            }
        };
        let answered = Answered {
            settings: &self.settings,
            backend: flight.backend,
            instance,
            status,
            says,
            carried: &flight.carried,
            bound: &bound,
        };
        let outcome = model.settle(flight.about, &answered);
        self.model = model;
        self.unpin(flight.pinned);
        self.log.push(format!("{:>8}   {:?}", self.model.now, settled.change));
        assert_eq!((settled.key, settled.change), (outcome.0.map(|id| self.key(id)), outcome.1));
        if !matches!(outcome.1, Change::Touched | Change::None) {
            others.into_iter().for_each(|other| self.lose(other));
        }
        if let Some(client) = flight.client {
            self.receive(client, &flight.carried, says, same, outcome);
        }
        if let Some(id) = outcome.0
            && self.chance(8)
        {
            self.hold(id, &flight.member);
        }
    }

    fn says(&mut self, flight: &Flight) -> Says {
        let lasts = self.chance(15).then(|| Duration::from_secs(self.rng.u64(1..400)));
        match self.rng.u8(0..100) {
            0..20 => Says::Set(self.fresh_id(), lasts),
            // Sliding cookies.
            20..28 if !flight.carried.is_empty() => Says::Set(flight.carried[0], lasts),
            28..34 => Says::Deleted,
            34..36 if self.next_id > 0 => Says::Set(self.rng.u32(1..=self.next_id), lasts),
            _ if flight.carried.is_empty() => Says::Set(self.fresh_id(), lasts),
            _ => Says::Silent,
        }
    }

    /// Whether a request is about the very session to which its client's cookie leads by now.
    fn same_session(&self, flight: &Flight) -> bool {
        let About::Known { id, .. } = flight.about else { return false };
        let jar = flight.client.and_then(|client| self.clients[client].jar);
        let current = self.model.current(id);
        current.is_some() && jar.and_then(|jar| self.model.current(jar)) == current
    }

    /// Clients that share the session of another one's request, by having its id from who knows where.
    fn others(&self, flight: &Flight, says: Says) -> Vec<usize> {
        let about = match flight.about {
            About::Known { id, .. } | About::Moving { id, .. } => self.model.current(id),
            _ => None,
        };
        let set = match says {
            Says::Set(set, _) => self.model.current(set),
            _ => None,
        };
        let leads = |at: usize| self.clients[at].jar.and_then(|jar| self.model.current(jar));
        (0..self.clients.len())
            .filter(|&at| Some(at) != flight.client)
            .filter(|&at| leads(at).is_some_and(|id| Some(id) == about || Some(id) == set))
            .collect()
    }

    /// What the client makes of the answer, and what it may expect from then on.
    fn receive(
        &mut self,
        client: usize,
        carried: &[Id],
        says: Says,
        same: bool,
        (id, change): (Option<Id>, Change),
    ) {
        let lost = self.chance(2);
        let had = self.clients[client].jar;
        let beside = matches!(says, Says::Set(set, _) if carried.contains(&set));
        let parallel = had.is_some_and(|had| !carried.contains(&had)) && !beside;
        let keeps = parallel && self.chance(50);
        match says {
            Says::Set(..) | Says::Deleted if lost => {
                self.lose(client);
                return;
            }
            Says::Set(set, _) => {
                let whose = self.clients.iter().enumerate();
                let others = whose.filter(|(at, other)| *at != client && other.jar == Some(set));
                let others: Vec<usize> = others.map(|(at, _)| at).collect();
                if !keeps {
                    self.clients[client].jar = Some(set);
                    self.clients[client].lost = !others.is_empty();
                }
                others.into_iter().for_each(|other| self.lose(other));
            }
            Says::Deleted => self.clients[client].jar = None,
            Says::Silent => {}
        }
        if keeps && matches!(says, Says::Set(..)) && change == Change::Refreshed {
            // Two of its sessions became one, and it goes on with the id of neither.
            self.lose(client);
        }
        let jar = self.clients[client].jar;
        let leads = jar.and_then(|jar| self.model.current(jar));
        // An earlier id leads on for a TTL after its own last use, whoever else uses the session.
        let used = jar.is_some_and(|jar| carried.contains(&jar)) || matches!(says, Says::Set(..));
        let told = if used { Some(self.model.now) } else { self.clients[client].home.map(|(_, told)| told) };
        self.clients[client].home = id.and_then(|id| {
            // Of two answers to requests that had no session, or not the same, each makes its own.
            let mine = !self.clients[client].lost;
            let mine = mine && (leads == Some(id) || (keeps && same && change == Change::Renamed));
            // Nor is anything promised by a backend that has left.
            let session =
                self.model.sessions.get(&id).filter(|session| mine && self.model.counts(session))?;
            Some((session.home, told?))
        });
    }

    fn lose(&mut self, client: usize) {
        self.clients[client].home = None;
        self.clients[client].lost = true;
    }

    fn hold(&mut self, id: Id, member: &Arc<homing::affinity::Member>) {
        self.next_stream += 1;
        let stream = self.next_stream;
        let hold = self.affinity.hold(self.key(id), member, self.now());
        let holds = self.model.hold(id, stream);
        assert_eq!(hold.is_some(), holds);
        self.log.push(format!("{:>8} stream {stream} of {id} opens: {holds}", self.model.now));
        if let Some(hold) = hold {
            self.holds.push(Held { hold, stream, member: Arc::clone(member) });
        }
    }

    pub(crate) fn release(&mut self, at: usize) {
        let held = self.holds.swap_remove(at);
        self.log.push(format!("{:>8} stream {} closes", self.model.now, held.stream));
        self.affinity.release(held.hold, self.now());
        self.model.release(held.stream);
    }

    /// Something happens to a backend.
    fn operate(&mut self) {
        let at = self.rng.usize(..self.model.backends.len());
        let now = self.now();
        let Some(member) = self.model.backends[at].member.clone() else { return };
        let what = self.rng.u8(0..8);
        self.log.push(format!("{:>8} backend {at}: event {what}", self.model.now));
        match what {
            0..3 => {
                let up = !self.model.backends[at].up;
                member.set_up(up, now);
                self.model.backends[at].up = up;
            }
            3 => {
                self.affinity.restarted(member.slot(), now);
                self.model.restart(at);
            }
            4 => {
                // Dies, and another instance comes up.
                member.set_up(false, now);
                self.affinity.restarted(member.slot(), now);
                member.set_up(true, now);
                self.model.restart(at);
                self.model.backends[at].up = true;
            }
            _ => {
                let admin = *self.rng.choice(&Admin::ALL).expect("some");
                member.set_admin(admin, now);
                self.model.backends[at].draining = admin == Admin::Draining;
                self.model.backends[at].maintenance = admin == Admin::Maintenance;
            }
        }
    }

    fn reload(&mut self) {
        match self.rng.u8(0..4) {
            0 => {
                let balance = self.settings.balance;
                self.settings = settings(&mut self.rng);
                self.settings.balance = balance;
                // Some have just expired by the old settings, and would not by the new.
                self.clients.iter_mut().for_each(|client| client.home = None);
            }
            1 => {
                let at = self.rng.usize(..self.model.backends.len());
                self.model.backends[at].weight = self.rng.u32(0..6);
            }
            2 if self.model.backends.len() < 12 => {
                // Discovery: names that were never seen before.
                let number = self.model.backends.len();
                self.model.backends.push(crate::model::Backend {
                    name: format!("app-{number}"),
                    member: None,
                    configured: true,
                    up: true,
                    draining: false,
                    maintenance: false,
                    weight: 1,
                    instance: 0,
                    moved: Default::default(),
                    ended: Default::default(),
                });
            }
            _ => {
                let at = self.rng.usize(..self.model.backends.len());
                let configured = !self.model.backends[at].configured;
                self.model.configure(at, configured);
                // What it had makes room, if need be.
                for client in &mut self.clients {
                    client.home = client.home.filter(|(home, _)| home.0 != at);
                }
            }
        }
        self.publish();
        let names: Vec<usize> = self.roster.members().iter().map(|member| self.backend_of(member)).collect();
        self.log.push(format!("{:>8} reload: {names:?} {:?}", self.model.now, self.settings));
    }

    /// An operator ends or moves a session.
    fn administer(&mut self) {
        if self.next_id == 0 || self.roster.members().is_empty() {
            return;
        }
        let id = self.rng.u32(1..=self.next_id);
        let key = self.key(id);
        let current = self.model.current(id).filter(|id| self.model.sessions.contains_key(id));
        if let Some(current) = current {
            for client in 0..self.clients.len() {
                let jar = self.clients[client].jar;
                if jar.and_then(|jar| self.model.current(jar)) == Some(current) {
                    self.lose(client);
                }
            }
        }
        let now = self.now();
        if self.chance(50) {
            self.log.push(format!("{:>8} operator ends {id}, now {current:?}", self.model.now));
            assert_eq!(self.affinity.forget(&self.settings, key, now), current.is_some());
            if let Some(current) = current {
                self.model.end(current, EndReason::Admin);
            }
            return;
        }
        let to = Arc::clone(self.rng.choice(self.roster.members()).expect("some"));
        let backend = self.backend_of(&to);
        self.log.push(format!("{:>8} operator moves {id}, now {current:?}, to {backend}", self.model.now));
        let moved = self.affinity.move_to(&self.settings, key, &to, now);
        let Some(current) = current else { return assert!(!moved) };
        let answered = Answered {
            settings: &self.settings,
            backend,
            instance: Some(self.model.backends[backend].instance),
            status: 200,
            says: Says::Silent,
            carried: &[],
            bound: &|_| true,
        };
        let (_, change) = self.model.rehome(&answered, current, None, MoveReason::Admin);
        assert_eq!(moved, change == Change::Moved);
    }
}

fn model_now(answer: &Answer<'_>) -> u32 {
    answer.now.get()
}
