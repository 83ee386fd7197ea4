//! Moves sessions along: live, retained, gone.

use std::sync::Arc;

use tokio::{task::yield_now, time::interval};

use crate::{affinity::Tick, clock, world::World};

/// Bindings handled before the control thread turns to something else.
const BATCH: usize = 4096;

/// Ticks every pool for as long as the process runs.
pub async fn expire(world: Arc<World>) {
    let mut ticks = interval(Tick::LENGTH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let snapshot = world.snapshot.load_full();
        for pool in &snapshot.pools {
            while pool.affinity.tick(&pool.settings, clock::tick(), BATCH) {
                yield_now().await;
            }
        }
    }
}
