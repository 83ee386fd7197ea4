//! What happens: one step at a time.

use std::sync::Arc;

use homing::affinity::{
    Admin, Answer, Ask, Change, Effects, EndReason, Exchange, MoveReason, OnUnknown, Reason, Slot, Target,
    Verdict,
};

use crate::{
    answers::Answered,
    browsers::{Reply, Sender},
    model::{About, Id, Said, ticks},
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
        let (sender, carried) = self.sender();
        let skip = self.chance(3);
        let tried: Vec<usize> = match self.chance(10) {
            true => {
                let tried = self.rng.usize(..self.model.backends.len());
                vec![tried].into_iter().filter(|&at| self.model.backends[at].configured).collect()
            }
            false => Vec::new(),
        };
        let follow = if self.chance(20) { Some(self.rng.usize(..self.model.backends.len())) } else { None };
        self.choose(sender, carried, skip, follow, &tried, false);
    }

    fn choose(
        &mut self,
        sender: Sender,
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
            crawls: self.rng.bool(),
        };
        let decision = self.affinity.choose(&self.settings, &self.roster, &ask);
        let expected = self.model.choose(&self.settings, &carried, skip, follow, tried, waited);
        let picked =
            decision.pick.map(|slot| self.backend_of(self.roster.member(slot).expect("it is configured")));
        self.log.push(format!(
            "{:>8} client {:?} sends {carried:?} to {}{} skip {skip} tried {tried:?}: {:?} {:?} to {picked:?} ({:?})",
            self.model.now,
            sender.client,
            sender.host,
            sender.path,
            decision.verdict,
            decision.reason,
            expected.about
        ));
        if !skip && let Some(home) = self.promised(&sender) {
            assert_eq!(picked, Some(home), "a live session is sent elsewhere");
            assert_eq!(decision.verdict, Verdict::Home);
        }
        if expected.waits {
            assert!(decision.pick.is_none() && decision.wait_for.is_some(), "{decision:?} {expected:?}");
            self.affinity.abandon(decision.claim);
            if self.chance(50) {
                self.choose(sender, carried, skip, follow, tried, true);
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
            sender,
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
        let set_cookies = self.set_cookies(&flight);
        let Sender { client, host, path, .. } = flight.sender;
        let says = Said::read(&set_cookies, host, path);
        let affected = self.affected(&flight, &says);
        let told = self.break_promises(&affected, client, self.moving(&flight), &says);
        let exchange = Exchange {
            carried: flight.keys.source(),
            method: "GET",
            target: Target { host: host.as_bytes(), path: path.as_bytes() },
            wall_unix: 0,
        };
        let reply = Reply { status, set_cookies: &set_cookies };
        let effects = Effects::of(&self.settings.keys, &self.hasher, &exchange, &reply);
        self.log.push(format!(
            "{:>8} backend {} answers {status} {set_cookies:?} to client {client:?} {:?} {:?}",
            self.model.now, flight.backend, flight.carried, flight.about
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
            says: &says,
            carried: &flight.carried,
            bound: &bound,
        };
        let outcome = model.settle(flight.about, &answered);
        self.model = model;
        self.unpin(flight.pinned);
        self.log.push(format!("{:>8}   {:?}", self.model.now, settled.change));
        assert_eq!((settled.key, settled.change), (outcome.0.map(|id| self.key(id)), outcome.1));
        self.receive(&flight.sender, &flight.carried, flight.about, &set_cookies, &told, outcome);
        if let Some(id) = outcome.0
            && self.chance(8)
        {
            self.hold(id, &flight.member);
        }
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
                self.clients.iter_mut().for_each(|client| client.promises.clear());
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
                    client.promises.retain(|_, (home, _)| home.0 != at);
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
        self.break_promises(&current.into_iter().collect(), None, None, &[]);
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
            says: &[],
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
