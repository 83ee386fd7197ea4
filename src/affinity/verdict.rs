//! The words in which affinity explains itself; label values of metrics and of the access log.

/// What affinity decided for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The session is known and goes home.
    Home,
    /// No session yet: placed by the pool's balance.
    Placed,
    /// An id nobody knows: placed by rendezvous hashing.
    Provisional,
    /// The session's home is gone: placed elsewhere.
    Moved,
    /// No backend may serve it.
    Refused,
    /// A skipped path: balanced freely.
    Skipped,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The id is known.
    Known,
    /// The id is known under its earlier value and within the grace after a rename.
    Renamed,
    /// The session ended a moment ago; requests that were under way still go home.
    Ending,
    /// The home is draining and keeps its own.
    Draining,
    /// The request carries no id.
    NoId,
    /// The request carries no id and follows an earlier one of its client connection.
    Follows,
    /// The id is not in the table.
    UnknownId,
    /// The id is not in the table, but the proxy's own cookie names the home.
    Token,
    /// The id is that of a session that expired not long ago; it goes where that lived.
    Expired,
    /// The home does not serve.
    Down,
    /// The home has left the configuration.
    Removed,
    /// The home is not in the configuration yet; another replica has it.
    Absent,
    /// The home lost its memory: another instance answers under its name.
    Restarted,
    /// The home is in maintenance.
    Maintenance,
    /// No backend of the pool serves.
    NoBackend,
    /// The home does not serve and `on_down = "refuse"`.
    HomeDown,
    /// The path is skipped.
    SkippedPath,
}

/// Why a session left its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveReason {
    /// The home did not serve.
    Down,
    /// The home had left the configuration.
    Removed,
    /// The home had lost its memory.
    Restarted,
    /// The home was in maintenance, or past the deadline of its drain.
    Maintenance,
    /// An operator moved it.
    Admin,
    /// Another backend set the cookie to this session's id.
    Relearned,
    /// Another replica, or the process before this one, moved it.
    Announced,
}

/// Why a binding ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Idle for the TTL, or older than `max_age`.
    Expired,
    /// The application deleted the cookie.
    Logout,
    /// It made room in a full table.
    Capacity,
    /// Its home lost its memory.
    Restarted,
    /// Its home left the configuration.
    Removed,
    /// An operator ended it.
    Admin,
}

// === impl Verdict ===

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 6] =
        [Self::Home, Self::Placed, Self::Provisional, Self::Moved, Self::Refused, Self::Skipped];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Placed => "placed",
            Self::Provisional => "provisional",
            Self::Moved => "moved",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
        }
    }
}

// === impl Reason ===

impl Reason {
    /// The word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Renamed => "renamed",
            Self::Ending => "ending",
            Self::Draining => "draining",
            Self::NoId => "no-id",
            Self::Follows => "follows",
            Self::UnknownId => "unknown-id",
            Self::Token => "token",
            Self::Expired => "expired",
            Self::Down => "down",
            Self::Removed => "removed",
            Self::Absent => "absent",
            Self::Restarted => "restarted",
            Self::Maintenance => "maintenance",
            Self::NoBackend => "no-backend",
            Self::HomeDown => "home-down",
            Self::SkippedPath => "skipped-path",
        }
    }
}

// === impl MoveReason ===

impl MoveReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Down,
        Self::Removed,
        Self::Restarted,
        Self::Maintenance,
        Self::Admin,
        Self::Relearned,
        Self::Announced,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Removed => "removed",
            Self::Restarted => "restarted",
            Self::Maintenance => "maintenance",
            Self::Admin => "admin",
            Self::Relearned => "relearned",
            Self::Announced => "announced",
        }
    }
}

impl From<MoveReason> for Reason {
    fn from(reason: MoveReason) -> Self {
        match reason {
            MoveReason::Down => Self::Down,
            MoveReason::Removed => Self::Removed,
            MoveReason::Restarted => Self::Restarted,
            MoveReason::Maintenance | MoveReason::Admin => Self::Maintenance,
            MoveReason::Relearned | MoveReason::Announced => Self::Known,
        }
    }
}

// === impl EndReason ===

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Expired, Self::Logout, Self::Capacity, Self::Restarted, Self::Removed, Self::Admin];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Logout => "logout",
            Self::Capacity => "capacity",
            Self::Restarted => "restarted",
            Self::Removed => "removed",
            Self::Admin => "admin",
        }
    }
}
