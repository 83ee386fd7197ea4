//! The side that is new and takes over.

use std::{
    fmt, io,
    net::TcpListener,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    backends,
    entries::Reader,
    exchange::{Ends, Exchange, Side, absorb},
    link::{Frame, Link},
    message::{Labels, Offer, OfferedSecret, VERSION, decode, features, greeting, kind, version},
    tally::Tally,
    verdict::Verdict,
};
use crate::{
    clock, issue,
    listener::Inherited,
    secret::{Secret, SecretError},
    world::World,
};

/// What the running process has given; it serves until this one is [`ready`](Taking::ready).
pub struct Taker {
    link: Link,
    /// What the running process knows beyond the first version.
    features: u32,
    offer: Offer,
    verdict: Verdict,
    began: Instant,
}

/// A process that has everything, and goes on hearing from the one before until that ends.
#[derive(Debug)]
pub struct Taking {
    exchange: Arc<Exchange>,
    /// Resolves when the process before has stopped accepting.
    released: oneshot::Receiver<()>,
    /// Resolves when it has let go of what only one process can have, too.
    freed: Option<oneshot::Receiver<()>>,
    verdict: Verdict,
    /// Id of the process before.
    pid: u32,
    began: Instant,
}

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The configuration does not say where.
    #[error("nothing to take over from: the configuration has no `[state] handover`")]
    NotConfigured,
    /// No process is there.
    #[error(
        "nobody listens at {}, so there is nothing to take over: {error} (is a process running with the same `[state] handover`? To start without one, leave out --takeover)",
        path.display()
    )]
    Nobody {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It cannot be reached.
    #[error(
        "may not connect to {}: {error}; the running process is another user's, or the folder is closed to this one: take over as the user that runs it",
        path.display()
    )]
    Denied {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another user's process is there.
    #[error("{} belongs to another user's process: nothing is taken from it", .0.display())]
    Foreign(PathBuf),
    /// It speaks another version.
    #[error("the running process speaks version {0} of the hand-over, this one {VERSION}: restart instead")]
    Version(u32),
    /// It says no.
    #[error("the running process refuses: {0}")]
    Refused(String),
    /// The connection broke, or what came makes no sense.
    #[error("the hand-over broke off")]
    Broken(#[from] io::Error),
    /// The secret file is not what it should be.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Keys would not match.
    #[error(
        "the running process has another secret than {}: under it no session would be found again; {advice}",
        path.display()
    )]
    OtherSecret {
        /// The secret file of this process.
        path: PathBuf,
        /// What to do.
        advice: String,
    },
    /// Keys would not match.
    #[error(
        "there is no {}, and the running process has its secret in {theirs}: under another one no session would be found again; copy that there, or set `secret_file` to it",
        path.display()
    )]
    NoSecret {
        /// The secret file of this process.
        path: PathBuf,
        /// That of the running one.
        theirs: String,
    },
    /// Keys would not match.
    #[error("the running process has its secret in {0}: set `secret_file` to that")]
    SecretFile(String),
}

/// The longest wait for the running process to say something.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest wait for it to accept no more, while both processes serve.
const RELEASE: Duration = Duration::from_secs(10);
/// Sockets that one process has, at most: a thousand workers with two each, and some.
const MAX_SOCKETS: usize = 4096;

// === impl Taker ===

impl Taker {
    /// Asks the process that listens at `path` for all it has. Its sockets go to `inherited`.
    ///
    /// # Errors
    ///
    /// When nobody is there, or when it refuses: each says what to do.
    pub fn connect(path: Option<&Path>, inherited: &mut Inherited) -> Result<Self, TakeError> {
        let path = path.ok_or(TakeError::NotConfigured)?;
        let began = clock::now();
        let stream = UnixStream::connect(path).map_err(|error| unreachable(path, error))?;
        let mut link = Link::new(stream, PATIENCE)?;
        if !link.is_trusted()? {
            return Err(TakeError::Foreign(path.to_owned()));
        }
        // One that refuses at once may have closed the link by now: what it said first tells more.
        let _ = link.send(kind::HELLO, &greeting());
        let hello = next(&mut link)?;
        match version(&hello.payload).filter(|_| hello.kind == kind::HELLO) {
            Some(VERSION) => {}
            Some(other) => return Err(TakeError::Version(other)),
            None => return Err(unexpected().into()),
        }
        let frame = next(&mut link)?;
        if frame.kind != kind::OFFER {
            return Err(unexpected().into());
        }
        let offer: Offer = decode(&frame.payload)?;
        let verdict = Verdict::from(frame.files.into_iter().next().ok_or_else(unexpected)?);
        let mut count = 0;
        while count < offer.sockets.min(MAX_SOCKETS) {
            count += take_sockets(next(&mut link)?, inherited)?;
        }
        if let Some(key) = &offer.process_key {
            issue::adopt_process_key(key);
        }
        tracing::info!(pid = offer.pid, release = %offer.release, sockets = count, "taking over from the running process");
        Ok(Self { link, features: features(&hello.payload), offer, verdict, began })
    }

    /// The secret under which the running process knows its sessions; `file` is where this one would take its
    /// own from, which is the key file beside the state file if it is `of_state`. Where that is missing, it gets the
    /// running process's.
    ///
    /// # Errors
    ///
    /// When it is another one than in the file, or in a file that this process does not have.
    pub fn secret(&self, file: Option<&Path>, of_state: bool) -> Result<Secret, TakeError> {
        if let Some(path) = file.filter(|path| !path.exists()) {
            match &self.offer.secret {
                OfferedSecret::Given(digits) => {
                    Secret::from_hex(digits).ok_or_else(unexpected)?.kept_in(path)?;
                    tracing::info!(
                        file = %path.display(),
                        "the secret of the running process is kept in a file from now on"
                    );
                }
                OfferedSecret::File { path: theirs, .. } => {
                    return Err(TakeError::NoSecret { path: path.to_owned(), theirs: theirs.clone() });
                }
            }
        }
        let ours = file.map(|path| Secret::load(Some(path)).map(|secret| (path, secret))).transpose()?;
        match (ours, &self.offer.secret) {
            (None, OfferedSecret::Given(digits)) => Ok(Secret::from_hex(digits).ok_or_else(unexpected)?),
            (None, OfferedSecret::File { path, .. }) => Err(TakeError::SecretFile(path.clone())),
            (Some((_, secret)), OfferedSecret::Given(digits)) if secret.hex() == *digits => Ok(secret),
            (Some((_, secret)), OfferedSecret::File { mark, .. }) if secret.mark() == *mark => Ok(secret),
            (Some((path, _)), OfferedSecret::Given(_)) if of_state => Err(TakeError::OtherSecret {
                path: path.to_owned(),
                advice: "it is the key file of `[state] file`, left by an earlier process: move both away, then the \
                         running process's secret is kept there; or restart"
                    .to_owned(),
            }),
            (Some((path, _)), OfferedSecret::File { path: theirs, .. }) if of_state => {
                Err(TakeError::OtherSecret {
                    path: path.to_owned(),
                    advice: format!(
                        "it is the key file of `[state] file`: set `secret_file` to {theirs}, or restart"
                    ),
                })
            }
            (Some((path, _)), OfferedSecret::Given(_)) => Err(TakeError::OtherSecret {
                path: path.to_owned(),
                advice: "it has no `secret_file`: leave it out here, too, or restart".to_owned(),
            }),
            (Some((path, _)), OfferedSecret::File { path: theirs, .. }) => Err(TakeError::OtherSecret {
                path: path.to_owned(),
                advice: format!("it has that of {theirs}: use the same file, or restart"),
            }),
        }
    }

    /// Takes in the state of backends and every binding. The running process goes on serving meanwhile.
    ///
    /// # Errors
    ///
    /// When the link breaks.
    pub fn restore(&mut self, world: &World) -> Result<(), TakeError> {
        backends::apply(&world.snapshot.load(), &self.offer.pools);
        self.link.send(kind::TABLE, &[])?;
        let mut tally = Tally::default();
        loop {
            let frame = next(&mut self.link)?;
            match frame.kind {
                kind::ENTRIES => absorb(world, Reader::new(&frame.payload), &mut tally)?,
                kind::TABLE_END => break,
                _ => return Err(unexpected().into()),
            }
        }
        tally.tell(clock::now() - self.began);
        Ok(())
    }

    /// From now on both processes hear of each other's changes.
    ///
    /// # Errors
    ///
    /// When there are no threads to be had.
    pub fn follow(self, world: &Arc<World>) -> Result<Taking, TakeError> {
        let Self { mut link, features, began, offer, verdict } = self;
        // Until it ends: the process before may have nothing to say for long.
        link.set_reading_patience(None)?;
        let deliveries = world.courier.subscribe("hand-over");
        world.courier.open(&world.snapshot.load_full());
        let ends = Ends::new(Side::Taker, features);
        let exchange = Arc::clone(&ends.exchange);
        world.kin.join(&exchange);
        let writer = link.try_clone()?;
        let telling = Arc::clone(world);
        std::thread::Builder::new().name("homing-tell".to_owned()).spawn(move || {
            if let Err(error) = ends.write(writer, &telling, deliveries) {
                tracing::warn!(%error, "cannot tell the process before of changes any more");
            }
        })?;
        let ((release, released), (free, freed)) = (oneshot::channel(), oneshot::channel());
        let (mut release, mut free) = (Some(release), Some(free));
        let (hearing, world) = (Arc::clone(&exchange), Arc::clone(world));
        std::thread::Builder::new().name("homing-hear".to_owned()).spawn(move || {
            let result = hearing.read(&mut link, &world, |_, kind| {
                let waiting = match kind {
                    kind::RELEASED => release.take(),
                    kind::FREED if release.is_none() => free.take(),
                    _ => None,
                };
                // Nobody waits for it if this process is ending.
                let _ = waiting.ok_or_else(unexpected)?.send(());
                Ok(())
            });
            match result {
                // It is this one that does.
                Ok(()) if hearing.is_left() => {}
                Ok(()) => tracing::info!("the process before has ended"),
                Err(error) => tracing::warn!(%error, "the process before is not heard any more"),
            }
            world.kin.leave(&hearing);
        })?;
        Ok(Taking { exchange, released, freed: Some(freed), verdict, pid: offer.pid, began })
    }
}

impl fmt::Debug for Taker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taker").field("offer", &self.offer).finish_non_exhaustive()
    }
}

// === impl Taking ===

impl Taking {
    /// Tells the process before that this one accepts clients: it stops accepting.
    ///
    /// # Errors
    ///
    /// When it has not heard it in time and goes on by itself: this one must end then.
    pub async fn ready(&mut self) -> Result<(), TakeError> {
        let answer = async {
            self.exchange.say(kind::READY).await?;
            (&mut self.released).await.map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "the running process does not answer");
        let answer = timeout(RELEASE, answer).await.unwrap_or_else(|_| Err(silent()));
        match answer {
            Ok(()) => {
                tracing::info!(took = ?(clock::now() - self.began), "taken over: the process before drains")
            }
            // It has decided to end, whatever it can say or do just now.
            Err(error) if !matches!(self.verdict.claim(), Ok(true)) => {
                tracing::warn!(%error, "the process before has handed over and does not say that it accepts no more")
            }
            // It cannot decide so any more, and goes on.
            Err(error) if lives(self.pid) => return Err(error.into()),
            // Nobody else has the sockets: better this one without its last words than none.
            Err(error) => {
                tracing::error!(%error, "the process before has died: going on without its last changes")
            }
        }
        Ok(())
    }

    /// Resolves when the process before has closed what only one process can have open, with an error when it
    /// will not say so any more; to be asked for once.
    pub fn freed(&mut self) -> oneshot::Receiver<()> {
        self.freed.take().unwrap_or_else(|| oneshot::channel().1)
    }

    /// Resolves when the process before has ended.
    pub async fn ended(&self) {
        self.exchange.ended().await;
    }
}

fn unreachable(path: &Path, error: io::Error) -> TakeError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::PermissionDenied => TakeError::Denied { path, error },
        _ => TakeError::Nobody { path, error },
    }
}

fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// The next frame, unless it is a refusal.
fn next(link: &mut Link) -> Result<Frame, TakeError> {
    let frame = link.receive()?;
    if frame.kind == kind::REFUSED {
        return Err(TakeError::Refused(String::from_utf8_lossy(&frame.payload).into_owned()));
    }
    Ok(frame)
}

/// How many sockets a frame brought.
fn take_sockets(frame: Frame, inherited: &mut Inherited) -> io::Result<usize> {
    let Frame { kind: kind::SOCKETS, payload, files } = frame else { return Err(unexpected()) };
    let Labels(labels) = decode(&payload)?;
    if labels.is_empty() || labels.len() != files.len() {
        return Err(unexpected());
    }
    let count = files.len();
    for (label, file) in labels.iter().zip(files) {
        inherited.add(label, TcpListener::from(file))?;
    }
    Ok(count)
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the running process says what does not come now")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_closed_to_us_is_not_one_where_nobody_listens() {
        let told = |kind| unreachable(Path::new("/run/handover.sock"), io::Error::from(kind)).to_string();
        let denied = told(io::ErrorKind::PermissionDenied);
        assert!(denied.contains("another user") && !denied.contains("nobody"), "{denied}");
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused] {
            assert!(told(kind).starts_with("nobody listens at /run/handover.sock"));
        }
    }
}
