//! Sharing sessions with other replicas through Redis or Valkey.
//!
//! The local table is a near cache: a session that is known here costs no round trip. Redis is asked for ids
//! that nobody here knows, and told of what answers change, before their heads go on. Everything else (signs
//! of life, what could not be told in time, other replicas' announcements, the cluster view) is the business
//! of one thread of its own.
//!
//! Invariants: a request waits for Redis at most for its budget in all, and not at all while the breaker is
//! open; nothing that Redis does or says makes a request fail; only keyed hashes and names of backends go
//! there; what comes from there is bounded, checked, and taken in by the rules of [`crate::affinity`].
//!
//! | key | what |
//! |---|---|
//! | `{prefix}:s:{pool}:{32 hex digits}` | a session, an alias, or the mark of one that ended |
//! | `{prefix}:replicas`, `{prefix}:replica:{name}` | who is there, and how each one is |
//! | `{prefix}:census`, `{prefix}:census:lock` | how many sessions live where |
//! | `{prefix}:secret` | shows replicas whose `secret_file` differs, and when it is gone, that Redis was emptied |
//! | `{prefix}:announce` | the channel of announcements |

mod breaker;
mod census;
mod client;
mod keeper;
mod link;
mod mark;
mod metrics;
mod pending;
mod request;
mod resync;
mod script;
mod value;
mod view;
mod words;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use data_encoding::BASE64;
use prometheus::Registry;
use redis::Value;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

pub use self::{
    breaker::BreakerState,
    keeper::Keeper,
    request::Budget,
    view::{BackendSummary, Census, Cluster, HomeCount, PoolCensus, PoolSummary, Summary},
};
use self::{
    client::Server,
    link::Link,
    mark::Mark,
    metrics::{Metrics, Operation},
    pending::{Pending, Recent, Subject, agree},
    script::{Mode, Write},
};
use crate::{
    affinity::{Absorbed, KeyHasher, Rule, SessionKey},
    clock,
    config::{self, Password, Topology},
    store::Entry,
    tls::{self, TlsError},
    world::Pool,
};

/// What all threads share of the way to Redis.
pub struct Shared {
    server: Server,
    names: Names,
    /// The longest time that one request waits, in all.
    budget: Duration,
    link: Link,
    /// Written by whoever hears of changes, read by the state thread.
    pending: Mutex<Pending>,
    /// There is something pending.
    wake: Notify,
    recent: Recent,
    /// All sessions are to be compared with Redis.
    stale: AtomicBool,
    compare: Notify,
    mark: Mark,
    cluster: Mutex<Cluster>,
    /// Whether the state thread has found out how Redis does. Only it writes, once.
    met: watch::Sender<bool>,
}

/// Names in Redis.
#[derive(Debug)]
struct Names {
    prefix: Box<str>,
    /// This replica, for people.
    replica: Box<str>,
    /// This process.
    id: Box<str>,
    /// The channel of announcements.
    channel: String,
}

/// Why sharing cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// A file that the configuration names cannot be read.
    #[error("cannot read `{key}` {}: {error}", file.display())]
    Io {
        /// The key.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Not a password.
    #[error("`redis_password_file` {} must hold one line, the password", .0.display())]
    Password(PathBuf),
    /// Not certificates.
    #[error("`redis_ca` {0}")]
    Ca(TlsError),
    /// The same metric twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Bytes of a password file or certificate bundle.
const MAX_FILE: u64 = 1 << 20;
/// For how long other replicas remember at least that an operator ended a session.
const MIN_GRACE: Duration = Duration::from_secs(1);
/// How long the start waits for Redis, which may be slow or silent.
const FIRST_CONTACT: Duration = Duration::from_secs(2);

// === impl Shared ===

impl Shared {
    /// Reads what the configuration names, and speaks to nobody yet. `replica` is this one's name.
    ///
    /// # Errors
    ///
    /// Files that cannot be read or hold something else.
    pub fn new(
        config: &config::Redis,
        replica: &str,
        hasher: &KeyHasher,
        registry: &Registry,
    ) -> Result<Self, SharedError> {
        let password = config.password_file.as_deref().map(password).transpose()?;
        let ca = config.ca.as_deref().map(certificates).transpose()?;
        let prefix = config.prefix.clone();
        Ok(Self {
            server: Server::new(config.url.clone(), password, ca),
            names: Names {
                channel: format!("{prefix}:announce"),
                id: format!("{:016x}", fastrand::u64(..)).into(),
                replica: replica.into(),
                prefix,
            },
            budget: config.timeout,
            link: Link::new(Metrics::register(registry)?),
            pending: Mutex::default(),
            wake: Notify::new(),
            recent: Recent::default(),
            stale: AtomicBool::new(false),
            compare: Notify::new(),
            mark: Mark::new(hasher),
            cluster: Mutex::default(),
            met: watch::Sender::new(false),
        })
    }

    /// Resolves when requests can ask Redis, when it is known that they cannot yet, or after [`FIRST_CONTACT`].
    /// A replica that serves earlier has to guess where sessions live that the others know.
    pub async fn met(&self) {
        let mut met = self.met.subscribe();
        // The sender is here.
        let _ = timeout(FIRST_CONTACT, met.wait_for(|met| *met)).await;
    }

    /// Whether requests wait for Redis.
    pub fn state(&self) -> BreakerState {
        self.link.state()
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Changes of sessions that Redis has yet to be told of.
    pub fn pending(&self) -> usize {
        self.lock_pending().len()
    }

    /// Where Redis is, without a password.
    pub fn url(&self) -> String {
        self.server.url().to_string()
    }

    /// Whether the sessions in Redis can be counted: not in a cluster, whose keys are on many servers.
    pub fn counts(&self) -> bool {
        self.server.url().topology != Topology::Cluster
    }

    /// This replica's name.
    pub fn replica(&self) -> &str {
        &self.names.replica
    }

    /// What Redis says while it refuses what it is told.
    pub fn refusal(&self) -> Option<Box<str>> {
        self.link.refusal()
    }

    /// An operator ended a session: Redis and the other replicas forget it, too. False when Redis did not
    /// hear of it.
    pub async fn forget(&self, pool: &Pool, key: SessionKey) -> bool {
        let (key, entry) = match Entry::of(pool, key) {
            Entry::Renamed { to, .. } => (to, Entry::of(pool, to)),
            entry => (key, entry),
        };
        let home = match (entry, pool.backends.first()) {
            (Entry::Session(session), _) => session.home,
            // Not one of this replica's.
            (_, Some(backend)) => backend.name().into(),
            (_, None) => return false,
        };
        let now = clock::unix_ms();
        let ended = Entry::Ended { home, until: now + clock::millis(pool.settings.grace.max(MIN_GRACE)) };
        let Some((value, _)) = value::encode(&ended, &pool.settings, now) else { return false };
        let name = self.names.session(pool, key);
        let message = format!("{}{value}}}", value::announcement_head(&self.names.id, &pool.name, key, None));
        let delete = view::with("DEL", &[&name]);
        let publish = view::with("PUBLISH", &[&self.names.channel, &message]);
        let deleted = self.link.tell(Operation::WriteBack, |_| delete.clone()).await.is_ok();
        let told = self.link.tell(Operation::WriteBack, |_| publish.clone()).await.is_ok();
        deleted && told
    }

    fn write<'a>(
        &'a self,
        pool: &Pool,
        key: SessionKey,
        entry: &Entry,
        mode: Mode<'a>,
        text: &'a mut Texts,
    ) -> Option<Write<'a>> {
        let (value, life) = value::encode(entry, &pool.settings, clock::unix_ms())?;
        let session = match entry {
            Entry::Renamed { to, .. } => Entry::of(pool, *to),
            _ => Entry::Gone,
        };
        let home = match &session {
            Entry::Session(session) => Some(&*session.home),
            _ => None,
        };
        *text = Texts {
            key: self.names.session(pool, key),
            value,
            head: value::announcement_head(&self.names.id, &pool.name, key, home),
        };
        Some(Write {
            key: &text.key,
            mode,
            value: &text.value,
            life,
            channel: &self.names.channel,
            head: &text.head,
            announce: match entry {
                // A guess: whoever knows better corrects it.
                Entry::Session(session) => session.unlearned || matches!(mode, Mode::Move { .. }),
                Entry::Renamed { .. } | Entry::Ended { .. } => true,
                Entry::Gone => false,
            },
        })
    }

    /// Takes in what [`script::MERGE`] answered to a write of `entry`.
    fn settle(&self, pool: &Pool, key: SessionKey, entry: &Entry, answer: &Value) {
        let subject = Subject::new(pool, key);
        match bytes(answer) {
            Some([]) => self.recent.note(subject, entry),
            Some(other) => match value::decode(other, clock::unix_ms()) {
                Some(other) => {
                    self.link.metrics.conflicts.inc();
                    other.absorb(pool, key, Rule::Always);
                    self.recent.note(subject, &Entry::of(pool, key));
                }
                None => self.link.metrics.bad.inc(),
            },
            None => self.link.metrics.bad.inc(),
        }
    }

    /// Takes in what Redis, or another replica, knows of a key.
    fn absorb(&self, pool: &Pool, key: SessionKey, entry: &Entry, rule: Rule) -> Absorbed {
        let absorbed = entry.absorb(pool, key, rule);
        entry.await_home(pool);
        let known = Entry::of(pool, key);
        if agree(&known, entry) {
            self.recent.note(Subject::new(pool, key), &known);
        }
        absorbed
    }

    fn lock_pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All sessions are to be compared with Redis, when there is one.
    fn compare_all(&self) {
        self.stale.store(true, Relaxed);
        self.compare.notify_one();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("url", self.server.url()).finish_non_exhaustive()
    }
}

/// What a [`Write`] borrows.
#[derive(Debug, Default)]
struct Texts {
    key: String,
    value: String,
    head: String,
}

// === impl Names ===

impl Names {
    fn session(&self, pool: &Pool, key: SessionKey) -> String {
        format!("{}:s:{}:{}", self.prefix, pool.name, value::hex(key))
    }

    fn summary(&self, replica: &str) -> String {
        format!("{}:replica:{replica}", self.prefix)
    }

    fn of(&self, what: &str) -> String {
        format!("{}:{what}", self.prefix)
    }
}

/// A string that Redis answered.
fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// The password in this file.
///
/// # Errors
///
/// When it cannot be read, or is not one line.
pub fn password(file: &Path) -> Result<Password, SharedError> {
    let text = read("redis_password_file", file)?;
    let text = String::from_utf8(text).map_err(|_| SharedError::Password(file.to_owned()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.contains(char::is_control) {
        return Err(SharedError::Password(file.to_owned()));
    }
    Ok(Password::new(text))
}

/// The certificates in this file, in PEM.
///
/// # Errors
///
/// When it cannot be read, holds none, or something that is not read.
pub fn certificates(file: &Path) -> Result<Vec<u8>, SharedError> {
    let mut pem = String::new();
    for certificate in tls::read_chain(file).map_err(SharedError::Ca)? {
        let body = BASE64.encode(&certificate);
        pem.push_str(&format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"));
    }
    Ok(pem.into_bytes())
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, SharedError> {
    use io::Read as _;
    let failed = |error| SharedError::Io { key, file: file.to_owned(), error };
    let mut text = Vec::new();
    fs::File::open(file).map_err(failed)?.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}
