//! The books: how many sessions each backend has, and what became of the others.
//!
//! One lock over all of it, held for a few additions, so that every reading is consistent:
//! the sum of live and retained over backends is `entries`, and `learned + restored - ended` is that sum.
//! A change of a binding and its entry in the books happen under the lock of the binding's shard.
//!
//! A backend that restarts, or is removed from its pool, ends all its sessions at once here, in O(1). Their
//! bindings stay in the table as *ghosts*, which nobody counts, so that the next request of each still
//! finds out why it moves. Those of a backend that left are counted again when it comes back; ghosts never
//! are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    EndReason, Member, MoveReason, Slot, Tick,
    table::{Binding, Flags, Home},
};

#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By slot.
    books: Vec<Book>,
    totals: Totals,
}

/// Sums over all backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) entries: u64,
    pub(super) learned: u64,
    pub(super) restored: u64,
    pub(super) renamed: u64,
    /// On backends that are forgotten since, too.
    pub(super) ended: u64,
}

/// One backend's books.
#[derive(Clone, Debug)]
pub(super) struct Book {
    pub(super) member: Arc<Member>,
    /// Bindings of the current generation.
    pub(super) live: u64,
    pub(super) retained: u64,
    /// Bindings of earlier generations that are still in the table.
    ghosts: u64,
    pub(super) moved: [u64; MoveReason::ALL.len()],
    pub(super) ended: [u64; EndReason::ALL.len()],
    /// Not in the configuration: what is above is kept up to date, but counts nowhere.
    pub(super) retired: bool,
}

// === impl Ledger ===

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the books of a backend, which `make` makes for a slot and a first generation: those of a
    /// backend that left and has no binding any more, if there is one, whose member is returned as well.
    pub(super) fn open(
        &self,
        make: impl FnOnce(Slot, u16) -> Arc<Member>,
    ) -> (Arc<Member>, Option<Arc<Member>>) {
        let mut state = self.lock();
        if let Some(book) = state.books.iter_mut().find(|book| book.is_vacant()) {
            // Whoever still knows the earlier member, knows its generation.
            let generation = book.member.generation().wrapping_add(1);
            let member = make(book.member.slot(), generation);
            let earlier = std::mem::replace(book, Book::new(Arc::clone(&member)));
            return (member, Some(earlier.member));
        }
        let slot = u16::try_from(state.books.len()).expect("fewer than 65,536 backends with sessions");
        let member = make(Slot::new(slot), 0);
        state.books.push(Book::new(Arc::clone(&member)));
        (member, None)
    }

    /// Books a new session; false when its home has another generation by now.
    pub(super) fn learned(&self, home: Home, now: Tick) -> bool {
        let mut state = self.lock();
        let Some(book) = state.book(home) else { return false };
        book.add(now);
        // Of a backend that has just left the configuration: kept in mind, counted nowhere.
        if !book.retired {
            state.totals.entries += 1;
            state.totals.learned += 1;
        }
        true
    }

    /// Books a session that comes from outside the process; false when its home has another generation by
    /// now.
    pub(super) fn adopted(&self, home: Home, retained: bool, last_seen: Tick) -> bool {
        let mut state = self.lock();
        let Some(book) = state.book(home) else { return false };
        if retained {
            book.retained += 1;
            book.publish();
        } else {
            book.add(last_seen);
        }
        if !book.retired {
            state.totals.entries += 1;
            state.totals.restored += 1;
        }
        true
    }

    /// The member of this slot.
    pub(super) fn member(&self, slot: Slot) -> Option<Arc<Member>> {
        self.lock().books.get(usize::from(slot.get())).map(|book| Arc::clone(&book.member))
    }

    /// Backends that are not configured, but have sessions.
    pub(super) fn retired(&self) -> usize {
        self.lock().books.iter().filter(|book| book.retired && !book.is_vacant()).count()
    }

    /// Books live → retained or back; false for a ghost.
    pub(super) fn turned(&self, home: Home, retained: bool, last_seen: Tick) -> bool {
        let mut state = self.lock();
        let Some(book) = state.book(home) else { return false };
        if retained {
            book.take_live(last_seen);
            book.retained += 1;
        } else {
            book.retained -= 1;
            book.live += 1;
            book.member.recency().enter(last_seen);
        }
        book.publish();
        true
    }

    /// Books that a session left the table; false when it is not counted any more: it is a ghost, or its
    /// backend left before.
    pub(super) fn ended(&self, was: &Binding, reason: EndReason) -> bool {
        let mut state = self.lock();
        let Some(book) = state.book(was.home) else {
            state.exorcise(was.home);
            return false;
        };
        book.take(was);
        if book.retired {
            return false;
        }
        book.ended[reason as usize] += 1;
        state.totals.entries -= 1;
        state.totals.ended += 1;
        true
    }

    /// Books the move of a session, which is live and last seen `at` from then on; false when its new home
    /// has another generation by now, and nothing is booked.
    pub(super) fn moved(&self, was: &Binding, to: Home, reason: MoveReason, at: Tick) -> bool {
        let from = was.home;
        let mut state = self.lock();
        if state.book(to).is_none() {
            return false;
        }
        let counted = match state.book(from) {
            Some(book) => {
                book.take(was);
                !book.retired
            }
            None => {
                state.exorcise(from);
                false
            }
        };
        if let Some(book) = state.books.get_mut(usize::from(from.slot.get())) {
            book.moved[reason as usize] += 1;
        }
        let Some(book) = state.book(to) else { return false };
        book.add(at);
        let counts = !book.retired;
        match (counted, counts) {
            // It had been booked as ended: it begins anew.
            (false, true) => {
                state.totals.entries += 1;
                state.totals.learned += 1;
            }
            (true, false) => {
                book.ended[EndReason::Removed as usize] += 1;
                state.totals.entries -= 1;
                state.totals.ended += 1;
            }
            _ => {}
        }
        true
    }

    /// Books that a session is known by another key from now on, live, and last seen `at`; false for a
    /// ghost.
    pub(super) fn renamed(&self, was: &Binding, at: Tick) -> bool {
        let mut state = self.lock();
        let Some(book) = state.book(was.home) else { return false };
        book.take(was);
        book.add(at);
        state.totals.renamed += 1;
        true
    }

    /// Another instance answers under this name: all its sessions have ended.
    pub(super) fn restarted(&self, slot: Slot, now: Tick) {
        let mut state = self.lock();
        let Some(book) = state.books.get_mut(usize::from(slot.get())) else { return };
        book.member.bump_generation(now);
        let ended = book.live + book.retained;
        (book.live, book.retained) = (0, 0);
        book.ghosts += ended;
        book.member.recency().clear();
        book.publish();
        if !book.retired {
            book.ended[EndReason::Restarted as usize] += ended;
            state.totals.entries -= ended;
            state.totals.ended += ended;
        }
    }

    /// The backend left the configuration (`true`) or came back.
    pub(super) fn retire(&self, slot: Slot, retired: bool) {
        let mut state = self.lock();
        let Some(book) = state.books.get_mut(usize::from(slot.get())) else { return };
        if book.retired == retired {
            return;
        }
        book.retired = retired;
        let count = book.live + book.retained;
        if retired {
            book.ended[EndReason::Removed as usize] += count;
            state.totals.entries -= count;
            state.totals.ended += count;
        } else {
            state.totals.entries += count;
            state.totals.restored += count;
        }
    }

    /// Counts a live session seen again; it was last seen `before`.
    pub(super) fn touched(&self, home: Home, before: Tick, now: Tick) {
        if let Some(book) = self.lock().book(home) {
            book.member.recency().touch(before, now);
        }
    }

    /// Whether this very instance is the backend's current one.
    pub(super) fn knows(&self, home: Home) -> bool {
        self.lock().book(home).is_some()
    }

    /// Whether a session that lives here is counted: its backend is configured and remembers it.
    pub(super) fn counts(&self, home: Home) -> bool {
        self.lock().book(home).is_some_and(|book| !book.retired)
    }

    /// Whether any bindings in the table are not counted.
    pub(super) fn has_uncounted(&self) -> bool {
        self.lock()
            .books
            .iter()
            .any(|book| book.ghosts > 0 || (book.retired && book.live + book.retained > 0))
    }

    /// One consistent reading.
    pub(super) fn read(&self) -> (Totals, Vec<Book>) {
        let state = self.lock();
        (state.totals, state.books.clone())
    }
}

// === impl State ===

impl State {
    /// The books of this very instance; none for a ghost's home.
    fn book(&mut self, home: Home) -> Option<&mut Book> {
        let book = self.books.get_mut(usize::from(home.slot.get()))?;
        (book.member.generation() == home.generation).then_some(book)
    }

    /// A ghost left the table, or lives again.
    fn exorcise(&mut self, home: Home) {
        if let Some(book) = self.books.get_mut(usize::from(home.slot.get())) {
            book.ghosts -= 1;
        }
    }
}

// === impl Book ===

impl Book {
    fn new(member: Arc<Member>) -> Self {
        Self {
            member,
            live: 0,
            retained: 0,
            ghosts: 0,
            moved: Default::default(),
            ended: Default::default(),
            retired: false,
        }
    }

    /// Whether nothing in the table points here any more.
    const fn is_vacant(&self) -> bool {
        self.retired && self.live == 0 && self.retained == 0 && self.ghosts == 0
    }

    fn add(&mut self, last_seen: Tick) {
        self.live += 1;
        self.member.recency().enter(last_seen);
        self.publish();
    }

    fn take(&mut self, was: &Binding) {
        if was.flags.has(Flags::RETAINED) {
            self.retained -= 1;
        } else {
            self.take_live(was.last_seen());
        }
        self.publish();
    }

    fn take_live(&mut self, last_seen: Tick) {
        self.live -= 1;
        if self.live == 0 {
            // Whatever went astray there among threads is over.
            self.member.recency().clear();
        } else {
            self.member.recency().leave(last_seen);
        }
    }

    /// Placement reads the counts without a lock.
    fn publish(&self) {
        self.member.set_sessions(self.live, self.retained);
    }
}
