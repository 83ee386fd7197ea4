//! When a body stands still.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep_until};

use crate::clock;

/// A deadline that moves with every sign of progress, told at the latest one limit too late.
#[derive(Debug)]
pub(super) struct Stall {
    limit: Option<Duration>,
    /// Made when something first waits, and kept: most bodies wait often, and few for long.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether something moved since the timer was set.
    moved: bool,
}

// === impl Stall ===

impl Stall {
    /// A deadline of `limit` from the last progress; never when none.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, timer: None, moved: false }
    }

    /// Something moved.
    pub(super) fn progress(&mut self) {
        self.moved = true;
    }

    /// Nothing moved: ready when that has been so for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(clock::now() + limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if !std::mem::take(&mut self.moved) {
                return Poll::Ready(());
            }
            timer.as_mut().reset(clock::now() + limit);
        }
    }
}
