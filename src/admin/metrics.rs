//! What the admin listener counts.

use http::StatusCode;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Requests by how they went.
#[derive(Debug)]
pub(super) struct Metrics {
    ok: IntCounter,
    invalid: IntCounter,
    unauthorized: IntCounter,
    forbidden: IntCounter,
    failed: IntCounter,
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new("homing_admin_requests_total", "Requests to the admin listener, by result."),
            &["result"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let result = |result| requests.with_label_values(&[result]);
        Ok(Self {
            ok: result("ok"),
            invalid: result("invalid"),
            unauthorized: result("unauthorized"),
            forbidden: result("forbidden"),
            failed: result("failed"),
        })
    }

    pub(super) fn answered(&self, status: StatusCode) {
        match status.as_u16() {
            401 => &self.unauthorized,
            403 => &self.forbidden,
            400..=499 => &self.invalid,
            500..=599 => &self.failed,
            _ => &self.ok,
        }
        .inc();
    }
}
