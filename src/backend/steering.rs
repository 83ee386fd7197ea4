//! What is wanted of a backend: that it drains, until when, or that it rests.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    affinity::{Admin, Member},
    clock,
};

/// The hands on one backend: that of operators, and that of discovery, which drains what has left DNS. Neither
/// undoes what the other wants. Shared by every [`Backend`](super::Backend) that ever had its name, so that it
/// outlives a change of address, and reaches the streams of the one before.
///
/// Invariant: streams are told to go exactly while the member is in maintenance.
#[derive(Debug)]
pub struct Steering {
    /// Held over every change, so that a deadline and the undrain that comes at the same moment do not cross.
    hands: Mutex<Hands>,
    /// Whether open streams have to go.
    evicting: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Hands {
    /// What operators want.
    wanted: Admin,
    /// When a drain of theirs ends in maintenance; none for never, or when it does not drain.
    deadline: Option<Instant>,
    /// Whether its address has left DNS.
    leaving: bool,
}

/// What becomes of a drain that does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// What was said before stays, if it drains already.
    Keep,
    /// It goes on for as long as it takes.
    Never,
    /// It ends in maintenance after this time.
    After(Duration),
}

// === impl Steering ===

impl Default for Steering {
    fn default() -> Self {
        Self { hands: Mutex::default(), evicting: watch::Sender::new(false) }
    }
}

impl Steering {
    /// Time until the drain ends in maintenance; none when no such time is set.
    pub fn deadline_in(&self) -> Option<Duration> {
        self.lock().deadline.map(|deadline| deadline.saturating_duration_since(clock::now()))
    }

    /// What operators want of it.
    pub fn wanted(&self) -> Admin {
        self.lock().wanted
    }

    /// Whether its address has left DNS, so that it drains whatever operators want.
    pub fn is_leaving(&self) -> bool {
        self.lock().leaving
    }

    /// Resolves when streams that are open at this backend have to go; at once when they already have to.
    pub async fn evicted(&self) {
        let mut evicting = self.evicting.subscribe();
        // The sender cannot be gone: it is borrowed.
        let _ = evicting.wait_for(|evicting| *evicting).await;
    }

    pub(super) fn set(&self, member: &Member, admin: Admin, deadline: Deadline) {
        let mut hands = self.lock();
        match deadline {
            Deadline::Keep => {}
            Deadline::Never => hands.deadline = None,
            Deadline::After(time) => hands.deadline = Some(clock::now() + time),
        }
        hands.wanted = admin;
        self.apply(member, &hands);
    }

    /// Its address has left DNS, or is there again; whether that is news.
    pub(super) fn set_leaving(&self, member: &Member, leaving: bool) -> bool {
        let mut hands = self.lock();
        let changed = hands.leaving != leaving;
        hands.leaving = leaving;
        self.apply(member, &hands);
        changed
    }

    /// Puts the member into maintenance if the deadline of its drain has passed; whether it did.
    pub(super) fn expire(&self, member: &Member, now: Instant) -> bool {
        let mut hands = self.lock();
        let due = hands.deadline.is_some_and(|deadline| deadline <= now);
        if due {
            hands.deadline = None;
            hands.wanted = Admin::Maintenance;
            self.apply(member, &hands);
        }
        due
    }

    fn apply(&self, member: &Member, hands: &Hands) {
        let admin = match hands.wanted {
            Admin::Ready if hands.leaving => Admin::Draining,
            wanted => wanted,
        };
        member.set_admin(admin, clock::tick());
        self.evicting.send_replace(admin == Admin::Maintenance);
    }

    fn lock(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;
    use crate::affinity::{Affinity, Tick};

    const MINUTE: Duration = Duration::from_secs(60);

    fn member() -> Arc<Member> {
        let affinity = Affinity::new(Tick::ZERO);
        Arc::clone(&affinity.roster(&[("app-1", 1)], MINUTE, Tick::ZERO).members()[0])
    }

    fn is_evicted(steering: &Steering) -> bool {
        steering.evicted().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_in_maintenance_when_its_deadline_has_passed() {
        let (member, steering) = (member(), Steering::default());
        steering.set(&member, Admin::Draining, Deadline::After(MINUTE));
        advance(MINUTE / 2).await;
        assert!(!steering.expire(&member, clock::now()));
        assert_eq!(steering.deadline_in(), Some(MINUTE / 2));
        assert!(!is_evicted(&steering));
        advance(MINUTE / 2).await;
        assert!(steering.expire(&member, clock::now()));
        assert_eq!((member.admin(), steering.deadline_in()), (Admin::Maintenance, None));
        assert!(is_evicted(&steering), "also for a stream that opened too late to hear of it");
        assert!(!steering.expire(&member, clock::now()), "once");
    }

    #[test]
    fn neither_hand_undoes_what_the_other_wants() {
        let (member, steering) = (member(), Steering::default());
        assert!(steering.set_leaving(&member, true));
        assert_eq!(member.admin(), Admin::Draining);
        steering.set(&member, Admin::Ready, Deadline::Never);
        assert_eq!(member.admin(), Admin::Draining, "it has still left DNS");
        steering.set(&member, Admin::Draining, Deadline::Never);
        assert!(steering.set_leaving(&member, false));
        assert_eq!(member.admin(), Admin::Draining, "an operator wants it");
        steering.set(&member, Admin::Ready, Deadline::Never);
        assert_eq!(member.admin(), Admin::Ready);
        assert!(!steering.set_leaving(&member, false), "no news");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_with_its_drain() {
        let (member, steering) = (member(), Steering::default());
        steering.set(&member, Admin::Draining, Deadline::After(MINUTE));
        steering.set(&member, Admin::Ready, Deadline::Never);
        advance(MINUTE).await;
        assert!(!steering.expire(&member, clock::now()));
        assert_eq!(member.admin(), Admin::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn open_streams_are_told_when_maintenance_begins() {
        let (member, steering) = (member(), Arc::new(Steering::default()));
        let stream = Arc::clone(&steering);
        let told = tokio::spawn(async move { stream.evicted().await });
        tokio::task::yield_now().await;
        assert!(!told.is_finished());
        steering.set(&member, Admin::Maintenance, Deadline::Never);
        told.await.unwrap();
        steering.set(&member, Admin::Ready, Deadline::Never);
        assert!(!is_evicted(&steering), "it may have streams again");
    }
}
