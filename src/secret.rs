//! The secret under which session ids become keys.
//!
//! Replicas that share it, and a proxy that starts again with it, send an unknown id to the same backend.
//! It never leaves its file but into memory, and is not printed.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use crate::affinity::KeyHasher;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("cannot read or make the secret file {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no such folder.
    #[error("there is no folder {folder} for the secret file {path}: make it, or change `secret_file`")]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// The folder cannot be written, and the file is not there yet.
    #[error("cannot write in the folder {folder}, where the secret file {path} is to be made: {error}")]
    Folder {
        /// The file.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Others can read it.
    #[error("the secret file {path} can be read by others: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// It holds something else.
    #[error(
        "the secret file {path} does not hold 32 hexadecimal digits: make one with `openssl rand -hex 16`"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness.
    #[error("no randomness to be had: {0}")]
    Random(getrandom::Error),
}

/// Bytes of the secret.
const SIZE: usize = 16;

/// A secret, and where it is kept.
pub struct Secret {
    bytes: [u8; SIZE],
    file: Option<PathBuf>,
    /// Whether this process made the file just now.
    made: bool,
}

// === impl Secret ===

impl Secret {
    /// Takes the secret from `file`, which is made if it is missing; without a file, one that dies with the
    /// process.
    ///
    /// # Errors
    ///
    /// Each names the file and what to do.
    pub fn load(file: Option<&Path>) -> Result<Self, SecretError> {
        match file {
            Some(path) => Self::in_file(path, random),
            None => Ok(Self { bytes: random()?, file: None, made: false }),
        }
    }

    /// Keeps it in this file, which is missing; if it no longer is, the secret that is in it is returned.
    ///
    /// # Errors
    ///
    /// Each names the file and what to do.
    pub fn kept_in(self, path: &Path) -> Result<Self, SecretError> {
        Self::in_file(path, || Ok(self.bytes))
    }

    fn in_file(
        path: &Path,
        draw: impl FnOnce() -> Result<[u8; SIZE], SecretError>,
    ) -> Result<Self, SecretError> {
        let found = |bytes, made| Self { bytes, file: Some(path.to_owned()), made };
        if let Some(bytes) = read(path)? {
            return Ok(found(bytes, false));
        }
        let io = |error| SecretError::Io { path: path.to_owned(), error };
        let made = make(path, &draw()?).map_err(io)?;
        // Another process may have been first: what is in the file counts.
        let bytes = read(path)?.ok_or_else(|| io(io::ErrorKind::NotFound.into()))?;
        Ok(found(bytes, made))
    }

    /// Says so if the file was made just now. `state` is the state file that it lies beside, if it was nobody's
    /// wish to have it.
    pub fn announce(&self, state: Option<&Path>) {
        let Some(file) = self.file().filter(|_| self.made).map(Path::display) else { return };
        match state {
            None => tracing::info!(%file, "secret made; replicas need a copy of it"),
            Some(state) if state.exists() => tracing::warn!(
                %file,
                state = %state.display(),
                "the key file of the state file was missing, and is made anew"
            ),
            Some(_) => tracing::info!(%file, "key file of the state file made"),
        }
    }

    /// One that another process had, in the hexadecimal digits of [`hex`](Self::hex).
    pub fn from_hex(digits: &str) -> Option<Self> {
        decode(digits).map(|bytes| Self { bytes, file: None, made: false })
    }

    /// Its digits, for the process that takes over; they go nowhere else.
    pub fn hex(&self) -> String {
        encode(&self.bytes)
    }

    /// What tells it from another one without telling what it is.
    pub fn mark(&self) -> String {
        self.hasher().tagged(MARK, b"").to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The file it is kept in, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Makes keys under it.
    pub fn hasher(&self) -> KeyHasher {
        KeyHasher::new(self.bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("file", &self.file).finish_non_exhaustive()
    }
}

/// The name space of [`Secret::mark`], away from those of ids.
const MARK: u8 = 200;

/// A hasher under the secret that [`Secret::load`] gives.
///
/// # Errors
///
/// Each names the file and what to do.
pub fn key_hasher(file: Option<&Path>) -> Result<KeyHasher, SecretError> {
    Secret::load(file).map(|secret| secret.hasher())
}

/// The secret in a file; none if there is no file.
fn read(path: &Path) -> Result<Option<[u8; SIZE]>, SecretError> {
    let io = |error| SecretError::Io { path: path.to_owned(), error };
    match fs::read_to_string(path) {
        Ok(text) => {
            let mode = fs::metadata(path).map_err(io)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(SecretError::Exposed { path: path.to_owned() });
            }
            let bytes = decode(text.trim());
            bytes.map(Some).ok_or_else(|| SecretError::Malformed { path: path.to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

/// Makes the file, whole or not at all, readable by its owner alone; or leaves the one that is there by then, and
/// is false.
fn make(path: &Path, secret: &[u8; SIZE]) -> Result<bool, io::Error> {
    let text = encode(secret);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Not the process id: in containers that share a folder, everybody may be number 1.
    name.push(format!(".{:016x}", fastrand::u64(..)));
    let draft = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true),
    });
    fs::remove_file(&draft)?;
    linked
}

/// Keys under the secret in the file, if there is one; makes none.
///
/// # Errors
///
/// As [`key_hasher`].
pub fn check(file: Option<&Path>) -> Result<Option<KeyHasher>, SecretError> {
    file.map_or(Ok(None), |path| Ok(read(path)?.map(KeyHasher::new)))
}

/// Whether the file can be made if it is missing.
///
/// # Errors
///
/// Why not, and what to change.
pub fn check_place(path: &Path) -> Result<(), SecretError> {
    if path.exists() {
        return Ok(());
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    if !folder.is_dir() {
        return Err(SecretError::NoFolder { path: path.to_owned(), folder });
    }
    access(&folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| SecretError::Folder {
        path: path.to_owned(),
        folder,
        error: error.into(),
    })
}

fn random() -> Result<[u8; SIZE], SecretError> {
    let mut secret = [0; SIZE];
    getrandom::fill(&mut secret).map_err(SecretError::Random)?;
    Ok(secret)
}

fn encode(secret: &[u8; SIZE]) -> String {
    secret.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(text: &str) -> Option<[u8; SIZE]> {
    if text.len() != 2 * SIZE || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut secret = [0; SIZE];
    for (byte, digits) in secret.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_missing_file_is_made_for_the_owner_alone_and_used_again() {
        let folder = folder();
        let path = folder.path().join("secret");
        let first = key_hasher(Some(&path)).unwrap().key(b"id");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(key_hasher(Some(&path)).unwrap().key(b"id"), first);
    }

    #[test]
    fn a_secret_that_is_handed_over_is_the_same_and_is_told_from_another_by_its_mark() {
        let (one, other) = (Secret::load(None).unwrap(), Secret::load(None).unwrap());
        let same = Secret::from_hex(&one.hex()).unwrap();
        assert_eq!(same.hasher().key(b"id"), one.hasher().key(b"id"));
        assert_eq!(same.mark(), one.mark());
        assert_ne!(one.mark(), other.mark());
        assert!(!format!("{one:?}").contains(&one.hex()[..4]));
        assert!(Secret::from_hex("0011").is_none());
    }

    #[test]
    fn only_the_one_that_made_the_file_says_so() {
        let folder = folder();
        let path = folder.path().join("secret");
        let mine = Secret::load(None).unwrap();
        let kept = Secret::from_hex(&mine.hex()).unwrap().kept_in(&path).unwrap();
        assert!(kept.made && kept.hex() == mine.hex());
        assert!(!make(&path, &[1; SIZE]).unwrap(), "it is there");
        let late = Secret::load(None).unwrap().kept_in(&path).unwrap();
        assert!(!late.made && late.hex() == mine.hex(), "what is in the file counts");
    }

    #[test]
    fn a_place_where_no_file_can_be_made_is_told() {
        let folder = folder();
        check_place(&folder.path().join("secret")).unwrap();
        let error = check_place(&folder.path().join("no/secret")).unwrap_err().to_string();
        assert!(error.contains("there is no folder") && error.contains("`secret_file`"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_file_each_process_has_its_own() {
        let key = || key_hasher(None).unwrap().key(b"id");
        assert_ne!(key(), key());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = folder();
        let path = folder.path().join("secret");
        key_hasher(Some(&path)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(key_hasher(Some(&path)), Err(SecretError::Exposed { .. })));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        let folder = folder();
        let path = folder.path().join("secret");
        key_hasher(Some(&path)).unwrap();
        fs::write(&path, "correct horse battery staple").unwrap();
        let error = key_hasher(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("openssl rand -hex 16") && !error.contains("horse"), "{error}");
    }
}
