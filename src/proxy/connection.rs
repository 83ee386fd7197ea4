//! One client connection, from the TLS handshake to its end.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{
    Client, Place, Worker,
    activity::Activity,
    guard::{End, Guard},
    http1, http2,
};
use crate::world::Permit;

/// hyper refuses heads by itself and without a word; ours refuses first, with one. Between the two lies
/// the factor by which a head may exceed the limit and still be told so.
pub(super) const HEAD_SLACK: usize = 2;

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
    permit: Permit,
) -> impl Future<Output = ()> + use<> {
    let place = Place::take(worker, permit, &worker.metrics.http);
    plain(Rc::clone(worker), stream, place)
}

async fn tls(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, place: Place) {
    let snapshot = worker.world.snapshot.load_full();
    let acceptor = TlsAcceptor::from(Arc::clone(&snapshot.materials.tls));
    let timeouts = snapshot.config.timeouts.clone();
    let limits = snapshot.config.limits.clone();
    drop(snapshot);
    let metrics = &worker.metrics;
    let stream = match timeout(timeouts.handshake, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let closed = error.kind() == std::io::ErrorKind::UnexpectedEof
                || error.kind() == std::io::ErrorKind::ConnectionReset;
            if closed { &metrics.tls_closed } else { &metrics.tls_failed }.inc();
            tracing::debug!(%peer, %error, "handshake failed");
            return;
        }
        Err(_) => {
            metrics.tls_timeout.inc();
            tracing::debug!(%peer, "handshake not done in time");
            return;
        }
    };
    let tls = stream.get_ref().1;
    match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => metrics.tls12.inc(),
        _ => metrics.tls13.inc(),
    }
    let http2 = tls.alpn_protocol() == Some(b"h2");
    let client = Rc::new(Client::new(&worker, peer, place));
    if http2 {
        http2::serve_http2(&client, stream, &timeouts, &limits).await;
    } else {
        http1::serve_http1(&client, stream, &timeouts).await;
    }
}

async fn plain(worker: Rc<Worker>, stream: TcpStream, _place: Place) {
    let snapshot = worker.world.snapshot.load_full();
    let activity = Activity::new();
    let timeouts = &snapshot.config.timeouts;
    // A redirect is too small to be left standing.
    let guard = Guard::new(&worker, &activity, &Rc::default(), Some(timeouts.head), timeouts);
    http1::serve_redirect(&worker.world, stream, &activity, guard).await;
}

/// Runs a connection to its end, or to the guard's.
pub(super) async fn drive<C>(connection: C, mut guard: Guard, shut_down: impl Fn(Pin<&mut C>))
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "client connection ended");
                }
                return;
            }
            end = guard.next() => match end {
                End::Graceful => shut_down(connection.as_mut()),
                End::Now => return,
            },
        }
    }
}
