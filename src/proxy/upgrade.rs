//! A WebSocket: after the handshake, bytes both ways until either side ends, or it has to go.

use std::{cell::Cell, io, pin::pin, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Client,
    guard::Gauge,
    record::Record,
    stream::StreamHold,
    websocket::{Frames, GOING_AWAY},
};
use crate::{
    backend::{Backend, InFlight},
    clock,
    upstream::Stream,
    world::Phase,
};

/// A WebSocket whose handshake is over, and what lives as long as it does.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// Its place among the connections is taken until both halves are gone.
    pub(super) client: Rc<Client>,
    /// The backend's half.
    pub(super) far: Stream,
    pub(super) record: Record,
    pub(super) in_flight: InFlight,
    pub(super) hold: Option<StreamHold>,
}

/// Why bytes stopped flowing to the client.
enum Stop {
    /// The backend ended.
    Ended,
    /// It has to go: the client has been told so.
    Sent,
}

/// Bytes read at a time, in either direction.
const BUFFER: usize = 8 * 1024;
/// Time for one side to say its last words after the other has ended.
const CLOSING: Duration = Duration::from_secs(5);

// === impl Tunnel ===

impl Tunnel {
    /// Passes bytes between the client and the backend until it is over.
    pub(super) async fn run(self, near: impl AsyncRead + AsyncWrite + Unpin) {
        let Self { client, far, mut record, in_flight, mut hold } = self;
        let _open = Gauge::enter(&client.worker.metrics.websockets);
        let received = Cell::new(0);
        let backend = Arc::clone(in_flight.backend());
        let passed = pass(&client, &backend, near, far, &mut record, &mut hold, &received);
        if let Err(error) = passed.await {
            tracing::debug!(%error, "websocket broken");
        }
        record.received(received.get());
        // In this order: the record says when the session was let go.
        drop((hold, in_flight, record));
    }
}

async fn pass(
    client: &Client,
    backend: &Backend,
    near: impl AsyncRead + AsyncWrite + Unpin,
    far: impl AsyncRead + AsyncWrite + Unpin,
    record: &mut Record,
    hold: &mut Option<StreamHold>,
    received: &Cell<u64>,
) -> io::Result<()> {
    let (near_read, mut near_write) = split(near);
    let (far_read, far_write) = split(far);
    let mut phase = client.worker.world.watch();
    let must_go = async {
        tokio::select! {
            // The sender cannot be gone: the client holds the world.
            _ = phase.wait_for(|phase| *phase == Phase::Forced) => {}
            // Its drain is over: the client may connect again, and lands elsewhere.
            () = backend.evicted() => {}
        }
    };
    let up = pass_on(near_read, far_write, received);
    tokio::pin!(up);
    let down = pass_frames(far_read, &mut near_write, record, must_go);
    tokio::pin!(down);
    let stop = tokio::select! {
        stop = &mut down => stop?,
        // The client has said all it will; what the backend still says is passed on.
        ended = &mut up => {
            ended?;
            return timeout(CLOSING, down).await.unwrap_or(Ok(Stop::Ended)).map(drop);
        }
    };
    if let Stop::Sent = stop {
        // Its session is free to move, and to be idle.
        *hold = None;
    }
    // A side that has ended may still read: last words, a close frame among them. But not for ever, or the
    // session would live as long as the other side pleases.
    timeout(CLOSING, up).await.unwrap_or(Ok(()))
}

/// From the client to the backend.
async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    received: &Cell<u64>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        received.set(received.get() + count as u64);
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

/// From the backend to the client, until it ends or has to go: then between two frames.
async fn pass_frames(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    record: &mut Record,
    must_go: impl Future<Output = ()>,
) -> io::Result<Stop> {
    let mut buffer = vec![0; BUFFER];
    let mut frames = Frames::default();
    // When it has to be gone, once it has to go: neither a client that does not read nor a backend that stops
    // within a frame may prolong it.
    let mut latest = None;
    tokio::pin!(must_go);
    loop {
        if latest.is_some() && frames.between() {
            to.write_all(&GOING_AWAY).await?;
            // The server closes first (RFC 6455 §7.1.1): clients wait for it.
            to.shutdown().await?;
            return Ok(Stop::Sent);
        }
        let count = tokio::select! {
            () = &mut must_go, if latest.is_none() => {
                latest = Some(clock::now() + CLOSING);
                continue;
            }
            () = until(latest) => return Err(io::ErrorKind::TimedOut.into()),
            count = from.read(&mut buffer) => count?,
        };
        if count == 0 {
            to.shutdown().await?;
            return Ok(Stop::Ended);
        }
        frames.pass(&buffer[..count]);
        record.sent(count as u64);
        let mut write = pin!(async {
            to.write_all(&buffer[..count]).await?;
            to.flush().await
        });
        loop {
            tokio::select! {
                written = write.as_mut() => break written?,
                () = &mut must_go, if latest.is_none() => latest = Some(clock::now() + CLOSING),
                () = until(latest) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }
}

async fn until(latest: Option<Instant>) {
    match latest {
        Some(latest) => sleep_until(latest).await,
        None => std::future::pending().await,
    }
}
