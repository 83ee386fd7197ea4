//! The state thread: connects, listens, tells, and starts over when the connection is gone.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::StreamExt as _;
use redis::{
    aio::{PubSub, PubSubSink, PubSubStream},
    cmd,
};
use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
    task::LocalSet,
    time::{sleep, timeout},
};

use super::{
    BreakerState, Operation, Shared, Subject, link::PATIENCE, metrics::Outcome, value, words::why_not,
};
use crate::{
    affinity::{Rule, SessionKey},
    clock,
    store::{Delivery, Entry, Session},
    world::{Pool, World},
};

/// The running state thread.
#[derive(Debug)]
pub struct Keeper {
    thread: JoinHandle<()>,
    /// Resolves when the thread has ended, even by a panic.
    ended: watch::Receiver<()>,
}

/// Between two attempts to connect, at first and at most.
const RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(2);
/// A connection that lasted so long was a good one.
const STABLE: Duration = Duration::from_secs(5);
/// Between two looks whether Redis is still there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Between two looks whether a trial of the breaker is due.
const TRIAL: Duration = Duration::from_millis(20);
/// Milliseconds by which the clocks of two replicas may differ without doubt about the order of two moves.
const SAME_TIME: u64 = 1000;
/// For the last words when everything ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

// === impl Keeper ===

impl Keeper {
    /// Starts the thread. It ends when no more `deliveries` can come, after the last of them has been told.
    ///
    /// # Errors
    ///
    /// When the system has no thread.
    pub fn start(
        shared: Arc<Shared>,
        world: Arc<World>,
        deliveries: mpsc::Receiver<Delivery>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (alive, ended) = watch::channel(());
        let thread = thread::Builder::new().name("homing-redis".to_owned()).spawn(move || {
            let _alive = alive;
            LocalSet::new().block_on(&runtime, run(&shared, &world, deliveries));
        })?;
        Ok(Self { thread, ended })
    }

    /// Resolves when the thread has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + 'static {
        let mut ended = self.ended.clone();
        async move {
            // Nothing is ever sent.
            while ended.changed().await.is_ok() {}
        }
    }

    /// Waits for its end. Whoever wants to know earlier asks [`ended`](Self::ended).
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread that speaks to redis panicked");
        }
    }
}

async fn run(shared: &Shared, world: &World, mut deliveries: mpsc::Receiver<Delivery>) {
    let (last, mut ending) = watch::channel(false);
    let hear = async {
        while let Some(delivery) = deliveries.recv().await {
            shared.hear(&delivery);
        }
        last.send_replace(true);
        std::future::pending::<()>().await;
    };
    let work = async {
        tokio::select! {
            () = shared.keep(world) => {}
            _ = ending.wait_for(|last| *last) => {}
        }
        // The connection is still there, unless it was not before.
        let _ = timeout(LAST_WORDS, async {
            shared.write_rest(world).await;
            shared.leave().await;
        })
        .await;
    };
    tokio::select! {
        () = hear => {}
        () = work => {}
    }
}

/// Whether an application set the id of one and only accepted that of the other, as in `merge.lua`: a replica
/// that had to guess where a session lives gives way to the one that knows.
fn set_not_guessed(one: &Entry, other: &Entry) -> bool {
    match (one, other) {
        (Entry::Session(one), Entry::Session(other)) => !one.unlearned && other.unlearned,
        _ => false,
    }
}

/// Whether one is the next step of the other, as in `merge.lua`.
fn follows(one: &Entry, other: &Entry) -> bool {
    match (one, other) {
        (Entry::Session(one), Entry::Session(other)) => {
            one.from.as_ref() == Some(&other.home) && one.placed + SAME_TIME >= other.placed
        }
        _ => false,
    }
}

/// An id was replaced by another replica, where its session lives at `home` by then: what is known here of the
/// old id, which the new one is about to inherit, may not be true any more.
fn stand_at(pool: &Pool, key: SessionKey, known: &Entry, home: &str) {
    if let Entry::Session(session) = known
        && *session.home != *home
    {
        let (from, placed) = (Some(session.home.clone()), clock::unix_ms());
        let moved = Session { home: home.into(), instance: 0, from, placed, ..session.clone() };
        Entry::Session(moved).absorb(pool, key, Rule::Always);
    }
}

impl Shared {
    /// Connects again and again; never returns.
    async fn keep(&self, world: &World) {
        let mut wait = RETRY;
        // Why there is no connection, as far as the log knows.
        let mut told = String::new();
        loop {
            match self.server.connect().await {
                Ok((connection, heard)) => match self.subscribe(heard).await {
                    Ok((sink, announcements)) => {
                        tracing::info!(url = self.url(), "connected to redis");
                        told.clear();
                        let since = clock::now();
                        self.link.connected(connection);
                        self.serve(world, sink, announcements).await;
                        self.link.disconnected();
                        if clock::now().saturating_duration_since(since) > STABLE {
                            wait = RETRY;
                        }
                        tracing::warn!(
                            url = self.url(),
                            "lost the connection to redis: requests go on without it"
                        );
                    }
                    Err(error) if error != told => {
                        tracing::warn!(
                            url = self.url(),
                            channel = self.names.channel,
                            error,
                            "redis does not let us subscribe: requests go on without it"
                        );
                        told = error;
                    }
                    Err(_) => {}
                },
                Err(error) => {
                    let error = why_not(&error, self.server.url().user.as_deref());
                    if error != told {
                        let url = self.url();
                        tracing::warn!(url, error, "cannot reach redis: requests go on without it");
                        told = error;
                    }
                }
            }
            self.met.send_replace(true);
            sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY);
        }
    }

    async fn subscribe(&self, mut heard: PubSub) -> Result<(PubSubSink, PubSubStream), String> {
        match timeout(PATIENCE, heard.subscribe(&self.names.channel)).await {
            Ok(Ok(())) => Ok(heard.split()),
            Ok(Err(error)) => Err(why_not(&error, self.server.url().user.as_deref())),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// As long as the connection lasts. We are subscribed already, so whatever changes from here on is heard;
    /// what changed before is compared.
    async fn serve(&self, world: &World, sink: PubSubSink, announcements: PubSubStream) {
        self.recent.clear();
        self.compare_all();
        self.check_mark(true).await;
        tokio::select! {
            () = self.link.lost() => {}
            () = self.listen(world, announcements) => {}
            () = self.watch(sink) => {}
            () = self.write_back(world) => {}
            () = self.compare(world) => {}
            () = self.view(world) => {}
        }
    }

    /// Takes in what other replicas announce; returns when there is nothing more to hear.
    async fn listen(&self, world: &World, mut announcements: PubSubStream) {
        while let Some(message) = announcements.next().await {
            let outcome = self.heard(world, message.get_payload_bytes());
            self.link.metrics.count(Operation::Announcement, outcome);
        }
    }

    fn heard(&self, world: &World, text: &[u8]) -> Outcome {
        let Some(announcement) = value::decode_announcement(text, clock::unix_ms()) else {
            self.link.metrics.bad.inc();
            return Outcome::Error;
        };
        let snapshot = world.snapshot.load();
        let Some(pool) = snapshot.pool(&announcement.pool) else { return Outcome::Skipped };
        let known = Entry::of(pool, announcement.key);
        // Our own, or that of a session that this replica does not serve.
        if announcement.by == self.names.id || known == Entry::Gone {
            return Outcome::Skipped;
        }
        if set_not_guessed(&known, &announcement.entry) {
            // It had to guess, perhaps because Redis has lost the session: ours wins there, and is announced.
            self.lock_pending().push(Subject::new(pool, announcement.key));
            self.wake.notify_one();
            return Outcome::Ok;
        }
        if let Some(home) = &announcement.home {
            stand_at(pool, announcement.key, &known, home);
        }
        let decided = follows(&announcement.entry, &known) || set_not_guessed(&announcement.entry, &known);
        let rule = if decided { Rule::Always } else { Rule::Newer };
        self.absorb(pool, announcement.key, &announcement.entry, rule);
        Outcome::Ok
    }

    /// Looks whether Redis is still there, and whether requests may wait for it again; returns when the
    /// subscription is dead.
    async fn watch(&self, mut sink: PubSubSink) {
        let trial = self.names.of("trial");
        let write = |_| {
            let mut command = cmd("SET");
            command.arg(&trial).arg(1).arg("PX").arg(10_000);
            command
        };
        let mut last = clock::now();
        loop {
            if self.link.state() == BreakerState::Closed {
                sleep(HEARTBEAT).await;
            } else {
                if self.link.try_out(self.budget, write).await {
                    self.met.send_replace(true);
                }
                sleep(TRIAL).await;
            }
            if clock::now().saturating_duration_since(last) >= HEARTBEAT {
                last = clock::now();
                let alive = timeout(PATIENCE, sink.ping::<redis::Value>()).await;
                if !matches!(alive, Ok(Ok(_))) {
                    return;
                }
                let _ = self.link.tell(Operation::Heartbeat, |_| cmd("PING")).await;
            }
        }
    }
}
