//! One client connection, from the TLS handshake to its end.

use std::{net::SocketAddr, rc::Rc};

use futures_util::future::LocalBoxFuture;
use tokio::{net::TcpStream, time::timeout_at};

use super::{
    Client, Place, Worker,
    activity::Activity,
    guard::Guard,
    http1, http2,
    identity::Vetted,
    mistaken::{self, Beginning},
    preface,
    socket::Socket,
};
use crate::{
    admission::Permit,
    clock, host,
    tls::{self, Refused},
};

/// Serves a client that has connected to the TLS listener. It counts as open from the call on, not from
/// the first poll: a drain that begins in between must see it.
pub fn serve_tls(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
) -> impl Future<Output = ()> + use<> {
    let place = Place::take(worker, permit, &worker.metrics.https);
    tls(Rc::clone(worker), stream, peer, place)
}

/// Serves a client that has connected to the plain listener: everybody is sent to HTTPS.
pub fn serve_plain(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: Permit,
) -> impl Future<Output = ()> + use<> {
    let place = Place::take(worker, permit, &worker.metrics.http);
    plain(Rc::clone(worker), stream, peer, place)
}

/// A connection is one allocation for as long as it lives, and most are idle most of the time: what is large and soon
/// over is boxed, so that it does not stay part of it.
async fn tls(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, place: Place) {
    let begun = Box::pin(begin(worker, stream, peer, place)).await;
    if let Some(connection) = begun {
        clock::steady(connection).await;
    }
}

/// Shakes hands; what serves the client after that.
async fn begin(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    peer: SocketAddr,
    mut place: Place,
) -> Option<LocalBoxFuture<'static, ()>> {
    let snapshot = worker.world.snapshot.load_full();
    let timeouts = snapshot.config.timeouts.clone();
    let limits = snapshot.config.limits.clone();
    // One deadline for all that comes before the first request.
    let deadline = clock::now() + timeouts.handshake;
    let client = preface::client_of(&worker, &snapshot.config, &mut stream, peer, deadline).await;
    let peer = client.filter(|peer| place.counts_for(&worker, *peer))?;
    let front = snapshot.materials.tls.clone();
    drop(snapshot);
    let metrics = &worker.metrics;
    match mistaken::beginning(&mut stream, deadline, metrics).await {
        Beginning::Tls => {}
        Beginning::Http(bytes) => {
            tracing::debug!(%peer, "plain HTTP was sent to the port of HTTPS");
            return Some(Box::pin(async move {
                let _place = place;
                let activity = Activity::new();
                let guard = Guard::new(&worker, &activity, &Rc::default(), Some(timeouts.head), &timeouts);
                http1::serve_mistaken(&worker.world, stream, bytes, &activity, guard).await;
            }));
        }
        Beginning::Nothing => {
            tracing::debug!(%peer, "neither TLS nor HTTP was sent to the port of HTTPS");
            return None;
        }
    }
    let begun = clock::now();
    let (stream, identity) = match timeout_at(deadline, tls::accept(&front, Socket(stream))).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            match &error {
                Refused::Closed(_) => &metrics.tls_closed,
                Refused::Failed(_) => &metrics.tls_failed,
                Refused::UnknownName(_) => &metrics.tls_unknown_name,
                Refused::ClientCertificate(_) => &metrics.tls_client_certificate,
            }
            .inc();
            tracing::debug!(%peer, %error, "handshake failed");
            return None;
        }
        Err(_) => {
            metrics.tls_timeout.inc();
            tracing::debug!(%peer, "handshake not done in time");
            return None;
        }
    };
    let tls = stream.get_ref().1;
    match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => metrics.tls12.inc(),
        _ => metrics.tls13.inc(),
    }
    let http2 = tls.alpn_protocol() == Some(b"h2");
    let server_name = tls.server_name().map(|name| host::canonical(name).into());
    let vetted = Vetted { server_name, identity, way: front.vetting() };
    // A handshake takes at least one round trip.
    let round_trip = http2.then(|| clock::now().duration_since(begun));
    let client = Rc::new(Client::new(&worker, peer, vetted, place, round_trip));
    // What it is handed to would each have room for a whole one.
    let stream = Box::new(stream);
    Some(if http2 {
        Box::pin(async move { http2::serve_http2(&client, stream, &timeouts, &limits).await })
    } else {
        Box::pin(async move { http1::serve_http1(&client, stream, &timeouts).await })
    })
}

async fn plain(worker: Rc<Worker>, mut stream: TcpStream, peer: SocketAddr, mut place: Place) {
    let snapshot = worker.world.snapshot.load_full();
    let deadline = clock::now() + snapshot.config.timeouts.handshake;
    let client = preface::client_of(&worker, &snapshot.config, &mut stream, peer, deadline).await;
    if !client.is_some_and(|peer| place.counts_for(&worker, peer)) {
        return;
    }
    let activity = Activity::new();
    let timeouts = &snapshot.config.timeouts;
    // A redirect is too small to be left standing.
    let guard = Guard::new(&worker, &activity, &Rc::default(), Some(timeouts.head), timeouts);
    http1::serve_redirect(&worker.world, stream, &activity, guard).await;
}
