//! What is counted per backend. Children are resolved once, when a backend first appears.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use super::TokenMetrics;
use crate::affinity::Verdict;

/// The families; one per process.
#[derive(Clone, Debug)]
pub struct Families {
    verdicts: IntCounterVec,
    requests: IntCounterVec,
    duration: HistogramVec,
    connects: IntCounterVec,
    retries: IntCounterVec,
    tokens: IntCounterVec,
    connections: IntGaugeVec,
    queue: IntGaugeVec,
    queue_full: IntCounterVec,
    queue_timeouts: IntCounterVec,
    exhausted: IntCounterVec,
}

/// One backend's children.
#[derive(Debug)]
pub struct Metrics {
    verdicts: [IntCounter; Verdict::ALL.len()],
    requests: [IntCounter; CLASSES.len()],
    /// From handing the request over, connect included, to the end of the answer's head.
    pub duration: Histogram,
    /// Connections opened.
    pub connected: IntCounter,
    /// Connections that could not be opened.
    pub connect_failed: IntCounter,
    /// Requests sent once more.
    pub retries: IntCounter,
    /// Connections that are open, idle ones included; those of health checks are not.
    pub connections: IntGauge,
    /// Requests that wait for room.
    pub queue: IntGauge,
    /// Requests refused since as many waited as may.
    pub queue_full: IntCounter,
    /// Requests that waited for as long as they may.
    pub queue_timeouts: IntCounter,
}

/// One open connection, counted until it is dropped.
#[derive(Debug)]
pub struct Open(IntGauge);

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
                    "Time from handing a request to a backend, connect included, to the end of its answer's head.",
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
            tokens: IntCounterVec::new(
                Opts::new(
                    "homing_affinity_tokens_total",
                    "Cookies of the proxy's own (`issue`), by what became of them.",
                ),
                &["pool", "result"],
            )?,
            connections: IntGaugeVec::new(
                Opts::new(
                    "homing_backend_connections",
                    "Connections open to a backend, idle ones included, those of health checks not.",
                ),
                &["pool", "backend"],
            )?,
            queue: IntGaugeVec::new(
                Opts::new("homing_backend_queue", "Requests that wait until a backend has room."),
                &["pool", "backend"],
            )?,
            queue_full: IntCounterVec::new(
                Opts::new(
                    "homing_backend_queue_full_total",
                    "Requests refused since the queue of their backend was full.",
                ),
                &["pool", "backend"],
            )?,
            queue_timeouts: IntCounterVec::new(
                Opts::new(
                    "homing_backend_queue_timeouts_total",
                    "Requests refused since their backend had no room in time.",
                ),
                &["pool", "backend"],
            )?,
            exhausted: IntCounterVec::new(
                Opts::new(
                    "homing_retry_budget_exhausted_total",
                    "Requests that were not tried again since the pool's retry budget was spent.",
                ),
                &["pool"],
            )?,
        };
        let collectors: [Box<dyn Collector>; 11] = [
            Box::new(families.verdicts.clone()),
            Box::new(families.requests.clone()),
            Box::new(families.duration.clone()),
            Box::new(families.connects.clone()),
            Box::new(families.retries.clone()),
            Box::new(families.tokens.clone()),
            Box::new(families.connections.clone()),
            Box::new(families.queue.clone()),
            Box::new(families.queue_full.clone()),
            Box::new(families.queue_timeouts.clone()),
            Box::new(families.exhausted.clone()),
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
            connections: self.connections.with_label_values(&labels),
            queue: self.queue.with_label_values(&labels),
            queue_full: self.queue_full.with_label_values(&labels),
            queue_timeouts: self.queue_timeouts.with_label_values(&labels),
        }
    }

    /// The children of a pool that issues a cookie.
    pub fn tokens(&self, pool: &str) -> TokenMetrics {
        TokenMetrics::resolve(&self.tokens, pool)
    }

    /// A pool issues no cookie any more: its series go.
    pub fn forget_tokens(&self, pool: &str) {
        TokenMetrics::forget(&self.tokens, pool);
    }

    /// A backend has been removed: its series go.
    pub fn forget(&self, pool: &str, backend: &str) {
        let labels = [pool, backend];
        // What is not there needs no removal.
        for verdict in Verdict::ALL {
            let _ = self.verdicts.remove_label_values(&[pool, backend, verdict.as_str()]);
        }
        for class in CLASSES {
            let _ = self.requests.remove_label_values(&[pool, backend, class]);
        }
        let _ = self.duration.remove_label_values(&labels);
        for result in ["ok", "failed"] {
            let _ = self.connects.remove_label_values(&[pool, backend, result]);
        }
        let _ = self.retries.remove_label_values(&labels);
        let _ = self.connections.remove_label_values(&labels);
        let _ = self.queue.remove_label_values(&labels);
        let _ = self.queue_full.remove_label_values(&labels);
        let _ = self.queue_timeouts.remove_label_values(&labels);
    }

    /// A pool has left the configuration.
    pub fn forget_pool(&self, pool: &str) {
        let _ = self.verdicts.remove_label_values(&[pool, "", Verdict::Refused.as_str()]);
        let _ = self.exhausted.remove_label_values(&[pool]);
    }

    /// Requests of a pool that were not tried again for want of budget.
    pub fn exhausted(&self, pool: &str) -> IntCounter {
        self.exhausted.with_label_values(&[pool])
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

    /// Decisions for this backend, in the order of [`Verdict::ALL`].
    pub fn verdicts(&self) -> [u64; Verdict::ALL.len()] {
        self.verdicts.each_ref().map(IntCounter::get)
    }

    /// Requests sent to it, in the order of [`CLASSES`].
    pub fn requests(&self) -> [u64; CLASSES.len()] {
        self.requests.each_ref().map(IntCounter::get)
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

// === impl Open ===

impl Open {
    /// Counts one in.
    pub fn enter(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
