//! The commands that are sent, as far as they are more than a name and a key.

use std::{sync::LazyLock, time::Duration};

use redis::{Cmd, Script, cmd};

use crate::clock;

/// A script of ours; named by its hash, sent whole when the server does not have it (any more).
#[derive(Debug)]
pub(super) struct Source {
    code: &'static str,
    hash: LazyLock<String>,
}

/// How a value is written over what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode<'a> {
    /// Whoever was there: an application set the cookie.
    Set,
    /// Unless anybody was there.
    New,
    /// If the session is still where it came from.
    Move {
        /// That home.
        from: &'a str,
    },
    /// If it is the later word.
    Merge,
}

/// One value to be written.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) key: &'a str,
    pub(super) mode: Mode<'a>,
    pub(super) value: &'a str,
    pub(super) life: Duration,
    pub(super) channel: &'a str,
    /// What stands before the value in an announcement.
    pub(super) head: &'a str,
    /// Whether to announce it even where nothing was; what replaces something else always is.
    pub(super) announce: bool,
}

/// See there.
pub(super) static MERGE: Source = Source {
    code: include_str!("merge.lua"),
    hash: LazyLock::new(|| Script::new(include_str!("merge.lua")).get_hash().to_owned()),
};
/// See there.
pub(super) static CENSUS: Source = Source {
    code: include_str!("census.lua"),
    hash: LazyLock::new(|| Script::new(include_str!("census.lua")).get_hash().to_owned()),
};

// === impl Source ===

impl Source {
    /// The command that runs it; `whole` when the server does not know the hash.
    pub(super) fn command(&self, whole: bool, keys: &[&str]) -> Cmd {
        let mut command = cmd(if whole { "EVAL" } else { "EVALSHA" });
        command.arg(if whole { self.code } else { &self.hash }).arg(keys.len()).arg(keys);
        command
    }
}

// === impl Mode ===

impl Mode<'_> {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::New => "new",
            Self::Move { .. } => "move",
            Self::Merge => "merge",
        }
    }
}

// === impl Write ===

impl Write<'_> {
    pub(super) fn command(&self, whole: bool) -> Cmd {
        let mut command = MERGE.command(whole, &[self.key]);
        let from = match self.mode {
            Mode::Move { from } => from,
            _ => "",
        };
        let life = clock::millis(self.life).clamp(1, MAX_LIFE);
        command.arg(self.mode.as_str()).arg(self.value).arg(life).arg(from);
        command.arg(self.channel).arg(self.head).arg(u8::from(self.announce));
        command
    }
}

/// Milliseconds; Redis refuses times that its clock cannot hold.
const MAX_LIFE: u64 = 10 * 366 * 24 * 3600 * 1000;

/// The first bytes of a value: one more than it may have, so that a longer one shows.
pub(super) fn read(key: &str) -> Cmd {
    let mut command = cmd("GETRANGE");
    command.arg(key).arg(0).arg(super::value::MAX_VALUE);
    command
}
