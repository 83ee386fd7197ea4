//! HTTP/1.1 in front (RFC 9112).

use std::{rc::Rc, sync::Arc};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::{
    Client,
    activity::Watched,
    connection::{HEAD_SLACK, drive},
    guard::Guard,
    upgrade,
};
use crate::config::{Limits, Timeouts};

/// Serves a client that has chosen HTTP/1.1, or nothing.
pub(super) async fn serve_http1(
    client: &Rc<Client>,
    stream: TlsStream<TcpStream>,
    timeouts: &Timeouts,
    limits: &Limits,
) {
    let guard = Guard::new(&client.worker, &client.activity, &client.answers, Some(timeouts.head), timeouts);
    let io = TokioIo::new(Watched { inner: stream, activity: Arc::clone(&client.activity) });
    let service = service_fn(|request| upgrade::answer(Rc::clone(client), request));
    let connection = http1_builder(limits).serve_connection(io, service).with_upgrades();
    drive(connection, guard, |connection| connection.graceful_shutdown()).await;
}

/// How such a connection is served.
pub(super) fn http1_builder(limits: &Limits) -> http1::Builder {
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
