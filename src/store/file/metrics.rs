//! What is counted about the state file.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::restore::{Counts, Outcome};
use crate::{clock, world::Snapshot};

/// Shown from the start where a state file is configured.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    restored: IntCounterVec,
    ok: IntCounter,
    pub(super) failed: IntCounter,
    pending: IntGauge,
    size: IntGauge,
    at: IntGauge,
    pub(super) held: IntGauge,
}

// === impl Metrics ===

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    ///
    /// When they have been registered before.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let restored = IntCounterVec::new(
            Opts::new(
                "homing_affinity_restored_total",
                "Sessions found in the state file, by what became of them.",
            ),
            &["pool", "result"],
        )?;
        let writes = IntCounterVec::new(
            Opts::new("homing_state_writes_total", "Attempts to write the state file, by result."),
            &["result"],
        )?;
        let pending = IntGauge::new(
            "homing_state_pending",
            "Sessions whose last change is not in the state file yet.",
        )?;
        let size = IntGauge::new("homing_state_file_size_bytes", "Size of the state file.")?;
        let at = IntGauge::new(
            "homing_state_last_write_timestamp_seconds",
            "When the state file was last written.",
        )?;
        let held = IntGauge::new(
            "homing_state_file_held",
            "Whether the state file is this process's: 1, or 0 while another one has it.",
        )?;
        registry.register(Box::new(restored.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        for gauge in [&pending, &size, &at, &held] {
            registry.register(Box::new(gauge.clone()))?;
        }
        let [ok, failed] = ["ok", "failed"].map(|result| writes.with_label_values(&[result]));
        Ok(Self { restored, ok, failed, pending, size, at, held })
    }

    /// What came of reading the file: counts for each pool of this snapshot, and for no pool of it.
    pub(super) fn restored(&self, snapshot: &Snapshot, pools: &[Counts]) {
        let names = snapshot.pools.iter().map(|pool| &*pool.name).map(Some).chain([None]);
        for (name, counts) in names.zip(pools) {
            for outcome in Outcome::ALL {
                let count = counts.of(outcome);
                // Pools that are not configured have no series, unless there is something to tell.
                if count > 0 || name.is_some() {
                    let labels = [name.unwrap_or_default(), outcome.as_str()];
                    self.restored.with_label_values(&labels).inc_by(count);
                }
            }
        }
    }

    pub(super) fn pending(&self, count: usize) {
        self.pending.set(whole(count as u64));
    }

    pub(super) fn size(&self, bytes: u64) {
        self.size.set(whole(bytes));
    }

    pub(super) fn held(&self, held: bool) {
        self.held.set(held.into());
    }

    pub(super) fn written(&self) {
        self.ok.inc();
        self.at.set(whole(clock::unix_ms() / 1000));
    }

    /// When the process before wrote the file.
    pub(super) fn written_before(&self, at: SystemTime) {
        self.at.set(whole(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()));
    }

    pub(super) fn failed(&self) {
        self.failed.inc();
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
