//! HTTP/2 in front (RFC 9113).

use std::{convert::Infallible, rc::Rc};

use http::{Request, Response};
use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::{
    Client,
    answer_body::AnswerBody,
    answers,
    connection::{HEAD_SLACK, drive},
    guard::Guard,
    request_body::Incoming,
    service::{self, Outcome},
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
    let service = service_fn(|request| answer(Rc::clone(client), request));
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

/// Answers the request of one stream.
async fn answer(
    client: Rc<Client>,
    mut request: Request<hyper::body::Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let near = hyper::upgrade::on(&mut request);
    match service::serve(client, request.map(Incoming::Http2)).await {
        Outcome::Answer(response) => Ok(response),
        Outcome::Tunnel(response, tunnel) => {
            tokio::task::spawn_local(async move {
                match near.await {
                    Ok(near) => tunnel.run(TokioIo::new(near)).await,
                    Err(error) => tracing::debug!(%error, "websocket upgrade failed"),
                }
            });
            Ok(response.map(|()| AnswerBody::Whole(None)))
        }
    }
}
