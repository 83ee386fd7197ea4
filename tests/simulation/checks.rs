//! What must be true after every step.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    model::{Leads, ticks},
    world::World,
};

impl World {
    pub(crate) fn check(&self) {
        let model = &self.model;
        let stats = self.affinity.stats();
        let mut live: HashMap<usize, u64> = HashMap::new();
        let mut retained: HashMap<usize, u64> = HashMap::new();
        for session in model.sessions.values().filter(|session| model.counts(session)) {
            let counts = if model.is_retained(&self.settings, session) { &mut retained } else { &mut live };
            *counts.entry(session.home.0).or_default() += 1;
        }
        for (at, backend) in model.backends.iter().enumerate() {
            let Some(member) = &backend.member else { continue };
            let Some(found) = stats.backends.iter().find(|found| Arc::ptr_eq(&found.member, member)) else {
                assert!(!backend.configured, "{at} is not in the readings");
                continue;
            };
            let of = |counts: &HashMap<usize, u64>| counts.get(&at).copied().unwrap_or(0);
            assert_eq!(found.removed, !backend.configured);
            assert_eq!((found.live, found.retained), (of(&live), of(&retained)), "sessions of {at}");
            assert_eq!(found.moved, backend.moved, "moves from {at}");
            assert_eq!(found.ended, backend.ended, "ends on {at}");
            let streams = self.holds.iter().filter(|held| Arc::ptr_eq(&held.member, member)).count();
            assert_eq!(found.streams, streams as u64);
            let placing = self.flights.iter().filter(|flight| flight.placing);
            let placing = placing.filter(|flight| Arc::ptr_eq(&flight.member, member)).count();
            assert_eq!(member.placing() as usize, placing, "placing on {at}");
        }
        assert_eq!(
            (stats.learned, stats.restored, stats.ended, stats.renamed),
            (model.learned, model.restored, model.ended, model.renamed),
            "learned, restored, ended, renamed"
        );
        let sum: u64 = stats.backends.iter().map(|backend| backend.live + backend.retained).sum();
        assert_eq!(sum, stats.entries);
        assert_eq!(stats.learned + stats.restored - stats.ended, stats.entries);
        assert_eq!(
            (stats.late, stats.full, stats.over_quota),
            (model.late_hits, model.full, model.over_quota)
        );
        let unlearned = model.sessions.values().filter(|session| session.unlearned).count();
        assert_eq!(stats.unlearned, unlearned as u64);
        assert_eq!(stats.pins, model.pins.len() as u64);
        self.check_sizes();
        self.check_eta();
    }

    fn check_sizes(&self) {
        let sizes = self.affinity.sizes();
        assert_eq!(sizes.table, self.model.sessions.len(), "table");
        assert!(sizes.rare <= sizes.table, "{sizes:?}");
        let names = self.model.aliases.values().filter_map(|alias| match alias.leads {
            Leads::To(id) => Some(id),
            _ => None,
        });
        let names: HashSet<u32> = names.collect();
        assert_eq!(sizes.past, self.model.past.len() + self.model.aliases.len() + names.len());
        assert!(sizes.past_queue <= 2 * 131_072);
        assert!(sizes.live_wheel.max(sizes.retained_wheel) <= 2 * sizes.table + 4096, "{sizes:?}");
        assert!(sizes.late <= 16_384);
        assert!(sizes.names <= self.model.backends.len());
    }

    fn check_eta(&self) {
        let timeout = ticks(self.settings.session_timeout);
        for member in self.roster.members() {
            let at = self.backend_of(member);
            let home = (at, self.model.backends[at].instance);
            let live: Vec<_> = self
                .model
                .sessions
                .values()
                .filter(|session| session.home == home && !self.model.is_retained(&self.settings, session))
                .collect();
            let eta = self.affinity.drain_eta(&self.settings, &self.roster, member.slot(), self.now());
            assert_eq!(eta.is_some(), !live.is_empty(), "{at} has {} live sessions", live.len());
            let held = member.streams() > 0 || live.iter().any(|session| !session.streams.is_empty());
            if let Some(eta) = eta
                && !held
            {
                let last = live.iter().map(|session| session.seen).max().expect("there is one");
                let exact = last + timeout - self.model.now;
                let told = ticks(eta);
                let most = exact + timeout / 64 + 1;
                assert!((exact..=most).contains(&told), "{at} is idle in {exact}, not {told}");
            }
        }
    }
}
