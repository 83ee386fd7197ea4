//! The side that is running and will be replaced.
//!
//! Until the new process says that it accepts clients, nothing here changes: whatever goes wrong before is
//! logged, and forgotten.

use std::{
    fmt, io,
    net::TcpListener,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{net::UnixListener, time::sleep};

use super::{
    backends,
    exchange::{Ends, Side, send_all},
    link::{Link, MAX_FILES},
    message::{Labels, Offer, OfferedSecret, VERSION, encode, features, greeting, kind, version},
    verdict::Verdict,
};
use crate::{
    clock, issue,
    listener::LocalSocket,
    secret::Secret,
    world::{Phase, World},
};

/// What a new process can be given.
pub struct Giver {
    world: Arc<World>,
    secret: Secret,
    /// The listening sockets, with the listeners they are of; none once this process has let go of them.
    sockets: Mutex<Option<Vec<(&'static str, TcpListener)>>>,
    /// Called when the new process serves, before it opens what only one process can have open.
    release: Box<dyn Fn() + Send + Sync>,
    /// Held while a new process is being given things.
    turn: Mutex<()>,
    /// Held from the moment at which a new process has taken over until it has been told so.
    leaving: Mutex<()>,
    /// Connections that are looked at.
    guests: AtomicUsize,
    /// The thread that tells the process that has taken over of changes.
    telling: Mutex<Option<JoinHandle<()>>>,
}

/// Why nothing was given.
#[derive(Debug, thiserror::Error)]
enum GiveError {
    /// Whoever connected is no `homing`, or is gone.
    #[error("{0}")]
    Link(#[from] io::Error),
    /// Whoever connected gets this answer.
    #[error("{0}")]
    Refused(String),
}

/// The longest wait for the new process to say or to read something, until it is ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait for the new process to be ready once it has everything.
const START: Duration = Duration::from_secs(60);
/// Processes before this one that may still run when another takes over: each has a table of its own.
const MAX_EARLIER: u32 = 8;
/// Connections at one time: one gets everything, the others the reason why not.
const MAX_GUESTS: usize = 8;
/// What another user's process hears.
const FOREIGN: &str =
    "this process belongs to another user: only that user's and root's may take over from the running one";
/// Pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(50);

// === impl Giver ===

impl Giver {
    /// One that can give these sockets. `release` is called when a new process has taken over: what only one
    /// process can have open must be closed when it returns.
    ///
    /// # Errors
    ///
    /// When there are no file descriptors left.
    pub fn new<'a>(
        world: &Arc<World>,
        secret: Secret,
        sockets: impl IntoIterator<Item = (&'static str, &'a TcpListener)>,
        release: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let clones = sockets.into_iter().map(|(listener, socket)| Ok((listener, socket.try_clone()?)));
        Ok(Self {
            world: Arc::clone(world),
            secret,
            sockets: Mutex::new(Some(clones.collect::<io::Result<_>>()?)),
            release: Box::new(release),
            turn: Mutex::default(),
            leaving: Mutex::default(),
            guests: AtomicUsize::new(0),
            telling: Mutex::default(),
        })
    }

    /// Waits for new processes at this socket, for as long as this process runs; one that comes after another
    /// has taken over finds nobody.
    ///
    /// # Errors
    ///
    /// Only when the socket itself is broken.
    pub async fn serve(self: Arc<Self>, socket: LocalSocket) -> io::Result<()> {
        let (listener, file) = socket.into_parts();
        let listener = UnixListener::from_std(listener)?;
        let mut phase = self.world.watch();
        loop {
            let accepted = tokio::select! {
                // The sender cannot be gone: the world has it.
                _ = phase.wait_for(|phase| *phase > Phase::Ready) => break,
                accepted = listener.accept() => accepted.and_then(|(stream, _)| stream.into_std()),
            };
            let welcomed = accepted.and_then(|stream| Arc::clone(&self).welcome(stream));
            if let Err(error) = welcomed {
                tracing::warn!(%error, "cannot hand over for now");
                sleep(PAUSE).await;
            }
        }
        drop((listener, file));
        std::future::pending().await
    }

    /// Lets go of the sockets: nobody may wait at one that is not accepted from any more.
    pub fn withdraw(&self) {
        *lock(&self.sockets) = None;
    }

    /// Waits until a new process that has just taken over will be told so, whatever ends now.
    pub fn settle(&self) {
        drop(lock(&self.leaving));
    }

    /// Waits until the new process, if there is one, has heard of the last change: to be called when nothing
    /// changes any more and the courier has been flushed. Bounded, as every write is.
    pub fn finish(&self) {
        if let Some(thread) = lock(&self.telling).take() {
            // It has logged what happened.
            let _ = thread.join();
        }
    }

    /// Looks at whoever has connected, on a thread of its own.
    fn welcome(self: Arc<Self>, stream: UnixStream) -> io::Result<()> {
        let mut link = Link::new(stream, PATIENCE)?;
        if !link.is_trusted()? {
            tracing::warn!(pid = link.peer(), "hand-over refused: who asks for it is another user");
            // It may be gone; and there is always room for the first frame.
            let _ = link.send(kind::REFUSED, FOREIGN.as_bytes());
            return Ok(());
        }
        let guests = self.guests.fetch_add(1, Relaxed);
        let session = move || {
            let _guest = Guest(&self.guests);
            if guests < MAX_GUESTS {
                self.attend(link);
            }
        };
        std::thread::Builder::new().name("homing-give".to_owned()).spawn(session).map(drop)
    }

    fn attend(self: &Arc<Self>, mut link: Link) {
        match self.give(&mut link) {
            Ok(()) => {}
            Err(GiveError::Refused(why)) => {
                tracing::warn!(%why, "hand-over refused");
                // It may be gone.
                let _ = link.send(kind::REFUSED, why.as_bytes());
            }
            Err(GiveError::Link(error)) if self.world.is_handed_over() => {
                tracing::warn!(%error, "the process that has taken over broke the link");
            }
            Err(GiveError::Link(error)) => {
                let pid = link.peer();
                if is_end(&error) {
                    tracing::warn!(
                        "the new process (pid {pid}) ended before it served, see its log: going on as before"
                    );
                } else {
                    tracing::warn!(pid, %error, "the new process did not take over: going on as before");
                }
            }
        }
        link.close();
    }

    fn give(self: &Arc<Self>, link: &mut Link) -> Result<(), GiveError> {
        let hello = match link.receive() {
            // It only looked whether somebody is here.
            Err(error) if is_end(&error) => return Ok(()),
            hello => hello?,
        };
        link.send(kind::HELLO, &greeting())?;
        match version(&hello.payload).filter(|_| hello.kind == kind::HELLO) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(GiveError::Refused(format!(
                    "the running process speaks version {VERSION} of the hand-over, the new one {other}: restart instead"
                )));
            }
            None => return Err(GiveError::Refused("this is no hand-over of homing".to_owned())),
        }
        // Whoever panicked with it is gone, and what it guards is nothing.
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(std::sync::TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => {
                return Err(GiveError::Refused("another process is taking over already".to_owned()));
            }
        };
        let earlier = self.world.kin.earlier();
        if earlier >= MAX_EARLIER {
            return Err(GiveError::Refused(format!(
                "{earlier} processes before the running one still carry WebSockets (`timeouts.handover_drain`): wait \
                 until one of them has ended, or end some by SIGTERM"
            )));
        }
        let began = clock::now();
        let verdict = Verdict::new()?;
        let sockets = self.offer(link, &verdict)?;
        let deliveries = self.world.courier.subscribe("hand-over");
        self.world.courier.open(&self.world.snapshot.load_full());
        // It may have to wait for DNS first.
        link.set_reading_patience(Some(START))?;
        self.expect(link, kind::TABLE)?;
        let bindings = send_all(link, &self.world)?;
        link.send(kind::TABLE_END, &bindings.to_be_bytes())?;
        tracing::info!(sockets, bindings, took = ?(clock::now() - began), "handing over to a new process");

        let ends = Ends::new(Side::Giver, features(&hello.payload));
        let exchange = Arc::clone(&ends.exchange);
        let writer = link.try_clone()?;
        let world = Arc::clone(&self.world);
        let writing = std::thread::Builder::new().name("homing-tell".to_owned()).spawn(move || {
            if let Err(error) = ends.write(writer, &world, deliveries) {
                tracing::warn!(%error, "cannot tell the new process of changes any more");
            }
        })?;
        let mut writing = Some(writing);
        self.world.kin.join(&exchange);
        let result = exchange.read(link, &self.world, |link, kind| {
            if kind != kind::READY || self.world.phase() > Phase::Ready {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "ready at the wrong time"));
            }
            // It may have been ready a while ago, if this process stood still; then somebody has to go on serving.
            if !link.is_open()? {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended"));
            }
            // From here on it is the end of this process that matters, not the patience with the new one.
            link.set_reading_patience(None)?;
            let _leaving = lock(&self.leaving);
            if !verdict.claim()? {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it has given up"));
            }
            *lock(&self.telling) = writing.take();
            self.world.advance(Phase::HandedOver);
            self.withdraw();
            tracing::info!(took = ?(clock::now() - began), "handed over: the new process accepts clients");
            let told = exchange.say_blocking(kind::RELEASED);
            // However slow the disk is: the new process serves meanwhile.
            (self.release)();
            told.and_then(|()| exchange.say_blocking(kind::FREED))
        });
        drop(turn);
        self.world.kin.leave(&exchange);
        if let Some(writing) = writing {
            // The link is closed: it ends.
            let _ = writing.join();
            result?;
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before it was ready").into());
        }
        Ok(result?)
    }

    /// Everything but bindings; how many sockets.
    fn offer(&self, link: &mut Link, verdict: &Verdict) -> Result<usize, GiveError> {
        // The files stay open until they are sent, even if this process lets go of them meanwhile.
        let sockets = match lock(&self.sockets).as_ref() {
            Some(sockets) => sockets
                .iter()
                .map(|(listener, socket)| Ok((*listener, socket.try_clone()?)))
                .collect::<io::Result<Vec<_>>>()?,
            None => return Err(GiveError::Refused("the running process is ending".to_owned())),
        };
        let secret = match self.secret.file() {
            Some(path) => OfferedSecret::File { path: path.display().to_string(), mark: self.secret.mark() },
            None => OfferedSecret::Given(self.secret.hex()),
        };
        let offer = Offer {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            sockets: sockets.len(),
            secret,
            process_key: issue::process_key_hex(),
            pools: backends::capture(&self.world.snapshot.load()),
        };
        link.send_files(kind::OFFER, &encode(&offer)?, &[verdict.as_fd()])?;
        for sockets in sockets.chunks(MAX_FILES) {
            let labels = Labels(sockets.iter().map(|(listener, _)| (*listener).to_owned()).collect());
            let files: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
            link.send_files(kind::SOCKETS, &encode(&labels)?, &files)?;
        }
        Ok(sockets.len())
    }

    fn expect(&self, link: &mut Link, kind: u8) -> io::Result<()> {
        if link.receive()?.kind == kind {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the new process says what does not come now"))
    }
}

impl fmt::Debug for Giver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Giver").finish_non_exhaustive()
    }
}

/// Counts one that has connected, until it is dropped.
struct Guest<'a>(&'a AtomicUsize);

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Whether the other side has ended, and not merely done something wrong.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
