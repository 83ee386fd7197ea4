//! A WebSocket: after the handshake, bytes both ways until either side ends, or it has to go.

use std::{io, rc::Rc, time::Duration};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};

use super::{
    Client,
    guard::Gauge,
    record::Record,
    stream::StreamHold,
    websocket::{Frames, GOING_AWAY},
};
use crate::{backend::InFlight, world::Phase};

/// What lives as long as the WebSocket does.
pub(super) struct Tunnel {
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
/// Time for a client to answer a close frame.
const CLOSING: Duration = Duration::from_secs(2);

/// Runs a WebSocket in a task of its own.
pub(super) fn tunnel(client: &Rc<Client>, near: OnUpgrade, far: OnUpgrade, mut tunnel: Tunnel) {
    // The client's place among the connections is taken until both are gone.
    let client = Rc::clone(client);
    tokio::task::spawn_local(async move {
        let _open = Gauge::enter(&client.worker.metrics.websockets);
        match tokio::try_join!(near, far) {
            Ok((near, far)) => match run(&client, near, far, &mut tunnel).await {
                Ok(()) => {}
                Err(error) => tracing::debug!(%error, "websocket broken"),
            },
            Err(error) => tracing::debug!(%error, "websocket upgrade failed"),
        }
        // In this order: the record says when the session was let go.
        let Tunnel { record, in_flight, hold } = tunnel;
        drop((hold, in_flight, record));
    });
}

async fn run(client: &Client, near: Upgraded, far: Upgraded, tunnel: &mut Tunnel) -> io::Result<()> {
    let (near_read, mut near_write) = split(TokioIo::new(near));
    let (far_read, far_write) = split(TokioIo::new(far));
    let mut phase = client.worker.world.watch();
    let must_go = async {
        // The sender cannot be gone: the client holds the world.
        let _ = phase.wait_for(|phase| *phase == Phase::Forced).await;
    };
    let up = pass_on(near_read, far_write);
    tokio::pin!(up);
    let down = pass_frames(far_read, &mut near_write, &mut tunnel.record, must_go);
    tokio::pin!(down);
    let stop = tokio::select! {
        stop = &mut down => stop?,
        // The client has said all it will; what the backend still says is passed on.
        ended = &mut up => {
            ended?;
            down.await?;
            return Ok(());
        }
    };
    match stop {
        // A backend that has ended may still read.
        Stop::Ended => up.await,
        // The client's last words, its close frame among them.
        Stop::Sent => timeout(CLOSING, up).await.unwrap_or(Ok(())),
    }
}

/// From the client to the backend.
async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
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
    let mut going = false;
    tokio::pin!(must_go);
    loop {
        if going && frames.between() {
            to.write_all(&GOING_AWAY).await?;
            to.flush().await?;
            return Ok(Stop::Sent);
        }
        let count = tokio::select! {
            () = &mut must_go, if !going => {
                going = true;
                continue;
            }
            count = from.read(&mut buffer) => count?,
        };
        if count == 0 {
            to.shutdown().await?;
            return Ok(Stop::Ended);
        }
        frames.pass(&buffer[..count]);
        record.sent(count as u64);
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}
