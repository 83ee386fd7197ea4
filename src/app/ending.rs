//! How long what is open may go on when the process ends.

use std::pin::{Pin, pin};

use tokio::time::sleep;

use crate::{
    config::format_duration,
    control::Stop,
    world::{Phase, World},
};

/// Waits until `all` has ended, or has to; whether it has.
///
/// After a signal, everything has `timeouts.drain`. After a take-over, requests have that, and WebSockets
/// `timeouts.handover_drain`; a signal then gives both `timeouts.drain` from that moment on, and the next one nothing.
pub(super) async fn drained(world: &World, stop: &mut Stop, all: impl Future<Output = ()>) -> bool {
    let mut all = pin!(all);
    if world.is_handed_over() {
        match carried(world, stop, all.as_mut()).await {
            Carried::Signal(signal) => tracing::info!(signal, "draining"),
            Carried::Ended => return true,
            Carried::Late => return false,
        }
    }
    let drain = world.snapshot.load().config.timeouts.drain;
    tokio::select! {
        () = all => return true,
        signal = stop.next() => tracing::warn!(signal, "closing what is still open"),
        () = sleep(drain) => tracing::warn!(after = %format_duration(drain), "closing what is still open"),
    }
    false
}

/// How the time after a take-over ended.
enum Carried {
    /// Nothing is open.
    Ended,
    /// Time is up.
    Late,
    /// This signal came.
    Signal(&'static str),
}

async fn carried(world: &World, stop: &mut Stop, mut all: Pin<&mut impl Future<Output = ()>>) -> Carried {
    let timeouts = world.snapshot.load().config.timeouts.clone();
    let (drain, tunnels) = (timeouts.drain, timeouts.handover_drain);
    let times = async {
        sleep(drain.min(tunnels)).await;
        if tunnels > drain {
            tracing::info!(after = %format_duration(drain), until = %format_duration(tunnels), "the drain is over: only WebSockets go on");
            world.advance(Phase::Carrying);
        } else {
            world.end_tunnels();
        }
        sleep(drain.abs_diff(tunnels)).await;
    };
    tokio::select! {
        () = all.as_mut() => Carried::Ended,
        signal = stop.next() => Carried::Signal(signal),
        () = times => {
            tracing::warn!(after = %format_duration(drain.max(tunnels)), "closing what is still open");
            Carried::Late
        }
    }
}
