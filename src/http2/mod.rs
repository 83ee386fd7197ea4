//! HTTP/2 as bytes (RFC 9113, RFC 7541): frames and compressed fields, read strictly and written canonically.
//!
//! A PURE codec, as that of HTTP/1.1: no sockets, no time, no streams. What a frame means for the state of a stream or of
//! a window is decided by whoever holds the connection; here, a frame is only looked at by itself, beside the one rule
//! that nothing may come between the parts of a head.
//!
//! Invariants: the result never depends on how the bytes were cut on their way; no more is built than the caller allows,
//! however small the bytes are that ask for it; after anything but an error of the connection, both compression tables
//! agree with those of the peer.

use std::fmt;

pub mod frame;
pub mod head;
pub mod hpack;
pub mod settings;
pub mod write;

/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub const FRAME_HEAD: usize = 9;
/// Bytes of a frame's payload that we take: the least that may be announced, and enough for whole TLS records.
pub const MAX_FRAME: usize = 16 * 1024;
/// The largest window (RFC 9113 §6.9.1).
pub const MAX_WINDOW: u32 = 0x7fff_ffff;
/// The largest identifier of a stream.
pub const MAX_STREAM: u32 = 0x7fff_ffff;

/// Why a stream or a connection ends (RFC 9113 §7). A peer may send any number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

/// A peer broke a rule; the text names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing on the connection can be trusted any more (RFC 9113 §5.4.1).
    #[error("{1} ({0:?})")]
    Connection(Code, &'static str),
    /// Of this stream, nothing more is wanted; what follows on the connection is (§5.4.2).
    #[error("stream {0}: {2} ({1:?})")]
    Stream(u32, Code, &'static str),
}

// === impl Code ===

impl Code {
    /// Nothing went wrong.
    pub const NO_ERROR: Self = Self(0);
    /// A rule was broken for which there is no other code.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Something went wrong here.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More came than a window allows.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// Settings were not acknowledged in time.
    pub const SETTINGS_TIMEOUT: Self = Self(4);
    /// A frame for a half that is closed.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame of a size that it must not have.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// A stream that nobody has looked at, which may be tried again.
    pub const REFUSED_STREAM: Self = Self(7);
    /// A stream that is not needed any more.
    pub const CANCEL: Self = Self(8);
    /// The compression's state is lost.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The connection of a CONNECT broke.
    pub const CONNECT_ERROR: Self = Self(10);
    /// The peer does too much of something.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
    /// The transport is not safe enough.
    pub const INADEQUATE_SECURITY: Self = Self(12);
    /// HTTP/1.1 is asked for instead.
    pub const HTTP_1_1_REQUIRED: Self = Self(13);
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "error {:#x}", self.0),
        }
    }
}
