//! The pool, its clients, and what is under way between them.

use std::{net::IpAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use fastrand::Rng;
use homing::affinity::{
    Affinity, Balance, Carrier, Claim, Explanation, Hold, KeyHasher, KeySource, Keys, Member, OnDown,
    OnUnknown, Roster, SessionKey, Settings, Tick,
};

use crate::{
    browsers::{Client, Sender},
    model::{About, Backend, Id, Leads, Model},
};

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) affinity: Affinity,
    pub(crate) settings: Settings,
    pub(crate) roster: Roster,
    pub(crate) model: Model,
    pub(crate) clients: Vec<Client>,
    /// Each id is one client's, in one cookie.
    pub(crate) honest: bool,
    pub(crate) flights: Vec<Flight>,
    pub(crate) holds: Vec<Held>,
    pub(crate) log: Vec<String>,
    pub(crate) next_id: Id,
    pub(crate) next_stream: u32,
    pub(crate) hasher: KeyHasher,
}

/// A request under way.
pub(crate) struct Flight {
    pub(crate) sender: Sender,
    pub(crate) carried: Vec<Id>,
    pub(crate) keys: Keys,
    pub(crate) claim: Claim,
    pub(crate) about: About,
    pub(crate) backend: usize,
    pub(crate) member: Arc<Member>,
    pub(crate) roster: Roster,
    pub(crate) pinned: Option<Id>,
    pub(crate) placing: bool,
}

pub(crate) struct Held {
    pub(crate) hold: Hold,
    pub(crate) stream: u32,
    pub(crate) member: Arc<Member>,
}

struct Request(String);

impl Carrier for Request {
    fn cookies(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.0.as_bytes())
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn client(&self) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, 1]))
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let settings = settings(&mut rng);
        let now = rng.u32(0..1_000_000);
        let count = rng.usize(1..8);
        let backends = (0..count).map(|number| Backend {
            name: format!("app-{number}"),
            member: None,
            configured: number == 0 || rng.u8(..4) > 0,
            up: true,
            draining: false,
            maintenance: false,
            weight: rng.u32(1..5),
            instance: 0,
            moved: Default::default(),
            ended: Default::default(),
        });
        let mut model = Model { now, backends: backends.collect(), ..Model::default() };
        // Configuring them restores nothing: they are new.
        model.restored = 0;
        let mut world = Self {
            affinity: Affinity::new(Tick::new(now)),
            settings,
            roster: Roster::default(),
            model,
            clients: (0..rng.usize(1..12)).map(|_| Client::default()).collect(),
            honest: seed.is_multiple_of(2),
            flights: Vec::new(),
            holds: Vec::new(),
            log: Vec::new(),
            next_id: 0,
            next_stream: 0,
            hasher: KeyHasher::new([7; 16]),
            rng,
        };
        world.log.push(format!("{:?}", world.settings));
        world.publish();
        world
    }

    pub(crate) fn now(&self) -> Tick {
        Tick::new(self.model.now)
    }

    pub(crate) fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(0..100) < percent
    }

    pub(crate) fn key(&self, id: Id) -> SessionKey {
        self.hasher.key(format!("id-{id}").as_bytes())
    }

    pub(crate) fn keys(&self, ids: &[Id]) -> Keys {
        let cookies: Vec<String> = ids.iter().map(|id| format!("session=id-{id}")).collect();
        Keys::find(&self.settings.keys, &self.hasher, &Request(cookies.join("; ")))
    }

    pub(crate) fn fresh_id(&mut self) -> Id {
        self.next_id += 1;
        self.next_id
    }

    /// Whether the core has this very id in its table.
    pub(crate) fn is_bound(&self, id: Id) -> bool {
        let key = self.key(id);
        match self.affinity.explain(&self.settings, &self.roster, key, self.now()) {
            Explanation::Known(known) => known.fingerprint == key.fingerprint(),
            Explanation::Unknown { .. } => false,
        }
    }

    /// What the core calls a backend here.
    pub(crate) fn backend_of(&self, member: &Member) -> usize {
        self.model.backends.iter().position(|backend| backend.name == member.name()).expect("it is known")
    }

    /// Gives the core the configured backends.
    pub(crate) fn publish(&mut self) {
        let list: Vec<(&str, u32)> = self
            .model
            .backends
            .iter()
            .filter(|backend| backend.configured)
            .map(|backend| (&*backend.name, backend.weight))
            .collect();
        self.roster = self.affinity.roster(&list, self.settings.session_timeout, Tick::new(self.model.now));
        for member in self.roster.members() {
            // Another one may have had its slot; who agreed on that, goes there from now on.
            let heir = self.backend_of(member);
            for (at, backend) in self.model.backends.iter_mut().enumerate() {
                if backend
                    .member
                    .as_ref()
                    .is_some_and(|had| had.slot() == member.slot() && !Arc::ptr_eq(had, member))
                {
                    backend.member = None;
                    backend.instance += 1;
                    for pin in self.model.pins.values_mut().filter(|pin| pin.0 == at) {
                        pin.0 = heir;
                    }
                }
            }
            let backend = self.backend_of(member);
            let backend = &mut self.model.backends[backend];
            if backend.member.is_none() {
                backend.member = Some(Arc::clone(member));
                (backend.up, backend.draining, backend.maintenance) = (true, false, false);
                backend.moved = Default::default();
                backend.ended = Default::default();
            }
        }
    }

    /// Everything that is due happens, here and there.
    pub(crate) fn drain(&mut self) {
        let budget = if self.chance(50) { 4096 } else { self.rng.usize(1..20) };
        let mut calls = 0;
        while self.affinity.tick(&self.settings, Tick::new(self.model.now), budget) {
            calls += 1;
            assert!(calls < 100_000, "the tick comes to an end");
        }
        self.model.expire(&self.settings);
        if std::mem::take(&mut self.model.wanted) {
            let uncounted: Vec<Id> = self
                .model
                .sessions
                .iter()
                .filter(|(_, session)| !self.model.counts(session))
                .map(|(&id, _)| id)
                .collect();
            for id in uncounted {
                self.model.forget(id, Leads::Nowhere);
            }
        }
        // A ghost goes when the core comes across it; nobody counts it.
        let ghosts: Vec<Id> = self
            .model
            .sessions
            .iter()
            .filter(|(_, session)| self.model.is_ghost(session.home))
            .map(|(&id, _)| id)
            .filter(|&id| !self.is_bound(id))
            .collect();
        for id in ghosts {
            self.model.forget(id, Leads::Nowhere);
        }
    }

    pub(crate) fn finish(&mut self) {
        self.log.push("the end".into());
        while !self.flights.is_empty() {
            self.abandon(0);
        }
        while !self.holds.is_empty() {
            self.release(0);
        }
        self.drain();
        self.check();
        // Longer than any TTL that was ever set.
        self.model.now += 20_000;
        self.drain();
        self.check();
        let sizes = self.affinity.sizes();
        let emptied = sizes.table + sizes.rare + sizes.pins + sizes.past + sizes.past_queue;
        assert_eq!(emptied, 0, "{sizes:?}");
    }
}

pub(crate) fn settings(rng: &mut Rng) -> Settings {
    let timeout = Duration::from_millis(*rng.choice(&[1_000, 6_400, 60_000, 90_500]).expect("some"));
    let ttl = timeout * rng.u32(13..40) / 10;
    let max_ttl = ttl * rng.u32(1..4);
    Settings {
        keys: vec![KeySource::Cookie("session".into())].into(),
        session_timeout: timeout,
        ttl,
        max_ttl,
        max_age: (rng.u8(..5) == 0).then(|| timeout * rng.u32(1..12)),
        grace: Duration::from_millis(rng.u64(1..30) * 100),
        on_down: *rng
            .choice(&[OnDown::Move, OnDown::Move, OnDown::Refuse, OnDown::Wait(Duration::from_secs(1))])
            .expect("some"),
        max_sessions: NonZeroUsize::new(*rng.choice(&[3, 12, 40, 1_000_000]).expect("some")).expect("some"),
        skip: Vec::new(),
        balance: *rng
            .choice(&[Balance::LeastSessions, Balance::LeastRequests, Balance::RoundRobin])
            .expect("some"),
        on_unknown: *rng.choice(&[OnUnknown::Hash, OnUnknown::Place]).expect("some"),
        slow_start: Duration::from_secs(rng.u64(..20)),
    }
}
