//! A port of this test's own, whether somebody listens on it or not.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpSocket};

/// A loopback port that stays reserved: while nobody listens, a connect is refused, and no other
/// test that binds port 0 meanwhile is given it.
pub(crate) struct Port {
    /// Bound but never listening. With SO_REUSEADDR on both, Linux lets a listener bind beside it,
    /// and never hands out the port by itself.
    _holder: Socket,
    /// Where it is.
    pub(crate) address: SocketAddr,
}

impl Port {
    /// Reserves a free one.
    pub(crate) fn reserve() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Reserves this one, of any loopback address.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let holder = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        holder.set_reuse_address(true).expect("SO_REUSEADDR");
        holder.bind(&address.into()).expect("a free port");
        let address = holder.local_addr().ok().and_then(|address| address.as_socket()).expect("bound");
        Self { _holder: holder, address }
    }

    /// Listens on it until the listener is dropped.
    pub(crate) fn listen(&self) -> TcpListener {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("SO_REUSEADDR");
        socket.bind(self.address).expect("our own port");
        socket.listen(1024).expect("our own port")
    }
}
