//! The configuration as the rest of the program sees it. A value here is already valid: names are
//! known, addresses parsed, durations in order; nothing that reads it checks again.

use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use http::{HeaderName, StatusCode};
use ipnet::IpNet;

use super::{
    RedisUrl, Tls,
    access_log::{AccessLog, LogFilter},
    close_code::CloseCode,
    edge::Edge,
};
use crate::affinity::Settings;

/// Everything `homing serve` needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The sockets that are opened.
    pub listen: Listen,
    /// Who may do what on the admin listener.
    pub admin: Admin,
    /// Data-plane threads.
    pub workers: NonZeroUsize,
    /// Certificates, chosen by SNI; the first one serves clients that name no known host.
    pub certificates: Vec<CertificateFiles>,
    /// Peers whose forwarding header fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether requests to backends get a `Via` field.
    pub via: bool,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// Which requests it records.
    pub access_log_filter: LogFilter,
    /// Whether a changed file is loaded without being asked to.
    pub watch: bool,
    /// The code of the close frame that ends a WebSocket which has to go; none for no such frame.
    pub websocket_close: Option<CloseCode>,
    /// Whether the access log shows queries.
    pub log_query: bool,
    /// The secret under which session ids become keys; drawn at start when none.
    pub secret_file: Option<PathBuf>,
    /// The DNS server asked for the backends that are discovered; those of the system when none.
    pub resolver: Option<SocketAddr>,
    /// The longest time between two look-ups of a name for discovery, whatever its TTL.
    pub dns_refresh: Duration,
    /// Where bindings are kept and shared beyond the process.
    pub state: State,
    /// Deadlines of the client side.
    pub timeouts: Timeouts,
    /// Bounds of the client side.
    pub limits: Limits,
    /// What one client may take, and all of them together.
    pub edge: Edge,
    /// `Strict-Transport-Security` max-age sent with every HTTPS answer; none by default.
    pub hsts: Option<Duration>,
    /// Host and path to pool; the most specific match wins whatever the order.
    pub routes: Vec<Route>,
    /// The applications.
    pub pools: Vec<Pool>,
    /// Who may shake hands at the front door.
    pub tls: Tls,
}

/// The sockets that are opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// TLS front door.
    pub https: SocketAddr,
    /// Plain HTTP that redirects to HTTPS.
    pub http: Option<SocketAddr>,
    /// Port that redirects to HTTPS name; when none, it follows from the Host of the request.
    pub redirect_port: Option<NonZeroU16>,
    /// Metrics, health, the API of operators.
    pub admin: Option<SocketAddr>,
    /// Peers whose connections to `https` and `http` begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
}

/// Who may do what on the admin listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// File with the token that changes need.
    pub token_file: Option<PathBuf>,
    /// Whether anybody on this machine may change things over a loopback listener, where no token is
    /// configured.
    pub allow_changes: bool,
    /// Host names, beside `localhost` and addresses, under which browsers may reach the listener; lower-case,
    /// without port.
    pub hosts: Vec<Box<str>>,
    /// Unix socket that answers as the listener does.
    pub socket: Option<PathBuf>,
}

/// Where bindings are kept and shared beyond the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// File that keeps them over a restart.
    pub file: Option<PathBuf>,
    /// Server that shares them with other replicas.
    pub redis: Option<Redis>,
    /// Name of this replica; the host's when none.
    pub replica: Option<Box<str>>,
    /// Unix socket by which a new process takes over from this one.
    pub handover: Option<PathBuf>,
}

/// Server that shares bindings with other replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Where it is.
    pub url: RedisUrl,
    /// File with the password, instead of one in the URL.
    pub password_file: Option<PathBuf>,
    /// Certificates that vouch for it; the usual public ones when none.
    pub ca: Option<PathBuf>,
    /// The longest time that one request waits for it, in all.
    pub timeout: Duration,
    /// What every key begins with.
    pub prefix: Box<str>,
}

/// One certificate chain and its key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub cert: PathBuf,
    /// Unencrypted private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// Deadlines of the client side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the first wait for a request to the end of its head.
    pub head: Duration,
    /// A connection without a request is closed after this.
    pub idle: Duration,
    /// A body in either direction that makes no progress for this long is cut.
    pub body: Duration,
    /// From SIGTERM to closing whatever is still open; after a take-over, to cutting requests under way.
    pub drain: Duration,
    /// From a take-over to closing the WebSockets that the process before still carries.
    pub handover_drain: Duration,
    /// A WebSocket over which nothing passes for this long is closed.
    pub websocket: Duration,
}

/// Bounds of the client side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request head.
    pub head_size: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// Bytes of a request body; unlimited when none.
    pub body_size: Option<u64>,
    /// Client connections over all workers.
    pub connections: NonZeroUsize,
    /// Concurrent HTTP/2 streams of one connection.
    pub streams: NonZeroU32,
    /// Bytes of a request target.
    pub uri_size: usize,
}

/// Host and path to pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which hosts.
    pub host: HostPattern,
    /// Path prefix, on segment boundaries: `/api` matches `/api` and `/api/x`, not `/apix`.
    pub path: Box<str>,
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// Bytes of a request body; unlimited when none.
    pub body_size: Option<u64>,
}

/// Which hosts a route serves; all lower-case, without port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// Exactly this one.
    Exact(Box<str>),
    /// `*.example.org`: one or more labels before this suffix, kept with its leading dot.
    Wildcard(Box<str>),
}

/// One application: backends that share its sessions' settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name, in metrics and routes.
    pub name: Box<str>,
    /// How its sessions are found, kept and placed.
    pub affinity: Settings,
    /// The proxy's own cookie, for an application that has none; then [`Settings::keys`] is empty.
    pub issue: Option<Issue>,
    /// Active check; only passive ones when none.
    pub health: Option<HealthCheck>,
    /// When passing requests tell that a backend is gone.
    pub passive: PassiveHealth,
    /// Deadlines of the backend side.
    pub timeouts: PoolTimeouts,
    /// Idle connections kept to each backend, per worker.
    pub keep_alive: usize,
    /// Answer field by which a backend tells which instance it is: another value means that its sessions
    /// are gone.
    pub instance_header: Option<HeaderName>,
    /// Its servers as they are written; at least one.
    pub backends: Vec<Backend>,
    /// What becomes of a backend that leaves the configuration.
    pub leave: Leave,
    /// How those with an `https://` URL are spoken to.
    pub tls: PoolTls,
    /// Bounds of the backend side.
    pub limits: PoolLimits,
}

/// What becomes of a backend that leaves the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leave {
    /// It drains: its live sessions stay there until they are idle.
    #[default]
    Drain,
    /// It is gone at once: its sessions move with their next request.
    Cut,
}

/// The proxy's own cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Its name.
    pub cookie: Box<str>,
    /// Keys that seal it; without a file, a random one that dies with the process.
    pub key_file: Option<PathBuf>,
    /// To which requests browsers add it.
    pub same_site: SameSite,
}

/// The `SameSite` attribute of a cookie (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Requests within the site, and links that lead to it.
    Lax,
    /// Requests within the site.
    Strict,
    /// All requests.
    None,
}

/// One server process; or, where they are discovered, however many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its identity; where they are discovered, what the names of all of them begin with.
    pub name: Box<str>,
    /// Host name or address literal (IPv6 without brackets).
    pub host: Box<str>,
    /// TCP port.
    pub port: u16,
    /// Share of sessions in relation to the others.
    pub weight: NonZeroU32,
    /// How the addresses behind the host name are found, each a backend; when none, it is one backend.
    pub discover: Option<Discover>,
    /// The name that its certificate must have, also sent as SNI; none for plain HTTP.
    pub tls: Option<Box<str>>,
}

/// How the addresses behind a host name are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discover {
    /// Its A and AAAA records are followed.
    Dns,
}

/// An active check: `GET path` on a connection of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path and query asked for.
    pub path: Box<str>,
    /// Value of the Host field; the backend's own when none.
    pub host: Option<Box<str>>,
    /// From one check to the next (spread by up to a tenth).
    pub interval: Duration,
    /// Whole check, connect to last byte of the head.
    pub timeout: Duration,
    /// Passed checks in a row that take a backend in.
    pub rise: NonZeroU32,
    /// Failed checks in a row that take it out.
    pub fall: NonZeroU32,
    /// Expected status codes, inclusive ranges.
    pub expect: Vec<(StatusCode, StatusCode)>,
}

/// When passing requests tell that a backend is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassiveHealth {
    /// Failures in a row (connect, reset or deadline; a refused connect counts as all of them).
    pub fall: NonZeroU32,
    /// Wait before the first trial connection; doubles up to 16 times this while other backends serve.
    pub retry: Duration,
}

/// Deadlines of the backend side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolTimeouts {
    /// TCP connect, name look-up and TLS handshake included.
    pub connect: Duration,
    /// From the end of the request to the end of the answer's head.
    pub head: Duration,
    /// Idle pooled connections are closed after this.
    pub idle: Duration,
}

/// TLS to the backends of a pool. The certificate of a backend is always verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolTls {
    /// Certificates that vouch for backends; the usual public ones when none.
    pub ca: Option<PathBuf>,
    /// What backends are shown that ask for a client certificate.
    pub certificate: Option<CertificateFiles>,
}

/// Bounds of the backend side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Requests and streams under way at each backend over all workers, a connection each; unlimited when none.
    pub connections: Option<NonZeroU32>,
    /// Requests that wait for each backend.
    pub queue: u32,
    /// How long one waits, all its attempts together.
    pub queue_timeout: Duration,
    /// Attempts beyond the first, as percent of the requests of the pool; unlimited when none.
    pub retry_budget: Option<u32>,
}
