//! Everything at once: what a state file that is written anew holds.

use std::{ops::Bound, time::Duration};

use redb::{TableDefinition, WriteTransaction};
use tokio::time::Instant;

use super::{
    codec::{Alias, BINDING_MAX, Binding},
    database::{ALIASES, SESSIONS, SessionId, WriteError},
    names::Names,
};
use crate::{
    affinity::SessionKey,
    clock,
    store::{Entry, Session, each},
    world::Snapshot,
};

/// All sessions and aliases, encoded and in order. 48 bytes for each, for as long as the file is written.
#[derive(Debug, Default)]
pub(super) struct Content {
    sessions: Vec<Item>,
    aliases: Vec<Item>,
    /// The values, one after the other.
    bytes: Vec<u8>,
}

/// The key of a value, and where it is.
#[derive(Clone, Copy, Debug)]
struct Item {
    id: SessionId,
    length: u8,
    start: u32,
}

/// How what is known of a key is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// In the table of sessions.
    Session(Box<[u8]>),
    /// In that of aliases.
    Alias(Box<[u8]>),
    /// Nowhere.
    Nothing,
    /// Not in the table of aliases; nothing about the other.
    NoAlias,
}

/// Time within which everything is written, when there is a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    end: Instant,
    time: Duration,
}

const _: () = assert!(BINDING_MAX <= u8::MAX as usize);

// === impl Content ===

impl Content {
    /// All there is in the pools of this snapshot.
    pub(super) fn collect(
        snapshot: &Snapshot,
        names: &mut Names,
        limit: Option<Limit>,
    ) -> Result<Self, WriteError> {
        let mut content = Self::default();
        let mut looked = 0_u32;
        let mut outcome = Ok(());
        for pool in &snapshot.pools {
            let Some(number) = names.number_of_pool(&pool.name) else { continue };
            each(pool, |key, entry| {
                looked = looked.wrapping_add(1);
                if looked.is_multiple_of(LOOK) {
                    outcome = limit.map_or(Ok(()), |limit| limit.check());
                }
                content.add(names, &pool.name, id(number, key), &entry);
                outcome.is_ok()
            });
            std::mem::replace(&mut outcome, Ok(()))?;
        }
        for items in [&mut content.sessions, &mut content.aliases] {
            items.sort_unstable_by_key(|item| item.id);
            items.dedup_by_key(|item| item.id);
        }
        Ok(content)
    }

    /// How many sessions and aliases there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len() + self.aliases.len()
    }

    /// Writes it into empty tables.
    pub(super) fn write(
        &self,
        transaction: &WriteTransaction,
        limit: Option<Limit>,
    ) -> Result<(), WriteError> {
        self.fill(transaction, SESSIONS, &self.sessions, limit)?;
        self.fill(transaction, ALIASES, &self.aliases, limit)
    }

    fn fill(
        &self,
        transaction: &WriteTransaction,
        table: TableDefinition<'_, SessionId, &'static [u8]>,
        items: &[Item],
        limit: Option<Limit>,
    ) -> Result<(), WriteError> {
        let mut table = transaction.open_table(table)?;
        let mut end = table.upper_bound_mut(Bound::<SessionId>::Unbounded)?;
        for chunk in items.chunks(LOOK as usize) {
            for item in chunk {
                let start = item.start as usize;
                end.insert_before(item.id, &self.bytes[start..start + usize::from(item.length)])?;
            }
            limit.map_or(Ok(()), |limit| limit.check())?;
        }
        Ok(end.close()?)
    }

    fn add(&mut self, names: &mut Names, pool: &str, id: SessionId, entry: &Entry) {
        // Beyond 4 GiB of values the rest is not kept; no table that fits into memory is as large.
        let Ok(start) = u32::try_from(self.bytes.len()) else { return };
        let items = match encode(names, pool, entry, &mut self.bytes) {
            Some(Kind::Session) => &mut self.sessions,
            Some(Kind::Alias) => &mut self.aliases,
            None => return,
        };
        let length = u8::try_from(self.bytes.len() - start as usize).unwrap_or_default();
        items.push(Item { id, length, start });
    }
}

// === impl Value ===

impl Value {
    /// How this entry is written.
    pub(super) fn of(names: &mut Names, pool: &str, entry: &Entry) -> Self {
        let mut bytes = Vec::with_capacity(BINDING_MAX);
        match encode(names, pool, entry, &mut bytes) {
            Some(Kind::Session) => Self::Session(bytes.into()),
            Some(Kind::Alias) => Self::Alias(bytes.into()),
            None => Self::Nothing,
        }
    }
}

// === impl Limit ===

impl Limit {
    /// This long from now.
    pub(super) fn of(time: Duration) -> Self {
        Self { end: clock::now() + time, time }
    }

    fn check(self) -> Result<(), WriteError> {
        if clock::now() < self.end { Ok(()) } else { Err(WriteError::TooLong(self.time)) }
    }
}

/// The key of a session within all pools.
pub(super) fn id(pool: u16, key: SessionKey) -> SessionId {
    let mut id = [0; 18];
    let (head, tail) = id.split_at_mut(2);
    head.copy_from_slice(&pool.to_be_bytes());
    tail.copy_from_slice(&key.to_bytes());
    id
}

/// The parts of such a key.
pub(super) fn parts(id: SessionId) -> (u16, SessionKey) {
    let [p, q, key @ ..] = id;
    (u16::from_be_bytes([p, q]), SessionKey::from_bytes(key))
}

/// The table of a value.
enum Kind {
    Session,
    Alias,
}

/// Appends an entry's value; none for what is written nowhere.
fn encode(names: &mut Names, pool: &str, entry: &Entry, bytes: &mut Vec<u8>) -> Option<Kind> {
    match entry {
        Entry::Session(session) => {
            binding(names, pool, session)?.encode(bytes);
            Some(Kind::Session)
        }
        Entry::Renamed { to, until } => {
            Alias::Renamed { to: to.to_bytes(), until: time(*until) }.encode(bytes);
            Some(Kind::Alias)
        }
        Entry::Ended { home, until } => {
            Alias::Ended { home: names.number(pool, home)?, until: time(*until) }.encode(bytes);
            Some(Kind::Alias)
        }
        Entry::Gone => None,
    }
}

fn binding(names: &mut Names, pool: &str, session: &Session) -> Option<Binding> {
    Some(Binding {
        home: names.number(pool, &session.home)?,
        instance: session.instance,
        from: session.from.as_deref().and_then(|from| names.number(pool, from)),
        created: time(session.created),
        placed: time(session.placed),
        seen: time(session.seen),
        ttl: session.ttl,
        unlearned: session.unlearned,
        scope: session.scope.to_bits(),
    })
}

/// A time that can be read back.
fn time(unix_ms: u64) -> u64 {
    unix_ms.min((1 << 48) - 1)
}

/// Entries between two looks at the clock.
const LOOK: u32 = 4096;
