//! The cluster as its replicas tell of it: each one writes a summary of itself and reads those of the others.

use std::time::Duration;

use redis::{Value, cmd};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{Operation, Shared, bytes, link::Failure};
use crate::{
    clock::{self, millis},
    world::{Phase, Pool, World},
};

/// The cluster as it was told lately.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cluster {
    /// Replicas that have told of themselves lately, by name.
    pub replicas: Vec<Summary>,
    /// How many sessions live where; none when nobody has counted.
    pub census: Option<Census>,
}

/// One replica, in its own words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub replica: String,
    /// Its process.
    pub id: String,
    /// The program's version.
    pub version: String,
    /// When the process began, in Unix milliseconds.
    pub since: u64,
    /// When it said so, in Unix milliseconds.
    pub at: u64,
    /// Whether its requests wait for Redis.
    pub breaker: String,
    /// Changes of sessions that it has yet to tell.
    pub pending: u64,
    /// Redis refuses to keep what it tells.
    #[serde(default)]
    pub refused: bool,
    /// The others have another secret: it shares nothing with them.
    #[serde(default)]
    pub secret_differs: bool,
    /// What it serves.
    pub pools: Vec<PoolSummary>,
}

/// A pool at one replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolSummary {
    /// Its name.
    pub name: String,
    /// Its backends.
    pub backends: Vec<BackendSummary>,
}

/// A backend as one replica sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendSummary {
    /// Its name.
    pub name: String,
    /// Whether this replica takes it for serving.
    pub up: bool,
    /// Live sessions that this replica serves.
    pub live: u64,
    /// Retained ones.
    pub retained: u64,
    /// Requests of this replica under way there.
    pub in_flight: u64,
}

/// How many sessions live where, each counted once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Census {
    /// When it was done, in Unix milliseconds.
    pub at: u64,
    /// Which replica counted.
    pub by: String,
    /// False when there were more than are counted.
    pub complete: bool,
    /// By pool.
    pub pools: Vec<PoolCensus>,
}

/// The sessions of a pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolCensus {
    /// Its name.
    pub name: String,
    /// By home.
    pub homes: Vec<HomeCount>,
}

/// The sessions of a backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HomeCount {
    /// Its name.
    pub name: String,
    /// How many.
    pub sessions: u64,
}

/// Between two summaries.
const INTERVAL: Duration = Duration::from_secs(3);
/// For how long a summary counts.
const LIFE: Duration = Duration::from_secs(15);
/// Replicas that are shown.
const MAX_REPLICAS: usize = 64;
/// Bytes of a summary or census.
const MAX_TEXT: usize = 256 * 1024;

/// So many times in a row another process has written under our name, although we had written last: a process
/// that goes, or had gone, does so once or twice.
const SIGHTINGS: u32 = 4;

/// Whether another process has our name, as far as our own record shows.
#[derive(Debug, Default)]
struct Namesake {
    /// In a row.
    sightings: u32,
    told: bool,
}

// === impl Namesake ===

impl Namesake {
    /// Our record was somebody else's, or was not. True when that is to be told.
    fn saw(&mut self, foreign: bool) -> bool {
        self.sightings = if foreign { self.sightings.saturating_add(1) } else { 0 };
        let tell = self.sightings >= SIGHTINGS && !self.told;
        self.told |= tell;
        tell
    }
}

impl Shared {
    /// Tells of this replica and hears of the others; never returns.
    pub(super) async fn view(&self, world: &World) {
        let count = async {
            loop {
                self.count(world).await;
            }
        };
        let tell = async {
            let mut namesake = Namesake::default();
            loop {
                self.check_mark(false).await;
                // A broken connection shows elsewhere; a refusal is no reason to stop trying.
                if let Err(Failure::Refused(error)) = self.exchange_summaries(world, &mut namesake).await {
                    tracing::debug!(%error, "redis refuses the cluster view");
                }
                sleep(INTERVAL).await;
            }
        };
        tokio::join!(count, tell);
    }

    /// This replica goes: the others need not wait until its summary has expired.
    pub(super) async fn leave(&self) {
        let (name, all) = (self.names.summary(&self.names.replica), self.names.of("replicas"));
        let there = self.link.tell(Operation::View, |_| read_summary(&name)).await;
        if there.is_ok_and(|there| self.is_foreign(&there)) {
            // The process that took over has our name.
            return;
        }
        let _ = self.link.tell(Operation::View, |_| with("DEL", &[&name])).await;
        let _ = self.link.tell(Operation::View, |_| with("ZREM", &[&all, &self.names.replica])).await;
    }

    /// Whether a record under our name is another process's.
    fn is_foreign(&self, there: &Value) -> bool {
        bytes(there)
            .and_then(|text| serde_json::from_slice::<Summary>(text).ok())
            .is_some_and(|summary| *summary.id != *self.names.id)
    }

    async fn exchange_summaries(&self, world: &World, namesake: &mut Namesake) -> Result<(), Failure> {
        let summary = self.summary(world);
        let all = self.names.of("replicas");
        let (now, oldest) = (summary.at, summary.at.saturating_sub(millis(LIFE)));
        let name = self.names.summary(&self.names.replica);
        let text = serde_json::to_string(&summary).unwrap_or_default();
        let tell =
            |command: redis::Cmd| async move { self.link.tell(Operation::View, |_| command.clone()).await };
        let foreign = self.is_foreign(&tell(read_summary(&name)).await?);
        // Of two processes of one replica, the one that goes leaves the name to the one that came.
        let goes = world.phase() > Phase::Ready;
        if !(foreign && goes) {
            if namesake.saw(foreign) {
                tracing::warn!(
                    replica = &*self.names.replica,
                    "another process has the name of this replica, and each hides the other in the cluster view: \
                     give one of them another name by `replica` in `[state]`"
                );
            }
            tell(with("SET", &[&name, &text, "PX", &millis(LIFE).to_string()])).await?;
        }
        tell(with("ZADD", &[&all, &now.to_string(), &self.names.replica])).await?;
        tell(with("ZREMRANGEBYSCORE", &[&all, "-inf", &format!("({oldest}")])).await?;
        let names = tell(with("ZRANGE", &[&all, "0", &(MAX_REPLICAS - 1).to_string()])).await?;
        let mut replicas = Vec::new();
        for name in strings(&names) {
            let text = tell(read_summary(&self.names.summary(name))).await?;
            replicas.extend(bytes(&text).and_then(|text| serde_json::from_slice::<Summary>(text).ok()));
        }
        let census = tell(with("GETRANGE", &[&self.names.of("census"), "0", &MAX_TEXT.to_string()])).await?;
        let census = bytes(&census).and_then(|text| serde_json::from_slice(text).ok());
        replicas.sort_by(|a, b| a.replica.cmp(&b.replica));
        self.show(world, Cluster { replicas, census });
        Ok(())
    }

    fn show(&self, world: &World, cluster: Cluster) {
        let metrics = &self.link.metrics;
        metrics.replicas.set(i64::try_from(cluster.replicas.len()).unwrap_or(i64::MAX));
        // Label values come from the configuration, whatever Redis says.
        let counted = |pool: &str, home: &str| {
            let pools = &cluster.census.as_ref()?.pools;
            let homes = &pools.iter().find(|found| found.name == pool)?.homes;
            Some(homes.iter().find(|found| found.name == home).map_or(0, |found| found.sessions))
        };
        metrics.sessions.reset();
        for pool in &world.snapshot.load().pools {
            for backend in &pool.backends {
                if let Some(sessions) = counted(&pool.name, backend.name()) {
                    let gauge = metrics.sessions.with_label_values(&[&*pool.name, backend.name()]);
                    gauge.set(i64::try_from(sessions).unwrap_or(i64::MAX));
                }
            }
        }
        *self.lock_cluster() = cluster;
    }

    /// The cluster as it was told lately, with what this replica knows of itself now.
    pub fn cluster(&self, world: &World) -> Cluster {
        let mut cluster = self.lock_cluster().clone();
        let own = self.summary(world);
        match cluster.replicas.iter_mut().find(|summary| summary.replica == own.replica) {
            Some(summary) => *summary = own,
            None => cluster.replicas.push(own),
        }
        cluster.replicas.sort_by(|a, b| a.replica.cmp(&b.replica));
        cluster
    }

    fn summary(&self, world: &World) -> Summary {
        let now = clock::unix_ms();
        Summary {
            replica: self.names.replica.to_string(),
            id: self.names.id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: now.saturating_sub(millis(clock::uptime())),
            at: now,
            breaker: self.state().as_str().to_owned(),
            pending: self.pending() as u64,
            refused: self.refusal().is_some(),
            secret_differs: self.secret_differs(),
            pools: world.snapshot.load().pools.iter().map(|pool| summary_of(pool)).collect(),
        }
    }
}

fn summary_of(pool: &Pool) -> PoolSummary {
    let backends = pool.backends.iter().map(|backend| BackendSummary {
        name: backend.name().to_owned(),
        up: backend.member.is_up(),
        live: backend.member.live().into(),
        retained: backend.member.retained().into(),
        in_flight: backend.member.in_flight().into(),
    });
    PoolSummary { name: pool.name.to_string(), backends: backends.collect() }
}

fn read_summary(name: &str) -> redis::Cmd {
    with("GETRANGE", &[name, "0", &MAX_TEXT.to_string()])
}

/// A command and its arguments.
pub(super) fn with(name: &str, arguments: &[&str]) -> redis::Cmd {
    let mut command = cmd(name);
    command.arg(arguments);
    command
}

/// The strings of an answer that is a list of them.
pub(super) fn strings(value: &Value) -> impl Iterator<Item = &str> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(|item| str::from_utf8(bytes(item)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namesake_is_told_of_once_and_a_process_that_goes_is_none() {
        let mut namesake = Namesake::default();
        let told = |namesake: &mut Namesake, foreign: u32| (0..foreign).any(|_| namesake.saw(true));
        assert!(!told(&mut namesake, SIGHTINGS - 1));
        assert!(!namesake.saw(false), "ours again");
        assert!(!told(&mut namesake, SIGHTINGS - 1));
        assert!(told(&mut namesake, 1));
        assert!(!told(&mut namesake, 3 * SIGHTINGS));
    }
}
