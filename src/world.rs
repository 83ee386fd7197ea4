//! What every thread shares: one immutable snapshot of the configured world, and the few things that
//! outlive it.
//!
//! `proxy`, `control` and `admin` never import one another; they meet here.

mod admit;
mod drain;
mod keys;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use prometheus::IntCounter;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    admission::{Gate, RateLimit},
    affinity::{Affinity, KeyHasher, Keys, Member, Roster, SealingKey, Settings},
    backend::{Backend, Families, Instance, Listed, RetryBudget},
    clock,
    config::{self, Changes, Config, HealthCheck, PoolLimits, PoolTimeouts},
    handover::Kin,
    issue::Issuer,
    materials::Materials,
    route::Routes,
    store::{Courier, redis::Shared},
    tls::ClientTls,
};

/// The configured world at one moment. Built aside, swapped in whole; a request loads it once.
#[derive(Debug)]
pub struct Snapshot {
    /// The configuration it was built from.
    pub config: Arc<Config>,
    /// Host and path to an index into `pools`.
    pub routes: Routes,
    /// The applications, in configured order.
    pub pools: Vec<Arc<Pool>>,
    /// What was read from the files that the configuration names.
    pub materials: Arc<Materials>,
    /// `Strict-Transport-Security`, if it is sent.
    pub hsts: Option<HeaderValue>,
    /// How fast each address may ask, if that is limited; kept by a reload that does not change it.
    pub rate: Option<Arc<RateLimit>>,
}

/// One application at one moment.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: Box<str>,
    /// How its sessions are found, kept and placed.
    pub settings: Settings,
    /// Issues the proxy's own cookie, for an application that has none.
    pub issuer: Option<Issuer>,
    /// Its bindings; reused by a reload.
    pub affinity: Arc<Affinity>,
    /// Its backends as the affinity core sees them.
    pub roster: Roster,
    /// Its backends, index for index as in `roster`.
    pub backends: Vec<Arc<Backend>>,
    /// Backends that have left, for as long as a session that lived there may come back with their name; at
    /// most [`MAX_FORMER`].
    pub former: Vec<Arc<Backend>>,
    /// Active check, if any.
    pub health: Option<HealthCheck>,
    /// Deadlines of the backend side.
    pub timeouts: PoolTimeouts,
    /// Idle connections kept to each backend, per worker.
    pub keep_alive: usize,
    /// Answer field by which backends tell which instance they are.
    pub instance_header: Option<HeaderName>,
    /// Requests that no backend was chosen for.
    pub refused: IntCounter,
    /// Bounds of the backend side.
    pub limits: PoolLimits,
    /// How many requests may be sent once more; reused by a reload.
    pub budget: Arc<RetryBudget>,
    /// Requests that were not, for want of it.
    pub exhausted: IntCounter,
}

/// What outlives every snapshot.
#[derive(Debug)]
pub struct World {
    /// Swapped by a reload; loaded once per request.
    pub snapshot: ArcSwap<Snapshot>,
    /// The secret under which session ids become keys.
    pub hasher: KeyHasher,
    /// Connections and requests over all workers, which `[limits]` bounds.
    pub gate: Arc<Gate>,
    /// The port of the TLS listener, for redirects.
    https_port: u16,
    /// Where the process is in its life; written by the control thread.
    phase: watch::Sender<Phase>,
    /// Whether WebSockets have to go although other requests may go on; written by the control thread.
    tunnels: watch::Sender<bool>,
    /// Whether another process has taken over; written by the control thread, read for each answer.
    handed_over: AtomicBool,
    /// Counts the snapshots published, to tell of new ones.
    published: watch::Sender<u64>,
    /// Wishes for a reload; read by the control thread.
    reloads: mpsc::Sender<Reload>,
    /// How the last attempt to load the configuration went; written by the control thread.
    loaded: Mutex<Loaded>,
    /// Tells what has changed to those who keep or share bindings.
    pub courier: Courier,
    /// A backend that another replica has is looked for: names are to be looked up now.
    pub sought: Notify,
    /// Shares sessions with other replicas, if that is configured.
    pub shared: Option<Arc<Shared>>,
    /// The processes before and after this one, while they serve the same sessions.
    pub kin: Kin,
}

/// How the last attempt to load the configuration went.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// When the configuration in use was loaded.
    pub at: SystemTime,
    /// Why a later one was not.
    pub error: Option<Arc<str>>,
}

/// A wish for a reload.
#[derive(Debug)]
pub struct Reload {
    /// Only to tell what it would change.
    pub dry: bool,
    /// Where to tell what came of it: what changed, or why nothing did.
    pub done: oneshot::Sender<Result<Changes, String>>,
}

/// How long a request waits for a home that only another replica has heard of.
const HOME_TO_COME: Duration = Duration::from_secs(2);
/// Wishes for a reload at one time; more are refused.
const MAX_RELOADS: usize = 8;

/// Backends of a pool that have left and are remembered; of older ones the sessions have ended.
const MAX_FORMER: usize = 4096;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Sockets are bound, workers not yet all accepting.
    Starting,
    /// Serving.
    Ready,
    /// Another process has the sockets, and whoever waits there; what is under way here may finish, and clients
    /// are told to come again, which leads them to the new process.
    HandedOver,
    /// The same, but that requests have had their time: WebSockets alone go on.
    Carrying,
    /// No new connections; what is under way may finish.
    Draining,
    /// Whatever is still open is closed.
    Forced,
}

// === impl Snapshot ===

impl Snapshot {
    /// Builds the world that `config` describes, each pool with the backends that `lists` has for it, in the
    /// same order. What `previous` has by the same name is used again: bindings, health, drains, counters.
    pub fn build(
        config: Arc<Config>,
        materials: Arc<Materials>,
        lists: &[Vec<Listed>],
        families: &Families,
        previous: Option<&Self>,
    ) -> Self {
        let old = |name: &str| previous?.pools.iter().find(|pool| *pool.name == *name);
        let files = materials.keyrings.iter().zip(&materials.backends);
        let each = config.pools.iter().zip(files).zip(lists);
        let pools = each
            .map(|((pool, (keys, tls)), list)| {
                Pool::build(pool, keys, tls.as_ref(), list, families, old(&pool.name))
            })
            .map(Arc::new)
            .collect();
        let hsts = config.hsts.map(|age| {
            HeaderValue::try_from(format!("max-age={}", age.as_secs())).expect("digits are a field value")
        });
        let kept = previous.and_then(|previous| previous.rate.clone());
        let rate = config.edge.rate.map(|rate| match kept {
            Some(kept) if kept.rate() == rate => kept,
            _ => Arc::new(RateLimit::new(rate)),
        });
        Self { routes: Routes::new(&config.routes), pools, materials, hsts, rate, config }
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| *pool.name == *name)
    }
}

// === impl Pool ===

impl Pool {
    fn build(
        config: &config::Pool,
        keys: &[SealingKey],
        tls: Option<&ClientTls>,
        list: &[Listed],
        families: &Families,
        previous: Option<&Arc<Self>>,
    ) -> Self {
        let affinity = match previous {
            Some(previous) => Arc::clone(&previous.affinity),
            None => Arc::new(Affinity::new(clock::tick())),
        };
        affinity.watch().follow(&config.affinity.keys);
        let names: Vec<_> =
            list.iter().map(|listed| (&*listed.config.name, listed.config.weight.get())).collect();
        let roster = affinity.roster(&names, config.affinity.session_timeout, clock::tick());
        let backends: Vec<_> = list
            .iter()
            .zip(roster.members())
            .map(|(listed, member)| {
                let name = &listed.config.name;
                let old = previous.and_then(|previous| previous.backend(name));
                let former = previous.filter(|_| old.is_none()).and_then(|previous| previous.former(name));
                match (old, former) {
                    // One that leaves goes on as it was: the configuration says nothing of it any more.
                    (Some(old), _) if listed.leaving || old.is(config, listed, tls) => {
                        return Arc::clone(old);
                    }
                    (None, Some(former)) if listed.discovered.is_some() => {
                        came_back(config, listed, former, member, &affinity);
                    }
                    _ => {}
                }
                let old = old.or(former).map(|old| &**old);
                Arc::new(Backend::new(config, listed, Arc::clone(member), families, tls, old))
            })
            .collect();
        backends.iter().for_each(|backend| backend.limit(&config.limits));
        let budget = match previous {
            Some(previous) => Arc::clone(&previous.budget),
            None => Arc::new(RetryBudget::new(&config.limits, clock::now())),
        };
        budget.set(&config.limits);
        let former = previous.map_or_else(Vec::new, |previous| previous.left_behind(&roster));
        Self {
            name: config.name.clone(),
            settings: config.affinity.clone(),
            issuer: Issuer::new(config, keys, || families.tokens(&config.name)),
            affinity,
            roster,
            backends,
            former,
            health: config.health.clone(),
            timeouts: config.timeouts.clone(),
            keep_alive: config.keep_alive,
            instance_header: config.instance_header.clone(),
            refused: families.refused(&config.name),
            limits: config.limits.clone(),
            budget,
            exhausted: families.exhausted(&config.name),
        }
    }

    /// The backend of this name.
    pub fn backend(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| backend.name() == name)
    }

    /// The backend that has left and had this name.
    pub fn former(&self, name: &str) -> Option<&Arc<Backend>> {
        self.former.iter().find(|backend| backend.name() == name)
    }

    /// The backends that are not in the next roster, and may still be remembered by sessions: those that have
    /// just left, and of the others those that have sessions in the table or requests under way.
    fn left_behind(&self, next: &Roster) -> Vec<Arc<Backend>> {
        let stats = self.affinity.stats();
        let books = |backend: &Backend| {
            // Another may have its slot by now.
            stats.backends.iter().find(|own| Arc::ptr_eq(&own.member, &backend.member))
        };
        let remembered = |backend: &&Arc<Backend>| {
            books(backend).is_some_and(|own| own.live + own.retained > 0 || backend.member.in_flight() > 0)
        };
        let earlier = self.former.iter().filter(remembered);
        let left: Vec<_> = earlier
            .chain(&self.backends)
            .filter(|backend| next.index_of(backend.member.slot()).is_none())
            .cloned()
            .collect();
        let spare = left.len().saturating_sub(MAX_FORMER);
        for backend in left[..spare].iter().filter(|backend| books(backend).is_some()) {
            // Nobody would know any more whether its sessions are still there.
            self.affinity.restarted(backend.member.slot(), clock::tick());
        }
        left[spare..].to_vec()
    }

    /// A backend's answer carried this instance id: when it is a new one, the sessions that lived there
    /// are gone.
    pub fn heard_instance(&self, backend: &Backend, id: &[u8]) {
        self.conclude(backend, backend.heard(id));
    }

    /// Another process heard of the instance of a backend whose id has this hash.
    pub fn heard_instance_hash(&self, backend: &Backend, hash: u64) {
        self.conclude(backend, backend.heard_hash(hash));
    }

    fn conclude(&self, backend: &Backend, instance: Instance) {
        if instance == Instance::New {
            let lost = backend.member.live();
            backend.lost(lost);
            self.affinity.restarted(backend.member.slot(), clock::tick());
            tracing::warn!(pool = %self.name, backend = backend.name(), lost, "backend has restarted: its sessions are gone");
        }
    }
}

/// An address that had left was found again: it may be another process that got the address of the one before.
/// Unless it tells that it is the same instance, the sessions that lived there have ended.
fn came_back(config: &config::Pool, listed: &Listed, former: &Backend, member: &Member, affinity: &Affinity) {
    let tells = config.instance_header.is_some();
    let same = listed.told.as_deref().is_some_and(|id| tells && former.is_still(id));
    former.standing.new_address();
    member.set_up(true, clock::tick());
    if !same {
        affinity.restarted(member.slot(), clock::tick());
        former.standing.instances.forget();
    }
    tracing::info!(pool = %config.name, backend = member.name(), same, "the address of a backend that had left is back");
}

// === impl World ===

impl World {
    /// A world that starts with this snapshot.
    /// The receiver gets the wishes for a reload.
    pub fn new(snapshot: Snapshot, hasher: KeyHasher, https_port: u16) -> (Self, mpsc::Receiver<Reload>) {
        let (reloads, wishes) = mpsc::channel(MAX_RELOADS);
        let world = Self {
            https_port,
            snapshot: ArcSwap::from_pointee(snapshot),
            hasher,
            gate: Arc::default(),
            phase: watch::Sender::new(Phase::Starting),
            tunnels: watch::Sender::new(false),
            handed_over: AtomicBool::new(false),
            published: watch::Sender::new(0),
            reloads,
            loaded: Mutex::new(Loaded { at: clock::wall(), error: None }),
            courier: Courier::default(),
            sought: Notify::new(),
            shared: None,
            kin: Kin::default(),
        };
        (world, wishes)
    }

    /// Replaces the snapshot: requests under way keep the one they have.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.published.send_modify(|count| *count += 1);
    }

    /// Tells of new snapshots.
    pub fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Waits for the home of a session that another replica has told of, if it is not in the pool yet: replicas
    /// hear of a new backend at different times. None when there is nothing to wait for, or it did not come.
    pub async fn home_to_come(&self, pool: &Pool, keys: &Keys) -> Option<Arc<Pool>> {
        let absent = |pool: &Pool| {
            let now = clock::tick();
            keys.as_slice().iter().any(|key| pool.affinity.awaits_home(&pool.roster, *key, now))
        };
        if !absent(pool) {
            return None;
        }
        let mut published = self.published();
        self.sought.notify_waiters();
        let come = async {
            loop {
                let newer = self.snapshot.load().pool(&pool.name).cloned();
                match newer {
                    Some(newer) if absent(&newer) => published.changed().await.ok()?,
                    newer => return newer,
                }
            }
        };
        timeout(HOME_TO_COME, come).await.ok().flatten()
    }

    /// Asks the control thread to load the configuration anew, or only what that would change, if it is `dry`.
    ///
    /// # Errors
    ///
    /// Why the old configuration is kept.
    pub async fn reload(&self, dry: bool) -> Result<Changes, String> {
        let (done, result) = oneshot::channel();
        self.reloads.try_send(Reload { dry, done }).map_err(|_| "too many reloads at once".to_owned())?;
        result.await.unwrap_or_else(|_| Err("the process is stopping".to_owned()))
    }

    /// How the last attempt to load the configuration went.
    pub fn loaded(&self) -> Loaded {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An attempt to load the configuration ended; `error` says why it failed.
    pub fn set_loaded(&self, error: Option<&str>) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.error = error.map(Arc::from);
        if error.is_none() {
            loaded.at = clock::wall();
        }
    }

    /// The port of the TLS listener.
    pub fn https_port(&self) -> u16 {
        self.https_port
    }

    /// Where the process is in its life.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Follows the phase.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether another process has taken over.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// Follows whether WebSockets have to go.
    pub fn tunnels(&self) -> watch::Receiver<bool> {
        self.tunnels.subscribe()
    }

    /// From now on WebSockets have to go.
    pub fn end_tunnels(&self) {
        self.tunnels.send_replace(true);
    }

    /// Moves on to a later phase; never back.
    pub fn advance(&self, phase: Phase) {
        if phase == Phase::HandedOver {
            self.handed_over.store(true, Ordering::Relaxed);
        }
        self.phase.send_if_modified(|current| {
            let later = phase > *current;
            if later {
                *current = phase;
            }
            later
        });
    }
}
