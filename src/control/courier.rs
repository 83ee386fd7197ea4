//! Carries what has changed to those who keep or share bindings.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::world::World;

/// The pause between two rounds: how much younger than this what is kept or shared may be.
const ROUND: Duration = Duration::from_millis(250);

/// Delivers for as long as the process runs.
pub async fn carry(world: Arc<World>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let snapshot = world.snapshot.load_full();
        world.courier.deliver(&snapshot).await;
    }
}
