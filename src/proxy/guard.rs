//! When a client connection must end although neither side ended it.

use std::{rc::Rc, time::Duration};

use prometheus::IntGauge;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Open, Worker,
    activity::{Activity, Watch},
    answers::Answers,
};
use crate::{clock, config::Timeouts, world::Phase};

/// Watches over one connection.
#[derive(Debug)]
pub(super) struct Guard {
    activity: Rc<Activity>,
    phase: watch::Receiver<Phase>,
    /// The latest phase that was acted upon.
    seen: Phase,
    head: Option<Duration>,
    idle: Duration,
    body: Duration,
    answers: Rc<Answers>,
    /// When an idle connection, which has been told to go, is cut.
    parting: Option<Instant>,
    /// Tells that no more requests are to come (HTTP/2).
    spent: Option<Rc<Notify>>,
    /// The WebSockets over it (HTTP/2).
    tunnels: Option<Rc<Open>>,
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
        activity: &Rc<Activity>,
        answers: &Rc<Answers>,
        head: Option<Duration>,
        timeouts: &Timeouts,
    ) -> Self {
        Self {
            activity: Rc::clone(activity),
            phase: worker.world.watch(),
            seen: Phase::Ready,
            head,
            idle: timeouts.idle,
            body: timeouts.body,
            answers: Rc::clone(answers),
            parting: None,
            spent: None,
            tunnels: None,
        }
    }

    /// After a take-over, the connection stays for as long as these do.
    pub(super) fn with_tunnels(mut self, tunnels: &Rc<Open>) -> Self {
        self.tunnels = Some(Rc::clone(tunnels));
        self
    }

    /// The connection ends with grace when `spent` tells that no more requests are to come.
    pub(super) fn until_spent(mut self, spent: &Rc<Notify>) -> Self {
        self.spent = Some(Rc::clone(spent));
        self
    }

    /// Resolves when the connection must end.
    pub(super) async fn next(&mut self) -> End {
        loop {
            let now = clock::now();
            if self.answers.cut_stalled(now, self.body) && self.head.is_some() {
                return End::Now;
            }
            let until = match self.parting {
                // A request that crossed the farewell is served to its end.
                Some(_) if self.activity.is_busy() => now + PARTING,
                Some(at) if at <= now => return End::Now,
                Some(at) => at,
                None => match self.activity.watch(now, self.head, self.idle) {
                    Watch::Until(until) => until.min(now + self.body),
                    Watch::Late => return End::Now,
                    Watch::Idle => {
                        self.parting = Some(now + PARTING);
                        return End::Graceful;
                    }
                },
            };
            let seen = self.seen;
            tokio::select! {
                () = sleep_until(until) => {}
                () = notified(self.spent.as_deref()) => {
                    self.spent = None;
                    return End::Graceful;
                }
                phase = self.phase.wait_for(|phase| *phase > seen) => {
                    // The sender lives as long as the world, which the worker holds.
                    let Ok(phase) = phase.map(|phase| *phase) else { return End::Now };
                    self.seen = phase;
                    if phase == Phase::Forced {
                        return End::Now;
                    }
                    if phase == Phase::Carrying {
                        if !self.tunnels.as_ref().is_some_and(|tunnels| tunnels.any()) {
                            return End::Now;
                        }
                        self.answers.cut_all();
                        continue;
                    }
                    if phase == Phase::HandedOver && self.head.is_some() {
                        // The next answer says that it is the last one. Until then nothing would tell a client
                        // whose next request is on its way already.
                        continue;
                    }
                    // A client that has only just connected has its first request on the way: what is not busy
                    // may be closed without reading it.
                    let _ = timeout(PARTING, self.activity.first_request()).await;
                    return End::Graceful;
                }
            }
        }
    }
}

/// Resolves when it tells; never without one.
async fn notified(notify: Option<&Notify>) {
    match notify {
        Some(notify) => notify.notified().await,
        None => std::future::pending().await,
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
