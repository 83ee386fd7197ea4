//! How slow a client may be.
//!
//! Only the time in which a client is waited for counts, and only while nobody else is: neither that of a backend,
//! nor the silence of an event stream, whose parts the client takes at once.

use std::time::Duration;

use crate::config::{Edge, Timeouts};

/// The slowest pace that is put up with: so many bytes a second, but for a grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Bytes a second, at least one.
    rate: u32,
    /// As long as it may stand still.
    grace: Duration,
}

// === impl Pace ===

impl Pace {
    /// So many bytes a second.
    #[cfg(test)]
    pub(super) const fn new(rate: u32, grace: Duration) -> Self {
        Self { rate, grace }
    }

    /// The configured one, if any is asked for.
    pub(super) fn of(timeouts: &Timeouts, edge: &Edge) -> Option<Self> {
        (edge.min_rate > 0).then_some(Self { rate: edge.min_rate, grace: timeouts.body })
    }

    /// How long a client may be waited for that has yet to show its pace.
    pub(super) const fn grace(self) -> Duration {
        self.grace
    }

    /// How long it may be waited for after these bytes, if it was `left` before. What it was faster than it had to be
    /// is worth no more than the grace: nobody saves up for standing still.
    pub(super) fn after(self, left: Duration, bytes: usize) -> Duration {
        let millis = bytes as u64 * 1000 / u64::from(self.rate);
        left.min(self.grace) + Duration::from_millis(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { rate: 64, grace: Duration::from_secs(30) };

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Waits of a client that brings so many bytes every `pause` seconds, until it is cut.
    fn waits(bytes: usize, pause: u64) -> usize {
        let mut left = PACE.grace();
        let cut = (0..10_000).position(|_| {
            let late = left <= second(pause);
            left = PACE.after(left.saturating_sub(second(pause)), bytes);
            late
        });
        cut.unwrap_or(usize::MAX)
    }

    #[test]
    fn a_client_as_fast_as_asked_goes_on_for_ever() {
        assert_eq!(waits(64, 1), usize::MAX);
        assert_eq!(waits(640, 10), usize::MAX);
    }

    #[test]
    fn a_client_that_trickles_is_cut_soon_after_the_grace() {
        assert_eq!(waits(1, 10), 3);
        assert_eq!(waits(1, 1), 30);
        assert!((50..70).contains(&waits(32, 1)), "half as fast lasts twice as long");
    }

    #[test]
    fn a_fast_beginning_is_no_credit_for_a_slow_end() {
        let left = PACE.after(PACE.grace(), 100 << 20);
        assert_eq!(PACE.after(left, 0), PACE.grace());
    }
}
