//! The shop: its state, and the server around it.

use std::{
    future::{Future, IntoFuture},
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    routes::{self, Context},
    sessions::{self, Sessions},
};
use crate::clock;

/// One application process, as far as its users can tell: what it knows is lost with it.
#[derive(Debug)]
pub struct Shop {
    name: Box<str>,
    name_header: HeaderValue,
    /// Random, so that whoever sees another one knows that the sessions are gone.
    instance: Box<str>,
    instance_header: HeaderValue,
    session_timeout: Duration,
    sessions: Sessions,
}

/// What distinguishes one shop from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShopOptions {
    /// Shown in every answer; 1 to 64 printable ASCII characters.
    pub name: String,
    /// Sessions end when idle for this long.
    pub session_timeout: Duration,
    /// Sessions kept at most; then new ones are answered 503.
    pub max_sessions: usize,
}

/// Why there is no such shop.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShopError {
    /// The name cannot stand in a header field.
    #[error("`{0}` cannot be a shop's name: 1 to 64 printable ASCII characters")]
    Name(String),
    /// No session would outlive the answer that made it.
    #[error("the session timeout is shorter than a tenth of a second")]
    SessionTimeout,
}

/// Tells streams that the shop closes.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// Serves `shop` on `listener` until `shutdown` is ready, then lets running requests finish for up
/// to [`GRACE`]; streams end at once. Runs on any tokio runtime with time and I/O; everything it
/// spawns ends with it.
pub async fn run(listener: TcpListener, shop: Arc<Shop>, shutdown: impl Future<Output = ()>) {
    let (stopper, stopped) = watch::channel(false);
    let stop = Stop(stopped);
    let mut connections = JoinSet::new();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&shop), stop.clone()));
                }
                Err(error) => accept_failed(&error).await,
            },
            // A connection that ended makes room for another.
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(shop = %shop.name, %error, "a connection's task failed");
                }
            }
            _ = sweep.tick() => shop.sessions.expire(clock::now()),
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    stopper.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, finished).await.is_err() {
        tracing::warn!(shop = %shop.name, "requests cut off at the end of the grace period");
    }
}

// === impl Shop ===

impl Shop {
    /// An empty shop with a new instance id.
    ///
    /// # Errors
    /// When the options make no sense.
    pub fn new(options: ShopOptions) -> Result<Self, ShopError> {
        let ShopOptions { name, session_timeout, max_sessions } = options;
        if !(1..=64).contains(&name.len()) || !name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(ShopError::Name(name));
        }
        if session_timeout < Duration::from_millis(100) {
            return Err(ShopError::SessionTimeout);
        }
        let instance = sessions::hex(&sessions::random_bytes::<8>());
        Ok(Self {
            name_header: HeaderValue::from_str(&name).expect("printable ASCII"),
            name: name.into(),
            instance_header: HeaderValue::from_str(&instance).expect("hexadecimal"),
            instance: instance.into(),
            session_timeout,
            sessions: Sessions::new(session_timeout, max_sessions),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its instance id.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// How long an idle session lives.
    pub fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(crate) fn name_header(&self) -> HeaderValue {
        self.name_header.clone()
    }

    pub(crate) fn instance_header(&self) -> HeaderValue {
        self.instance_header.clone()
    }
}

// === impl ShopOptions ===

impl ShopOptions {
    /// A shop of this name with the defaults: sessions of 30 minutes, 100,000 of them.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), session_timeout: Duration::from_mins(30), max_sessions: 100_000 }
    }
}

// === impl Stop ===

impl Stop {
    /// Ready once the shop closes.
    pub(crate) async fn stopped(&mut self) {
        // An error means that `run` itself is gone, which is a stop as well.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}

async fn serve(stream: TcpStream, shop: Arc<Shop>, mut stop: Stop) {
    // Without it, small answers wait for the client's delayed ACK; if it fails they are only slow.
    let _ = stream.set_nodelay(true);
    let upgrade = Arc::new(Mutex::new(None));
    let context = Context { shop: Arc::clone(&shop), stop: stop.clone(), upgrade: Arc::clone(&upgrade) };
    let service = service_fn(|request| routes::answer(request, context.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection.into_future());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(shop = %shop.name, %error, "connection ended by an error");
        return;
    }
    let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgrade) = upgrade {
        upgrade.serve(&shop, stop).await;
    }
}

async fn accept_failed(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        // Out of descriptors or memory: trying again at once would only burn the processor.
        tracing::warn!(%error, "cannot accept a connection");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Time for running requests at the end.
pub const GRACE: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 10_000;
const SWEEP: Duration = Duration::from_secs(5);
/// Also the keep-alive time; longer than the demo's proxy keeps an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
