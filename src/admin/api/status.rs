//! Everything at a glance.

use std::sync::Arc;

use prometheus::{Histogram, core::Metric as _};

use super::{
    BackendStatus, ChangesBy, ConfigStatus, Counts, CrowdStatus, Discovers, HealthEntry, Latency, PoolStatus,
    Status, seconds,
};
use crate::{
    admin::Admin,
    admission::Crowd,
    affinity::{self, BackendStats, EndReason, MoveReason, Stats, Verdict},
    backend::{Backend, CLASSES},
    clock,
    config::{self, Config, format_backend_url, format_balance},
    world::{Phase, Pool},
};

/// Reads everything once.
pub(in crate::admin) fn status(admin: &Admin, changes: ChangesBy) -> Status {
    let snapshot = admin.world.snapshot.load();
    let loaded = admin.world.loaded();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: seconds(clock::uptime()),
        phase: match admin.world.phase() {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::HandedOver | Phase::Carrying => "handed-over",
            Phase::Draining => "draining",
            Phase::Forced => "forced",
        }
        .to_owned(),
        time: rfc3339(clock::wall()),
        changes,
        config: ConfigStatus {
            file: admin.file.as_ref().map(|file| file.display().to_string()),
            last_reload_ok: loaded.error.is_none(),
            loaded_at: rfc3339(loaded.at),
            error: loaded.error.map(|error| error.to_string()),
        },
        connections: admin.world.gate.connections() as u64,
        requests_total: (admin.requests)(),
        crowds: admin.world.gate.crowds.now(clock::now()).iter().map(crowd_status).collect(),
        pools: snapshot
            .pools
            .iter()
            .zip(&snapshot.config.pools)
            .map(|(pool, config)| pool_status(pool, config))
            .collect(),
    }
}

/// One backend.
pub(super) fn backend(config: &Config, pool: &Pool, backend: &Backend) -> BackendStatus {
    let stats = pool.affinity.stats();
    let config = config.pools.iter().find(|config| config.name == pool.name);
    backend_status(config, pool, backend, &stats)
}

/// The one word for a backend's state.
pub(super) fn state(backend: &Backend) -> &'static str {
    match (backend.member.admin(), backend.member.is_up()) {
        (affinity::Admin::Maintenance, _) => "maintenance",
        (_, false) => "down",
        (affinity::Admin::Draining, true) => "draining",
        (affinity::Admin::Ready, true) => "up",
    }
}

fn crowd_status(crowd: &Crowd) -> CrowdStatus {
    let Crowd { address, sessions, connections, .. } = *crowd;
    CrowdStatus { address: address.to_string(), sessions, connections }
}

fn pool_status(pool: &Pool, config: &config::Pool) -> PoolStatus {
    let stats = pool.affinity.stats();
    let backends: Vec<_> =
        pool.backends.iter().map(|backend| backend_status(Some(config), pool, backend, &stats)).collect();
    let mut verdicts = sum(backends.iter().map(|backend| &backend.verdicts));
    verdicts.insert(Verdict::Refused.as_str().to_owned(), pool.refused.get());
    PoolStatus {
        name: pool.name.to_string(),
        balance: format_balance(pool.settings.balance).to_owned(),
        session_timeout_seconds: seconds(pool.settings.session_timeout),
        ttl_seconds: seconds(pool.settings.ttl),
        key: pool.key_text(),
        keys_set: pool.keys_set().into_iter().collect(),
        has_learned: pool.has_learned(&stats),
        key_advice: pool.key_advice(&stats),
        entries: stats.entries,
        capacity: pool.settings.max_sessions.get() as u64,
        learned: stats.learned,
        restored: stats.restored,
        renamed: stats.renamed,
        ambiguous: stats.ambiguous,
        late_hits: stats.late,
        longest_late_seconds: seconds(stats.longest_late),
        full: stats.full,
        streams: backends.iter().map(|backend| backend.streams).sum(),
        skew: skew(pool, &stats),
        verdicts,
        moves: sum(backends.iter().map(|backend| &backend.moves)),
        ended: sum(backends.iter().map(|backend| &backend.ended)),
        discovers: config
            .backends
            .iter()
            .filter(|entry| entry.discover.is_some())
            .map(|entry| discovers(pool, entry))
            .collect(),
        backends,
    }
}

fn discovers(pool: &Pool, entry: &config::Backend) -> Discovers {
    let of = |backend: &&Arc<Backend>| backend.discovered.as_deref() == Some(&*entry.name);
    Discovers {
        entry: entry.name.to_string(),
        host: entry.host.to_string(),
        backends: pool.backends.iter().filter(of).count() as u64,
    }
}

fn backend_status(
    config: Option<&config::Pool>,
    pool: &Pool,
    backend: &Backend,
    stats: &Stats,
) -> BackendStatus {
    let member = &backend.member;
    let leaves = backend.standing.steering.is_leaving();
    let entry = backend.discovered.as_deref().unwrap_or_else(|| backend.name());
    let configured = config.is_none_or(|pool| pool.backends.iter().any(|own| &*own.name == entry));
    let own = of(stats, backend);
    let live = own.map_or(0, |own| own.live);
    let total: u64 = stats.backends.iter().map(|other| other.live).sum();
    let requests = backend.metrics.requests();
    // The last two classes: 5xx, and no answer.
    let errors = &requests[CLASSES.len() - 2..];
    let counts = |names: &mut dyn Iterator<Item = &'static str>, counts: &[u64]| -> Counts {
        names.map(str::to_owned).zip(counts.iter().copied()).collect()
    };
    BackendStatus {
        name: backend.name().to_owned(),
        url: format_backend_url(backend.tls.is_some(), &backend.host, backend.port),
        discovered: backend.discovered.as_deref().map(str::to_owned),
        left_dns: leaves && configured,
        left_config: leaves && !configured,
        state: state(backend).to_owned(),
        up: member.is_up(),
        admin: member.admin().as_str().to_owned(),
        weight: member.weight(),
        share: if total == 0 { 0.0 } else { round(live as f64 / total as f64) },
        live,
        retained: own.map_or(0, |own| own.retained),
        streams: member.streams().into(),
        in_flight: member.in_flight().into(),
        queued: backend.room.waiting().into(),
        generation: member.generation(),
        drain_eta_seconds: pool.drain_eta(backend).map(seconds),
        drain_deadline_seconds: backend.standing.steering.deadline_in().map(seconds),
        requests_total: requests.iter().sum(),
        errors_total: errors.iter().sum(),
        latency_seconds: latency(&backend.metrics.duration),
        verdicts: counts(
            &mut Verdict::ALL.iter().filter(|verdict| **verdict != Verdict::Refused).map(|v| v.as_str()),
            &placed(backend.metrics.verdicts()),
        ),
        moves: counts(&mut MoveReason::ALL.iter().map(|r| r.as_str()), own.map_or(&[], |own| &own.moved)),
        ended: counts(&mut EndReason::ALL.iter().map(|r| r.as_str()), own.map_or(&[], |own| &own.ended)),
        health: backend
            .standing
            .history
            .changes()
            .into_iter()
            .map(|change| HealthEntry {
                at: rfc3339(change.at),
                up: change.up,
                by: change.by.to_owned(),
                why: change.why.into(),
            })
            .collect(),
    }
}

/// Without the verdict that no backend has.
fn placed(verdicts: [u64; Verdict::ALL.len()]) -> Vec<u64> {
    Verdict::ALL
        .iter()
        .zip(verdicts)
        .filter(|(v, _)| **v != Verdict::Refused)
        .map(|(_, count)| count)
        .collect()
}

fn of<'a>(stats: &'a Stats, backend: &Backend) -> Option<&'a BackendStats> {
    stats.backends.iter().find(|own| own.member.slot() == backend.member.slot())
}

fn sum<'a>(counts: impl Iterator<Item = &'a Counts>) -> Counts {
    let mut total = Counts::new();
    for (name, count) in counts.flatten() {
        *total.entry(name.clone()).or_default() += count;
    }
    total
}

/// The most live sessions per unit of weight in relation to the average, over the backends that take new ones.
fn skew(pool: &Pool, stats: &Stats) -> f64 {
    let loads = pool.backends.iter().filter(|backend| backend.member.takes_new()).map(|backend| {
        (of(stats, backend).map_or(0, |own| own.live) as f64, f64::from(backend.member.weight().max(1)))
    });
    let (mut live, mut weight, mut most) = (0.0, 0.0, 0.0_f64);
    for (own, share) in loads {
        live += own;
        weight += share;
        most = most.max(own / share);
    }
    if live == 0.0 { 1.0 } else { round(most * weight / live) }
}

fn latency(histogram: &Histogram) -> Option<Latency> {
    let metric = histogram.metric();
    let histogram = metric.get_histogram();
    let count = histogram.get_sample_count();
    let buckets: Vec<(f64, u64)> = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .collect();
    (count > 0).then(|| Latency { p50: quantile(&buckets, count, 0.5), p99: quantile(&buckets, count, 0.99) })
}

/// A quantile, interpolated within its bucket as Prometheus's `histogram_quantile` does; buckets are upper
/// bounds with the count of what is at or below.
fn quantile(buckets: &[(f64, u64)], count: u64, quantile: f64) -> f64 {
    let rank = quantile * count as f64;
    let (mut from, mut below) = (0.0, 0.0);
    for &(to, cumulative) in buckets {
        let cumulative = cumulative as f64;
        if cumulative >= rank && to.is_finite() {
            let part = if cumulative > below { (rank - below) / (cumulative - below) } else { 1.0 };
            return from + (to - from) * part;
        }
        if to.is_finite() {
            (from, below) = (to, cumulative);
        }
    }
    from
}

fn round(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 1000.0
}

fn rfc3339(time: std::time::SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let buckets = [(0.1, 50), (0.2, 100), (0.4, 100)];
        assert!((quantile(&buckets, 100, 0.5) - 0.1).abs() < 1e-9);
        assert!((quantile(&buckets, 100, 0.75) - 0.15).abs() < 1e-9);
        assert!((quantile(&buckets, 100, 0.99) - 0.198).abs() < 1e-9);
    }

    #[test]
    fn beyond_the_last_bucket_its_bound_is_all_that_is_known() {
        assert!((quantile(&[(0.1, 1), (60.0, 1)], 10, 0.99) - 60.0).abs() < 1e-9);
    }
}
