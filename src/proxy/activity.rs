//! Whether anything happens on a client connection, and since when not.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use crate::clock;

/// What a connection is doing; written by its input and its requests, read by its watchdog. All on one
/// thread.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    /// Requests between the end of their head and the end of their answer.
    requests: Cell<u32>,
    /// Milliseconds after `opened` at which the head now being read began; [`NONE`] between heads.
    head: Cell<u64>,
    /// Milliseconds after `opened` at which the last request ended.
    last: Cell<u64>,
    /// Whether a request ever came.
    served: Cell<bool>,
    /// Wakes the watchdog when the first one comes.
    first: Notify,
}

/// One request, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Busy(Rc<Activity>);

/// What a watchdog should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Look again then.
    Until(Instant),
    /// Nothing is under way and has not been for long: close with grace.
    Idle,
    /// A head takes too long.
    Late,
}

const NONE: u64 = u64::MAX;

// === impl Activity ===

impl Activity {
    /// A connection that owes its first head from now on.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            opened: clock::now(),
            requests: Cell::new(0),
            head: Cell::new(0),
            last: Cell::new(0),
            served: Cell::new(false),
            first: Notify::new(),
        })
    }

    /// A request's head is whole.
    pub(super) fn request(self: &Rc<Self>) -> Busy {
        self.head.set(NONE);
        self.requests.set(self.requests.get() + 1);
        if !self.served.replace(true) {
            self.first.notify_one();
        }
        Busy(Rc::clone(self))
    }

    /// Whether requests are under way.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.get() > 0
    }

    /// Resolves when the first request has come.
    pub(super) async fn first_request(&self) {
        if !self.served.get() {
            self.first.notified().await;
        }
    }

    /// What a watchdog should do now. `head` is none where input between requests is no head (HTTP/2).
    pub(super) fn watch(&self, now: Instant, head: Option<Duration>, idle: Duration) -> Watch {
        if self.requests.get() > 0 {
            return Watch::Until(now + head.unwrap_or(idle).min(idle));
        }
        let idle_at = self.at(self.last.get()) + idle;
        let begun = self.head.get();
        match head {
            Some(head) if begun != NONE => match self.at(begun) + head {
                deadline if deadline <= now => Watch::Late,
                // The head may be whole by then, and idleness be over sooner.
                deadline => Watch::Until(deadline.min(now + idle)),
            },
            _ if idle_at <= now => Watch::Idle,
            // A head may begin meanwhile, and its deadline come before that of idleness.
            Some(head) => Watch::Until(idle_at.min(now + head)),
            None => Watch::Until(idle_at),
        }
    }

    /// Bytes have come: between requests, they begin a head.
    pub(super) fn input(&self) {
        if self.requests.get() == 0 && self.head.get() == NONE {
            self.head.set(self.elapsed());
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(clock::now().saturating_duration_since(self.opened).as_millis()).unwrap_or(NONE - 1)
    }

    fn at(&self, elapsed: u64) -> Instant {
        self.opened + Duration::from_millis(elapsed)
    }
}

// === impl Busy ===

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.last.set(self.0.elapsed());
        self.0.requests.set(self.0.requests.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Option<Duration> = Some(Duration::from_secs(10));
    const IDLE: Duration = Duration::from_secs(60);

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_sends_a_head_is_late() {
        let activity = Activity::new();
        assert_eq!(
            activity.watch(clock::now(), HEAD, IDLE),
            Watch::Until(clock::now() + Duration::from_secs(10))
        );
        pass(10).await;
        assert_eq!(activity.watch(clock::now(), HEAD, IDLE), Watch::Late);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_is_neither_late_nor_idle() {
        let activity = Activity::new();
        let _busy = activity.request();
        pass(1000).await;
        assert!(matches!(activity.watch(clock::now(), HEAD, IDLE), Watch::Until(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn idleness_begins_when_the_last_request_ends() {
        let activity = Activity::new();
        let busy = activity.request();
        pass(30).await;
        drop(busy);
        pass(59).await;
        assert!(matches!(activity.watch(clock::now(), HEAD, IDLE), Watch::Until(_)));
        pass(1).await;
        assert_eq!(activity.watch(clock::now(), HEAD, IDLE), Watch::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_head_has_its_own_deadline() {
        let activity = Activity::new();
        drop(activity.request());
        pass(5).await;
        activity.input();
        pass(9).await;
        assert!(matches!(activity.watch(clock::now(), HEAD, IDLE), Watch::Until(_)));
        pass(1).await;
        assert_eq!(activity.watch(clock::now(), HEAD, IDLE), Watch::Late);
    }
}
