//! The accept loop: it never dies of a client, and never spins.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use crate::world::Phase;

/// What an error of `accept` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// This one connection is gone (accept(2): such errors are pending on the new socket).
    Connection,
    /// The process or the machine is out of something; it passes, or an operator acts.
    Resources,
    /// The socket itself is of no use.
    Fatal,
}

/// Pause after running out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Hands every accepted connection to `serve` until the process reaches a phase that `ends` it.
///
/// # Errors
///
/// Only when the socket itself is broken, which brings the process down.
pub async fn accept(
    listener: TcpListener,
    mut phase: watch::Receiver<Phase>,
    ends: impl Fn(Phase) -> bool,
    exhausted: impl Fn(),
    mut serve: impl FnMut(TcpStream, SocketAddr),
) -> io::Result<()> {
    let mut complained = false;
    loop {
        let accepted = tokio::select! {
            biased;
            // The sender cannot be gone: the world has it.
            ended = phase.wait_for(|phase| ends(*phase)) => {
                if ended.is_ok_and(|phase| *phase == Phase::HandedOver) {
                    // Whoever is in the queue is accepted by the process that has taken over.
                    return Ok(());
                }
                // Whoever is in the queue already has connected: closing the socket would reset them.
                while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
                    serve(stream, peer);
                }
                return Ok(());
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                complained = false;
                // A peer that is gone already shows when it is read from.
                let _ = stream.set_nodelay(true);
                serve(stream, peer);
            }
            Err(error) => match classify(&error) {
                Trouble::Connection => {}
                Trouble::Resources => {
                    exhausted();
                    if !complained {
                        complained = true;
                        tracing::error!(%error, "cannot accept connections for now");
                    }
                    sleep(PAUSE).await;
                }
                Trouble::Fatal => return Err(error),
            },
        }
    }
}

fn classify(error: &io::Error) -> Trouble {
    // errno values of Linux; std names only some of them.
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ENOMEM: i32 = 12;
    const ENOBUFS: i32 = 105;
    const EBADF: i32 = 9;
    const EINVAL: i32 = 22;
    const ENOTSOCK: i32 = 88;
    match error.raw_os_error() {
        Some(EMFILE | ENFILE | ENOMEM | ENOBUFS) => Trouble::Resources,
        Some(EBADF | EINVAL | ENOTSOCK) => Trouble::Fatal,
        _ => Trouble::Connection,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_file_descriptors_is_waited_out() {
        assert_eq!(classify(&io::Error::from_raw_os_error(24)), Trouble::Resources);
    }

    #[test]
    fn an_aborted_connection_concerns_nobody_else() {
        assert_eq!(classify(&io::ErrorKind::ConnectionAborted.into()), Trouble::Connection);
    }
}
