//! The runtime model of one server process: where it is, whether it serves, what it has done.
//!
//! A [`Backend`] outlives the snapshot that names it: a reload reuses it, so health, drain state and
//! stickiness survive. It may look at `affinity` and `config`, and does no I/O.

mod budget;
mod health;
mod history;
mod instance;
mod metrics;
mod room;
mod standing;
mod steering;
mod tokens;
mod trial;

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::HeaderValue;
use tokio::time::Instant;

pub use self::{
    budget::RetryBudget,
    health::{Evidence, Finding, Health},
    history::{HealthChange, History},
    instance::{Instance, Instances, Told},
    metrics::{CLASSES, Families, Metrics, Open},
    room::{NoRoom, Room, Seat},
    standing::Standing,
    steering::{Cut, CutBy, Deadline, Steering},
    tokens::TokenMetrics,
    trial::{Trial, Trials},
};
use crate::{
    affinity::{Left, Member},
    clock,
    config::{self, HealthCheck, PassiveHealth, PoolLimits},
    tls::{BackendTls, ClientTls},
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
    /// How it is spoken to over TLS; none for plain HTTP.
    pub tls: Option<BackendTls>,
    /// How much it is asked at a time.
    pub room: Arc<Room>,
    /// What survives a new address.
    pub standing: Arc<Standing>,
    /// The entry of the configuration that it was found for; none for one that is written.
    pub discovered: Option<Box<str>>,
    /// The number of its address, see [`Standing`].
    epoch: u64,
    /// The name under which it is counted: the one that it was built with.
    label: Box<str>,
}

/// A backend that a pool is to have: one that is written, or an address that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is, and what it is called.
    pub config: config::Backend,
    /// The entry that it was found for.
    pub discovered: Option<Box<str>>,
    /// The instance id that its address told shortly before it was listed, if it was asked.
    pub told: Option<Box<[u8]>>,
    /// Whether it has left the configuration, and drains.
    pub leaving: bool,
}

/// A request that is under way at a backend: counted, and with a place there, from construction to drop.
#[derive(Debug)]
pub struct InFlight {
    backend: Arc<Backend>,
    _seat: Seat,
}

// === impl Backend ===

impl Backend {
    /// A backend as listed; `member` is its identity in the affinity core, `previous` the one that has its
    /// name now, or had it last.
    pub fn new(
        pool: &config::Pool,
        listed: &Listed,
        member: Arc<Member>,
        families: &Families,
        tls: Option<&ClientTls>,
        previous: Option<&Self>,
    ) -> Self {
        let config = &listed.config;
        let address = config.host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, config.port));
        let authority = match address {
            Some(address) => address.to_string(),
            None => format!("{}:{}", config.host, config.port),
        };
        let standing = previous.map(|previous| Arc::clone(&previous.standing)).unwrap_or_default();
        let is_there = |old: &&Self| (&old.host, old.port) == (&config.host, config.port);
        // By other files it may be another process that is believed.
        let moved = previous.is_some_and(|old| !is_there(&old) || !old.is_secured(tls, config));
        let epoch = if moved { standing.new_address() } else { standing.address() };
        let metrics = families.backend(&pool.name, &config.name);
        // Who holds a place at another address holds none here.
        let room = previous.filter(is_there).map(|old| Arc::clone(&old.room));
        if let Some(room) = &room {
            room.show(metrics.queue.clone());
        }
        let tls = config.tls.as_deref().zip(tls).map(|(name, tls)| tls.for_backend(name));
        Self {
            member,
            pool: pool.name.clone(),
            host: config.host.clone(),
            port: config.port,
            address,
            authority: HeaderValue::try_from(authority).expect("a parsed host is a field value"),
            passive: pool.passive.clone(),
            room: room.unwrap_or_else(|| Arc::new(Room::new(&pool.limits, metrics.queue.clone()))),
            metrics,
            tls,
            standing,
            discovered: listed.discovered.clone(),
            epoch,
            label: config.name.clone(),
        }
    }

    /// Whether it is what the list describes, but for its weight and limits, and spoken to as the files say now.
    pub fn is(&self, pool: &config::Pool, listed: &Listed, tls: Option<&ClientTls>) -> bool {
        let config = &listed.config;
        self.name() == &*config.name
            && self.label == config.name
            && self.host == config.host
            && self.port == config.port
            && self.passive == pool.passive
            && self.discovered == listed.discovered
            && self.is_secured(tls, config)
    }

    fn is_secured(&self, tls: Option<&ClientTls>, config: &config::Backend) -> bool {
        match (&self.tls, tls.zip(config.tls.as_deref())) {
            (None, None) => true,
            (Some(own), Some((tls, name))) => tls.made(own, name),
            _ => false,
        }
    }

    /// Whether more connections to it are open than it is to have at a time: idle ones had better go.
    pub fn is_crowded(&self) -> bool {
        self.room.limit().is_some_and(|limit| self.metrics.connections.get() > limit.into())
    }

    /// From now on it has these limits.
    pub fn limit(&self, limits: &PoolLimits) {
        self.room.set(limits);
        self.member.set_limit(limits.connections);
    }

    /// Its name, which is its identity.
    pub fn name(&self) -> &str {
        self.member.name()
    }

    /// The name under which its series are, which it had when it was built.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A request that passed through told something about this backend.
    pub fn passed(&self, evidence: Evidence) {
        self.told(evidence, &evidence);
    }

    /// As [`passed`](Self::passed), and `why` says it better.
    pub fn told(&self, evidence: Evidence, why: &dyn Display) {
        if !self.is_current() {
            return;
        }
        if evidence == Evidence::Answered {
            if !self.standing.troubled.load(Ordering::Relaxed) {
                return;
            }
            self.standing.troubled.store(false, Ordering::Relaxed);
        } else {
            self.standing.troubled.store(true, Ordering::Relaxed);
        }
        let finding = self.standing.with_health(|health| health.passing(evidence, &self.passive));
        self.conclude(finding, "passing requests", why);
    }

    /// An active check of this backend ended; `error` says why it failed.
    pub fn checked(&self, error: Option<&dyn Display>, check: &HealthCheck) {
        if !self.is_current() {
            return;
        }
        let up = self.member.is_up();
        let finding = self.standing.with_health(|health| health.checked(error.is_none(), up, check));
        self.conclude(finding, "health check", error.unwrap_or(&"passed"));
    }

    /// A trial connection to this backend ended; `failed` is what that tells, and why it did.
    pub fn tried(&self, failed: Option<(Evidence, &dyn Display)>) {
        if !self.is_current() {
            return;
        }
        let up = self.member.is_up();
        let finding = self
            .standing
            .with_health(|health| health.tried(failed.map(|failed| failed.0), up, &self.passive));
        self.conclude(finding, "trial connection", failed.map_or(&"connected", |failed| failed.1));
    }

    /// An answer carried this instance id.
    pub fn heard(&self, id: &[u8]) -> Instance {
        if self.is_current() { self.standing.instances.heard(id) } else { Instance::Known }
    }

    /// Another process heard of the instance whose id has this hash.
    pub fn heard_hash(&self, hash: u64) -> Instance {
        if self.is_current() { self.standing.instances.heard_hash(hash) } else { Instance::Known }
    }

    /// What is still going on here.
    pub fn left(&self) -> Left {
        // Before the member's counts: a request leaves the queue after it is counted there.
        let queued = self.room.waiting();
        self.member.left(queued)
    }

    /// It has lost the memory of as many live sessions.
    pub fn lost(&self, sessions: u32) {
        self.standing.steering.cut_short(CutBy::Restarted, Left { sessions, ..Left::default() });
    }

    /// From now on it gets no new sessions. When the deadline has passed, it serves nobody. So many of its sessions
    /// had `moved` away before, because it was down.
    pub fn drain(&self, deadline: Deadline, moved: u64) {
        self.standing.steering.drain(&self.member, deadline, moved);
        self.standing.turned.notify_waiters();
    }

    /// It serves as if nobody had ever asked it to drain or to rest.
    pub fn undrain(&self) {
        self.standing.steering.ready(&self.member);
        self.standing.turned.notify_waiters();
    }

    /// From now on it serves nobody: its sessions move with their next request, its streams are told to go.
    pub fn maintain(&self) {
        self.standing.steering.maintain(&self.member, self.left());
        self.standing.turned.notify_waiters();
    }

    /// Ends a drain whose deadline has passed in maintenance; whether it did.
    pub fn expire_drain(&self, now: Instant) -> bool {
        let expired = self.standing.steering.expire(&self.member, now, || self.left());
        if expired {
            self.standing.turned.notify_waiters();
        }
        expired
    }

    /// Resolves when streams that are open here have to go, since it serves nobody.
    pub async fn evicted(&self) {
        self.standing.steering.evicted().await;
    }

    /// Another process of ours knew that it is down; `by` and `why` are for its history.
    pub fn found_down(&self, by: &'static str, why: &str) {
        if self.member.set_up(false, clock::tick()) {
            self.standing.history.push(HealthChange { at: clock::wall(), up: false, by, why: why.into() });
            self.standing.turned.notify_waiters();
            self.standing.suspicion.notify_one();
        }
    }

    /// Its address has left DNS, or it has left the configuration, so that it drains; or it is there again. Whether that
    /// is news.
    pub fn leave(&self, leaving: bool) -> bool {
        let changed = self.standing.steering.set_leaving(&self.member, leaving);
        if changed {
            self.standing.turned.notify_waiters();
        }
        changed
    }

    /// Whether this instance id proves that the one which answered last under its name still does.
    pub fn is_still(&self, id: &[u8]) -> bool {
        let before = self.standing.instances.current();
        before != 0 && self.standing.instances.heard(id) == Instance::Known
    }

    /// It has left the pool: clears what operators wanted, should its name come back.
    pub fn retire(&self) {
        let left = self.left();
        self.standing.steering.ready(&self.member);
        self.standing.steering.cut_short(CutBy::Removed, left);
        self.leave(false);
        self.member.forget_operators(clock::tick());
    }

    /// Resolves when it serves.
    pub async fn back(&self) {
        loop {
            let turned = self.standing.turned.notified();
            if self.member.serves_home() {
                return;
            }
            turned.await;
        }
    }

    /// Resolves when it does not serve those who wait for it any more.
    pub async fn gone(&self) {
        loop {
            let turned = self.standing.turned.notified();
            if !self.member.serves_home() {
                return;
            }
            turned.await;
        }
    }

    /// Resolves when passing requests raise a suspicion, or the backend has gone down.
    pub async fn suspected(&self) {
        self.standing.suspicion.notified().await;
    }

    /// A check or a trial is to look at it, out of turn.
    pub fn suspect(&self) {
        self.standing.suspicion.notify_one();
    }

    /// The right to try it although it is down, for a request that nothing else serves; `pause` follows the trial.
    pub fn begin_trial(&self, pause: Duration) -> Option<Trial> {
        Trial::begin(&self.standing, pause)
    }

    /// Whether it is the same server at the same address as `other`, perhaps with other settings: what is found out
    /// about one holds for both.
    pub fn is_where(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.standing, &other.standing) && self.epoch == other.epoch
    }

    /// The last requests to an earlier address say nothing about this one.
    fn is_current(&self) -> bool {
        self.epoch == self.standing.address()
    }

    fn conclude(&self, finding: Finding, by: &'static str, why: &dyn Display) {
        let changed = match finding {
            Finding::Unchanged => return,
            Finding::Suspect => {
                self.standing.suspicion.notify_one();
                return;
            }
            Finding::Down => self.member.set_up(false, clock::tick()),
            Finding::Up => self.member.set_up(true, clock::tick()),
        };
        if !changed {
            return;
        }
        self.standing.turned.notify_waiters();
        let up = finding == Finding::Up;
        self.standing.history.push(HealthChange { at: clock::wall(), up, by, why: why.to_string().into() });
        if up {
            tracing::info!(pool = %self.pool, backend = self.name(), by, "backend is up");
        } else {
            tracing::warn!(pool = %self.pool, backend = self.name(), by, %why, "backend is down");
            self.standing.suspicion.notify_one();
        }
    }
}

// === impl InFlight ===

impl InFlight {
    /// Counts a request in that has a place there.
    pub fn enter(backend: Arc<Backend>, seat: Seat) -> Self {
        backend.member.enter();
        Self { backend, _seat: seat }
    }

    /// The backend it is at.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.backend.member.leave();
    }
}
