//! Answers on their way to a client that may have stopped reading them.
//!
//! hyper asks for the next part of an answer when the client has taken the one before. An answer that has
//! handed a part on and is not asked for another stands still because of the client, however busy or quiet
//! its backend is.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::{sync::Notify, task::futures::TaskLocalFuture, task_local, time::Instant};

use crate::clock;

/// The unfinished answers of one connection.
#[derive(Debug, Default)]
pub(super) struct Answers(RefCell<Vec<Rc<Progress>>>);

/// How far one answer is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When a part was handed on that the client has not taken yet.
    waits_since: Cell<Option<Instant>>,
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
    /// Tracks the answer that this task is about to give.
    pub(super) fn track(self: &Rc<Self>) -> Tracked {
        let progress = STREAM.try_with(Rc::clone).unwrap_or_default();
        self.0.borrow_mut().push(Rc::clone(&progress));
        Tracked { answers: Rc::clone(self), progress }
    }

    /// Ends the streams whose client has taken nothing for `limit`; whether there was any, which over
    /// HTTP/1.1 means that the connection has to end.
    pub(super) fn cut_stalled(&self, now: Instant, limit: Duration) -> bool {
        let mut any = false;
        for progress in self.0.borrow().iter() {
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
        self.progress.waits_since.set(None);
    }

    /// The client is given a part.
    pub(super) fn handed(&self) {
        self.progress.waits_since.set(Some(clock::now()));
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let mut list = self.answers.0.borrow_mut();
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
        answer.handed();
        assert!(!answers.cut_stalled(clock::now() + LIMIT / 2, LIMIT));
        assert!(answers.cut_stalled(clock::now() + LIMIT, LIMIT));
        answer.taken();
        assert!(!answers.cut_stalled(clock::now() + LIMIT, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_stream_is_dropped_and_others_go_on() {
        let answers = Rc::new(Answers::default());
        let stalled = stream({
            let answers = Rc::clone(&answers);
            async move {
                let answer = answers.track();
                answer.handed();
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
