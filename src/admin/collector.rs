//! The affinity tables as metrics, read at scrape time: one consistent reading per pool, no counter of
//! its own in the request path.

use std::{sync::Arc, time::UNIX_EPOCH};

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{
    affinity::{Admin, EndReason, MoveReason, Stats},
    world::{Pool, Snapshot, World},
};

/// Collects from the pools of the current snapshot.
#[derive(Debug)]
pub struct AffinityCollector(pub Arc<World>);

/// A family under construction.
struct Family(MetricFamily);

// === impl AffinityCollector ===

impl Collector for AffinityCollector {
    /// The families depend on the snapshot, so none is announced.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.0.snapshot.load_full();
        let pools: Vec<(&Pool, Stats)> =
            snapshot.pools.iter().map(|pool| (&**pool, pool.affinity.stats())).collect();
        let mut families = sessions(&pools);
        families.extend(totals(&pools));
        families.extend(keys(&pools));
        families.extend(backends(&pools));
        families.push(certificates(&snapshot));
        families.into_iter().map(|family| family.0).collect()
    }
}

fn sessions(pools: &[(&Pool, Stats)]) -> Vec<Family> {
    let mut sessions = Family::gauge(
        "homing_sessions",
        "Sessions by home backend: live (idle for less than the session timeout) or retained.",
    );
    let mut streams = Family::gauge("homing_affinity_streams", "Open streams that hold their session.");
    let mut moves = Family::counter(
        "homing_affinity_moves_total",
        "Sessions that left a backend, by reason; the backend is the one left.",
    );
    let mut ended = Family::counter("homing_affinity_ended_total", "Sessions that ended, by reason.");
    for (pool, stats) in pools {
        let pool = &*pool.name;
        for backend in stats.backends.iter().filter(|backend| !backend.removed) {
            let name = backend.member.name();
            sessions.add(&[("pool", pool), ("backend", name), ("state", "live")], backend.live);
            sessions.add(&[("pool", pool), ("backend", name), ("state", "retained")], backend.retained);
            streams.add(&[("pool", pool), ("backend", name)], backend.streams);
            by_reason(&mut moves, pool, name, MoveReason::ALL.map(MoveReason::as_str), backend.moved);
            by_reason(&mut ended, pool, name, EndReason::ALL.map(EndReason::as_str), backend.ended);
        }
        // Backends that have left keep no series of their own, but what they had must not be missing from
        // the sum: it is that of no backend.
        let gone = || stats.backends.iter().filter(|backend| backend.removed);
        if gone().next().is_some() {
            let moved = sum(gone().map(|one| one.moved));
            by_reason(&mut moves, pool, "", MoveReason::ALL.map(MoveReason::as_str), moved);
            let over = sum(gone().map(|one| one.ended));
            by_reason(&mut ended, pool, "", EndReason::ALL.map(EndReason::as_str), over);
        }
    }
    vec![sessions, streams, moves, ended]
}

fn sum<const N: usize>(counts: impl Iterator<Item = [u64; N]>) -> [u64; N] {
    counts.fold([0; N], |sum, one| std::array::from_fn(|index| sum[index] + one[index]))
}

fn by_reason<const N: usize>(
    family: &mut Family,
    pool: &str,
    backend: &str,
    reasons: [&str; N],
    counts: [u64; N],
) {
    for (reason, count) in reasons.into_iter().zip(counts) {
        family.add(&[("pool", pool), ("backend", backend), ("reason", reason)], count);
    }
}

fn totals(pools: &[(&Pool, Stats)]) -> Vec<Family> {
    type Read = fn(&Pool, &Stats) -> u64;
    let gauges: [(&str, &str, Read); 2] = [
        ("homing_affinity_table_entries", "Sessions in the affinity table.", |_, stats| stats.entries),
        ("homing_affinity_table_capacity", "Sessions that the affinity table holds at most.", |pool, _| {
            pool.settings.max_sessions.get() as u64
        }),
    ];
    let counters: [(&str, &str, Read); 6] = [
        ("homing_affinity_learned_total", "Sessions learned from answers.", |_, stats| stats.learned),
        (
            "homing_affinity_returned_total",
            "Sessions that came back with their backend, or from another process.",
            |_, stats| stats.restored,
        ),
        ("homing_affinity_renames_total", "Session ids that the application replaced.", |_, stats| {
            stats.renamed
        }),
        ("homing_affinity_ambiguous_total", "Requests with several different session ids.", |_, stats| {
            stats.ambiguous
        }),
        (
            "homing_affinity_late_hits_total",
            "Expired sessions that their application still knew.",
            |_, stats| stats.late,
        ),
        ("homing_affinity_full_total", "Sessions not learned because the table was full.", |_, stats| {
            stats.full
        }),
    ];
    let mut families = Vec::new();
    for (name, help, read) in gauges {
        let mut family = Family::gauge(name, help);
        for (pool, stats) in pools {
            family.add(&[("pool", &pool.name)], read(pool, stats));
        }
        families.push(family);
    }
    for (name, help, read) in counters {
        let mut family = Family::counter(name, help);
        for (pool, stats) in pools {
            family.add(&[("pool", &pool.name)], read(pool, stats));
        }
        families.push(family);
    }
    families
}

/// Whether the keys fit. A family without a series is not shown at all.
fn keys(pools: &[(&Pool, Stats)]) -> Vec<Family> {
    let mut set = Family::counter(
        "homing_affinity_ids_set_total",
        "Responses that set a session id, by the key that it was found by.",
    );
    let mut unfit = Family::gauge(
        "homing_affinity_key_unfit",
        "1 while dozens of responses have passed and none has set a session id; cookie is the one that they do set.",
    );
    for (pool, stats) in pools {
        for (key, count) in pool.keys_set() {
            set.add(&[("pool", &pool.name), ("key", &key)], count);
        }
        if pool.settings.keys.are_set_by_responses() {
            let advised = pool.key_advice(stats).is_some();
            let stranger = pool.affinity.watch().seen().stranger.filter(|_| advised);
            let cookie = stranger.map_or_else(String::new, |stranger| stranger.name);
            unfit.add(&[("pool", &pool.name), ("cookie", &cookie)], advised.into());
        }
    }
    [set, unfit].into_iter().filter(|family| !family.0.get_metric().is_empty()).collect()
}

fn backends(pools: &[(&Pool, Stats)]) -> Vec<Family> {
    let mut up = Family::gauge("homing_backend_up", "Whether the backend serves.");
    let mut draining = Family::gauge("homing_backend_draining", "Whether the backend gets no new sessions.");
    let mut weight =
        Family::gauge("homing_backend_weight", "Its share of sessions in relation to the others.");
    let mut in_flight =
        Family::gauge("homing_backend_in_flight", "Requests that are under way at the backend.");
    let mut eta = Family::gauge(
        "homing_backend_drain_eta_seconds",
        "Time until a draining backend has no live session, stream or request left; 0 when it has none.",
    );
    for (pool, _) in pools {
        for backend in &pool.backends {
            let labels = [("pool", &*pool.name), ("backend", backend.name())];
            let member = &backend.member;
            up.add(&labels, u64::from(member.is_up()));
            draining.add(&labels, u64::from(member.admin() != Admin::Ready));
            weight.add(&labels, u64::from(member.weight()));
            in_flight.add(&labels, u64::from(member.in_flight()));
            if let Some(left) = pool.drain_eta(backend) {
                // Rounded up: 0 says that it is done.
                eta.add(&labels, left.as_secs() + u64::from(left.subsec_nanos() > 0));
            }
        }
    }
    let mut families = vec![up, draining, weight, in_flight];
    // A family without a series is not shown at all.
    families.extend(Some(eta).filter(|eta| !eta.0.get_metric().is_empty()));
    families
}

fn certificates(snapshot: &Snapshot) -> Family {
    let mut expiry = Family::gauge(
        "homing_certificate_expiry_timestamp_seconds",
        "When a certificate ceases to be valid.",
    );
    let certificates = &snapshot.materials.certificates;
    for (index, certificate) in certificates.iter().enumerate() {
        // A file that is configured twice has one series.
        if certificates[..index].iter().any(|other| other.file() == certificate.file()) {
            continue;
        }
        let ends = certificate.not_after().duration_since(UNIX_EPOCH).unwrap_or_default();
        expiry.add(&[("certificate", &certificate.file().display().to_string())], ends.as_secs());
    }
    expiry
}

// === impl Family ===

impl Family {
    fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self(family)
    }

    fn add(&mut self, labels: &[(&str, &str)], value: u64) {
        let labels = labels.iter().map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        });
        let mut metric = Metric::default();
        metric.set_label(labels.collect());
        // Exact up to 2^53.
        let value = value as f64;
        match self.0.get_field_type() {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.0.mut_metric().push(metric);
    }
}
