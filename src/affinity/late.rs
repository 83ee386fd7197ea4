//! Sessions that expired not long ago. An id among them that its application still knows says that the
//! TTL is too short, and by how much.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use super::{KeyBuildHasher, SessionKey, Tick, table::Home};

#[derive(Debug, Default)]
pub(super) struct Late(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    ring: VecDeque<(SessionKey, Tick)>,
    map: HashMap<SessionKey, Expired, KeyBuildHasher>,
}

/// What is left of an expired session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expired {
    pub(super) home: Home,
    pub(super) last_seen: Tick,
}

const MAX_EXPIRED: usize = 16_384;

// === impl Late ===

impl Late {
    pub(super) fn expired(&self, key: SessionKey, home: Home, last_seen: Tick) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ring.len() == MAX_EXPIRED
            && let Some((old, seen)) = state.ring.pop_front()
            && state.map.get(&old).is_some_and(|expired| expired.last_seen == seen)
        {
            state.map.remove(&old);
        }
        state.ring.push_back((key, last_seen));
        state.map.insert(key, Expired { home, last_seen });
    }

    pub(super) fn find(&self, key: SessionKey) -> Option<Expired> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map.get(&key).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ring.len()
    }

    pub(super) fn take(&self, key: SessionKey) -> Option<Expired> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::Slot;

    #[test]
    fn only_the_latest_are_remembered() {
        let late = Late::default();
        let home = Home { slot: Slot::new(0), generation: 0 };
        for n in 0..MAX_EXPIRED as u32 + 10 {
            late.expired(SessionKey::from_words([n; 4]), home, Tick::new(n));
        }
        assert!(late.find(SessionKey::from_words([9; 4])).is_none());
        assert!(late.find(SessionKey::from_words([10; 4])).is_some());
        assert_eq!(late.0.lock().unwrap().map.len(), MAX_EXPIRED);
    }
}
