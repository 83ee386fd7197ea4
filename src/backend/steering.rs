//! What is wanted of a backend: that it drains, until when, or that it rests.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    affinity::{Admin, Left, Member},
    clock,
};

/// The hands on one backend: that of operators, and that of the reloader, which drains what has left. Neither
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
    /// Whether its address has left DNS, or it has left the configuration.
    leaving: bool,
    /// What the end of the drain cost, if anything was left then.
    cut: Option<Cut>,
    /// Sessions that had moved away because it was down, when the drain began.
    moved_before: u64,
}

/// A drain that ended before everything had left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What ended it.
    pub by: CutBy,
    /// What was left at that moment.
    pub left: Left,
}

/// What ends a drain before everything has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutBy {
    /// Its deadline.
    Deadline,
    /// An operator who took the backend out at once.
    Maintenance,
    /// A restart of the backend, which lost its sessions.
    Restarted,
    /// The backend left the configuration.
    Removed,
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

    /// Whether its address has left DNS, or it has left the configuration, so that it drains whatever operators want.
    pub fn is_leaving(&self) -> bool {
        self.lock().leaving
    }

    /// Resolves when streams that are open at this backend have to go; at once when they already have to.
    pub async fn evicted(&self) {
        let mut evicting = self.evicting.subscribe();
        // The sender cannot be gone: it is borrowed.
        let _ = evicting.wait_for(|evicting| *evicting).await;
    }

    /// What the end of the latest drain cost, if it cost anything.
    pub fn cut(&self) -> Option<Cut> {
        self.lock().cut
    }

    /// Sessions that had moved away because the backend was down, when its drain began.
    pub fn moved_before(&self) -> u64 {
        self.lock().moved_before
    }

    /// A drain begins, or goes on with another deadline; `moved_before` counts if it begins.
    pub(super) fn drain(&self, member: &Member, deadline: Deadline, moved_before: u64) {
        let mut hands = self.lock();
        if hands.wanted != Admin::Draining {
            (hands.cut, hands.moved_before) = (None, moved_before);
        }
        hands.want(Admin::Draining, deadline);
        self.apply(member, &hands);
    }

    /// It serves as if no operator had asked for anything.
    pub(super) fn ready(&self, member: &Member) {
        let mut hands = self.lock();
        hands.cut = None;
        hands.want(Admin::Ready, Deadline::Never);
        self.apply(member, &hands);
    }

    /// It serves nothing from now on, whatever is `left` there.
    pub(super) fn maintain(&self, member: &Member, left: Left) {
        let mut hands = self.lock();
        if hands.wanted != Admin::Maintenance {
            hands.cut(CutBy::Maintenance, left);
        }
        hands.want(Admin::Maintenance, Deadline::Never);
        self.apply(member, &hands);
    }

    /// If it drains: the drain has cost this much.
    pub(super) fn cut_short(&self, by: CutBy, left: Left) {
        let mut hands = self.lock();
        if hands.wanted == Admin::Draining || hands.leaving || by == CutBy::Removed {
            hands.cut(by, left);
        }
    }

    /// It has left, or is there again; whether that is news.
    pub(super) fn set_leaving(&self, member: &Member, leaving: bool) -> bool {
        let mut hands = self.lock();
        let changed = hands.leaving != leaving;
        hands.leaving = leaving;
        self.apply(member, &hands);
        changed
    }

    /// Puts the member into maintenance if the deadline of its drain has passed, whatever is `left` there; whether
    /// it did.
    pub(super) fn expire(&self, member: &Member, now: Instant, left: impl FnOnce() -> Left) -> bool {
        let mut hands = self.lock();
        let due = hands.deadline.is_some_and(|deadline| deadline <= now);
        if due {
            hands.cut(CutBy::Deadline, left());
            hands.want(Admin::Maintenance, Deadline::Never);
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

// === impl Hands ===

impl Hands {
    fn want(&mut self, admin: Admin, deadline: Deadline) {
        match deadline {
            Deadline::Keep => {}
            Deadline::Never => self.deadline = None,
            Deadline::After(time) => self.deadline = Some(clock::now() + time),
        }
        self.wanted = admin;
    }

    /// Notes what is lost; sessions that were lost before in the same drain count, too.
    fn cut(&mut self, by: CutBy, mut left: Left) {
        if !left.is_nothing() {
            let before = self.cut.map_or(0, |cut| cut.left.sessions);
            left.sessions = left.sessions.saturating_add(before);
            self.cut = Some(Cut { by, left });
        }
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
        steering.drain(&member, Deadline::After(MINUTE), 0);
        advance(MINUTE / 2).await;
        assert!(!steering.expire(&member, clock::now(), Left::default));
        assert_eq!(steering.deadline_in(), Some(MINUTE / 2));
        assert!(!is_evicted(&steering));
        advance(MINUTE / 2).await;
        assert!(steering.expire(&member, clock::now(), Left::default));
        assert_eq!((member.admin(), steering.deadline_in()), (Admin::Maintenance, None));
        assert!(is_evicted(&steering), "also for a stream that opened too late to hear of it");
        assert!(!steering.expire(&member, clock::now(), Left::default), "once");
    }

    #[test]
    fn neither_hand_undoes_what_the_other_wants() {
        let (member, steering) = (member(), Steering::default());
        assert!(steering.set_leaving(&member, true));
        assert_eq!(member.admin(), Admin::Draining);
        steering.ready(&member);
        assert_eq!(member.admin(), Admin::Draining, "it has still left DNS");
        steering.drain(&member, Deadline::Never, 0);
        assert!(steering.set_leaving(&member, false));
        assert_eq!(member.admin(), Admin::Draining, "an operator wants it");
        steering.ready(&member);
        assert_eq!(member.admin(), Admin::Ready);
        assert!(!steering.set_leaving(&member, false), "no news");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_with_its_drain() {
        let (member, steering) = (member(), Steering::default());
        steering.drain(&member, Deadline::After(MINUTE), 0);
        steering.ready(&member);
        advance(MINUTE).await;
        assert!(!steering.expire(&member, clock::now(), Left::default));
        assert_eq!(member.admin(), Admin::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn open_streams_are_told_when_maintenance_begins() {
        let (member, steering) = (member(), Arc::new(Steering::default()));
        let stream = Arc::clone(&steering);
        let told = tokio::spawn(async move { stream.evicted().await });
        tokio::task::yield_now().await;
        assert!(!told.is_finished());
        steering.maintain(&member, Left::default());
        told.await.unwrap();
        steering.ready(&member);
        assert!(!is_evicted(&steering), "it may have streams again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_tells_what_its_deadline_has_cut_until_the_next_one() {
        let (member, steering) = (member(), Steering::default());
        let left = Left { requests: 2, sessions: 7, streams: 1 };
        steering.drain(&member, Deadline::After(MINUTE), 3);
        steering.drain(&member, Deadline::Keep, 5);
        assert_eq!((steering.moved_before(), steering.cut()), (3, None), "the drain had begun before");
        advance(MINUTE).await;
        assert!(steering.expire(&member, clock::now(), || left));
        assert_eq!(steering.cut(), Some(Cut { by: CutBy::Deadline, left }));
        steering.maintain(&member, left);
        assert_eq!(steering.cut(), Some(Cut { by: CutBy::Deadline, left }), "it serves nothing already");
        steering.drain(&member, Deadline::Never, 5);
        assert_eq!((steering.moved_before(), steering.cut()), (5, None));
    }

    #[test]
    fn a_drain_that_had_nothing_left_at_its_end_cost_nothing() {
        let (member, steering) = (member(), Steering::default());
        steering.drain(&member, Deadline::Never, 0);
        steering.maintain(&member, Left::default());
        assert_eq!(steering.cut(), None);
    }

    #[test]
    fn sessions_that_a_restart_has_ended_count_in_a_drain_only() {
        let (member, steering) = (member(), Steering::default());
        let lost = |sessions| Left { sessions, ..Left::default() };
        steering.cut_short(CutBy::Restarted, lost(4));
        assert_eq!(steering.cut(), None);
        steering.drain(&member, Deadline::Never, 0);
        steering.cut_short(CutBy::Restarted, lost(4));
        steering.maintain(&member, lost(1));
        assert_eq!(steering.cut(), Some(Cut { by: CutBy::Maintenance, left: lost(5) }));
    }
}
