//! When the live sessions of one backend were last seen, in coarse steps: enough to say in O(1) when the
//! last of them will be idle.

use std::sync::atomic::{
    AtomicI32, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::Tick;

/// Live sessions by the time of their last request.
///
/// A ring of buckets, each some ticks long. A live binding's last request is no older than the session
/// timeout, for which a quarter of the ring suffices, so no bucket is used for two times at once (but for
/// sessions held by streams; while there are any, nobody asks the ring). A touch counts only when it leaves
/// its bucket: amortised, next to nothing.
///
/// Two rings, because the session timeout may change: which of them counts a binding depends on nothing but
/// the tick of its last request, so that it is always found again where it was put.
///
/// Buckets may fall below zero for a moment, when threads overtake one another, and for longer when a
/// backend restarts while its sessions are being touched. [`latest`](Self::latest) tells such a ring from a
/// sound one.
#[derive(Debug)]
pub(super) struct Recency {
    rings: [Ring; 2],
    /// Bit 0: the ring for requests from the tick in the bits above on; the other one has the earlier ones.
    current: AtomicU64,
}

#[derive(Debug)]
struct Ring {
    width: AtomicU32,
    buckets: [AtomicI32; BUCKETS],
}

const BUCKETS: usize = 256;
/// Buckets that a session timeout spans.
const SPAN: u32 = 64;
/// A change takes effect so many ticks later, when every thread has heard of it.
const NOTICE: u32 = 2;

// === impl Recency ===

impl Recency {
    pub(super) fn new(timeout: u32) -> Self {
        Self { rings: [Ring::new(timeout), Ring::new(timeout)], current: AtomicU64::new(0) }
    }

    /// Counts by another session timeout from now on, unless the present ring suits it as well, or the last
    /// change is not over yet.
    pub(super) fn retime(&self, timeout: u32, now: Tick) {
        let (index, _) = self.current();
        let other = &self.rings[1 - index];
        if self.rings[index].suits(timeout) || !other.is_empty() {
            return;
        }
        other.width.store(width_for(timeout), Relaxed);
        let since = u64::from(now.get().saturating_add(NOTICE));
        self.current.store(since << 1 | (1 - index) as u64, Release);
    }

    /// No binding is live any more.
    pub(super) fn clear(&self) {
        for bucket in self.rings.iter().flat_map(|ring| &ring.buckets) {
            bucket.store(0, Relaxed);
        }
    }

    /// A binding became live, or came here live.
    pub(super) fn enter(&self, last_seen: Tick) {
        self.bucket(last_seen).fetch_add(1, Relaxed);
    }

    /// A live binding left, ended, or is retained from now on.
    pub(super) fn leave(&self, last_seen: Tick) {
        self.bucket(last_seen).fetch_sub(1, Relaxed);
    }

    /// A live binding was seen again.
    pub(super) fn touch(&self, before: Tick, now: Tick) {
        if now <= before {
            return;
        }
        let (from, to) = (self.bucket(before), self.bucket(now));
        if !std::ptr::eq(from, to) {
            from.fetch_sub(1, Relaxed);
            to.fetch_add(1, Relaxed);
        }
    }

    /// No live binding was seen after this tick. None when this cannot tell: there is no live binding, the
    /// session timeout was changed not long ago, or a count went astray.
    pub(super) fn latest(&self, timeout: u32, live: u32, now: Tick) -> Option<Tick> {
        let (index, _) = self.current();
        let ring = &self.rings[index];
        if !ring.suits(timeout) || !self.rings[1 - index].is_empty() {
            return None;
        }
        let counts: [i32; BUCKETS] = std::array::from_fn(|at| ring.buckets[at].load(Relaxed));
        let sum: i64 = counts.iter().copied().map(i64::from).sum();
        if sum != i64::from(live) || counts.iter().any(|&count| count < 0) {
            return None;
        }
        let width = ring.width.load(Relaxed);
        let current = now.get() / width;
        (0..BUCKETS as u32).map_while(|back| current.checked_sub(back)).find_map(|bucket| {
            let end = bucket.saturating_mul(width).saturating_add(width - 1);
            (counts[bucket as usize % BUCKETS] > 0).then(|| Tick::new(end.min(now.get())))
        })
    }

    fn bucket(&self, tick: Tick) -> &AtomicI32 {
        let (index, since) = self.current();
        let ring = &self.rings[if tick >= since { index } else { 1 - index }];
        &ring.buckets[(tick.get() / ring.width.load(Relaxed)) as usize % BUCKETS]
    }

    /// The ring that counts now, and since when.
    fn current(&self) -> (usize, Tick) {
        let word = self.current.load(Acquire);
        ((word & 1) as usize, Tick::new((word >> 1) as u32))
    }
}

// === impl Ring ===

impl Ring {
    fn new(timeout: u32) -> Self {
        Self { width: AtomicU32::new(width_for(timeout)), buckets: [const { AtomicI32::new(0) }; BUCKETS] }
    }

    /// Whether its buckets are fine enough for this timeout, and enough of them.
    fn suits(&self, timeout: u32) -> bool {
        let wanted = width_for(timeout);
        (wanted.div_ceil(2)..=wanted).contains(&self.width.load(Relaxed))
    }

    fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.load(Relaxed) == 0)
    }
}

/// At most a 64th of the timeout, or a single tick.
fn width_for(timeout: u32) -> u32 {
    (timeout / SPAN).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_the_youngest_that_is_left() {
        let recency = Recency::new(640);
        let latest = |live| recency.latest(640, live, Tick::new(500));
        recency.enter(Tick::new(100));
        recency.enter(Tick::new(400));
        assert_eq!(latest(2), Some(Tick::new(409)));
        recency.leave(Tick::new(400));
        assert_eq!(latest(1), Some(Tick::new(109)));
        recency.leave(Tick::new(100));
        assert_eq!(latest(0), None);
    }

    #[test]
    fn a_touch_takes_a_binding_along() {
        let recency = Recency::new(640);
        recency.enter(Tick::new(100));
        recency.touch(Tick::new(100), Tick::new(305));
        assert_eq!(recency.latest(640, 1, Tick::new(305)), Some(Tick::new(305)));
        recency.touch(Tick::new(305), Tick::new(304));
        recency.leave(Tick::new(305));
        assert!(recency.rings.iter().all(Ring::is_empty));
    }

    #[test]
    fn the_deadline_is_never_told_too_early_nor_much_too_late() {
        for timeout in [1, 63, 100, 127, 18_000, 18_063] {
            let recency = Recency::new(timeout);
            for seen in [0, 17, 281, 5_000, 17_999] {
                let now = Tick::new(seen + timeout - 1);
                recency.enter(Tick::new(seen));
                let latest = recency.latest(timeout, 1, now).unwrap();
                assert!((seen..=seen + timeout / 64).contains(&latest.get()), "{timeout} {seen} {latest:?}");
                recency.leave(Tick::new(seen));
            }
        }
    }

    #[test]
    fn a_ring_that_went_astray_says_so() {
        let recency = Recency::new(640);
        recency.enter(Tick::new(100));
        recency.leave(Tick::new(300));
        recency.enter(Tick::new(300));
        recency.enter(Tick::new(300));
        assert_eq!(recency.latest(640, 1, Tick::new(300)), None, "too many");
        recency.leave(Tick::new(200));
        assert_eq!(recency.latest(640, 1, Tick::new(300)), None, "below zero");
        recency.clear();
        recency.enter(Tick::new(300));
        assert_eq!(recency.latest(640, 1, Tick::new(300)), Some(Tick::new(300)));
    }

    #[test]
    fn another_timeout_is_counted_by_another_ring_once_the_first_is_empty() {
        let recency = Recency::new(640);
        recency.enter(Tick::new(95));
        recency.retime(6_400, Tick::new(100));
        recency.enter(Tick::new(101));
        assert_eq!(recency.latest(6_400, 2, Tick::new(101)), None);
        recency.touch(Tick::new(95), Tick::new(102));
        assert_eq!(recency.latest(6_400, 2, Tick::new(102)), None);
        recency.leave(Tick::new(101));
        assert_eq!(recency.latest(6_400, 1, Tick::new(200)), Some(Tick::new(199)));
        recency.retime(640, Tick::new(200));
        assert_eq!(recency.latest(640, 1, Tick::new(210)), None);
        recency.leave(Tick::new(102));
        assert!(recency.rings.iter().all(Ring::is_empty));
    }
}
