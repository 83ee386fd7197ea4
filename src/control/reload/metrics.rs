//! How reloads went, as metrics.

use std::time::UNIX_EPOCH;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::clock;

/// How reloads went.
#[derive(Debug)]
pub struct Metrics {
    ok: IntCounter,
    failed: IntCounter,
    successful: IntGauge,
    at: IntGauge,
}

// === impl Metrics ===

impl Metrics {
    /// Makes and registers them; starting counts as a load that went well.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let reloads = IntCounterVec::new(
            Opts::new("homing_config_reloads_total", "Reloads of the configuration, by result."),
            &["result"],
        )?;
        let successful = IntGauge::new(
            "homing_config_last_reload_successful",
            "Whether the last attempt to load the configuration went well.",
        )?;
        let at = IntGauge::new(
            "homing_config_last_reload_success_timestamp_seconds",
            "When the configuration in use was loaded.",
        )?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(successful.clone()))?;
        registry.register(Box::new(at.clone()))?;
        let metrics = Self {
            ok: reloads.with_label_values(&["ok"]),
            failed: reloads.with_label_values(&["failed"]),
            successful,
            at,
        };
        metrics.loaded();
        Ok(metrics)
    }

    pub(super) fn done(&self, ok: bool) {
        if ok {
            self.ok.inc();
            self.loaded();
        } else {
            self.failed.inc();
            self.successful.set(0);
        }
    }

    fn loaded(&self) {
        self.successful.set(1);
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }
}
