//! The runtime model of one server process: where it is, whether it serves, what it has done.
//!
//! A [`Backend`] outlives the snapshot that names it: a reload reuses it, so health, drain state and
//! stickiness survive. It may look at `affinity` and `config`, and does no I/O.

mod health;
mod metrics;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use http::HeaderValue;
use tokio::sync::Notify;

pub use self::{
    health::{Evidence, Finding, Health},
    metrics::{CLASSES, Families, Metrics},
};
use crate::{
    affinity::Member,
    clock,
    config::{self, HealthCheck, PassiveHealth},
};

/// One server process.
#[derive(Debug)]
pub struct Backend {
    /// What the affinity core knows of it: name, slot, state word, counters. Survives a new address.
    pub member: Arc<Member>,
    /// Name of its pool, for logs.
    pub pool: Box<str>,
    /// Host name or address literal.
    pub host: Box<str>,
    /// TCP port.
    pub port: u16,
    /// The address, where `host` is a literal and nothing needs to be looked up.
    pub address: Option<SocketAddr>,
    /// `host:port`, the Host field of our own checks.
    pub authority: HeaderValue,
    /// When passing requests tell that it is gone.
    pub passive: PassiveHealth,
    /// What is counted for it.
    pub metrics: Metrics,
    /// Written by workers (passing requests) and the control thread (checks); held for a few adds.
    health: Mutex<Health>,
    /// Whether a passing request failed since the last answer; spares the common answer the lock.
    troubled: AtomicBool,
    /// Wakes the control thread for a trial, out of turn.
    suspicion: Notify,
    /// Wakes requests that wait for it to serve.
    turned: Notify,
}

/// A request that is under way at a backend; counted from construction to drop.
#[derive(Debug)]
pub struct InFlight(Arc<Backend>);

// === impl Backend ===

impl Backend {
    /// A backend as configured; `member` is its identity in the affinity core.
    pub fn new(
        pool: &config::Pool,
        config: &config::Backend,
        member: Arc<Member>,
        families: &Families,
    ) -> Self {
        let address = config.host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, config.port));
        let authority = match address {
            Some(address) => address.to_string(),
            None => format!("{}:{}", config.host, config.port),
        };
        Self {
            member,
            pool: pool.name.clone(),
            host: config.host.clone(),
            port: config.port,
            address,
            authority: HeaderValue::try_from(authority).expect("a parsed host is a field value"),
            passive: pool.passive.clone(),
            metrics: families.backend(&pool.name, &config.name),
            health: Mutex::default(),
            troubled: AtomicBool::new(false),
            suspicion: Notify::new(),
            turned: Notify::new(),
        }
    }

    /// Its name, which is its identity.
    pub fn name(&self) -> &str {
        self.member.name()
    }

    /// A request that passed through told something about this backend.
    pub fn passed(&self, evidence: Evidence) {
        if evidence == Evidence::Answered {
            if !self.troubled.load(Ordering::Relaxed) {
                return;
            }
            self.troubled.store(false, Ordering::Relaxed);
        } else {
            self.troubled.store(true, Ordering::Relaxed);
        }
        let finding = self.with_health(|health| health.passing(evidence, &self.passive));
        self.conclude(finding, "passing requests");
    }

    /// An active check of this backend ended.
    pub fn checked(&self, ok: bool, check: &HealthCheck) {
        let up = self.member.is_up();
        let finding = self.with_health(|health| health.checked(ok, up, check));
        self.conclude(finding, "health check");
    }

    /// A trial connection to this backend ended.
    pub fn tried(&self, ok: bool) {
        let up = self.member.is_up();
        let finding = self.with_health(|health| health.tried(ok, up));
        self.conclude(finding, "trial connection");
    }

    /// Resolves when it serves.
    pub async fn back(&self) {
        loop {
            let turned = self.turned.notified();
            if self.member.serves_home() {
                return;
            }
            turned.await;
        }
    }

    /// Resolves when passing requests raise a suspicion, or the backend has gone down.
    pub async fn suspected(&self) {
        self.suspicion.notified().await;
    }

    fn with_health<T>(&self, f: impl FnOnce(&mut Health) -> T) -> T {
        f(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn conclude(&self, finding: Finding, by: &'static str) {
        let changed = match finding {
            Finding::Unchanged => return,
            Finding::Suspect => {
                self.suspicion.notify_one();
                return;
            }
            Finding::Down => self.member.set_up(false, clock::tick()),
            Finding::Up => self.member.set_up(true, clock::tick()),
        };
        if !changed {
            return;
        }
        self.turned.notify_waiters();
        if self.member.is_up() {
            tracing::info!(pool = %self.pool, backend = self.name(), by, "backend is up");
        } else {
            tracing::warn!(pool = %self.pool, backend = self.name(), by, "backend is down");
            self.suspicion.notify_one();
        }
    }
}

// === impl InFlight ===

impl InFlight {
    /// Counts a request in.
    pub fn enter(backend: Arc<Backend>) -> Self {
        backend.member.enter();
        Self(backend)
    }

    /// The backend it is at.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.member.leave();
    }
}
