//! Which instance of a backend answers. A backend that restarts keeps its name and address, and loses the
//! sessions it had in memory.

use std::{
    hash::Hasher,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use siphasher::sip::SipHasher24;

use crate::clock;

/// The instances that have answered under one name.
#[derive(Debug, Default)]
pub struct Instances {
    /// Hash of the id of the latest one; 0 for none yet. Read for every answer.
    current: AtomicU64,
    /// Since when, in Unix milliseconds.
    since: AtomicU64,
    /// The latest one is known only by what another process said.
    hearsay: AtomicBool,
    /// Sessions that were placed here until then, in Unix milliseconds, are gone whatever another process says.
    forgotten: AtomicU64,
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

/// Which instance of a backend another process spoke of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The one that is known here, or none in particular.
    Current,
    /// One whose sessions are gone.
    Earlier,
    /// One that has not been heard of here yet: the sessions of the one known here are gone.
    Later,
}

/// Earlier instances remembered.
const MAX_EARLIER: usize = 16;

// === impl Instances ===

impl Instances {
    /// An answer carried this instance id.
    pub fn heard(&self, id: &[u8]) -> Instance {
        let mut hasher = SipHasher24::new();
        hasher.write(id);
        let instance = self.heard_hash(hasher.finish().max(1));
        if self.hearsay.load(Relaxed) {
            self.hearsay.store(false, Relaxed);
        }
        instance
    }

    /// Hash of the id of the latest instance; 0 when none has been heard of. The same in every process.
    pub fn current(&self) -> u64 {
        self.current.load(Relaxed)
    }

    /// Takes over what another process knew: the latest instance, and since when (Unix milliseconds). Only
    /// if nothing is known here.
    pub fn restore(&self, hash: u64, since: u64) {
        let _earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        if self.current.load(Relaxed) == 0 {
            self.hearsay.store(true, Relaxed);
            self.since.store(since, Relaxed);
            self.current.store(hash, Release);
        }
    }

    /// What was placed here so far is gone, although no instance id says so.
    pub fn forget(&self) {
        self.forgotten.store(clock::unix_ms(), Relaxed);
    }

    /// Since when the latest instance is known, in Unix milliseconds.
    pub fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }

    /// What a binding tells that another process made at `placed` (Unix milliseconds) with this instance.
    pub fn judge(&self, hash: u64, placed: u64) -> Told {
        let current = self.current.load(Acquire);
        let forgotten = self.forgotten.load(Relaxed);
        if forgotten != 0 && placed <= forgotten {
            return Told::Earlier;
        }
        if hash == 0 || hash == current {
            return Told::Current;
        }
        if current == 0 {
            self.restore(hash, placed);
            return Told::Current;
        }
        let earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash);
        match self.hearsay.load(Relaxed) {
            // What was bound before the present instance was heard of is not about a later one.
            _ if earlier || placed <= self.since() => Told::Earlier,
            true => Told::Later,
            // What the backend itself said counts for more: if there is a later one, it will say so soon.
            false => Told::Current,
        }
    }

    /// An answer came from the instance whose id has this hash.
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
        self.since.store(clock::unix_ms(), Relaxed);
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
    fn what_another_process_says_is_put_in_order_by_time() {
        let instances = Instances::default();
        assert_eq!(instances.judge(7, 1_000), Told::Current, "nothing was known");
        assert_eq!((instances.current(), instances.since()), (7, 1_000));
        assert_eq!(instances.judge(0, 0), Told::Current, "no instance in particular");
        assert_eq!(instances.judge(8, 900), Told::Earlier);
        assert_eq!(instances.judge(8, 1_100), Told::Later);
        instances.heard_hash(8);
        assert_eq!(instances.judge(7, u64::MAX), Told::Earlier, "it is known to be gone");
    }

    #[test]
    fn what_the_backend_itself_said_is_not_undone_by_what_another_process_says() {
        let instances = Instances::default();
        instances.heard(b"new");
        let current = instances.current();
        assert_eq!(instances.judge(7, u64::MAX), Told::Current);
        assert_eq!((instances.current(), instances.heard(b"new")), (current, Instance::Known));
    }

    #[test]
    fn what_was_forgotten_without_an_instance_id_stays_so() {
        let instances = Instances::default();
        instances.forget();
        assert_eq!(instances.judge(0, clock::unix_ms() - 1), Told::Earlier);
        assert_eq!(instances.judge(0, clock::unix_ms() + 1), Told::Current);
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
