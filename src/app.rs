//! The composition root: bind every socket, then start, then wait, then drain.
//!
//! Nothing is started before everything that can fail for a reason of the user's has been tried:
//! certificates, log file, sockets. A worker or a background task that ends by itself is an event: it
//! brings the process down, loudly.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, anyhow};
use futures_util::future::try_join_all;
use prometheus::Registry;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::LocalSet,
    time::{sleep, timeout},
    try_join,
};

use crate::{
    admin::{self, Admin, AffinityCollector},
    backend::Families,
    config::{self, Config, Listen},
    control::{self, Discovery, DiscoveryMetrics, ReloadMetrics, Reloader, Source},
    handover::{Giver, Taker},
    listener::{self, Inherited, LocalSocket, accept},
    materials::Materials,
    proxy::{self, AccessLog, Metrics, Worker, Writer},
    secret::Secret,
    socket::tune,
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

/// A running worker thread.
#[derive(Debug)]
struct Running {
    thread: JoinHandle<anyhow::Result<()>>,
}

/// Tells that a worker has ended, whether it returned or panicked.
struct Ended(mpsc::UnboundedSender<()>);

/// File descriptors for listeners, logs, checks, operators.
const OTHER_FILES: u64 = 256;
/// How often workers close idle connections to backends.
const SWEEP: Duration = Duration::from_secs(5);
/// Time for the last bytes after everything was told to end.
const LAST_WORDS: Duration = Duration::from_millis(500);

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
        raise_file_limit(config.limits.connections.get());
        let ticketer = Ticketer::new()?;
        let materials = Materials::load(&config, &ticketer)?;
        let https = listener::open("https", "--https", config.listen.https, workers, &mut inherited)?;
        let http = match config.listen.http {
            Some(address) => listener::open("http", "--http", address, workers, &mut inherited)?,
            None => Vec::new(),
        };
        let admin = match config.listen.admin {
            Some(address) => listener::open("admin", "--admin", address, 1, &mut inherited)?.pop(),
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
        let handover = config.state.handover.as_deref();
        let handover = handover.map(|path| local_socket("[state] handover", path)).transpose()?;
        let file = source.file.clone();
        let local = |socket: Option<&TcpListener>| socket.map(TcpListener::local_addr).transpose();
        let bound = Listen {
            https: local(https.first())?.context("no worker, no listener")?,
            http: local(http.first())?,
            admin: local(admin.as_ref())?,
        };
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::register(&registry)?);
        let families = Families::register(&registry)?;
        process_metrics(&registry)?;
        let log =
            AccessLog::open(&config.access_log, metrics.log_lost.clone()).with_context(|| {
                match &config.access_log {
                    config::AccessLog::File(file) => format!(
                        "cannot open the access log {} (choose another with --access-log or `access_log`)",
                        file.display()
                    ),
                    _ => "cannot start the access log".to_owned(),
                }
            })?;
        let secret_file = config.secret_file.as_deref();
        let secret = match &taker {
            Some(taker) => taker.secret(secret_file)?,
            None => Secret::load(secret_file)?,
        };
        // What is discovered joins before the workers start.
        let lists = control::written(&config);
        let snapshot = Snapshot::build(Arc::new(config), Arc::new(materials), &lists, &families, None);
        let (world, reloads) = World::new(snapshot, secret.hasher(), bound.https.port());
        let world = Arc::new(world);
        let (discovery, findings) =
            Discovery::new(Arc::clone(&world), DiscoveryMetrics::register(&registry)?);
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
        // What only one process can have open is let go of here, and opened by the other after `Taking::ready`:
        // so far there is no such thing.
        let release = || ();
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
    /// `ready` is called once all workers accept.
    ///
    /// # Errors
    ///
    /// When a part of the program ends that should not.
    pub fn run(self, ready: impl FnOnce(&Listen)) -> anyhow::Result<()> {
        let runtime = runtime()?;
        LocalSet::new().block_on(&runtime, self.serve(ready))
    }

    async fn serve(mut self, ready: impl FnOnce(&Listen)) -> anyhow::Result<()> {
        // Before any worker: a signal from here on drains.
        let mut stop = control::stop_signals()?;
        let mut background = tokio::task::JoinSet::new();
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
            None => None,
        };
        // Before anybody can change a binding.
        world.courier.open(&world.snapshot.load());
        let (log, writer) = self.log.unzip();
        let (accepting, mut acceptors) = mpsc::unbounded_channel();
        let (ended, mut endings) = mpsc::unbounded_channel();
        let mut workers = Vec::new();
        let count = world.snapshot.load().config.workers.get();
        let https = listener::spread(self.https, count)?;
        let http = listener::spread(self.http, count)?;
        for (index, sockets) in https.into_iter().zip(http).enumerate() {
            let worker = (Arc::clone(&world), Arc::clone(&self.metrics), log.clone());
            let accepting = accepting.clone();
            let ended = Ended(ended.clone());
            let thread = std::thread::Builder::new()
                .name(format!("homing-{index}"))
                .spawn(move || {
                    let _ended = ended;
                    run_worker(worker, sockets, &accepting)
                })
                .context("cannot start a worker")?;
            workers.push(Running { thread });
        }
        // Only the workers have these from here on: when they are gone, the log's thread ends, and so
        // does the wait for endings.
        drop((log, ended, accepting));
        for _ in 0..workers.len() {
            tokio::select! {
                _ = acceptors.recv() => {}
                _ = endings.recv() => return Err(anyhow!("a worker ended before it accepted clients")),
            }
        }
        let (mut admin_socket, mut giver) = (self.admin_socket, self.giver);
        if let Some(taking) = &mut taking {
            // From here on clients of the process before are this one's.
            taking.ready().await?;
            for socket in admin_socket.iter_mut().chain(giver.as_mut().map(|(_, socket)| socket)) {
                if let Err(error) = socket.install() {
                    tracing::error!(%error, "a socket of the process before is not replaced");
                }
            }
        }

        background.spawn_local(control::expire(Arc::clone(&world)));
        background.spawn_local(control::advise(Arc::clone(&world)));
        background.spawn_local(control::carry(Arc::clone(&world)));
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
        ready(&self.bound);

        let outcome = tokio::select! {
            // The sender cannot be gone: the world has it.
            _ = phase.wait_for(|phase| *phase == Phase::HandedOver) => Ok(()),
            signal = stop.next() => {
                tracing::info!(signal, "draining");
                Ok(())
            }
            _ = endings.recv() => Err(anyhow!("a worker ended by itself")),
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
        let drain = world.snapshot.load().config.timeouts.drain;
        let all = async {
            while endings.recv().await.is_some() {}
            if let Some(taking) = taking.as_ref().filter(|_| world.is_handed_over()) {
                // What the process before still learns goes on to the next one through this one.
                taking.ended().await;
            }
        };
        tokio::select! {
            () = all => {}
            signal = stop.next() => tracing::warn!(signal, "closing what is still open"),
            () = sleep(drain) => tracing::warn!(after = ?drain, "closing what is still open"),
        }
        world.advance(Phase::Forced);
        let joined = tokio::task::spawn_blocking(move || join_workers(workers)).await?;
        if let Some(giver) = giver.clone() {
            tokio::task::spawn_blocking(move || giver.settle()).await?;
        }
        world.courier.flush(&world.snapshot.load_full()).await;
        if let Some(giver) = giver {
            tokio::task::spawn_blocking(move || giver.finish()).await?;
        }
        if let Some(writer) = writer {
            tokio::task::spawn_blocking(move || writer.join()).await?;
        }
        outcome.and(joined)
    }
}

/// A process-wide panic in one worker must not leave the others serving half of the clients.
fn join_workers(workers: Vec<Running>) -> anyhow::Result<()> {
    let mut result = Ok(());
    for worker in workers {
        match worker.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => result = Err(error),
            Err(_) => result = Err(anyhow!("a worker panicked")),
        }
    }
    result
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens any more: then the process is ending anyway.
        let _ = self.0.send(());
    }
}

type Parts = (Arc<World>, Arc<Metrics>, Option<AccessLog>);

fn run_worker(
    (world, metrics, log): Parts,
    (https, http): (Vec<TcpListener>, Vec<TcpListener>),
    accepting: &mpsc::UnboundedSender<()>,
) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let worker = Rc::new(Worker::new(world, metrics, log));
    LocalSet::new().block_on(&runtime, async {
        let sweeper = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            loop {
                sleep(SWEEP).await;
                sweeper.sweep();
            }
        });
        let open = |sockets: Vec<TcpListener>| {
            sockets.into_iter().map(tokio::net::TcpListener::from_std).collect::<io::Result<Vec<_>>>()
        };
        let (https, http) = (open(https)?, open(http)?);
        // Whoever waits for it is told so by a worker's end, too.
        let _ = accepting.send(());
        let https = https.into_iter().map(|socket| accept_clients(&worker, socket, true));
        let http = http.into_iter().map(|socket| accept_clients(&worker, socket, false));
        try_join!(try_join_all(https), try_join_all(http)).context("a listener broke")?;
        // Draining: the sockets are closed, what is open may finish.
        let mut phase = worker.world.watch();
        tokio::select! {
            () = worker.open.none() => {}
            _ = phase.wait_for(|phase| *phase == Phase::Forced) => {
                // Connections have been told the same; their last bytes may still be on the way.
                let _ = timeout(LAST_WORDS, worker.open.none()).await;
            }
        }
        Ok(())
    })
}

async fn accept_clients(worker: &Rc<Worker>, listener: tokio::net::TcpListener, tls: bool) -> io::Result<()> {
    let phase = worker.world.watch();
    let serve = |stream, peer: SocketAddr| {
        // A peer that is gone already shows when it is read from.
        let _ = tune(&stream);
        let Some(permit) = worker.world.admit() else {
            worker.metrics.over_limit.inc();
            return;
        };
        if tls {
            tokio::task::spawn_local(proxy::serve_tls(worker, stream, peer, permit));
        } else {
            tokio::task::spawn_local(proxy::serve_plain(worker, stream, permit));
        }
    };
    let ends = |phase| phase >= Phase::HandedOver;
    accept(listener, phase, ends, || worker.metrics.accept_failed.inc(), serve).await
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Each client connection needs a file descriptor, and one more to a backend. The usual limit of a shell, 1024,
/// is far below what the system allows.
fn raise_file_limit(connections: usize) {
    let wanted = 2 * connections as u64 + OTHER_FILES;
    match rlimit::increase_nofile_limit(wanted) {
        // Connections to backends are shared: fewer than two for each client may do.
        Ok(limit) if limit < connections as u64 + OTHER_FILES => tracing::warn!(
            limit,
            wanted,
            "fewer file descriptors than `limits.connections` may need: raise the limit (ulimit -n, LimitNOFILE)"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit of file descriptors"),
    }
}

fn process_metrics(registry: &Registry) -> prometheus::Result<()> {
    use prometheus::{IntGaugeVec, Opts, process_collector::ProcessCollector};
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let build =
        IntGaugeVec::new(Opts::new("homing_build_info", "The version that runs; always 1."), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))
}
