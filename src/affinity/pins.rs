//! Requests that are under way with a key that has no home yet: they all go to the same backend.
//!
//! A pin lives as long as the requests that hold it, so there are never more pins than requests under
//! way; a made-up id leaves nothing behind.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use dashmap::{DashMap, Entry};

use super::{KeyBuildHasher, SessionKey, Slot};

#[derive(Debug)]
pub(super) struct Pins {
    map: DashMap<SessionKey, Pin, KeyBuildHasher>,
    count: AtomicUsize,
}

#[derive(Debug)]
struct Pin {
    slot: Slot,
    users: u32,
}

/// Pins at one time; beyond, requests go where rendezvous sends them, which is the same place as long
/// as the set of backends stays the same.
pub(super) const MAX_PINS: usize = 65_536;
const SHARDS: usize = 64;

// === impl Pins ===

impl Pins {
    pub(super) fn new() -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(KeyBuildHasher, SHARDS),
            count: AtomicUsize::new(0),
        }
    }

    /// The backend for this key: that of other requests under way if it is still `usable`, else what
    /// `place` says. The flag says whether a pin is held, which must be given back by
    /// [`leave`](Self::leave).
    pub(super) fn enter(
        &self,
        key: SessionKey,
        usable: impl FnOnce(Slot) -> bool,
        place: impl FnOnce() -> Option<Slot>,
    ) -> Option<(Slot, bool)> {
        match self.map.entry(key) {
            Entry::Occupied(mut entry) => {
                let pin = entry.get_mut();
                if !usable(pin.slot) {
                    pin.slot = place()?;
                }
                pin.users += 1;
                Some((pin.slot, true))
            }
            Entry::Vacant(entry) => {
                let slot = place()?;
                if self.count.load(Relaxed) >= MAX_PINS {
                    return Some((slot, false));
                }
                self.count.fetch_add(1, Relaxed);
                entry.insert(Pin { slot, users: 1 });
                Some((slot, true))
            }
        }
    }

    pub(super) fn leave(&self, key: SessionKey) {
        if let Entry::Occupied(mut entry) = self.map.entry(key) {
            entry.get_mut().users -= 1;
            if entry.get().users == 0 {
                entry.remove();
                self.count.fetch_sub(1, Relaxed);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> SessionKey {
        SessionKey::from_words([n; 4])
    }

    #[test]
    fn parallel_requests_agree_until_the_last_one_leaves() {
        let pins = Pins::new();
        let first = pins.enter(key(1), |_| true, || Some(Slot::new(1)));
        let second = pins.enter(key(1), |_| true, || Some(Slot::new(2)));
        assert_eq!((first, second), (Some((Slot::new(1), true)), Some((Slot::new(1), true))));
        pins.leave(key(1));
        pins.leave(key(1));
        assert_eq!(pins.len(), 0);
        assert_eq!(pins.enter(key(1), |_| true, || Some(Slot::new(2))), Some((Slot::new(2), true)));
    }

    #[test]
    fn a_pin_to_a_backend_that_is_gone_moves() {
        let pins = Pins::new();
        pins.enter(key(1), |_| true, || Some(Slot::new(1)));
        assert_eq!(pins.enter(key(1), |_| false, || Some(Slot::new(2))), Some((Slot::new(2), true)));
        assert_eq!(pins.enter(key(1), |_| true, || None), Some((Slot::new(2), true)));
    }

    #[test]
    fn a_flood_pins_no_more_than_the_bound() {
        let pins = Pins::new();
        for n in 0..MAX_PINS as u32 + 10 {
            assert!(pins.enter(key(n), |_| true, || Some(Slot::new(1))).is_some());
        }
        assert_eq!(pins.len(), MAX_PINS);
    }
}
