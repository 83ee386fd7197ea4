//! One client connection, from the TLS handshake to its end.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use tokio::{
    net::TcpStream,
    time::{timeout, timeout_at},
};

use super::{
    Client, Open, Place, Worker,
    activity::Activity,
    guard::{End, Guard},
    http1, http2,
    identity::Vetted,
    preface,
    socket::Socket,
};
use crate::{
    admission::Permit,
    clock,
    tls::{self, Refused},
};

/// hyper refuses heads by itself and without a word; ours refuses first, with one. Between the two lies
/// the factor by which a head may exceed the limit and still be told so.
pub(super) const HEAD_SLACK: usize = 2;
/// Time for WebSockets over a connection that is closed at once to be told so.
const FAREWELL: Duration = Duration::from_secs(1);

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
    let server_name = tls.server_name().map(Into::into);
    let vetted = Vetted { server_name, identity, way: front.vetting() };
    let client = Rc::new(Client::new(&worker, peer, vetted, place));
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

/// Runs a connection to its end, or to the guard's.
pub(super) async fn drive<C>(
    connection: C,
    mut guard: Guard,
    tunnels: &Open,
    shut_down: impl Fn(Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = &result {
                    tracing::debug!(%error, "client connection ended");
                }
                return result;
            }
            end = guard.next() => match end {
                End::Graceful => shut_down(connection.as_mut()),
                End::Now => {
                    if tunnels.any() {
                        // Its WebSockets have been told the same: their last frames are on the way.
                        shut_down(connection.as_mut());
                        let _ = timeout(FAREWELL, connection).await;
                    }
                    return Ok(());
                }
            },
        }
    }
}
