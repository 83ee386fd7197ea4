//! What is known of a backend beyond one configuration of it: shared by every [`Backend`](super::Backend)
//! of its name, so that a new address, or another setting, loses none of it.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

use super::{Health, History, Instances, Steering, Trials};

/// A backend's standing.
#[derive(Debug, Default)]
pub struct Standing {
    /// What operators want of it.
    pub steering: Steering,
    /// How its health changed.
    pub history: History,
    /// Which instances have answered under its name.
    pub instances: Instances,
    /// Written by workers (passing requests) and the control thread (checks); held for a few adds.
    health: Mutex<Health>,
    /// Whether a passing request failed since the last answer; spares the common answer the lock.
    pub(super) troubled: AtomicBool,
    /// Wakes the control thread for a trial, out of turn.
    pub(super) suspicion: Notify,
    /// Wakes requests that wait for it to serve.
    pub(super) turned: Notify,
    /// Counts its addresses: what is told of an earlier one tells nothing of the present one.
    address: AtomicU64,
    /// Of the addresses that its name has, the one that a connection was made to last.
    preferred: Mutex<Option<SocketAddr>>,
    /// Trials that requests make when nothing else serves them.
    pub(super) trials: Trials,
}

// === impl Standing ===

impl Standing {
    pub(super) fn with_health<T>(&self, f: impl FnOnce(&mut Health) -> T) -> T {
        f(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of the address in use.
    pub(super) fn address(&self) -> u64 {
        self.address.load(Relaxed)
    }

    /// The address that a connection was made to last, if its name has several.
    pub fn preferred(&self) -> Option<SocketAddr> {
        *self.preferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was made to this address of its name; none when one was made that was of no use.
    pub fn prefer(&self, address: Option<SocketAddr>) {
        *self.preferred.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// It has another address from now on, or another process may have its address, about which nothing is
    /// known; returns its number.
    pub fn new_address(&self) -> u64 {
        self.with_health(|health| *health = Health::default());
        self.address.fetch_add(1, Relaxed) + 1
    }
}
