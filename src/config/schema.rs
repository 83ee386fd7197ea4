//! Every table of the file and the keys that it may have.

/// One table of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The table as messages call it; empty for the top level.
    pub(super) title: &'static str,
    pub(super) keys: &'static [&'static str],
}

pub(super) static ROOT: Shape = Shape {
    title: "",
    keys: &[
        "workers",
        "trusted_proxies",
        "access_log",
        "log_query",
        "hsts",
        "listen",
        "certificate",
        "timeouts",
        "limits",
        "route",
        "pool",
    ],
};

pub(super) static LISTEN: Shape = Shape { title: "[listen]", keys: &["https", "http", "admin"] };

pub(super) static CERTIFICATE: Shape = Shape { title: "[[certificate]]", keys: &["cert", "key"] };

pub(super) static TIMEOUTS: Shape =
    Shape { title: "[timeouts]", keys: &["handshake", "head", "idle", "body", "drain"] };

pub(super) static LIMITS: Shape =
    Shape { title: "[limits]", keys: &["head_size", "headers", "body_size", "connections", "streams"] };

pub(super) static ROUTE: Shape = Shape { title: "[[route]]", keys: &["host", "path", "pool"] };

pub(super) static POOL: Shape = Shape {
    title: "[[pool]]",
    keys: &[
        "name",
        "balance",
        "slow_start",
        "keep_alive",
        "affinity",
        "health",
        "passive",
        "timeouts",
        "backend",
    ],
};

pub(super) static AFFINITY: Shape = Shape {
    title: "[pool.affinity]",
    keys: &[
        "key",
        "session_timeout",
        "ttl",
        "max_ttl",
        "max_age",
        "grace",
        "on_down",
        "max_sessions",
        "skip",
    ],
};

pub(super) static HEALTH: Shape = Shape {
    title: "[pool.health]",
    keys: &["path", "host", "interval", "timeout", "rise", "fall", "expect"],
};

pub(super) static PASSIVE: Shape = Shape { title: "[pool.passive]", keys: &["fall", "retry"] };

pub(super) static POOL_TIMEOUTS: Shape =
    Shape { title: "[pool.timeouts]", keys: &["connect", "head", "idle"] };

pub(super) static BACKEND: Shape = Shape { title: "[[pool.backend]]", keys: &["name", "url", "weight"] };

/// Every table.
pub(super) static ALL: [&Shape; 12] = [
    &ROOT,
    &LISTEN,
    &CERTIFICATE,
    &TIMEOUTS,
    &LIMITS,
    &ROUTE,
    &POOL,
    &AFFINITY,
    &HEALTH,
    &PASSIVE,
    &POOL_TIMEOUTS,
    &BACKEND,
];
