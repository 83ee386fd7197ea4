//! Who hears of changes: those who keep bindings in a file, share them with replicas, or hand them to a
//! successor.
//!
//! A subscriber that cannot keep up costs nobody anything: its queue is bounded, and when it was full, the
//! subscriber is told to look at everything once it has caught up.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

use super::Entry;
use crate::{
    affinity::{Notes, SessionKey, Tick},
    world::{Pool, Snapshot},
};

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// What changed.
    Batch(Arc<Batch>),
    /// More than could be told: anything may have changed in any pool.
    Everything,
}

/// Changes in one pool.
#[derive(Debug)]
pub struct Batch {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Keys about which something other than the time of the last request has changed, and what is known of
    /// them now.
    pub changed: Vec<(SessionKey, Entry)>,
    /// Sessions that are in use; each about once in an eighth of the pool's TTL.
    pub touched: Vec<(SessionKey, Entry)>,
}

/// Tells subscribers what has changed.
#[derive(Debug, Default)]
pub struct Courier {
    /// Written at start, read by the control thread.
    subscribers: Mutex<Vec<Subscriber>>,
    /// One round at a time, so that nobody hears of things in the wrong order.
    round: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Subscriber {
    name: &'static str,
    sender: mpsc::Sender<Delivery>,
    /// Was full when there was something to tell.
    behind: Arc<AtomicBool>,
}

/// Deliveries that wait for one subscriber.
const QUEUE: usize = 256;
/// Keys in one batch.
const BATCH: usize = 4096;
/// The longest wait for a subscriber's queue when everything ends.
const LAST_WAIT: Duration = Duration::from_secs(5);

// === impl Courier ===

impl Courier {
    /// Hears of every change from the next round on; ends when the process does.
    pub fn subscribe(&self, name: &'static str) -> mpsc::Receiver<Delivery> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.lock().push(Subscriber { name, sender, behind: Arc::default() });
        receiver
    }

    /// Opens the journals of all pools, if anybody wants to hear of changes: what changes from then on is told.
    pub fn open(&self, snapshot: &Snapshot) {
        if self.lock().is_empty() {
            return;
        }
        for pool in &snapshot.pools {
            pool.affinity.journal().open(Tick::ZERO.after(pool.settings.ttl / 8));
        }
    }

    /// One round: tells what has changed since the last one.
    pub async fn deliver(&self, snapshot: &Snapshot) {
        let _round = self.round.lock().await;
        let subscribers = {
            let mut subscribers = self.lock();
            subscribers.retain(|subscriber| !subscriber.sender.is_closed());
            subscribers.clone()
        };
        if subscribers.is_empty() {
            return;
        }
        self.open(snapshot);
        for subscriber in &subscribers {
            subscriber.catch_up();
        }
        for pool in &snapshot.pools {
            let notes = pool.affinity.journal().drain();
            if notes.overflowed {
                subscribers.iter().for_each(Subscriber::lost);
                continue;
            }
            for batch in batches(pool, notes) {
                let batch = Arc::new(batch);
                for subscriber in &subscribers {
                    subscriber.tell(Delivery::Batch(Arc::clone(&batch)));
                }
                // Entries of a large batch take a while to look up.
                tokio::task::yield_now().await;
            }
        }
    }

    /// The last round, when nothing changes any more: every subscriber hears of everything, and then that it is
    /// over.
    pub async fn flush(&self, snapshot: &Snapshot) {
        self.deliver(snapshot).await;
        let subscribers = std::mem::take(&mut *self.lock());
        for subscriber in subscribers {
            if subscriber.behind.load(Relaxed) {
                // A subscriber that is stuck must not keep the process from ending.
                let _ = timeout(LAST_WAIT, subscriber.sender.send(Delivery::Everything)).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Subscriber ===

impl Subscriber {
    fn tell(&self, delivery: Delivery) {
        if !self.behind.load(Relaxed) && self.sender.try_send(delivery).is_err() {
            self.lost();
        }
    }

    fn lost(&self) {
        if !self.behind.swap(true, Relaxed) {
            tracing::warn!(
                subscriber = self.name,
                "changes of bindings come too fast: it has to look at all"
            );
        }
    }

    fn catch_up(&self) {
        if self.behind.load(Relaxed) && self.sender.try_send(Delivery::Everything).is_ok() {
            self.behind.store(false, Relaxed);
        }
    }
}

/// Looks up what was noted, each key once.
fn batches(pool: &Arc<Pool>, notes: Notes) -> impl Iterator<Item = Batch> {
    let mut known = HashSet::with_capacity(notes.changed.len() + notes.touched.len());
    let mut chunks = Vec::new();
    for (mut keys, touched) in [(notes.changed, false), (notes.touched, true)] {
        keys.retain(|key| known.insert(*key));
        chunks.extend(keys.chunks(BATCH).map(|keys| (keys.to_vec(), touched)));
    }
    let pool = Arc::clone(pool);
    chunks.into_iter().map(move |(keys, touched)| {
        let entries = keys.into_iter().map(|key| (key, Entry::of(&pool, key))).collect();
        let (changed, touched) = if touched { (Vec::new(), entries) } else { (entries, Vec::new()) };
        Batch { pool: Arc::clone(&pool), changed, touched }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{affinity::Rule, store::testing};

    fn changed(delivery: &Delivery) -> usize {
        match delivery {
            Delivery::Batch(batch) => batch.changed.len(),
            Delivery::Everything => panic!("nothing was lost"),
        }
    }

    #[tokio::test]
    async fn subscribers_hear_what_is_known_of_the_keys_that_changed() {
        let snapshot = testing::snapshot(&["a", "b"]);
        let courier = Courier::default();
        let mut receiver = courier.subscribe("test");
        courier.open(&snapshot);
        let pool = &snapshot.pools[0];
        let key = testing::key(1);
        testing::session("b").absorb(pool, key, Rule::Newer);
        courier.deliver(&snapshot).await;
        let Ok(Delivery::Batch(batch)) = receiver.try_recv() else { panic!("nothing came") };
        let [(told, Entry::Session(session))] = &batch.changed[..] else { panic!("{batch:?}") };
        assert_eq!((*told, &*session.home), (key, "b"));
        courier.deliver(&snapshot).await;
        assert!(receiver.try_recv().is_err(), "once");
    }

    #[tokio::test]
    async fn without_subscribers_nothing_is_noted() {
        let snapshot = testing::snapshot(&["a"]);
        let courier = Courier::default();
        courier.open(&snapshot);
        testing::session("a").absorb(&snapshot.pools[0], testing::key(1), Rule::Newer);
        assert!(snapshot.pools[0].affinity.journal().drain().is_empty());
    }

    #[tokio::test]
    async fn a_subscriber_that_was_too_slow_has_to_look_at_everything() {
        let snapshot = testing::snapshot(&["a"]);
        let courier = Courier::default();
        let mut receiver = courier.subscribe("test");
        courier.open(&snapshot);
        for number in 0..=QUEUE as u32 {
            testing::session("a").absorb(&snapshot.pools[0], testing::key(number), Rule::Newer);
            courier.deliver(&snapshot).await;
        }
        for _ in 0..QUEUE {
            assert_eq!(changed(&receiver.try_recv().unwrap()), 1);
        }
        assert!(receiver.try_recv().is_err());
        courier.deliver(&snapshot).await;
        assert!(matches!(receiver.try_recv(), Ok(Delivery::Everything)));
    }

    #[tokio::test]
    async fn at_the_end_subscribers_hear_the_last_change_and_that_it_is_over() {
        let snapshot = testing::snapshot(&["a"]);
        let courier = Courier::default();
        let mut receiver = courier.subscribe("test");
        courier.open(&snapshot);
        testing::session("a").absorb(&snapshot.pools[0], testing::key(1), Rule::Newer);
        courier.flush(&snapshot).await;
        assert_eq!(changed(&receiver.recv().await.unwrap()), 1);
        assert!(receiver.recv().await.is_none());
    }
}
