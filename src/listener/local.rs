//! Unix sockets for the owner of the process alone, from the moment they are there.
//!
//! A socket is made in a folder that nobody else may enter, and renamed to its place when its mode is right: a
//! mode that is set after `bind` comes too late for whoever connects in between. The rename also lets a
//! process that takes over put its own socket in place of that of the one before, without a moment in
//! which there is none.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

/// A bound socket; its file goes with it.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the file of a socket when dropped, unless another one has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    /// The key of the configuration that names it, for messages.
    setting: &'static str,
    /// Where it is to be found.
    path: PathBuf,
    /// What tells it from one that has taken its place.
    inode: (u64, u64),
    /// The folder it was made in, until it is put in its place.
    draft: Option<PathBuf>,
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("{} is in use by another program: choose another `{setting}`", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
        /// The key of the configuration.
        setting: &'static str,
    },
    /// Something else has the name.
    #[error("{} is no socket, and is not replaced by one: choose another `{setting}`", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
        /// The key of the configuration.
        setting: &'static str,
    },
    /// There is no folder to make the socket in.
    #[error("cannot make the folder {} for the socket of `{setting}`: {error}", folder.display())]
    Folder {
        /// Its path.
        folder: PathBuf,
        /// The key of the configuration.
        setting: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// There is no such folder.
    #[error("there is no folder {} for the socket: make it, or change `{setting}`", folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
        /// The key of the configuration.
        setting: &'static str,
    },
    /// Anything else.
    #[error("cannot listen on {}: {error} (`{setting}`)", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The key of the configuration.
        setting: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

/// Name of a socket within the folder it is made in.
const INNER: &str = "s";
/// Folders that other processes of the same id may be making sockets in: each container has its own process 1.
const FOLDERS: u32 = 16;

// === impl LocalSocket ===

impl LocalSocket {
    /// Opens the socket that `setting` names; one that nobody listens at any more is replaced.
    ///
    /// # Errors
    ///
    /// When somebody does, when the name belongs to something else, or when the system does not let us.
    pub fn bind(setting: &'static str, path: &Path) -> Result<Self, SocketError> {
        if is_socket(setting, path)? {
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(SocketError::Io { path: path.to_owned(), setting, error }),
                Ok(_) => return Err(SocketError::InUse { path: path.to_owned(), setting }),
            }
        }
        let mut socket = Self::prepare(setting, path)?;
        socket.install()?;
        Ok(socket)
    }

    /// Whether a socket can be opened there; makes nothing, and disturbs nobody who listens there.
    ///
    /// # Errors
    ///
    /// When the name belongs to something else, or the folder is missing or cannot be written.
    pub fn check(setting: &'static str, path: &Path) -> Result<(), SocketError> {
        is_socket(setting, path)?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(SocketError::NoFolder { folder: folder.to_owned(), setting });
        }
        access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| SocketError::Io {
            path: path.to_owned(),
            setting,
            error: error.into(),
        })
    }

    /// Opens the socket aside: whoever listens at its place goes on until [`install`](Self::install).
    ///
    /// # Errors
    ///
    /// When the name belongs to something else, or when the system does not let us.
    pub fn prepare(setting: &'static str, path: &Path) -> Result<Self, SocketError> {
        is_socket(setting, path)?;
        let failed = |error| SocketError::Io { path: path.to_owned(), setting, error };
        let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let folder = make_folder(setting, path, &name.to_string_lossy())?;
        let inner = folder.join(INNER);
        let mut file = SocketFile { setting, path: path.to_owned(), inode: (0, 0), draft: Some(folder) };
        let listener = UnixListener::bind(&inner).map_err(failed)?;
        fs::set_permissions(&inner, Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let data = fs::symlink_metadata(&inner).map_err(failed)?;
        file.inode = (data.dev(), data.ino());
        Ok(Self { listener, file })
    }

    /// Puts it in its place, where the one before is found no more; once is enough.
    ///
    /// # Errors
    ///
    /// When the system does not let us.
    pub fn install(&mut self) -> Result<(), SocketError> {
        let file = &mut self.file;
        let Some(folder) = &file.draft else { return Ok(()) };
        fs::rename(folder.join(INNER), &file.path).map_err(|error| SocketError::Io {
            path: file.path.clone(),
            setting: file.setting,
            error,
        })?;
        // Empty, and of no more use; what cannot be removed does no harm.
        let _ = fs::remove_dir(folder);
        file.draft = None;
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The listener, and the guard of its file.
    pub fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// Makes a folder to make a socket in. What a process left there that was killed goes.
fn make_folder(setting: &'static str, path: &Path, name: &str) -> Result<PathBuf, SocketError> {
    let pid = std::process::id();
    let mut names = (0..FOLDERS).map(|again| match again {
        0 => path.with_file_name(format!(".{name}.{pid}")),
        _ => path.with_file_name(format!(".{name}.{pid}-{again}")),
    });
    let mut last = names.next().unwrap_or_default();
    loop {
        let make = || DirBuilder::new().mode(0o700).create(&last);
        let error = match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && clear(&last) => make().err(),
            made => made.err(),
        };
        let Some(error) = error else { return Ok(last) };
        last = match names.next() {
            Some(next) if error.kind() == io::ErrorKind::AlreadyExists => next,
            _ => return Err(SocketError::Folder { folder: last, setting, error }),
        };
    }
}

/// Removes a folder with a socket that nobody listens at; whether it is gone.
fn clear(folder: &Path) -> bool {
    // One who has made the folder and not yet the socket is left alone, and so is whatever else has the name.
    let inner = folder.join(INNER);
    let ours = fs::symlink_metadata(folder)
        .is_ok_and(|data| data.is_dir() && data.uid() == rustix::process::geteuid().as_raw());
    let refused = || matches!(UnixStream::connect(&inner), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused);
    ours && refused() && fs::remove_file(&inner).and_then(|()| fs::remove_dir(folder)).is_ok()
}

/// Whether a socket has this name, used or not.
fn is_socket(setting: &'static str, path: &Path) -> Result<bool, SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(SocketError::Io { path: path.to_owned(), setting, error }),
        Ok(data) if !data.file_type().is_socket() => {
            Err(SocketError::NotASocket { path: path.to_owned(), setting })
        }
        Ok(_) => Ok(true),
    }
}

// === impl SocketFile ===

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(folder) = &self.draft {
            // What is left of one that was never put in its place is of no use.
            let _ = fs::remove_dir_all(folder);
            return;
        }
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|data| (data.dev(), data.ino()) == self.inode);
        if ours {
            // Best effort: the next start replaces it anyway.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: &str = "[admin] socket";

    fn bind(path: &Path) -> Result<LocalSocket, SocketError> {
        LocalSocket::bind(SETTING, path)
    }

    #[test]
    fn the_socket_is_for_its_owner_alone_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_nobody_listens_at_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_socket_in_use_and_what_is_no_socket_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _first = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketError::InUse { .. })));
        let file = folder.path().join("notes.txt");
        fs::write(&file, "keep").unwrap();
        assert!(matches!(bind(&file), Err(SocketError::NotASocket { .. })));
        assert!(matches!(LocalSocket::prepare(SETTING, &file), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"keep");
    }

    #[test]
    fn a_check_tells_of_a_place_that_cannot_be_and_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        LocalSocket::check(SETTING, &folder.path().join("admin.sock")).unwrap();
        let error = LocalSocket::check(SETTING, &folder.path().join("no/admin.sock")).unwrap_err();
        assert!(matches!(error, SocketError::NoFolder { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_successor_takes_the_place_when_it_is_put_there_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = bind(&path).unwrap();
        let mut second = LocalSocket::prepare(SETTING, &path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(first.listener.accept().is_ok(), "until then the first one has it");
        second.install().unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        assert!(second.listener.accept().is_ok());
    }

    #[test]
    fn what_a_killed_process_of_the_same_id_has_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let left = folder.path().join(format!(".admin.sock.{}", std::process::id()));
        fs::create_dir(&left).unwrap();
        drop(UnixListener::bind(left.join(INNER)).unwrap());
        let socket = bind(&path).unwrap();
        assert!(!left.exists(), "it does not pile up");
        drop(socket);
        // Killed a moment earlier, or another one that is at it right now: neither can be told from the other.
        fs::create_dir(&left).unwrap();
        let first = LocalSocket::prepare(SETTING, &path).unwrap();
        let _second = LocalSocket::prepare(SETTING, &path).unwrap();
        assert!(first.file.draft.as_ref().unwrap().join(INNER).exists());
        UnixStream::connect(first.file.draft.as_ref().unwrap().join(INNER)).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = bind(&folder.path().join("no/admin.sock")).unwrap_err().to_string();
        assert!(error.contains("no/.admin.sock.") && error.contains(SETTING), "{error}");
    }

    #[test]
    fn one_that_is_never_put_in_its_place_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _first = bind(&path).unwrap();
        drop(LocalSocket::prepare(SETTING, &path).unwrap());
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
