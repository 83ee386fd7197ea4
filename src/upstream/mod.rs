//! The backend side: connections, kept alive per worker, and one exchange on one of them.
//!
//! A worker's [`Connections`] are its own: no lock, no cross-core traffic. A connection is lent to one
//! request at a time ([`Connection`]) and comes back only when both the request and the answer have been
//! passed on whole; anything else drops it, which closes it, so that no client can ever read another's
//! answer. One that authenticates its client is that client's alone ([`Private`]).

mod connect;
mod exchange;
mod private;
mod probe;
mod race;
mod request;
mod sending;
mod stream;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

pub use self::{
    connect::{ConnectError, connect},
    exchange::{Body, Broken, ExchangeError, Finish, Upload},
    private::{Private, Step},
    probe::{ProbeError, probe},
    request::{Request, RequestHead},
    stream::Stream,
};
use self::{private::Owner, stream::Waiting};
use crate::{
    backend::{Backend, Open},
    clock,
};

/// One worker's idle connections. They have no buffer and no task: whether a backend has closed one, or sent what
/// nobody asked for, is looked up before it is used, and from time to time.
#[derive(Debug, Default)]
pub struct Connections {
    /// Most recently used last, so that the spare ones grow old and are closed.
    idle: RefCell<HashMap<*const Backend, Vec<Idle>>>,
    /// Those of clients that have some of their own, to be swept.
    privates: RefCell<Vec<Weak<Private>>>,
    /// How many connections those have idle.
    private_idle: Rc<Cell<usize>>,
}

/// A connection lent to one request.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    backend: Arc<Backend>,
    /// Whether it served a request before, and so may have been closed by the backend meanwhile.
    reused: bool,
    owner: Owner,
    /// How far its client is with authenticating on it.
    step: Step,
    /// It counts as one of its backend's connections; none for that of a health check.
    open: Option<Open>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

// === impl Connection ===

impl Connection {
    /// One that has just been opened.
    fn new(stream: Stream, backend: &Arc<Backend>, open: Option<Open>) -> Self {
        let (backend, owner, step) = (Arc::clone(backend), Owner::Shared, Step::Answered);
        Self { stream, backend, reused: false, owner, step, open }
    }
}

// === impl Connections ===

impl Connections {
    /// An idle connection; whether it is of use shows in the exchange.
    pub fn idle(&self, backend: &Arc<Backend>, max_idle: Duration) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&Arc::as_ptr(backend))?;
        let Idle { connection, since } = list.pop()?;
        if clock::now().duration_since(since) >= max_idle {
            // Everything below is older still.
            list.clear();
            return None;
        }
        Some(connection)
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// When none came about within `limit`, and why.
    pub async fn open(&self, backend: &Arc<Backend>, limit: Duration) -> Result<Connection, ConnectError> {
        match connect(backend, limit).await {
            Ok(stream) => {
                backend.metrics.connected.inc();
                let open = Some(Open::enter(&backend.metrics.connections));
                Ok(Connection::new(stream, backend, open))
            }
            Err(error) => {
                backend.metrics.connect_failed.inc();
                Err(error)
            }
        }
    }

    /// What a client has for connections of its own, none yet.
    pub fn private(&self) -> Rc<Private> {
        let private = Rc::new(Private::new(&self.private_idle));
        self.privates.borrow_mut().push(Rc::downgrade(&private));
        private
    }

    /// Takes a connection back after a whole exchange; keeps at most `keep` per backend, and none beyond the limit
    /// of its backend. One that is a client's own goes there, if the client is still there.
    pub fn give_back(&self, mut connection: Connection, keep: usize) {
        if let Owner::Client(client) = &connection.owner {
            if let Some(client) = client.upgrade() {
                connection.reused = true;
                client.keep(connection);
            }
            return;
        }
        if connection.backend.is_crowded() {
            return;
        }
        connection.reused = true;
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(Arc::as_ptr(&connection.backend)).or_default();
        if list.len() < keep {
            list.push(Idle { connection, since: clock::now() });
        }
    }

    /// Closes what has been idle for longer than `max_idle`, what its backend has closed, what it has sent something
    /// on unasked, and what is idle beyond the limit of its backend: another worker has taken its place.
    pub fn sweep(&self, max_idle: impl Fn(&Backend) -> Duration) {
        let now = clock::now();
        self.privates
            .borrow_mut()
            .retain(|private| private.upgrade().inspect(|private| private.sweep(&max_idle)).is_some());
        self.idle.borrow_mut().retain(|_, list| {
            list.retain_mut(|Idle { connection, since }| {
                now.duration_since(*since) < max_idle(&connection.backend)
                    && !connection.backend.is_crowded()
                    && connection.stream.look() == Waiting::Nothing
            });
            !list.is_empty()
        });
    }
}
