//! Loading the configuration anew: aside, swapped in whole, or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Duration, interval},
};

use crate::{
    backend::Families,
    clock,
    config::{self, Changes, Config, ConfigErrors},
    materials::Materials,
    tls::{Certificate, Ticketer},
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
}

/// How reloads went.
#[derive(Debug)]
pub struct Metrics {
    ok: IntCounter,
    failed: IntCounter,
    successful: IntGauge,
    at: IntGauge,
}

/// How often files are looked at when `watch = true`.
const LOOK: Duration = Duration::from_secs(1);

// === impl Reloader ===

impl Reloader {
    /// A reloader of what `source` gives.
    pub fn new(
        world: Arc<World>,
        source: Source,
        families: Families,
        ticketer: Ticketer,
        metrics: Metrics,
    ) -> Self {
        Self { world, source, families, ticketer, metrics }
    }

    /// Reloads on SIGHUP, on wishes of operators, and when files change if `watch = true`; for as long as
    /// the process runs.
    pub async fn run(self, mut wishes: mpsc::Receiver<Reload>) {
        let mut hangup = match self.source.hangup.then(|| signal(SignalKind::hangup())).transpose() {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!(%error, "cannot wait for SIGHUP");
                return;
            }
        };
        let mut looks = interval(LOOK);
        let mut seen = self.stamps();
        loop {
            let (why, wish) = tokio::select! {
                () = hung_up(&mut hangup) => ("SIGHUP", None),
                wish = wishes.recv() => match wish {
                    Some(wish) => ("request", Some(wish)),
                    None => return,
                },
                _ = looks.tick() => {
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

    fn reload(&self) -> Result<Changes, String> {
        let config = (self.source.load)().map_err(|errors| errors.to_string())?;
        let materials = Materials::load(&config, &self.ticketer).map_err(|errors| errors.to_string())?;
        let old = self.world.snapshot.load_full();
        let mut changes = Changes::between(&old.config, &config);
        let dates = |materials: &Materials| -> Vec<_> {
            materials.certificates.iter().map(Certificate::not_after).collect()
        };
        if dates(&old.materials) != dates(&materials) {
            changes.applied.push("certificates renewed".to_owned());
        }
        if old.materials.keyrings != materials.keyrings {
            changes.applied.push("other keys for `issue`".to_owned());
        }
        if old.materials.token != materials.token && old.config.admin.token_file == config.admin.token_file {
            changes.applied.push("admin token renewed".to_owned());
        }
        let config = Config {
            admin: config::Admin { socket: old.config.admin.socket.clone(), ..config.admin },
            listen: old.config.listen.clone(),
            workers: old.config.workers,
            access_log: old.config.access_log.clone(),
            secret_file: old.config.secret_file.clone(),
            state: old.config.state.clone(),
            ..config
        };
        let new = Snapshot::build(config, materials, &self.families, Some(&old));
        self.world.courier.open(&new);
        self.world.publish(new);
        self.forget_removed(&old);
        Ok(changes)
    }

    /// What has left the configuration is forgotten: its series, and what operators wanted of it.
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

    /// Size and time of change of every file that the configuration is made of.
    fn stamps(&self) -> Vec<Option<(u64, SystemTime)>> {
        let config = Arc::clone(&self.world.snapshot.load().config);
        let certificates =
            config.certificates.iter().flat_map(|files| [files.cert.as_path(), files.key.as_path()]);
        let keys = config.pools.iter().filter_map(|pool| pool.issue.as_ref()?.key_file.as_deref());
        let token = config.admin.token_file.as_deref();
        let files = self.source.file.as_deref().into_iter().chain(token).chain(certificates).chain(keys);
        files.map(stamp).collect()
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

fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let data = fs::metadata(path).ok()?;
    Some((data.len(), data.modified().ok()?))
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
