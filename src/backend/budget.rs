//! How many attempts beyond the first the requests of a pool may have, so that an outage is not multiplied: pure.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use tokio::time::Instant;

use crate::config::PoolLimits;

/// The retries of one pool, over all workers: at most a share of the requests of the last [`WINDOW`] seconds, and
/// [`FLOOR`] a second, without which a quiet pool would have none.
#[derive(Debug)]
pub struct RetryBudget {
    /// Percent of the requests, [`UNLIMITED`] for as many as there are. Written by the control thread.
    percent: AtomicU32,
    /// Where seconds are counted from.
    start: Instant,
    /// Requests by second: its number in the upper half, how many in the lower.
    requests: [AtomicU64; SECONDS],
    /// Retries by second, likewise; under a lock, so that no two take the last one.
    retries: Mutex<[u64; SECONDS]>,
}

/// Seconds that count.
const WINDOW: u32 = 10;
/// Seconds that are kept: more, so that none is counted in while it is read.
const SECONDS: usize = 16;
/// Retries a second that are always granted.
const FLOOR: u64 = 10;
const UNLIMITED: u32 = u32::MAX;

// === impl RetryBudget ===

impl RetryBudget {
    /// With these limits.
    pub fn new(limits: &PoolLimits, now: Instant) -> Self {
        Self {
            percent: AtomicU32::new(percent_of(limits)),
            start: now,
            requests: Default::default(),
            retries: Mutex::default(),
        }
    }

    /// Takes other limits.
    pub fn set(&self, limits: &PoolLimits) {
        self.percent.store(percent_of(limits), Relaxed);
    }

    /// Counts a request.
    pub fn request(&self, now: Instant) {
        let second = self.second(now);
        let place = &self.requests[index(second)];
        let mut before = place.load(Relaxed);
        loop {
            if number(before) == second {
                // Nobody begins another second here for as long as this one counts.
                place.fetch_add(1, Relaxed);
                return;
            }
            match place.compare_exchange_weak(before, first(second), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => before = other,
            }
        }
    }

    /// Takes a retry out of the budget; whether there was one left.
    pub fn retry(&self, now: Instant) -> bool {
        let percent = self.percent.load(Relaxed);
        if percent == UNLIMITED {
            return true;
        }
        let second = self.second(now);
        let requests: u64 = self.requests.iter().map(|place| counted(place.load(Relaxed), second)).sum();
        let granted = u64::from(WINDOW) * FLOOR + requests * u64::from(percent) / 100;
        let mut retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: u64 = retries.iter().map(|place| counted(*place, second)).sum();
        if taken >= granted {
            return false;
        }
        let place = &mut retries[index(second)];
        *place = if number(*place) == second { *place + 1 } else { first(second) };
        true
    }

    fn second(&self, now: Instant) -> u32 {
        // One that wraps around after 136 years.
        now.saturating_duration_since(self.start).as_secs() as u32
    }
}

fn index(second: u32) -> usize {
    second as usize % SECONDS
}

fn number(place: u64) -> u32 {
    (place >> 32) as u32
}

fn first(second: u32) -> u64 {
    u64::from(second) << 32 | 1
}

/// How many a place holds, if its second counts at this one.
fn counted(place: u64, second: u32) -> u64 {
    if second.saturating_sub(number(place)) < WINDOW { place & u64::from(u32::MAX) } else { 0 }
}

fn percent_of(limits: &PoolLimits) -> u32 {
    limits.retry_budget.unwrap_or(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::clock;

    const ALWAYS: u64 = WINDOW as u64 * FLOOR;

    fn budget(retry_budget: Option<u32>) -> RetryBudget {
        let limits =
            PoolLimits { connections: None, queue: 0, queue_timeout: Duration::from_secs(1), retry_budget };
        RetryBudget::new(&limits, clock::now())
    }

    fn spend(budget: &RetryBudget) -> u64 {
        (0..).take_while(|count| *count < 100_000 && budget.retry(clock::now())).count() as u64
    }

    fn requests(budget: &RetryBudget, count: usize) {
        (0..count).for_each(|_| budget.request(clock::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_requests_may_be_retried_and_a_few_more() {
        let budget = budget(Some(20));
        requests(&budget, 1000);
        assert_eq!(spend(&budget), 200 + ALWAYS);
        assert!(!budget.retry(clock::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_pool_may_retry_too() {
        assert_eq!(spend(&budget(Some(0))), ALWAYS);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_there_is_no_end() {
        assert_eq!(spend(&budget(None)), 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_retries_count_for_ten_seconds() {
        let budget = budget(Some(10));
        requests(&budget, 500);
        assert_eq!(spend(&budget), 50 + ALWAYS);
        advance(Duration::from_secs(9)).await;
        assert_eq!(spend(&budget), 0);
        requests(&budget, 100);
        assert_eq!(spend(&budget), 10);
        advance(Duration::from_secs(1)).await;
        // The first ones of both kinds are over; of the later ones, ten are taken.
        assert_eq!(spend(&budget), ALWAYS);
        advance(Duration::from_secs(1000)).await;
        assert_eq!(spend(&budget), ALWAYS);
    }

    #[tokio::test(start_paused = true)]
    async fn many_threads_take_no_more_than_there_is() {
        let budget = budget(Some(20));
        let now = clock::now();
        let taken: usize = std::thread::scope(|scope| {
            let work = || {
                (0..1000).for_each(|_| budget.request(now));
                (0..1000).filter(|_| budget.retry(now)).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken as u64, 4000 / 5 + ALWAYS);
    }
}
