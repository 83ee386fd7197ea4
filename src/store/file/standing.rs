//! What survives of backends: which instance answered last, and what operators want of them.
//!
//! A backend is given what the file knows of it when it is first seen in the configuration, at start or, for
//! one that is discovered, later. From then on the file follows the backend. One that leaves the
//! configuration begins anew when it comes back, as it does in a process that goes on.

use std::{collections::HashSet, time::Duration};

use super::{
    codec::{Steered, Weight, Wish},
    names::Names,
};
use crate::{
    affinity::Admin,
    backend::{Backend, Deadline},
    clock,
    world::Snapshot,
};

/// Follows the backends of the configuration.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Those that were given what the file knew of them: pool and name.
    met: HashSet<(Box<str>, Box<str>)>,
}

/// Weights that operators can set.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=1000;

// === impl Standing ===

impl Standing {
    /// Gives new backends what is known of them, and notes what has become of the others.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, names: &mut Names) {
        let mut gone = std::mem::take(&mut self.met);
        for backend in snapshot.pools.iter().flat_map(|pool| &pool.backends) {
            let key = (backend.pool.clone(), Box::from(backend.name()));
            let known = names.known(&backend.pool, backend.name());
            if !gone.remove(&key)
                && let Some(known) = known
            {
                backend.standing.instances.restore(known.instance, known.since);
                steer(backend, known.steered);
            }
            let instances = &backend.standing.instances;
            let instance = match instances.current() {
                0 => (0, 0),
                current => (current, instances.since()),
            };
            names.update(&backend.pool, backend.name(), instance, steered(backend));
            self.met.insert(key);
        }
        for (pool, name) in gone {
            names.release(&pool, &name);
        }
    }
}

/// Does again what operators did to a backend.
fn steer(backend: &Backend, wanted: Steered) {
    let mut any = true;
    match wanted.admin {
        Wish::Ready => any = false,
        Wish::Maintenance => backend.maintain(),
        Wish::Draining => {
            let deadline = wanted.deadline.map_or(Deadline::Never, |at| {
                // One that has passed meanwhile ends the drain at once.
                Deadline::After(Duration::from_millis(at.saturating_sub(clock::unix_ms())))
            });
            backend.drain(deadline, 0);
        }
    }
    if let Some(weight) = wanted.weight
        && weight.configured == backend.member.configured_weight()
        && WEIGHTS.contains(&weight.set)
    {
        backend.member.set_weight(weight.set);
        any = true;
    }
    if any {
        let admin = backend.member.admin().as_str();
        tracing::info!(pool = %backend.pool, backend = backend.name(), admin, weight = backend.member.weight(), "as operators left it");
    }
}

fn steered(backend: &Backend) -> Steered {
    let member = &backend.member;
    let left = backend.standing.steering.deadline_in();
    let (set, configured) = (member.weight(), member.configured_weight());
    Steered {
        // Not that its address has left DNS, which passes, and which the next process sees for itself.
        admin: match backend.standing.steering.wanted() {
            Admin::Ready => Wish::Ready,
            Admin::Draining => Wish::Draining,
            Admin::Maintenance => Wish::Maintenance,
        },
        deadline: left.map(|left| clock::unix_ms().saturating_add(clock::millis(left)).min(LATEST)),
        weight: (set != configured).then_some(Weight { set, configured }),
    }
}

/// A time that the file can hold, past any deadline that makes sense.
const LATEST: u64 = (1 << 48) - 1;
