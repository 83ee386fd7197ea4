//! Two processes that serve the same sessions for a while: what one learns, the other hears.
//!
//! Each has a thread that reads and one that writes, so that neither a slow peer nor a table of a million
//! bindings holds up anything else. Changes are told as soon as [`ROUND`] allows. A request that comes sooner,
//! with an id that this process has never heard of, waits for the other one's word ([`Kin`](super::Kin)): the
//! client of a session that was begun there a moment ago may have connected here.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    carried::{Carried, Report},
    entries::{Entries, Reader},
    link::Link,
    message::{feature, kind},
    steered::{Wishes, obey},
    tally::Tally,
};
use crate::{
    affinity::{Rule, SessionKey},
    clock,
    store::{self, Delivery, Entry},
    world::{Phase, Pool, World},
};

/// The running exchange with another process.
#[derive(Debug)]
pub struct Exchange {
    /// Which side this one is.
    side: Side,
    /// Processes before the other side that still run, if that is the one before this.
    earlier: AtomicU32,
    /// Frames for the writing thread; full when the peer does not read.
    frames: mpsc::Sender<Frame>,
    /// Questions that wait for their answer.
    asked: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    /// Number of the next question.
    next: AtomicU64,
    /// Requests in a row that have waited for an answer in vain.
    misses: AtomicU32,
    /// The tick until which it is not asked again; 0 while it answers.
    silent_until: AtomicU32,
    /// Whether it has been told that it does not answer.
    told: AtomicBool,
    /// Whether the other side has ended.
    over: watch::Sender<bool>,
    /// Whether it is this side that has said its last word.
    left: AtomicBool,
}

/// A side of a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Giver,
    Taker,
}

/// A question that waits for its answer; forgotten when dropped.
#[derive(Debug)]
pub(super) struct Question<'a> {
    exchange: &'a Exchange,
    number: u64,
    answer: oneshot::Receiver<()>,
}

/// The parts of an exchange that its threads need.
pub(super) struct Ends {
    pub(super) exchange: Arc<Exchange>,
    frames: mpsc::Receiver<Frame>,
    /// Whether the other side knows of [`feature::CARRIED`].
    reports: bool,
}

type Frame = (u8, Vec<u8>);

/// How soon a change is told.
const ROUND: Duration = Duration::from_millis(5);
/// How soon it is told what is still carried, and what operators want.
const REPORT: Duration = Duration::from_millis(250);
/// Frames that wait for the other side to read.
const QUEUE: usize = 1024;
/// Questions at one time; requests beyond go on without an answer.
const MAX_ASKED: usize = 4096;
/// Requests in a row without an answer after which the other process is not asked for a while.
const MISSES: u32 = 3;
/// How long it is not asked then.
const SILENCE: Duration = Duration::from_secs(5);

// === impl Exchange ===

impl Exchange {
    /// Whether it is worth a request's while to ask now. After a silence one request finds out.
    pub(super) fn is_worth_asking(&self) -> bool {
        let (now, until) = (clock::tick(), self.silent_until.load(Relaxed));
        let next = now.after(SILENCE).get();
        until == 0
            || (now.get() >= until
                && self.silent_until.compare_exchange(until, next, Relaxed, Relaxed).is_ok())
    }

    /// Notes whether a request that asked got all its answers in time.
    pub(super) fn judge(&self, in_time: bool) {
        if in_time {
            self.misses.store(0, Relaxed);
            self.silent_until.store(0, Relaxed);
        } else if self.misses.fetch_add(1, Relaxed) >= MISSES - 1 {
            self.silent_until.store(clock::tick().after(SILENCE).get(), Relaxed);
            if !self.told.swap(true, Relaxed) {
                tracing::warn!(
                    "the other process of a hand-over does not answer: sessions that it has only just begun may be guessed here"
                );
            }
        }
    }

    /// Asks the other process what it knows of a key, which is known here when the answer has come.
    pub(super) fn ask(&self, pool: &Pool, key: SessionKey) -> Option<Question<'_>> {
        if *self.over.borrow() {
            return None;
        }
        let number = self.next.fetch_add(1, Relaxed);
        let (answered, answer) = oneshot::channel();
        {
            let mut asked = self.asked();
            if asked.len() >= MAX_ASKED {
                return None;
            }
            asked.insert(number, answered);
        }
        let waiting = Question { exchange: self, number, answer };
        let mut question = Entries::new(Some(number), &pool.name);
        question.add(key, &Entry::Gone);
        let question = question.take().unwrap_or_default();
        self.frames.try_send((kind::ASK, question)).is_ok().then_some(waiting)
    }

    /// Resolves when the other side has ended.
    pub async fn ended(&self) {
        // The sender cannot be gone: it is borrowed.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// How many processes before this one still run on the other side of it.
    pub(super) fn earlier(&self) -> u32 {
        match self.side {
            Side::Giver => 0,
            Side::Taker => self.earlier.load(Relaxed).saturating_add(1),
        }
    }

    pub(super) fn set_earlier(&self, earlier: u32) {
        self.earlier.store(earlier, Relaxed);
    }

    /// Whether this side ended it, with its last word said.
    pub(super) fn is_left(&self) -> bool {
        self.left.load(Relaxed)
    }

    /// Queues a frame without content.
    pub(super) async fn say(&self, kind: u8) -> io::Result<()> {
        self.frames.send((kind, Vec::new())).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The same, on a thread that may wait.
    pub(super) fn say_blocking(&self, kind: u8) -> io::Result<()> {
        self.frames.blocking_send((kind, Vec::new())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Reads until the other side ends or breaks a rule. `other` gets the kinds of frames that are no bindings;
    /// its error ends the exchange.
    pub(super) fn read(
        &self,
        link: &mut Link,
        world: &World,
        other: impl FnMut(&Link, u8) -> io::Result<()>,
    ) -> io::Result<()> {
        let result = self.read_frames(link, world, other);
        link.close();
        self.over.send_replace(true);
        self.asked().clear();
        match result {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            result => result,
        }
    }

    fn read_frames(
        &self,
        link: &mut Link,
        world: &World,
        mut other: impl FnMut(&Link, u8) -> io::Result<()>,
    ) -> io::Result<()> {
        // Nobody asks for it: what is counted is what was there when it all came over.
        let mut changes = Tally::default();
        // Until the other side ends.
        let mut carried = Carried::default();
        loop {
            let frame = link.receive()?;
            match frame.kind {
                kind::ENTRIES => {
                    absorb(world, Reader::new(&frame.payload), &mut changes)?;
                }
                kind::ASK => self.answer(world, &frame.payload)?,
                kind::TOLD => {
                    let mut reader = Reader::new(&frame.payload);
                    let number = reader.number()?;
                    absorb(world, reader, &mut changes)?;
                    if let Some(asker) = self.asked().remove(&number) {
                        // It may have stopped waiting.
                        let _ = asker.send(());
                    }
                }
                kind::CARRIED if self.side == Side::Taker => {
                    carried.hear(&world.snapshot.load(), &frame.payload)?;
                }
                kind::EARLIER if self.side == Side::Taker => {
                    let earlier = Reader::new(&frame.payload).number()?;
                    self.set_earlier(u32::try_from(earlier).unwrap_or(u32::MAX));
                }
                // Until it serves, it may yet end and leave this one alone.
                kind::STEERED if self.side == Side::Giver => {
                    if world.is_handed_over() {
                        obey(world, &frame.payload)?;
                    }
                }
                kind => other(link, kind)?,
            }
        }
    }

    fn answer(&self, world: &World, question: &[u8]) -> io::Result<()> {
        let mut reader = Reader::new(question);
        let (number, name) = (reader.number()?, reader.name()?);
        let mut answer = Entries::new(Some(number), name);
        let snapshot = world.snapshot.load();
        if let (Some(pool), Some((key, _))) = (snapshot.pool(name), reader.entry()?) {
            answer.add(key, &Entry::of(pool, key));
            if let Some(payload) = answer.take() {
                // Who does not read its answers does not need them.
                let _ = self.frames.try_send((kind::TOLD, payload));
            }
        }
        Ok(())
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Question ===

impl Question<'_> {
    /// Resolves when it is answered, or will not be.
    pub(super) async fn answered(&mut self) {
        // The other side's end is an answer, too: it knows nothing more.
        let _ = (&mut self.answer).await;
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.exchange.asked().remove(&self.number);
    }
}

// === impl Ends ===

impl Ends {
    /// Those of an exchange that does not run yet.
    pub(super) fn new(side: Side, features: u32) -> Self {
        let (sender, frames) = mpsc::channel(QUEUE);
        let exchange = Exchange {
            side,
            earlier: AtomicU32::new(0),
            frames: sender,
            asked: Mutex::default(),
            next: AtomicU64::new(0),
            misses: AtomicU32::new(0),
            silent_until: AtomicU32::new(0),
            told: AtomicBool::new(false),
            over: watch::Sender::new(false),
            left: AtomicBool::new(false),
        };
        Self { exchange: Arc::new(exchange), frames, reports: features & feature::CARRIED != 0 }
    }

    /// Writes until the other side ends, or until this process has told its last change.
    pub(super) fn write(
        mut self,
        mut link: Link,
        world: &World,
        deliveries: mpsc::Receiver<Delivery>,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let result = runtime.block_on(self.write_frames(&mut link, world, deliveries));
        let left = result.is_ok() && !*self.exchange.over.borrow();
        self.exchange.left.store(left, Relaxed);
        link.close();
        result
    }

    async fn write_frames(
        &mut self,
        link: &mut Link,
        world: &World,
        mut deliveries: mpsc::Receiver<Delivery>,
    ) -> io::Result<()> {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reports = interval(REPORT);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reporter = Reporter::default();
        let mut over = self.exchange.over.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = over.wait_for(|over| *over) => return Ok(()),
                // Never none: the exchange has the sender.
                Some((kind, payload)) = self.frames.recv() => {
                    if kind == kind::RELEASED && self.reports {
                        // The new process serves when it has read that, and is to be asked how its drains are.
                        reporter.tell(self.exchange.side, link, world)?;
                    }
                    link.send(kind, &payload)?;
                }
                delivery = deliveries.recv() => match delivery {
                    Some(delivery) => send(link, world, &delivery)?,
                    None => {
                        while let Ok((kind, payload)) = self.frames.try_recv() {
                            link.send(kind, &payload)?;
                        }
                        return Ok(());
                    }
                },
                _ = reports.tick(), if self.reports => reporter.tell(self.exchange.side, link, world)?,
                _ = rounds.tick() => world.courier.deliver(&world.snapshot.load_full()).await,
            }
        }
    }
}

/// What the other side has been told of what this process carries, or what its operators want.
#[derive(Default)]
struct Reporter {
    carried: Report,
    earlier: u32,
    wishes: Wishes,
}

// === impl Reporter ===

impl Reporter {
    fn tell(&mut self, side: Side, link: &mut Link, world: &World) -> io::Result<()> {
        let snapshot = world.snapshot.load_full();
        match side {
            Side::Giver => {
                for frame in self.carried.changes(&snapshot) {
                    link.send(kind::CARRIED, &frame)?;
                }
                let earlier = world.kin.earlier();
                if earlier != self.earlier {
                    self.earlier = earlier;
                    link.send(kind::EARLIER, &u64::from(earlier).to_be_bytes())?;
                }
            }
            // Before it serves, what it knows is what it was given.
            Side::Taker if world.phase() >= Phase::Ready => {
                for frame in self.wishes.changes(&snapshot)? {
                    link.send(kind::STEERED, &frame)?;
                }
            }
            Side::Taker => {}
        }
        Ok(())
    }
}

/// Sends every binding of every pool; how many.
pub(super) fn send_all(link: &mut Link, world: &World) -> io::Result<u64> {
    let mut count = 0;
    let mut result = Ok(());
    for pool in &world.snapshot.load_full().pools {
        let mut entries = Entries::new(None, &pool.name);
        store::each(pool, |key, entry| {
            count += 1;
            if entries.add(key, &entry) {
                result = send_entries(link, &mut entries);
            }
            result.is_ok()
        });
        result?;
        result = send_entries(link, &mut entries);
    }
    result.map(|()| count)
}

fn send(link: &mut Link, world: &World, delivery: &Delivery) -> io::Result<()> {
    let Delivery::Batch(batch) = delivery else {
        return send_all(link, world).map(drop);
    };
    let mut entries = Entries::new(None, &batch.pool.name);
    for (key, entry) in batch.changed.iter().chain(&batch.touched) {
        if entries.add(*key, entry) {
            send_entries(link, &mut entries)?;
        }
    }
    send_entries(link, &mut entries)
}

fn send_entries(link: &mut Link, entries: &mut Entries) -> io::Result<()> {
    entries.take().map_or(Ok(()), |payload| link.send(kind::ENTRIES, &payload))
}

/// Takes in the entries of a frame, if this process has their pool, and counts what became of them.
pub(super) fn absorb(world: &World, mut entries: Reader<'_>, tally: &mut Tally) -> io::Result<()> {
    let name = entries.name()?;
    let snapshot = world.snapshot.load();
    let pool = snapshot.pool(name);
    while let Some((key, entry)) = entries.entry()? {
        match pool {
            Some(pool) => tally.count(pool, &entry, entry.absorb(pool, key, Rule::Newer)),
            None => tally.gone(name, &entry),
        }
    }
    Ok(())
}
