//! How far the drain of a backend is.

use std::{sync::Arc, time::Duration};

use super::Pool;
use crate::{
    affinity::{Admin, MoveReason},
    backend::Backend,
    clock,
};

/// How long a request that is under way without a session is expected to take.
const UNDER_WAY: Duration = Duration::from_secs(1);

// === impl Pool ===

impl Pool {
    /// Time until nothing is left at a draining backend, if its sessions stay idle, or until the deadline of its
    /// drain; zero when nothing is left, none when it does not drain. An open stream holds its session, whose idle
    /// clock has yet to start, and a placed request may begin one. When any other request ends is unknown, so it
    /// counts as [`UNDER_WAY`].
    pub fn drain_eta(&self, backend: &Backend) -> Option<Duration> {
        let member = &backend.member;
        if member.admin() != Admin::Draining {
            return None;
        }
        let idle = self.affinity.drain_eta(&self.settings, &self.roster, member.slot(), clock::tick());
        let held = match backend.left() {
            left if left.streams > 0 || member.placing() > 0 => self.settings.session_timeout,
            left if left.requests > 0 => UNDER_WAY,
            _ => Duration::ZERO,
        };
        let left = idle.unwrap_or_default().max(held);
        Some(backend.standing.steering.deadline_in().map_or(left, |deadline| deadline.min(left)))
    }

    /// Sessions that have moved away from a backend because it was down.
    pub fn moved_away(&self, backend: &Backend) -> u64 {
        let stats = self.affinity.stats();
        let own = stats.backends.iter().find(|own| Arc::ptr_eq(&own.member, &backend.member));
        own.map_or(0, |own| own.moved[MoveReason::Down as usize])
    }
}
