//! Why a command ends otherwise than as wished, and the exit code that says so.

use std::{io, process::ExitCode};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The command line, or the environment.
    #[error("{0}")]
    Usage(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// A drain is not done.
    #[error("{0}")]
    SessionsLeft(String),
    /// Nobody answers.
    #[error(
        "cannot reach the admin listener at {place}: {error}: is homing running? set --admin or HOMING_ADMIN"
    )]
    Unreachable { place: String, error: io::Error },
    /// Something else answers, or nothing in time.
    #[error("the admin listener at {place} does not answer as homing does: {why}")]
    Strange { place: String, why: String },
    /// The proxy says no, or the answer cannot be shown.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Whoever reads the output has seen enough.
    #[error("the output was closed")]
    Closed,
}

// === impl Trouble ===

impl Trouble {
    /// Tells it to the user, and the exit code.
    pub(super) fn tell(&self) -> ExitCode {
        let code = match self {
            Self::Unreachable { .. } | Self::Strange { .. } | Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::SessionsLeft(_) => 3,
            Self::NotFound(_) => 4,
            Self::Interrupted => return ExitCode::from(130),
            Self::Closed => return ExitCode::SUCCESS,
        };
        eprintln!("error: {self}");
        ExitCode::from(code)
    }
}

impl From<io::Error> for Trouble {
    /// Of writing to standard output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(format!("cannot write: {error}")),
        }
    }
}
