//! What few bindings have: a TTL of their own, a history of moves, open streams.
//!
//! Kept beside the table so that the many stay small. A binding's `rare` flag says that there is an
//! entry here; the two change together, under the lock of the binding's shard.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use dashmap::DashMap;

use super::{KeyBuildHasher, Member, MoveReason, SessionKey, Slot, Tick};

#[derive(Debug)]
pub(super) struct Rare(DashMap<SessionKey, Extra, KeyBuildHasher>);

#[derive(Clone, Debug, Default)]
pub(super) struct Extra {
    /// Longer than the pool's, because the cookie lasts longer.
    pub(super) ttl: Option<Duration>,
    /// The last moves, the latest last.
    pub(super) moves: Vec<Move>,
    /// One for all of its streams at one backend, but for those of a session that became one with it.
    pub(super) streams: Vec<Arc<Streams>>,
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
#[derive(Debug)]
pub(super) struct Streams {
    open: AtomicU32,
    /// Where they are; the session may have moved since.
    member: Arc<Member>,
    /// The session's key. Written by a rename, under the lock of the binding's shard.
    key: Mutex<SessionKey>,
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

    /// Takes out what says nothing any more; true when nothing is left.
    pub(super) fn tidy(&self, key: SessionKey) -> bool {
        self.0.remove_if(&key, |_, extra| extra.says_nothing());
        !self.0.contains_key(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells of the open streams of every session, by backend.
    pub(super) fn each_stream(&self, mut tell: impl FnMut(SessionKey, &Arc<Member>, u32)) {
        for entry in &self.0 {
            for streams in &entry.streams {
                match streams.open.load(Relaxed) {
                    0 => {}
                    open => tell(*entry.key(), &streams.member, open),
                }
            }
        }
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

    /// The open streams.
    pub(super) fn held(&self) -> u32 {
        self.streams.iter().map(|streams| streams.open.load(Relaxed)).sum()
    }

    /// Opens a stream of the session with this key at this backend.
    pub(super) fn open(&mut self, key: SessionKey, member: &Arc<Member>) -> Arc<Streams> {
        if let Some(streams) = self.streams.iter().find(|streams| Arc::ptr_eq(&streams.member, member)) {
            streams.open.fetch_add(1, Relaxed);
            return Arc::clone(streams);
        }
        self.streams.retain(|streams| streams.open.load(Relaxed) > 0);
        let member = Arc::clone(member);
        let streams = Arc::new(Streams { open: AtomicU32::new(1), member, key: Mutex::new(key) });
        self.streams.push(Arc::clone(&streams));
        streams
    }

    /// The session has this key now.
    pub(super) fn renamed(&self, key: SessionKey) {
        for streams in &self.streams {
            *streams.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
        }
    }

    /// The streams of another session that became one with this.
    pub(super) fn adopt(&mut self, other: Self) {
        self.streams.extend(other.streams);
        self.streams.retain(|streams| streams.open.load(Relaxed) > 0);
    }

    fn says_nothing(&self) -> bool {
        self.ttl.is_none() && self.moves.is_empty() && self.held() == 0
    }
}

// === impl Streams ===

impl Streams {
    /// The backend that they are at.
    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    /// A stream ended; returns the session's key.
    pub(super) fn end(&self) -> SessionKey {
        self.open.fetch_sub(1, Relaxed);
        *self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
