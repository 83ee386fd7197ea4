//! The processes that serve the same sessions as this one just now: the one before, the one after, or both.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

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

// === impl Kin ===

impl Kin {
    /// Learns what they know of those keys that this process has never heard of. At once when there are none.
    pub async fn look_up(&self, pool: &Pool, keys: &[SessionKey]) {
        if self.exchanges.load().is_empty() {
            return;
        }
        let exchanges = self.exchanges.load_full();
        for key in keys {
            for exchange in &*exchanges {
                if matches!(pool.affinity.trace(*key, clock::tick()), Trace::Unknown) {
                    exchange.ask(pool, *key).await;
                }
            }
        }
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
