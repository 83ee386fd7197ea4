//! Fields as HTTP/2 compresses them (RFC 7541).

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

mod decoder;
mod encoder;
mod huffman;
mod integer;
mod table;

pub use self::{
    decoder::{Decoder, Section},
    encoder::Encoder,
};

/// What a field counts for beside its bytes (RFC 7541 §4.1, RFC 9113 §6.5.2).
pub const OVERHEAD: usize = 32;
/// Bytes of a dynamic table, unless something else is agreed on (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE: usize = 4096;

/// One field, ready to be kept: clones share its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A pseudo-header field.
    Pseudo(Pseudo, Bytes),
    /// Any other.
    Regular(HeaderName, HeaderValue),
    /// A field with a name that none can have, or, where there is one, with a value that none can have; and the rule.
    Malformed(Option<HeaderName>, &'static str),
}

/// Names of pseudo-header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pseudo {
    /// Of a request.
    Method,
    /// Of a request.
    Scheme,
    /// Of a request.
    Authority,
    /// Of a request.
    Path,
    /// Of an extended CONNECT (RFC 8441 §4).
    Protocol,
    /// Of an answer.
    Status,
}

/// Why nothing can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It has not come whole.
    Short,
    /// It breaks a rule.
    Broken(&'static str),
}

// === impl Pseudo ===

impl Pseudo {
    /// The name as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Status => ":status",
        }
    }

    fn find(name: &[u8]) -> Option<Self> {
        [Self::Method, Self::Scheme, Self::Authority, Self::Path, Self::Protocol, Self::Status]
            .into_iter()
            .find(|pseudo| pseudo.as_str().as_bytes() == name)
    }
}
