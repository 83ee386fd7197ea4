//! Requests without a session id that one client sends in a row, before it has been told an id: they stay together.
//!
//! A browser sends many of them for its first page, and of all cookies that come back only the last one stays. But a
//! client that has been told an id brings it. Who comes without one after that is another client behind the same
//! connection (a CDN, a proxy of a company) or one that keeps none, and begins a burst of its own.

use std::{cell::Cell, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    affinity::{Affinity, Slot, TokenId},
    clock, issue,
};

/// The burst of one client connection.
#[derive(Debug)]
pub(super) struct Burst {
    /// Where its first request was placed.
    slot: Cell<Option<Kept<Slot>>>,
    /// Requests without an id that went there.
    requests: Cell<u32>,
    /// The session of the proxy's own that began with it.
    session: Cell<Option<Kept<(TokenId, Duration)>>>,
    /// How long after an answer requests come that were sent before it: a round trip where requests are sent in
    /// parallel, nothing where each waits for the answer to the one before.
    crossing: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Kept<T> {
    /// Of what pool; never followed.
    pool: *const Affinity,
    what: T,
    since: Instant,
    /// When the first answer with an id went out.
    told: Option<Instant>,
}

/// How long requests follow the first one at most: a page with all it loads.
const FOLLOWS: Duration = Duration::from_secs(5);
/// Requests of one burst. A client that asks for more without being told an id keeps none: a crawler, a CDN.
const MAX_REQUESTS: u32 = 64;
/// How long they share a session of the proxy's own. Shorter, since a connection may be that of many clients.
const SHARES: Duration = Duration::from_secs(2);
/// The longest round trip that is believed.
const MAX_CROSSING: Duration = Duration::from_millis(250);

// === impl Burst ===

impl Burst {
    /// None yet. `round_trip` is how long one takes, for a client that sends requests in parallel.
    pub(super) fn new(round_trip: Option<Duration>) -> Self {
        let crossing = round_trip.unwrap_or_default().min(MAX_CROSSING);
        Self { slot: Cell::new(None), requests: Cell::new(0), session: Cell::new(None), crossing }
    }

    /// Where the first request of the burst went.
    pub(super) fn slot(&self, pool: &Arc<Affinity>) -> Option<Slot> {
        self.kept(&self.slot, pool, FOLLOWS)
    }

    /// Where a request without an id goes with the burst, unless that has had as many as a page may need.
    pub(super) fn joined(&self, pool: &Arc<Affinity>) -> Option<Slot> {
        self.slot(pool).filter(|_| self.requests.get() < MAX_REQUESTS)
    }

    /// Whether it has had more requests than a page may need.
    pub(super) fn is_outgrown(&self, pool: &Arc<Affinity>) -> bool {
        self.requests.get() >= MAX_REQUESTS && self.slot(pool).is_some()
    }

    /// A request without an id goes there. The burst begins with the first one; later ones do not prolong it.
    pub(super) fn follow(&self, pool: &Arc<Affinity>, slot: Slot) {
        if self.slot(pool).is_none() {
            self.slot.set(Some(Kept::new(pool, slot)));
            self.requests.set(0);
        }
        self.requests.set(self.requests.get().saturating_add(1));
    }

    /// The session of the proxy's own for a request that has none.
    pub(super) fn session(&self, pool: &Arc<Affinity>) -> Option<(TokenId, Duration)> {
        if let Some(session) = self.kept(&self.session, pool, SHARES) {
            return Some(session);
        }
        let session = issue::begin_session()?;
        self.session.set(Some(Kept::new(pool, session)));
        Some(session)
    }

    /// An answer from there tells an id to a request that brought none.
    pub(super) fn told(&self, pool: &Arc<Affinity>, slot: Slot) {
        if self.slot(pool) == Some(slot) {
            self.crosses(&self.slot, pool);
        }
        self.crosses(&self.session, pool);
    }

    /// A request brings an id: if one was told, it has arrived.
    pub(super) fn brought(&self) {
        fn end<T: Copy>(cell: &Cell<Option<Kept<T>>>) {
            if cell.get().is_some_and(|kept| kept.told.is_some()) {
                cell.set(None);
            }
        }
        end(&self.slot);
        end(&self.session);
    }

    fn kept<T: Copy>(
        &self,
        cell: &Cell<Option<Kept<T>>>,
        pool: &Arc<Affinity>,
        limit: Duration,
    ) -> Option<T> {
        let kept = cell.get().filter(|kept| kept.pool == Arc::as_ptr(pool))?;
        let now = clock::now();
        let told = kept.told.is_some_and(|told| now.saturating_duration_since(told) >= self.crossing);
        (!told && now.saturating_duration_since(kept.since) < limit).then_some(kept.what)
    }

    fn crosses<T: Copy>(&self, cell: &Cell<Option<Kept<T>>>, pool: &Arc<Affinity>) {
        if let Some(kept) = cell.get()
            && kept.pool == Arc::as_ptr(pool)
            && kept.told.is_none()
        {
            cell.set(Some(Kept { told: Some(clock::now()), ..kept }));
        }
    }
}

impl<T> Kept<T> {
    fn new(pool: &Arc<Affinity>, what: T) -> Self {
        Self { pool: Arc::as_ptr(pool), what, since: clock::now(), told: None }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::affinity::Tick;

    const HERE: Slot = Slot::new(1);
    const THERE: Slot = Slot::new(2);

    fn pool() -> Arc<Affinity> {
        Arc::new(Affinity::new(Tick::ZERO))
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_stays_together_until_an_answer_tells_an_id() {
        let (burst, pool) = (Burst::new(None), pool());
        burst.follow(&pool, HERE);
        advance(Duration::from_secs(4)).await;
        burst.follow(&pool, THERE);
        assert_eq!(burst.slot(&pool), Some(HERE));
        burst.told(&pool, HERE);
        assert_eq!(burst.slot(&pool), None);
        burst.follow(&pool, THERE);
        assert_eq!(burst.slot(&pool), Some(THERE), "another client's");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_ends_by_itself_and_is_of_one_pool() {
        let (burst, pool, other) = (Burst::new(None), pool(), pool());
        burst.follow(&pool, HERE);
        assert_eq!(burst.slot(&other), None);
        advance(FOLLOWS).await;
        assert_eq!(burst.slot(&pool), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_no_larger_than_a_page() {
        let (burst, pool) = (Burst::new(None), pool());
        for _ in 0..MAX_REQUESTS {
            burst.follow(&pool, HERE);
        }
        assert!(burst.is_outgrown(&pool));
        burst.follow(&pool, THERE);
        assert_eq!((burst.joined(&pool), burst.slot(&pool)), (None, Some(HERE)), "each for itself");
        advance(FOLLOWS).await;
        assert!(!burst.is_outgrown(&pool));
        burst.follow(&pool, THERE);
        assert_eq!(burst.joined(&pool), Some(THERE));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_cross_the_answer_still_belong_to_the_burst() {
        let (burst, pool) = (Burst::new(Some(Duration::from_millis(50))), pool());
        burst.follow(&pool, HERE);
        let session = burst.session(&pool).map(|(_, born)| born);
        burst.told(&pool, HERE);
        advance(Duration::from_millis(49)).await;
        assert_eq!(burst.slot(&pool), Some(HERE));
        assert_eq!(burst.session(&pool).map(|(_, born)| born), session);
        advance(Duration::from_millis(1)).await;
        assert_eq!(burst.slot(&pool), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_that_comes_back_shows_that_it_has_arrived() {
        let (burst, pool) = (Burst::new(Some(Duration::from_secs(9))), pool());
        burst.follow(&pool, HERE);
        burst.brought();
        assert_eq!(burst.slot(&pool), Some(HERE), "none was told yet");
        burst.told(&pool, HERE);
        burst.brought();
        assert_eq!(burst.slot(&pool), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_of_an_earlier_burst_does_not_end_the_next_one() {
        let (burst, pool) = (Burst::new(None), pool());
        burst.follow(&pool, HERE);
        burst.told(&pool, HERE);
        burst.follow(&pool, THERE);
        burst.told(&pool, HERE);
        assert_eq!(burst.slot(&pool), Some(THERE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_of_our_own_is_shared_until_it_is_told() {
        let (burst, pool) = (Burst::new(None), pool());
        let id = |burst: &Burst| burst.session.get().map(|kept| kept.since);
        burst.session(&pool);
        let first = id(&burst);
        advance(Duration::from_secs(1)).await;
        burst.session(&pool);
        assert_eq!(id(&burst), first);
        burst.told(&pool, HERE);
        burst.session(&pool);
        assert_ne!(id(&burst), first);
    }
}
