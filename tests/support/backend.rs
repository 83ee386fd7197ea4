//! A scripted HTTP/1.1 server in this process.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{
    flow::{Body, full},
    port::Port,
};

/// A scripted HTTP/1.1 server.
pub(crate) struct Backend {
    /// Its name in the pool.
    pub(crate) name: String,
    port: Port,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// The head of a request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
}

struct Shared {
    handler: Box<Handler>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

type Handler = dyn Fn(Request<Incoming>) -> Answering + Send + Sync;
type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

// === impl Backend ===

impl Backend {
    /// Answers every request by `handler`.
    pub(crate) fn start<F, Answer>(name: &str, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start_at(Port::reserve(), name, handler)
    }

    /// Likewise, on this port.
    pub(crate) fn start_at<F, Answer>(port: Port, name: &str, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Response<Body>> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            handler: Box::new(move |request| Box::pin(handler(request))),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let mut backend = Self { name: name.to_owned(), port, shared, accepting: None };
        backend.restart();
        backend
    }

    /// Answers every request by 200 and its own name.
    pub(crate) fn plain(name: &str) -> Self {
        let body = Bytes::from(name.to_owned());
        Self::start(name, move |_| {
            let body = body.clone();
            async move { Response::new(full(body)) }
        })
    }

    /// Answers every request by 200 and the body it brought.
    pub(crate) fn echo(name: &str) -> Self {
        Self::start(name, |request| async move {
            match request.into_body().collect().await {
                Ok(body) => Response::new(full(body.to_bytes())),
                Err(_) => answer(StatusCode::BAD_REQUEST, "the body broke off"),
            }
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Closes the port and every connection; connects are refused from now on.
    pub(crate) async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // Awaited, since the sockets are closed only when the task has been dropped.
            let _ = accepting.await;
        }
    }

    /// Listens again, on the same port.
    pub(crate) fn restart(&mut self) {
        self.accepting = Some(tokio::spawn(accept(self.port.listen(), Arc::clone(&self.shared))));
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no panic under it").clone()
    }

    /// The requests so far for this path.
    pub(crate) fn seen_at(&self, path: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.uri.path() == path);
        seen
    }

    /// The only request so far for this path.
    pub(crate) fn one_at(&self, path: &str) -> Seen {
        let mut seen = self.seen_at(path);
        assert_eq!(seen.len(), 1, "requests for {path} at {}: {seen:?}", self.name);
        seen.remove(0)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }
}

// === impl Seen ===

impl Seen {
    /// All values of a header field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    /// The only value of a header field; panics when there is none or more than one.
    pub(crate) fn one(&self, name: &str) -> &str {
        match self.all(name)[..] {
            [value] => value,
            ref values => panic!("{name} of {}: {values:?}", self.uri),
        }
    }
}

/// An answer with a plain body.
pub(crate) fn answer(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let index = shared.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(socket, index, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(socket: TcpStream, connection: usize, shared: Arc<Shared>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        shared.record(&head, connection);
        let answer = (shared.handler)(Request::from_parts(head, body));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // A client or proxy that goes away is what some tests are about.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).with_upgrades().await;
}

impl Shared {
    fn record(&self, head: &request::Parts, connection: usize) {
        let seen = Seen {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
            connection,
        };
        self.seen.lock().expect("no panic under it").push(seen);
    }
}
