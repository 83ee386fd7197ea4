//! Reading the state file at start, before the first client is served.
//!
//! Several threads read a part of the keys each. What is not taken in (its time is over, its home has
//! restarted, it makes no sense) is removed from the file, so that file and table agree from then on.

use std::{ops::AddAssign, thread};

use redb::{ReadTransaction, ReadableTable};

use super::{
    codec::{Alias, Binding, Malformed},
    content::{Value, parts},
    database::{ALIASES, SESSIONS, SessionId},
    names::Names,
};
use crate::{
    affinity::{Absorbed, Rule, Scope, SessionKey},
    clock,
    store::{Entry, Session},
    world::{Pool, Snapshot},
};

/// What became of a session in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is known again.
    Restored,
    /// Its time is over.
    Expired,
    /// Its home has restarted and lost it.
    Restarted,
    /// Its home is not configured. It is kept, and returns with the backend; not so with a whole pool.
    Unknown,
    /// There was no room for it.
    Full,
    /// It made no sense.
    Damaged,
}

/// How many sessions had each [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Outcome::ALL.len()]);

/// What came of reading a file.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// For each pool of the snapshot, and for those that it does not have.
    pub(super) pools: Vec<Counts>,
    /// What the file has in vain, and how to have it no more.
    pub(super) stale: Vec<(SessionId, Value)>,
    /// There are more of these than are listed: the file is better written anew.
    pub(super) littered: bool,
}

/// What one thread reads with.
struct Reader<'a> {
    snapshot: &'a Snapshot,
    names: &'a Names,
    transaction: &'a ReadTransaction,
    /// Now, in Unix milliseconds.
    now: u64,
}

/// Threads that read.
const THREADS: usize = 4;
/// Parts of each pool's keys, by their first byte.
const PARTS: u8 = 16;
/// Stale keys that are listed by each thread.
const MAX_STALE: usize = 1 << 15;

// === impl Outcome ===

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Restored, Self::Expired, Self::Restarted, Self::Unknown, Self::Full, Self::Damaged];

    /// Its label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Expired => "expired",
            Self::Restarted => "restarted",
            Self::Unknown => "unknown",
            Self::Full => "full",
            Self::Damaged => "damaged",
        }
    }
}

// === impl Counts ===

impl Counts {
    /// How many had this one.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    fn count(&mut self, outcome: Outcome) {
        self.0[outcome as usize] += 1;
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for (mine, more) in self.0.iter_mut().zip(other.0) {
            *mine += more;
        }
    }
}

/// Takes in everything that the file has for the pools of this snapshot.
pub(super) fn restore(
    transaction: &ReadTransaction,
    snapshot: &Snapshot,
    names: &Names,
) -> Result<Restored, redb::Error> {
    let reader = &Reader { snapshot, names, transaction, now: clock::unix_ms() };
    let ranges = &ranges(names.pools());
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let parts: Vec<_> = thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || reader.sessions(ranges.iter().copied().skip(thread).step_by(threads)))
            })
            .collect();
        // A thread that panics over a damaged file does so here, where that is expected.
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut restored = Restored::nothing(snapshot);
    for part in parts {
        restored.add(part?);
    }
    // After the sessions that they lead to.
    restored.add(reader.aliases()?);
    Ok(restored)
}

/// The first and the last key of each part.
fn ranges(pools: u16) -> Vec<(SessionId, SessionId)> {
    let bound = |pool: u16, first: u8, rest: u8| {
        let mut id = [rest; 18];
        id[..2].copy_from_slice(&pool.to_be_bytes());
        id[2] = first;
        id
    };
    let step = u8::MAX / PARTS + 1;
    let of_pool = |pool| (0..PARTS).map(move |part| (pool, part * step));
    let mut ranges: Vec<_> = (0..pools)
        .flat_map(of_pool)
        .map(|(pool, first)| (bound(pool, first, 0), bound(pool, first + (step - 1), u8::MAX)))
        .collect();
    // What is there under numbers that no pool has.
    ranges.push((bound(pools, 0, 0), [u8::MAX; 18]));
    ranges
}

// === impl Reader ===

impl Reader<'_> {
    fn sessions(
        &self,
        ranges: impl Iterator<Item = (SessionId, SessionId)>,
    ) -> Result<Restored, redb::Error> {
        let mut restored = Restored::nothing(self.snapshot);
        let table = self.transaction.open_table(SESSIONS)?;
        for (first, last) in ranges {
            for entry in table.range(first..=last)? {
                let (id, value) = entry?;
                let (at, outcome, keep) = self.session(id.value(), value.value());
                restored.pools[at].count(outcome);
                if !keep {
                    restored.stale(id.value(), Value::Nothing);
                }
            }
        }
        Ok(restored)
    }

    fn aliases(&self) -> Result<Restored, redb::Error> {
        let mut restored = Restored::nothing(self.snapshot);
        for entry in self.transaction.open_table(ALIASES)?.iter()? {
            let (id, value) = entry?;
            match self.alias(id.value(), value.value()) {
                Ok(true) => {}
                Ok(false) => restored.stale(id.value(), Value::NoAlias),
                Err(at) => {
                    restored.pools[at].count(Outcome::Damaged);
                    restored.stale(id.value(), Value::NoAlias);
                }
            }
        }
        Ok(restored)
    }

    /// Takes a session in: the index of its pool, what became of it, whether it stays in the file.
    fn session(&self, id: SessionId, value: &[u8]) -> (usize, Outcome, bool) {
        let (number, key) = parts(id);
        let Some((at, pool)) = self.pool(number) else {
            let outcome = if self.names.pool(number).is_some() { Outcome::Unknown } else { Outcome::Damaged };
            return (self.snapshot.pools.len(), outcome, false);
        };
        let Ok(session) = Binding::decode(value).and_then(|binding| self.session_of(number, &binding)) else {
            return (at, Outcome::Damaged, false);
        };
        let configured = pool.backend(&session.home).is_some();
        let outcome = match Entry::Session(session).absorb(pool, key, Rule::Newer) {
            Absorbed::New | Absorbed::Same | Absorbed::Moved if configured => Outcome::Restored,
            Absorbed::New | Absorbed::Same | Absorbed::Moved => Outcome::Unknown,
            Absorbed::Restarted => Outcome::Restarted,
            Absorbed::Full => Outcome::Full,
            Absorbed::Expired | Absorbed::Ended | Absorbed::Older | Absorbed::Unknown => Outcome::Expired,
        };
        (at, outcome, matches!(outcome, Outcome::Restored | Outcome::Unknown))
    }

    /// Takes an alias in: whether it stays in the file, or the index of its pool when it makes no sense.
    fn alias(&self, id: SessionId, value: &[u8]) -> Result<bool, usize> {
        let (number, key) = parts(id);
        let Some((at, pool)) = self.pool(number) else { return Ok(false) };
        let entry = Alias::decode(value).and_then(|alias| self.entry_of(number, alias)).map_err(|_| at)?;
        let until = match entry {
            Entry::Renamed { until, .. } | Entry::Ended { until, .. } => until,
            Entry::Session(_) | Entry::Gone => 0,
        };
        if until <= self.now {
            return Ok(false);
        }
        // A session under the same key is the newer word.
        entry.absorb(pool, key, Rule::Newer);
        Ok(true)
    }

    fn session_of(&self, pool: u16, binding: &Binding) -> Result<Session, Malformed> {
        Ok(Session {
            home: self.name(pool, binding.home)?.into(),
            instance: binding.instance,
            from: binding.from.map(|from| self.name(pool, from).map(Box::from)).transpose()?,
            created: binding.created,
            placed: binding.placed,
            seen: binding.seen,
            ttl: binding.ttl,
            unlearned: binding.unlearned,
            scope: Scope::from_bits(binding.scope),
        })
    }

    fn entry_of(&self, pool: u16, alias: Alias) -> Result<Entry, Malformed> {
        Ok(match alias {
            Alias::Renamed { to, until } => Entry::Renamed { to: SessionKey::from_bytes(to), until },
            Alias::Ended { home, until } => Entry::Ended { home: self.name(pool, home)?.into(), until },
        })
    }

    /// The name of a backend, which has to be one of this pool.
    fn name(&self, pool: u16, number: u32) -> Result<&str, Malformed> {
        let known = self.names.backend(number).filter(|known| known.pool == pool).ok_or(Malformed)?;
        Ok(&known.name)
    }

    /// The pool that has this number in the file, with its index.
    fn pool(&self, number: u16) -> Option<(usize, &Pool)> {
        let name = self.names.pool(number)?;
        let at = self.snapshot.pools.iter().position(|pool| *pool.name == *name)?;
        Some((at, &self.snapshot.pools[at]))
    }
}

// === impl Restored ===

impl Restored {
    /// As of an empty file.
    pub(super) fn nothing(snapshot: &Snapshot) -> Self {
        Self { pools: vec![Counts::default(); snapshot.pools.len() + 1], ..Self::default() }
    }

    /// Over all pools.
    pub(super) fn total(&self) -> Counts {
        self.pools.iter().fold(Counts::default(), |mut sum, counts| {
            sum += *counts;
            sum
        })
    }

    /// As many more entries made no sense, of which nobody knows the pool.
    pub(super) fn damaged(&mut self, more: u64) {
        self.littered |= more > 0;
        if let Some(nobody) = self.pools.last_mut() {
            nobody.0[Outcome::Damaged as usize] += more;
        }
    }

    fn stale(&mut self, id: SessionId, remedy: Value) {
        if self.stale.len() < MAX_STALE {
            self.stale.push((id, remedy));
        } else {
            self.littered = true;
        }
    }

    fn add(&mut self, part: Self) {
        for (mine, more) in self.pools.iter_mut().zip(part.pools) {
            *mine += more;
        }
        self.stale.extend(part.stale);
        self.littered |= part.littered;
    }
}
