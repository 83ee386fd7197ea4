//! How much a backend is asked at a time: so many requests and streams, and a queue of those that wait.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
};

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use crate::config::PoolLimits;

/// The places of one backend, shared by all workers. Who waits is served in the order of coming, whichever
/// worker that is on; who stops waiting leaves the queue.
#[derive(Debug)]
pub struct Room {
    /// The places that nobody has; all of them while there is no limit, since nobody takes one then.
    free: Semaphore,
    /// Places in all, [`UNLIMITED`] for no limit. Written by the control thread.
    limit: AtomicU32,
    /// Places that are to vanish when they are given back, since the limit was lowered below what was taken.
    debt: AtomicUsize,
    /// How many may wait. Written by the control thread.
    queue: AtomicU32,
    waiting: AtomicU32,
    /// How many wait, as a metric; another one when the backend is renamed.
    shown: ArcSwap<IntGauge>,
}

/// A place at a backend, given back by the drop.
#[derive(Debug)]
pub struct Seat(Option<Arc<Room>>);

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// As many wait as may.
    QueueFull,
    /// None came free in time.
    Timeout,
}

/// One that waits, counted from construction to drop.
struct Waiting<'a>(&'a Room);

const UNLIMITED: u32 = u32::MAX;

// === impl Room ===

impl Room {
    /// With these limits; `shown` is how many wait.
    pub fn new(limits: &PoolLimits, shown: IntGauge) -> Self {
        let limit = limit_of(limits);
        Self {
            free: Semaphore::new(limit as usize),
            limit: AtomicU32::new(limit),
            debt: AtomicUsize::new(0),
            queue: AtomicU32::new(limits.queue),
            waiting: AtomicU32::new(0),
            shown: ArcSwap::from_pointee(shown),
        }
    }

    /// How many wait is shown here from now on.
    pub fn show(&self, shown: IntGauge) {
        shown.set(i64::from(self.waiting()));
        self.shown.store(Arc::new(shown));
    }

    /// Takes other limits. A lower one counts as soon as enough places have been given back; requests that were
    /// under way without any limit are not counted. For the control thread alone.
    pub fn set(&self, limits: &PoolLimits) {
        self.queue.store(limits.queue, Relaxed);
        let new = limit_of(limits);
        let old = self.limit.swap(new, Relaxed);
        if new < old {
            let fewer = (old - new) as usize;
            let owed = fewer - self.free.forget_permits(fewer);
            self.debt.fetch_add(owed, AcqRel);
        } else {
            // What is owed is forgiven first.
            let mut more = (new - old) as usize;
            while more > 0 && self.pay() {
                more -= 1;
            }
            self.free.add_permits(more);
        }
    }

    /// Places in all; none for no limit.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Relaxed)).filter(|limit| *limit != UNLIMITED)
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// A place, if one is free.
    pub fn try_enter(self: &Arc<Self>) -> Option<Seat> {
        if self.limit.load(Relaxed) == UNLIMITED {
            return Some(Seat(None));
        }
        let permit = self.free.try_acquire().ok()?;
        permit.forget();
        Some(Seat(Some(Arc::clone(self))))
    }

    /// A place, waited for until `deadline`.
    ///
    /// # Errors
    ///
    /// When too many wait already, or none came free.
    pub async fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Seat, NoRoom> {
        if let Some(seat) = self.try_enter() {
            return Ok(seat);
        }
        let _waiting = Waiting::begin(self).ok_or(NoRoom::QueueFull)?;
        match timeout_at(deadline, self.free.acquire()).await {
            Ok(permit) => {
                permit.expect("it is never closed").forget();
                Ok(Seat(Some(Arc::clone(self))))
            }
            Err(_) => Err(NoRoom::Timeout),
        }
    }

    /// Lets one place vanish that is owed; whether there was one.
    fn pay(&self) -> bool {
        self.debt.fetch_update(AcqRel, Acquire, |debt| debt.checked_sub(1)).is_ok()
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(room) = &self.0
            && !room.pay()
        {
            room.free.add_permits(1);
        }
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn begin(room: &'a Room) -> Option<Self> {
        let most = room.queue.load(Relaxed);
        let more = |waiting: u32| (waiting < most).then_some(waiting + 1);
        room.waiting.fetch_update(Relaxed, Relaxed, more).ok()?;
        room.shown.load().inc();
        Some(Self(room))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
        self.0.shown.load().dec();
    }
}

fn limit_of(limits: &PoolLimits) -> u32 {
    limits.connections.map_or(UNLIMITED, NonZeroU32::get)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::task::yield_now;

    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(connections: Option<u32>, queue: u32) -> PoolLimits {
        let connections = connections.and_then(NonZeroU32::new);
        PoolLimits { connections, queue, queue_timeout: SECOND, retry_budget: None }
    }

    fn room(connections: u32, queue: u32) -> Arc<Room> {
        let shown = IntGauge::new("shown", "shown").unwrap();
        Arc::new(Room::new(&limits(Some(connections), queue), shown))
    }

    fn soon() -> Instant {
        clock::now() + SECOND
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_in_the_order_of_coming() {
        let room = room(1, 10);
        let first = room.enter(soon()).await.unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..5 {
            let (room, tell) = (Arc::clone(&room), tell.clone());
            tokio::spawn(async move {
                let seat = room.enter(soon()).await.unwrap();
                tell.send(number).unwrap();
                yield_now().await;
                drop(seat);
            });
            yield_now().await;
        }
        assert_eq!((room.waiting(), room.shown.load().get()), (5, 5));
        drop(first);
        for number in 0..5 {
            assert_eq!(told.recv().await, Some(number));
        }
        assert_eq!((room.waiting(), room.shown.load().get()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_overtakes_those_that_wait() {
        let room = room(1, 10);
        let first = room.enter(soon()).await.unwrap();
        let mut second = Box::pin(room.enter(soon()));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(room.try_enter().is_none(), "the place is the second's");
        assert!(second.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_does_not_come_free_in_time_is_given_up() {
        let room = room(1, 10);
        let _first = room.enter(soon()).await.unwrap();
        let began = clock::now();
        assert_eq!(room.enter(soon()).await.err(), Some(NoRoom::Timeout));
        assert_eq!(clock::now() - began, SECOND);
        assert_eq!(room.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_takes_nobody() {
        let room = room(1, 1);
        let _first = room.enter(soon()).await.unwrap();
        let mut second = Box::pin(room.enter(soon()));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(room.enter(soon()).now_or_never().unwrap().err(), Some(NoRoom::QueueFull));
        drop(second);
        assert_eq!(room.waiting(), 0, "who stops waiting leaves the queue");
        assert!(room.enter(soon()).now_or_never().is_none(), "there is room in it again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_dropped_when_its_turn_comes_passes_it_on() {
        let room = room(1, 10);
        let first = room.enter(soon()).await.unwrap();
        let mut second = Box::pin(room.enter(soon()));
        let mut third = Box::pin(room.enter(soon()));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(third.now_or_never().unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_limit_lets_those_in_who_wait() {
        let room = room(1, 10);
        let _first = room.enter(soon()).await.unwrap();
        let mut second = Box::pin(room.enter(soon()));
        assert!(second.as_mut().now_or_never().is_none());
        room.set(&limits(Some(2), 10));
        assert!(second.now_or_never().unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lower_limit_counts_as_soon_as_places_are_given_back() {
        let room = room(3, 10);
        let seats = [room.try_enter().unwrap(), room.try_enter().unwrap(), room.try_enter().unwrap()];
        room.set(&limits(Some(1), 10));
        let [a, b, c] = seats;
        drop((a, b));
        assert!(room.try_enter().is_none());
        drop(c);
        let one = room.try_enter().unwrap();
        assert!(room.try_enter().is_none());
        room.set(&limits(Some(2), 10));
        let _two = room.try_enter().unwrap();
        assert!(room.try_enter().is_none());
        drop(one);
        assert!(room.try_enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_raised_while_places_are_owed_forgives_them() {
        let room = room(3, 10);
        let seats: Vec<_> = (0..3).map(|_| room.try_enter().unwrap()).collect();
        room.set(&limits(Some(1), 10));
        room.set(&limits(Some(4), 10));
        let fourth = room.try_enter().unwrap();
        assert!(room.try_enter().is_none());
        drop((seats, fourth));
        assert_eq!(room.free.available_permits(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_can_be_lifted_and_set_again() {
        let room = room(1, 10);
        let _first = room.try_enter().unwrap();
        let mut second = Box::pin(room.enter(soon()));
        assert!(second.as_mut().now_or_never().is_none());
        room.set(&limits(None, 10));
        drop(second.now_or_never().unwrap().unwrap());
        let free: Vec<_> = (0..100).map(|_| room.try_enter().unwrap()).collect();
        room.set(&limits(Some(2), 10));
        let _second = room.try_enter().unwrap();
        assert!(
            room.try_enter().is_none(),
            "the first is still there, and those without a limit do not count"
        );
        drop(free);
        assert!(room.try_enter().is_none());
    }
}
