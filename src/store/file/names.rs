//! The numbers under which the state file knows pools and backends.
//!
//! A number is given once and means the same for as long as the file lives; a file that is written anew
//! begins with new numbers, so names that nobody uses go then.

use std::collections::{BTreeSet, HashMap};

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::{
    codec::{Known, Steered, text},
    database::{BACKENDS, POOLS, WriteError},
};

/// Names and their numbers, as the file has them or will have them after the next write.
#[derive(Debug, Default)]
pub(super) struct Names {
    pools: Vec<Option<Box<str>>>,
    backends: Vec<Option<Known>>,
    /// The way back.
    numbers: HashMap<Box<str>, Pool>,
    /// Numbers that the file does not have yet, or not like this.
    new_pools: BTreeSet<u16>,
    changed: BTreeSet<u32>,
}

#[derive(Debug)]
struct Pool {
    number: u16,
    backends: HashMap<Box<str>, u32>,
}

/// Numbers that a file may use; one with a higher one is damaged.
const MAX_BACKENDS: u32 = 1 << 20;
/// Milliseconds by which two readings of one deadline may differ.
const SAME_DEADLINE: u64 = 2_000;

// === impl Names ===

impl Names {
    /// The names that a file has, and how many entries were no names.
    pub(super) fn load(transaction: &ReadTransaction) -> Result<(Self, u64), redb::Error> {
        let mut names = Self::default();
        let mut damaged = 0;
        for entry in transaction.open_table(POOLS)?.iter()? {
            let (number, name) = entry?;
            match text(name.value()) {
                Ok(name) if !names.numbers.contains_key(&name) => names.put_pool(number.value(), name),
                _ => damaged += 1,
            }
        }
        for entry in transaction.open_table(BACKENDS)?.iter()? {
            let (number, known) = entry?;
            match Known::decode(known.value()) {
                Ok(known) => damaged += u64::from(!names.put(number.value(), known)),
                Err(_) => damaged += 1,
            }
        }
        Ok((names, damaged))
    }

    /// One more than the highest number of a pool.
    pub(super) fn pools(&self) -> u16 {
        u16::try_from(self.pools.len()).unwrap_or(u16::MAX)
    }

    /// The pool of this number.
    pub(super) fn pool(&self, number: u16) -> Option<&str> {
        self.pools.get(usize::from(number))?.as_deref()
    }

    /// The backend of this number.
    pub(super) fn backend(&self, number: u32) -> Option<&Known> {
        self.backends.get(number as usize)?.as_ref()
    }

    /// What is known of a backend.
    pub(super) fn known(&self, pool: &str, name: &str) -> Option<&Known> {
        self.backend(*self.numbers.get(pool)?.backends.get(name)?)
    }

    /// A backend has left the configuration: what operators wanted of it is over.
    pub(super) fn release(&mut self, pool: &str, name: &str) {
        if let Some(known) = self.known(pool, name) {
            let instance = (known.instance, known.since);
            self.update(pool, name, instance, Steered::default());
        }
    }

    /// New numbers for what is worth keeping, for a file that is written anew.
    pub(super) fn renumbered(&self) -> Self {
        let mut names = Self::default();
        for known in self.backends.iter().flatten() {
            if let Some(pool) = self.pool(known.pool)
                && known.steered != Steered::default()
            {
                names.update(pool, &known.name, (known.instance, known.since), known.steered);
            }
        }
        names
    }

    /// The number of a pool; none when there are no more.
    pub(super) fn number_of_pool(&mut self, name: &str) -> Option<u16> {
        if let Some(pool) = self.numbers.get(name) {
            return Some(pool.number);
        }
        let number = u16::try_from(self.pools.len()).ok()?;
        self.put_pool(number, name.into());
        self.new_pools.insert(number);
        Some(number)
    }

    /// The number of a backend; none when there are no more.
    pub(super) fn number(&mut self, pool: &str, name: &str) -> Option<u32> {
        let known = self.numbers.get(pool).and_then(|pool| pool.backends.get(name));
        if let Some(number) = known {
            return Some(*number);
        }
        let pool = self.number_of_pool(pool)?;
        let number = u32::try_from(self.backends.len()).ok().filter(|number| *number < MAX_BACKENDS)?;
        let known = Known { pool, name: name.into(), instance: 0, since: 0, steered: Steered::default() };
        self.put(number, known);
        self.changed.insert(number);
        Some(number)
    }

    /// What is known of a backend now: instance and since when, what operators want.
    pub(super) fn update(&mut self, pool: &str, name: &str, instance: (u64, u64), mut steered: Steered) {
        let Some(number) = self.number(pool, name) else { return };
        let Some(Some(known)) = self.backends.get_mut(number as usize) else { return };
        if let (Some(now), Some(before)) = (&mut steered.deadline, known.steered.deadline)
            && now.abs_diff(before) < SAME_DEADLINE
        {
            // It is told as the time that is left, and that depends on when it was asked for.
            *now = before;
        }
        if (known.instance, known.since, known.steered) != (instance.0, instance.1, steered) {
            (known.instance, known.since, known.steered) = (instance.0, instance.1, steered);
            self.changed.insert(number);
        }
    }

    /// Whether the file does not have all of it.
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty() || !self.new_pools.is_empty()
    }

    /// Writes what the file does not have.
    pub(super) fn write(&mut self, transaction: &WriteTransaction) -> Result<(), WriteError> {
        let mut pools = transaction.open_table(POOLS)?;
        for number in std::mem::take(&mut self.new_pools) {
            if let Some(name) = self.pool(number) {
                pools.insert(number, name.as_bytes())?;
            }
        }
        let mut backends = transaction.open_table(BACKENDS)?;
        for number in std::mem::take(&mut self.changed) {
            if let Some(known) = self.backend(number) {
                backends.insert(number, &known.encode()[..])?;
            }
        }
        Ok(())
    }

    fn put_pool(&mut self, number: u16, name: Box<str>) {
        *slot(&mut self.pools, usize::from(number)) = Some(name.clone());
        self.numbers.insert(name, Pool { number, backends: HashMap::new() });
    }

    /// False when its number is too high, its pool not known, or it has a number already.
    fn put(&mut self, number: u32, known: Known) -> bool {
        if number >= MAX_BACKENDS {
            return false;
        }
        let name = self.pools.get(usize::from(known.pool)).and_then(Option::as_ref);
        let Some(pool) = name.and_then(|name| self.numbers.get_mut(name)) else { return false };
        if pool.backends.contains_key(&known.name) {
            return false;
        }
        pool.backends.insert(known.name.clone(), number);
        *slot(&mut self.backends, number as usize) = Some(known);
        true
    }
}

fn slot<T>(slots: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if slots.len() <= index {
        slots.resize_with(index + 1, || None);
    }
    &mut slots[index]
}
