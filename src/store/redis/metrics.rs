//! What sharing counts. Children are resolved once, when the process starts.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// Counters of sharing; all are there from the start.
#[derive(Debug)]
pub(super) struct Metrics {
    operations: [[IntCounter; Outcome::ALL.len()]; Operation::ALL.len()],
    durations: [Histogram; Operation::ALL.len()],
    lookups: [IntCounter; Found::ALL.len()],
    /// 1 while requests ask Redis.
    pub(super) up: IntGauge,
    /// 1 while the other replicas have another secret.
    pub(super) secret_mismatch: IntGauge,
    /// Sessions that Redis has yet to be told of.
    pub(super) pending: IntGauge,
    /// Writes that found another replica's word, which holds.
    pub(super) conflicts: IntCounter,
    /// Values and announcements that made no sense.
    pub(super) bad: IntCounter,
    /// Replicas that have told of themselves lately.
    pub(super) replicas: IntGauge,
    /// Sessions in Redis by pool and home, of the latest census.
    pub(super) sessions: IntGaugeVec,
}

/// What is asked of Redis, or heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A request asks for an id that is not known here.
    Lookup,
    /// A request tells what its answer changed.
    Write,
    /// What requests did not tell, and signs of life, are told later.
    WriteBack,
    /// After an outage: is it still there?
    Resync,
    /// Another replica's announcement came.
    Announcement,
    /// Does it still answer?
    Heartbeat,
    /// The cluster view: summaries and the census.
    View,
}

/// How that went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Timeout,
    Error,
    /// Not even tried: the breaker is open, or too many are under way.
    Skipped,
}

/// What a request found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Hit,
    Miss,
    /// Something that is not ours, or of no use any more.
    Refused,
    Failed,
}

const BUCKETS: [f64; 10] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.25, 1.0];

// === impl Metrics ===

impl Metrics {
    /// Makes and registers them.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let operations = IntCounterVec::new(
            Opts::new("homing_shared_operations_total", "Commands to Redis, and announcements heard."),
            &["operation", "result"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "homing_shared_operation_duration_seconds",
                "Time until Redis answered, or nobody waited any longer.",
            )
            .buckets(BUCKETS.to_vec()),
            &["operation"],
        )?;
        let lookups = IntCounterVec::new(
            Opts::new("homing_shared_lookups_total", "Ids unknown to this replica, by what Redis knew."),
            &["result"],
        )?;
        let up =
            IntGauge::new("homing_shared_up", "1 while requests ask Redis, 0 while they go on without.")?;
        let secret_mismatch = IntGauge::new(
            "homing_shared_secret_mismatch",
            "1 while the other replicas have another secret_file, so that nothing is shared.",
        )?;
        let pending =
            IntGauge::new("homing_shared_pending", "Changes of sessions that Redis has yet to be told.")?;
        let conflicts = IntCounter::new(
            "homing_shared_conflicts_total",
            "Writes that found the word of another replica, which holds.",
        )?;
        let bad = IntCounter::new(
            "homing_shared_bad_values_total",
            "Values and announcements that were ignored because they made no sense.",
        )?;
        let replicas =
            IntGauge::new("homing_cluster_replicas", "Replicas that have told of themselves lately.")?;
        let sessions = IntGaugeVec::new(
            Opts::new(
                "homing_cluster_sessions",
                "Sessions in Redis, each counted once, at the latest census; the same at every replica.",
            ),
            &["pool", "backend"],
        )?;
        let collectors: [Box<dyn Collector>; 10] = [
            Box::new(operations.clone()),
            Box::new(durations.clone()),
            Box::new(lookups.clone()),
            Box::new(up.clone()),
            Box::new(secret_mismatch.clone()),
            Box::new(pending.clone()),
            Box::new(conflicts.clone()),
            Box::new(bad.clone()),
            Box::new(replicas.clone()),
            Box::new(sessions.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(Self {
            operations: Operation::ALL.map(|operation| {
                Outcome::ALL
                    .map(|outcome| operations.with_label_values(&[operation.as_str(), outcome.as_str()]))
            }),
            durations: Operation::ALL.map(|operation| durations.with_label_values(&[operation.as_str()])),
            lookups: Found::ALL.map(|found| lookups.with_label_values(&[found.as_str()])),
            up,
            secret_mismatch,
            pending,
            conflicts,
            bad,
            replicas,
            sessions,
        })
    }

    pub(super) fn count(&self, operation: Operation, outcome: Outcome) {
        self.operations[operation as usize][outcome as usize].inc();
    }

    pub(super) fn took(&self, operation: Operation, time: Duration) {
        self.durations[operation as usize].observe(time.as_secs_f64());
    }

    pub(super) fn found(&self, found: Found) {
        self.lookups[found as usize].inc();
    }
}

// === impl Operation ===

impl Operation {
    const ALL: [Self; 7] = [
        Self::Lookup,
        Self::Write,
        Self::WriteBack,
        Self::Resync,
        Self::Announcement,
        Self::Heartbeat,
        Self::View,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Write => "write",
            Self::WriteBack => "write-back",
            Self::Resync => "resync",
            Self::Announcement => "announcement",
            Self::Heartbeat => "heartbeat",
            Self::View => "view",
        }
    }
}

// === impl Outcome ===

impl Outcome {
    const ALL: [Self; 4] = [Self::Ok, Self::Timeout, Self::Error, Self::Skipped];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }
}

// === impl Found ===

impl Found {
    const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Refused, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}
