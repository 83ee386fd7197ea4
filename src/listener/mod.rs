//! Sockets that accept clients: bound before anything is started, then one of each per worker.

mod accept;
mod inherited;
mod local;
pub mod proxy_protocol;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

pub use self::{
    accept::accept,
    inherited::{Inherited, same_address},
    local::{LocalSocket, SocketError, SocketFile},
};

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

/// The sockets of one listener: those that were inherited for it, else `count` new ones.
///
/// # Errors
///
/// As [`bind`].
pub fn open(
    listener: &'static str,
    flag: &'static str,
    address: SocketAddr,
    count: usize,
    inherited: &mut Inherited,
) -> Result<Vec<TcpListener>, BindError> {
    let sockets = inherited.take(listener, address);
    if sockets.is_empty() {
        return bind(listener, flag, address, count);
    }
    for socket in &sockets {
        socket.set_nonblocking(true).map_err(|error| BindError::Other { listener, address, flag, error })?;
    }
    Ok(sockets)
}

/// Gives every worker sockets to accept from, and every socket to at least one worker: one that nobody
/// accepts from holds clients for ever. What has to be in two hands is the same socket twice.
///
/// # Errors
///
/// When there are no file descriptors left.
pub fn spread(sockets: Vec<TcpListener>, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    let mut hands: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    let count = sockets.len();
    // Those whose numbers are the same modulo the number of sockets share one.
    for (worker, hand) in hands.iter_mut().enumerate().skip(count).take_while(|_| count > 0) {
        hand.push(sockets[worker % count].try_clone()?);
    }
    for (index, socket) in sockets.into_iter().enumerate() {
        hands[index % workers].push(socket);
    }
    Ok(hands)
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
    let probe = match socket(address, false) {
        // `[::]` means every address; on a host without IPv6 that is every IPv4 address.
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && lacks_ipv6(&error) => {
            socket((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        probe => probe,
    };
    let probe = probe.map_err(explain)?;
    let local = probe.local_addr().map_err(explain)?;
    drop(probe);
    (0..count).map(|_| socket(local, true)).collect::<io::Result<_>>().map_err(explain)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    const EADDRNOTAVAIL: i32 = 99;
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL))
}

fn socket(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
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
    fn every_socket_is_accepted_from_and_every_worker_has_one() {
        for (sockets, workers) in [(1, 1), (1, 3), (3, 1), (3, 2), (2, 3), (2, 5), (4, 4), (0, 2)] {
            let opened =
                if sockets == 0 { Vec::new() } else { bind("https", "--https", any(), sockets).unwrap() };
            let hands = spread(opened, workers).unwrap();
            let counts: Vec<usize> = hands.iter().map(Vec::len).collect();
            assert_eq!(counts.len(), workers);
            assert_eq!(counts.iter().sum::<usize>(), if sockets == 0 { 0 } else { sockets.max(workers) });
            assert!(
                sockets == 0 || counts.iter().all(|count| *count >= 1),
                "{sockets} for {workers}: {counts:?}"
            );
        }
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
