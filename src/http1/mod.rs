//! HTTP/1.1 as bytes (RFC 9112): heads, framing and bodies, read strictly and written canonically.
//!
//! A PURE codec: no sockets, no time, no state of ours. Whatever could be read in two ways is refused here, so
//! that nothing after it has to wonder; what leaves is always written anew from what was understood.
//!
//! Invariants: no function reads beyond what belongs to its message; everything it holds has a bound; the
//! result never depends on how the bytes were cut on their way.

pub mod body;
pub mod chunked;
pub mod fields;
pub mod framing;
pub mod request;
pub mod response;
pub mod write;
