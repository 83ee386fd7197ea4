//! Waiting for room at a backend.

use std::sync::Arc;

use tokio::time::Instant;

use super::{forward::Forward, record::Record};
use crate::{
    backend::{Backend, InFlight, NoRoom},
    clock,
    error::Fault,
};

/// How long one request may wait in queues, all its attempts together.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Begins to run when it first has to wait.
    deadline: Option<Instant>,
}

impl Forward<'_> {
    /// A place at this backend, waited for in its queue; none when it ceased to serve meanwhile, so that the
    /// choice is to be made again.
    ///
    /// A session waits for its home, which a full queue does not make another: it would be logged out for what
    /// passes in a moment.
    pub(super) async fn enter(
        &self,
        backend: &Arc<Backend>,
        patience: &mut Patience,
        record: &mut Record,
    ) -> Result<Option<InFlight>, Fault> {
        if let Some(seat) = backend.room.try_enter() {
            return Ok(Some(InFlight::enter(Arc::clone(backend), seat)));
        }
        let began = clock::now();
        let deadline = *patience.deadline.get_or_insert(began + self.pool.limits.queue_timeout);
        let entering = async {
            tokio::select! {
                biased;
                entered = backend.room.enter(deadline) => Some(entered),
                () = backend.gone() => None,
            }
        };
        let entered = Box::pin(entering).await;
        record.queued(backend.name(), clock::now().duration_since(began));
        match entered {
            None => Ok(None),
            Some(Ok(seat)) => Ok(Some(InFlight::enter(Arc::clone(backend), seat))),
            Some(Err(NoRoom::QueueFull)) => {
                backend.metrics.queue_full.inc();
                Err(Fault::QueueFull)
            }
            Some(Err(NoRoom::Timeout)) => {
                backend.metrics.queue_timeouts.inc();
                Err(Fault::QueueTimeout)
            }
        }
    }
}
