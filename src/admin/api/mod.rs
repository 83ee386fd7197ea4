//! The JSON API of operators, by topic. `model` is what it says.
//!
//! Session ids come in bodies only, are hashed where they are read, and go nowhere else: not into answers,
//! not into errors, not into the log.

mod cluster;
mod control;
mod drain;
mod explain;
mod model;
mod sessions;
mod status;

use std::{fmt, sync::Arc, time::Duration};

pub use self::cluster::ClusterStatus;
pub use self::model::{
    BackendStatus, ChangesBy, ConfigStatus, Counts, CrowdStatus, Discovers, DrainEnd, DrainProgress,
    Explained, ExplainedKnown, ExplainedMove, Failed, Forgotten, HealthEntry, Latency, LogFilter, Moved,
    PoolStatus, ReloadEffect, Reloaded, SessionEntry, SessionPage, Status,
};
pub(super) use self::{
    cluster::cluster,
    control::{log, reload, set_log},
    drain::{drain, maintenance, progress, undrain, weigh},
    explain::{explain, forget, move_to},
    sessions::sessions,
    status::status,
};
use super::{access::Right, reply::Failure, router::Target};
use crate::{
    backend::Backend,
    world::{Pool, Snapshot},
};

/// Who asks; for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) right: Right,
    pub(super) peer: Peer,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// Of a TCP connection.
    Address(std::net::SocketAddr),
    /// A process on the Unix socket, by its user.
    User(Option<u32>),
}

// === impl Caller ===

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.right == Right::Token {
            f.write_str("token ")?;
        }
        self.peer.fmt(f)
    }
}

// === impl Peer ===

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::User(Some(uid)) => write!(f, "socket uid={uid}"),
            Self::User(None) => f.write_str("socket"),
        }
    }
}

/// The backend that a path names.
fn find<'a>(
    snapshot: &'a Snapshot,
    target: &Target<'_>,
) -> Result<(&'a Arc<Pool>, &'a Arc<Backend>), Failure> {
    let missing = |kind, name: &str| Failure::NotFound { kind, name: name.escape_debug().to_string() };
    let pool = snapshot.pool(&target.pool).ok_or_else(|| missing("pool", &target.pool))?;
    let backend = pool.backend(&target.backend).ok_or_else(|| missing("backend", &target.backend))?;
    Ok((pool, backend))
}

/// The backend that a path names, or the one that had the name until it left.
fn find_or_former<'a>(
    snapshot: &'a Snapshot,
    target: &Target<'_>,
) -> Result<(&'a Arc<Pool>, &'a Arc<Backend>), Failure> {
    find(snapshot, target).or_else(|failure| {
        let pool = snapshot.pool(&target.pool);
        pool.and_then(|pool| Some((pool, pool.former(&target.backend)?))).ok_or(failure)
    })
}

/// The value of a query parameter.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Seconds with milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
