//! Answers on their way to a client that may have stopped reading them.
//!
//! hyper asks for the next part of an answer when the client has taken the one before. An answer that has
//! handed a part on and is not asked for another stands still because of the client, however busy or quiet
//! its backend is; one that is taken in small bites is held to a pace.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::{sync::Notify, task::futures::TaskLocalFuture, task_local, time::Instant};

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
    /// When a part was handed on that the client has not taken yet.
    waits_since: Cell<Option<Instant>>,
    /// How long it may still be waited for the client, where a pace is asked for.
    left: Cell<Duration>,
    /// Ends the stream; only HTTP/2 has one to end.
    cut: Notify,
}

/// One answer, tracked until it is dropped.
#[derive(Debug)]
pub(super) struct Tracked {
    answers: Rc<Answers>,
    progress: Rc<Progress>,
}

task_local! {
    /// The HTTP/2 stream that this task serves.
    static STREAM: Rc<Progress>;
}

/// Runs what serves one HTTP/2 stream; dropping it resets the stream.
pub(super) fn stream(future: impl Future) -> TaskLocalFuture<Rc<Progress>, impl Future<Output = ()>> {
    let progress = Rc::new(Progress::default());
    STREAM.scope(Rc::clone(&progress), async move {
        tokio::select! {
            _ = future => {}
            () = progress.cut.notified() => {}
        }
    })
}

// === impl Answers ===

impl Answers {
    /// None yet; their client is held to this pace.
    pub(super) fn new(pace: Option<Pace>) -> Self {
        Self { list: RefCell::default(), pace }
    }

    /// Tracks the answer that this task is about to give.
    pub(super) fn track(self: &Rc<Self>) -> Tracked {
        let progress = STREAM.try_with(Rc::clone).unwrap_or_default();
        progress.left.set(self.pace.map_or(Duration::ZERO, Pace::grace));
        self.list.borrow_mut().push(Rc::clone(&progress));
        Tracked { answers: Rc::clone(self), progress }
    }

    /// Ends the streams whose client has taken nothing for `limit`, or too little for too long; whether there was
    /// any, which over HTTP/1.1 means that the connection has to end.
    pub(super) fn cut_stalled(&self, now: Instant, limit: Duration) -> bool {
        let mut any = false;
        for progress in self.list.borrow().iter() {
            let limit = if self.pace.is_some() { limit.min(progress.left.get()) } else { limit };
            if progress.waits_since.get().is_some_and(|since| now.saturating_duration_since(since) >= limit) {
                progress.cut.notify_one();
                any = true;
            }
        }
        any
    }
}

// === impl Tracked ===

impl Tracked {
    /// The client took what it was given, and asks for more.
    pub(super) fn taken(&self) {
        let since = self.progress.waits_since.take();
        if let (Some(since), Some(_)) = (since, self.answers.pace) {
            let waited = clock::now().saturating_duration_since(since);
            self.progress.left.set(self.progress.left.get().saturating_sub(waited));
        }
    }

    /// The client is given a part of so many bytes.
    pub(super) fn handed(&self, bytes: usize) {
        if let Some(pace) = self.answers.pace {
            self.progress.left.set(pace.after(self.progress.left.get(), bytes));
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
    async fn a_stalled_stream_is_dropped_and_others_go_on() {
        let answers = Rc::new(Answers::default());
        let stalled = stream({
            let answers = Rc::clone(&answers);
            async move {
                let answer = answers.track();
                answer.handed(1);
                std::future::pending::<()>().await;
            }
        });
        let local = tokio::task::LocalSet::new();
        let task = local.spawn_local(stalled);
        local.run_until(tokio::task::yield_now()).await;
        assert!(answers.cut_stalled(clock::now() + LIMIT, LIMIT));
        local.run_until(task).await.unwrap();
        assert!(!answers.cut_stalled(clock::now() + LIMIT, LIMIT), "it is tracked no more");
    }
}
