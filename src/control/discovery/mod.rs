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
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};

pub(super) use self::known::{Change, Entry, Found, Known, MAX_ADDRESSES, entries};
pub use self::metrics::Metrics;
use self::{
    lookup::{Answer, Lookup},
    metrics::{Counts, Outcome},
    pace::Pace,
};
use super::supervisor::Supervisor;
use crate::{
    backend::{Backend, Listed},
    clock,
    config::Config,
    upstream::probe,
    world::World,
};

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

/// How entries are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct How {
    /// The server that is asked; none for those of the system.
    server: Option<SocketAddr>,
    /// How long an answer is good for at most.
    refresh: Duration,
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
        let mut followers = Supervisor::new();
        loop {
            published.borrow_and_update();
            {
                let config = Arc::clone(&self.world.snapshot.load().config);
                let how = How { server: config.resolver, refresh: config.dns_refresh };
                let wanted = entries(&config).map(|entry| (entry, how));
                let start = |entry: &Entry, how, _| {
                    let counts = self.metrics.of(entry);
                    follow(Arc::clone(&self.world), entry.clone(), how, counts, self.found.clone())
                };
                followers.settle(wanted, start, |entry| self.metrics.forget(entry));
            }
            tokio::select! {
                _ = published.changed() => {}
                () = followers.ended() => return,
            }
        }
    }
}

/// Follows one entry until nobody listens any more.
async fn follow(
    world: Arc<World>,
    entry: Entry,
    mut how: watch::Receiver<How>,
    counts: Counts,
    found: mpsc::Sender<(Entry, Found)>,
) {
    let mut asked = *how.borrow_and_update();
    let mut lookup = Lookup::new(asked.server);
    let mut pace = Pace::default();
    let mut last = Outcome::Ok;
    loop {
        let mut answer = lookup.addresses(&entry.host).await;
        let outcome = Outcome::of(&answer);
        counts.done(outcome, &answer);
        if outcome != last {
            tell(&entry, outcome, &answer, &lookup.servers(), is_known(&world, &entry));
            last = outcome;
        }
        let wait = match outcome {
            Outcome::Ok => pace.answered(answer.ttl, asked.refresh),
            Outcome::Empty | Outcome::Failed => pace.failed(),
        };
        answer.found.told = ask_returning(&world, &entry, &answer.found).await;
        let next = clock::now() + wait;
        if found.send((entry.clone(), answer.found)).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep_until(next) => {}
            // Not more often than names are looked up anyway.
            () = world.sought.notified() => sleep(wait.min(pace::FLOOR)).await,
            Ok(()) = how.changed() => {
                let new = *how.borrow_and_update();
                if new.server == asked.server {
                    // Nothing of what is known has become wrong; only the time for which it is good may be shorter.
                    sleep_until(next.min(clock::now() + new.refresh)).await;
                } else {
                    (lookup, pace) = (Lookup::new(new.server), Pace::default());
                }
                asked = new;
            }
        }
    }
}

/// Whether an address of this entry is known.
fn is_known(world: &World, entry: &Entry) -> bool {
    let of = |backend: &Arc<Backend>| backend.discovered.as_deref() == Some(&*entry.name);
    world.snapshot.load().pool(&entry.pool).is_some_and(|pool| pool.backends.iter().any(of))
}

/// Once per change, not per look-up. `known` says whether there was an address before.
fn tell(entry: &Entry, outcome: Outcome, answer: &Answer, servers: &str, known: bool) {
    let Entry { pool, name, host } = entry;
    let left = if known { "what was known last stays" } else { "nothing is known of it yet" };
    match (outcome, &answer.trouble) {
        (Outcome::Failed, Some(error)) => {
            tracing::warn!(%pool, entry = %name, %host, %servers, %error, "DNS look-up failed: {left}");
        }
        (Outcome::Empty, _) => {
            tracing::warn!(%pool, entry = %name, %host, %servers, "DNS knows no address: {left}");
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
