//! A future that is polled only when somebody has woken it: a connection is polled for every read and write, and what
//! watches over it waits for timers that are minutes away.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// A future with a waker of its own.
#[derive(Debug)]
pub(super) struct Gate<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

#[derive(Debug)]
struct Bell {
    /// Whether it was woken since it was polled last.
    rung: AtomicBool,
    /// Wakes the task that it is part of.
    task: AtomicWaker,
}

// === impl Gate ===

impl<F: Future + Unpin> Gate<F> {
    pub(super) fn new(future: F) -> Self {
        // The first poll is for nothing else than to be asked.
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future, waker: Waker::from(Arc::clone(&bell)), bell }
    }
}

impl<F: Future + Unpin> Future for Gate<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        // Before the look at the bell: whoever rings it after that wakes this task.
        this.bell.task.register(cx.waker());
        if !this.bell.rung.swap(false, AcqRel) {
            return Poll::Pending;
        }
        Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker))
    }
}

// === impl Bell ===

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, rc::Rc, time::Duration};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_polled_when_it_was_woken_and_not_with_its_neighbours() {
        let polls = Rc::new(Cell::new(0));
        let notify = Rc::new(Notify::new());
        let watched = {
            let (polls, notify) = (Rc::clone(&polls), Rc::clone(&notify));
            async move {
                let mut notified = std::pin::pin!(notify.notified());
                poll_fn(|cx| {
                    polls.set(polls.get() + 1);
                    notified.as_mut().poll(cx)
                })
                .await;
            }
        };
        let mut gate = Gate::new(Box::pin(watched));
        for _ in 0..10 {
            // The neighbour is woken, and the gate polled together with it.
            let neighbour = tokio::time::sleep(Duration::from_secs(1));
            tokio::select! {
                biased;
                () = neighbour => {}
                () = &mut gate => panic!("nobody has woken it"),
            }
        }
        assert_eq!(polls.get(), 1);
        notify.notify_one();
        gate.await;
        assert_eq!(polls.get(), 2);
    }
}
