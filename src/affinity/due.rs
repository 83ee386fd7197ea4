//! When remembered ids are to be forgotten: the earliest first.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{SessionKey, Tick};

/// Entries of ids that were used again or are gone may be among them; the caller tells them by their time.
#[derive(Debug, Default)]
pub(super) struct Due(Mutex<Queue>);

/// Keys' words by the tick when to look at them.
type Queue = BinaryHeap<Reverse<(Tick, [u32; 4])>>;

// === impl Due ===

impl Due {
    /// Adds an entry, then gives the first ones to `forget`, while there are more than `entries` or `full` says so.
    pub(super) fn push(
        &self,
        key: SessionKey,
        until: Tick,
        entries: usize,
        full: impl Fn() -> bool,
        forget: impl Fn(SessionKey, Tick),
    ) {
        let mut queue = self.lock();
        queue.push(Reverse((until, key.words())));
        while queue.len() > entries || full() {
            let Some(Reverse((until, words))) = queue.pop() else { break };
            forget(SessionKey::from_words(words), until);
        }
    }

    /// Gives at most `budget` entries whose time has come to `forget`; true when there are more.
    pub(super) fn take(&self, now: Tick, budget: usize, mut forget: impl FnMut(SessionKey, Tick)) -> bool {
        let mut queue = self.lock();
        for _ in 0..budget {
            match queue.peek() {
                Some(&Reverse((until, words))) if until <= now => {
                    queue.pop();
                    forget(SessionKey::from_words(words), until);
                }
                _ => return false,
            }
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
