//! The data plane: from a client's connection to its last answer.
//!
//! Everything here runs on one worker thread and shares nothing with other workers but the world's
//! snapshot, the affinity tables and counters. A request passes through [`service`] (the phases),
//! [`target`] (what it is for), [`headers`], [`forward`] (choose, send, try again), and back through
//! [`answer_body`]; its [`record`] is written exactly once.
//!
//! Invariants: a binding is made before the head of the answer goes on; a connection to a backend is used
//! again only after a whole exchange; whatever is counted up is counted down by a drop.

mod access_log;
mod activity;
mod admission;
mod answer_body;
mod answers;
mod authentication;
mod burst;
mod connection;
mod date;
mod flood;
mod forward;
mod forwarded;
mod gate;
mod guard;
mod headers;
mod http1;
mod http2;
mod http2_rules;
mod identity;
mod interim;
mod keeping;
mod metrics;
mod mistaken;
mod opening;
mod own_cookie;
mod pace;
mod preface;
mod queue;
mod record;
mod redact;
mod redirect;
mod request_body;
mod respond;
mod revive;
mod service;
mod socket;
mod stall;
mod stream;
mod target;
mod upgrade;
mod websocket;

use std::{
    cell::{Cell, OnceCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use prometheus::IntGauge;
use tokio::sync::Notify;

pub use self::{
    access_log::{AccessLog, Writer},
    connection::{serve_plain, serve_tls},
    metrics::{Metrics, Protocol},
};
use self::{activity::Activity, answers::Answers, burst::Burst, guard::Gauge, identity::Vetted, pace::Pace};
use crate::{
    admission::Permit,
    affinity::{Affinity, Slot},
    clock,
    upstream::{Connections, Private},
    world::World,
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
    upstream: Connections,
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
    /// What the handshake found out about it.
    vetted: Vetted,
    activity: Rc<Activity>,
    /// Answers that the client has not taken whole yet.
    answers: Rc<Answers>,
    /// Its WebSockets.
    tunnels: Rc<Open>,
    /// Its place among the connections, which a WebSocket keeps.
    _place: Place,
    /// Its requests without a session id.
    burst: Burst,
    /// Its own connections to backends, if it has any.
    private: OnceCell<Rc<Private>>,
    /// Sessions that have begun on it.
    sessions: Cell<u32>,
    /// Requests so far.
    requests: Cell<u32>,
    /// Wakes the guard when no more are to come.
    spent: Rc<Notify>,
}

/// What a client connection takes up until it and its WebSocket are closed.
#[derive(Debug)]
struct Place {
    permit: Permit,
    _gauge: Gauge,
    _open: OpenOne,
}

/// How long, and how many bytes, what a client still sends is read when nobody wants it. A connection that is
/// closed while its client sends is reset, and takes an answer along that has not been read (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 64 * 1024 * 1024;

// === impl Place ===

impl Place {
    fn take(worker: &Worker, permit: Permit, gauge: &IntGauge) -> Self {
        Self { permit, _gauge: Gauge::enter(gauge), _open: worker.open.enter() }
    }

    /// Counts the connection for its client's address, too, once that is known; false when it is to be closed.
    fn counts_for(&mut self, worker: &Worker, client: SocketAddr) -> bool {
        let admitted = worker.world.admit_address(&mut self.permit, client.ip());
        if !admitted {
            worker.metrics.over_address.inc();
        }
        admitted
    }
}

// === impl Worker ===

impl Worker {
    /// A worker with nothing open yet.
    pub fn new(world: Arc<World>, metrics: Arc<Metrics>, log: Option<AccessLog>) -> Self {
        Self { world, metrics, log, upstream: Connections::default(), open: Rc::default() }
    }

    /// Closes connections to backends that have been idle for too long, and forgets addresses that have.
    pub fn sweep(&self) {
        let snapshot = self.world.snapshot.load();
        if let Some(rate) = &snapshot.rate {
            rate.sweep();
        }
        self.upstream.sweep(|backend| {
            snapshot
                .pools
                .iter()
                .find(|pool| pool.name == backend.pool)
                .map_or(Duration::ZERO, |pool| pool.timeouts.idle)
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

    /// Whether anything is open.
    pub fn any(&self) -> bool {
        self.count.get() > 0
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
    fn new(
        worker: &Rc<Worker>,
        peer: SocketAddr,
        vetted: Vetted,
        place: Place,
        round_trip: Option<Duration>,
    ) -> Self {
        // An IPv4 client of a dual-stack socket is an IPv4 client.
        let address = peer.ip().to_canonical();
        let node = forwarded::node_of(address);
        let config = Arc::clone(&worker.world.snapshot.load().config);
        Self {
            worker: Rc::clone(worker),
            peer: SocketAddr::new(address, peer.port()),
            peer_value: HeaderValue::try_from(address.to_string()).expect("an address is a field value"),
            node: node.into(),
            vetted,
            activity: Activity::new(),
            answers: Rc::new(Answers::new(Pace::of(&config.timeouts, &config.edge))),
            tunnels: Rc::default(),
            _place: place,
            burst: Burst::new(round_trip),
            private: OnceCell::new(),
            sessions: Cell::new(0),
            requests: Cell::new(0),
            spent: Rc::default(),
        }
    }

    fn address(&self) -> IpAddr {
        self.peer.ip()
    }

    /// An answer tells an id to a request that brought none; whether a session begins with it.
    fn told(&self, pool: &Arc<Affinity>, slot: Slot, begins: bool) {
        self.burst.told(pool, slot);
        if !begins {
            return;
        }
        let nth = self.sessions.get().saturating_add(1);
        self.sessions.set(nth);
        self.worker.world.gate.session_begins(self.address(), nth, clock::now(), clock::uptime());
    }

    /// Its own connections to backends.
    fn private(&self) -> &Rc<Private> {
        self.private.get_or_init(|| self.worker.upstream.private())
    }
}
