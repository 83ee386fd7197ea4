//! What every TCP connection is told, to clients and to backends alike.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Silence after which the kernel asks whether the other side is still there, and between its questions. A
/// phone that vanished under a WebSocket would hold its session for ever otherwise.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_AGAIN: Duration = Duration::from_secs(15);

/// Small parts go out at once, and a peer that is gone is noticed.
///
/// # Errors
///
/// When the system does not let us: usually the peer is gone already.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE_AGAIN);
    SockRef::from(stream).set_tcp_keepalive(&keep_alive)
}
