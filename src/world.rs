//! What every thread shares: one immutable snapshot of the configured world, and the few things that
//! outlive it.
//!
//! `proxy`, `control` and `admin` never import one another; they meet here.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use prometheus::IntCounter;
use tokio::sync::watch;

use crate::{
    affinity::{Affinity, KeyHasher, Roster, Settings},
    backend::{Backend, Families, Instance},
    clock,
    config::{self, Config, HealthCheck, PoolTimeouts},
    route::Routes,
};

/// The configured world at one moment. Built aside, swapped in whole; a request loads it once.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration it was built from.
    pub config: Arc<Config>,
    /// Host and path to an index into `pools`.
    pub routes: Routes,
    /// The applications, in configured order.
    pub pools: Vec<Arc<Pool>>,
    /// How TLS clients are met.
    pub tls: Arc<rustls::ServerConfig>,
    /// `Strict-Transport-Security`, if it is sent.
    pub hsts: Option<HeaderValue>,
}

/// One application at one moment.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: Box<str>,
    /// How its sessions are found, kept and placed.
    pub settings: Settings,
    /// Its bindings; reused by a reload.
    pub affinity: Arc<Affinity>,
    /// Its backends as the affinity core sees them.
    pub roster: Roster,
    /// Its backends, index for index as in `roster`.
    pub backends: Vec<Arc<Backend>>,
    /// Active check, if any.
    pub health: Option<HealthCheck>,
    /// Deadlines of the backend side.
    pub timeouts: PoolTimeouts,
    /// Idle connections kept to each backend, per worker.
    pub keep_alive: usize,
    /// Answer field by which backends tell which instance they are.
    pub instance_header: Option<HeaderName>,
    /// Requests that no backend was chosen for.
    pub refused: IntCounter,
}

/// What outlives every snapshot.
#[derive(Debug)]
pub struct World {
    /// Swapped by a reload; loaded once per request.
    pub snapshot: ArcSwap<Snapshot>,
    /// The secret under which session ids become keys.
    pub hasher: KeyHasher,
    /// Client connections open over all workers; bounded by `limits.connections`.
    pub connections: AtomicUsize,
    /// The port of the TLS listener, for redirects.
    https_port: u16,
    /// Where the process is in its life; written by the control thread.
    phase: watch::Sender<Phase>,
}

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Sockets are bound, workers not yet all accepting.
    Starting,
    /// Serving.
    Ready,
    /// No new connections; what is under way may finish.
    Draining,
    /// Whatever is still open is closed.
    Forced,
}

/// A client connection that counts against the limit until it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<World>);

// === impl Snapshot ===

impl Snapshot {
    /// Builds the world that `config` describes.
    pub fn build(config: Config, tls: Arc<rustls::ServerConfig>, families: &Families) -> Self {
        let pools = config.pools.iter().map(|pool| Arc::new(Pool::build(pool, families))).collect();
        let hsts = config.hsts.map(|age| {
            HeaderValue::try_from(format!("max-age={}", age.as_secs())).expect("digits are a field value")
        });
        Self { routes: Routes::new(&config.routes), pools, tls, hsts, config: Arc::new(config) }
    }
}

// === impl Pool ===

impl Pool {
    fn build(config: &config::Pool, families: &Families) -> Self {
        let affinity = Arc::new(Affinity::new(clock::tick()));
        let names: Vec<_> =
            config.backends.iter().map(|backend| (&*backend.name, backend.weight.get())).collect();
        let roster = affinity.roster(&names, config.affinity.session_timeout, clock::tick());
        let backends = config
            .backends
            .iter()
            .zip(roster.members())
            .map(|(backend, member)| Arc::new(Backend::new(config, backend, Arc::clone(member), families)))
            .collect();
        Self {
            name: config.name.clone(),
            settings: config.affinity.clone(),
            affinity,
            roster,
            backends,
            health: config.health.clone(),
            timeouts: config.timeouts.clone(),
            keep_alive: config.keep_alive,
            instance_header: config.instance_header.clone(),
            refused: families.refused(&config.name),
        }
    }

    /// A backend's answer carried this instance id: when it is a new one, the sessions that lived there
    /// are gone.
    pub fn heard_instance(&self, backend: &Backend, id: &[u8]) {
        if backend.instances.heard(id) == Instance::New {
            let lost = backend.member.live();
            self.affinity.restarted(backend.member.slot(), clock::tick());
            tracing::warn!(pool = %self.name, backend = backend.name(), lost, "backend has restarted: its sessions are gone");
        }
    }
}

// === impl World ===

impl World {
    /// A world that starts with this snapshot.
    pub fn new(snapshot: Snapshot, hasher: KeyHasher, https_port: u16) -> Self {
        Self {
            https_port,
            snapshot: ArcSwap::from_pointee(snapshot),
            hasher,
            connections: AtomicUsize::new(0),
            phase: watch::Sender::new(Phase::Starting),
        }
    }

    /// The port of the TLS listener.
    pub fn https_port(&self) -> u16 {
        self.https_port
    }

    /// Where the process is in its life.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Follows the phase.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Moves on to a later phase; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let later = phase > *current;
            if later {
                *current = phase;
            }
            later
        });
    }

    /// Counts a client connection in, unless the limit is reached.
    pub fn admit(self: &Arc<Self>) -> Option<Permit> {
        let limit = self.snapshot.load().config.limits.connections.get();
        let permit = Permit(Arc::clone(self));
        // Counted before compared, so that two workers cannot both take the last place; the permit's
        // drop takes a refused one back.
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        (before < limit).then_some(permit)
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
