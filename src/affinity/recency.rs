//! When the live sessions of one backend were last seen, in coarse steps: enough to say in O(1) when the
//! last of them will be idle.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::Tick;

/// Live sessions by the time of their last request.
///
/// A ring of buckets, each [`width`](Self::bucket) ticks long. A live binding's last request is no older
/// than the session timeout, for which a quarter of the ring suffices, so no bucket is used for two
/// times at once. A touch counts only when it leaves its bucket: amortised, next to nothing.
#[derive(Debug)]
pub(super) struct Recency {
    width: AtomicU32,
    buckets: [AtomicU32; BUCKETS],
}

const BUCKETS: usize = 256;
/// Buckets that a session timeout spans.
const SPAN: u32 = 64;

// === impl Recency ===

impl Default for Recency {
    fn default() -> Self {
        Self { width: AtomicU32::new(1), buckets: [const { AtomicU32::new(0) }; BUCKETS] }
    }
}

impl Recency {
    /// Whether the buckets suit this session timeout; else they are to be [`reset`](Self::reset) and
    /// every live binding counted in again.
    pub(super) fn suits(&self, timeout: u32) -> bool {
        let width = self.width.load(Relaxed);
        let wanted = Self::width_for(timeout);
        (wanted.div_ceil(2)..=wanted.saturating_mul(4)).contains(&width)
    }

    pub(super) fn reset(&self, timeout: u32) {
        self.width.store(Self::width_for(timeout), Relaxed);
        self.clear();
    }

    /// No binding is live any more.
    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }

    /// How many bindings are counted in.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| u64::from(bucket.load(Relaxed))).sum()
    }

    /// A binding became live, or came here live.
    pub(super) fn enter(&self, last_seen: Tick) {
        self.buckets[self.bucket(last_seen)].fetch_add(1, Relaxed);
    }

    /// A live binding left, ended, or is retained from now on.
    pub(super) fn leave(&self, last_seen: Tick) {
        // Not below zero: a reset may have come in between.
        let _ = self.buckets[self.bucket(last_seen)].fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }

    /// A live binding was seen again.
    pub(super) fn touch(&self, before: Tick, now: Tick) {
        let (from, to) = (self.bucket(before), self.bucket(now));
        if from != to && now > before {
            self.leave(before);
            self.enter(now);
        }
    }

    /// No live binding was seen after this tick; none when there is no live binding.
    pub(super) fn latest(&self, now: Tick) -> Option<Tick> {
        let width = self.width.load(Relaxed);
        let current = now.get() / width;
        (0..BUCKETS as u32).map_while(|back| current.checked_sub(back)).find_map(|bucket| {
            let count = self.buckets[bucket as usize % BUCKETS].load(Relaxed);
            let end = bucket.saturating_mul(width).saturating_add(width - 1);
            (count > 0).then(|| Tick::new(end.min(now.get())))
        })
    }

    fn bucket(&self, tick: Tick) -> usize {
        (tick.get() / self.width.load(Relaxed)) as usize % BUCKETS
    }

    fn width_for(timeout: u32) -> u32 {
        timeout.div_ceil(SPAN).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recency(timeout: u32) -> Recency {
        let recency = Recency::default();
        recency.reset(timeout);
        recency
    }

    #[test]
    fn the_latest_is_the_youngest_that_is_left() {
        let recency = recency(640);
        recency.enter(Tick::new(100));
        recency.enter(Tick::new(400));
        assert_eq!(recency.latest(Tick::new(500)), Some(Tick::new(409)));
        recency.leave(Tick::new(400));
        assert_eq!(recency.latest(Tick::new(500)), Some(Tick::new(109)));
        recency.leave(Tick::new(100));
        assert_eq!(recency.latest(Tick::new(500)), None);
    }

    #[test]
    fn a_touch_takes_a_binding_along() {
        let recency = recency(640);
        recency.enter(Tick::new(100));
        recency.touch(Tick::new(100), Tick::new(305));
        assert_eq!(recency.latest(Tick::new(305)), Some(Tick::new(305)));
        recency.touch(Tick::new(305), Tick::new(304));
        recency.leave(Tick::new(305));
        assert_eq!(recency.latest(Tick::new(1000)), None);
    }

    #[test]
    fn the_deadline_is_never_told_too_early() {
        let recency = recency(18_000);
        for seen in [0, 17, 281, 5_000, 17_999] {
            recency.enter(Tick::new(seen));
            let latest = recency.latest(Tick::new(18_000)).unwrap();
            assert!(latest.get() >= seen);
            recency.leave(Tick::new(seen));
        }
    }
}
