//! Loading the configuration anew: aside, swapped in whole, or not at all. And taking up what discovery found:
//! here is the only place that publishes snapshots.

mod metrics;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Duration, interval, timeout},
};

pub use self::metrics::Metrics;
use super::{
    discovery::{Change, Entry, Findings, Found, Known, MAX_ADDRESSES, entries},
    plan::{Plan, Steps},
};
use crate::{
    backend::{Backend, Families, Listed},
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
    /// The backends of each pool that have left the configuration, and drain.
    leaving: HashMap<Box<str>, Vec<Listed>>,
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
        Self {
            world,
            source,
            families,
            ticketer,
            metrics,
            findings,
            known: Known::default(),
            leaving: HashMap::new(),
        }
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
            let stamps = self.stamps();
            if let Some(Reload { dry: true, done }) = wish {
                // Whoever asked may have gone.
                let _ = done.send(self.reload(true));
                continue;
            }
            seen = stamps;
            let result = self.reload(false);
            self.tell(why, &result);
            if let Some(Reload { done, .. }) = wish {
                let _ = done.send(result);
            }
        }
    }

    /// Loads the configuration, and publishes it unless it is `dry`.
    fn reload(&mut self, dry: bool) -> Result<Changes, String> {
        let config = (self.source.load)().map_err(|errors| errors.to_string())?;
        let mut materials = Materials::load(&config, &self.ticketer).map_err(|errors| errors.to_string())?;
        let old = self.world.snapshot.load_full();
        let mut changes = Changes::between(&old.config, &config);
        materials::compare(&old.materials.holdings, &mut materials.holdings, clock::wall(), &mut changes);
        let config = Config {
            admin: config::Admin { socket: old.config.admin.socket.clone(), ..config.admin },
            listen: config::Listen {
                proxy_protocol: config.listen.proxy_protocol,
                redirect_port: config.listen.redirect_port,
                ..old.config.listen.clone()
            },
            workers: old.config.workers,
            access_log: old.config.access_log.clone(),
            access_log_filter: old.config.access_log_filter,
            secret_file: old.config.secret_file.clone(),
            state: old.config.state.clone(),
            ..config
        };
        let mut known = self.known.clone();
        known.follow(&config);
        let plan = Plan::between(&old, &config, &known.lists(&config));
        changes.affect(plan.effects);
        if dry {
            return Ok(changes);
        }
        self.known = known;
        let before = self.carry_out(&old, plan.pools);
        self.publish(Arc::new(config), Arc::new(materials));
        self.take_back(&before);
        Ok(changes)
    }

    /// Renames backends, and drains those that leave; returns those that were leaving before.
    fn carry_out(
        &mut self,
        old: &Snapshot,
        pools: HashMap<Box<str>, Steps>,
    ) -> HashMap<Box<str>, Vec<Listed>> {
        let mut leaving = HashMap::new();
        for (name, steps) in pools {
            let Some(pool) = old.pool(&name) else { continue };
            if !steps.renames.is_empty() {
                let renames: Vec<_> = steps.renames.iter().map(|(old, new)| (&**old, &**new)).collect();
                pool.affinity.rename_members(&renames, clock::tick());
            }
            for backend in steps.leaving.iter().filter_map(|listed| pool.backend(&listed.config.name)) {
                backend.leave(true);
            }
            if !steps.leaving.is_empty() {
                leaving.insert(name, steps.leaving);
            }
        }
        std::mem::replace(&mut self.leaving, leaving)
    }

    /// Backends that were leaving and are in the configuration again go on.
    fn take_back(&self, before: &HashMap<Box<str>, Vec<Listed>>) {
        let snapshot = self.world.snapshot.load_full();
        let absent = self.known.absent();
        for pool in before.keys().filter_map(|pool| snapshot.pool(pool)) {
            let still = self.leaving.get(&pool.name).map_or(&[][..], Vec::as_slice);
            for backend in &pool.backends {
                let named = |name: &str| name == backend.name();
                let leaves = still.iter().any(|listed| named(&listed.config.name))
                    || absent.iter().any(|(entry, ip)| entry.pool == pool.name && named(&entry.backend(*ip)));
                if !leaves {
                    backend.leave(false);
                }
            }
        }
    }

    /// Builds the snapshot of this configuration and of what is known from DNS, and swaps it in.
    fn publish(&self, config: Arc<Config>, materials: Arc<Materials>) {
        let old = self.world.snapshot.load_full();
        let mut lists = self.known.lists(&config);
        for (pool, list) in config.pools.iter().zip(&mut lists) {
            let leaving = self.leaving.get(&pool.name).map_or(&[][..], Vec::as_slice);
            let gone: Vec<_> = leaving
                .iter()
                .filter(|listed| !list.iter().any(|other| other.config.name == listed.config.name))
                .cloned()
                .collect();
            list.extend(gone);
        }
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
            // An address may have left with its entry, and be back with it.
            let now = self.known.lists(&self.world.snapshot.load().config);
            let there =
                |listed: &Listed| now.iter().flatten().any(|other| other.config.name == listed.config.name);
            let before = self.leaving.clone();
            self.leaving.values_mut().for_each(|list| list.retain(|listed| !there(listed)));
            self.take_back(&before);
        }
    }

    /// Removes the backends that have left DNS or the configuration and have nothing left to lose.
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
        for (pool, list) in &mut self.leaving {
            list.retain(|listed| {
                let backend = snapshot.pool(pool).and_then(|pool| pool.backend(&listed.config.name));
                let why = backend.map_or(Some("gone"), |backend| done(backend));
                if let Some(why) = why {
                    tracing::info!(%pool, backend = %listed.config.name, why, "backend removed");
                    removed = true;
                }
                why.is_none()
            });
        }
        self.leaving.retain(|_, list| !list.is_empty());
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
                let any = |is: &dyn Fn(&Backend) -> bool| {
                    still.is_some_and(|still| still.backends.iter().any(|backend| is(backend)))
                };
                // One that was renamed is counted anew.
                if !any(&|other| other.label() == backend.label()) {
                    self.families.forget(&pool.name, backend.label());
                }
                if !any(&|other| other.name() == backend.name()) {
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

/// Why a backend that has left can go, if it can.
fn done(backend: &Backend) -> Option<&'static str> {
    match (backend.member.is_up(), !backend.left().is_nothing()) {
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
