//! What few bindings have: a TTL of their own, a history of moves, open streams.
//!
//! Kept beside the table so that the many stay small. A binding's `rare` flag says that there is an
//! entry here; the two change together, under the lock of the binding's shard.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use dashmap::DashMap;

use super::{KeyBuildHasher, MoveReason, SessionKey, Slot, Tick};

#[derive(Debug)]
pub(super) struct Rare(DashMap<SessionKey, Extra, KeyBuildHasher>);

#[derive(Clone, Debug, Default)]
pub(super) struct Extra {
    /// Longer than the pool's, because the cookie lasts longer.
    pub(super) ttl: Option<Duration>,
    /// The last moves, the latest last.
    pub(super) moves: Vec<Move>,
    pub(super) streams: Option<Arc<Streams>>,
}

/// One move of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The backend that it left.
    pub from: Slot,
    /// The backend that it went to.
    pub to: Slot,
    /// Why.
    pub reason: MoveReason,
    /// When.
    pub at: Tick,
}

/// The open streams of one session. Shared by the streams and the binding, so that a stream can end
/// whatever name the session has by then.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: AtomicU32,
    /// When the last one ended.
    ended: AtomicU32,
}

/// Moves remembered per session.
const MAX_MOVES: usize = 4;
const SHARDS: usize = 64;

// === impl Rare ===

impl Rare {
    pub(super) fn new() -> Self {
        Self(DashMap::with_hasher_and_shard_amount(KeyBuildHasher, SHARDS))
    }

    pub(super) fn of(&self, key: SessionKey) -> Extra {
        self.0.get(&key).map(|extra| extra.clone()).unwrap_or_default()
    }

    pub(super) fn change<T>(&self, key: SessionKey, change: impl FnOnce(&mut Extra) -> T) -> T {
        change(&mut self.0.entry(key).or_default())
    }

    pub(super) fn put(&self, key: SessionKey, extra: Extra) {
        self.0.insert(key, extra);
    }

    pub(super) fn take(&self, key: SessionKey) -> Option<Extra> {
        self.0.remove(&key).map(|(_, extra)| extra)
    }
}

// === impl Extra ===

impl Extra {
    pub(super) fn moved(&mut self, step: Move) {
        if self.moves.len() == MAX_MOVES {
            self.moves.remove(0);
        }
        self.moves.push(step);
    }

    /// The open streams, and when the last one ended.
    pub(super) fn held(&self) -> (u32, Tick) {
        self.streams.as_ref().map_or((0, Tick::ZERO), |streams| {
            (streams.open.load(Relaxed), Tick::new(streams.ended.load(Relaxed)))
        })
    }
}

// === impl Streams ===

impl Streams {
    pub(super) fn open(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self, now: Tick) {
        // In this order: who sees no stream any more must see when the last one ended.
        self.ended.fetch_max(now.get(), Relaxed);
        self.open.fetch_sub(1, std::sync::atomic::Ordering::Release);
    }
}
