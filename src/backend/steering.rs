//! What operators want of a backend: that it drains, until when, or that it rests.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    affinity::{Admin, Member},
    clock,
};

/// An operator's hand on one backend. Shared by every [`Backend`](super::Backend) that ever had its name, so
/// that it outlives a change of address, and reaches the streams of the one before.
///
/// Invariant: streams are told to go exactly while the member is in maintenance.
#[derive(Debug)]
pub struct Steering {
    /// When a drain ends in maintenance; none for never, or when it does not drain. Held over every change,
    /// so that a deadline and the undrain that comes at the same moment do not cross.
    deadline: Mutex<Option<Instant>>,
    /// Whether open streams have to go.
    evicting: watch::Sender<bool>,
}

// === impl Steering ===

impl Default for Steering {
    fn default() -> Self {
        Self { deadline: Mutex::default(), evicting: watch::Sender::new(false) }
    }
}

impl Steering {
    /// Time until the drain ends in maintenance; none when no such time is set.
    pub fn deadline_in(&self) -> Option<Duration> {
        self.lock().map(|deadline| deadline.saturating_duration_since(clock::now()))
    }

    /// Resolves when streams that are open at this backend have to go; at once when they already have to.
    pub async fn evicted(&self) {
        let mut evicting = self.evicting.subscribe();
        // The sender cannot be gone: it is borrowed.
        let _ = evicting.wait_for(|evicting| *evicting).await;
    }

    pub(super) fn set(&self, member: &Member, admin: Admin, deadline: Option<Duration>) {
        let mut held = self.lock();
        *held = deadline.map(|deadline| clock::now() + deadline);
        self.apply(member, admin);
    }

    /// Puts the member into maintenance if the deadline of its drain has passed; whether it did.
    pub(super) fn expire(&self, member: &Member, now: Instant) -> bool {
        let mut held = self.lock();
        let due = held.is_some_and(|deadline| deadline <= now);
        if due {
            *held = None;
            self.apply(member, Admin::Maintenance);
        }
        due
    }

    fn apply(&self, member: &Member, admin: Admin) {
        member.set_admin(admin, clock::tick());
        self.evicting.send_replace(admin == Admin::Maintenance);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
