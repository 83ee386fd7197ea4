//! Health of backends: active checks on a schedule, and trials when passing requests raise a suspicion.
//!
//! Each backend has one watch for as long as it is in its pool. A publish does not restart it: a check that is under way
//! goes on, and so do the schedule and the back-off. What a check tells is told to the [`Backend`] of the moment, which
//! may be another object than the one that the check began with.

use std::{fmt::Display, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::supervisor::Supervisor;
use crate::{
    affinity::OnDown,
    backend::{Backend, Evidence, Standing},
    clock,
    config::HealthCheck,
    upstream::{ConnectError, ProbeError, connect, probe},
    world::{Pool, World},
};

/// What a watch looks after, as the last publish has it.
#[derive(Clone, Debug)]
struct Watched {
    pool: Arc<Pool>,
    backend: Arc<Backend>,
}

/// The watch of one backend.
struct Watch {
    now: watch::Receiver<Watched>,
    /// When the next active check begins.
    due: Instant,
    /// How the last one ended.
    last: Option<bool>,
}

/// What came of one active check.
enum Checked {
    /// It ended; this is what it was about.
    Ended(Watched, Result<Option<Vec<u8>>, ProbeError>),
    /// The backend has another address, or is not checked any more: nothing is known.
    Void,
}

/// Trial connections of a backend that is down grow apart up to this many times the first wait.
const MAX_BACKOFF: u32 = 16;
/// Time between the first checks of two backends that are new at the same time.
const STAGGER: Duration = Duration::from_millis(10);
/// The shortest pause between two checks, or trials, of one backend.
const SOON: Duration = Duration::from_millis(100);

/// Watches all backends of the current snapshot, whichever that is. Ends only when a watch does, which
/// none should.
pub async fn watch_health(world: Arc<World>) {
    let mut published = world.published();
    // What is known of a backend survives whatever is published, so it is what a watch belongs to. A watch holds it, so
    // no other one can get its address in memory.
    let mut watches: Supervisor<*const Standing, Watched> = Supervisor::new();
    loop {
        published.borrow_and_update();
        {
            let snapshot = world.snapshot.load();
            let wanted = snapshot.pools.iter().flat_map(|pool| {
                pool.backends.iter().map(|backend| {
                    let watched = Watched { pool: Arc::clone(pool), backend: Arc::clone(backend) };
                    (Arc::as_ptr(&backend.standing), watched)
                })
            });
            let start = |_: &_, now: watch::Receiver<Watched>, nth: u32| {
                let wait = match &now.borrow().pool.health {
                    Some(check) => (STAGGER * nth).min(check.interval),
                    None => Duration::ZERO,
                };
                Watch { now, due: clock::now() + wait, last: None }.run()
            };
            watches.settle(wanted, start, |_| ());
        }
        tokio::select! {
            _ = published.changed() => {}
            () = watches.ended() => return,
        }
    }
}

// === impl Watched ===

impl Watched {
    /// Whether a session that lives here could go elsewhere, so that this backend is not missed much.
    fn is_replaced(&self) -> bool {
        self.pool.settings.on_down == OnDown::Move
            && self.pool.backends.iter().any(|other| other.member.takes_new())
    }

    /// Whether a check of `other` asks what one of this asks.
    fn asks_as(&self, other: &Self) -> bool {
        let question = |watched: &Self| {
            let check = watched.pool.health.as_ref();
            check.map(|check| (check.path.clone(), check.host.clone(), watched.pool.instance_header.clone()))
        };
        question(self) == question(other)
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pool, &other.pool) && Arc::ptr_eq(&self.backend, &other.backend)
    }
}

// === impl Watch ===

impl Watch {
    async fn run(mut self) {
        loop {
            self.check_actively().await;
            self.try_when_suspected().await;
        }
    }

    /// For as long as the pool has an active check.
    async fn check_actively(&mut self) {
        loop {
            let Some(mut check) = self.current().pool.health.clone() else { return };
            if !self.until_due(&check).await {
                continue;
            }
            let began = clock::now();
            match self.check().await {
                Checked::Void => self.due = clock::now() + SOON,
                Checked::Ended(watched, result) => {
                    let now = self.current();
                    // The configuration of now says how much a check counts, and when the next one is.
                    let Some(current) = &now.pool.health else { return };
                    check.clone_from(current);
                    self.due = (began + spread(check.interval)).max(clock::now() + SOON);
                    self.conclude(&watched, &now, &check, result);
                }
            }
        }
    }

    /// Waits for the next check. False when the configuration has changed meanwhile.
    async fn until_due(&mut self, check: &HealthCheck) -> bool {
        let backend = self.current().backend;
        tokio::select! {
            () = sleep_until(self.due) => true,
            // A suspicion is looked into at once; the pause keeps a failing backend from being hammered.
            () = backend.suspected() => {
                sleep(check.interval.min(SOON)).await;
                true
            }
            Ok(()) = self.now.changed() => {
                let now = self.now.borrow_and_update();
                if let Some(other) = now.pool.health.as_ref().filter(|other| *other != check) {
                    // Spread, since all backends of the pool hear of it at the same time.
                    self.due = self.due.min(clock::now() + other.interval.mul_f64(fastrand::f64()));
                }
                false
            }
        }
    }

    /// One check. It goes on across a reload, within the shorter of both timeouts.
    async fn check(&mut self) -> Checked {
        let watched = self.current();
        let Some(check) = &watched.pool.health else { return Checked::Void };
        let mut limit = check.timeout;
        let began = clock::now();
        let mut probing = pin!(probe(&watched.backend, check, watched.pool.instance_header.as_ref()));
        loop {
            tokio::select! {
                result = &mut probing => return Checked::Ended(watched.clone(), result),
                () = sleep_until(began + limit), if limit < check.timeout => {
                    return Checked::Ended(watched.clone(), Err(ProbeError::Timeout(limit)));
                }
                Ok(()) = self.now.changed() => {
                    let now = self.now.borrow_and_update();
                    match &now.pool.health {
                        Some(check) if now.backend.is_where(&watched.backend) => limit = limit.min(check.timeout),
                        _ => return Checked::Void,
                    }
                }
            }
        }
    }

    /// Tells what came of a check of `watched`; `now` is what the last publish made of that.
    fn conclude(
        &mut self,
        watched: &Watched,
        now: &Watched,
        check: &HealthCheck,
        result: Result<Option<Vec<u8>>, ProbeError>,
    ) {
        let Watched { pool, backend } = now;
        if !backend.is_where(&watched.backend) {
            self.due = clock::now() + SOON;
            return;
        }
        if let Err(ProbeError::Connect(ConnectError::Local(_))) = &result {
            tracing::error!(pool = %backend.pool, backend = backend.name(), "health check not made: short of resources");
            return;
        }
        // A response to another question than the one of now says nothing; silence does.
        if !now.asks_as(watched) && !matches!(&result, Err(ProbeError::Timeout(_) | ProbeError::Connect(_))) {
            self.due = clock::now() + SOON;
            return;
        }
        let failed = result.as_ref().err();
        if let Some(error) = failed
            && self.last != Some(false)
        {
            tracing::info!(pool = %backend.pool, backend = backend.name(), %error, "health check failed");
        }
        self.last = Some(failed.is_none());
        if let Ok(Some(id)) = &result {
            pool.heard_instance(backend, id);
        }
        backend.checked(failed.map(|error| error as &dyn Display), check);
    }

    /// For as long as the pool has no active check.
    async fn try_when_suspected(&mut self) {
        let mut backoff = 1;
        loop {
            let watched = self.current();
            let Watched { pool, backend } = &watched;
            if pool.health.is_some() {
                self.due = clock::now();
                return;
            }
            if backend.member.is_up() {
                backoff = 1;
                tokio::select! {
                    () = backend.suspected() => {}
                    Ok(()) = self.now.changed() => continue,
                }
            } else {
                if !self.hold_off(backoff).await {
                    continue;
                }
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
            let Watched { pool, backend } = self.current();
            match connect(&backend, pool.timeouts.connect).await {
                Ok(_) => self.tried(&backend, None),
                // Not tried at all, if the fault is ours: again, when there is another reason to.
                Err(error) => {
                    if let Some(evidence) = error.evidence() {
                        self.tried(&backend, Some((evidence, &error)));
                    }
                    // A suspicion that is still open is looked into again, but not in a tight loop.
                    sleep(SOON).await;
                }
            }
        }
    }

    /// Waits until a backend that is down is to be tried again: `retry`, and up to `backoff` times that while others
    /// serve in its place. False when there is no need to, since it is up or checked actively by now.
    async fn hold_off(&mut self, backoff: u32) -> bool {
        for _ in 0..backoff {
            let retry = self.current().backend.passive.retry;
            let mut end = pin!(sleep(retry));
            loop {
                tokio::select! {
                    () = &mut end => break,
                    Ok(()) = self.now.changed() => {
                        let now = self.now.borrow_and_update();
                        // Others of the pool may change every second, which must not put a trial off.
                        if now.pool.health.is_some() || now.backend.member.is_up() {
                            return false;
                        }
                        if now.backend.passive.retry < retry {
                            break;
                        }
                    }
                }
            }
            let now = self.current();
            if now.backend.member.is_up() {
                return false;
            }
            if !now.is_replaced() {
                break;
            }
        }
        true
    }

    fn tried(&self, backend: &Backend, failed: Option<(Evidence, &dyn Display)>) {
        let now = self.current().backend;
        if now.is_where(backend) {
            now.tried(failed);
        }
    }

    fn current(&self) -> Watched {
        self.now.borrow().clone()
    }
}

/// Up to a tenth more or less, so that checks of many backends do not fall together.
fn spread(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() * 0.2)
}
