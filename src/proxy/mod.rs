//! The data plane: from a client's connection to its last answer.
//!
//! Everything here runs on one worker thread and shares nothing with other workers but the world's
//! snapshot, the affinity tables and counters. A request passes through [`service`] (the phases),
//! [`target`] (what it is for), [`headers`], [`forward`] (choose, send, try again), and back through
//! [`body`]; its [`record`] is written exactly once.
//!
//! Invariants: a binding is made before the head of the answer goes on; a connection to a backend is used
//! again only after a whole exchange; whatever is counted up is counted down by a drop.

mod access_log;
mod activity;
mod body;
mod connection;
mod forward;
mod guard;
mod headers;
mod metrics;
mod record;
mod redirect;
mod respond;
mod service;
mod stream;
mod target;
mod upgrade;

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use http::HeaderValue;
use tokio::sync::Notify;

pub use self::{
    access_log::{AccessLog, Writer},
    connection::{serve_plain, serve_tls},
    metrics::{Metrics, Protocol},
};
use self::{activity::Activity, body::RequestBody};
use crate::{
    affinity::{Affinity, Slot},
    upstream::Connections,
    world::{Pool, World},
};

/// What one worker thread owns.
#[derive(Debug)]
pub struct Worker {
    /// What it shares with the others.
    pub world: Arc<World>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Where its records go, if anywhere.
    pub log: Option<AccessLog>,
    /// Its connections to backends.
    upstream: Connections<RequestBody>,
    /// Its client connections, WebSockets included.
    pub open: Rc<Open>,
}

/// Counts what is open, and tells when nothing is.
#[derive(Debug, Default)]
pub struct Open {
    count: Cell<usize>,
    none: Notify,
}

/// One open thing.
#[derive(Debug)]
pub struct OpenOne(Rc<Open>);

/// One client connection.
#[derive(Debug)]
struct Client {
    worker: Rc<Worker>,
    peer: SocketAddr,
    /// The peer's address as a field value; made once per connection.
    peer_value: HeaderValue,
    /// The peer's address as a node of `Forwarded`; made once per connection.
    node: Box<str>,
    activity: Arc<Activity>,
    /// Where the last request without a session id was placed, so that a burst of them stays together.
    placed: Cell<Option<(*const Affinity, Slot)>>,
}

// === impl Worker ===

impl Worker {
    /// A worker with nothing open yet.
    pub fn new(world: Arc<World>, metrics: Arc<Metrics>, log: Option<AccessLog>) -> Self {
        Self { world, metrics, log, upstream: Connections::default(), open: Rc::default() }
    }

    /// Closes connections to backends that have been idle for too long.
    pub fn sweep(&self) {
        let snapshot = self.world.snapshot.load();
        self.upstream.sweep(|backend| {
            snapshot
                .pools
                .iter()
                .find(|pool| pool.name == backend.pool)
                .map_or(std::time::Duration::ZERO, |pool| pool.timeouts.idle)
        });
    }
}

// === impl Open ===

impl Open {
    /// Counts one in.
    pub fn enter(self: &Rc<Self>) -> OpenOne {
        self.count.set(self.count.get() + 1);
        OpenOne(Rc::clone(self))
    }

    /// Resolves when nothing is open.
    pub async fn none(&self) {
        while self.count.get() > 0 {
            self.none.notified().await;
        }
    }
}

impl Drop for OpenOne {
    fn drop(&mut self) {
        let left = self.0.count.get() - 1;
        self.0.count.set(left);
        if left == 0 {
            self.0.none.notify_one();
        }
    }
}

// === impl Client ===

impl Client {
    fn new(worker: &Rc<Worker>, peer: SocketAddr) -> Self {
        // An IPv4 client of a dual-stack socket is an IPv4 client.
        let address = peer.ip().to_canonical();
        let node = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        Self {
            worker: Rc::clone(worker),
            peer: SocketAddr::new(address, peer.port()),
            peer_value: HeaderValue::try_from(address.to_string()).expect("an address is a field value"),
            node: node.into(),
            activity: Activity::new(),
            placed: Cell::new(None),
        }
    }

    fn address(&self) -> IpAddr {
        self.peer.ip()
    }

    /// Where an earlier request of this connection without a session id went.
    fn follows(&self, pool: &Pool) -> Option<Slot> {
        self.placed
            .get()
            .filter(|(affinity, _)| *affinity == Arc::as_ptr(&pool.affinity))
            .map(|(_, slot)| slot)
    }

    fn follow(&self, pool: &Pool, slot: Slot) {
        self.placed.set(Some((Arc::as_ptr(&pool.affinity), slot)));
    }
}
