//! When bindings fall due: a hierarchical timing wheel.
//!
//! Inserting and expiring cost O(1) for millions of entries, and no call works longer than it is
//! asked to: time advances by setting whole slots aside, and entries are handed out in portions. The
//! wheel cannot remove an entry: whoever takes one out checks whether it still means anything, and
//! [`compact`](Wheel::compact) sweeps out those that do not.
//!
//! Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987, scheme 7.
//!
//! Invariants: an entry that waits is due after `now` and lies on the level of the highest digit
//! (base 64) in which its due time differs from `now`, in the slot of that digit. So on each level
//! only slots after the current one are taken, and everything on a level is due before everything on
//! the levels above.

use std::{cmp::Reverse, collections::VecDeque, mem};

use super::Tick;

/// What falls due, and when.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The words of the session key; plain words, because they pack tighter than anything aligned.
    pub(super) key: [u32; 4],
    /// Not handed out before this tick.
    pub(super) due: Tick,
}

/// The timing wheel.
pub(super) struct Wheel {
    now: Tick,
    levels: [Level; LEVELS],
    /// Slots whose time has come. Those of coarse levels hold entries that are not due yet.
    ready: VecDeque<List>,
    /// Slots that were called back: their entries are handed out whether they are due or not.
    recalled: VecDeque<List>,
    spare: Spare,
    /// Entries, both waiting and ready.
    len: usize,
    /// Where [`Wheel::compact`] goes on: level, slot, chunk.
    cursor: (usize, usize, usize),
}

struct Level {
    /// Bit n is set when slot n has entries.
    taken: u64,
    slots: [List; SLOTS],
}

/// A bag of entries in chunks of [`CHUNK`], so that it grows without moving them, and memory goes
/// from slot to slot. No chunk is empty.
#[derive(Default)]
struct List(VecDeque<Vec<Entry>>);

/// Empty chunks, at most [`SPARE_CHUNKS`].
struct Spare(Vec<Vec<Entry>>);

// === impl Wheel ===

impl Wheel {
    /// An empty wheel.
    pub(super) fn new(now: Tick) -> Self {
        Self {
            now,
            levels: std::array::from_fn(|_| Level {
                taken: 0,
                slots: std::array::from_fn(|_| List::default()),
            }),
            ready: VecDeque::new(),
            recalled: VecDeque::new(),
            spare: Spare(Vec::new()),
            len: 0,
            cursor: START,
        }
    }

    /// Entries in the wheel.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether [`pop`](Self::pop) has nothing to do until time advances.
    pub(super) fn ready_is_empty(&self) -> bool {
        self.ready.is_empty() && self.recalled.is_empty()
    }

    /// Calls every waiting entry back, to be handed out by [`pop`](Self::pop) although it is not due: what
    /// is due when has changed. Never looks at an entry.
    pub(super) fn recall(&mut self) {
        for level in &mut self.levels {
            while level.taken != 0 {
                let number = level.taken.trailing_zeros() as usize;
                self.recalled.push_back(mem::take(&mut level.slots[number]));
                level.note_taken(number);
            }
        }
    }

    /// Adds an entry; one that is due already is ready at once.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        self.put(entry);
    }

    /// Time goes on to `now`, however far; what that makes ready is for [`pop`](Self::pop). Never
    /// looks at an entry. Time does not go back: an earlier `now` is ignored.
    pub(super) fn advance(&mut self, now: Tick) {
        if now <= self.now {
            return;
        }
        let (before, after) = (u64::from(self.now.get()), u64::from(now.get()));
        for (number, level) in self.levels.iter_mut().enumerate() {
            let above = DIGIT_BITS * (number + 1);
            let due = if before >> above == after >> above {
                // Slots up to and including the current one.
                u64::MAX >> (SLOTS - 1 - digit(after, number))
            } else {
                u64::MAX
            };
            let mut due = level.taken & due;
            level.taken &= !due;
            while due != 0 {
                self.ready.push_back(mem::take(&mut level.slots[due.trailing_zeros() as usize]));
                due &= due - 1;
            }
        }
        self.now = now;
    }

    /// Hands out entries that are due, and those that were called back. Handles up to `max` ready entries, of which those that are
    /// not due yet wait on in a finer slot; returns how many it handled.
    pub(super) fn pop(&mut self, out: &mut Vec<Entry>, max: usize) -> usize {
        let mut handled = 0;
        while handled < max
            && let Some(list) = self.ready.front_mut()
        {
            if let Some(entry) = list.pop(&mut self.spare) {
                handled += 1;
                if entry.due <= self.now {
                    self.len -= 1;
                    out.push(entry);
                } else {
                    self.put(entry);
                }
            }
            self.drop_empty_ready();
        }
        while handled < max
            && let Some(list) = self.recalled.front_mut()
        {
            let before = out.len();
            list.drain(out, max - handled, &mut self.spare);
            handled += out.len() - before;
            self.len -= out.len() - before;
            self.recalled.pop_front_if(|list| list.0.is_empty());
        }
        handled
    }

    /// Takes out an entry that is due no later than any other, as far as that is known without looking at
    /// many: entries come out of a coarse slot in the order in which they came in, sorted chunk by chunk.
    pub(super) fn earliest(&mut self) -> Option<Entry> {
        if self.ready.is_empty() {
            let mut chunk = match self.levels.iter_mut().find(|level| level.taken != 0) {
                Some(level) => {
                    let number = level.taken.trailing_zeros() as usize;
                    let chunk = level.slots[number].0.pop_front()?;
                    level.note_taken(number);
                    chunk
                }
                None => {
                    let chunk = self.recalled.front_mut()?.0.pop_front()?;
                    self.recalled.pop_front_if(|list| list.0.is_empty());
                    chunk
                }
            };
            // What is not taken now waits on in a finer slot, by the next `pop`.
            chunk.sort_unstable_by_key(|entry| Reverse(entry.due));
            self.ready.push_front(List(VecDeque::from([chunk])));
        }
        let entry = self.ready.front_mut()?.pop(&mut self.spare);
        self.drop_empty_ready();
        self.len -= usize::from(entry.is_some());
        entry
    }

    /// Goes on with a sweep through the waiting entries that drops those that are not to be kept and
    /// gives back the memory of half-empty chunks. Looks at up to `max` entries (rounded up to a
    /// chunk); true when the sweep is complete, the next call begins another.
    ///
    /// Entries that change their slot during a sweep may be missed; they come out when they are due.
    pub(super) fn compact(&mut self, mut keep: impl FnMut(&Entry) -> bool, max: usize) -> bool {
        let mut left = max;
        let (mut number, mut slot, mut chunk) = self.cursor;
        while let Some(level) = self.levels.get_mut(number) {
            while slot < SLOTS {
                let list = &mut level.slots[slot];
                while chunk < list.0.len() {
                    if left == 0 {
                        self.cursor = (number, slot, chunk);
                        return false;
                    }
                    let (seen, dropped) = list.sweep(&mut chunk, &mut keep, &mut self.spare);
                    self.len -= dropped;
                    left = left.saturating_sub(seen);
                }
                level.note_taken(slot);
                (slot, chunk) = (slot + 1, 0);
            }
            (number, slot) = (number + 1, 0);
        }
        self.cursor = START;
        true
    }

    /// Puts an entry where it belongs at this time.
    fn put(&mut self, entry: Entry) {
        if entry.due <= self.now {
            if self.ready.is_empty() {
                self.ready.push_back(List::default());
            }
            if let Some(list) = self.ready.back_mut() {
                list.push(entry, &mut self.spare);
            }
            return;
        }
        // Not zero, since the entry is due later than now.
        let differ = self.now.get() ^ entry.due.get();
        let number = differ.ilog2() as usize / DIGIT_BITS;
        let slot = digit(entry.due.get().into(), number);
        let level = &mut self.levels[number];
        level.taken |= 1 << slot;
        level.slots[slot].push(entry, &mut self.spare);
    }

    fn drop_empty_ready(&mut self) {
        while self.ready.pop_front_if(|list| list.0.is_empty()).is_some() {}
    }
}

fn digit(ticks: u64, level: usize) -> usize {
    (ticks >> (DIGIT_BITS * level)) as usize % SLOTS
}

// === impl Level ===

impl Level {
    /// Notes whether a slot has entries.
    fn note_taken(&mut self, slot: usize) {
        let bit = 1 << slot;
        if self.slots[slot].0.is_empty() {
            self.taken &= !bit;
        } else {
            self.taken |= bit;
        }
    }
}

// === impl List ===

impl List {
    fn push(&mut self, entry: Entry, spare: &mut Spare) {
        match self.0.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(entry),
            _ => {
                let mut chunk = spare.take();
                chunk.push(entry);
                self.0.push_back(chunk);
            }
        }
    }

    fn pop(&mut self, spare: &mut Spare) -> Option<Entry> {
        let chunk = self.0.back_mut()?;
        let entry = chunk.pop();
        if chunk.is_empty() {
            spare.give(self.0.pop_back());
        }
        entry
    }

    fn drain(&mut self, out: &mut Vec<Entry>, max: usize, spare: &mut Spare) {
        out.extend((0..max).map_while(|_| self.pop(spare)));
    }

    /// Sweeps one chunk and sets the index to the next. What is left joins the chunk before, if it
    /// fits: any two neighbours fill a chunk, then, and at most half of the memory is idle. Returns
    /// how many entries were seen and how many of them dropped.
    fn sweep(
        &mut self,
        index: &mut usize,
        keep: impl FnMut(&Entry) -> bool,
        spare: &mut Spare,
    ) -> (usize, usize) {
        let (done, todo) = self.0.make_contiguous().split_at_mut(*index);
        let chunk = &mut todo[0];
        let seen = chunk.len();
        chunk.retain(keep);
        let kept = chunk.len();
        if let Some(before) = done.last_mut()
            && before.len() + kept <= CHUNK
        {
            before.append(chunk);
        }
        if chunk.is_empty() {
            // The last chunk takes its place and is swept next.
            spare.give(self.0.swap_remove_back(*index));
        } else {
            *index += 1;
        }
        (seen, seen - kept)
    }
}

// === impl Spare ===

impl Spare {
    fn take(&mut self) -> Vec<Entry> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn give(&mut self, chunk: Option<Vec<Entry>>) {
        if self.0.len() < SPARE_CHUNKS {
            self.0.extend(chunk);
        }
    }
}

/// Six digits of six bits: more than the 32 bits of a tick, so every time has its slot, even
/// [`Tick::NEVER`].
const LEVELS: usize = 6;
const DIGIT_BITS: usize = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
/// Entries to a chunk: 2.5 KiB, so that a slot with few entries costs little.
const CHUNK: usize = 128;
/// 160 KiB: what draining a slot gives back is mostly used up by the slots it drains into.
const SPARE_CHUNKS: usize = 64;
const START: (usize, usize, usize) = (0, 0, 0);

#[cfg(test)]
mod tests;
