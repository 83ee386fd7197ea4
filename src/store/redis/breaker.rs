//! The circuit breaker: whether requests wait for Redis at all. Pure; time is an argument.
//!
//! Closed: requests ask. After a few failures in a row it opens: nobody waits any more, and the state
//! thread alone tries, less and less often (half-open). A few answers in time close it again.

use std::time::Duration;

use tokio::time::Instant;

/// Whether requests wait for Redis.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// How long it stays open before the next trial; doubles with each one that fails.
    wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many failures in a row.
    Closed { failures: u32 },
    /// No trial before then.
    Open { until: Instant },
    /// So many trials in a row went well.
    HalfOpen { successes: u32 },
}

/// What requests see of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// They ask Redis.
    Closed,
    /// They do not.
    Open,
    /// They do not yet.
    HalfOpen,
}

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// Trials in a row that close it.
const SUCCESSES: u32 = 3;
/// The first and the longest time between trials.
const WAIT: Duration = Duration::from_millis(200);
const MAX_WAIT: Duration = Duration::from_secs(3);

// === impl Breaker ===

impl Breaker {
    /// Open, and to be tried at once: nothing is known of Redis yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { state: State::Open { until: now }, wait: WAIT }
    }

    pub(super) const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Redis answered in time. True when that closes it.
    pub(super) const fn succeeded(&mut self) -> bool {
        match &mut self.state {
            State::Closed { failures } => *failures = 0,
            // An answer to a question of before.
            State::Open { .. } => {}
            State::HalfOpen { successes } => {
                *successes += 1;
                if *successes >= SUCCESSES {
                    self.state = State::Closed { failures: 0 };
                    self.wait = WAIT;
                    return true;
                }
            }
        }
        false
    }

    /// It did not. True when that opens a closed one.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                *failures >= FAILURES && self.trip(now)
            }
            State::Open { .. } => false,
            State::HalfOpen { .. } => {
                self.wait = (self.wait * 2).min(MAX_WAIT);
                self.state = State::Open { until: now + self.wait };
                false
            }
        }
    }

    /// The connection is gone: nothing to wait for. True when that opens a closed one.
    pub(super) fn trip(&mut self, now: Instant) -> bool {
        let closed = matches!(self.state, State::Closed { .. });
        if !matches!(self.state, State::Open { .. }) {
            self.state = State::Open { until: now + self.wait };
        }
        closed
    }

    /// Whether a trial is due now; if so, it counts as begun.
    pub(super) fn tries(&mut self, now: Instant) -> bool {
        match self.state {
            State::Open { until } if until <= now => {
                self.state = State::HalfOpen { successes: 0 };
                true
            }
            State::HalfOpen { .. } => true,
            State::Open { .. } | State::Closed { .. } => false,
        }
    }
}

// === impl BreakerState ===

impl BreakerState {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn closed(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(now);
        assert!(breaker.tries(now));
        for trial in 1..=SUCCESSES {
            assert_eq!(breaker.succeeded(), trial == SUCCESSES);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        breaker
    }

    #[test]
    fn it_starts_open_and_is_tried_at_once() {
        let now = clock::now();
        let mut breaker = Breaker::new(now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.tries(now));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn failures_in_a_row_open_it_and_single_ones_do_not() {
        let now = clock::now();
        let mut breaker = closed(now);
        for _ in 0..3 * FAILURES {
            assert!(!breaker.failed(now));
            breaker.succeeded();
        }
        for failure in 1..=FAILURES {
            assert_eq!(breaker.failed(now), failure == FAILURES);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(!breaker.failed(now), "told once");
    }

    #[test]
    fn trials_become_rarer_up_to_a_bound() {
        let mut now = clock::now();
        let mut breaker = closed(now);
        assert!(breaker.trip(now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let mut wait = Duration::ZERO;
            while !breaker.tries(now + wait) {
                wait += Duration::from_millis(100);
            }
            now += wait;
            waits.push(wait);
            assert!(!breaker.failed(now));
        }
        assert_eq!(waits[0], WAIT);
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!(waits[7], MAX_WAIT);
    }

    #[test]
    fn once_closed_the_next_outage_is_tried_soon_again() {
        let now = clock::now();
        let mut breaker = closed(now);
        breaker.trip(now);
        for round in 1..6 {
            let late = now + round * MAX_WAIT;
            assert!(breaker.tries(late));
            breaker.failed(late);
        }
        let late = now + 9 * MAX_WAIT;
        assert!(breaker.tries(late));
        for _ in 0..SUCCESSES {
            breaker.succeeded();
        }
        assert!(breaker.trip(late));
        assert!(breaker.tries(late + WAIT));
    }

    #[test]
    fn late_answers_do_not_close_an_open_one() {
        let now = clock::now();
        let mut breaker = closed(now);
        breaker.trip(now);
        for _ in 0..9 {
            assert!(!breaker.succeeded());
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }
}
