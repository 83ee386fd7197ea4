//! HTTP/2 in front (RFC 9113).

use std::{convert::Infallible, error::Error, rc::Rc, time::Duration};

use http::{Request, Response};
use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;

use super::{
    Client,
    answer_body::AnswerBody,
    answers,
    connection::{HEAD_SLACK, drive},
    flood::{Alarm, Kind, Metered},
    guard::Guard,
    http2_body::Body,
    request_body::Incoming,
    service::{self, Outcome},
    socket::Socket,
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
/// Body bytes that an HTTP/2 client may send ahead, per stream and per connection: no more for many than for one,
/// since what a backend is slow to take stays here.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Streams that the client has reset and nobody has looked at yet (CVE-2023-44487).
const RESET_UNSEEN: usize = 20;
/// Streams of a connection that end because the client broke a rule (CVE-2025-8671).
const RESET_HERE: usize = 256;
/// What heads may refer to of earlier ones, as the client compresses them (RFC 7541 §4.2): the default of HTTP/2.
const HEADER_TABLE: u32 = 4096;
/// Time for a client that floods to read why it is cut.
const PARTING: Duration = Duration::from_secs(1);

/// Serves a client that has chosen HTTP/2.
pub(super) async fn serve_http2(
    client: &Rc<Client>,
    stream: Box<TlsStream<Socket>>,
    timeouts: &Timeouts,
    limits: &Limits,
) {
    let guard = Guard::new(&client.worker, &client.activity, &client.answers, None, timeouts)
        .until_spent(&client.spent);
    let service = service_fn(|request| answer(Rc::clone(client), request));
    let alarm = Rc::new(Alarm::default());
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams.get())
        .max_header_list_size(u32::try_from(limits.head_size * HEAD_SLACK).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_HERE)
        .header_table_size(HEADER_TABLE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(Metered::new(stream, &alarm)), service);
    let flooded = async {
        alarm.rung().await;
        sleep(PARTING).await;
    };
    let ended = tokio::select! {
        ended = drive(connection, guard, &client.tunnels, |connection| connection.graceful_shutdown()) => ended,
        () = flooded => Ok(()),
    };
    let flood = alarm.kind().or_else(|| ended.is_err_and(|error| is_flood(&error)).then_some(Kind::Other));
    if let Some(kind) = flood {
        client.worker.metrics.flood(kind);
        tracing::debug!(peer = %client.peer, frame = kind.as_str(), "client floods");
    }
}

/// Answers the request of one stream.
async fn answer(
    client: Rc<Client>,
    mut request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Infallible> {
    let near = hyper::upgrade::on(&mut request);
    match service::serve(client, request.map(Incoming::Http2)).await {
        Outcome::Answer(response) => Ok(response.map(Body::new)),
        Outcome::Tunnel(response, tunnel) => {
            tokio::task::spawn_local(async move {
                match near.await {
                    Ok(near) => tunnel.run(TokioIo::new(near)).await,
                    Err(error) => tracing::debug!(%error, "websocket upgrade failed"),
                }
            });
            Ok(response.map(|()| Body::new(AnswerBody::Whole(None))))
        }
    }
}

/// Whether h2 itself had enough.
fn is_flood(error: &hyper::Error) -> bool {
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    h2.is_some_and(|error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}
