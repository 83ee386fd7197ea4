//! When a client connection must end although neither side ended it.

use std::{sync::Arc, time::Duration};

use prometheus::IntGauge;
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};

use super::{
    Worker,
    activity::{Activity, Watch},
};
use crate::{clock, config::Timeouts, world::Phase};

/// Watches over one connection.
#[derive(Debug)]
pub(super) struct Guard {
    activity: Arc<Activity>,
    phase: watch::Receiver<Phase>,
    /// The latest phase that was acted upon.
    seen: Phase,
    head: Option<Duration>,
    idle: Duration,
    /// Whether an idle connection has been told to go.
    parting: bool,
}

/// How a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After what is under way: `Connection: close`, GOAWAY.
    Graceful,
    /// At once.
    Now,
}

/// Counts an open connection until it is dropped.
#[derive(Debug)]
pub(super) struct Gauge(IntGauge);

/// Time for an idle HTTP/2 client to read the GOAWAY.
const PARTING: Duration = Duration::from_secs(1);

// === impl Guard ===

impl Guard {
    /// `head` is none where input between requests is no head (HTTP/2).
    pub(super) fn new(
        worker: &Worker,
        activity: &Arc<Activity>,
        head: Option<Duration>,
        timeouts: &Timeouts,
    ) -> Self {
        Self {
            activity: Arc::clone(activity),
            phase: worker.world.watch(),
            seen: Phase::Ready,
            head,
            idle: timeouts.idle,
            parting: false,
        }
    }

    /// Resolves when the connection must end. Loses nothing when it is dropped and called again.
    pub(super) async fn next(&mut self) -> End {
        loop {
            if self.parting {
                sleep(PARTING).await;
                return End::Now;
            }
            let until = match self.activity.watch(clock::now(), self.head, self.idle) {
                Watch::Until(until) => until,
                Watch::Late => return End::Now,
                Watch::Idle => {
                    self.parting = true;
                    return End::Graceful;
                }
            };
            let seen = self.seen;
            tokio::select! {
                () = sleep_until(until) => {}
                phase = self.phase.wait_for(|phase| *phase > seen) => {
                    // The sender lives as long as the world, which the worker holds.
                    let Ok(phase) = phase else { return End::Now };
                    self.seen = *phase;
                    return if self.seen == Phase::Forced { End::Now } else { End::Graceful };
                }
            }
        }
    }
}

// === impl Gauge ===

impl Gauge {
    pub(super) fn enter(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
