//! Writing behind: a thread of its own takes what has changed and writes it, twice a second at most.
//!
//! Nobody waits for it. When a write fails, the file is left as it is, serving goes on, and once the file can
//! be written again everything is.

use std::{collections::BTreeMap, fs, time::Duration};

use redb::WriteTransaction;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    content::{Content, Limit, Value, id},
    database::{ALIASES, Database, Fingerprint, SESSIONS, SessionId, WriteError},
    metrics::Metrics,
    names::Names,
    place::{Lock, Place},
    standing::Standing,
};
use crate::{
    clock,
    config::format_elapsed,
    store::{Batch, Delivery},
    world::World,
};

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) place: Place,
    /// Held while the file is ours.
    pub(super) lock: Option<Lock>,
    /// There while the file is to be ours and is another process's yet.
    pub(super) wanted: Option<Wanted>,
    pub(super) fingerprint: Fingerprint,
    /// The file; none after a failed write, and when it is not ours.
    pub(super) database: Option<Database>,
    pub(super) names: Names,
    pub(super) standing: Standing,
    pub(super) metrics: Metrics,
    /// What changed since the last write, as it is to be written, in the file's order.
    pub(super) changed: BTreeMap<SessionId, Value>,
    /// Sessions that were only used since then.
    pub(super) touched: BTreeMap<SessionId, Value>,
    /// When to write what was only touched.
    pub(super) touched_due: Option<Instant>,
    /// When to write everything anew.
    pub(super) anew: Option<Instant>,
    /// Whether the last write failed, which has been told.
    pub(super) failing: bool,
    /// The size beyond which most of the file is air, and when that may be looked at again.
    pub(super) bloated: u64,
    pub(super) tidy: Instant,
}

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Write what is left, close the file and leave it to another process.
    Release(oneshot::Sender<()>),
    /// Take the file and write everything anew, as soon as another process says that it has left it, or has
    /// had time enough for that.
    Open(oneshot::Receiver<()>),
}

/// A file that another process has.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Resolves when it has left the file, or will not say so.
    freed: Option<oneshot::Receiver<()>>,
    /// When to try to take it.
    at: Instant,
    /// How long after that to try again.
    pause: Duration,
}

enum Event {
    Told(Option<Delivery>),
    Asked(Command),
    Freed,
    Due,
}

/// The pause between two writes. With that of the courier's rounds, and the write itself, what is lost by a
/// kill is younger than a second.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause between two writes of sessions that were only used.
const TOUCHED_PAUSE: Duration = Duration::from_secs(5);
/// The pause after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// The longest wait for another process to say that it has left the file.
const LEAVE: Duration = Duration::from_secs(10);
/// The longest pause between two attempts to take it.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Changes that wait at most; then they are written at once.
const MAX_PENDING: usize = 1 << 16;
/// The longest time for the last sweep of a clean stop.
const LAST_SWEEP: Duration = Duration::from_secs(5);
/// The pause between two rewrites for the sake of room.
const TIDY_PAUSE: Duration = Duration::from_secs(600);
/// A file below this size is not worth tidying.
const SMALL: u64 = 32 << 20;
/// Bytes for each entry beyond which a file is mostly air: three times what one takes up when it is written
/// anew.
const AIRY: u64 = 240;

// === impl Writer ===

impl Writer {
    /// Writes until the deliveries end, which is the clean stop.
    pub(super) fn run(
        mut self,
        runtime: &Runtime,
        world: &World,
        mut deliveries: mpsc::Receiver<Delivery>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut due = clock::now() + PAUSE;
        loop {
            let event = runtime.block_on(async {
                tokio::select! {
                    biased;
                    Some(command) = commands.recv() => Event::Asked(command),
                    () = freed(&mut self.wanted) => Event::Freed,
                    () = sleep_until(due) => Event::Due,
                    delivery = deliveries.recv() => Event::Told(delivery),
                }
            });
            match event {
                Event::Told(Some(delivery)) => {
                    self.take(delivery);
                    if self.changed.len() >= MAX_PENDING {
                        due = clock::now();
                    }
                }
                Event::Due => {
                    self.write_due(world);
                    due = clock::now() + PAUSE;
                }
                Event::Asked(Command::Release(done)) => {
                    while let Ok(delivery) = deliveries.try_recv() {
                        self.take(delivery);
                    }
                    self.release(world);
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                Event::Asked(Command::Open(freed)) => {
                    let at = clock::now() + LEAVE;
                    self.wanted = Some(Wanted { freed: Some(freed), at, pause: PAUSE });
                }
                Event::Freed => {
                    if let Some(wanted) = &mut self.wanted {
                        (wanted.freed, wanted.at) = (None, clock::now());
                    }
                    self.open(world);
                }
                Event::Told(None) => {
                    self.finish(world);
                    return;
                }
            }
        }
    }

    fn take(&mut self, delivery: Delivery) {
        // Everything is written anew once that is possible.
        if self.database.is_none() {
            return;
        }
        match delivery {
            Delivery::Everything => self.anew = Some(clock::now()),
            Delivery::Batch(batch) => self.take_batch(&batch),
        }
        self.metrics.pending(self.changed.len() + self.touched.len());
    }

    fn take_batch(&mut self, batch: &Batch) {
        let Some(pool) = self.names.number_of_pool(&batch.pool.name) else { return };
        for (key, entry) in &batch.changed {
            let id = id(pool, *key);
            self.touched.remove(&id);
            self.changed.insert(id, Value::of(&mut self.names, &batch.pool.name, entry));
        }
        for (key, entry) in &batch.touched {
            let value = Value::of(&mut self.names, &batch.pool.name, entry);
            let id = id(pool, *key);
            match self.changed.get_mut(&id) {
                Some(waiting) => *waiting = value,
                None if self.touched.len() < MAX_PENDING => {
                    self.touched.insert(id, value);
                }
                None => {
                    self.changed.insert(id, value);
                }
            }
        }
        if !self.touched.is_empty() && self.touched_due.is_none() {
            self.touched_due = Some(clock::now() + TOUCHED_PAUSE);
        }
    }

    fn write_due(&mut self, world: &World) {
        if self.lock.is_none() {
            self.open(world);
            return;
        }
        let now = clock::now();
        self.standing.follow(&world.snapshot.load(), &mut self.names);
        if self.anew.is_some_and(|at| at <= now) {
            self.rewrite(world, None);
        } else if self.database.is_some() {
            let touched = self.touched_due.is_some_and(|at| at <= now);
            if touched || !self.changed.is_empty() || self.names.is_changed() {
                self.write(touched);
            }
        }
    }

    /// Writes what changed, and with `touched` what was only used.
    fn write(&mut self, touched: bool) {
        if touched {
            self.touched_due = None;
            self.changed.append(&mut self.touched);
        }
        let Some(database) = &self.database else { return };
        let (changed, names) = (&self.changed, &mut self.names);
        let written = database.write(|transaction| {
            names.write(transaction)?;
            put(transaction, changed)
        });
        self.changed.clear();
        self.metrics.pending(self.touched.len());
        match written {
            Ok(()) => self.succeeded(),
            Err(error) => {
                // It is of no use any more, not even for another try.
                self.forget_database();
                self.failed(&error, "the state file cannot be written: bindings do not survive a restart");
            }
        }
    }

    /// Writes everything anew, in a file that takes the place of the present one.
    fn rewrite(&mut self, world: &World, limit: Option<Limit>) -> bool {
        let snapshot = world.snapshot.load_full();
        let mut names = self.names.renumbered();
        // What waits is older than what is read now; what comes later comes again.
        self.changed.clear();
        self.touched.clear();
        self.touched_due = None;
        self.metrics.pending(0);
        self.standing.follow(&snapshot, &mut self.names);
        for backend in snapshot.pools.iter().flat_map(|pool| &pool.backends) {
            if let Some(known) = self.names.known(&backend.pool, backend.name()) {
                let instance = (known.instance, known.since);
                names.update(&backend.pool, backend.name(), instance, known.steered);
            }
        }
        let written = Content::collect(&snapshot, &mut names, limit).and_then(|content| {
            let database = Database::replace(&self.place, &self.fingerprint, |transaction| {
                content.write(transaction, limit)?;
                names.write(transaction)
            })?;
            Ok((database, content.len()))
        });
        match written {
            Ok((database, entries)) => {
                self.database = Some(database);
                self.names = names;
                self.anew = None;
                self.bloated = bloated(entries as u64);
                self.tidy = clock::now() + TIDY_PAUSE;
                self.succeeded();
                true
            }
            Err(error) => {
                self.failed(&error, "the state file cannot be written anew");
                false
            }
        }
    }

    fn succeeded(&mut self) {
        self.metrics.written();
        if let Ok(data) = fs::metadata(self.place.file()) {
            self.metrics.size(data.len());
            if data.len() > self.bloated && self.anew.is_none() && self.tidy <= clock::now() {
                tracing::debug!(bytes = data.len(), "the state file is mostly air and written anew");
                self.anew = Some(clock::now());
            }
        }
        // A change that was lost has to be made good first.
        if self.failing && self.anew.is_none() {
            self.failing = false;
            tracing::info!(file = %self.place.file().display(), "the state file is written again");
        }
    }

    fn failed(&mut self, error: &WriteError, what: &'static str) {
        self.metrics.failed();
        self.anew = Some(clock::now() + RETRY);
        // Once, not at each try.
        if !self.failing {
            self.failing = true;
            tracing::warn!(file = %self.place.file().display(), %error, "{what}; tried again until it works");
        }
    }

    fn forget_database(&mut self) {
        self.database = None;
        self.changed.clear();
        self.touched.clear();
        self.touched_due = None;
        self.metrics.pending(0);
    }

    /// Closes the file and leaves it to another process.
    fn release(&mut self, world: &World) {
        self.wanted = None;
        if self.lock.is_some() {
            self.standing.follow(&world.snapshot.load(), &mut self.names);
            if self.anew.is_some() {
                self.rewrite(world, Some(Limit::of(LAST_SWEEP)));
            } else {
                self.write(true);
            }
            self.forget_database();
            self.anew = None;
            self.lock = None;
            self.metrics.held(false);
            tracing::info!(file = %self.place.file().display(), "the state file is left to another process");
        }
    }

    /// Takes the file, if it is wanted and the time has come, and writes everything anew; what it has is not
    /// read. One that another process has not left yet is tried again.
    fn open(&mut self, world: &World) {
        let Some(wanted) = &mut self.wanted else { return };
        let now = clock::now();
        if self.lock.is_none() {
            if wanted.at > now {
                return;
            }
            match self.place.lock() {
                Ok(lock) => self.lock = Some(lock),
                Err(error) => {
                    self.metrics.failed();
                    // Once, not at each try.
                    if !self.failing {
                        self.failing = true;
                        tracing::warn!(%error, "the state file of the process before is not left to this one: bindings do not survive a restart; tried again until it is");
                    }
                    wanted.at = now + wanted.pause;
                    wanted.pause = (2 * wanted.pause).min(LONGEST_RETRY);
                    return;
                }
            }
            self.metrics.held(true);
            self.rewrite(world, None);
        }
        self.wanted = None;
    }

    /// The clean stop: what changed, and then the time of the last request of every session.
    fn finish(&mut self, world: &World) {
        if let Some(wanted) = &mut self.wanted {
            // The last time to try.
            wanted.at = clock::now();
            self.open(world);
        }
        if self.lock.is_none() {
            return;
        }
        self.standing.follow(&world.snapshot.load(), &mut self.names);
        self.write(true);
        let begin = clock::now();
        let swept = self.rewrite(world, Some(Limit::of(LAST_SWEEP)));
        let took = clock::now() - begin;
        if swept {
            tracing::info!(file = %self.place.file().display(), took = %format_elapsed(took), "state written");
        }
        self.database = None;
    }
}

/// Resolves when the file that is wanted is said to be free; never if nothing will be said.
async fn freed(wanted: &mut Option<Wanted>) {
    match wanted.as_mut().and_then(|wanted| wanted.freed.as_mut()) {
        // Whose word does not come any more has ended, or has no word to give.
        Some(freed) => drop(freed.await),
        None => std::future::pending().await,
    }
}

/// The size beyond which a file with so many entries is mostly air.
pub(super) fn bloated(entries: u64) -> u64 {
    SMALL.max(AIRY * entries)
}

/// Puts values into their tables.
pub(super) fn put(
    transaction: &WriteTransaction,
    changed: &BTreeMap<SessionId, Value>,
) -> Result<(), WriteError> {
    let mut sessions = transaction.open_table(SESSIONS)?;
    let mut aliases = transaction.open_table(ALIASES)?;
    for (id, value) in changed {
        match value {
            Value::Session(bytes) => {
                sessions.insert(id, &bytes[..])?;
                aliases.remove(id)?;
            }
            Value::Alias(bytes) => {
                sessions.remove(id)?;
                aliases.insert(id, &bytes[..])?;
            }
            Value::Nothing => {
                sessions.remove(id)?;
                aliases.remove(id)?;
            }
            Value::NoAlias => {
                aliases.remove(id)?;
            }
        }
    }
    Ok(())
}
