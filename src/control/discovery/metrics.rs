//! How look-ups went.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::{known::Entry, lookup::Answer};

/// The families; one per process.
#[derive(Clone, Debug)]
pub struct Metrics {
    lookups: IntCounterVec,
    addresses: IntGaugeVec,
}

/// The children of one entry.
#[derive(Debug)]
pub(super) struct Counts {
    lookups: [IntCounter; Outcome::ALL.len()],
    addresses: IntGauge,
}

/// How a look-up went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There are addresses, and both kinds of record are known.
    Ok,
    /// There is no address.
    Empty,
    /// It could not be found out, or not for both kinds of record.
    Failed,
}

// === impl Outcome ===

impl Outcome {
    const ALL: [Self; 3] = [Self::Ok, Self::Empty, Self::Failed];

    pub(super) fn of(answer: &Answer) -> Self {
        match (&answer.trouble, answer.found.is_empty()) {
            (Some(_), _) => Self::Failed,
            (None, true) => Self::Empty,
            (None, false) => Self::Ok,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Empty => "empty",
            Self::Failed => "failed",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Makes and registers the families.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            lookups: IntCounterVec::new(
                Opts::new("homing_discovery_lookups_total", "Look-ups of a name in DNS, by result."),
                &["pool", "entry", "result"],
            )?,
            addresses: IntGaugeVec::new(
                Opts::new("homing_discovery_addresses", "Addresses that the last answer of DNS had."),
                &["pool", "entry"],
            )?,
        };
        registry.register(Box::new(metrics.lookups.clone()))?;
        registry.register(Box::new(metrics.addresses.clone()))?;
        Ok(metrics)
    }

    /// The children of an entry, exported as 0 from here on.
    pub(super) fn of(&self, entry: &Entry) -> Counts {
        let (pool, name) = (&*entry.pool, &*entry.name);
        Counts {
            lookups: Outcome::ALL
                .map(|outcome| self.lookups.with_label_values(&[pool, name, outcome.as_str()])),
            addresses: self.addresses.with_label_values(&[pool, name]),
        }
    }

    /// An entry has left the configuration: its series go.
    pub(super) fn forget(&self, entry: &Entry) {
        let (pool, name) = (&*entry.pool, &*entry.name);
        for outcome in Outcome::ALL {
            // What is not there needs no removal.
            let _ = self.lookups.remove_label_values(&[pool, name, outcome.as_str()]);
        }
        let _ = self.addresses.remove_label_values(&[pool, name]);
    }
}

// === impl Counts ===

impl Counts {
    pub(super) fn done(&self, outcome: Outcome, answer: &Answer) {
        self.lookups[outcome as usize].inc();
        if !answer.found.is_empty() {
            self.addresses.set(i64::try_from(answer.found.iter().count()).unwrap_or(i64::MAX));
        }
    }
}
