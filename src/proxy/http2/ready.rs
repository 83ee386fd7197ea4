//! Which streams have something to do: each has a waker of its own, so that a connection polls only those.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// A bit for each place in the table of streams, set by its waker, from whatever thread.
#[derive(Debug)]
pub(super) struct Ready {
    bits: Box<[AtomicU64]>,
    /// Whether the connection is being polled, and will look at the bits before it rests.
    awake: AtomicBool,
    /// Wakes the connection's task.
    task: AtomicWaker,
}

/// Wakes one stream.
struct Place {
    ready: Arc<Ready>,
    place: usize,
}

/// Bits of a word.
const WORD: usize = 64;

// === impl Ready ===

impl Ready {
    /// For so many streams.
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            bits: (0..places.div_ceil(WORD)).map(|_| AtomicU64::new(0)).collect(),
            awake: AtomicBool::new(false),
            task: AtomicWaker::new(),
        })
    }

    /// The waker of this place.
    pub(super) fn waker(self: &Arc<Self>, place: usize) -> Waker {
        Waker::from(Arc::new(Place { ready: Arc::clone(self), place }))
    }

    /// This place has something to do.
    pub(super) fn mark(&self, place: usize) {
        self.bits[place / WORD].fetch_or(1 << (place % WORD), SeqCst);
        if !self.awake.load(SeqCst) {
            self.task.wake();
        }
    }

    /// The connection is polled.
    pub(super) fn rise(&self, cx: &Context<'_>) {
        self.task.register(cx.waker());
        self.awake.store(true, SeqCst);
    }

    /// The connection has nothing more to do; false when a stream has, after all.
    pub(super) fn rest(&self) -> bool {
        // In this order: whoever sets a bit looks at the other afterwards, so that one of the two sees it.
        self.awake.store(false, SeqCst);
        if self.bits.iter().all(|word| word.load(SeqCst) == 0) {
            return true;
        }
        self.awake.store(true, SeqCst);
        false
    }

    /// The connection is not polled on although there may be more to do: others have to be served, too.
    pub(super) fn pause(&self, cx: &Context<'_>) {
        self.awake.store(false, SeqCst);
        cx.waker().wake_by_ref();
    }

    /// Calls `each` with every place that has something to do, and takes its mark away before.
    pub(super) fn take(&self, mut each: impl FnMut(usize)) {
        for (index, word) in self.bits.iter().enumerate() {
            if word.load(SeqCst) == 0 {
                continue;
            }
            let mut bits = word.swap(0, SeqCst);
            while bits != 0 {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                each(index * WORD + bit);
            }
        }
    }
}

// === impl Place ===

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.ready.mark(self.place);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.mark(self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn taken(ready: &Ready) -> Vec<usize> {
        let mut places = Vec::new();
        ready.take(|place| places.push(place));
        places
    }

    #[test]
    fn only_those_that_were_woken_are_polled() {
        let ready = Ready::new(130);
        for place in [129, 0, 64, 0] {
            ready.waker(place).wake();
        }
        assert_eq!(taken(&ready), [0, 64, 129]);
        assert!(taken(&ready).is_empty());
    }

    #[test]
    fn the_task_is_woken_only_while_it_rests() {
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let ready = Ready::new(1);
        ready.rise(&Context::from_waker(&waker));
        ready.waker(0).wake();
        assert_eq!(task.0.load(SeqCst), 0);
        assert!(!ready.rest(), "a stream has something to do");
        assert_eq!(taken(&ready), [0]);
        assert!(ready.rest());
        ready.waker(0).wake();
        ready.waker(0).wake();
        assert_eq!(task.0.load(SeqCst), 1, "once is enough");
    }
}
