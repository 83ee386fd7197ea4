//! The composition root: bind every socket, then start, then wait, then drain.
//!
//! Nothing is started before everything that can fail for a reason of the user's has been tried:
//! certificates, log file, sockets. A worker or a background task that ends by itself is an event: it
//! brings the process down, loudly.

mod ending;
mod worker;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, OnceLock},
};

use anyhow::{Context, anyhow};
use prometheus::Registry;
use tokio::{sync::mpsc, task::LocalSet};

use self::worker::{Workers, runtime};
use crate::{
    admin::{self, Admin, AffinityCollector},
    affinity::KeyHasher,
    backend::Families,
    clock,
    config::{self, Config, Listen, format_elapsed},
    control::{self, Discovery, DiscoveryMetrics, ReloadMetrics, Reloader, Source},
    handover::{self, Giver, Taker},
    listener::{self, BindError, Inherited, LocalSocket, SocketError},
    materials::Materials,
    proxy::{AccessLog, Metrics, Writer},
    secret::Secret,
    store::{
        file::{Keeper, Releaser, StateFile},
        redis::{Keeper as SharedKeeper, Shared},
    },
    tls::Ticketer,
    world::{Phase, Reload, Snapshot, World},
};

/// A proxy whose sockets are bound and whose certificates are loaded, but which serves nobody yet.
pub struct App {
    world: Arc<World>,
    registry: Registry,
    metrics: Arc<Metrics>,
    log: Option<(AccessLog, Writer)>,
    https: Vec<TcpListener>,
    http: Vec<TcpListener>,
    admin: Option<TcpListener>,
    admin_socket: Option<LocalSocket>,
    state: Option<StateFile>,
    /// Closes the state file, once there is one, for the process to come.
    leave_file: Arc<OnceLock<Releaser>>,
    file: Option<PathBuf>,
    bound: Listen,
    reloader: Reloader,
    reloads: mpsc::Receiver<Reload>,
    discovery: Discovery,
    /// The process to take over from.
    taker: Option<Taker>,
    /// What the process to come can be given, and the socket where it asks.
    giver: Option<(Giver, LocalSocket)>,
}

/// File descriptors for listeners, logs, checks, operators.
const OTHER_FILES: u64 = 256;

// === impl App ===

impl App {
    /// Does everything that can fail. `inherited` are sockets that were opened for this process, `taker` has what
    /// a running process gives to this one, which serves until this one does.
    ///
    /// # Errors
    ///
    /// Bad certificates or key files, busy ports, a log that cannot be opened: each says what to change.
    pub fn bind(
        config: Config,
        source: Source,
        mut inherited: Inherited,
        taker: Option<Taker>,
    ) -> anyhow::Result<Self> {
        let workers = config.workers.get();
        let room = raise_file_limit(config.limits.connections.get());
        let ticketer = Ticketer::new()?;
        let materials = Materials::load_first(&config, &ticketer)?;
        let handover = config.state.handover.as_deref();
        let mut open = |listener, flag, address, count| {
            let opened = listener::open(listener, flag, address, count, &mut inherited);
            opened.map_err(|error| {
                let in_use = matches!(error, BindError::InUse { .. });
                beside(error.into(), handover.filter(|_| in_use && taker.is_none()))
            })
        };
        let https = open("https", "--https", config.listen.https, workers)?;
        let http = match config.listen.http {
            Some(address) => open("http", "--http", address, workers)?,
            None => Vec::new(),
        };
        let admin = match config.listen.admin {
            Some(address) => open("admin", "--admin", address, 1)?.pop(),
            None => None,
        };
        inherited.close_rest();
        let local_socket = |setting, path| match taker {
            // It replaces that of the process before, but not yet.
            Some(_) => LocalSocket::prepare(setting, path),
            None => LocalSocket::bind(setting, path),
        };
        let admin_socket = config.admin.socket.as_deref();
        let admin_socket = admin_socket.map(|path| local_socket("[admin] socket", path)).transpose()?;
        let handover = handover
            .map(|path| {
                local_socket("[state] handover", path).map_err(|error| {
                    let in_use = matches!(error, SocketError::InUse { .. });
                    beside(error.into(), in_use.then_some(path))
                })
            })
            .transpose()?;
        let file = source.file.clone();
        let local = |socket: Option<&TcpListener>| socket.map(TcpListener::local_addr).transpose();
        let bound = Listen {
            https: local(https.first())?.context("no worker, no listener")?,
            http: local(http.first())?,
            redirect_port: config.listen.redirect_port,
            admin: local(admin.as_ref())?,
            proxy_protocol: config.listen.proxy_protocol.clone(),
        };
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::register(&registry)?);
        let families = Families::register(&registry)?;
        process_metrics(&registry)?;
        let log =
            AccessLog::open(&config, metrics.log_lost.clone()).with_context(|| match &config.access_log {
                config::AccessLog::File(file) => format!(
                    "cannot open the access log {} (choose another with --access-log or `access_log`)",
                    file.display()
                ),
                _ => "cannot start the access log".to_owned(),
            })?;
        let secret_file = config.secret_file.as_deref();
        let state = config.key_is_of_state();
        let secret = match &taker {
            Some(taker) => taker.secret(secret_file, state.is_some())?,
            None => {
                let secret = Secret::load(secret_file)?;
                secret.announce(state);
                secret
            }
        };
        // What is discovered joins before the workers start.
        let lists = control::written(&config);
        let snapshot = Snapshot::build(Arc::new(config), Arc::new(materials), &lists, &families, None);
        let hasher = secret.hasher();
        let shared = share(&snapshot.config.state, &hasher, &registry)?;
        let (mut world, reloads) = World::new(snapshot, hasher, bound.https.port());
        world.shared = shared;
        world.gate.set_room(room);
        let world = Arc::new(world);
        let (discovery, findings) =
            Discovery::new(Arc::clone(&world), DiscoveryMetrics::register(&registry)?);
        let state = state_file(&world, taker.is_some(), &registry)?;
        let reloader = Reloader::new(
            Arc::clone(&world),
            source,
            families,
            ticketer,
            ReloadMetrics::register(&registry)?,
            findings,
        );
        registry.register(Box::new(AffinityCollector(Arc::clone(&world))))?;
        let sockets = [("https", &https[..]), ("http", &http), ("admin", admin.as_slice())];
        let sockets = sockets.iter().flat_map(|(name, sockets)| sockets.iter().map(|socket| (*name, socket)));
        // What only one process can have open is let go of here, and opened by the other after `Taking::ready`.
        let leave_file: Arc<OnceLock<Releaser>> = Arc::default();
        let release = {
            let leave_file = Arc::clone(&leave_file);
            move || leave_file.get().into_iter().for_each(Releaser::release)
        };
        let giver = handover
            .map(|socket| Giver::new(&world, secret, sockets, release).map(|giver| (giver, socket)))
            .transpose()?;
        Ok(Self {
            world,
            registry,
            metrics,
            log,
            https,
            http,
            admin,
            admin_socket,
            state,
            leave_file,
            file,
            bound,
            reloader,
            reloads,
            discovery,
            taker,
            giver,
        })
    }

    /// The addresses that the sockets are bound to.
    pub fn bound(&self) -> &Listen {
        &self.bound
    }

    /// Serves until a signal asks to stop and everything has ended, or until something breaks.
    /// `ready` is called once all workers accept, with what is served then.
    ///
    /// # Errors
    ///
    /// When a part of the program ends that should not.
    pub fn run(self, ready: impl FnOnce(&Listen, &Snapshot)) -> anyhow::Result<()> {
        let runtime = runtime()?;
        LocalSet::new().block_on(&runtime, self.serve(ready))
    }

    async fn serve(mut self, ready: impl FnOnce(&Listen, &Snapshot)) -> anyhow::Result<()> {
        // Before any worker: a signal from here on drains.
        let mut stop = control::stop_signals()?;
        let mut background = tokio::task::JoinSet::new();
        background.spawn_local(control::heed_reopening()?);
        background.spawn_local(self.discovery.run());
        tokio::select! {
            () = self.reloader.first_answers() => {}
            signal = stop.next() => {
                tracing::info!(signal, "stopping before the start");
                return Ok(());
            }
        }
        let world = Arc::clone(&self.world);
        let mut taking = match self.taker {
            // After the first answers of DNS: what is known of backends is for those that there are.
            Some(mut taker) => {
                taker.restore(&world)?;
                Some(taker.follow(&world)?)
            }
            None => {
                // With the backends that were discovered, and before anybody is served.
                if let Some(state) = &mut self.state {
                    state.restore(&world.snapshot.load())?;
                }
                None
            }
        };
        let mut keeper = self.state.map(|state| state.start(&world)).transpose()?;
        if let Some(keeper) = &keeper {
            // Nobody has set it before.
            let _ = self.leave_file.set(keeper.releaser());
        }
        let sharing = match &world.shared {
            Some(shared) => {
                let deliveries = world.courier.subscribe("redis");
                Some(SharedKeeper::start(Arc::clone(shared), Arc::clone(&world), deliveries)?)
            }
            None => None,
        };
        // After the last subscription, and before anybody can change a binding.
        world.courier.open(&world.snapshot.load());
        if let Some(shared) = &world.shared {
            // Clients wait in the sockets meanwhile.
            shared.met().await;
        }
        let (log, writer) = self.log.unzip();
        let sockets = (self.https, self.http);
        let mut workers = Workers::start(&world, &self.metrics, log, sockets)?;
        workers.accept().await?;
        let (mut admin_socket, mut giver) = (self.admin_socket, self.giver);
        if let Some(taking) = &mut taking {
            // From here on clients of the process before are this one's.
            taking.ready().await?;
            for socket in admin_socket.iter_mut().chain(giver.as_mut().map(|(_, socket)| socket)) {
                if let Err(error) = socket.install() {
                    tracing::error!(%error, "a socket of the process before is not replaced");
                }
            }
            if let Some(keeper) = &keeper {
                keeper.open(taking.freed()).await;
            }
        }

        background.spawn_local(control::expire(Arc::clone(&world)));
        background.spawn_local(control::advise(Arc::clone(&world)));
        background.spawn_local(control::carry(Arc::clone(&world)));
        if let Some(sharing) = &sharing {
            background.spawn_local(sharing.ended());
        }
        background.spawn_local(control::end_drains(Arc::clone(&world)));
        background.spawn_local(control::watch_health(Arc::clone(&world)));
        background.spawn_local(self.reloader.run(self.reloads));
        let requests = Arc::clone(&self.metrics);
        let requests = move || requests.requests_total();
        let admin = Rc::new(Admin::new(self.registry, Arc::clone(&world), self.file, requests)?);
        background.spawn_local(admin::publish_events(Rc::clone(&admin)));
        if let Some(socket) = admin_socket {
            let admin = Rc::clone(&admin);
            background.spawn_local(async move {
                if let Err(error) = admin::serve_socket(admin, socket).await {
                    tracing::error!(%error, "the admin socket broke");
                }
            });
        }
        if let Some(listener) = self.admin {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            background.spawn_local(async move {
                if let Err(error) = admin::serve(admin, listener).await {
                    tracing::error!(%error, "the admin listener broke");
                }
            });
        }
        let giver = giver.map(|(giver, socket)| {
            let giver = Arc::new(giver);
            let serving = Arc::clone(&giver);
            background.spawn_local(async move {
                if let Err(error) = serving.serve(socket).await {
                    tracing::error!(%error, "the socket for hand-overs broke");
                }
            });
            giver
        });
        let mut phase = world.watch();
        world.advance(Phase::Ready);
        ready(&self.bound, &world.snapshot.load());

        let outcome = tokio::select! {
            // The sender cannot be gone: the world has it.
            _ = phase.wait_for(|phase| *phase == Phase::HandedOver) => Ok(()),
            signal = stop.next() => {
                tracing::info!(signal, "draining");
                Ok(())
            }
            () = workers.one_ended() => Err(anyhow!("a worker ended by itself")),
            () = keeper_ended(keeper.as_mut()) => Err(anyhow!("the writer of the state file ended by itself")),
            ended = background.join_next(), if !background.is_empty() => {
                Err(anyhow!("a background task ended by itself: {ended:?}"))
            }
        };
        // A worker without clients ends at once then, which is no fault.
        let outcome = if world.is_handed_over() { Ok(()) } else { outcome };
        if !world.is_handed_over() {
            world.advance(Phase::Draining);
            giver.iter().for_each(|giver| giver.withdraw());
        }
        let began = clock::now();
        let all = async {
            workers.all_ended().await;
            if let Some(taking) = taking.as_ref().filter(|_| world.is_handed_over()) {
                // What the process before still learns goes on to the next one through this one.
                taking.ended().await;
            }
        };
        if ending::drained(&world, &mut stop, all).await && world.is_handed_over() {
            tracing::info!(took = %format_elapsed(clock::now() - began), "drained, ending");
        }
        world.advance(Phase::Forced);
        let joined = tokio::task::spawn_blocking(move || workers.join()).await?;
        if let Some(giver) = giver.clone() {
            tokio::task::spawn_blocking(move || giver.settle()).await?;
        }
        world.courier.flush(&world.snapshot.load_full()).await;
        if let Some(giver) = giver {
            tokio::task::spawn_blocking(move || giver.finish()).await?;
        }
        if let Some(keeper) = keeper {
            keeper.finish().await;
        }
        if let Some(sharing) = sharing {
            tokio::task::spawn_blocking(move || sharing.join()).await?;
        }
        if let Some(writer) = writer {
            tokio::task::spawn_blocking(move || writer.join()).await?;
        }
        outcome.and(joined)
    }
}

/// Why this process cannot start beside another one; with a hint, where that one can be taken over from here.
fn beside(error: anyhow::Error, handover: Option<&Path>) -> anyhow::Error {
    match handover.filter(|path| handover::is_running(path)) {
        Some(path) => anyhow!(
            "{error}; a homing is running at {}: to take over from it, `homing serve --takeover`",
            path.display()
        ),
        None => error,
    }
}

/// The state file, if there is to be one; nobody else has it from here on, but for the process to take over from.
fn state_file(world: &World, takes_over: bool, registry: &Registry) -> anyhow::Result<Option<StateFile>> {
    let snapshot = world.snapshot.load();
    let open = if takes_over { StateFile::closed } else { StateFile::open };
    let file = snapshot.config.state.file.as_deref();
    file.map(|file| open(file, &world.hasher, registry)).transpose()
}

/// Resolves when the writer of the state file has ended; never without one.
async fn keeper_ended(keeper: Option<&mut Keeper>) {
    match keeper {
        Some(keeper) => keeper.ended().await,
        None => std::future::pending().await,
    }
}

/// What is needed to share sessions with other replicas, if that is configured.
fn share(
    state: &config::State,
    hasher: &KeyHasher,
    registry: &Registry,
) -> anyhow::Result<Option<Arc<Shared>>> {
    let Some(redis) = &state.redis else { return Ok(None) };
    let replica = match &state.replica {
        Some(name) => name.to_string(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    Ok(Some(Arc::new(Shared::new(redis, &replica, hasher, registry)?)))
}

/// Each client connection needs a file descriptor, and one more to a backend. The usual limit of a shell, 1024,
/// is far below what the system allows. What clients may have of it: the rest is for backends, health checks and
/// operators, who must not find the door shut because too many clients stand in it.
fn raise_file_limit(connections: usize) -> usize {
    let wanted = 2 * connections as u64 + OTHER_FILES;
    let limit = match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of file descriptors");
            return usize::MAX;
        }
    };
    if limit >= wanted {
        return usize::MAX;
    }
    // Connections to backends are shared: fewer than one for each client may do.
    let room = usize::try_from((limit - OTHER_FILES.min(limit / 4)) / 4 * 3).unwrap_or(usize::MAX).max(1);
    if room < connections {
        tracing::warn!(
            limit,
            wanted,
            connections = room,
            "fewer file descriptors than `limits.connections` may need, so fewer connections are accepted: raise the \
             limit (ulimit -n, LimitNOFILE)"
        );
    }
    room
}

fn process_metrics(registry: &Registry) -> prometheus::Result<()> {
    use prometheus::{IntGaugeVec, Opts, process_collector::ProcessCollector};
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let build =
        IntGaugeVec::new(Opts::new("homing_build_info", "The version that runs; always 1."), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))
}
