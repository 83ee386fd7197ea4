//! What comes before the first byte of the client's own: the PROXY header of a balancer.

use std::net::SocketAddr;

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::Worker;
use crate::{
    config::Config,
    listener::proxy_protocol::{self, ProxyHeaderError},
};

/// Whose connection this is: the peer's, unless that is a balancer which passes on somebody else's. From such a peer
/// the header must come, by `deadline`; from any other it is never read. None when the connection is over.
pub(super) async fn client_of(
    worker: &Worker,
    config: &Config,
    stream: &mut TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> Option<SocketAddr> {
    // An IPv4 peer of a dual-stack socket is an IPv4 peer.
    let address = peer.ip().to_canonical();
    if !config.listen.proxy_protocol.iter().any(|network| network.contains(&address)) {
        return Some(peer);
    }
    let metrics = &worker.metrics.proxy_headers;
    match timeout_at(deadline, proxy_protocol::read(stream)).await {
        Ok(Ok(Some(client))) => {
            metrics.client.inc();
            Some(client)
        }
        Ok(Ok(None)) => {
            metrics.local.inc();
            Some(peer)
        }
        Ok(Err(error)) => {
            match error {
                ProxyHeaderError::Closed => metrics.closed.inc(),
                ProxyHeaderError::Malformed | ProxyHeaderError::Io(_) => metrics.malformed.inc(),
            }
            tracing::debug!(%peer, %error, "no PROXY header");
            // Only balancers that are configured come here, and one that sends none takes every client along.
            if matches!(error, ProxyHeaderError::Malformed) && worker.world.may_complain_of_header() {
                tracing::warn!(
                    %peer,
                    "closing connections of an address in `listen.proxy_protocol` since they do not begin with a \
                     PROXY header: let it send one, or take it out of the list (told once a minute)"
                );
            }
            None
        }
        Err(_) => {
            metrics.timeout.inc();
            tracing::debug!(%peer, "the PROXY header did not come in time");
            None
        }
    }
}
