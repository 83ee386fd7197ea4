//! The processes that serve the same sessions as this one just now: the one before, the one after, or both.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::timeout_at;

use super::Exchange;
use crate::{
    affinity::{SessionKey, Trace},
    clock,
    world::Pool,
};

/// The exchanges that run; none most of the time.
#[derive(Debug, Default)]
pub struct Kin {
    /// Read for each request, replaced when a hand-over begins and ends.
    exchanges: ArcSwap<Vec<Arc<Exchange>>>,
    /// Held over a replacement.
    changing: Mutex<()>,
}

/// The longest that a request waits for the word of others.
const ANSWER: Duration = Duration::from_millis(250);

// === impl Kin ===

impl Kin {
    /// Whether there is none.
    pub fn is_alone(&self) -> bool {
        self.exchanges.load().is_empty()
    }

    /// Learns what they know of those keys that this process has never heard of; at once when there are none.
    /// What is not answered in time is not waited for, however many keys and processes there are.
    pub async fn look_up(&self, pool: &Pool, keys: &[SessionKey]) {
        if self.is_alone() {
            return;
        }
        let is_unknown =
            |key: &&SessionKey| matches!(pool.affinity.trace(**key, clock::tick()), Trace::Unknown);
        let unknown: Vec<_> = keys.iter().filter(is_unknown).collect();
        if unknown.is_empty() {
            return;
        }
        let exchanges = self.exchanges.load_full();
        let deadline = clock::now() + ANSWER;
        let asked = exchanges.iter().filter(|exchange| exchange.is_worth_asking()).map(|exchange| {
            let questions: Vec<_> = unknown.iter().filter_map(|key| exchange.ask(pool, **key)).collect();
            (exchange, questions)
        });
        // All are asked before any is waited for.
        for (exchange, questions) in asked.collect::<Vec<_>>() {
            let mut in_time = true;
            for mut question in questions {
                in_time &= timeout_at(deadline, question.answered()).await.is_ok();
            }
            exchange.judge(in_time);
            if !unknown.iter().any(is_unknown) {
                return;
            }
        }
    }

    /// How many processes before this one still run.
    pub fn earlier(&self) -> u32 {
        self.exchanges.load().iter().map(|exchange| exchange.earlier()).sum()
    }

    /// One begins.
    pub(super) fn join(&self, exchange: &Arc<Exchange>) {
        self.change(|exchanges| exchanges.push(Arc::clone(exchange)));
    }

    /// One has ended.
    pub(super) fn leave(&self, exchange: &Arc<Exchange>) {
        self.change(|exchanges| exchanges.retain(|other| !Arc::ptr_eq(other, exchange)));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Exchange>>)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut exchanges = (*self.exchanges.load_full()).clone();
        change(&mut exchanges);
        self.exchanges.store(Arc::new(exchanges));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        handover::exchange::{Ends, Side},
        store::testing::{key, snapshot},
    };

    async fn time_of(kin: &Kin, pool: &Pool, keys: &[SessionKey]) -> Duration {
        let begin = clock::now();
        kin.look_up(pool, keys).await;
        clock::now() - begin
    }

    #[tokio::test(start_paused = true)]
    async fn processes_that_hang_cost_few_requests_one_wait_each() {
        let snapshot = snapshot(&["app-1"]);
        let pool = &snapshot.pools[0];
        let keys: Vec<_> = (0..8).map(key).collect();
        let ends = || Ends::new(Side::Taker, 0);
        let (kin, hung) = (Kin::default(), [ends(), ends()]);
        for ends in &hung {
            kin.join(&ends.exchange);
        }
        let enough = ANSWER..ANSWER + Duration::from_millis(20);
        for _ in 0..3 {
            let took = time_of(&kin, pool, &keys).await;
            assert!(enough.contains(&took), "{took:?}");
        }
        assert_eq!(time_of(&kin, pool, &keys).await, Duration::ZERO);
        tokio::time::advance(Duration::from_secs(6)).await;
        let took = time_of(&kin, pool, &keys).await;
        assert!(enough.contains(&took), "one finds out whether they answer again: {took:?}");
        assert_eq!(time_of(&kin, pool, &keys).await, Duration::ZERO);
    }
}
