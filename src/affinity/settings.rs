//! How one pool's sessions are found, kept and placed; the affinity half of a pool's configuration.

use std::{num::NonZeroUsize, time::Duration};

use super::sources::KeySources;

/// The affinity settings of one pool. A value of this type is already valid: `ttl` is longer than
/// `session_timeout`, `keys` may be empty (then every request is balanced freely).
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where the session id is looked for.
    pub keys: KeySources,
    /// The application's own idle timeout: a binding idle for less is *live*.
    pub session_timeout: Duration,
    /// Idle time after which a binding is forgotten; between the two it is *retained*.
    pub ttl: Duration,
    /// Upper bound for a TTL that a cookie's Max-Age or Expires lengthens.
    pub max_ttl: Duration,
    /// Absolute age at which a binding ends even when it is in use; none by default.
    pub max_age: Option<Duration>,
    /// How long an ended or renamed id still goes home, for requests that were under way.
    pub grace: Duration,
    /// What happens to a request whose home is down.
    pub on_down: OnDown,
    /// Bindings kept at most.
    pub max_sessions: NonZeroUsize,
    /// Path patterns whose requests are balanced freely and teach nothing.
    pub skip: Vec<PathPattern>,
    /// How a request without a binding is placed.
    pub balance: Balance,
    /// Where a request goes whose id is not known.
    pub on_unknown: OnUnknown,
    /// Time over which a fresh backend's share of new sessions ramps up; zero for none.
    pub slow_start: Duration,
}

/// Where a session id is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The cookie of this name, in all Cookie header fields.
    Cookie(Box<str>),
    /// The header field of this (lower-case) name; learned from the response field of that name.
    Header(Box<str>),
    /// The query parameter of this name.
    Query(Box<str>),
    /// The parameter of this name of any segment of the path (RFC 3986 §3.3): `;jsessionid=…`.
    PathParameter(Box<str>),
    /// The token of `Authorization: Bearer`.
    Bearer,
    /// The client's address, cut to these prefix lengths.
    Address {
        /// Prefix length for IPv4.
        v4: u8,
        /// Prefix length for IPv6.
        v6: u8,
    },
}

/// What happens to a request whose home is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    /// It is placed on another backend, and its session moves when that succeeds.
    Move,
    /// It waits this long for its home to come back, then moves.
    Wait(Duration),
    /// It is answered 503.
    Refuse,
}

/// Where a request goes whose id is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// Where the hash of its id leads, by rendezvous: every replica, and a proxy that lost its table, sends it to the
    /// same backend.
    #[default]
    Hash,
    /// Where a request without an id would go.
    Place,
}

/// How a request without a binding is placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The backend with the fewest live sessions for its weight.
    #[default]
    LeastSessions,
    /// The backend with the fewest requests in flight for its weight.
    LeastRequests,
    /// In turn, by weight.
    RoundRobin,
}

/// A path pattern: `/static/` matches every path that begins so, `*.css` every path that ends so,
/// anything else only itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// Matches paths that begin with this.
    Prefix(Box<str>),
    /// Matches paths that end with this.
    Suffix(Box<str>),
    /// Matches only this path.
    Exact(Box<str>),
}

// === impl PathPattern ===

impl PathPattern {
    /// Reads a pattern; an empty one, or one with neither a leading `/` nor a leading `*`, is none.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(suffix) = text.strip_prefix('*') {
            return (!suffix.is_empty() && !suffix.contains('*')).then(|| Self::Suffix(suffix.into()));
        }
        if !text.starts_with('/') {
            return None;
        }
        let prefix = text.strip_suffix('*').unwrap_or(text);
        if prefix.contains('*') {
            None
        } else if prefix.len() < text.len() || prefix.ends_with('/') {
            Some(Self::Prefix(prefix.into()))
        } else {
            Some(Self::Exact(prefix.into()))
        }
    }

    /// Whether `path` (without its query) matches.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => path.starts_with(&**prefix),
            Self::Suffix(suffix) => path.ends_with(&**suffix),
            Self::Exact(exact) => path == &**exact,
        }
    }
}
