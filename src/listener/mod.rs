//! Sockets that accept clients: bound before anything is started, then one of each per worker.

mod accept;

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

pub use self::accept::accept;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error(
        "{listener} {address} is in use by another program: choose another with {flag} or `listen.{listener}`"
    )]
    InUse {
        /// Which listener.
        listener: &'static str,
        /// The address that is taken.
        address: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// Anything else.
    #[error(
        "cannot listen on {listener} {address}: {error} (choose another with {flag} or `listen.{listener}`)"
    )]
    Other {
        /// Which listener.
        listener: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

/// Opens `count` sockets on one address, between which the kernel spreads connections. Port 0 becomes
/// one free port for all of them.
///
/// # Errors
///
/// When the address is in use, also by another program that shares ports: two proxies that each get
/// half of the clients would be found out much later.
pub fn bind(
    listener: &'static str,
    flag: &'static str,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<TcpListener>, BindError> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { listener, address, flag },
        _ => BindError::Other { listener, address, flag, error },
    };
    // A socket without SO_REUSEPORT sees every other one; it gives way to ours at once.
    let probe = open(address, false).map_err(explain)?;
    let local = probe.local_addr().map_err(explain)?;
    drop(probe);
    (0..count).map(|_| open(local, true)).collect::<io::Result<_>>().map_err(explain)
}

fn open(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` serves IPv4 clients, too.
        socket.set_only_v6(false)?;
    }
    // Connections of a former process in TIME_WAIT do not keep us from starting.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn all_sockets_share_the_one_free_port() {
        let sockets = bind("https", "--https", any(), 3).unwrap();
        let ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]));
    }

    #[test]
    fn a_port_that_is_shared_by_another_proxy_counts_as_in_use() {
        let first = bind("https", "--https", any(), 2).unwrap();
        let taken = first[0].local_addr().unwrap();
        let error = bind("https", "--https", taken, 2).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }));
        let text = error.to_string();
        assert!(text.contains(&taken.to_string()) && text.contains("--https"), "{text}");
    }
}
