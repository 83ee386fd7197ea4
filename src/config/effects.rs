//! What a reload means for sessions, in numbers and words.

use std::fmt;

use crate::affinity::Left;

/// What a reload does to the sessions of a backend, or of a whole pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub pool: Box<str>,
    /// None when it is the whole pool.
    pub backend: Option<Box<str>>,
    pub what: What,
    /// What is there at that moment.
    pub left: Left,
}

/// What becomes of a backend and its sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It leaves, and its sessions stay there until they are idle.
    Leaves,
    /// It leaves and its sessions end, for this reason.
    Cut(&'static str),
    /// It is back before it had drained.
    Returns,
    /// It has this name from now on.
    Renamed(Box<str>),
    /// Its sessions go to another address.
    Moved,
    /// Its sessions, or the pool's, are looked for by another key.
    Rekeyed,
}

// === impl Effect ===

impl Effect {
    /// How many live sessions end, or lose what the application knows of them.
    pub fn lost(&self) -> u64 {
        match self.what {
            What::Cut(_) | What::Rekeyed => self.left.sessions.into(),
            What::Leaves | What::Returns | What::Renamed(_) | What::Moved => 0,
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {}", self.pool)?;
        if let Some(backend) = &self.backend {
            write!(f, ": {backend}")?;
        }
        let Left { requests, sessions, streams } = self.left;
        let live = format!("{sessions} live session{}", if sessions == 1 { "" } else { "s" });
        let (stays, ends, goes) =
            if sessions == 1 { ("stays", "ends", "goes") } else { ("stay", "end", "go") };
        match &self.what {
            What::Leaves => {
                write!(f, " leaves: {live} {stays} until idle")?;
                let requests = requests.saturating_sub(streams);
                match (streams, requests) {
                    (0, 0) => Ok(()),
                    _ => write!(f, " ({streams} open streams, {requests} requests)"),
                }
            }
            What::Cut("") => write!(f, " leaves: {live} {ends}"),
            What::Cut(why) => write!(f, " leaves: {live} {ends} ({why})"),
            What::Returns => write!(f, " is back: {live} {stays}"),
            What::Renamed(to) => write!(f, " is renamed to {to}: {live} {stays}"),
            What::Moved => write!(f, " has another address: {live} {goes} there"),
            What::Rekeyed => write!(f, ": {live} known by the former key only: {ends}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_a_sentence_with_its_number_of_sessions() {
        let effect = |what, sessions, streams| Effect {
            pool: "shop".into(),
            backend: Some("app-3".into()),
            what,
            left: Left { requests: 2 * streams, sessions, streams },
        };
        for (effect, said, lost) in [
            (effect(What::Leaves, 7, 0), "pool shop: app-3 leaves: 7 live sessions stay until idle", 0),
            (
                effect(What::Leaves, 1, 2),
                "pool shop: app-3 leaves: 1 live session stays until idle (2 open streams, 2 requests)",
                0,
            ),
            (
                effect(What::Cut("it is down"), 7, 0),
                "pool shop: app-3 leaves: 7 live sessions end (it is down)",
                7,
            ),
            (
                effect(What::Renamed("app-4".into()), 7, 0),
                "pool shop: app-3 is renamed to app-4: 7 live sessions stay",
                0,
            ),
        ] {
            assert_eq!((effect.to_string(), effect.lost()), (said.to_owned(), lost));
        }
    }
}
