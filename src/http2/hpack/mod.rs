//! Fields as HTTP/2 compresses them (RFC 7541).

mod decoder;
mod encoder;

pub use self::{
    decoder::{Decoder, Field, Pseudo},
    encoder::Encoder,
};

/// What a field counts for beside its bytes (RFC 7541 §4.1, RFC 9113 §6.5.2).
pub const OVERHEAD: usize = 32;
/// Bytes of a dynamic table, unless something else is agreed on (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE: usize = 4096;
