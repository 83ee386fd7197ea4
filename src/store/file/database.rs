//! The state file as a redb database: its tables, how it is opened, why it may be refused.
//!
//! A file that was damaged may make redb panic where its format leaves it no other way. Whatever touches a
//! file that somebody else may have written runs under [`guarded`], so that it costs the file and not the
//! process.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use redb::{
    Builder, DatabaseError, ReadableDatabase, StorageBackend as _, StorageError, TableDefinition, TableError,
    WriteTransaction, backends::InMemoryBackend,
};

use super::place::Place;
use crate::config::format_duration;

/// Pool number and session key → binding.
pub(super) const SESSIONS: TableDefinition<'_, SessionId, &[u8]> = TableDefinition::new("sessions");
/// Pool number and key of a replaced or ended id → what is left of it.
pub(super) const ALIASES: TableDefinition<'_, SessionId, &[u8]> = TableDefinition::new("aliases");
/// Number → backend.
pub(super) const BACKENDS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("backends");
/// Number → name of the pool.
pub(super) const POOLS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("pools");
/// What the file is.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Key of a session within all pools: the number of its pool, big endian, and the session's key.
pub(super) type SessionId = [u8; 18];

/// An open state file.
#[derive(Debug)]
pub(super) struct Database {
    /// Taken out only by the drop.
    redb: Option<redb::Database>,
}

/// Why a file is not used, but set aside.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("it is not a database")]
    NotADatabase,
    #[error("it is damaged ({0})")]
    Corrupt(String),
    #[error("it is the database of another program")]
    Foreign,
    #[error("another version of homing wrote it (format {found}, this one knows {FORMAT})")]
    OtherFormat { found: u32 },
    #[error("it was written under another secret, so that no session can be found by its id")]
    OtherSecret,
}

/// Why a file cannot be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Its content is no good.
    Damage(Damage),
    /// Another process has it.
    Locked,
    /// The system refuses it.
    Io(io::Error),
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Redb(redb::Error),
    #[error("the database is damaged ({0})")]
    Panicked(String),
    #[error("it took longer than {}", format_duration(*.0))]
    TooLong(std::time::Duration),
}

/// What the file is written under: a keyed hash of a constant, which tells nothing of the key.
pub(super) type Fingerprint = [u8; 16];

/// What is written. Format 1, whose bindings have no scope, is read as well.
const FORMAT: u32 = 2;
const FORMAT_KEY: &str = "homing state format";
const SECRET_KEY: &str = "secret fingerprint";
/// Memory for pages.
const CACHE: usize = 64 << 20;

// === impl Database ===

impl Database {
    /// Opens the state file and looks at every page of it; none if there is no file, or an empty one.
    pub(super) fn open(place: &Place, fingerprint: &Fingerprint) -> Result<Option<Self>, OpenError> {
        match fs::metadata(place.file()) {
            Ok(data) if data.len() == 0 => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::Io(error)),
        }
        Self::verified(|| builder().open(place.file()), fingerprint).map(Some)
    }

    /// As [`open`](Self::open), of a copy in memory: the file stays as it is.
    pub(super) fn look(content: &[u8], fingerprint: &Fingerprint) -> Result<(), OpenError> {
        let copy = InMemoryBackend::new();
        let copied = copy.set_len(content.len() as u64).and_then(|()| copy.write(0, content));
        copied.map_err(OpenError::Io)?;
        Self::verified(|| builder().create_with_backend(copy), fingerprint).map(drop)
    }

    fn verified(
        open: impl FnOnce() -> Result<redb::Database, DatabaseError>,
        fingerprint: &Fingerprint,
    ) -> Result<Self, OpenError> {
        let corrupt = |panic| OpenError::Damage(Damage::Corrupt(panic));
        let redb = guarded(open).map_err(corrupt)?.map_err(OpenError::of)?;
        // From here on a panic finds the database outside of what unwinds, see its drop.
        let mut database = Self { redb: Some(redb) };
        guarded(|| database.verify(fingerprint)).map_err(corrupt)??;
        Ok(database)
    }

    /// Writes a new state file and gives it the place of the present one: whole or not at all.
    pub(super) fn replace(
        place: &Place,
        fingerprint: &Fingerprint,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), WriteError>,
    ) -> Result<Self, WriteError> {
        let built = guarded(|| {
            let file = place.make_draft()?;
            let database = Self { redb: Some(builder().create_file(file)?) };
            database.write(|transaction| {
                let mut meta = transaction.open_table(META)?;
                meta.insert(FORMAT_KEY, &FORMAT.to_be_bytes()[..])?;
                meta.insert(SECRET_KEY, &fingerprint[..])?;
                // Made even if nothing is in them, so that who reads need not expect less.
                transaction.open_table(SESSIONS)?;
                transaction.open_table(ALIASES)?;
                transaction.open_table(BACKENDS)?;
                transaction.open_table(POOLS)?;
                fill(transaction)
            })?;
            place.publish_draft()?;
            Ok(database)
        });
        let built = built.unwrap_or_else(|panic| Err(WriteError::Panicked(panic)));
        if built.is_err() {
            place.drop_draft();
        }
        built
    }

    /// Writes durably what `fill` says, or nothing. After an error this database is of no use any more.
    pub(super) fn write(
        &self,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        guarded(|| {
            let transaction = self.redb().begin_write()?;
            fill(&transaction)?;
            Ok(transaction.commit()?)
        })
        .unwrap_or_else(|panic| Err(WriteError::Panicked(panic)))
    }

    /// What is in it now.
    pub(super) fn read(&self) -> Result<redb::ReadTransaction, redb::Error> {
        Ok(self.redb().begin_read()?)
    }

    fn verify(&mut self, fingerprint: &Fingerprint) -> Result<(), OpenError> {
        let format = self.identify(fingerprint)?;
        let redb = self.redb.as_mut().expect("taken by the drop only");
        // It can be repaired when only its books about free pages are wrong; what is left is whole.
        redb.check_integrity().map_err(OpenError::of)?;
        if format < FORMAT {
            // What is written from now on is of this format.
            self.upgrade().map_err(OpenError::of_redb)?;
        }
        Ok(())
    }

    fn upgrade(&self) -> Result<(), redb::Error> {
        let transaction = self.redb().begin_write()?;
        transaction.open_table(META)?.insert(FORMAT_KEY, &FORMAT.to_be_bytes()[..])?;
        Ok(transaction.commit()?)
    }

    /// The format of the file, if it is ours.
    fn identify(&self, fingerprint: &Fingerprint) -> Result<u32, OpenError> {
        let transaction = self.read().map_err(OpenError::of_redb)?;
        let meta = match transaction.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::Storage(error)) => return Err(OpenError::of(error.into())),
            Err(_) => return Err(OpenError::Damage(Damage::Foreign)),
        };
        let value = |key: &str| -> Result<Option<Vec<u8>>, OpenError> {
            let value = meta.get(key).map_err(|error| OpenError::of(error.into()))?;
            Ok(value.map(|value| value.value().to_vec()))
        };
        let Some(format) = value(FORMAT_KEY)?.and_then(|bytes| bytes.try_into().ok()) else {
            return Err(OpenError::Damage(Damage::Foreign));
        };
        let found = u32::from_be_bytes(format);
        if !(1..=FORMAT).contains(&found) {
            return Err(OpenError::Damage(Damage::OtherFormat { found }));
        }
        if value(SECRET_KEY)?.as_deref() != Some(fingerprint) {
            return Err(OpenError::Damage(Damage::OtherSecret));
        }
        Ok(found)
    }

    fn redb(&self) -> &redb::Database {
        self.redb.as_ref().expect("taken by the drop only")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Closing writes, and so may panic over a damaged file like everything else.
        if let Some(redb) = self.redb.take()
            && let Err(panic) = guarded(|| drop(redb))
        {
            tracing::warn!(error = panic, "the state file could not be closed properly");
        }
    }
}

// === impl OpenError ===

impl OpenError {
    fn of(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::Locked,
            DatabaseError::UpgradeRequired(_) => Self::Damage(Damage::OtherFormat { found: 0 }),
            DatabaseError::Storage(StorageError::Io(error)) => Self::of_io(error),
            other => Self::Damage(Damage::Corrupt(other.to_string())),
        }
    }

    pub(super) fn of_redb(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => Self::of_io(error),
            other => Self::Damage(Damage::Corrupt(other.to_string())),
        }
    }

    fn of_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Damage(Damage::NotADatabase),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
                Self::Damage(Damage::Corrupt(error.to_string()))
            }
            _ => Self::Io(error),
        }
    }
}

// === impl WriteError ===

/// From the errors of each step to the one of all.
macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for WriteError {
            fn from(error: redb::$error) -> Self {
                Self::Redb(error.into())
            }
        }
    )*};
}

from_redb!(CommitError, CursorError, DatabaseError, StorageError, TableError, TransactionError);

fn builder() -> Builder {
    let mut builder = redb::Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// Runs `work`; what it says when it panics is the error.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // Nothing of what it borrows is used after a panic but to be dropped.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("a panic", |text| *text).to_owned(),
    })
}

#[cfg(test)]
mod tests;
