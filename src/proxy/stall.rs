//! When a body stands still, or trickles.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::pace::Pace;
use crate::{
    clock,
    config::{Edge, Timeouts},
};

/// A deadline that moves with every sign of progress, told at the latest one limit too late; and, where a pace is
/// asked for, one that moves with every byte.
#[derive(Debug)]
pub(super) struct Stall {
    limit: Option<Duration>,
    /// Made when something first waits, and kept: most bodies wait often, and few for long.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether something moved since the timer was set.
    moved: bool,
    /// The pace, and how long it still may be waited.
    pace: Option<(Pace, Duration)>,
    /// Since when it is waited; kept only for the pace, which needs to be exact.
    since: Option<Instant>,
}

// === impl Stall ===

impl Stall {
    /// A deadline of `limit` from the last progress; never when none.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, timer: None, moved: false, pace: None, since: None }
    }

    /// For what a client brings, at the pace that is asked of it.
    pub(super) fn of_client(timeouts: &Timeouts, edge: &Edge) -> Self {
        let pace = Pace::of(timeouts, edge).map(|pace| (pace, pace.grace()));
        Self { pace, ..Self::new(Some(timeouts.body)) }
    }

    /// Something moved.
    pub(super) fn progress(&mut self) {
        self.moved = true;
        if let (Some((_, left)), Some(since)) = (&mut self.pace, self.since.take()) {
            *left = left.saturating_sub(clock::now().saturating_duration_since(since));
        }
    }

    /// So many bytes came.
    pub(super) fn came(&mut self, bytes: usize) {
        if let Some((pace, left)) = &mut self.pace {
            *left = pace.after(*left, bytes);
        }
    }

    /// Nothing moved: ready when that has been so for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        if let Some((_, left)) = self.pace {
            let deadline = *self.since.get_or_insert_with(clock::now) + limit.min(left);
            return self.wait(deadline, cx);
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(clock::now() + limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if !std::mem::take(&mut self.moved) {
                return Poll::Ready(());
            }
            timer.as_mut().reset(clock::now() + limit);
        }
    }

    /// Waits until then; a timer that was set for an earlier time is let run out first.
    fn wait(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if timer.deadline() > deadline || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if clock::now() >= deadline {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, num::NonZeroUsize};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn edge(min_rate: u32) -> Edge {
        Edge {
            connections_per_address: None,
            requests: NonZeroUsize::MIN,
            requests_per_connection: None,
            rate: None,
            min_rate,
        }
    }

    fn stall(min_rate: u32) -> Stall {
        let seconds = Duration::from_secs;
        let timeouts = Timeouts {
            handshake: seconds(1),
            head: seconds(1),
            idle: seconds(1),
            body: LIMIT,
            handover_drain: seconds(1),
            drain: seconds(1),
            websocket: seconds(1),
        };
        Stall::of_client(&timeouts, &edge(min_rate))
    }

    /// Brings so many bytes every `pause` seconds; the seconds until it was cut, 10,000 when it was not.
    async fn cut_after(mut stall: Stall, bytes: usize, pause: u64) -> u64 {
        let began = clock::now();
        while clock::now() - began < Duration::from_secs(10_000) {
            let wait = poll_fn(|cx| stall.poll(cx));
            if tokio::time::timeout(Duration::from_secs(pause), wait).await.is_ok() {
                break;
            }
            stall.progress();
            stall.came(bytes);
        }
        (clock::now() - began).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_still_is_cut_at_the_limit() {
        assert_eq!(cut_after(stall(0), 1, 1000).await, 60);
        assert_eq!(cut_after(stall(64), 1, 1000).await, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn what_trickles_is_cut_when_its_grace_is_used_up() {
        assert!((60..=61).contains(&cut_after(stall(64), 1, 10).await));
        assert_eq!(cut_after(stall(0), 1, 10).await, 10_000, "no pace is asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_fast_enough_is_not_cut() {
        assert_eq!(cut_after(stall(64), 640, 10).await, 10_000);
        assert_eq!(cut_after(stall(64), 1 << 20, 50).await, 10_000, "in large pieces, too");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waits_for_the_client_does_not_count() {
        let mut stall = stall(64);
        for _ in 0..100 {
            let wait = poll_fn(|cx| stall.poll(cx));
            assert!(tokio::time::timeout(Duration::from_millis(10), wait).await.is_err());
            stall.progress();
            stall.came(1);
            // A slow backend.
            tokio::time::sleep(Duration::from_secs(45)).await;
        }
    }
}
