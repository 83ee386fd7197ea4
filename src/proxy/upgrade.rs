//! A WebSocket: after the handshake, bytes both ways until either side ends, or it has to go.

use std::{cell::Cell, io, pin::pin, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    Client,
    guard::Gauge,
    record::Record,
    stream::StreamHold,
    websocket::{Frames, close},
};
use crate::{backend::InFlight, clock, upstream::Stream, world::Phase};

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
    /// How long nothing may pass in either direction.
    pub(super) idle: Duration,
}

/// What passes, as both directions see it.
#[derive(Debug)]
struct Traffic {
    /// Bytes of the client.
    received: Cell<u64>,
    /// When something passed last.
    last: Cell<Instant>,
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
    /// Passes bytes between the client's half and the backend's until it is over.
    pub(super) async fn run(mut self, near: impl AsyncRead + AsyncWrite + Unpin) {
        let _open = Gauge::enter(&self.client.worker.metrics.websockets);
        let _tunnel = self.client.tunnels.enter();
        let traffic = Traffic { received: Cell::new(0), last: Cell::new(clock::now()) };
        if let Err(error) = self.pass(near, &traffic).await {
            tracing::debug!(%error, "websocket broken");
        }
        self.record.received(traffic.received.get());
        // In this order: the record says when the session was let go.
        let Self { record, in_flight, hold, .. } = self;
        drop((hold, in_flight, record));
    }

    async fn pass(&mut self, near: impl AsyncRead + AsyncWrite + Unpin, traffic: &Traffic) -> io::Result<()> {
        let (near_read, mut near_write) = split(near);
        let (far_read, far_write) = split(&mut self.far);
        let world = &self.client.worker.world;
        let (mut phase, mut tunnels) = (world.watch(), world.tunnels());
        let backend = Arc::clone(self.in_flight.backend());
        let idle = self.idle;
        let must_go = async {
            tokio::select! {
                // The sender cannot be gone: the client holds the world.
                _ = phase.wait_for(|phase| *phase == Phase::Forced) => {}
                // The process has handed over, and has carried it for long enough.
                _ = tunnels.wait_for(|ending| *ending) => {}
                // Its drain is over: the client may connect again, and lands elsewhere.
                () = backend.evicted() => {}
                () = traffic.silence(idle) => {}
            }
        };
        let up = pin!(pass_on(near_read, far_write, traffic));
        // As configured by then.
        let last = || world.snapshot.load().config.websocket_close.map(close);
        let down = pin!(pass_frames(far_read, &mut near_write, &mut self.record, traffic, must_go, last));
        let (mut up, mut down) = (up, down);
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
            self.hold = None;
        }
        // A side that has ended may still read: last words, a close frame among them. But not for ever, or the
        // session would live as long as the other side pleases.
        timeout(CLOSING, up).await.unwrap_or(Ok(()))
    }
}

// === impl Traffic ===

impl Traffic {
    fn passed(&self) {
        self.last.set(clock::now());
    }

    /// Resolves when nothing has passed for so long. A byte that nobody takes does not pass.
    async fn silence(&self, limit: Duration) {
        loop {
            let end = self.last.get() + limit;
            if end <= clock::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// From the client to the backend.
async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    traffic: &Traffic,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        traffic.received.set(traffic.received.get() + count as u64);
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        traffic.passed();
    }
}

/// From the backend to the client, until it ends or has to go: then between two frames.
async fn pass_frames(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    record: &mut Record,
    traffic: &Traffic,
    must_go: impl Future<Output = ()>,
    last: impl Fn() -> Option<[u8; 4]>,
) -> io::Result<Stop> {
    let mut buffer = vec![0; BUFFER];
    let mut frames = Frames::default();
    // When it has to be gone, once it has to go: neither a client that does not read nor a backend that stops
    // within a frame may prolong it.
    let mut latest = None;
    tokio::pin!(must_go);
    loop {
        if let Some(latest) = latest
            && frames.between()
        {
            // The server closes first (RFC 6455 §7.1.1): clients wait for it.
            let frame = last();
            timeout_at(latest, last_words(to, frame.as_ref().map_or(&[], |frame| frame))).await??;
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
            timeout(CLOSING, last_words(to, &[])).await??;
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
        traffic.passed();
    }
}

/// A client that takes nothing takes no end either, nor over HTTP/2 what was written before: to be given up in time.
async fn last_words(to: &mut (impl AsyncWrite + Unpin), words: &[u8]) -> io::Result<()> {
    to.write_all(words).await?;
    to.shutdown().await
}

async fn until(latest: Option<Instant>) {
    match latest {
        Some(latest) => sleep_until(latest).await,
        None => std::future::pending().await,
    }
}
