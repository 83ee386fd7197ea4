//! Which keys have changed, for those who keep or share bindings outside the process.
//!
//! It holds keys, not changes: whoever drains it looks up what is known of a key by then. So the order in
//! which two threads noted the same key does not matter, and a key noted twice is looked up once more, no
//! worse.

use std::{
    mem,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use super::{SessionKey, Tick};

/// Keys that have changed since it was last drained. Notes nothing until it is opened.
#[derive(Debug, Default)]
pub struct Journal {
    open: AtomicBool,
    /// Ticks between two notes of a key that is only seen again.
    coarse: AtomicU32,
    /// Written by requests and the tick; held for a push.
    notes: Mutex<Notes>,
}

/// What was noted.
#[derive(Debug, Default)]
pub struct Notes {
    /// Keys about which something other than the time of the last request has changed.
    pub changed: Vec<SessionKey>,
    /// Keys that were seen again.
    pub touched: Vec<SessionKey>,
    /// There was more than fits: anything may have changed.
    pub overflowed: bool,
}

/// Keys of either kind between two drains.
const MAX_NOTES: usize = 1 << 18;

// === impl Journal ===

impl Journal {
    /// Notes changes from now on, and every session that is in use about once in `coarse` (in the shape of a
    /// tick: the first one after that time from zero).
    pub fn open(&self, coarse: Tick) {
        self.coarse.store(coarse.get().max(1), Relaxed);
        self.open.store(true, Relaxed);
    }

    /// Takes what was noted.
    pub fn drain(&self) -> Notes {
        mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn changed(&self, key: SessionKey) {
        self.note(key, |notes| &mut notes.changed);
    }

    pub(super) fn touched(&self, key: SessionKey) {
        self.note(key, |notes| &mut notes.touched);
    }

    /// The latest tick at which a session seen `now` is to be looked at again.
    pub(super) fn next_look(&self, now: Tick) -> Tick {
        if !self.open.load(Relaxed) {
            return Tick::NEVER;
        }
        Tick::new(now.get().saturating_add(self.coarse.load(Relaxed)))
    }

    /// Whether a session was used since it was last looked at, when it was decided to look again at `due`.
    pub(super) fn was_used(&self, last_seen: Tick, due: Tick) -> bool {
        self.open.load(Relaxed) && last_seen.get() > due.get().saturating_sub(self.coarse.load(Relaxed))
    }

    fn note(&self, key: SessionKey, list: impl FnOnce(&mut Notes) -> &mut Vec<SessionKey>) {
        if !self.open.load(Relaxed) {
            return;
        }
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let list = list(&mut notes);
        if list.len() < MAX_NOTES {
            list.push(key);
        } else {
            notes.overflowed = true;
        }
    }
}

// === impl Notes ===

impl Notes {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.touched.is_empty() && !self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> SessionKey {
        SessionKey::from_words([n; 4])
    }

    #[test]
    fn a_journal_that_nobody_opened_notes_nothing() {
        let journal = Journal::default();
        journal.changed(key(1));
        journal.touched(key(1));
        assert!(journal.drain().is_empty());
        assert_eq!(journal.next_look(Tick::new(5)), Tick::NEVER);
    }

    #[test]
    fn what_was_noted_is_drained_once() {
        let journal = Journal::default();
        journal.open(Tick::new(10));
        journal.changed(key(1));
        journal.touched(key(2));
        let notes = journal.drain();
        assert_eq!((notes.changed, notes.touched), (vec![key(1)], vec![key(2)]));
        assert!(journal.drain().is_empty());
    }

    #[test]
    fn more_than_fits_is_told() {
        let journal = Journal::default();
        journal.open(Tick::new(10));
        for n in 0..=MAX_NOTES as u32 {
            journal.changed(key(n));
        }
        let notes = journal.drain();
        assert!(notes.overflowed);
        assert_eq!(notes.changed.len(), MAX_NOTES);
    }
}
