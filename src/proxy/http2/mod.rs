//! HTTP/2 in front (RFC 9113): our own engine.
//!
//! A connection is one future, which does all reading and writing; nothing is spawned for a request. It reads frames
//! (the codec in [`crate::http2`] refuses what breaks a rule by itself), and each request becomes a stream with a
//! future of its own, polled only when its waker says so. What streams have to say is collected and goes out together:
//! one write, one flush for all that was ready.
//!
//! Invariants: an answer that is not whole ends in a reset, never in what looks like an end; nobody is asked for more
//! of a body, in either direction, than a window and a bounded buffer have room for; an idle connection holds no buffer;
//! whatever a client may send for nothing is counted, also for streams that are over.

mod channel;
mod connection;
mod heads;
mod incoming;
mod output;
mod pipe;
mod ready;
mod sending;
mod stream;
mod streams;

use std::{cell::Cell, pin::pin, rc::Rc, time::Duration};

use tokio::{io::AsyncWriteExt as _, time::timeout};
use tokio_rustls::server::TlsStream;

pub(super) use self::channel::{Body, Channel};
use self::connection::{Connection, Ended};
use super::{
    Client, LINGER, LINGER_BYTES,
    gate::Gate,
    guard::{End, Guard},
    socket::Socket,
};
use crate::config::{Limits, Timeouts};

/// Body bytes that a client may send ahead: on one stream, and on all of them together, so that one that its backend
/// does not take does not hold up the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// The factor by which a head may exceed `limits.head_size`, as HTTP/2 counts it (RFC 9113 §6.5.2), and still be
/// understood, so that its refusal says what was asked.
const HEAD_SLACK: usize = 2;
/// Time for WebSockets over a connection that is closed at once to be told so.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a client that has chosen HTTP/2.
pub(super) async fn serve_http2(
    client: &Rc<Client>,
    mut stream: Box<TlsStream<Socket>>,
    timeouts: &Timeouts,
    limits: &Limits,
) {
    let mut guard = Guard::new(&client.worker, &client.activity, &client.answers, None, timeouts)
        .until_spent(&client.spent)
        .with_tunnels(&client.tunnels);
    let ending = Cell::new(false);
    let ended = {
        let connection = Connection::new(&mut *stream, client, &ending, timeouts, limits);
        let mut connection = pin!(connection.run());
        loop {
            let watched = pin!(guard.next());
            let next = Gate::new(watched);
            let end = tokio::select! {
                biased;
                ended = connection.as_mut() => break ended,
                end = next => end,
            };
            // Either way the connection is polled next, and looks.
            ending.set(true);
            if end == End::Now {
                if !client.tunnels.any() {
                    return;
                }
                // Its WebSockets have been told the same: their last frames are on the way.
                let Ok(ended) = timeout(FAREWELL, connection).await else { return };
                break ended;
            }
        }
    };
    if ended == Ended::Said {
        // Neither a client that does not read nor one that goes on sending is waited for.
        let _ = timeout(LINGER, part(&mut stream)).await;
    }
}

/// Ends the connection so that its client reads the last frames, whatever it still sends: a socket that is closed with
/// bytes unread is reset, and takes along what has not been read at the other end.
async fn part(stream: &mut TlsStream<Socket>) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let (Socket(socket), _) = stream.get_mut();
    let mut left = LINGER_BYTES;
    while socket.readable().await.is_ok() {
        let mut bytes = [0; 4096];
        match socket.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => match left.checked_sub(count as u64) {
                Some(rest) => left = rest,
                None => return,
            },
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
