//! One client connection, from the TLS handshake to its end.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
};

use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Client, Place, Worker,
    activity::{Activity, Watched},
    answers,
    guard::{End, Guard},
    redirect, service,
};
use crate::{
    config::{Limits, Timeouts},
    world::Permit,
};

/// Spawns onto this worker's thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F> Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(answers::stream(future));
    }
}

/// Answer bytes that may wait for a slow HTTP/2 client, per stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Body bytes that an HTTP/2 client may send ahead, per stream and per connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// hyper refuses heads by itself and without a word; ours refuses first, with one. Between the two lies
/// the factor by which a head may exceed the limit and still be told so.
const HEAD_SLACK: usize = 2;

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
        serve_http2(&client, stream, &timeouts, &limits).await;
    } else {
        serve_http1(&client, stream, &timeouts, &limits).await;
    }
}

async fn plain(worker: Rc<Worker>, stream: TcpStream, _place: Place) {
    let snapshot = worker.world.snapshot.load_full();
    let activity = Activity::new();
    let timeouts = &snapshot.config.timeouts;
    // A redirect is too small to be left standing.
    let guard = Guard::new(&worker, &activity, &Rc::default(), Some(timeouts.head), timeouts);
    let io = TokioIo::new(Watched { inner: stream, activity: Arc::clone(&activity) });
    let service = service_fn(|request| {
        let _busy = activity.request();
        let answer = redirect::answer(&worker.world, request);
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1_builder(&snapshot.config.limits).serve_connection(io, service);
    drive(connection, guard, |connection| connection.graceful_shutdown()).await;
}

async fn serve_http1(
    client: &Rc<Client>,
    stream: TlsStream<TcpStream>,
    timeouts: &Timeouts,
    limits: &Limits,
) {
    let guard = Guard::new(&client.worker, &client.activity, &client.answers, Some(timeouts.head), timeouts);
    let io = TokioIo::new(Watched { inner: stream, activity: Arc::clone(&client.activity) });
    let service = service_fn(|request| service::serve(Rc::clone(client), request));
    let connection = http1_builder(limits).serve_connection(io, service).with_upgrades();
    drive(connection, guard, |connection| connection.graceful_shutdown()).await;
}

async fn serve_http2(
    client: &Rc<Client>,
    stream: TlsStream<TcpStream>,
    timeouts: &Timeouts,
    limits: &Limits,
) {
    let guard = Guard::new(&client.worker, &client.activity, &client.answers, None, timeouts);
    let service = service_fn(|request| service::serve(Rc::clone(client), request));
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams.get())
        .max_header_list_size(u32::try_from(limits.head_size * HEAD_SLACK).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    drive(connection, guard, |connection| connection.graceful_shutdown()).await;
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The guard has both deadlines, that of a head and that of idleness.
        .header_read_timeout(None)
        .max_headers(limits.headers * HEAD_SLACK)
        .max_header_size(limits.head_size * HEAD_SLACK)
        .max_buf_size(limits.head_size * HEAD_SLACK);
    builder
}

/// Runs a connection to its end, or to the guard's.
async fn drive<C>(connection: C, mut guard: Guard, shut_down: impl Fn(Pin<&mut C>))
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
