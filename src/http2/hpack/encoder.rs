//! Writing compressed fields.

use bytes::BytesMut;
use http::{HeaderMap, StatusCode};

/// The fields that our peer remembers.
#[derive(Debug)]
pub struct Encoder {
    max: usize,
}

impl Encoder {
    /// An encoder for a peer that has not said how much it remembers. Nothing is allocated yet.
    pub const fn new() -> Self {
        Self { max: super::DEFAULT_TABLE }
    }

    /// Obeys the peer's SETTINGS_HEADER_TABLE_SIZE.
    pub fn set_max_size(&mut self, size: u32) {
        self.max = size as usize;
    }

    /// Appends the fields of an answer's head.
    pub fn response(&mut self, out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
        let _ = (status, headers, out);
    }

    /// Appends trailers.
    pub fn trailers(&mut self, out: &mut BytesMut, trailers: &HeaderMap) {
        let _ = (trailers, out);
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}
