//! HTTP/1.1 of the admin listener.

use std::{convert::Infallible, io, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use crate::{
    listener::accept,
    world::{Phase, World},
};

/// What the admin listener shows.
#[derive(Debug)]
pub struct Admin {
    /// Everything that is counted.
    pub registry: Registry,
    /// What is shown.
    pub world: Arc<World>,
}

/// Clients of the admin listener at one time.
const MAX_CLIENTS: usize = 64;
/// A client that sends no request for this long is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection is closed after this, whatever it does: scrapers reconnect.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Bytes of a request head.
const HEAD_SIZE: usize = 16 * 1024;

/// Serves until the process is forced to stop: readiness and metrics are of most use while it drains.
///
/// # Errors
///
/// Only when the socket itself is broken.
pub async fn serve(admin: Rc<Admin>, listener: TcpListener) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let phase = admin.world.watch();
    let accepting = accept(
        listener,
        phase,
        Phase::Forced,
        || {},
        |stream, _| {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { return };
            let admin = Rc::clone(&admin);
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| {
                    let answer = answer(&admin, &request);
                    async { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(HEAD_SIZE)
                    .serve_connection(TokioIo::new(stream), service);
                if let Ok(Err(error)) = timeout(LIFETIME, connection).await {
                    tracing::debug!(%error, "admin connection ended");
                }
                drop(place);
            });
        },
    );
    accepting.await
}

fn answer<B>(admin: &Admin, request: &Request<B>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let known = matches!(path, "/" | "/metrics" | "/livez" | "/readyz");
    if known && !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => metrics(&admin.registry),
        "/livez" => text(StatusCode::OK, "alive\n"),
        "/readyz" => match admin.world.phase() {
            Phase::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Phase::Ready => text(StatusCode::OK, "ready\n"),
            Phase::Draining | Phase::Forced => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        "/" => text(
            StatusCode::OK,
            "homing\n\n/metrics  Prometheus metrics\n/livez    the process runs\n/readyz   it accepts clients\n",
        ),
        _ => text(StatusCode::NOT_FOUND, "not found; see /\n"),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut page = String::with_capacity(32 * 1024);
    if let Err(error) = TextEncoder::new().encode_utf8(&registry.gather(), &mut page) {
        tracing::error!(%error, "cannot write metrics");
        return text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write metrics; see the log\n");
    }
    let mut response = text(StatusCode::OK, page);
    let format = HeaderValue::from_static(prometheus::TEXT_FORMAT);
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
