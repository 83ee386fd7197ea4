//! HTTP/1.1 of the admin listener.

use std::{convert::Infallible, fmt, io, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::{
    access::{Need, Rules, Via},
    api::{self, Caller, Peer},
    dashboard,
    events::{self, Hub},
    metrics::Metrics,
    reply::{Failure, Reply, events as event_stream, json, plain, text},
    router::{API, Route},
};
use crate::{
    listener::{LocalSocket, accept},
    world::{Phase, World},
};

/// What the admin listener shows and changes.
pub struct Admin {
    /// Everything that is counted.
    registry: Registry,
    pub(super) world: Arc<World>,
    /// The configuration file in use.
    pub(super) file: Option<PathBuf>,
    /// Requests of clients so far.
    pub(super) requests: Box<dyn Fn() -> u64>,
    pub(super) hub: Hub,
    /// Places for clients that wait for a drain.
    waiters: Semaphore,
    metrics: Metrics,
}

/// The two ends of one connection.
#[derive(Clone)]
struct Connection {
    admin: Rc<Admin>,
    via: Via,
    peer: Peer,
    /// Ends it.
    cut: Rc<Notify>,
}

/// TCP clients at one time. Those that follow events or wait for drains are fewer, so that there is always
/// room for a scrape.
const MAX_CLIENTS: usize = 64;
/// Clients of the Unix socket at one time: places that nobody else can take.
const MAX_LOCAL_CLIENTS: usize = 32;
/// Clients that wait for drains.
const MAX_WAITERS: usize = 32;
/// A client that sends no request for this long is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection is closed after this, whatever it does: clients reconnect.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Bytes of a request head.
const HEAD_SIZE: usize = 16 * 1024;
/// Bytes on their way to one client.
const SEND_BUFFER: usize = 64 * 1024;
/// Pause after an accept that failed.
const PAUSE: Duration = Duration::from_millis(50);
/// The dashboard needs its own files and the API, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

// === impl Admin ===

impl Admin {
    /// Registers what the listener counts of itself. `requests` tells the requests of clients so far.
    ///
    /// # Errors
    ///
    /// When there is one already.
    pub fn new(
        registry: Registry,
        world: Arc<World>,
        file: Option<PathBuf>,
        requests: impl Fn() -> u64 + 'static,
    ) -> prometheus::Result<Self> {
        let metrics = Metrics::register(&registry)?;
        let waiters = Semaphore::new(MAX_WAITERS);
        Ok(Self {
            registry,
            world,
            file,
            requests: Box::new(requests),
            hub: Hub::default(),
            waiters,
            metrics,
        })
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Serves until the process is forced to stop: readiness and metrics are of most use while it drains. After a
/// hand-over they are those of the new process, which has the socket then.
///
/// # Errors
///
/// Only when the socket itself is broken.
pub async fn serve(admin: Rc<Admin>, listener: TcpListener) -> io::Result<()> {
    let via = Via::tcp(listener.local_addr()?);
    if via == Via::Network && admin.world.snapshot.load().materials.token.is_none() {
        tracing::warn!(
            "the admin listener is not on a loopback address and has no token: it shows metrics and health only"
        );
    }
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let phase = admin.world.watch();
    let accepting = accept(
        listener,
        phase,
        |phase| matches!(phase, Phase::HandedOver | Phase::Carrying | Phase::Forced),
        || {},
        |stream, peer| {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { return };
            // What a client does not read is noticed after this much, not after megabytes.
            let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
            let connection = Connection::new(&admin, via, Peer::Address(peer));
            tokio::task::spawn_local(connection.serve(stream, place));
        },
    );
    accepting.await?;
    // Whoever is connected is served on; a task that ends means that something broke.
    std::future::pending().await
}

/// Serves the Unix socket until the process is forced to stop; its file goes then.
///
/// # Errors
///
/// Only when the socket itself is broken.
pub async fn serve_socket(admin: Rc<Admin>, socket: LocalSocket) -> io::Result<()> {
    let (listener, _file) = socket.into_parts();
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_LOCAL_CLIENTS));
    let mut phase = admin.world.watch();
    loop {
        let accepted = tokio::select! {
            // The sender cannot be gone: the world has it.
            _ = phase.wait_for(|phase| *phase == Phase::Forced) => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let user = stream.peer_cred().ok().map(|peer| peer.uid());
                let connection = Connection::new(&admin, Via::Socket, Peer::User(user));
                tokio::task::spawn_local(connection.serve(stream, place));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the admin socket for now");
                sleep(PAUSE).await;
            }
        }
    }
}

// === impl Connection ===

impl Connection {
    fn new(admin: &Rc<Admin>, via: Via, peer: Peer) -> Self {
        Self { admin: Rc::clone(admin), via, peer, cut: Rc::default() }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin, place: OwnedSemaphorePermit) {
        let cut = Rc::clone(&self.cut);
        let mut phase = self.admin.world.watch();
        let service = service_fn(|request| {
            let connection = self.clone();
            async move { Ok::<_, Infallible>(connection.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_SIZE)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            ended = timeout(LIFETIME, connection) => {
                if let Ok(Err(error)) = ended {
                    tracing::debug!(%error, "admin connection ended");
                }
            }
            () = cut.notified() => {}
            // Another process has the answers, for as long as this one may carry its WebSockets.
            _ = phase.wait_for(|phase| *phase == Phase::Carrying) => {}
        }
        drop(place);
    }

    async fn answer(self, request: Request<Incoming>) -> Reply {
        let as_json = request.uri().path().starts_with(API);
        let result = self.dispatch(request).await;
        let reply = result.unwrap_or_else(|failure| failure.reply(as_json));
        self.admin.metrics.answered(reply.status());
        reply
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Result<Reply, Failure> {
        let (head, body) = request.into_parts();
        let route = Route::of(&head.method, head.uri.path())?;
        let (world, query) = (&*self.admin.world, head.uri.query());
        let (right, changes) = {
            let snapshot = world.snapshot.load();
            let rules = Rules::of(&snapshot);
            let right = rules.check(self.via, route.need(), &head).inspect_err(|refusal| {
                let path = head.uri.path();
                match route.need() {
                    Need::Change => tracing::warn!(peer = %self.peer, path, %refusal, "admin change refused"),
                    _ => tracing::debug!(peer = %self.peer, path, %refusal, "admin request refused"),
                }
            })?;
            (right, rules.changes(self.via))
        };
        let caller = Caller { right, peer: self.peer };
        match &route {
            Route::Metrics => self.metrics(),
            Route::Alive => Ok(text(StatusCode::OK, "alive\n")),
            Route::Ready => Ok(ready(world.phase())),
            Route::Page(path) => page(path),
            Route::Status => Ok(json(&api::status(&self.admin, changes))),
            Route::Cluster => api::cluster(world),
            Route::Events => self.follow(),
            Route::Sessions(target) => api::sessions(world, target, query),
            Route::Explain => api::explain(world, &head.headers, body).await,
            Route::Forget => api::forget(world, caller, &head.headers, body).await,
            Route::Move => api::move_to(world, caller, &head.headers, body).await,
            Route::Drain(target) => api::drain(world, caller, target, &head.headers, body).await,
            Route::DrainProgress(target) => api::progress(world, &self.admin.waiters, target, query).await,
            Route::Undrain(target) => api::undrain(world, caller, target),
            Route::Maintenance(target) => api::maintenance(world, caller, target),
            Route::Weight(target) => api::weigh(world, caller, target, &head.headers, body).await,
            Route::Reload => api::reload(world, caller, query).await,
            Route::Log => api::log(),
            Route::SetLog => api::set_log(caller, &head.headers, body).await,
        }
    }

    fn follow(&self) -> Result<Reply, Failure> {
        let snapshot = self.admin.world.snapshot.load();
        let event = |changes| events::status(&self.admin, changes);
        self.admin.hub.follow(&Rules::of(&snapshot), self.via, &self.cut, event).map(event_stream)
    }

    fn metrics(&self) -> Result<Reply, Failure> {
        let mut page = String::with_capacity(32 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.admin.registry.gather(), &mut page) {
            tracing::error!(%error, "cannot write metrics");
            return Err(Failure::Ours("cannot write metrics"));
        }
        Ok(plain(StatusCode::OK, prometheus::TEXT_FORMAT, page))
    }
}

fn ready(phase: Phase) -> Reply {
    match phase {
        Phase::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Ready => text(StatusCode::OK, "ready\n"),
        Phase::HandedOver | Phase::Carrying | Phase::Draining | Phase::Forced => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
    }
}

fn page(path: &str) -> Result<Reply, Failure> {
    let asset = dashboard::asset(path).ok_or(Failure::NoSuchPath)?;
    let mut reply = plain(StatusCode::OK, asset.content_type, asset.body);
    let headers = reply.headers_mut();
    let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(reply)
}
