//! What became of the bindings that came over: a configuration with other names takes fewer, which has to show.

use std::{collections::BTreeSet, time::Duration};

use crate::{affinity::Absorbed, config::format_elapsed, store::Entry, world::Pool};

/// Sessions that came over, by what became of them, in the words of the state file.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// They go home as before.
    taken: u64,
    /// Their backend is not configured: kept, and back when the backend is.
    unknown: u64,
    /// Their pool is not configured: dropped.
    gone: u64,
    /// Their time is over.
    expired: u64,
    /// Their home has restarted and lost them.
    restarted: u64,
    /// There was no room for them.
    full: u64,
    /// The pools of those that are gone.
    pools: BTreeSet<Box<str>>,
}

// === impl Tally ===

impl Tally {
    /// One was taken in, or was not; only sessions count.
    pub(super) fn count(&mut self, pool: &Pool, entry: &Entry, absorbed: Absorbed) {
        let Entry::Session(session) = entry else { return };
        let configured = pool.backend(&session.home).is_some();
        let count = match absorbed {
            // Older and ended: this process has heard later news of it already.
            Absorbed::New | Absorbed::Same | Absorbed::Moved | Absorbed::Older | Absorbed::Ended
                if configured =>
            {
                &mut self.taken
            }
            Absorbed::New
            | Absorbed::Same
            | Absorbed::Moved
            | Absorbed::Older
            | Absorbed::Ended
            | Absorbed::Unknown => &mut self.unknown,
            Absorbed::Expired => &mut self.expired,
            Absorbed::Restarted => &mut self.restarted,
            Absorbed::Full => &mut self.full,
        };
        *count += 1;
    }

    /// One of a pool that this process does not have.
    pub(super) fn gone(&mut self, pool: &str, entry: &Entry) {
        if matches!(entry, Entry::Session(_)) {
            self.gone += 1;
            // As many as there are pools in a configuration.
            if !self.pools.contains(pool) {
                self.pools.insert(pool.into());
            }
        }
    }

    /// Says it, in one line.
    pub(super) fn tell(&self, took: Duration) {
        let Self { taken, unknown, gone, expired, restarted, full, pools } = self;
        let took = format_elapsed(took);
        if *gone == 0 {
            tracing::info!(taken, unknown, gone, expired, restarted, full, %took, "bindings taken over");
            return;
        }
        let pools = pools.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            taken, unknown, gone, expired, restarted, full, %pools, %took,
            "bindings taken over, but for those of pools that this configuration does not have: they are dropped"
        );
    }
}
