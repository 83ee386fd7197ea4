//! Sockets that were opened before this process: by the one it takes over from, or by systemd.
//!
//! They are matched to listeners by the address they are bound to. What matches none is closed, which the
//! log says: somebody expects to be served there.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;
use socket2::SockRef;

/// Sockets that wait for the listener they belong to.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Socket>);

#[derive(Debug)]
struct Socket {
    /// The listener it served in the process before; none when systemd opened it.
    listener: Option<Box<str>>,
    address: SocketAddr,
    socket: TcpListener,
}

// === impl Inherited ===

impl Inherited {
    /// Those that systemd passes (sd_listen_fds(3): `LISTEN_FDS`, `LISTEN_PID`). To be called once, before
    /// there are threads.
    pub fn from_environment() -> Self {
        let mut found = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..found.len() {
            let socket = found.take_tcp_listener(index).and_then(|socket| match socket {
                Some(socket) if SockRef::from(&socket).is_listener()? => {
                    Ok(Some((socket.local_addr()?, socket)))
                }
                Some(_) => Err(io::Error::other("it does not listen")),
                None => Ok(None),
            });
            match socket {
                Ok(Some((address, socket))) => sockets.push(Socket { listener: None, address, socket }),
                Ok(None) => {}
                Err(error) => tracing::warn!(
                    number = index + FIRST,
                    %error,
                    "a file descriptor of LISTEN_FDS is no listening TCP socket, and not used"
                ),
            }
        }
        Self(sockets)
    }

    /// Adds one that the process before had for this listener.
    ///
    /// # Errors
    ///
    /// When it is no listening socket.
    pub fn add(&mut self, listener: &str, socket: TcpListener) -> io::Result<()> {
        if !SockRef::from(&socket).is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a listening socket"));
        }
        let address = socket.local_addr()?;
        // Before all others: it is the one that clients are waiting at.
        let at = self.0.iter().take_while(|socket| socket.listener.is_some()).count();
        self.0.insert(at, Socket { listener: Some(listener.into()), address, socket });
        Ok(())
    }

    /// Takes the sockets of this listener at this address out: those of the process before, else systemd's.
    /// Port 0 is satisfied by whatever port the process before had.
    pub(super) fn take(&mut self, listener: &str, address: SocketAddr) -> Vec<TcpListener> {
        let before = self.take_if(|socket| {
            socket.listener.as_deref() == Some(listener)
                && (same_address(address, socket.address)
                    || address.port() == 0 && address.ip() == socket.address.ip())
        });
        let given = self.take_if(|socket| socket.listener.is_none() && same_address(address, socket.address));
        let (sockets, by) =
            if before.is_empty() { (given, "systemd") } else { (before, "the process before") };
        if !sockets.is_empty() {
            tracing::info!(listener, %address, sockets = sockets.len(), by, "inherited");
        }
        sockets
    }

    /// Closes what no listener wanted.
    pub fn close_rest(self) {
        // Each worker had one at the same address: that is one thing to tell.
        let mut closed = BTreeMap::new();
        for Socket { listener, address, .. } in self.0 {
            *closed.entry((listener, address)).or_insert(0) += 1;
        }
        for ((listener, address), sockets) in closed {
            tracing::warn!(
                %address,
                of = listener.as_deref().unwrap_or("systemd"),
                sockets,
                "an inherited socket is closed: no listener of the configuration has this address"
            );
        }
    }

    fn take_if(&mut self, wanted: impl Fn(&Socket) -> bool) -> Vec<TcpListener> {
        self.0.extract_if(.., |socket| wanted(socket)).map(|socket| socket.socket).collect()
    }
}

/// The number of the first file descriptor that is passed (sd_listen_fds(3)).
const FIRST: usize = 3;

/// Whether a socket bound to `bound` serves what a listener at `wanted` should. `[::]` and `0.0.0.0` are the
/// same wish: where there is no IPv6, the former becomes the latter.
pub fn same_address(wanted: SocketAddr, bound: SocketAddr) -> bool {
    let (all, port) = (wanted.ip().is_unspecified() && bound.ip().is_unspecified(), wanted.port());
    port == bound.port() && port != 0 && (all || wanted.ip() == bound.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn a_listener_gets_its_own_sockets_by_name_and_address() {
        let mut inherited = Inherited::default();
        let ((one, at_one), (two, at_two)) = (socket(), socket());
        inherited.add("https", one.try_clone().unwrap()).unwrap();
        inherited.add("https", one).unwrap();
        inherited.add("admin", two).unwrap();
        assert_eq!(inherited.take("https", at_two).len(), 0, "it was another listener's");
        assert_eq!(inherited.take("https", at_one).len(), 2);
        assert_eq!(inherited.take("https", at_one).len(), 0, "taken");
        assert_eq!(inherited.take("admin", "127.0.0.1:0".parse().unwrap()).len(), 1);
    }

    #[test]
    fn what_the_process_before_had_counts_before_what_systemd_opened() {
        let (one, at) = socket();
        let (listener, socket) = (None, one.try_clone().unwrap());
        let mut inherited = Inherited(vec![Socket { listener, address: at, socket }]);
        inherited.add("https", one).unwrap();
        let taken = inherited.take("https", at);
        assert_eq!((taken.len(), inherited.0.len()), (1, 0), "not the same socket twice");
    }

    #[test]
    fn every_address_is_every_address() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(same_address(address("[::]:443"), address("0.0.0.0:443")));
        assert!(!same_address(address("[::]:443"), address("127.0.0.1:443")));
        assert!(!same_address(address("127.0.0.1:443"), address("127.0.0.1:444")));
        assert!(!same_address(address("127.0.0.1:0"), address("127.0.0.1:0")));
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        use socket2::{Domain, Type};
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(Inherited::default().add("https", socket.into()).is_err());
    }
}
