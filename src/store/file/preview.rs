//! What a start would make of the state file, told without touching it.

use std::{fs, path::Path};

use super::{
    StateError,
    database::{Database, OpenError},
    fingerprint,
    place::Place,
};
use crate::affinity::KeyHasher;

/// Bytes of a file that is looked into, which is read into memory for that: millions of sessions. A larger one
/// is left to the start.
const MAX_SIZE: u64 = 256 << 20;

/// Why the file would be set aside at a start under this secret, if it would; nothing is said of one that a
/// process is writing. Makes and changes nothing.
///
/// # Errors
///
/// When it cannot be read.
pub fn preview(file: &Path, hasher: &KeyHasher) -> Result<Option<String>, StateError> {
    let place = Place::check(file)?;
    let io = |error| StateError::Io { file: place.file().to_owned(), error };
    let size = fs::metadata(place.file()).map_or(0, |data| data.len());
    if size == 0 || size > MAX_SIZE || place.is_in_use() {
        return Ok(None);
    }
    let content = fs::read(place.file()).map_err(io)?;
    match Database::look(&content, &fingerprint(hasher)) {
        // What was read may be half of what a process that has started since wrote.
        Err(OpenError::Damage(damage)) if !place.is_in_use() => Ok(Some(damage.to_string())),
        Ok(()) | Err(OpenError::Damage(_) | OpenError::Locked) => Ok(None),
        Err(OpenError::Io(error)) => Err(io(error)),
    }
}
