//! What is known of backends: a drain goes on where it was, and one that is down gets no request first.

use super::message::{BackendState, PoolState};
use crate::{
    affinity::Admin,
    backend::{Backend, Deadline},
    world::{Pool, Snapshot},
};

/// What this process knows of the backends of every pool.
pub(super) fn capture(snapshot: &Snapshot) -> Vec<PoolState> {
    let states = |pool: &Pool| pool.backends.iter().map(|backend| state(backend)).collect();
    let pools = snapshot.pools.iter();
    pools.map(|pool| PoolState { name: pool.name.to_string(), backends: states(pool) }).collect()
}

fn state(backend: &Backend) -> BackendState {
    let (member, standing) = (&backend.member, &backend.standing);
    BackendState {
        name: backend.name().to_owned(),
        authority: authority(backend),
        up: member.is_up(),
        // Not that its address has left DNS, which the other process sees for itself.
        admin: standing.steering.wanted().as_str().to_owned(),
        deadline: standing.steering.deadline_in(),
        weight: member.weight(),
        configured_weight: member.configured_weight(),
        instance: standing.instances.current(),
        instance_since: standing.instances.since(),
    }
}

/// Makes the backends of this process what those of the other one were. Those that it does not have are left
/// out.
pub(super) fn apply(snapshot: &Snapshot, pools: &[PoolState]) {
    for known in pools {
        let Some(pool) = snapshot.pool(&known.name) else { continue };
        for state in &known.backends {
            if let Some(backend) = pool.backend(&state.name) {
                apply_one(backend, state);
            }
        }
    }
}

fn apply_one(backend: &Backend, state: &BackendState) {
    let deadline = state.deadline.map_or(Deadline::Never, Deadline::After);
    match Admin::ALL.into_iter().find(|admin| admin.as_str() == state.admin) {
        Some(Admin::Draining) => backend.drain(deadline, 0),
        Some(Admin::Maintenance) => backend.maintain(),
        Some(Admin::Ready) | None => {}
    }
    // An operator's weight lasts until the configured one changes.
    if backend.member.configured_weight() == state.configured_weight {
        backend.member.set_weight(state.weight);
    }
    if state.authority == authority(backend) {
        backend.standing.instances.restore(state.instance, state.instance_since);
        if !state.up {
            backend.found_down("hand-over", "it was down in the process before");
        }
    }
}

/// Health and instance are those of an address.
fn authority(backend: &Backend) -> String {
    format!("{}:{}", backend.host, backend.port)
}
