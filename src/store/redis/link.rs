//! The one connection that all threads share, and whether requests wait for it.
//!
//! Requests [`ask`](Link::ask): within their budget, and not at all while the breaker is open. The state
//! thread [`tells`](Link::tell): with patience, as long as there is a connection. So a Redis that has
//! become slow delays nobody and still hears of everything.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};

use super::{
    breaker::{Breaker, BreakerState},
    client::Connection,
    metrics::{Metrics, Operation, Outcome},
    words::said,
};
use crate::clock;

/// The way to Redis.
pub(super) struct Link {
    /// Written by the state thread; none while there is no connection.
    connection: ArcSwapOption<Connection>,
    /// Changed by whoever learns how Redis does; never held across a wait.
    breaker: Mutex<Breaker>,
    /// For requests that wait at one time.
    places: Semaphore,
    /// The connection is of no use any more.
    lost: Notify,
    /// What Redis says while it refuses what it is told; changed by whoever hears it.
    refusal: Mutex<Option<Box<str>>>,
    pub(super) metrics: Metrics,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody tried.
    #[error("not asked")]
    Skipped,
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// Redis would not do it.
    #[error("redis refuses: {}", said(.0))]
    Refused(RedisError),
    /// The connection is gone, or leads to a server that takes no writes.
    #[error("connection lost: {}", said(.0))]
    Lost(RedisError),
}

/// Requests that wait for Redis at one time; more go on without it.
const PLACES: usize = 4096;
/// How long the state thread waits for an answer before it gives the connection up.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

// === impl Link ===

impl Link {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            connection: ArcSwapOption::empty(),
            breaker: Mutex::new(Breaker::new(clock::now())),
            places: Semaphore::new(PLACES),
            lost: Notify::new(),
            refusal: Mutex::default(),
            metrics,
        }
    }

    /// Asks for a request that waits: at most for `wait`, and not at all when that is known to be in vain.
    /// `command` is told whether to send a script whole.
    pub(super) async fn ask(
        &self,
        operation: Operation,
        wait: Duration,
        command: impl Fn(bool) -> Cmd,
    ) -> Result<Value, Failure> {
        let place = self.places.try_acquire();
        if wait.is_zero() || place.is_err() || self.state() != BreakerState::Closed {
            self.metrics.count(operation, Outcome::Skipped);
            return Err(Failure::Skipped);
        }
        let result = self.exchange(operation, wait, command).await;
        self.judge(&result);
        result
    }

    /// Tells, or asks, without a request that waits.
    pub(super) async fn tell(
        &self,
        operation: Operation,
        command: impl Fn(bool) -> Cmd,
    ) -> Result<Value, Failure> {
        let result = self.exchange(operation, PATIENCE, command).await;
        if matches!(result, Err(Failure::Timeout | Failure::Lost(_))) {
            self.lose();
        }
        result
    }

    /// One trial while the breaker is not closed. True when it closed.
    pub(super) async fn try_out(&self, wait: Duration, command: impl Fn(bool) -> Cmd) -> bool {
        if !self.breaker().tries(clock::now()) {
            return false;
        }
        let result = self.exchange(Operation::Heartbeat, wait, command).await;
        self.judge(&result)
    }

    /// Whether requests wait for it.
    pub(super) fn state(&self) -> BreakerState {
        self.breaker().state()
    }

    /// There is a connection.
    pub(super) fn connected(&self, connection: Connection) {
        // What was found out about the one before.
        let _ = self.lost.notified().now_or_never();
        self.connection.store(Some(Arc::new(connection)));
    }

    /// There is none, from now on.
    pub(super) fn disconnected(&self) {
        self.connection.store(None);
        self.breaker().trip(clock::now());
        self.metrics.up.set(0);
        // What it refused is asked of the next one.
        *self.lock_refusal() = None;
    }

    /// Redis does not do what it is told; the log says so when that begins.
    pub(super) fn refused(&self, error: &RedisError) {
        let mut refusal = self.lock_refusal();
        if refusal.is_none() {
            let error = said(error);
            tracing::warn!(
                error,
                "redis refuses to keep sessions: requests go on without it, it is told later"
            );
            *refusal = Some(error.into());
        }
    }

    /// Redis does what it is told.
    pub(super) fn accepted(&self) {
        if self.lock_refusal().take().is_some() {
            tracing::info!("redis keeps sessions again");
        }
    }

    /// What Redis says while it refuses what it is told.
    pub(super) fn refusal(&self) -> Option<Box<str>> {
        self.lock_refusal().clone()
    }

    /// Whether there is one.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.load().is_some()
    }

    /// The connection is of no use: somebody found out.
    pub(super) fn lose(&self) {
        self.lost.notify_one();
    }

    /// Resolves when somebody has found out that the connection is of no use.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    async fn exchange(
        &self,
        operation: Operation,
        wait: Duration,
        command: impl Fn(bool) -> Cmd,
    ) -> Result<Value, Failure> {
        let Some(connection) = self.connection.load_full() else {
            self.metrics.count(operation, Outcome::Skipped);
            return Err(Failure::Skipped);
        };
        let began = clock::now();
        let mut connection = Connection::clone(&connection);
        let asked = async {
            match connection.ask(&command(false)).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    connection.ask(&command(true)).await
                }
                answer => answer,
            }
        };
        let result = match timeout(wait, asked).await {
            Err(_) => Err(Failure::Timeout),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if is_lost(&error) => Err(Failure::Lost(error)),
            Ok(Err(error)) => Err(Failure::Refused(error)),
        };
        self.metrics.took(operation, clock::now().saturating_duration_since(began));
        self.metrics.count(
            operation,
            match &result {
                Ok(_) => Outcome::Ok,
                Err(Failure::Timeout) => Outcome::Timeout,
                Err(Failure::Refused(_) | Failure::Lost(_)) => Outcome::Error,
                Err(Failure::Skipped) => Outcome::Skipped,
            },
        );
        result
    }

    /// Draws the breaker's conclusions. True when it closed.
    fn judge(&self, result: &Result<Value, Failure>) -> bool {
        let now = clock::now();
        let (opened, closed) = match result {
            Ok(_) => (false, self.breaker().succeeded()),
            Err(Failure::Timeout | Failure::Refused(_)) => (self.breaker().failed(now), false),
            Err(Failure::Lost(_)) => {
                self.lose();
                (self.breaker().trip(now), false)
            }
            Err(Failure::Skipped) => (false, false),
        };
        if opened {
            self.metrics.up.set(0);
            match result {
                Err(Failure::Refused(error)) => self.refused(error),
                Err(Failure::Timeout) => {
                    tracing::warn!("redis does not answer in time: requests go on without it");
                }
                // Whoever ends the connection says so.
                _ => {}
            }
        }
        if closed {
            self.metrics.up.set(1);
            if self.metrics.secret_mismatch.get() == 0 {
                tracing::info!("redis answers: sessions are shared");
            } else {
                tracing::warn!(
                    "redis answers, but other replicas have another `secret_file`: nothing is shared"
                );
            }
        }
        closed
    }

    fn lock_refusal(&self) -> MutexGuard<'_, Option<Box<str>>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}

/// A new connection may help: this one is broken, or its server is no master any more.
fn is_lost(error: &RedisError) -> bool {
    error.is_connection_dropped()
        || error.is_io_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}
