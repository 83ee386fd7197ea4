//! The backend side: connections, kept alive per worker, and one exchange on one of them.
//!
//! A worker's [`Connections`] are its own: no lock, no cross-core traffic. A connection is lent to one
//! request at a time ([`Connection`]) and comes back only when both the request and the answer have been
//! passed on whole; anything else drops it, which closes it, so that no client can ever read another's
//! answer.

mod connect;
mod probe;
mod socket;
mod stream;

use std::{cell::RefCell, collections::HashMap, error::Error as _, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use self::socket::Socket;
pub use self::{
    connect::{ConnectError, connect},
    probe::{ProbeError, probe},
    stream::Stream,
};
use crate::{backend::Backend, clock, error::Fault};

/// The body of a backend's answer.
pub type Body = hyper::body::Incoming;

/// One worker's idle connections.
#[derive(Debug)]
pub struct Connections<B> {
    /// Most recently used last, so that the spare ones grow old and are closed.
    idle: RefCell<HashMap<*const Backend, Vec<Idle<B>>>>,
}

/// A connection lent to one request.
#[derive(Debug)]
pub struct Connection<B> {
    sender: SendRequest<B>,
    /// A look at the socket beside hyper, which owns the reading and writing.
    socket: Arc<TcpStream>,
    backend: Arc<Backend>,
    /// Whether it served a request before, and so may have been closed by the backend meanwhile.
    reused: bool,
}

/// Why an exchange gave no answer.
#[derive(Debug)]
pub enum ExchangeError<B> {
    /// Nothing was sent; the request comes back.
    Unsent(Box<Request<B>>),
    /// The backend closed or reset the connection; it may have processed the request.
    Closed,
    /// The backend's answer is not HTTP.
    BadAnswer,
    /// The request's own body failed: the client's doing.
    Body(Fault),
}

#[derive(Debug)]
struct Idle<B> {
    connection: Connection<B>,
    since: Instant,
}

/// Bytes of an answer's head, and of what is read ahead of its body.
const READ_BUFFER: usize = 64 * 1024;
/// Fields of an answer's head.
const MAX_FIELDS: usize = 256;

// === impl Connections ===

impl<B> Default for Connections<B> {
    fn default() -> Self {
        Self { idle: RefCell::default() }
    }
}

impl<B> Connections<B>
where
    B: HttpBody + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An idle connection that still looks alive.
    pub fn idle(&self, backend: &Arc<Backend>, max_idle: Duration) -> Option<Connection<B>> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&Arc::as_ptr(backend))?;
        let now = clock::now();
        while let Some(Idle { connection, since }) = list.pop() {
            if now.duration_since(since) >= max_idle {
                // Everything below is older still.
                list.clear();
                return None;
            }
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Opens a connection and drives it in a task of this worker.
    pub async fn open(&self, backend: &Arc<Backend>, limit: Duration) -> Result<Connection<B>, ConnectError> {
        let stream = match connect(backend, limit).await {
            Ok(stream) => {
                backend.metrics.connected.inc();
                Arc::new(stream)
            }
            Err(error) => {
                backend.metrics.connect_failed.inc();
                return Err(error);
            }
        };
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .max_headers(MAX_FIELDS)
            .handshake(TokioIo::new(Socket(Arc::clone(&stream))))
            .await
            .map_err(|_| ConnectError::Unreachable)?;
        // Ends when the sender is dropped or the backend closes; what went wrong is seen by whoever
        // holds the sender.
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "backend connection ended");
            }
        });
        Ok(Connection { sender, socket: stream, backend: Arc::clone(backend), reused: false })
    }

    /// Takes a connection back after a whole exchange; keeps at most `keep` per backend.
    pub fn give_back(&self, mut connection: Connection<B>, keep: usize) {
        if connection.sender.is_closed() {
            return;
        }
        connection.reused = true;
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(Arc::as_ptr(&connection.backend)).or_default();
        if list.len() < keep {
            list.push(Idle { connection, since: clock::now() });
        }
    }

    /// Closes what has been idle for longer than `max_idle`, and what its backend has closed.
    pub fn sweep(&self, max_idle: impl Fn(&Backend) -> Duration) {
        let now = clock::now();
        self.idle.borrow_mut().retain(|_, list| {
            list.retain(|idle| {
                !idle.connection.sender.is_closed()
                    && now.duration_since(idle.since) < max_idle(&idle.connection.backend)
            });
            !list.is_empty()
        });
    }
}

// === impl Connection ===

impl<B> Connection<B>
where
    B: HttpBody + 'static,
{
    /// Whether it served a request before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether the backend has closed it without our having noticed yet: one look into the socket, for
    /// requests that must not be sent twice.
    pub fn is_stale(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match socket2::SockRef::from(&*self.socket).peek(&mut byte) {
            // Bytes that nobody asked for, or the end.
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }

    /// Sends one request and waits for the head of its answer.
    pub async fn exchange(&mut self, request: Request<B>) -> Result<Response<Body>, ExchangeError<B>> {
        self.sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
            Some(request) => ExchangeError::Unsent(Box::new(request)),
            None => ExchangeError::classify(error.error()),
        })
    }
}

// === impl ExchangeError ===

impl<B> ExchangeError<B> {
    fn classify(error: &hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(inner) = source {
            if let Some(fault) = inner.downcast_ref::<Fault>() {
                return Self::Body(*fault);
            }
            source = inner.source();
        }
        if error.is_parse() { Self::BadAnswer } else { Self::Closed }
    }
}
