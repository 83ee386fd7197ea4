//! Finding backends: follows the addresses behind the host names of entries with `discover = "dns"`.
//!
//! A task for each entry looks its name up, as often as the TTL says, and tells the
//! [`Reloader`](super::Reloader) what it found: nobody else builds snapshots, so that discovery and reloads do not
//! race. What an answer changes is decided in `known`, pure.
//!
//! Invariants: what could not be found out changes nothing; an address that leaves DNS is never cut, it drains.

mod known;
mod lookup;
mod metrics;
mod pace;

use std::{
    collections::{HashMap, hash_map},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

pub(super) use self::known::{Change, Entry, Found, Known, MAX_ADDRESSES, entries};
pub use self::metrics::Metrics;
use self::{
    lookup::{Answer, Lookup},
    metrics::{Counts, Outcome},
    pace::Pace,
};
use crate::{backend::Listed, config::Config, upstream::probe, world::World};

/// Follows the entries of the configuration in use.
pub struct Discovery {
    world: Arc<World>,
    metrics: Metrics,
    found: mpsc::Sender<(Entry, Found)>,
}

/// What the look-ups found; read by the reloader.
pub struct Findings(pub(super) mpsc::Receiver<(Entry, Found)>);

/// The backends of every pool as long as nothing has been discovered.
pub fn written(config: &Config) -> Vec<Vec<Listed>> {
    Known::default().lists(config)
}

/// An entry, and the server that is asked.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Followed {
    entry: Entry,
    server: Option<SocketAddr>,
}

/// Findings that wait to be taken up; whoever has more waits.
const MAX_FINDINGS: usize = 64;

// === impl Discovery ===

impl Discovery {
    /// Follows nothing yet; what is found will come out of the other end.
    pub fn new(world: Arc<World>, metrics: Metrics) -> (Self, Findings) {
        let (found, findings) = mpsc::channel(MAX_FINDINGS);
        (Self { world, metrics, found }, Findings(findings))
    }

    /// Follows for as long as the process runs. Ends only when a task does, which none should.
    pub async fn run(self) {
        let mut published = self.world.published();
        let mut tasks = JoinSet::new();
        let mut running: HashMap<Followed, AbortHandle> = HashMap::new();
        loop {
            published.borrow_and_update();
            let config = Arc::clone(&self.world.snapshot.load().config);
            let server = config.resolver;
            let wanted: Vec<_> = entries(&config).map(|entry| Followed { entry, server }).collect();
            running.retain(|followed, task| {
                let stays = wanted.contains(followed);
                if !stays {
                    task.abort();
                    self.metrics.forget(&followed.entry);
                }
                stays
            });
            for followed in wanted {
                if let hash_map::Entry::Vacant(place) = running.entry(followed) {
                    let Followed { entry, server } = place.key().clone();
                    let counts = self.metrics.of(&entry);
                    let task = follow(Arc::clone(&self.world), entry, server, counts, self.found.clone());
                    place.insert(tasks.spawn_local(task));
                }
            }
            tokio::select! {
                _ = published.changed() => {}
                Some(ended) = tasks.join_next() => {
                    if !ended.is_err_and(|error| error.is_cancelled()) {
                        return;
                    }
                }
            }
        }
    }
}

/// Follows one entry until nobody listens any more.
async fn follow(
    world: Arc<World>,
    entry: Entry,
    server: Option<SocketAddr>,
    counts: Counts,
    found: mpsc::Sender<(Entry, Found)>,
) {
    let mut lookup = Lookup::new(server);
    let mut pace = Pace::default();
    let mut last = Outcome::Ok;
    loop {
        let mut answer = lookup.addresses(&entry.host).await;
        let outcome = Outcome::of(&answer);
        counts.done(outcome, &answer);
        if outcome != last {
            tell(&entry, outcome, &answer);
            last = outcome;
        }
        let wait = match outcome {
            Outcome::Ok => pace.answered(answer.ttl, world.snapshot.load().config.dns_refresh),
            Outcome::Empty | Outcome::Failed => pace.failed(),
        };
        answer.found.told = ask_returning(&world, &entry, &answer.found).await;
        if found.send((entry.clone(), answer.found)).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(wait) => {}
            // Not more often than names are looked up anyway.
            () = world.sought.notified() => sleep(wait.min(pace::FLOOR)).await,
        }
    }
}

/// Once per change, not per look-up.
fn tell(entry: &Entry, outcome: Outcome, answer: &Answer) {
    let Entry { pool, name, host } = entry;
    match (outcome, &answer.trouble) {
        (Outcome::Failed, Some(error)) => {
            tracing::warn!(%pool, entry = %name, %host, %error, "DNS look-up failed: what was known last stays");
        }
        (Outcome::Empty, _) => {
            tracing::warn!(%pool, entry = %name, %host, "DNS knows no address: what was known last stays");
        }
        _ => tracing::info!(%pool, entry = %name, %host, "DNS answers again"),
    }
}

/// Asks the addresses which instance they are whose backends had left and were found again, before any session of
/// then can go there: another process may have got the address. Only a health check can ask; without one, they
/// count as another.
async fn ask_returning(world: &World, entry: &Entry, found: &Found) -> HashMap<IpAddr, Box<[u8]>> {
    let snapshot = world.snapshot.load_full();
    let Some(pool) = snapshot.pool(&entry.pool).filter(|pool| !pool.former.is_empty()) else {
        return HashMap::new();
    };
    let (Some(field), Some(check)) = (&pool.instance_header, &pool.health) else { return HashMap::new() };
    let asked = found.iter().take(MAX_ADDRESSES).filter_map(|ip| {
        let former = pool.former(&entry.backend(ip))?;
        Some(async move { Some((ip, probe(former, check, Some(field)).await.ok()??.into())) })
    });
    join_all(asked).await.into_iter().flatten().collect()
}
