//! Whether a request is served at all, before anybody looks what it is for.

use super::{Client, forwarded::Origin};
use crate::{admission::RequestPermit, error::Fault, world::Snapshot};

impl Client {
    /// Takes a request of this origin in, however many proxies it came through.
    ///
    /// # Errors
    ///
    /// When the address asks too fast, or too many requests are under way.
    pub(super) fn admit(&self, snapshot: &Snapshot, origin: &Origin) -> Result<RequestPermit, Fault> {
        let metrics = &self.worker.metrics;
        // A proxy that asks for itself, as balancers do in health checks, is not limited; for whom nobody knows, it is.
        if let Some(rate) = &snapshot.rate
            && !(origin.known && snapshot.config.trusts(origin.address))
            && let Err(too_fast) = rate.take(origin.address)
        {
            metrics.rate_limited.inc();
            return Err(Fault::RateLimited(too_fast.seconds));
        }
        self.worker.world.admit_request(snapshot).ok_or_else(|| {
            metrics.overloaded.inc();
            Fault::Overloaded
        })
    }

    /// Counts a request on this connection; whether it is the last one to be served on it.
    pub(super) fn is_last_request(&self, snapshot: &Snapshot) -> bool {
        let served = self.requests.get().saturating_add(1);
        self.requests.set(served);
        let last = snapshot.config.edge.requests_per_connection.is_some_and(|limit| served >= limit.get());
        if last {
            // HTTP/2 says so with a GOAWAY, and serves what crosses it.
            self.spent.notify_one();
        }
        last
    }
}
