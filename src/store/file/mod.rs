//! The state file: bindings that survive a restart, in an embedded database.
//!
//! ```text
//! start: lock → open, every page checked → restore → serve
//! serve: courier → writer thread → a durable write, twice a second at most
//! stop:  what is left → everything anew, in a fresh file that takes the old one's place
//! ```
//!
//! Invariants: nobody who serves ever waits for the file; what cannot be read is set aside, never overwritten
//! and never trusted; the file holds keyed hashes, names and times, no session ids. The writer owns the file:
//! no other thread touches it after the start.

mod codec;
mod content;
mod database;
mod metrics;
mod names;
mod place;
mod preview;
mod restore;
mod standing;
mod writer;

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::{
    database::{Database, Fingerprint, OpenError, guarded},
    metrics::Metrics,
    names::Names,
    place::Place,
    restore::Restored,
    standing::Standing,
    writer::{Command, Writer},
};
pub use self::{
    place::StateError,
    preview::preview,
    restore::{Counts, Outcome},
};
use crate::{
    affinity::KeyHasher,
    clock,
    world::{Snapshot, World},
};

/// A state file that is ours, before anything is written to it; or one that is to be ours later.
#[derive(Debug)]
pub struct StateFile {
    writer: Writer,
    /// Whether the file was there and could be read.
    found: bool,
}

/// The hand on the thread that writes.
#[derive(Debug)]
pub struct Keeper {
    commands: mpsc::Sender<Command>,
    /// Closed when the thread has ended.
    running: mpsc::Receiver<()>,
}

/// Leaves the file to another process, from any thread.
#[derive(Debug)]
pub struct Releaser(mpsc::Sender<Command>);

/// The longest wait for the thread at a clean stop; a disk that hangs must not keep the process.
const LAST_WAIT: Duration = Duration::from_secs(15);
/// What is hashed to tell one secret from another.
const FINGERPRINT_TAG: u8 = b'F';

/// Whether a state file can be there; makes nothing.
///
/// # Errors
///
/// Why not, and what to change.
pub fn check(file: &Path) -> Result<(), StateError> {
    Place::check(file).map(drop)
}

// === impl StateFile ===

impl StateFile {
    /// Takes the file. One that cannot be used is set aside, which is logged, and the new one is empty.
    ///
    /// # Errors
    ///
    /// When the place cannot be used, or another process has the file.
    pub fn open(file: &Path, hasher: &KeyHasher, registry: &prometheus::Registry) -> anyhow::Result<Self> {
        let mut state = Self::closed(file, hasher, registry)?;
        state.acquire()?;
        Ok(state)
    }

    /// Does not take the file, which another process has that will leave it to this one: see
    /// [`Keeper::open`].
    ///
    /// # Errors
    ///
    /// When the place cannot be used.
    pub fn closed(file: &Path, hasher: &KeyHasher, registry: &prometheus::Registry) -> anyhow::Result<Self> {
        let place = Place::check(file)?;
        let writer = Writer {
            place,
            lock: None,
            wanted: None,
            fingerprint: fingerprint(hasher),
            database: None,
            names: Names::default(),
            standing: Standing::default(),
            metrics: Metrics::register(registry)?,
            changed: std::collections::BTreeMap::new(),
            touched: std::collections::BTreeMap::new(),
            touched_due: None,
            anew: None,
            failing: false,
            bloated: writer::bloated(0),
            tidy: clock::now(),
        };
        Ok(Self { writer, found: false })
    }

    /// Takes in what the file has, counts it and says so. Before the first client is served, and before
    /// anybody follows the journals, so that nothing of it is taken for news.
    ///
    /// # Errors
    ///
    /// When a damaged file cannot be set aside.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<Counts, StateError> {
        let begin = clock::now();
        let restored = match self.read(snapshot) {
            Ok(restored) => restored,
            Err(error) => {
                self.writer.database = None;
                self.refuse(error)?;
                Restored::nothing(snapshot)
            }
        };
        self.writer.metrics.restored(snapshot, &restored.pools);
        if let Ok(data) = fs::metadata(self.writer.place.file()) {
            self.writer.metrics.size(data.len());
        }
        let total = restored.total();
        let kept = total.of(Outcome::Restored) + total.of(Outcome::Unknown);
        self.writer.bloated = writer::bloated(kept);
        if restored.littered || self.writer.database.is_none() {
            self.writer.anew = Some(clock::now());
        }
        if self.found {
            tracing::info!(
                file = %self.writer.place.file().display(),
                restored = total.of(Outcome::Restored),
                expired = total.of(Outcome::Expired),
                restarted = total.of(Outcome::Restarted),
                unknown = total.of(Outcome::Unknown),
                full = total.of(Outcome::Full),
                damaged = total.of(Outcome::Damaged),
                took = ?(clock::now() - begin),
                "state restored"
            );
        }
        Ok(total)
    }

    /// Starts the thread that writes. It hears of every change from when the courier has opened the journals.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start(self, world: &Arc<World>) -> io::Result<Keeper> {
        let deliveries = world.courier.subscribe("state file");
        let (commands, asked) = mpsc::channel(1);
        let (done, running) = mpsc::channel::<()>(1);
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        let world = Arc::clone(world);
        thread::Builder::new().name("homing-state".to_owned()).spawn(move || {
            // Dropped however the thread ends.
            let _done = done;
            self.writer.run(&runtime, &world, deliveries, asked);
        })?;
        Ok(Keeper { commands, running })
    }

    /// Makes the file ours and opens it.
    fn acquire(&mut self) -> Result<(), StateError> {
        let writer = &mut self.writer;
        writer.lock = Some(writer.place.lock()?);
        writer.metrics.held(true);
        if writer.place.file().exists() {
            let io = |error| StateError::Io { file: writer.place.file().to_owned(), error };
            writer.place.make_private().map_err(io)?;
        }
        // Opening it writes.
        let written = fs::metadata(writer.place.file()).and_then(|data| data.modified()).ok();
        match Database::open(&writer.place, &writer.fingerprint) {
            Ok(database) => {
                self.found = database.is_some();
                if let Some(written) = written.filter(|_| self.found) {
                    writer.metrics.written_before(written);
                }
                writer.database = database;
                Ok(())
            }
            Err(error) => self.refuse(error),
        }
    }

    /// Sets a file aside that cannot be used; passes on what is nobody's damage.
    fn refuse(&mut self, error: OpenError) -> Result<(), StateError> {
        let place = &self.writer.place;
        let damage = match error {
            OpenError::Damage(damage) => damage,
            OpenError::Locked => return Err(StateError::Locked(place.file().to_owned())),
            OpenError::Io(error) => return Err(StateError::Io { file: place.file().to_owned(), error }),
        };
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = place.set_aside(now)?;
        tracing::warn!(
            file = %place.file().display(),
            aside = %aside.display(),
            "the state file is set aside, since {damage}; starting without it"
        );
        Ok(())
    }

    /// Reads the file, if there is one, and takes out of it what is there in vain.
    fn read(&mut self, snapshot: &Snapshot) -> Result<Restored, OpenError> {
        let Some(database) = &self.writer.database else { return Ok(Restored::nothing(snapshot)) };
        let read = guarded(|| {
            let transaction = database.read()?;
            let (mut names, damaged) = Names::load(&transaction)?;
            self.writer.standing.follow(snapshot, &mut names);
            let mut restored = restore::restore(&transaction, snapshot, &names)?;
            restored.damaged(damaged);
            Ok((names, restored))
        });
        let (names, mut restored) = read
            .map_err(|panic| OpenError::Damage(database::Damage::Corrupt(panic)))?
            .map_err(OpenError::of_redb)?;
        self.writer.names = names;
        // A session of the same key is the later word.
        for (id, remedy) in restored.stale.drain(..) {
            self.writer.changed.entry(id).or_insert(remedy);
        }
        Ok(restored)
    }
}

// === impl Keeper ===

impl Keeper {
    /// Writes what is left, closes the file and leaves it to another process; goes on without.
    pub async fn release(&self) {
        let (done, released) = oneshot::channel();
        if self.commands.send(Command::Release(done)).await.is_ok() {
            // The thread has ended, or has done it: either way the file is closed.
            let _ = released.await;
        }
    }

    /// What leaves the file to another process, for a thread that may block.
    pub fn releaser(&self) -> Releaser {
        Releaser(self.commands.clone())
    }

    /// Takes the file of another process when `freed` says that it has left it, and writes everything anew that
    /// is known here; what the file has is not read. Does not wait for it: where the other process says nothing,
    /// or has the file all the same, it is tried until it works.
    pub async fn open(&self, freed: oneshot::Receiver<()>) {
        // The thread has ended only while the process ends.
        let _ = self.commands.send(Command::Open(freed)).await;
    }

    /// Resolves when the thread has ended, which it does after the courier's last round only.
    pub async fn ended(&mut self) {
        // Nothing is ever sent.
        self.running.recv().await;
    }

    /// Waits until everything is written, after the courier's last round.
    pub async fn finish(mut self) {
        if timeout(LAST_WAIT, self.ended()).await.is_err() {
            tracing::error!(waited = ?LAST_WAIT, "the state file is not written: the disk does not answer");
        }
    }
}

// === impl Releaser ===

impl Releaser {
    /// As [`Keeper::release`], blocking; not for a thread that runs tasks.
    pub fn release(&self) {
        let (done, released) = oneshot::channel();
        if self.0.blocking_send(Command::Release(done)).is_ok() {
            // The thread has ended, or has done it: either way the file is closed.
            let _ = released.blocking_recv();
        }
    }
}

/// Tells one secret from another, and nothing of it.
fn fingerprint(hasher: &KeyHasher) -> Fingerprint {
    hasher.tagged(FINGERPRINT_TAG, b"homing state file").to_bytes()
}

#[cfg(test)]
mod tests;
