//! Telling Redis what it has not been told, and comparing everything after an outage.
//!
//! Redis may have been restarted empty, or others may have moved sessions meanwhile. What is missing there is
//! written; what differs is decided by the script, and what it decides is taken in here.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::{Mode, Operation, Shared, Subject, Texts, bytes, link::Failure, pending::agree, script, value};
use crate::{
    affinity::{SessionKey, Trace},
    clock,
    store::{Batch, Delivery, Entry},
    world::{Pool, World},
};

/// Sessions that are told or compared at a time.
const BATCH: usize = 64;
/// Between two batches of a comparison, so that it takes a fraction of the connection.
const PAUSE: Duration = Duration::from_millis(3);
/// How long a comparison waits for what is pending.
const PENDING_FIRST: Duration = Duration::from_secs(10);
/// After Redis refused.
const REFUSED: Duration = Duration::from_secs(1);

impl Shared {
    /// Something changed here: Redis is to be told, unless it knows.
    pub(super) fn hear(&self, delivery: &Delivery) {
        match delivery {
            Delivery::Everything => self.compare_all(),
            Delivery::Batch(batch) => self.hear_batch(batch),
        }
        self.link.metrics.pending.set(i64::try_from(self.pending()).unwrap_or(i64::MAX));
        self.wake.notify_one();
    }

    fn hear_batch(&self, batch: &Batch) {
        let unknown = batch.changed.iter().filter(|(key, entry)| {
            // What expired here may still be used at another replica.
            *entry != Entry::Gone && !self.recent.knows(Subject::new(&batch.pool, *key), entry)
        });
        let subjects = unknown.chain(&batch.touched).map(|(key, _)| Subject::new(&batch.pool, *key));
        let overflowed = {
            let mut pending = self.lock_pending();
            subjects.for_each(|subject| pending.push(subject));
            pending.take_overflowed()
        };
        if overflowed {
            tracing::warn!("too many changes wait for redis: all sessions will be compared when it answers");
            self.compare_all();
        }
    }

    /// Tells what is pending, for as long as there is a connection; never returns before.
    pub(super) async fn write_back(&self, world: &World) {
        loop {
            let taken = self.take_pending();
            self.link.metrics.pending.set(i64::try_from(self.pending()).unwrap_or(i64::MAX));
            if taken.batch.is_empty() {
                self.wake.notified().await;
                continue;
            }
            match self.write_batch(world, taken).await {
                Ok(()) => self.link.accepted(),
                Err(Failure::Refused(error)) => {
                    self.link.refused(&error);
                    sleep(REFUSED).await;
                }
                // Somebody else ends this.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Tells the last of it, at the end.
    pub(super) async fn write_rest(&self, world: &World) {
        loop {
            let taken = self.take_pending();
            if taken.batch.is_empty() || self.write_batch(world, taken).await.is_err() {
                return;
            }
        }
    }

    fn take_pending(&self) -> Taken<'_> {
        Taken { shared: self, batch: self.lock_pending().take(BATCH) }
    }

    async fn write_batch(&self, world: &World, mut taken: Taken<'_>) -> Result<(), Failure> {
        let snapshot = world.snapshot.load_full();
        let results = join_all(taken.batch.iter().map(async |subject| {
            match snapshot.pools.iter().find(|pool| subject.is_of(pool)) {
                Some(pool) => self.merge(pool, subject.key).await,
                None => Ok(()),
            }
        }))
        .await;
        let mut results = results.into_iter();
        let mut failed = Ok(());
        taken.batch.retain(|_| match results.next() {
            Some(Err(error)) => {
                failed = Err(error);
                true
            }
            _ => false,
        });
        failed
    }

    /// Writes what is known of a key, unless what Redis knows is later; then that is taken in.
    async fn merge(&self, pool: &Pool, key: SessionKey) -> Result<(), Failure> {
        let entry = Entry::of(pool, key);
        let mut texts = Texts::default();
        let Some(write) = self.write(pool, key, &entry, Mode::Merge, &mut texts) else { return Ok(()) };
        let answer = self.link.tell(Operation::WriteBack, |whole| write.command(whole)).await?;
        self.settle(pool, key, &entry, &answer);
        Ok(())
    }

    /// Compares all sessions with Redis whenever that is wanted, for as long as there is a connection.
    pub(super) async fn compare(&self, world: &World) {
        loop {
            if self.stale.load(Relaxed) {
                // What is pending first: it is known to be missing. But under traffic there may always be something.
                let until = clock::now() + PENDING_FIRST;
                while self.pending() > 0 && clock::now() < until {
                    sleep(PAUSE).await;
                }
                self.stale.store(false, Relaxed);
                match self.compare_once(world).await {
                    Ok((0, 0)) => {}
                    Ok((compared, told)) => {
                        tracing::info!(compared, told, "sessions compared with redis");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "comparing sessions with redis broke off");
                        self.stale.store(true, Relaxed);
                        sleep(REFUSED).await;
                    }
                }
            } else {
                self.compare.notified().await;
            }
        }
    }

    /// How many were compared, and how many of them Redis had to be told of.
    async fn compare_once(&self, world: &World) -> Result<(usize, usize), Failure> {
        let snapshot = world.snapshot.load_full();
        let (mut compared, mut told) = (0, 0);
        for pool in &snapshot.pools {
            for batch in keys_of(pool).await.chunks(BATCH) {
                let results = join_all(batch.iter().map(|key| self.compare_one(pool, *key))).await;
                for result in results {
                    compared += 1;
                    told += usize::from(result?);
                }
                sleep(PAUSE).await;
            }
        }
        Ok((compared, told))
    }

    /// True when Redis had to be told.
    async fn compare_one(&self, pool: &Pool, key: SessionKey) -> Result<bool, Failure> {
        let name = self.names.session(pool, key);
        let answer = self.link.tell(Operation::Resync, |_| script::read(&name)).await;
        let there = match &answer {
            Ok(answer) => bytes(answer).and_then(|text| value::decode(text, clock::unix_ms())),
            // Something else under this name: the script replaces it.
            Err(Failure::Refused(_)) => None,
            Err(_) => {
                answer?;
                None
            }
        };
        if there.is_some_and(|there| agree(&there, &Entry::of(pool, key))) {
            return Ok(false);
        }
        self.merge(pool, key).await?;
        Ok(true)
    }
}

/// Sessions that are being told of; those that were not, for whatever reason, wait again.
struct Taken<'a> {
    shared: &'a Shared,
    batch: Vec<Subject>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.batch.is_empty() {
            let mut pending = self.shared.lock_pending();
            self.batch.iter().for_each(|subject| pending.push(*subject));
        }
    }
}

/// All keys of a pool. Walking over a million takes longer than this thread may be busy, so another one does.
async fn keys_of(pool: &Arc<Pool>) -> Vec<SessionKey> {
    let pool = Arc::clone(pool);
    let walk = move || {
        let mut keys = Vec::new();
        pool.affinity.each(clock::tick(), |key, trace| {
            if trace != Trace::Unknown {
                keys.push(key);
            }
            true
        });
        keys
    };
    tokio::task::spawn_blocking(walk).await.unwrap_or_default()
}
