//! A WebSocket: after the handshake, bytes both ways until either side ends.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::{Client, record::Record, stream::StreamHold};
use crate::backend::InFlight;

/// What lives as long as the WebSocket does.
pub(super) struct Tunnel {
    pub(super) record: Record,
    pub(super) in_flight: InFlight,
    pub(super) hold: Option<StreamHold>,
}

/// Runs a WebSocket in a task of its own, which counts as an open connection.
pub(super) fn tunnel(client: &Rc<Client>, near: OnUpgrade, far: OnUpgrade, mut tunnel: Tunnel) {
    // The client's place among the connections is taken until both are gone.
    let client = Rc::clone(client);
    tokio::task::spawn_local(async move {
        client.worker.metrics.websockets.inc();
        match tokio::try_join!(near, far) {
            Ok((near, far)) => {
                let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
                match copy_bidirectional(&mut near, &mut far).await {
                    Ok((_, sent)) => tunnel.record.sent(sent),
                    Err(error) => tracing::debug!(%error, "websocket broken"),
                }
            }
            Err(error) => tracing::debug!(%error, "websocket upgrade failed"),
        }
        client.worker.metrics.websockets.dec();
        let Tunnel { record, in_flight, hold } = tunnel;
        drop((record, in_flight, hold, client));
    });
}
