//! The demo's applications as processes of their own: first all sockets, then the processes, and none
//! of them left at the end.
//!
//! Each process gets its socket as standard input and one end of a socket pair, its *lifeline*, as
//! standard output. Nothing is ever written to a lifeline. It ends with the process at either end,
//! however that ends, so both learn of it at once and without asking.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// An application that does not run yet: connections wait in its socket.
#[derive(Debug)]
pub struct AppSocket {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

/// Why there are no sockets for the applications.
#[derive(Debug, thiserror::Error)]
pub enum AppsError {
    /// Somebody else has the port.
    #[error("{name} {address} is in use by another program: choose other ports with --app-port")]
    InUse {
        /// Which application.
        name: String,
        /// The address that is taken.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {name} {address}: {error} (choose other ports with --app-port)")]
    Other {
        /// Which application.
        name: String,
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The ports would pass the last one there is.
    #[error("{count} ports from {first} on do not exist: choose a lower one with --app-port")]
    NoSuchPort {
        /// The first port.
        first: u16,
        /// How many were wanted.
        count: u16,
    },
}

/// Running applications. They end when this is dropped, and also when this process ends in any other
/// way.
#[derive(Debug)]
pub struct Apps {
    running: Vec<Running>,
    /// How many still run; 0 also when they are being stopped. Written here and by the watchers.
    left: Arc<AtomicUsize>,
}

/// An application that ended although nobody here had told it to.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Its name.
    pub name: String,
    /// What its process was.
    pub pid: u32,
    /// Where it was.
    pub address: SocketAddr,
    /// How many others still run.
    pub left: usize,
}

/// One application and the thread that waits for its end.
#[derive(Debug)]
struct Running {
    name: String,
    pid: u32,
    address: SocketAddr,
    lifeline: UnixStream,
    watcher: JoinHandle<()>,
}

/// Binds `count` applications, `app-1` and so on, to the loopback address: from `first` on, or to any
/// free ports if that is 0. Dropping the sockets frees the ports.
///
/// # Errors
/// When a port is taken or does not exist; the error names the flag that helps.
pub fn bind_apps(count: u16, first: u16) -> Result<Vec<AppSocket>, AppsError> {
    if first.checked_add(count.saturating_sub(1)).is_none() {
        return Err(AppsError::NoSuchPort { first, count });
    }
    (0..count).map(|index| AppSocket::bind(index + 1, if first == 0 { 0 } else { first + index })).collect()
}

/// In a process that [`Apps::start`] started: its socket and its lifeline.
///
/// # Errors
/// In any other process.
pub fn inherited() -> io::Result<(TcpListener, UnixStream)> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let lifeline = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    // They could be anything; this fails for what they must not be.
    listener.local_addr()?;
    lifeline.peer_addr()?;
    Ok((listener, lifeline))
}

// === impl AppSocket ===

impl AppSocket {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address; the port is the bound one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn bind(number: u16, port: u16) -> Result<Self, AppsError> {
        let name = format!("app-{number}");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let bound = TcpListener::bind(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        match bound {
            Ok((address, listener)) => Ok(Self { name, address, listener }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(AppsError::InUse { name, address }),
            Err(error) => Err(AppsError::Other { name, address, error }),
        }
    }
}

// === impl Apps ===

impl Apps {
    /// Starts a process for each socket by the command that `command` makes, which must call
    /// [`inherited`]. `gone` is called, on another thread, for each that ends before its time.
    ///
    /// # Errors
    /// When one of the processes cannot be started; then none is left.
    pub fn start(
        sockets: Vec<AppSocket>,
        command: impl Fn(&AppSocket) -> Command,
        gone: impl Fn(&Gone) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let mut apps = Self { running: Vec::new(), left: Arc::new(AtomicUsize::new(sockets.len())) };
        for socket in sockets {
            let command = command(&socket);
            apps.running.push(Running::start(socket, command, Arc::clone(&apps.left), gone.clone())?);
        }
        Ok(apps)
    }

    /// Name, process id and address of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32, SocketAddr)> {
        self.running.iter().map(|app| (&*app.name, app.pid, app.address))
    }
}

impl Drop for Apps {
    fn drop(&mut self) {
        self.left.store(0, Ordering::Relaxed);
        for app in &self.running {
            // Fails only when the other end is gone, which is what is wanted.
            let _ = app.lifeline.shutdown(std::net::Shutdown::Both);
        }
        for app in self.running.drain(..) {
            // A watcher that panicked has said so.
            let _ = app.watcher.join();
        }
    }
}

// === impl Running ===

impl Running {
    fn start(
        socket: AppSocket,
        mut command: Command,
        left: Arc<AtomicUsize>,
        gone: impl Fn(&Gone) + Send + 'static,
    ) -> io::Result<Self> {
        let AppSocket { name, address, listener } = socket;
        let (lifeline, theirs) = UnixStream::pair()?;
        let watched = lifeline.try_clone()?;
        // A group of its own: Ctrl-C in a terminal goes to a whole group, and the applications are
        // still needed while the proxy drains.
        command.stdin(OwnedFd::from(listener)).stdout(OwnedFd::from(theirs)).process_group(0);
        let child = command.spawn()?;
        // It holds copies of their ends. Without this, the port would never refuse and the lifeline
        // never end.
        drop(command);
        let pid = child.id();
        let told = Gone { name: name.clone(), pid, address, left: 0 };
        let watcher = thread::Builder::new().name(name.clone()).spawn(move || {
            wait(child, watched);
            // All were running when they are stopped by us: then the count is 0 already.
            let one_less = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if let Ok(before) = one_less {
                gone(&Gone { left: before - 1, ..told });
            }
        })?;
        Ok(Self { name, pid, address, lifeline, watcher })
    }
}

/// Returns when the process is gone, whoever of both ended the lifeline.
fn wait(mut child: Child, mut lifeline: UnixStream) {
    // An error ends it as well.
    let _ = io::copy(&mut lifeline, &mut io::sink());
    // It holds nothing worth saving. Fails if it has ended by itself.
    let _ = child.kill();
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "cannot wait for an application");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A program that neither reads nor ends by itself.
    fn idle(_: &AppSocket) -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    #[test]
    fn a_busy_port_is_named_with_the_flag() {
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = busy.local_addr().unwrap();
        let error = bind_apps(1, address.port()).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--app-port"), "{error}");
    }

    #[test]
    fn ports_beyond_the_last_one_are_an_error() {
        let error = bind_apps(3, u16::MAX - 1).unwrap_err().to_string();
        assert!(error.contains("3 ports from 65534") && error.contains("--app-port"), "{error}");
    }

    #[test]
    fn any_free_ports_differ() {
        let sockets = bind_apps(2, 0).unwrap();
        assert_eq!(sockets.iter().map(AppSocket::name).collect::<Vec<_>>(), ["app-1", "app-2"]);
        assert_ne!(sockets[0].address(), sockets[1].address());
    }

    #[test]
    fn an_application_that_ends_is_reported_and_its_port_refuses() {
        let (sender, receiver) = mpsc::channel();
        let apps = Apps::start(bind_apps(2, 0).unwrap(), idle, move |gone| {
            sender.send(gone.clone()).unwrap();
        });
        let apps = apps.unwrap();
        let (name, pid, address) = apps.iter().nth(1).unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
        let kill = Command::new("sh").args(["-c", &format!("kill {pid}")]).status().unwrap();
        assert!(kill.success());
        let gone = receiver.recv().unwrap();
        assert_eq!((&*gone.name, gone.pid, gone.address, gone.left), (name, pid, address, 1));
        assert!(std::net::TcpStream::connect(address).is_err());
        drop(apps);
        assert!(receiver.recv().is_err(), "what is stopped is not reported");
    }

    #[test]
    fn an_application_that_cannot_be_started_leaves_none_behind() {
        let sockets = bind_apps(2, 0).unwrap();
        let address = sockets[0].address();
        let command = |socket: &AppSocket| match socket.name() {
            "app-1" => idle(socket),
            _ => Command::new("/no/such/program"),
        };
        assert!(Apps::start(sockets, command, |_| panic!("not by itself")).is_err());
        // Another test that starts a process has the socket, too, between fork and exec.
        let deadline = crate::clock::now() + std::time::Duration::from_secs(10);
        while std::net::TcpStream::connect(address).is_ok() {
            assert!(crate::clock::now() < deadline, "somebody still listens");
            thread::yield_now();
        }
    }
}
