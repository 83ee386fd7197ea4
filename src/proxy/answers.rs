//! Answers on their way to a client that may have stopped reading them.
//!
//! The next part of an answer is asked for when the client has taken the one before. An answer that has
//! handed a part on and is not asked for another stands still because of the client, however busy or quiet
//! its backend is; one that is taken in small bites is held to a pace.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use super::pace::Pace;
use crate::clock;

/// The unfinished answers of one connection.
#[derive(Debug, Default)]
pub(super) struct Answers {
    list: RefCell<Vec<Rc<Progress>>>,
    pace: Option<Pace>,
}

/// How far one answer is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Whether it stands for a connection with all its answers.
    connection: bool,
    /// When a part was handed on that the client has not taken yet.
    waits_since: Cell<Option<Instant>>,
    /// How long it may still be waited for the client, where a pace is asked for.
    left: Cell<Option<Duration>>,
    /// Whether it has been waited for long enough.
    cut: Cell<bool>,
    /// Woken then; only HTTP/2 can end one answer alone.
    stream: RefCell<Option<Waker>>,
}

/// One answer, tracked until it is dropped.
#[derive(Debug)]
pub(super) struct Tracked {
    answers: Rc<Answers>,
    progress: Rc<Progress>,
    pace: Option<Pace>,
}

// === impl Answers ===

impl Answers {
    /// None yet; their client is held to this pace.
    pub(super) fn new(pace: Option<Pace>) -> Self {
        Self { list: RefCell::default(), pace }
    }

    /// Tracks an answer that is about to be given.
    pub(super) fn track(self: &Rc<Self>) -> Tracked {
        self.watch(self.pace, false)
    }

    /// Tracks a connection that has answers waiting: its client may take them as slowly as each allows, but not stop.
    pub(super) fn track_connection(self: &Rc<Self>) -> Tracked {
        self.watch(None, true)
    }

    fn watch(self: &Rc<Self>, pace: Option<Pace>, connection: bool) -> Tracked {
        let progress = Rc::new(Progress { connection, ..Progress::default() });
        progress.left.set(pace.map(Pace::grace));
        self.list.borrow_mut().push(Rc::clone(&progress));
        Tracked { answers: Rc::clone(self), progress, pace }
    }

    /// Ends the streams whose client has taken nothing for `limit`, or too little for too long; whether there was
    /// any, which over HTTP/1.1 means that the connection has to end.
    pub(super) fn cut_stalled(&self, now: Instant, limit: Duration) -> bool {
        let mut any = false;
        for progress in self.list.borrow().iter() {
            let limit = progress.left.get().map_or(limit, |left| limit.min(left));
            if progress.waits_since.get().is_some_and(|since| now.saturating_duration_since(since) >= limit) {
                progress.end();
                any = true;
            }
        }
        any
    }

    /// Ends every stream that is answering; the connection stays.
    pub(super) fn cut_all(&self) {
        self.list.borrow().iter().filter(|progress| !progress.connection).for_each(|progress| progress.end());
    }
}

// === impl Progress ===

impl Progress {
    /// Whether the client has taken too little for too long.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    fn end(&self) {
        self.cut.set(true);
        if let Some(stream) = self.stream.take() {
            stream.wake();
        }
    }

    /// Wakes this when it has.
    pub(super) fn tell(&self, stream: &Waker) {
        self.stream.replace(Some(stream.clone()));
    }
}

// === impl Tracked ===

impl Tracked {
    /// How far it is.
    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }

    /// The client took what it was given, and asks for more.
    pub(super) fn taken(&self) {
        let since = self.progress.waits_since.take();
        if let (Some(since), Some(left)) = (since, self.progress.left.get()) {
            let waited = clock::now().saturating_duration_since(since);
            self.progress.left.set(Some(left.saturating_sub(waited)));
        }
    }

    /// The client is given a part of so many bytes.
    pub(super) fn handed(&self, bytes: usize) {
        if let (Some(pace), Some(left)) = (self.pace, self.progress.left.get()) {
            self.progress.left.set(Some(pace.after(left, bytes)));
        }
        self.progress.waits_since.set(Some(clock::now()));
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let mut list = self.answers.list.borrow_mut();
        if let Some(index) = list.iter().position(|progress| Rc::ptr_eq(progress, &self.progress)) {
            list.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_answer_stands_still_when_its_client_takes_nothing() {
        let answers = Rc::new(Answers::default());
        let answer = answers.track();
        assert!(!answers.cut_stalled(clock::now() + LIMIT, LIMIT), "a quiet backend is no stalled client");
        answer.handed(1);
        assert!(!answers.cut_stalled(clock::now() + LIMIT / 2, LIMIT));
        assert!(answers.cut_stalled(clock::now() + LIMIT, LIMIT));
        answer.taken();
        assert!(!answers.cut_stalled(clock::now() + LIMIT, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_in_small_bites_is_cut_when_its_grace_is_used_up() {
        let pace = Some(Pace::new(64, Duration::from_secs(30)));
        for (bytes, cut) in [(10, true), (2000, false)] {
            let answers = Rc::new(Answers::new(pace));
            let answer = answers.track();
            let mut was_cut = false;
            for _ in 0..20 {
                answer.handed(bytes);
                tokio::time::advance(Duration::from_secs(10)).await;
                was_cut |= answers.cut_stalled(clock::now(), LIMIT);
                answer.taken();
                // The backend's time, however long.
                tokio::time::advance(Duration::from_secs(100)).await;
                assert!(!answers.cut_stalled(clock::now(), LIMIT));
            }
            assert_eq!(was_cut, cut, "{bytes} bytes in ten seconds");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_serves_a_stalled_answer_is_woken() {
        let answers = Rc::new(Answers::default());
        let (stalled, other) = (answers.track(), answers.track());
        let woken = Arc::new(Woken::default());
        for answer in [&stalled, &other] {
            answer.progress().tell(&Waker::from(Arc::clone(&woken)));
        }
        stalled.handed(1);
        assert!(answers.cut_stalled(clock::now() + LIMIT, LIMIT));
        assert!(stalled.progress().is_cut() && !other.progress().is_cut());
        assert_eq!(woken.0.load(Relaxed), 1);
        drop(stalled);
        assert!(!answers.cut_stalled(clock::now() + LIMIT, LIMIT), "it is tracked no more");
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
}
