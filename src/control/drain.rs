//! Ends drains whose deadline has passed: the backend serves nobody from then on, so the sessions that are
//! left move with their next request, and open streams are told to go.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{clock, world::World};

/// How late a deadline may be noticed.
const LOOK: Duration = Duration::from_millis(200);

/// Watches the drains of every backend for as long as the process runs.
pub async fn end_drains(world: Arc<World>) {
    loop {
        sleep(LOOK).await;
        let snapshot = world.snapshot.load_full();
        for backend in snapshot.pools.iter().flat_map(|pool| &pool.backends) {
            if backend.expire_drain(clock::now()) {
                let left = backend.standing.steering.cut().map(|cut| cut.left).unwrap_or_default();
                tracing::warn!(
                    pool = %backend.pool,
                    backend = backend.name(),
                    live = left.sessions,
                    streams = left.streams,
                    requests = left.requests,
                    "the deadline of the drain has passed: backend in maintenance, its sessions move"
                );
            }
        }
    }
}
