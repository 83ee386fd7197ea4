//! What the API says, as JSON; the program's own commands read the same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts by label.
pub type Counts = BTreeMap<String, u64>;

/// How a changing request has to prove itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangesBy {
    /// By the token.
    Token,
    /// Not at all.
    Open,
    /// It cannot.
    Refused,
}

/// Everything at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub uptime_seconds: f64,
    /// `starting`, `ready`, `draining` or `forced`.
    pub phase: String,
    /// RFC 3339.
    pub time: String,
    pub changes: ChangesBy,
    pub config: ConfigStatus,
    /// Open client connections.
    pub connections: u64,
    /// Requests of clients since the start.
    pub requests_total: u64,
    /// Where many sessions begin on few connections.
    #[serde(default)]
    pub crowds: Vec<CrowdStatus>,
    pub pools: Vec<PoolStatus>,
}

/// An address of which many sessions begin on few connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CrowdStatus {
    pub address: String,
    pub sessions: u64,
    pub connections: u64,
}

/// How the configuration was loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// None when there are only flags.
    pub file: Option<String>,
    pub last_reload_ok: bool,
    /// When the configuration in use was loaded; RFC 3339.
    pub loaded_at: String,
    /// Why a later one was not.
    pub error: Option<String>,
}

/// One pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolStatus {
    pub name: String,
    pub balance: String,
    pub session_timeout_seconds: f64,
    pub ttl_seconds: f64,
    /// Where session ids are looked for, in a few words.
    #[serde(default)]
    pub key: String,
    /// Responses that set an id, by key.
    #[serde(default)]
    pub keys_set: Counts,
    /// Whether a session was seen yet.
    #[serde(default)]
    pub has_learned: bool,
    /// What is wrong with the key, if it seems to be.
    #[serde(default)]
    pub key_advice: Option<String>,
    pub entries: u64,
    pub capacity: u64,
    pub learned: u64,
    pub restored: u64,
    pub renamed: u64,
    pub ambiguous: u64,
    pub late_hits: u64,
    pub longest_late_seconds: f64,
    pub full: u64,
    pub streams: u64,
    /// The most live sessions per unit of weight, in relation to the average, over the backends that take new
    /// ones; 1 is even.
    pub skew: f64,
    pub verdicts: Counts,
    pub moves: Counts,
    pub ended: Counts,
    /// The entries that stand for what DNS knows.
    pub discovers: Vec<Discovers>,
    pub backends: Vec<BackendStatus>,
}

/// An entry whose backends are found in DNS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Discovers {
    pub entry: String,
    /// The name that is followed.
    pub host: String,
    /// How many backends it has just now.
    pub backends: u64,
}

/// One backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendStatus {
    pub name: String,
    pub url: String,
    /// The entry of the configuration that it was discovered for; none when it is written there itself.
    pub discovered: Option<String>,
    /// Whether its address has left DNS, so that it drains and then goes.
    pub left_dns: bool,
    /// Whether it has left the configuration, so that it drains and then goes.
    #[serde(default)]
    pub left_config: bool,
    /// `up`, `down`, `draining` or `maintenance`.
    pub state: String,
    pub up: bool,
    /// `ready`, `draining` or `maintenance`.
    pub admin: String,
    pub weight: u32,
    /// Of the pool's live sessions, 0 to 1.
    pub share: f64,
    pub live: u64,
    pub retained: u64,
    pub streams: u64,
    pub in_flight: u64,
    /// Requests that wait until it has room.
    #[serde(default)]
    pub queued: u64,
    pub generation: u16,
    /// Time until no live session is left, 0 when none is; none when it does not drain.
    pub drain_eta_seconds: Option<f64>,
    /// Time until the drain ends in maintenance.
    pub drain_deadline_seconds: Option<f64>,
    pub requests_total: u64,
    /// Answers with status 5xx, and exchanges without an answer.
    pub errors_total: u64,
    pub latency_seconds: Option<Latency>,
    pub verdicts: Counts,
    pub moves: Counts,
    pub ended: Counts,
    /// The latest last.
    pub health: Vec<HealthEntry>,
}

/// Quantiles of the time to the head of an answer, since the start.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// A change of a backend's health.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthEntry {
    pub at: String,
    pub up: bool,
    pub by: String,
    pub why: String,
}

/// A page of sessions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionPage {
    pub sessions: Vec<SessionEntry>,
    pub more: bool,
}

/// One session, by the short form of its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionEntry {
    pub fingerprint: String,
    /// `live` or `retained`.
    pub state: String,
    pub age_seconds: f64,
    pub idle_seconds: f64,
    /// None while a stream holds it.
    pub left_seconds: Option<f64>,
    pub streams: u32,
    pub moves: usize,
    pub unlearned: bool,
}

/// What there is to say about a session id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Explained {
    Known(ExplainedKnown),
    Unknown {
        pool: String,
        fingerprint: String,
        /// Always false.
        known: bool,
        would_go_to: Option<String>,
        /// It would be placed as a request without an id is (`on_unknown = "place"`), so that nothing says where.
        #[serde(default)]
        placed: bool,
    },
}

/// A session that is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainedKnown {
    pub pool: String,
    pub fingerprint: String,
    /// Always true.
    pub known: bool,
    pub home: String,
    /// `live`, `retained`, or `stale`: its home lost its memory since.
    pub state: String,
    pub age_seconds: f64,
    pub idle_seconds: f64,
    pub left_seconds: Option<f64>,
    pub streams: u32,
    pub unlearned: bool,
    /// The latest last.
    pub moves: Vec<ExplainedMove>,
}

/// One move of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainedMove {
    pub from: String,
    pub to: String,
    pub reason: String,
    pub seconds_ago: f64,
}

/// How far a drain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainProgress {
    /// No live session, no open stream and no request is left.
    pub done: bool,
    /// How the drain ended; none while it goes on.
    #[serde(default)]
    pub ended: Option<DrainEnd>,
    /// Live sessions that have moved or ended because the drain did not end by itself, or will with their next
    /// request.
    #[serde(default)]
    pub moved: u64,
    /// Streams that its end has cut.
    #[serde(default)]
    pub cut_streams: u64,
    /// Requests that were under way at its end.
    #[serde(default)]
    pub cut_requests: u64,
    /// The backend's state, as in [`BackendStatus`].
    pub state: String,
    pub live: u64,
    pub retained: u64,
    pub streams: u64,
    pub in_flight: u64,
    /// Requests that wait until it has room.
    #[serde(default)]
    pub queued: u64,
    pub eta_seconds: Option<f64>,
    pub deadline_seconds: Option<f64>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainEnd {
    /// Nothing was left, and nobody was moved.
    Drained,
    /// By its deadline, with something left.
    Deadline,
    /// By an operator who took the backend out at once, with something left.
    Maintenance,
    /// The backend restarted and lost sessions; nothing is left.
    Restarted,
    /// The backend was down and sessions moved away; nothing is left.
    Down,
    /// The backend left the configuration, with something left.
    Removed,
    /// It does not drain: it takes new sessions.
    Undrained,
}

/// What forgetting a session did.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Forgotten {
    pub forgotten: bool,
}

/// What moving a session did.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Moved {
    pub moved: bool,
    /// Whether there is such a session; when it was not moved, it lived there already.
    pub known: bool,
}

/// What a reload changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    pub applied: Vec<String>,
    /// What takes effect only after a restart.
    pub restart: Vec<String>,
    /// What deserves a second look, such as a certificate that ends earlier than the one before it.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Whether nothing was done.
    #[serde(default)]
    pub dry_run: bool,
    /// What it does to backends and sessions.
    #[serde(default)]
    pub effects: Vec<ReloadEffect>,
    /// Live sessions that end by it.
    #[serde(default)]
    pub lost: u64,
}

/// What a reload does to the sessions of a backend, or of a pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReloadEffect {
    pub pool: String,
    /// None when it is the whole pool.
    pub backend: Option<String>,
    /// `leaves` (and drains), `cut`, `returns`, `renamed`, `moved` (to another address) or `rekeyed`.
    pub what: String,
    /// The new name.
    pub to: Option<String>,
    pub live: u64,
    pub streams: u64,
    pub requests: u64,
    /// Live sessions that end by it.
    pub lost: u64,
}

/// What is logged.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFilter {
    pub filter: String,
}

/// Why a request failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failed {
    pub error: String,
}
