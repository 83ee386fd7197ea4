//! Connections to backends that belong to one client's connection: NTLM and Negotiate authenticate the connection
//! (RFC 4559 §6), and another client on it would be taken for this one.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use super::{Connection, Idle, stream::Waiting};
use crate::{affinity::Slot, backend::Backend, clock};

/// The connections that one client has of its own. They end with it.
#[derive(Debug, Default)]
pub struct Private {
    /// Longest idle first.
    idle: RefCell<Vec<Kept>>,
    /// Backends that get none but such from this client, the latest last.
    backends: RefCell<Vec<Arc<Backend>>>,
    /// How many connections all clients of this worker have idle.
    count: Rc<Cell<usize>>,
}

#[derive(Debug)]
struct Kept {
    idle: Idle,
    _counted: Counted,
}

/// One idle connection of all.
#[derive(Debug)]
struct Counted(Rc<Cell<usize>>);

/// Whose a connection is.
#[derive(Debug, Default)]
pub(super) enum Owner {
    /// Any client's.
    #[default]
    Shared,
    /// This one's, or that of its present request alone.
    Client(Weak<Private>),
}

/// How far a connection is, by its last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// It was answered.
    #[default]
    Answered,
    /// It was asked to authenticate.
    Asked,
    /// It was given a challenge, and only what answers that may come next.
    Challenged,
}

/// Idle connections of one client: a browser has six over HTTP/1.1 to a host.
const MAX_IDLE: usize = 8;
/// Those of all clients of one worker: each costs the backend something, and anybody can ask for it.
const MAX_IDLE_OF_ALL: usize = 4096;
/// Backends that are remembered.
const MAX_BACKENDS: usize = 8;

// === impl Private ===

impl Private {
    pub(super) fn new(count: &Rc<Cell<usize>>) -> Self {
        Self { count: Rc::clone(count), ..Self::default() }
    }

    /// From now on, what this client sends to this backend goes over connections of its own.
    pub fn reserve(&self, backend: &Arc<Backend>) {
        let mut backends = self.backends.borrow_mut();
        backends.retain(|known| !is_same(known, backend));
        if backends.len() == MAX_BACKENDS {
            backends.remove(0);
        }
        backends.push(Arc::clone(backend));
    }

    /// Whether that is so.
    pub fn is_reserved(&self, backend: &Backend) -> bool {
        self.backends.borrow().iter().any(|known| is_same(known, backend))
    }

    /// The backend of this pool for which it was so last.
    pub fn home(&self, pool: &str) -> Option<Slot> {
        let backends = self.backends.borrow();
        backends.iter().rev().find(|backend| *backend.pool == *pool).map(|backend| backend.member.slot())
    }

    /// An idle connection for a request that authenticates or not: a handshake goes on where it began, the one that
    /// began first before others, and nothing else comes between its steps.
    pub fn take(
        &self,
        backend: &Arc<Backend>,
        max_idle: Duration,
        authenticates: bool,
    ) -> Option<Connection> {
        let now = clock::now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|kept| now.duration_since(kept.idle.since) < max_idle);
        let at = |step| {
            let is = |Kept { idle, .. }: &Kept| {
                idle.connection.step == step && Arc::ptr_eq(&idle.connection.backend, backend)
            };
            if step == Step::Challenged { idle.iter().position(is) } else { idle.iter().rposition(is) }
        };
        let index = if authenticates {
            at(Step::Challenged).or_else(|| at(Step::Asked)).or_else(|| at(Step::Answered))
        } else {
            at(Step::Answered).or_else(|| at(Step::Asked))
        };
        let mut connection = idle.remove(index?).idle.connection;
        connection.step = Step::Answered;
        Some(connection)
    }

    pub(super) fn keep(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() == MAX_IDLE {
            idle.remove(0);
        }
        if let Some(counted) = Counted::one_of(&self.count) {
            idle.push(Kept { idle: Idle { connection, since: clock::now() }, _counted: counted });
        }
    }

    /// Closes what is of no use any more, as [`sweep`](super::Connections::sweep) does, and what leads to a backend
    /// in maintenance or down.
    pub(super) fn sweep(&self, max_idle: impl Fn(&Backend) -> Duration) {
        let now = clock::now();
        self.idle.borrow_mut().retain_mut(|Kept { idle: Idle { connection, since }, .. }| {
            let backend = &connection.backend;
            now.duration_since(*since) < max_idle(backend)
                && (connection.step == Step::Challenged || !backend.is_crowded())
                && backend.member.serves_home()
                && connection.stream.look() == Waiting::Nothing
        });
    }
}

// === impl Counted ===

impl Counted {
    /// None when there are too many.
    fn one_of(count: &Rc<Cell<usize>>) -> Option<Self> {
        (count.get() < MAX_IDLE_OF_ALL).then(|| {
            count.set(count.get() + 1);
            Self(Rc::clone(count))
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

// === impl Connection ===

impl Connection {
    /// Makes it one client's own; without one, it serves its present request and no other.
    pub fn belongs_to(&mut self, client: Option<&Rc<Private>>) {
        self.owner = Owner::Client(client.map(Rc::downgrade).unwrap_or_default());
    }
}

/// A reload may have made another object of the same backend.
fn is_same(known: &Backend, backend: &Backend) -> bool {
    known.member.slot() == backend.member.slot() && known.pool == backend.pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clients_together_have_no_more_idle_than_the_bound() {
        let count = Rc::default();
        let mut kept: Vec<_> = (0..MAX_IDLE_OF_ALL).filter_map(|_| Counted::one_of(&count)).collect();
        assert_eq!(kept.len(), MAX_IDLE_OF_ALL);
        assert!(Counted::one_of(&count).is_none());
        kept.pop();
        assert!(Counted::one_of(&count).is_some());
    }
}
