//! When a name is looked up next: pure.

use std::time::Duration;

/// How long an answer is good for at least: whatever its TTL, no name is asked for more often.
pub(super) const FLOOR: Duration = Duration::from_secs(1);
/// How long an answer without TTL is good for: one of the hosts file.
const UNKNOWN: Duration = Duration::from_secs(5);
/// The wait after the first failure; it doubles up to [`LONGEST`].
const RETRY: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
}

// === impl Pace ===

impl Pace {
    /// The wait after an answer with this TTL; at most `refresh`, so that a record that is changed before its TTL
    /// is over is noticed all the same.
    pub(super) fn answered(&mut self, ttl: Option<Duration>, refresh: Duration) -> Duration {
        self.failures = 0;
        ttl.unwrap_or(UNKNOWN).min(refresh).max(FLOOR)
    }

    /// The wait after a failure.
    pub(super) fn failed(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = (self.failures + 1).min(16);
        RETRY.saturating_mul(factor).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_ttl_is_respected_between_a_floor_and_a_ceiling() {
        let mut pace = Pace::default();
        let minute = 60 * SECOND;
        let waits = [0, 1, 30, 60, 86_400].map(|ttl| pace.answered(Some(ttl * SECOND), minute).as_secs());
        assert_eq!(waits, [1, 1, 30, 60, 60]);
        assert_eq!(pace.answered(None, minute), 5 * SECOND);
        assert_eq!(pace.answered(None, 2 * SECOND), 2 * SECOND);
    }

    #[test]
    fn failures_in_a_row_grow_apart_until_one_answers() {
        let mut pace = Pace::default();
        let waits: Vec<_> = (0..6).map(|_| pace.failed().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 15, 15]);
        for _ in 0..100 {
            pace.failed();
        }
        assert_eq!(pace.failed(), LONGEST);
        pace.answered(None, SECOND);
        assert_eq!(pace.failed(), SECOND);
    }
}
