//! Which instance of a backend answers. A backend that restarts keeps its name and address, and loses the
//! sessions it had in memory.

use std::{
    hash::Hasher,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use siphasher::sip::SipHasher24;

/// The instances that have answered under one name.
#[derive(Debug, Default)]
pub struct Instances {
    /// Hash of the id of the latest one; 0 for none yet. Read for every answer.
    current: AtomicU64,
    /// Hashes of earlier ones: a last answer of theirs may come after the first of their successor.
    earlier: Mutex<Vec<u64>>,
}

/// What an answer's instance id tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    /// Nothing new.
    Known,
    /// The sessions of the one before are gone.
    New,
}

/// Earlier instances remembered.
const MAX_EARLIER: usize = 16;

// === impl Instances ===

impl Instances {
    /// Hash of the id of the latest instance; 0 when none has told.
    pub fn current(&self) -> u64 {
        self.current.load(Relaxed)
    }

    /// An answer carried this instance id.
    pub fn heard(&self, id: &[u8]) -> Instance {
        let mut hasher = SipHasher24::new();
        hasher.write(id);
        self.heard_hash(hasher.finish().max(1))
    }

    /// Somebody heard an instance id with this hash, which is not 0.
    pub fn heard_hash(&self, hash: u64) -> Instance {
        if self.current.load(Relaxed) == hash {
            return Instance::Known;
        }
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load(Relaxed);
        if current == hash || earlier.contains(&hash) {
            return Instance::Known;
        }
        self.current.store(hash, Relaxed);
        if current == 0 {
            return Instance::Known;
        }
        if earlier.len() == MAX_EARLIER {
            earlier.remove(0);
        }
        earlier.push(current);
        Instance::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_instance_is_nothing_new() {
        let instances = Instances::default();
        assert_eq!(instances.heard(b"a"), Instance::Known);
        assert_eq!(instances.heard(b"a"), Instance::Known);
    }

    #[test]
    fn another_id_is_another_instance_once() {
        let instances = Instances::default();
        instances.heard(b"a");
        assert_eq!(instances.heard(b"b"), Instance::New);
        assert_eq!(instances.heard(b"b"), Instance::Known);
    }

    #[test]
    fn a_last_answer_of_the_old_instance_changes_nothing() {
        let instances = Instances::default();
        instances.heard(b"a");
        instances.heard(b"b");
        assert_eq!(instances.heard(b"a"), Instance::Known);
        assert_eq!(instances.heard(b"b"), Instance::Known);
    }
}
