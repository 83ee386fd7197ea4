//! The data plane's threads: each a runtime of its own, with sockets of its own.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, anyhow};
use futures_util::future::try_join_all;
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::LocalSet,
    time::{sleep, timeout},
    try_join,
};

use crate::{
    listener::{self, accept},
    proxy::{self, AccessLog, Metrics, Worker},
    socket::tune,
    world::{Phase, World},
};

/// The running threads.
#[derive(Debug)]
pub(super) struct Workers {
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    /// One message from each that accepts clients.
    accepting: mpsc::UnboundedReceiver<()>,
    /// One message from each that has ended.
    endings: mpsc::UnboundedReceiver<()>,
}

/// Tells that a worker has ended, whether it returned or panicked.
struct Ended(mpsc::UnboundedSender<()>);

/// How often workers close idle connections to backends.
const SWEEP: Duration = Duration::from_secs(5);
/// Time for the last bytes after everything was told to end.
const LAST_WORDS: Duration = Duration::from_millis(500);

type Sockets = Vec<TcpListener>;

// === impl Workers ===

impl Workers {
    /// Starts as many as are configured, and spreads the sockets (https, http) over them. Only they have the log
    /// from here on: when they are gone, so is its thread.
    pub(super) fn start(
        world: &Arc<World>,
        metrics: &Arc<Metrics>,
        log: Option<AccessLog>,
        (https, http): (Sockets, Sockets),
    ) -> anyhow::Result<Self> {
        let (accepts, accepting) = mpsc::unbounded_channel();
        let (ends, endings) = mpsc::unbounded_channel();
        let count = world.snapshot.load().config.workers.get();
        let https = listener::spread(https, count)?;
        let http = listener::spread(http, count)?;
        let mut threads = Vec::with_capacity(count);
        for (index, sockets) in https.into_iter().zip(http).enumerate() {
            let worker = (Arc::clone(world), Arc::clone(metrics), log.clone());
            let accepts = accepts.clone();
            let ended = Ended(ends.clone());
            let thread = thread::Builder::new()
                .name(format!("homing-{index}"))
                .spawn(move || {
                    let _ended = ended;
                    run_worker(worker, sockets, &accepts)
                })
                .context("cannot start a worker")?;
            threads.push(thread);
        }
        Ok(Self { threads, accepting, endings })
    }

    /// Waits until all of them accept clients.
    pub(super) async fn accept(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.threads.len() {
            tokio::select! {
                _ = self.accepting.recv() => {}
                _ = self.endings.recv() => return Err(anyhow!("a worker ended before it accepted clients")),
            }
        }
        Ok(())
    }

    /// Resolves when one of them has ended.
    pub(super) async fn one_ended(&mut self) {
        self.endings.recv().await;
    }

    /// Resolves when all of them have ended.
    pub(super) async fn all_ended(&mut self) {
        while self.endings.recv().await.is_some() {}
    }

    /// What became of them. A panic in one must not leave the others serving half of the clients.
    pub(super) fn join(self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(error),
                Err(_) => result = Err(anyhow!("a worker panicked")),
            }
        }
        result
    }
}

// === impl Ended ===

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens any more: then the process is ending anyway.
        let _ = self.0.send(());
    }
}

type Parts = (Arc<World>, Arc<Metrics>, Option<AccessLog>);

fn run_worker(
    (world, metrics, log): Parts,
    (https, http): (Sockets, Sockets),
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
            tokio::task::spawn_local(proxy::serve_plain(worker, stream, peer, permit));
        }
    };
    let ends = |phase| phase >= Phase::HandedOver;
    accept(listener, phase, ends, || worker.metrics.accept_failed.inc(), serve).await
}

/// A runtime on the thread that drives it.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
