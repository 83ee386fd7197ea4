//! Loading the configuration anew: aside, swapped in whole, or not at all. And taking up what discovery found:
//! here is the only place that publishes snapshots.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Duration, interval, timeout},
};

use super::discovery::{Change, Entry, Findings, Found, Known, MAX_ADDRESSES, entries};
use crate::{
    backend::{Backend, Families},
    clock,
    config::{self, Changes, Config, ConfigErrors},
    materials::{self, Materials},
    tls::Ticketer,
    world::{Reload, Snapshot, World},
};

/// Where the configuration comes from.
pub struct Source {
    /// Reads it, flags included.
    pub load: Box<dyn Fn() -> Result<Config, ConfigErrors>>,
    /// The file it is read from; none when there are only flags.
    pub file: Option<PathBuf>,
    /// Whether SIGHUP asks for a reload; else it ends the process, as when a terminal is closed.
    pub hangup: bool,
}

/// Loads and publishes.
pub struct Reloader {
    world: Arc<World>,
    source: Source,
    families: Families,
    ticketer: Ticketer,
    metrics: Metrics,
    findings: Findings,
    known: Known,
}

/// How reloads went.
#[derive(Debug)]
pub struct Metrics {
    ok: IntCounter,
    failed: IntCounter,
    successful: IntGauge,
    at: IntGauge,
}

/// How often files are looked at when `watch = true`, and backends that have left DNS.
const LOOK: Duration = Duration::from_secs(1);
/// How long the first answers of DNS are waited for.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// Findings taken up at once.
const BATCH: usize = 64;

// === impl Reloader ===

impl Reloader {
    /// A reloader of what `source` gives.
    pub fn new(
        world: Arc<World>,
        source: Source,
        families: Families,
        ticketer: Ticketer,
        metrics: Metrics,
        findings: Findings,
    ) -> Self {
        Self { world, source, families, ticketer, metrics, findings, known: Known::default() }
    }

    /// Waits until every entry that discovers its backends has been looked up once, and takes up what was found;
    /// after [`FIRST_ANSWERS`], the proxy starts without.
    pub async fn first_answers(&mut self) {
        let config = Arc::clone(&self.world.snapshot.load().config);
        let mut waiting: Vec<Entry> = entries(&config).collect();
        let mut answers = Vec::new();
        let all = async {
            while !waiting.is_empty() {
                let Some((entry, found)) = self.findings.0.recv().await else { return };
                waiting.retain(|other| *other != entry);
                answers.push((entry, found));
            }
        };
        let in_time = timeout(FIRST_ANSWERS, all).await.is_ok();
        self.discovered(answers);
        if !in_time {
            tracing::warn!(after = %config::format_duration(FIRST_ANSWERS), "DNS has not answered: starting without what it knows");
        }
        for pool in self.world.snapshot.load().pools.iter().filter(|pool| pool.backends.is_empty()) {
            tracing::warn!(pool = %pool.name, "no backend is known yet: requests are answered by 503 until one is found");
        }
    }

    /// Reloads on SIGHUP, on wishes of operators, and when files change if `watch = true`; takes up what is found
    /// in DNS; for as long as the process runs.
    pub async fn run(mut self, mut wishes: mpsc::Receiver<Reload>) {
        let mut hangup = match self.source.hangup.then(|| signal(SignalKind::hangup())).transpose() {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!(%error, "cannot wait for SIGHUP");
                return;
            }
        };
        let mut looks = interval(LOOK);
        let mut seen = self.stamps();
        let mut answers = Vec::new();
        loop {
            let (why, wish) = tokio::select! {
                () = hung_up(&mut hangup) => ("SIGHUP", None),
                wish = wishes.recv() => match wish {
                    Some(wish) => ("request", Some(wish)),
                    None => return,
                },
                count = self.findings.0.recv_many(&mut answers, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.discovered(std::mem::take(&mut answers));
                    continue;
                }
                _ = looks.tick() => {
                    self.remove_drained();
                    if !self.world.snapshot.load().config.watch {
                        continue;
                    }
                    let stamps = self.stamps();
                    if stamps == seen {
                        continue;
                    }
                    ("changed file", None)
                }
            };
            seen = self.stamps();
            let result = self.reload();
            self.tell(why, &result);
            if let Some(Reload(done)) = wish {
                // Whoever asked may have gone.
                let _ = done.send(result);
            }
        }
    }

    fn reload(&mut self) -> Result<Changes, String> {
        let config = (self.source.load)().map_err(|errors| errors.to_string())?;
        let mut materials = Materials::load(&config, &self.ticketer).map_err(|errors| errors.to_string())?;
        let old = self.world.snapshot.load_full();
        let mut changes = Changes::between(&old.config, &config);
        materials::compare(&old.materials.holdings, &mut materials.holdings, clock::wall(), &mut changes);
        let config = Config {
            admin: config::Admin { socket: old.config.admin.socket.clone(), ..config.admin },
            listen: config::Listen {
                proxy_protocol: config.listen.proxy_protocol,
                ..old.config.listen.clone()
            },
            workers: old.config.workers,
            access_log: old.config.access_log.clone(),
            secret_file: old.config.secret_file.clone(),
            state: old.config.state.clone(),
            ..config
        };
        self.known.follow(&config);
        self.publish(Arc::new(config), Arc::new(materials));
        Ok(changes)
    }

    /// Builds the snapshot of this configuration and of what is known from DNS, and swaps it in.
    fn publish(&self, config: Arc<Config>, materials: Arc<Materials>) {
        let old = self.world.snapshot.load_full();
        let lists = self.known.lists(&config);
        let new = Snapshot::build(config, materials, &lists, &self.families, Some(&old));
        self.world.courier.open(&new);
        self.world.publish(new);
        self.forget_removed(&old);
    }

    /// The same configuration, with what is known from DNS by now.
    fn publish_known(&self) {
        let now = self.world.snapshot.load_full();
        self.publish(Arc::clone(&now.config), Arc::clone(&now.materials));
    }

    /// Takes up what look-ups found: addresses that are new join, those that are gone drain, those that are
    /// back before they were removed go on.
    fn discovered(&mut self, answers: Vec<(Entry, Found)>) {
        let snapshot = self.world.snapshot.load_full();
        let mut joined = false;
        for (entry, found) in answers {
            // A reload may have come between.
            let (Some(pool), Some(config)) = (
                snapshot.pool(&entry.pool),
                snapshot.config.pools.iter().find(|pool| pool.name == entry.pool),
            ) else {
                continue;
            };
            if !entries(&snapshot.config).any(|known| known == entry) {
                continue;
            }
            let room = self.known.room(config);
            for change in self.known.learn(&entry, found, room) {
                let named = |ip| pool.backend(&entry.backend(ip));
                match change {
                    Change::Joined(ip) => {
                        joined = true;
                        tracing::info!(pool = %pool.name, backend = entry.backend(ip), "backend discovered");
                    }
                    Change::Left(ip) => {
                        if let Some(backend) = named(ip) {
                            backend.leave(true);
                            let live = backend.member.live();
                            tracing::info!(pool = %pool.name, backend = backend.name(), live, "backend left DNS: draining");
                        }
                    }
                    Change::Returned(ip) => {
                        if let Some(backend) = named(ip) {
                            backend.leave(false);
                            tracing::info!(pool = %pool.name, backend = backend.name(), "backend is in DNS again");
                        }
                    }
                    Change::Spare(0) => {}
                    Change::Spare(spare) => tracing::warn!(
                        pool = %pool.name,
                        entry = %entry.name,
                        spare,
                        most = MAX_ADDRESSES,
                        "more addresses in DNS than are taken"
                    ),
                }
            }
        }
        if joined {
            self.publish_known();
        }
    }

    /// Removes the backends that have left DNS and have nothing left to lose.
    fn remove_drained(&mut self) {
        let snapshot = self.world.snapshot.load_full();
        let mut removed = false;
        for (entry, ip) in self.known.absent() {
            let backend = snapshot.pool(&entry.pool).and_then(|pool| pool.backend(&entry.backend(ip)));
            if let Some(backend) = backend {
                let Some(why) = done(backend) else { continue };
                tracing::info!(pool = %entry.pool, backend = backend.name(), why, "backend removed");
            }
            self.known.remove(&entry, ip);
            removed = true;
        }
        if removed {
            self.publish_known();
        }
    }

    /// What has left its pool is forgotten: its series, and what was wanted of it.
    fn forget_removed(&self, old: &Snapshot) {
        let new = self.world.snapshot.load();
        for pool in &old.pools {
            let still = new.pools.iter().find(|still| still.name == pool.name);
            if still.is_none() {
                self.families.forget_pool(&pool.name);
            }
            if pool.issuer.is_some() && still.is_none_or(|still| still.issuer.is_none()) {
                self.families.forget_tokens(&pool.name);
            }
            for backend in &pool.backends {
                if !still
                    .is_some_and(|still| still.backends.iter().any(|still| still.name() == backend.name()))
                {
                    self.families.forget(&pool.name, backend.name());
                    backend.retire();
                }
            }
        }
    }

    fn tell(&self, why: &'static str, result: &Result<Changes, String>) {
        self.world.set_loaded(result.as_ref().err().map(String::as_str));
        match result {
            Ok(changes) => {
                self.metrics.done(true);
                if changes.is_empty() {
                    tracing::info!(why, "configuration reloaded, nothing has changed");
                }
                for change in &changes.applied {
                    tracing::info!(why, "configuration reloaded: {change}");
                }
                for warning in &changes.warnings {
                    tracing::warn!(why, "configuration reloaded: {warning}");
                }
                for change in &changes.restart {
                    tracing::warn!(why, "takes effect only after a restart: {change}");
                }
            }
            Err(error) => {
                self.metrics.done(false);
                tracing::error!(why, "configuration not reloaded, the old one stays: {error}");
            }
        }
    }

    /// Size, time of change and number of every file that the configuration is made of.
    fn stamps(&self) -> Vec<Option<(u64, SystemTime, u64)>> {
        let config = Arc::clone(&self.world.snapshot.load().config);
        let certificates =
            config.certificates.iter().flat_map(|files| [files.cert.as_path(), files.key.as_path()]);
        let keys = config.pools.iter().filter_map(|pool| pool.issue.as_ref()?.key_file.as_deref());
        let token = config.admin.token_file.as_deref();
        let backends = config.pools.iter().flat_map(|pool| {
            let pair =
                pool.tls.certificate.iter().flat_map(|files| [files.cert.as_path(), files.key.as_path()]);
            pool.tls.ca.as_deref().into_iter().chain(pair)
        });
        let clients = config
            .tls
            .clients
            .iter()
            .flat_map(|clients| std::iter::once(clients.ca.as_path()).chain(clients.crl.as_deref()));
        let files = self
            .source
            .file
            .as_deref()
            .into_iter()
            .chain(token)
            .chain(certificates)
            .chain(keys)
            .chain(backends)
            .chain(clients);
        files.map(stamp).collect()
    }
}

/// Why a backend that has left DNS can go, if it can.
fn done(backend: &Backend) -> Option<&'static str> {
    let member = &backend.member;
    let busy = member.live() > 0 || member.streams() > 0 || member.placing() > 0 || member.in_flight() > 0;
    match (member.is_up(), busy) {
        (false, _) => Some("down"),
        (true, false) => Some("drained"),
        (true, true) => None,
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn stamp(path: &Path) -> Option<(u64, SystemTime, u64)> {
    let data = fs::metadata(path).ok()?;
    Some((data.len(), data.modified().ok()?, data.ino()))
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

    fn done(&self, ok: bool) {
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
