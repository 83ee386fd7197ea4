//! What two processes say to each other.
//!
//! The first frame of either side is the same in every version: the magic word and the version it speaks. A side
//! that meets another version says so and stops.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};

/// The version of all that follows the greeting.
pub(super) const VERSION: u32 = 2;
/// What a greeting begins with.
const MAGIC: &[u8] = b"homing hand-over";

/// Kinds of frames.
pub(super) mod kind {
    /// Both: [`greeting`](super::greeting). The first frame of either side.
    pub(crate) const HELLO: u8 = 1;
    /// Giver: why not, as text; the last frame.
    pub(crate) const REFUSED: u8 = 2;
    /// Giver: an [`Offer`](super::Offer), and the file descriptor of the [`Verdict`](super::super::verdict::Verdict).
    pub(crate) const OFFER: u8 = 3;
    /// Giver: a [`Labels`](super::Labels), and as many file descriptors.
    pub(crate) const SOCKETS: u8 = 4;
    /// Taker: it wants the bindings.
    pub(crate) const TABLE: u8 = 5;
    /// Both: bindings of one pool, as in [`entries`](super::super::entries).
    pub(crate) const ENTRIES: u8 = 6;
    /// Giver: all that there were have been sent; their number (u64).
    pub(crate) const TABLE_END: u8 = 7;
    /// Taker: it accepts clients.
    pub(crate) const READY: u8 = 8;
    /// Giver: it accepts none any more.
    pub(crate) const RELEASED: u8 = 9;
    /// Both: what is known of one key? A number (u64) for the answer, and the key as in `ENTRIES`, as `Gone`.
    pub(crate) const ASK: u8 = 10;
    /// Both: the number of the question (u64), and what is known as in `ENTRIES`.
    pub(crate) const TOLD: u8 = 11;
    /// Giver: it has let go of files that only one process can have.
    pub(crate) const FREED: u8 = 12;
    /// Giver: what it still carries, as in [`carried`](super::super::carried); to a taker that knows it.
    pub(crate) const CARRIED: u8 = 13;
    /// Giver: how many processes before it still run (u64); to a taker that knows it.
    pub(crate) const EARLIER: u8 = 14;
    /// Taker: what operators want of backends now, a [`Steered`](super::Steered); to a giver that knows it.
    pub(crate) const STEERED: u8 = 15;
}

/// What of this version came later: a process says which of it it knows, and is sent nothing else.
pub(super) mod feature {
    /// `CARRIED`, `EARLIER` and `STEERED`.
    pub(crate) const CARRIED: u32 = 1;
}

/// What the giver has, but for bindings.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Offer {
    /// Version of the program that gives.
    pub(super) release: String,
    /// Its process id.
    pub(super) pid: u32,
    /// How many sockets follow.
    pub(super) sockets: usize,
    pub(super) secret: OfferedSecret,
    /// The key, in hexadecimal digits, of cookies of the proxy's own that has no file.
    pub(super) process_key: Option<String>,
    pub(super) pools: Vec<PoolState>,
}

/// The secret under which ids become keys.
#[derive(Deserialize, Serialize)]
pub(super) enum OfferedSecret {
    /// It dies with the process: here it is, in hexadecimal digits.
    Given(String),
    /// It is in a file: only what tells it from another one.
    File {
        /// Where.
        path: String,
        /// A keyed hash under it.
        mark: String,
    },
}

/// A pool as the giver knows it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct PoolState {
    pub(super) name: String,
    pub(super) backends: Vec<BackendState>,
}

/// A backend as the giver knows it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct BackendState {
    pub(super) name: String,
    /// `host:port`: health is that of an address.
    pub(super) authority: String,
    pub(super) up: bool,
    /// `ready`, `draining`, `maintenance`.
    pub(super) admin: String,
    /// Time until its drain ends in maintenance.
    pub(super) deadline: Option<Duration>,
    /// The weight in use, and the configured one it was set over.
    pub(super) weight: u32,
    pub(super) configured_weight: u32,
    /// Hash of the id of its present instance, 0 for none; and since when, in Unix milliseconds.
    pub(super) instance: u64,
    pub(super) instance_since: u64,
}

/// What operators want of backends of one pool, where that has changed: names, and `ready`, `draining` or
/// `maintenance`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Steered {
    pub(super) pool: String,
    pub(super) backends: Vec<(String, String)>,
}

/// For which listeners the file descriptors of a frame are.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Labels(pub(super) Vec<String>);

// === impl OfferedSecret ===

impl std::fmt::Debug for OfferedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OfferedSecret(…)")
    }
}

/// The first frame of this side. A side that knows no features reads no further than the version.
pub(super) fn greeting() -> Vec<u8> {
    [MAGIC, &VERSION.to_be_bytes(), &feature::CARRIED.to_be_bytes()].concat()
}

/// The features that the other side knows.
pub(super) fn features(greeting: &[u8]) -> u32 {
    let features = greeting.strip_prefix(MAGIC).and_then(|rest| rest.get(4..)?.first_chunk());
    features.map_or(0, |features| u32::from_be_bytes(*features))
}

/// The version that the other side speaks; none when it is no `homing`.
pub(super) fn version(greeting: &[u8]) -> Option<u32> {
    let version = greeting.strip_prefix(MAGIC)?.first_chunk()?;
    Some(u32::from_be_bytes(*version))
}

/// A structure as the payload of a frame.
pub(super) fn encode(value: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(Into::into)
}

/// A payload as the structure it is.
pub(super) fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> io::Result<T> {
    serde_json::from_slice(payload).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_tells_the_version_and_nothing_else_is_one() {
        assert_eq!(version(&greeting()), Some(VERSION));
        assert_eq!(features(&greeting()), feature::CARRIED);
        assert_eq!(features(b"homing hand-over\0\0\0\x01"), 0, "one of before there were any");
        assert_eq!(version(b"homing hand-over\0\0\x01\0 and more of a later version"), Some(256));
        for other in [&b""[..], b"GET / HTTP/1.1", b"homing hand-over", b"homing hand-over\0\0\0"] {
            assert_eq!(version(other), None);
        }
    }

    #[test]
    fn a_secret_on_its_way_is_not_printed() {
        let secret = OfferedSecret::Given("00112233".to_owned());
        assert!(!format!("{secret:?}").contains("0011"));
    }
}
