//! What is known of backends: a drain goes on where it was, and one that is down gets no request first.

use super::message::{BackendState, PoolState};
use crate::{
    affinity::Admin,
    backend::{Backend, Deadline},
    config,
    world::{Pool, Snapshot},
};

/// What this process knows of the backends of every pool.
pub(super) fn capture(snapshot: &Snapshot) -> Vec<PoolState> {
    let pools = snapshot.pools.iter().zip(&snapshot.config.pools);
    pools
        .map(|(pool, config)| PoolState { name: pool.name.to_string(), backends: states(pool, config) })
        .collect()
}

fn states(pool: &Pool, config: &config::Pool) -> Vec<BackendState> {
    let state = |backend: &std::sync::Arc<Backend>| {
        let member = &backend.member;
        let configured = config.backends.iter().find(|config| *config.name == *backend.name());
        BackendState {
            name: backend.name().to_owned(),
            authority: authority(backend),
            up: member.is_up(),
            admin: member.admin().as_str().to_owned(),
            deadline: backend.standing.steering.deadline_in(),
            weight: member.weight(),
            configured_weight: configured.map_or_else(|| member.weight(), |config| config.weight.get()),
            instance: backend.standing.instances.current(),
            instance_since: backend.standing.instances.since(),
        }
    };
    pool.backends.iter().map(state).collect()
}

/// Makes the backends of this process what those of the other one were. Those that it does not have are left
/// out.
pub(super) fn apply(snapshot: &Snapshot, pools: &[PoolState]) {
    for (pool, config) in snapshot.pools.iter().zip(&snapshot.config.pools) {
        let Some(known) = pools.iter().find(|known| *known.name == *pool.name) else { continue };
        for backend in &pool.backends {
            let Some(state) = known.backends.iter().find(|state| state.name == backend.name()) else {
                continue;
            };
            let configured = config.backends.iter().find(|config| *config.name == *backend.name());
            apply_one(backend, state, configured.map(|config| config.weight.get()));
        }
    }
}

fn apply_one(backend: &Backend, state: &BackendState, configured_weight: Option<u32>) {
    let deadline = state.deadline.map_or(Deadline::Never, Deadline::After);
    match Admin::ALL.into_iter().find(|admin| admin.as_str() == state.admin) {
        Some(Admin::Draining) => backend.drain(deadline),
        Some(Admin::Maintenance) => backend.maintain(),
        Some(Admin::Ready) | None => {}
    }
    // An operator's weight lasts until the configured one changes.
    if configured_weight == Some(state.configured_weight) {
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
