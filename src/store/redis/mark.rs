//! The mark in Redis: whether the other replicas have the same secret, and whether Redis still holds what it
//! was told.
//!
//! Whoever finds no mark writes one: a hash under its secret, and a number at random. A server that was emptied
//! while connections stayed up (`FLUSHALL`, eviction) has no mark, or another one by now; then every replica
//! tells it again what it knows.

use std::sync::{Mutex, PoisonError};

use super::{Operation, Shared, bytes, script, value, view};
use crate::affinity::KeyHasher;

/// The mark as this process writes it, and as it found it.
#[derive(Debug)]
pub(super) struct Mark {
    /// A hash under the secret of `secret_file`, the same at all replicas.
    hash: String,
    /// What Redis held at the last look; empty before the first one.
    seen: Mutex<Vec<u8>>,
}

/// The name space of the mark among keyed hashes.
const SPACE: u8 = 0xfd;

// === impl Mark ===

impl Mark {
    pub(super) fn new(hasher: &KeyHasher) -> Self {
        let hash = value::hex(hasher.tagged(SPACE, b"do all replicas have this secret?"));
        Self { hash, seen: Mutex::default() }
    }

    /// Remembers what was found; true when something else was there before.
    fn changed(&self, there: &[u8]) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = !seen.is_empty() && *seen != there;
        *seen = there.to_owned();
        changed
    }

    /// Whether a replica with this secret wrote it.
    fn is_ours(&self, there: &[u8]) -> bool {
        there.split(|byte| *byte == b' ').next() == Some(self.hash.as_bytes())
    }
}

impl Shared {
    /// Looks at the mark, and writes it where there is none. After a `fresh` connection everything is compared
    /// anyway.
    pub(super) async fn check_mark(&self, fresh: bool) {
        let name = self.names.of("secret");
        let read = async || self.link.tell(Operation::Heartbeat, |_| script::read(&name)).await;
        let Ok(mut there) = read().await else { return };
        if bytes(&there).is_some_and(<[u8]>::is_empty) {
            let ours = format!("{} {:016x}", self.mark.hash, fastrand::u64(..));
            let claim = view::with("SET", &[&name, &ours, "NX"]);
            let _ = self.link.tell(Operation::Heartbeat, |_| claim.clone()).await;
            let Ok(now) = read().await else { return };
            there = now;
        }
        let there = bytes(&there).unwrap_or_default();
        if there.is_empty() {
            return;
        }
        if self.mark.changed(there) && !fresh {
            tracing::warn!(key = name, "redis has lost what it held: it is told all sessions again");
            self.recent.clear();
            self.compare_all();
        }
        self.tell_secret(&name, self.mark.is_ours(there));
    }

    fn tell_secret(&self, key: &str, same: bool) {
        let mismatch = &self.link.metrics.secret_mismatch;
        match (same, mismatch.get() == 0) {
            (false, true) => tracing::error!(
                key,
                "other replicas have another `secret_file`: none knows the others' sessions. Copy it to all; \
                 after changing it everywhere, delete this key in redis"
            ),
            (true, false) => {
                tracing::info!("other replicas have the same `secret_file` now: sessions are shared")
            }
            _ => {}
        }
        mismatch.set(i64::from(!same));
    }

    /// Whether the other replicas have another secret, so that nothing is shared.
    pub fn secret_differs(&self) -> bool {
        self.link.metrics.secret_mismatch.get() != 0
    }
}
