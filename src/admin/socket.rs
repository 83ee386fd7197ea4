//! The Unix socket of the admin listener: for its owner alone, from the moment it is there.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// A bound socket; its file goes with it.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// Removes the file of a socket when dropped, unless another one has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("{} is in use by another program: choose another `[admin] socket`", .0.display())]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{} is no socket, and is not replaced by one: choose another `[admin] socket`", .0.display())]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("cannot listen on {}: {error} (`[admin] socket`)", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

// === impl AdminSocket ===

impl AdminSocket {
    /// Opens the socket; one that nobody listens at any more is replaced.
    ///
    /// # Errors
    ///
    /// When somebody does, when the name belongs to something else, or when the system does not let us.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |error| SocketError::Io { path: path.to_owned(), error };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(data) if !data.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(failed(error)),
                Ok(_) => return Err(SocketError::InUse(path.to_owned())),
            },
        }
        Self::create(path).map_err(failed)
    }

    /// Makes the socket in a folder that nobody else may enter, and puts it in its place when its mode is
    /// right: a mode that is set after `bind` comes too late for whoever connects in between.
    fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        let folder = path.with_file_name(format!(".{name}.{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder)?;
        let made = (|| {
            let inner = folder.join("s");
            let listener = UnixListener::bind(&inner)?;
            fs::set_permissions(&inner, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            let data = fs::symlink_metadata(&inner)?;
            fs::rename(&inner, path)?;
            let file = SocketFile { path: path.to_owned(), inode: (data.dev(), data.ino()) };
            Ok(Self { listener, file })
        })();
        // What is left of it after a failure is of no use.
        let _ = fs::remove_dir_all(&folder);
        made
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The listener, and the guard of its file.
    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

// === impl SocketFile ===

impl Drop for SocketFile {
    fn drop(&mut self) {
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

    #[test]
    fn the_socket_is_for_its_owner_alone_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
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
        let _socket = AdminSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_socket_in_use_and_what_is_no_socket_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let _first = AdminSocket::bind(&path).unwrap();
        assert!(matches!(AdminSocket::bind(&path), Err(SocketError::InUse(_))));
        let file = folder.path().join("notes.txt");
        fs::write(&file, "keep").unwrap();
        assert!(matches!(AdminSocket::bind(&file), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&file).unwrap(), b"keep");
    }

    #[test]
    fn a_successor_keeps_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (listener, first) = AdminSocket::bind(&path).unwrap().into_parts();
        drop(listener);
        let _second = AdminSocket::bind(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
    }
}
