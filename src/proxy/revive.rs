//! The last resort of a request that no backend serves: one that is down may be back, and nothing has noticed yet.
//!
//! Trials of the control thread come every `retry`; without this, clients would be refused for as long although the only
//! backend listens again. Where active checks decide, one is asked for, and `rise` of them are needed as ever.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::forward::Forward;
use crate::{affinity::Slot, backend::Backend, upstream::connect};

/// Backends that one request tries.
const MAX_TRIED: usize = 3;
/// How long such a trial may take: the request would have been refused at once.
const LIMIT: Duration = Duration::from_secs(1);
/// How often a request that waits for its home looks whether it may try it.
const AGAIN: Duration = Duration::from_millis(500);
/// The pause between two trials of one backend, and between two checks that requests ask for.
const PAUSE: Duration = Duration::from_millis(100);
const CHECK_PAUSE: Duration = Duration::from_secs(1);

impl Forward<'_> {
    /// Tries backends that are down: `home`, or some that are not among `tried`. Whether one is back.
    pub(super) async fn revive(&self, home: Option<Slot>, tried: &[Slot]) -> bool {
        let backends = &self.pool.backends;
        let wanted = |backend: &&Arc<Backend>| {
            let slot = backend.member.slot();
            backend.member.is_down_only() && home.map_or_else(|| !tried.contains(&slot), |home| home == slot)
        };
        let from = fastrand::usize(..backends.len().max(1));
        let (before, after) = backends.split_at(from.min(backends.len()));
        for backend in after.iter().chain(before).filter(wanted).take(MAX_TRIED) {
            if let Some(check) = &self.pool.health {
                if backend.begin_trial(check.interval.min(CHECK_PAUSE)).is_some() {
                    backend.suspect();
                }
                continue;
            }
            let Some(_trial) = backend.begin_trial(PAUSE) else { continue };
            match connect(backend, self.pool.timeouts.connect.min(LIMIT)).await {
                Ok(_) => {
                    backend.tried(None);
                    return true;
                }
                Err(error) => {
                    if let Some(evidence) = error.evidence() {
                        backend.tried(Some((evidence, &error)));
                    }
                }
            }
        }
        false
    }

    /// Tries `home`, for which this request waits, until it is back.
    pub(super) async fn keep_trying(&self, home: Slot) {
        loop {
            sleep(AGAIN).await;
            if self.revive(Some(home), &[]).await {
                return;
            }
        }
    }
}
