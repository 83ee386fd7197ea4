//! What is counted per backend. Children are resolved once, when a backend first appears.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, core::Collector,
};

use crate::affinity::Verdict;

/// The families; one per process.
#[derive(Clone, Debug)]
pub struct Families {
    verdicts: IntCounterVec,
    requests: IntCounterVec,
    duration: HistogramVec,
    connects: IntCounterVec,
    retries: IntCounterVec,
}

/// One backend's children.
#[derive(Debug)]
pub struct Metrics {
    verdicts: [IntCounter; Verdict::ALL.len()],
    requests: [IntCounter; CLASSES.len()],
    /// From handing the request over to the end of the answer's head.
    pub duration: Histogram,
    /// Connections opened.
    pub connected: IntCounter,
    /// Connections that could not be opened.
    pub connect_failed: IntCounter,
    /// Requests sent once more.
    pub retries: IntCounter,
}

/// Label values of `code`; `error` stands for exchanges that ended without an answer.
pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "error"];

/// Buckets from half a millisecond to a minute.
const DURATION_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

// === impl Families ===

impl Families {
    /// Makes and registers the families.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let families = Self {
            verdicts: IntCounterVec::new(
                Opts::new(
                    "homing_affinity_requests_total",
                    "Requests by what affinity decided and the backend it chose.",
                ),
                &["pool", "backend", "verdict"],
            )?,
            requests: IntCounterVec::new(
                Opts::new(
                    "homing_backend_requests_total",
                    "Requests sent to a backend, by class of the answer.",
                ),
                &["pool", "backend", "code"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "homing_backend_request_duration_seconds",
                    "Time from handing a request to a backend to the end of its answer's head.",
                )
                .buckets(DURATION_BUCKETS.to_vec()),
                &["pool", "backend"],
            )?,
            connects: IntCounterVec::new(
                Opts::new("homing_backend_connects_total", "Connections opened to a backend, by result."),
                &["pool", "backend", "result"],
            )?,
            retries: IntCounterVec::new(
                Opts::new("homing_backend_retries_total", "Requests sent to a backend once more."),
                &["pool", "backend"],
            )?,
        };
        let collectors: [Box<dyn Collector>; 5] = [
            Box::new(families.verdicts.clone()),
            Box::new(families.requests.clone()),
            Box::new(families.duration.clone()),
            Box::new(families.connects.clone()),
            Box::new(families.retries.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(families)
    }

    /// One backend's children, exported as 0 from here on.
    pub fn backend(&self, pool: &str, backend: &str) -> Metrics {
        let labels = [pool, backend];
        Metrics {
            verdicts: Verdict::ALL
                .map(|verdict| self.verdicts.with_label_values(&[pool, backend, verdict.as_str()])),
            requests: CLASSES.map(|class| self.requests.with_label_values(&[pool, backend, class])),
            duration: self.duration.with_label_values(&labels),
            connected: self.connects.with_label_values(&[pool, backend, "ok"]),
            connect_failed: self.connects.with_label_values(&[pool, backend, "failed"]),
            retries: self.retries.with_label_values(&labels),
        }
    }

    /// Requests of a pool that no backend was chosen for.
    pub fn refused(&self, pool: &str) -> IntCounter {
        self.verdicts.with_label_values(&[pool, "", Verdict::Refused.as_str()])
    }
}

// === impl Metrics ===

impl Metrics {
    /// Counts a decision for this backend.
    pub fn verdict(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].inc();
    }

    /// Counts an answer by its status; none stands for an exchange that failed.
    pub fn answered(&self, status: Option<u16>) {
        let class = match status {
            Some(status @ 100..=599) => usize::from(status / 100) - 1,
            _ => CLASSES.len() - 1,
        };
        self.requests[class].inc();
    }
}
