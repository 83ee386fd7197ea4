//! HTTP/2 in front (RFC 9113).

use std::rc::Rc;

use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::{
    Client, answers,
    connection::{HEAD_SLACK, drive},
    guard::Guard,
    upgrade,
};
use crate::config::{Limits, Timeouts};

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

/// Serves a client that has chosen HTTP/2.
pub(super) async fn serve_http2(
    client: &Rc<Client>,
    stream: TlsStream<TcpStream>,
    timeouts: &Timeouts,
    limits: &Limits,
) {
    let guard = Guard::new(&client.worker, &client.activity, &client.answers, None, timeouts);
    let service = service_fn(|request| upgrade::answer(Rc::clone(client), request));
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams.get())
        .max_header_list_size(u32::try_from(limits.head_size * HEAD_SLACK).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    drive(connection, guard, |connection| connection.graceful_shutdown()).await;
}
