//! Where the state file is, who may have it, and where a damaged one goes.
//!
//! A process owns the file while it holds the lock on the empty file beside it, `<file>.lock`: a lock on the
//! state file itself would be lost each time a new one takes its place.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

/// Why there can be no state file; each says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no such folder.
    #[error("{}: there is no folder {} for the state file: make it, or change `[state] file`", file.display(), folder.display())]
    NoFolder {
        /// The state file.
        file: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// The folder cannot be written: files are made in it, and take the place of others.
    #[error("{}: cannot write in the folder {}, which the state file needs: {error}", file.display(), folder.display())]
    Folder {
        /// The state file.
        file: PathBuf,
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is a folder or a device.
    #[error("{}: is not a regular file, as `[state] file` has to be", .0.display())]
    NotAFile(PathBuf),
    /// Another process uses it.
    #[error(
        "{}: another process uses this state file: end it, or give each its own `[state] file`",
        .0.display()
    )]
    Locked(PathBuf),
    /// The system refuses it.
    #[error("{}: cannot use this state file: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The state file's path and those beside it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    file: PathBuf,
}

/// That the state file is ours, until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "it is held, not read")] File);

/// Damaged files that are kept; an older one goes for a new one.
pub(super) const KEPT: usize = 3;

// === impl Place ===

impl Place {
    /// The place of the state file, checked without making anything. A link is followed, so that what takes
    /// the file's place is where the file is.
    pub(super) fn check(path: &Path) -> Result<Self, StateError> {
        let io = |error| StateError::Io { file: path.to_owned(), error };
        let file = match fs::canonicalize(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(io(error)),
        };
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        if !folder.is_dir() {
            return Err(StateError::NoFolder { file, folder });
        }
        if let Err(error) = access(&folder, Access::WRITE_OK | Access::EXEC_OK) {
            return Err(StateError::Folder { file, folder, error: error.into() });
        }
        match fs::metadata(&file) {
            Ok(data) if !data.is_file() => return Err(StateError::NotAFile(file)),
            Ok(_) => access(&file, Access::READ_OK | Access::WRITE_OK).map_err(|error| io(error.into()))?,
            Err(_) => {}
        }
        Ok(Self { file })
    }

    /// The state file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Where the next state file is written before it takes the place of the present one.
    pub(super) fn draft(&self) -> PathBuf {
        self.beside(".new")
    }

    /// Makes the state file ours.
    pub(super) fn lock(&self) -> Result<Lock, StateError> {
        let path = self.beside(".lock");
        let io = |error| StateError::Io { file: path.clone(), error };
        let file = private().truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked(self.file.clone())),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// Whether a process has the file; takes it from nobody.
    pub(super) fn is_in_use(&self) -> bool {
        // Without a file to lock, nobody has.
        File::open(self.beside(".lock"))
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Makes the file of the draft, empty, for its owner alone.
    pub(super) fn make_draft(&self) -> io::Result<File> {
        let draft = self.draft();
        // One that a process left when it was killed.
        remove(&draft)?;
        private().create_new(true).open(draft)
    }

    /// Gives the draft the place of the state file.
    pub(super) fn publish_draft(&self) -> io::Result<()> {
        fs::rename(self.draft(), &self.file)?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    /// Removes a draft that came to nothing.
    pub(super) fn drop_draft(&self) {
        // The next draft begins with the same; here it only frees the room.
        let _ = remove(&self.draft());
    }

    /// Takes away from others what they may do with a file that is there.
    pub(super) fn make_private(&self) -> io::Result<()> {
        let mode = fs::metadata(&self.file)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&self.file, Permissions::from_mode(mode & 0o700))?;
        }
        Ok(())
    }

    /// Renames the state file to one that says that it is damaged, and when that was seen; the new name.
    pub(super) fn set_aside(&self, unix_time: u64) -> Result<PathBuf, StateError> {
        let io = |error| StateError::Io { file: self.file.clone(), error };
        let names = (0..).map(|again: u32| match again {
            0 => self.beside(&format!("{DAMAGED}{unix_time}")),
            _ => self.beside(&format!("{DAMAGED}{unix_time}-{again}")),
        });
        for name in names.take(ATTEMPTS) {
            // A link fails where a rename would overwrite.
            match fs::hard_link(&self.file, &name) {
                Ok(()) => {
                    fs::remove_file(&self.file).map_err(io)?;
                    self.forget_oldest();
                    return Ok(name);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io(error)),
            }
        }
        Err(io(io::ErrorKind::AlreadyExists.into()))
    }

    /// Removes all but the newest damaged files.
    fn forget_oldest(&self) {
        let mut damaged = self.damaged();
        while damaged.len() > KEPT {
            let oldest = damaged.remove(0);
            match fs::remove_file(&oldest) {
                Ok(()) => {
                    tracing::warn!(file = %oldest.display(), "the oldest damaged state file is removed")
                }
                Err(error) => tracing::warn!(file = %oldest.display(), %error, "cannot remove this file"),
            }
        }
    }

    /// The damaged files that were set aside, the oldest first.
    fn damaged(&self) -> Vec<PathBuf> {
        let prefix = self.beside(DAMAGED);
        let (Some(folder), Some(prefix)) =
            (prefix.parent(), prefix.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let age = |name: &str| -> Option<(u64, u32)> {
            let (time, again) = match name.strip_prefix(prefix)?.split_once('-') {
                Some((time, again)) => (time, again.parse().ok()?),
                None => (name.strip_prefix(prefix)?, 0),
            };
            Some((time.parse().ok()?, again))
        };
        let mut found: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((age(entry.file_name().to_str()?)?, entry.path())))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, path)| path).collect()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name: OsString = self.file.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        self.file.with_file_name(name)
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const DAMAGED: &str = ".damaged-";
/// Files that may have been set aside within one second.
const ATTEMPTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_check_makes_nothing() {
        let folder = folder();
        Place::check(&folder.path().join("homing.state")).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_place_that_cannot_be_is_told_with_what_to_change() {
        let folder = folder();
        let error = Place::check(&folder.path().join("no/homing.state")).unwrap_err().to_string();
        assert!(error.contains("there is no folder") && error.contains("`[state] file`"), "{error}");
        let error = Place::check(folder.path()).unwrap_err();
        assert!(matches!(error, StateError::NotAFile(_)), "{error}");
    }

    #[test]
    fn only_one_has_the_file() {
        let folder = folder();
        let place = Place::check(&folder.path().join("homing.state")).unwrap();
        let held = place.lock().unwrap();
        assert!(matches!(place.lock(), Err(StateError::Locked(_))));
        drop(held);
        place.lock().unwrap();
    }

    #[test]
    fn damaged_files_are_kept_apart_and_few() {
        let folder = folder();
        let place = Place::check(&folder.path().join("homing.state")).unwrap();
        for (time, content) in [(100, "a"), (100, "b"), (99, "c"), (200, "d"), (201, "e")] {
            fs::write(place.file(), content).unwrap();
            let aside = place.set_aside(time).unwrap();
            if time > 99 {
                assert_eq!(fs::read_to_string(aside).unwrap(), content);
            }
        }
        let kept = ["homing.state.damaged-100-1", "homing.state.damaged-200", "homing.state.damaged-201"];
        assert_eq!(names(folder.path()), kept);
        assert_eq!(fs::read_to_string(folder.path().join(kept[0])).unwrap(), "b");
    }

    #[test]
    fn a_link_stays_one() {
        let folder = folder();
        fs::create_dir(folder.path().join("data")).unwrap();
        let real = folder.path().join("data/real");
        fs::write(&real, "old").unwrap();
        let link = folder.path().join("homing.state");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let place = Place::check(&link).unwrap();
        drop(place.make_draft().unwrap());
        place.publish_draft().unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "");
        assert!(fs::symlink_metadata(link).unwrap().is_symlink());
    }
}
