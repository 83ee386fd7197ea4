//! A new process takes over: all that the old one knew leaves it and comes to the new one.

use homing::affinity::{Absorbed, Affinity, Rule, SessionKey, Trace};

use crate::{
    model::{Leads, Model, ticks},
    world::World,
};

impl World {
    /// A new core takes over from the old one. Sessions, their times, earlier ids and what ended a moment ago
    /// stay; who had only a ghost, has nothing.
    pub(crate) fn upgrade(&mut self) {
        while !self.flights.is_empty() {
            self.abandon(0);
        }
        while !self.holds.is_empty() {
            self.release(0);
        }
        self.drain();
        if self.model.sessions.len() > self.settings.max_sessions.get() {
            return;
        }
        self.log.push(format!("{:>8} a new process takes over", self.model.now));
        let mut told: Vec<(SessionKey, Trace)> = Vec::new();
        self.affinity.each(self.now(), |key, trace| {
            told.push((key, trace));
            true
        });
        let fresh = Affinity::new(self.now());
        let old = std::mem::replace(&mut self.affinity, fresh);
        self.forget();
        self.publish();
        for (key, trace) in told {
            let absorbed = self.tell(&old, key, trace);
            assert_eq!(absorbed, Absorbed::New, "{trace:?}");
            // Whoever hears it again has heard nothing new.
            let again = self.tell(&old, key, trace);
            assert!(matches!(again, Absorbed::Same), "{trace:?}: {again:?}");
        }
        for at in 0..self.model.backends.len() {
            let name = &self.model.backends[at].name;
            let knows = self.model.sessions.values().any(|session| session.home.0 == at);
            let knows = knows || self.model.past.values().any(|(home, _)| home.0 == at);
            if knows {
                self.model.backends[at].member = self.affinity.home_named(name, &self.settings);
            }
        }
    }

    fn tell(&self, old: &Affinity, key: SessionKey, trace: Trace) -> Absorbed {
        let (settings, now) = (&self.settings, self.now());
        let home = |slot| {
            let member = old.member(slot).expect("it had sessions");
            self.affinity.home_named(member.name(), settings).expect("there are not many")
        };
        match trace {
            Trace::Bound(record) => {
                self.affinity.absorb(settings, &home(record.home), key, &record, Rule::Newer, now)
            }
            Trace::Renamed { to, until } => self.affinity.absorb_renamed(settings, key, to, until, now),
            Trace::Ended { home: slot, until } => {
                match self.affinity.absorb_ended(settings, key, home(slot).slot(), until, now) {
                    Absorbed::Ended => Absorbed::New,
                    absorbed => absorbed,
                }
            }
            Trace::Unknown => unreachable!("it is not shown"),
        }
    }

    /// What does not survive.
    fn forget(&mut self) {
        let model = &mut self.model;
        let instances: Vec<u32> = model.backends.iter().map(|backend| backend.instance).collect();
        model.sessions.retain(|_, session| instances[session.home.0] == session.home.1);
        let latest = model.now + ticks(self.settings.grace);
        // Each of the earlier ids of a session that ended is remembered by itself.
        for (id, alias) in std::mem::take(&mut model.aliases) {
            match alias.leads {
                Leads::To(_) => _ = model.aliases.insert(id, alias),
                Leads::Ended(home, until) if until > model.now => _ = model.past.insert(id, (home, until)),
                _ => {}
            }
        }
        model.past.values_mut().for_each(|(_, until)| *until = latest.min(*until));
        model.past.retain(|_, (home, _)| instances[home.0] == home.1);
        for backend in &mut model.backends {
            backend.member = None;
            (backend.up, backend.draining, backend.maintenance) = (true, false, false);
            backend.moved = Default::default();
            backend.ended = Default::default();
        }
        let counted = model.sessions.values().filter(|session| model.counts(session)).count();
        self.model = Model {
            now: self.model.now,
            backends: std::mem::take(&mut self.model.backends),
            sessions: std::mem::take(&mut self.model.sessions),
            past: std::mem::take(&mut self.model.past),
            aliases: std::mem::take(&mut self.model.aliases),
            restored: counted as u64,
            ..Model::default()
        };
    }
}
